"""Whether the emulator kept its own schedule: a link that is late by itself measures itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LATE_S = 0.001
"""A packet delivered later than this after it was due is late; a tenth of the shortest round trip
that the benchmarks use."""
LATE_SHARE = 0.01
"""Of packets that may be late before a run is not called valid."""
WORST_S = 0.05
"""No packet may be later than this: a virtual machine that stood still for so long."""
_BUCKETS = 32


@dataclass(slots=True)
class Lateness:
    """How late packets were delivered, in powers of two of a microsecond."""

    counts: list[int]
    worst_s: float = 0.0
    late: int = 0

    @classmethod
    def empty(cls) -> Lateness:
        return cls([0] * _BUCKETS)

    def add(self, late_s: float) -> None:
        self.counts[min(int(late_s * 1e6).bit_length(), _BUCKETS - 1)] += 1
        if late_s > self.worst_s:
            self.worst_s = late_s
        if late_s > LATE_S:
            self.late += 1

    @property
    def total(self) -> int:
        return sum(self.counts)

    def percentile_s(self, share: float) -> float:
        """Return a bound that `share` of all packets keep: the upper end of a bucket, the worst at
        most."""
        wanted = share * self.total
        seen = 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return min((1 << bucket) * 1e-6, self.worst_s)
        return self.worst_s

    def to_json(self) -> dict[str, Any]:
        return {
            "packets": self.total,
            "p50_s": self.percentile_s(0.5),
            "p99_s": self.percentile_s(0.99),
            "worst_s": self.worst_s,
            "late_share": self.late / self.total if self.total else 0.0,
        }


def objections(report: dict[str, Any]) -> list[str]:
    """Say why what a link reports is no measurement of the link; empty: it is one.

    Args:
        report: of `link.TunLink.report`.
    """
    found = []
    lateness = report["lateness"]
    if lateness["late_share"] > LATE_SHARE:
        found.append(
            f"{lateness['late_share']:.1%} of the packets came more than {LATE_S * 1e3:g} ms late, "
            f"allowed: {LATE_SHARE:.0%}"
        )
    if lateness["worst_s"] > WORST_S:
        found.append(
            f"a packet came {lateness['worst_s'] * 1e3:.0f} ms late, allowed: {WORST_S * 1e3:g} ms"
        )
    for what, count in report["overruns"].items():
        if count:
            found.append(f"{count} packets dropped by the emulator itself ({what})")
    return found
