"""Find the peer programs, ask for their versions, wait until they listen."""

from __future__ import annotations

import re
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

from packetcloud.testbed.errors import MissingToolError, TestbedError
from packetcloud.testbed.processes import Child, wait_until

PACKAGES = {
    "iperf3": "iperf3",
    "zstd": "zstd",
    "socat": "socat",
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "microsocks": "microsocks",
    "tc": "iproute2",
    "curl": "curl",
    "nft": "nftables",
    "ovs-vswitchd": "openvswitch-switch",
    "ovsdb-server": "openvswitch-switch",
    "ovsdb-tool": "openvswitch-common",
    "ovs-vsctl": "openvswitch-switch",
    "lxd": "lxd",
}
"""Program and the Debian package that brings it."""
START_TIMEOUT_S = 10.0
_PORTS = range(10_000, 20_000)
"""Below those that Linux gives out by itself, which begin at 32768."""
_TRIES_COUNT = 100
_VERSION_FLAGS = {
    "iperf3": "--version",
    "zstd": "--version",
    "socat": "-V",
    "haproxy": "-v",
    "nginx": "-v",
    "curl": "--version",
    "nft": "--version",
    "ovs-vswitchd": "--version",
    "lxd": "--version",
}
_SYSTEM_PATHS = "/usr/sbin:/sbin:/usr/local/sbin"
_LISTEN = "0A"


def find_tool(name: str) -> str:
    """Return the path of a peer program.

    Raises:
        MissingToolError: it is not installed.
    """
    path = shutil.which(name) or shutil.which(name, path=_SYSTEM_PATHS)
    if path is None:
        raise MissingToolError(f"{name} is not installed; try: apt-get install {PACKAGES[name]}")
    return path


def tool_version(name: str) -> str | None:
    """Return the version of a peer program, None if it is not installed."""
    try:
        done = subprocess.run(
            [find_tool(name), _VERSION_FLAGS[name]], capture_output=True, text=True, timeout=10
        )
    except (MissingToolError, OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\d+\.\d+[\w.+~-]*", done.stdout + done.stderr)
    return found.group() if found else None


def tool_versions(*names: str) -> dict[str, str | None]:
    return {name: tool_version(name) for name in names}


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of this machine that is free just now, for TCP and for UDP.

    Whoever asks the kernel for any port gets another one, so that it stays free until it is used.

    Raises:
        TestbedError: none was found.
    """
    for _ in range(_TRIES_COUNT):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((host, port))
                udp.bind((host, port))
            except OSError:
                continue
            return port
    raise TestbedError(f"no free port of {_PORTS.start} to {_PORTS.stop - 1} was found")


def wait_listening(child: Child, port: int) -> None:
    """Wait until somebody listens on TCP `port` in the network namespace of `child`.

    Looked up in /proc, because a connection made only to try would be served.

    Raises:
        ChildError: not within ten seconds, or the child ended.
    """

    def is_listening() -> bool:
        if not child.is_running:
            child.wait_event("listening", 0.5)  # raises with the child's last words
        return any(_has_listener(Path(f"/proc/{child.pid}/net/{name}"), port) for name in _TABLES)

    wait_until(is_listening, START_TIMEOUT_S, f"{child.name} listens on port {port}")


_TABLES = ("tcp", "tcp6")


def _has_listener(table: Path, port: int) -> bool:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return False
    for line in lines:
        _, local, _, state = line.split()[:4]
        if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
            return True
    return False
