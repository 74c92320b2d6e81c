"""Durations of the last moments, for whoever decides by how things are now.

Two histograms take turns, each for half a window, so that what is told is of the last half to
whole window, whatever was counted before.
"""

from __future__ import annotations

from packetcloud.router.histogram import LogHistogram

WINDOW_S = 20.0
"""Long enough for a hundred chunks of a slow flow, short enough to scale by."""


class RecentDurations:
    """Durations in nanoseconds of the last `WINDOW_S`, quantiles within 4 %."""

    __slots__ = ("_before", "_ends_at", "_now")

    def __init__(self) -> None:
        self._now = LogHistogram()
        self._before = LogHistogram()
        self._ends_at = 0.0

    def add(self, value_ns: int, now: float) -> None:
        self._turn(now)
        self._now.add(value_ns)

    def recent(self, now: float) -> LogHistogram:
        """Return those of the last half to whole window."""
        self._turn(now)
        return self._before.merged(self._now)

    def _turn(self, now: float) -> None:
        if now < self._ends_at:
            return
        is_next = now < self._ends_at + WINDOW_S / 2
        self._before = self._now if is_next else LogHistogram()
        self._now = LogHistogram()
        self._ends_at = now + WINDOW_S / 2
