"""Chunk ids: one run of numbers per destination, each from its own random 64-bit start.

Why random and not persisted: nothing to store, and a restart needs no disk. Why one run per
destination: whoever receives one chunk learns nothing about the ids of chunks to others, so it
cannot forge their delivery reports; and a receiver sees dense numbers, which its duplicate window
stores in one bit each.

Odds that an id is used twice between one pair of hosts: a run of L ids hits one earlier run of the
same length with probability 2 L / 2**64, which for 2**32 chunks (4 PiB of full ones) per run is
4.7e-10 for each restart whose chunks are still remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container

MAX_RUNS_COUNT = 65_536
"""Destinations remembered, about 8 MiB; the longest unused one then gets a fresh random start."""
_MASK = (1 << 64) - 1


class ChunkIds:
    """The ids of one process and source GUID. `random_u64` returns 64 unpredictable bits."""

    def __init__(self, random_u64: Callable[[], int]) -> None:
        self._random_u64 = random_u64
        self._next: OrderedDict[bytes, int] = OrderedDict()
        self.forgotten_count = 0
        """Runs that made room for others."""

    def take(self, destination: bytes, taken: Container[int] = ()) -> int:
        """Return an id for a chunk to `destination` that is not in `taken`."""
        run = self._next.get(destination)
        if run is None:
            run = self._random_u64() & _MASK
            if len(self._next) >= MAX_RUNS_COUNT:
                self._next.popitem(last=False)
                self.forgotten_count += 1
        else:
            self._next.move_to_end(destination)
        while run in taken:
            run = self._random_u64() & _MASK
        self._next[destination] = (run + 1) & _MASK
        return run
