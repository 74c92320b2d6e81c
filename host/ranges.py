"""A set of byte ranges: what of a file is there, and what is missing."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class RangeSet:
    """Disjoint half-open ranges [start, end) in ascending order; neighbours are merged.

    Adding costs O(log n) to find and O(n) to insert, n = ranges; in order, n stays 1.
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def total_bytes(self) -> int:
        return sum(self._ends) - sum(self._starts)

    def add(self, start: int, end: int) -> None:
        """Put [start, end) in; empty ranges change nothing."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def covers(self, start: int, end: int) -> bool:
        """Whether all of [start, end) is in; an empty range is."""
        if start >= end:
            return True
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and self._ends[index] >= end

    def end_of_first(self) -> int:
        """Return how far the set reaches from 0 without a gap."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def missing(self, size: int) -> RangeSet:
        """Return what of [0, size) is not in."""
        gaps = RangeSet()
        position = 0
        for start, end in self:
            gaps.add(position, min(start, size))
            position = max(position, end)
        gaps.add(position, size)
        return gaps

    def take_first(self, length: int) -> tuple[int, int] | None:
        """Remove and return up to `length` bytes from the front, None when empty."""
        if not self._starts:
            return None
        start, end = self._starts[0], self._ends[0]
        if end - start > length:
            self._starts[0] = start + length
            return start, start + length
        del self._starts[0], self._ends[0]
        return start, end

    def copy(self) -> RangeSet:
        other = RangeSet()
        other._starts, other._ends = self._starts[:], self._ends[:]
        return other
