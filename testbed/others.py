"""How much of this machine's processors others use while something is measured.

Others are all processes but this one and what it started, and but the kernel's own threads, which
work for whoever calls. Containers are nobody's descendants: those that began meanwhile are ours.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packetcloud.testbed.processes import TICK_S

MAX_OTHERS_CORES = 0.1
"""What a machine with nothing to do uses for itself stays below it."""
MAX_LOAD_BEFORE = 0.5
"""Processes that ran or wanted to, in the minute before."""
_INIT, _KTHREADD = 1, 2
_CONTAINER = "lxc."
"""In the control group of a container's processes."""


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    cpu_s: float
    """Of itself, and of its children that it has waited for; of init without: it waits for our
    containers too, which are nobody's children."""
    began_s: float
    """Since the machine booted."""

    @property
    def key(self) -> tuple[int, float]:
        """Nobody else's, though numbers are given anew."""
        return self.pid, self.began_s


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
        self._before = self._others(0.0)

    def cores(self) -> float:
        """Return how many processors others have used since, in the mean."""
        now_s = self._clock()
        seconds = now_s - self._began_s
        return _gained_s(self._before, self._others(seconds)) / seconds if seconds > 0 else 0.0

    def _others(self, for_s: float) -> list[_Process]:
        since_s = float((self._proc / "uptime").read_text().split()[0]) - for_s
        found = list(_processes(self._proc))
        parents = {one.pid: one.parent for one in found}
        ours = _family(parents, self._own_pid) | _family(parents, _KTHREADD)
        return [
            one
            for one in found
            if one.pid not in ours and not (one.began_s > since_s and self._is_contained(one.pid))
        ]

    def _is_contained(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            return _CONTAINER in (self._proc / str(pid) / "cgroup").read_text()
        return False


def _gained_s(before: Iterable[_Process], after: Iterable[_Process]) -> float:
    """Return how much more they have used; what nobody waited for is not known."""
    earlier = {one.key: one for one in before}
    by_pid = {one.pid: one for one in earlier.values()}
    gained_s = {
        one.key: one.cpu_s - (earlier[one.key].cpu_s if one.key in earlier else 0.0)
        for one in after
    }
    for key, one in earlier.items():
        if key in gained_s:
            continue
        # It has ended: whoever waited for it has in his sum what it had used before, too.
        heir = by_pid.get(one.parent)
        while heir is not None and heir.key not in gained_s:
            heir = by_pid.get(heir.parent)
        if heir is not None and heir.pid != _INIT:
            gained_s[heir.key] -= one.cpu_s
    return sum(max(0.0, seconds) for seconds in gained_s.values())


def _processes(proc: Path) -> Iterator[_Process]:
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        pid = int(folder.name)
        # The last two are of those that it has waited for.
        cpu_s = sum(int(word) for word in fields[11 : 13 if pid == _INIT else 15]) * TICK_S
        yield _Process(pid, int(fields[1]), cpu_s, int(fields[19]) * TICK_S)


def _family(parents: dict[int, int], first: int) -> set[int]:
    """Return a process and its living descendants."""
    found = {first}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found
