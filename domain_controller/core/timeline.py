"""How many there are of what at each time: a step function that many thousand intervals make.

Boundaries stand in blocks. A block knows the sum of its changes and, of each key, the peak within
it, so that a question about a long time looks at blocks, and into the few that matter.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

Key = tuple[str, bool]
"""VI type, and whether it is a third party's."""
Level = dict[Key, int]
"""How many of each key there are at one time; none is zero."""

BLOCK_COUNT = 256
"""Boundaries of a block before it is cut in two: a look into one takes about 50 us."""


class _Block:
    __slots__ = ("changes", "is_exact", "peak", "times", "total")

    def __init__(self, times: list[int], changes: list[Level]) -> None:
        self.times = times
        self.changes = changes
        self.total: Level = {}
        self.peak: Level = {}
        """At least the most of each key after any change, counted from the block's begin."""
        self.is_exact = False
        """Whether `peak` is what it bounds."""
        for change in changes:
            _add(self.total, change)
        self._look()

    def change(self, at_ms: int, key: Key, count: int) -> None:
        index = bisect_left(self.times, at_ms)
        if index == len(self.times) or self.times[index] != at_ms:
            self.times.insert(index, at_ms)
            self.changes.insert(index, {})
        _add(self.changes[index], {key: count})
        if not self.changes[index]:
            del self.times[index], self.changes[index]
        _add(self.total, {key: count})
        if count > 0:  # fewer leave a bound what it is
            self.peak[key] = self.peak.get(key, 0) + count
        self.is_exact = False

    def fits_from(self, level: Level, fits: Callable[[Level], bool]) -> bool:
        """Tell whether the most of each key within the block, which begins at `level`, fits.

        What is known without looking at each boundary often suffices.
        """
        if fits(_sum(level, self.peak)):
            return True
        if self.is_exact:
            return False
        self._look()
        return fits(_sum(level, self.peak))

    def _look(self) -> None:
        self.peak = {}
        here: Level = {}
        for change in self.changes:
            _add(here, change)
            for key in change:
                count = here.get(key, 0)
                if count > self.peak.get(key, 0):
                    self.peak[key] = count
        self.is_exact = True


class Timeline:
    """Counts by key over time."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._firsts: list[int] = []
        """The time from which on a block is responsible; the first one also for earlier times."""

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def add(self, begin_ms: int, end_ms: int, key: Key, count: int) -> None:
        """Let there be `count` more of a key from begin to end; negative: fewer.

        Cost: O(blocks + block), however long the interval is and however many overlap it.
        """
        self._change(begin_ms, key, count)
        self._change(end_ms, key, -count)

    def unfit(
        self, begin_ms: int, end_ms: int, fits: Callable[[Level], bool]
    ) -> Iterator[tuple[int, int, Level]]:
        """Yield (begin, end, level) of what does not fit between two times, the earliest first.

        `fits` must hold for fewer wherever it holds for more. A step that began before `begin_ms`
        or goes on after `end_ms` is not cut at its end: (begin, end) is the whole rest of the step.
        """
        level, index = self._block_at(begin_ms)
        at = begin_ms
        is_fit = False  # known of the step at `at`; what follows it with fewer fits as well
        for block in self._blocks[index:]:
            if at >= end_ms:
                return
            if block.fits_from(level, fits):
                _add(level, block.total)
                at = max(at, block.times[-1])
                is_fit = True
                continue
            for time, change in zip(block.times, block.changes, strict=True):
                if at < time:
                    is_fit = is_fit or fits(level)
                    if not is_fit:
                        yield at, time, dict(level)
                    at = time
                    if at >= end_ms:
                        return
                _add(level, change)
                is_fit = is_fit and not any(count > 0 for count in change.values())
        if at < end_ms and not is_fit and not fits(level):
            yield at, end_ms, dict(level)

    def levels(self, begin_ms: int, end_ms: int) -> Iterator[Level]:
        """Yield what there is of each step between two times. Do not keep or change it."""
        level, index = self._block_at(begin_ms)
        at = begin_ms
        for block in self._blocks[index:]:
            for time, change in zip(block.times, block.changes, strict=True):
                if at < time:
                    yield level
                    at = time
                    if at >= end_ms:
                        return
                _add(level, change)
        if at < end_ms:
            yield level

    def _block_at(self, at_ms: int) -> tuple[Level, int]:
        """Return the first block with a boundary after a time, and the level where it begins."""
        level: Level = {}
        for index, block in enumerate(self._blocks):
            if block.times[-1] > at_ms:
                return level, index
            _add(level, block.total)
        return level, len(self._blocks)

    def _change(self, at_ms: int, key: Key, count: int) -> None:
        index = max(0, bisect_right(self._firsts, at_ms) - 1)
        if not self._blocks:
            self._blocks.append(_Block([], []))
            self._firsts.append(at_ms)
        block = self._blocks[index]
        block.change(at_ms, key, count)
        if not block.times:
            del self._blocks[index], self._firsts[index]
        elif len(block.times) > BLOCK_COUNT:
            half = BLOCK_COUNT // 2
            later = _Block(block.times[half:], block.changes[half:])
            self._blocks[index] = _Block(block.times[:half], block.changes[:half])
            self._blocks.insert(index + 1, later)
            self._firsts.insert(index + 1, later.times[0])


def _sum(level: Level, other: Level) -> Level:
    result = dict(level)
    _add(result, other)
    return result


def _add(level: Level, change: Level) -> None:
    for key, count in change.items():
        count += level.get(key, 0)
        if count:
            level[key] = count
        else:
            del level[key]
