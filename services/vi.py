"""The program in a container: `python -P -m packetcloud.services.vi`, under a small init.

Gives its interfaces their addresses, gives up every privilege, loads everything that is slow to
import, calls the cloudlet's controller, and waits for its launch: service and key come over the
control link and stay in memory. Then it runs the service as `child` does. It must import little.
As a child process of a machine (PACKETCLOUD_ISOLATION=process) it has no interfaces of its own.
Source: docs/decisions/0013-cloudlet.md.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from packetcloud.chunk.errors import PacketCloudError, ProtocolError
from packetcloud.services.backoff import Backoff
from packetcloud.services.child import apply_limits, forbid_new_privileges, import_early
from packetcloud.services.control_frames import FrameReader
from packetcloud.services.launch import EXIT_CONFIG, EXIT_FINE, LaunchSpec
from packetcloud.services.launch_files import keep_in_memory, paths_in_memory
from packetcloud.services.vi_settings import ViSettings

SERVICE_UID = 1000
"""Whom the service runs as, in the container's own numbers."""
ENDS = (signal.SIGPWR, signal.SIGTERM, signal.SIGINT)
"""How this process is asked to end; the first is what a container's init gets."""
CALL_LIMIT_S = 5.0
KERNEL_OBJECTS = {
    "max_inotify_instances": 8,
    "max_inotify_watches": 1024,
    "max_fanotify_groups": 0,
    "max_fanotify_marks": 0,
    "max_cgroup_namespaces": 0,
    "max_ipc_namespaces": 0,
    "max_mnt_namespaces": 0,
    "max_net_namespaces": 0,
    "max_pid_namespaces": 0,
    "max_time_namespaces": 0,
    "max_user_namespaces": 0,
    "max_uts_namespaces": 0,
}
"""What each user of this container may have. The kernel counts them for the container's maker, too:
root of the node, with 128 inotify instances for all containers and its own programs."""
_USER_LIMITS = Path("/proc/sys/user")
_RESOLVERS = Path("/etc/resolv.conf")
_NAME_SOURCES = Path("/etc/nsswitch.conf")
_EVERYBODY = ["0", "0", "4294967295"]
"""The map of ids of the machine itself."""
_READ_BYTES = 64 << 10
_PR_CAPBSET_DROP = 24
_LAST_CAPABILITY = 63
_log = logging.getLogger("packetcloud.vi")


def main() -> int:
    """Run the service that the controller names and return its exit code."""
    for number in ENDS:
        signal.signal(number, _end)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        settings = ViSettings.from_environment(os.environ)
        if settings.is_contained:
            give_addresses(settings)
            give_resolvers(settings)
    except PacketCloudError as error:
        _log.error("%s", error)
        return EXIT_CONFIG
    if not settings.is_contained:
        forbid_new_privileges()
    elif os.geteuid() == 0:
        bound_kernel_objects()
        give_up_privileges()
    import_early()
    connection, spec, seed = _await_launch(settings)
    return _run(settings, connection, spec, seed)


def give_addresses(settings: ViSettings) -> None:
    """Bring the interfaces up with their addresses; the kernel tests none of them for doubles.

    Raises:
        PacketCloudError: `ip` refuses; the text is its own.
    """
    lines = ["link set dev lo up"]
    for nic in settings.nics:
        for address in nic.addresses:
            options = " nodad" if address.version == 6 else ""
            lines.append(f"address replace {address} dev {nic.name}{options}")
        lines.append(f"link set dev {nic.name} up")
        for gateway in nic.gateways:
            lines.append(f"route replace default via {gateway} dev {nic.name}")
    done = subprocess.run(
        ["ip", "-batch", "-"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    if done.returncode:
        raise PacketCloudError(f"cannot set addresses: {done.stderr.strip()}")


def give_resolvers(settings: ViSettings) -> None:
    """Tell the C library whom to ask for names; as the image has it, it asks nobody.

    Outside a container nothing is changed: there the files are the whole machine's.

    Raises:
        PacketCloudError: the files cannot be written.
    """
    if not settings.resolvers or not _is_container():
        return
    lines = [f"nameserver {one}\n" for one in settings.resolvers]
    try:
        _RESOLVERS.write_text("".join([*lines, "options timeout:2 attempts:2\n"]))
        _NAME_SOURCES.write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    except OSError as error:
        raise PacketCloudError(f"cannot say whom to ask for names: {error}") from None


def bound_kernel_objects() -> None:
    """Take from this container's users most of what the kernel counts for all containers together.

    Only the container's root may change that again, and nobody becomes root once privileges are
    given up. A kernel that lacks one of these has nothing to bound. Outside a container nothing is
    changed: there they are the whole machine's.
    """
    if not _is_container():
        _log.warning("no container: the kernel's objects are not bounded")
        return
    for name, count in KERNEL_OBJECTS.items():
        try:
            with (_USER_LIMITS / name).open("r+") as limit:  # never makes a file
                limit.write(f"{count}\n")
        except FileNotFoundError:
            continue
        except OSError as error:
            _log.warning("%s stays as it is: %s", name, error.strerror)


def _is_container() -> bool:
    return Path("/proc/self/uid_map").read_text().split() != _EVERYBODY


def give_up_privileges() -> None:
    """Become an ordinary user for good: no capability can be had again, by any program."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_LAST_CAPABILITY + 1):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # EINVAL beyond the kernel's last
    os.setgroups([])
    os.setresgid(SERVICE_UID, SERVICE_UID, SERVICE_UID)
    os.setresuid(SERVICE_UID, SERVICE_UID, SERVICE_UID)
    forbid_new_privileges()


def _await_launch(settings: ViSettings) -> tuple[socket.socket, LaunchSpec, bytes]:
    """Call the controller until it answers with a launch; return that and the connection."""
    backoff = Backoff(0.05, 2.0)
    told = ""
    while True:
        try:
            return _ask_for_launch(settings)
        except (OSError, PacketCloudError) as error:
            if str(error) != told:
                told = str(error)
                _log.warning("controller %s:%d: %s; calling again", *settings.controller, told)
        # There is no loop yet: the service is not known before its launch.
        time.sleep(backoff.next_delay_s(random.random()))


def _ask_for_launch(settings: ViSettings) -> tuple[socket.socket, LaunchSpec, bytes]:
    from packetcloud.services.control_link import hello

    connection = socket.create_connection(settings.controller, timeout=CALL_LIMIT_S)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.sendall(hello(settings, is_launched=False))
        connection.settimeout(None)  # a standby waits for hours
        frames = FrameReader()
        while True:
            data = connection.recv(_READ_BYTES)
            if not data:
                raise ProtocolError("it closed the connection")
            for frame in frames.feed(data):
                match frame:
                    case {"do": "launch", "spec": dict(values), "key": str(key)}:
                        spec = LaunchSpec.from_json(json.dumps(values))
                        assert isinstance(frame, dict), "as the pattern says"
                        paths = keep_in_memory(frame.get("files", {}))
                        spec = replace(spec, parameters={**spec.parameters, **paths})
                        return connection, spec, bytes.fromhex(key)
                    case {"do": "stop"}:
                        sys.exit(EXIT_FINE)
                    case _:
                        raise ProtocolError("it said something else than `launch`")
    except BaseException:  # also SystemExit of a stop: the next call is a new connection
        connection.close()
        raise


def _end(number: int, frame: object) -> None:
    """End at once: without a launch nothing is in hand. With it, the reactor's handlers follow."""
    _log.info("asked to end by %s before the service ran", signal.Signals(number).name)
    sys.exit(EXIT_FINE)


def _run(settings: ViSettings, connection: socket.socket, spec: LaunchSpec, seed: bytes) -> int:
    from packetcloud.chunk.identity import Identity
    from packetcloud.services.control_link import ControlLink
    from packetcloud.services.hosting import HostedService, host_service

    logging.getLogger().setLevel(spec.log_level)
    apply_limits(spec.limits, with_memory=not settings.is_contained)
    links: list[ControlLink] = []

    def attend(host: HostedService) -> None:
        link = ControlLink(settings, host, paths_in_memory(spec.parameters))
        connection.setblocking(False)
        link.adopt(connection.fileno(), connection.family)
        connection.close()  # Twisted has its own descriptor of it
        links.append(link)

    def report(message: dict[str, Any]) -> None:
        for link in links:
            link.report(message)

    return host_service(spec, report, Identity(seed), attend)


if __name__ == "__main__":
    sys.exit(main())
