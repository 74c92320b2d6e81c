"""Processes that live in the namespaces of a topology, and their end.

They are known by the namespace that they are in, which nobody else can be in by chance, and
signalled through a pidfd, so that no other process with a used number is met.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from packetcloud.testbed.kernel import NAMESPACE_DIRECTORY
from packetcloud.testbed.topology.rootless import user_namespace_of

KEEPER_VARIABLE = "PACKETCLOUD_TESTBED_KEEPER"
"""In the environment of all that a keeper starts, and of commands of `exec`."""
GRACE_S = 2.0
"""Between SIGTERM and SIGKILL, for all together."""
_END_S = 10.0


@dataclass(frozen=True, slots=True)
class Marked:
    """Processes of a user namespace whose environment says of which keeper they come.

    Both, because the number of a namespace that is gone is soon given to another.
    """

    user_namespace: int
    keeper: str

    def holds(self, pid: int) -> bool:
        """Tell whether a process is one of them."""
        if user_namespace_of(pid) != self.user_namespace:
            return False
        try:
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False
        return f"{KEEPER_VARIABLE}={self.keeper}".encode() in words


def processes_in(namespaces: Iterable[str], marked: Marked | None = None) -> list[int]:
    """Return the processes in any of these network namespaces, ourselves left out.

    Args:
        marked: others that count too.
    """
    wanted = set()
    for name in namespaces:
        with contextlib.suppress(OSError):
            wanted.add(_identity(Path(NAMESPACE_DIRECTORY, name)))
    return [
        pid
        for pid in _all_pids()
        if pid != os.getpid()
        and (_namespace_of(pid) in wanted or (marked is not None and marked.holds(pid)))
    ]


def end_processes_in(namespaces: Collection[str], marked: Marked | None = None) -> list[int]:
    """End all processes that `processes_in` finds; return which there were."""
    found = processes_in(namespaces, marked)
    ends: dict[int, int] = {}
    try:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                ends[pid] = os.pidfd_open(pid)
        # Opened first and looked at again: a number that was given anew in between is let go.
        still = set(processes_in(namespaces, marked))
        mine = [descriptor for pid, descriptor in ends.items() if pid in still]
        for number, limit_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, _END_S)):
            for descriptor in mine:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
            mine = wait_ended(mine, limit_s)
    finally:
        for descriptor in ends.values():
            os.close(descriptor)
    return found


def wait_ended(descriptors: Collection[int], limit_s: float) -> list[int]:
    """Wait until the processes of these pidfds have ended; return those that have not."""
    waiting = set(descriptors)
    deadline = time.monotonic() + limit_s
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left_s * 1e3):
            poll.unregister(descriptor)
            waiting.discard(descriptor)
    return sorted(waiting)


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _namespace_of(pid: int) -> tuple[int, int] | None:
    try:
        return _identity(Path(f"/proc/{pid}/ns/net"))
    except OSError:
        return None


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
