"""A histogram of durations with logarithmic buckets: quantiles within 4 %, memory bounded.

Each bucket is 8 % wider than the one before; a value is taken for the geometric middle of its
bucket, so a quantile is off by at most sqrt(1.08) - 1 = 3.9 %. 1 ns to 10 000 s are 390 buckets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

_GROWTH = 1.08
_PER_LOG = 1 / math.log(_GROWTH)
_HALF_BUCKET = math.sqrt(_GROWTH)
MAX_NS = 10_000 * 10**9
"""10 000 s: longer values count as this; no deadline is that long."""
_BUCKET_COUNT = int(math.log(MAX_NS) * _PER_LOG) + 1


class LogHistogram:
    """Durations in nanoseconds: count, sum, quantiles."""

    __slots__ = ("_counts", "count", "sum_ns")

    def __init__(self) -> None:
        self.count = 0
        self.sum_ns = 0
        self._counts = [0] * _BUCKET_COUNT

    def add(self, value_ns: int) -> None:
        """Count one value; below 1 ns counts as 1 ns."""
        value_ns = 1 if value_ns < 1 else min(value_ns, MAX_NS)
        self.count += 1
        self.sum_ns += value_ns
        self._counts[int(math.log(value_ns) * _PER_LOG)] += 1

    def quantile_ns(self, q: float) -> float:
        """Return the value below which the share `q` (0..1) lies; 0.0 when nothing was counted."""
        wanted = max(1, math.ceil(q * self.count))
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= wanted and count:
                return _GROWTH**index * _HALF_BUCKET
        return 0.0

    def merged(self, other: LogHistogram) -> LogHistogram:
        """Return one that has counted what both have."""
        both = LogHistogram()
        both.count = self.count + other.count
        both.sum_ns = self.sum_ns + other.sum_ns
        both._counts = [one + more for one, more in zip(self._counts, other._counts, strict=True)]
        return both

    def buckets_ns(self) -> list[tuple[float, int]]:
        """Return what each bucket that has any counts as, and how many it has, ascending."""
        return [
            (_GROWTH**index * _HALF_BUCKET, count)
            for index, count in enumerate(self._counts)
            if count
        ]

    def cumulative(self, bounds_ns: Iterable[float]) -> list[int]:
        """Return how many values lie at or below each bound; a bucket counts by its middle."""
        bounds = list(bounds_ns)
        totals = [0] * len(bounds)
        for index, count in enumerate(self._counts):
            if count:
                middle = _GROWTH**index * _HALF_BUCKET
                for i, bound in enumerate(bounds):
                    if middle <= bound:
                        totals[i] += count
        return totals
