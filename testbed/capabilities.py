"""What this machine can do for PacketCloud, found out by trying.

A kernel version says little about a kernel: offloads are tried on loopback sockets, namespaces by
making one. Nothing is changed; what a probe makes is gone when it returns. `doctor` says what the
facts mean.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

UDP_SEGMENT = 103
"""linux/udp.h: split one large send into datagrams of this size."""
UDP_GRO = 104
"""linux/udp.h: receive consecutive datagrams of one flow in one piece."""
SO_RCVBUFFORCE = 33
CAP_NET_ADMIN = 12
WANTED_BUFFER_BYTES = 8 << 20
"""Eight full chunks may wait in the kernel while Python is busy: no loss in a pause of 6 ms at
10 Gbit/s."""
COMMANDS = (
    "ip",
    "ethtool",
    "iperf3",
    "socat",
    "haproxy",
    "nginx",
    "nft",
    "ovs-vswitchd",
    "tcpdump",
    "debootstrap",
    "btrfs",
    "mksquashfs",
)
CGROUP_CONTROLLERS = ("cpu", "io", "memory", "pids")
"""What limits of containers need."""
MODULES = ("grpc", "matplotlib")
LXD_SOCKETS = (
    Path("/var/snap/lxd/common/lxd/unix.socket"),
    Path("/var/lib/lxd/unix.socket"),
)
_SBIN = ("/usr/sbin", "/sbin")
_PROBE_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What was found out; None means that it could not be found out."""

    system: str
    kernel: str
    python: tuple[int, int, int]
    cores_count: int
    has_aes_instructions: bool
    can_use_loopback: bool
    has_udp_segment: bool
    has_udp_gro: bool
    rmem_max_bytes: int | None
    wmem_max_bytes: int | None
    granted_receive_buffer_bytes: int
    """What a socket really got when it asked for `WANTED_BUFFER_BYTES`, by force if allowed."""
    is_root: bool
    has_net_admin: bool
    can_make_namespaces: bool
    can_make_veth: bool
    can_emulate_links: bool
    can_make_tun: bool
    congestion_controls: tuple[str, ...]
    has_apparmor: bool
    cgroups: str
    """`v2`, `v1 and v2`, `v1` or `absent`."""
    cgroup_controllers: frozenset[str]
    """Those of `CGROUP_CONTROLLERS` that are on, whatever the version."""
    has_seccomp_filter: bool
    container_ids_count: int
    """User ids that root may lend to containers, as /etc/subuid says."""
    lxd: str
    """`running`, `installed` (no server answers) or `absent`."""
    commands: dict[str, str | None]
    """Path of each of `COMMANDS`."""
    modules: dict[str, bool]
    """Which of `MODULES` can be imported."""


def find_capabilities() -> Capabilities:
    """Try everything out and return the facts; takes about half a second."""
    gro = _try_segmentation_and_gro()
    namespaces = probe_namespaces()
    major, minor, micro = sys.version_info[:3]
    return Capabilities(
        system=platform.system(),
        kernel=platform.release(),
        python=(major, minor, micro),
        cores_count=len(os.sched_getaffinity(0)),
        has_aes_instructions=_has_aes_instructions(),
        can_use_loopback=gro is not None,
        has_udp_segment=gro is not None and gro[0],
        has_udp_gro=gro is not None and gro[1],
        rmem_max_bytes=_read_int(Path("/proc/sys/net/core/rmem_max")),
        wmem_max_bytes=_read_int(Path("/proc/sys/net/core/wmem_max")),
        granted_receive_buffer_bytes=_granted_receive_buffer_bytes(),
        is_root=os.geteuid() == 0,
        has_net_admin=_has_capability(CAP_NET_ADMIN),
        can_make_namespaces=namespaces.get("namespaces", False),
        can_make_veth=namespaces.get("veth", False),
        can_emulate_links=namespaces.get("netem", False),
        can_make_tun=namespaces.get("tun", False),
        congestion_controls=tuple(
            _read(Path("/proc/sys/net/ipv4/tcp_available_congestion_control")).split()
        ),
        has_apparmor=_read(Path("/sys/module/apparmor/parameters/enabled")).strip() == "Y",
        cgroups=_cgroups(),
        cgroup_controllers=_cgroup_controllers(),
        has_seccomp_filter="errno" in _read(Path("/proc/sys/kernel/seccomp/actions_avail")).split(),
        container_ids_count=_container_ids_count(),
        lxd=_lxd_state(),
        commands={command: find_command(command) for command in COMMANDS},
        modules={name: importlib.util.find_spec(name) is not None for name in MODULES},
    )


def find_command(command: str) -> str | None:
    """Return the path of a command; daemons in sbin are found although users' paths lack it."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])
    return shutil.which(command, path=path)


def _try_segmentation_and_gro() -> tuple[bool, bool] | None:
    """Send two datagrams in one call over loopback; see whether they arrive in one piece.

    Returns (segmentation works, GRO works), None when loopback does not work at all.
    """
    segment_bytes = 1200
    payload = bytes(2 * segment_bytes)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        try:
            receiver.bind(("127.0.0.1", 0))
            receiver.settimeout(2.0)
            sender.connect(receiver.getsockname())
            sender.send(b"plain")
            receiver.recv(16)
        except OSError:
            return None
        with contextlib.suppress(OSError):
            receiver.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        try:
            sender.setsockopt(socket.SOL_UDP, UDP_SEGMENT, segment_bytes)
            sender.send(payload)
            received = len(receiver.recv(65536))
        except OSError:
            # Without segmentation nothing can be said about GRO, and GRO alone gains little.
            return False, False
        return received in (segment_bytes, len(payload)), received == len(payload)


def _granted_receive_buffer_bytes() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WANTED_BUFFER_BYTES)
        with contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, WANTED_BUFFER_BYTES)
        # The kernel reports twice what it was asked for, to count its own overhead (socket(7)).
        return probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def probe_namespaces() -> dict[str, bool]:
    """Try namespaces and what can be made in them, in a process of its own; see there."""
    command = [sys.executable, "-m", "packetcloud.testbed.namespace_probe"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True
        )
        found: dict[str, bool] = json.loads(result.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return found


def _has_capability(number: int) -> bool:
    for line in _read(Path("/proc/self/status")).splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _has_aes_instructions() -> bool:
    # x86 says "flags", ARM says "Features"; both name the instructions "aes".
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return "aes" in value.split()
    return False


def _cgroups() -> str:
    kinds = {line.split()[2] for line in _read(Path("/proc/self/mounts")).splitlines()}
    has_v1, has_v2 = "cgroup" in kinds, "cgroup2" in kinds
    if has_v1:
        return "v1 and v2" if has_v2 else "v1"
    return "v2" if has_v2 else "absent"


def _cgroup_controllers() -> frozenset[str]:
    names = set(_read(Path("/sys/fs/cgroup/cgroup.controllers")).split())
    for line in _read(Path("/proc/cgroups")).splitlines():
        name, _, rest = line.partition("\t")
        if rest.split()[-1:] == ["1"] and (Path("/sys/fs/cgroup") / name).is_dir():
            names.add("io" if name == "blkio" else name)  # version 1
    return frozenset(names & set(CGROUP_CONTROLLERS))


def _container_ids_count() -> int:
    rows = [line.split(":") for line in _read(Path("/etc/subuid")).splitlines()]
    return sum(int(row[2]) for row in rows if len(row) == 3 and row[0] in ("root", "0"))


def _lxd_state() -> str:
    for path in LXD_SOCKETS:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
        ):
            probe.settimeout(1.0)
            probe.connect(str(path))
            return "running"
    return "installed" if find_command("lxd") or find_command("lxc") else "absent"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _read_int(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None
