"""A timing wheel: what falls due when, in time proportional to what is due.

Nothing is scanned: an entry lies in the bucket of its deadline, and adding or removing it is one
dictionary operation. A bucket is a dict and not a set, so that entries of one bucket fall due in
the order in which they were added, on every run.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from itertools import chain
from typing import Generic, Protocol, Self, TypeVar

GRANULARITY_S = 0.05
"""Deadlines are met up to 50 ms late. Lifetimes are seconds; 20 wake-ups a second cost nothing."""
_TICKS_PER_S = 1 / GRANULARITY_S


class Timed(Protocol):
    """What a wheel holds: it remembers the bucket it lies in (None: in no wheel), and its time."""

    bucket: dict[Self, None] | None
    wake_at: float


EntryT = TypeVar("EntryT", bound=Timed)


class DeadlineWheel(Generic[EntryT]):
    """Entries by deadline. Buckets are capped by the longest deadline: 20 for each second."""

    def __init__(self) -> None:
        self._buckets: dict[int, dict[EntryT, None]] = {}
        self._ticks: list[int] = []
        self.next_due_s = math.inf
        """When `due` should be called next; infinity when nothing is held."""

    def __len__(self) -> int:
        """Count the entries by looking at every bucket, not by trusting a running counter."""
        return sum(map(len, self._buckets.values()))

    def __iter__(self) -> Iterator[EntryT]:
        return chain.from_iterable(self._buckets.values())

    def add(self, entry: EntryT, deadline_s: float) -> None:
        """Put `entry`, which is in no bucket, where it falls due at or just after `deadline_s`."""
        tick = int(deadline_s * _TICKS_PER_S) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
            heapq.heappush(self._ticks, tick)
            self.next_due_s = self._ticks[0] * GRANULARITY_S
        bucket[entry] = None
        entry.bucket = bucket
        entry.wake_at = deadline_s

    def remove(self, entry: EntryT) -> None:
        """Take `entry` out; nothing happens when it is in no bucket."""
        if entry.bucket is not None:
            del entry.bucket[entry]
            entry.bucket = None

    def wake_by(self, entry: EntryT, deadline_s: float) -> None:
        """See that `entry` falls due at `deadline_s` or before.

        A later deadline costs nothing: the entry is put back when it falls due too early.
        """
        if entry.bucket is None or deadline_s < entry.wake_at:
            self.remove(entry)
            self.add(entry, deadline_s)

    def due(self, now: float) -> Iterator[EntryT]:
        """Take out and yield what is due, earliest first; an entry is held until it is yielded.

        Entries may be added, moved and removed meanwhile.
        """
        ticks, last = self._ticks, math.floor(now * _TICKS_PER_S + 1e-6)
        while ticks and ticks[0] <= last:
            bucket = self._buckets[ticks[0]]
            for entry in list(bucket):
                if entry.bucket is bucket:
                    del bucket[entry]
                    entry.bucket = None
                    yield entry
            if not bucket:
                del self._buckets[heapq.heappop(ticks)]
        self.next_due_s = ticks[0] * GRANULARITY_S if ticks else math.inf
