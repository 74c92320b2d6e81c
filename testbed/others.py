"""How much of this machine's processors others use while something is measured.

Others are all processes but this one and what it started, and but the kernel's own threads, which
work for whoever calls. Containers are nobody's descendants: those that began meanwhile are ours.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packetcloud.testbed.processes import TICK_S

MAX_OTHERS_CORES = 0.1
"""What a machine with nothing to do uses for itself stays below it."""
MAX_LOAD_BEFORE = 0.5
"""Processes that ran or wanted to, in the minute before."""
_KTHREADD = 2
_CONTAINER = "lxc."
"""In the control group of a container's processes."""


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    cpu_s: float
    """Of itself, and of its children that it has waited for."""
    began_s: float
    """Since the machine booted."""


class OthersWatch:
    """Begins when it is made."""

    def __init__(
        self,
        proc: Path = Path("/proc"),
        own_pid: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc = proc
        self._own_pid = os.getpid() if own_pid is None else own_pid
        self._clock = clock
        self._began_s = clock()
        self._cpu_s = self._used_s(0.0)

    def cores(self) -> float:
        """Return how many processors others have used since, in the mean."""
        now_s = self._clock()
        seconds = now_s - self._began_s
        # Who ended meanwhile is in his parent's sum; if nobody waited for him, what he used is not.
        return max(0.0, self._used_s(seconds) - self._cpu_s) / seconds if seconds > 0 else 0.0

    def _used_s(self, for_s: float) -> float:
        since_s = float((self._proc / "uptime").read_text().split()[0]) - for_s
        found = list(_processes(self._proc))
        parents = {one.pid: one.parent for one in found}
        ours = _family(parents, self._own_pid) | _family(parents, _KTHREADD)
        return sum(
            one.cpu_s
            for one in found
            if one.pid not in ours and not (one.began_s > since_s and self._is_contained(one.pid))
        )

    def _is_contained(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            return _CONTAINER in (self._proc / str(pid) / "cgroup").read_text()
        return False


def _processes(proc: Path) -> Iterator[_Process]:
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        cpu_s = sum(int(word) for word in fields[11:15]) * TICK_S
        yield _Process(int(folder.name), int(fields[1]), cpu_s, int(fields[19]) * TICK_S)


def _family(parents: dict[int, int], first: int) -> set[int]:
    """Return a process and its living descendants."""
    found = {first}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found
