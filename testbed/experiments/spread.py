"""Median and extremes of a few samples, as every table and error bar here has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median


@dataclass(frozen=True, slots=True)
class Spread:
    """What is told of samples: of three runs no more can be said than these."""

    median: float
    low: float
    high: float
    count: int
    mean: float

    def columns(self, what: str) -> dict[str, object]:
        """Return the columns of a table, such as `penalty_ms`, `penalty_ms_min`, ..."""
        return {
            what: self.median,
            f"{what}_min": self.low,
            f"{what}_max": self.high,
            f"{what}_samples": self.count,
        }


def spread(samples: Iterable[float]) -> Spread | None:
    """Return the spread of samples, None where there is no sample."""
    found = list(samples)
    if not found:
        return None
    return Spread(median(found), min(found), max(found), len(found), fmean(found))


def middle(samples: Iterable[float]) -> float | None:
    """Return the median, None where there is no sample."""
    found = spread(samples)
    return found.median if found is not None else None


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Return by how much y grows with x, by least squares; None for fewer than two different x."""
    if len({x for x, _ in points}) < 2:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x, _ in points)


def runs_text(*counts: int) -> str:
    """Return how many runs a median is of: of one run it is none."""
    if not counts:
        return "no run"
    if max(counts) == 1:
        return "one run, so no median"
    least, most = min(counts), max(counts)
    return f"medians of {most} runs" if least == most else f"medians of {least} to {most} runs"
