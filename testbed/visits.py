"""What a router counted of the visits to a service between two looks at it.

A router's own sums begin when it does: warm-up, drain and earlier runs are in them. So a
measurement looks when its window opens and when it closes, and takes the one from the other, bucket
by bucket.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from packetcloud.testbed.daemons import Router
from packetcloud.testbed.errors import ChildError

DELAY_PENALTY, PROCESSING, DELIVERY, WAIT = "delay_penalty", "processing", "delivery", "wait"
PARTS = (DELAY_PENALTY, PROCESSING, DELIVERY, WAIT)
"""Of a visit; `delivery` and `processing` add up to the penalty, `wait` is part of `delivery`."""
ALL_SERVICES = "/services?buckets=true"

Look = Mapping[str, Any]
"""One service of a router's answer to `ALL_SERVICES`."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Durations that were counted."""

    count: int = 0
    sum_s: float = 0.0
    buckets: Mapping[float, int] = field(default_factory=dict)
    """How many were taken for each of these durations, in seconds; within 4 %."""

    @classmethod
    def between(cls, before: Look | None, after: Look, part: str) -> Self:
        """Take those of an earlier look from those of a later one; None: the service was new.

        Raises:
            ChildError: the later look has less, so it is of a router that began anew.
        """
        later = after[part]
        if before is None:
            return cls(later["count"], later["sum_s"], _buckets(later))
        earlier = before[part]
        gained = Counter(_buckets(later))
        gained.subtract(_buckets(earlier))
        if any(count < 0 for count in gained.values()):
            raise ChildError("the router was started again between two looks at what it counted")
        return cls(
            later["count"] - earlier["count"],
            later["sum_s"] - earlier["sum_s"],
            {duration_s: count for duration_s, count in gained.items() if count},
        )

    @property
    def mean_ms(self) -> float:
        """Exact.

        Raises:
            ChildError: there are none.
        """
        self._check()
        return self.sum_s * 1e3 / self.count

    def quantile_ms(self, q: float) -> float:
        """Return the duration below which the share `q` (0..1) lies, within 4 %.

        Raises:
            ChildError: there are none.
        """
        self._check()
        wanted, seen = max(1, math.ceil(q * self.count)), 0
        for duration_s in sorted(self.buckets):
            seen += self.buckets[duration_s]
            if seen >= wanted:
                return duration_s * 1e3
        raise ChildError(f"{self.count} durations were counted, and buckets have {seen}")

    def with_those_of(self, other: Counted) -> Counted:
        """Return both together."""
        buckets = Counter(self.buckets)
        buckets.update(other.buckets)
        return Counted(self.count + other.count, self.sum_s + other.sum_s, dict(buckets))

    def _check(self) -> None:
        if self.count <= 0:
            raise ChildError("no chunk visited the service in the time that counts")


def look_at(router: Router, sid: str) -> Look:
    """Ask a router what it has counted of a service since its start.

    Raises:
        ChildError: it does not answer, or does not know the service.
    """
    for one in router.get_json(ALL_SERVICES):
        if one["sid"] == sid:
            found: Look = one
            return found
    raise ChildError(f"{router.child.name} does not list the service {sid}")


def delays_between(before: Look | None, after: Look) -> dict[str, float]:
    """Return median, 99th percentile and mean of each part, in ms.

    Raises:
        ChildError: no chunk came back between the two looks.
    """
    figures = {}
    for part in PARTS:
        counted = Counted.between(before, after, part)
        figures[f"{part}_p50_ms"] = counted.quantile_ms(0.5)
        figures[f"{part}_p99_ms"] = counted.quantile_ms(0.99)
        figures[f"{part}_mean_ms"] = counted.mean_ms
    return figures


def _buckets(durations: Mapping[str, Any]) -> dict[float, int]:
    return dict(durations["buckets"])
