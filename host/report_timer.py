"""When to send a chunk again: from the measured time between custody and delivery report.

Source: RFC 6298 for the smoothing (with its alpha, beta and K) and for the doubling; Karn's rule:
only a chunk that was sent once is measured, else it is unclear which copy the report is about.
"""

from __future__ import annotations

FLOOR_S = 1.0
"""Reports are batched and services take their time; below a second we would only send twice."""
CAP_S = 15.0
"""Four tries fit a default lifetime of 60 s even after the longest back-off."""
FIRST_S = 3.0
"""Before anything was measured. RFC 6298 says 1 s for a bare RTT; services come on top here."""
_TOO_EARLY_FACTOR = 1.5
_ALPHA, _BETA, _K = 1 / 8, 1 / 4, 4


class ReportTimer:
    """The estimator of one endpoint: a few destinations, so one figure for all of them."""

    def __init__(self) -> None:
        self.smoothed_s = 0.0
        self._deviation_s = 0.0
        self._first_s = FIRST_S

    def measured(self, rtt_s: float) -> None:
        """Learn from one report that came `rtt_s` after custody."""
        if self.smoothed_s == 0.0:
            self.smoothed_s, self._deviation_s = rtt_s, rtt_s / 2
            return
        error_s = abs(self.smoothed_s - rtt_s)
        self._deviation_s += _BETA * (error_s - self._deviation_s)
        self.smoothed_s += _ALPHA * (rtt_s - self.smoothed_s)

    def sent_too_early(self) -> None:
        """A chunk was sent again and both copies were reported: the report was only late.

        Without this, reports that take longer than the first interval are never measured, since
        every chunk has then been sent twice.
        """
        if self.smoothed_s == 0.0:
            self._first_s = min(CAP_S, self._first_s * _TOO_EARLY_FACTOR)
        else:
            self._deviation_s = min(CAP_S / _K, self._deviation_s * _TOO_EARLY_FACTOR)

    def interval_s(self, attempt: int) -> float:
        """Return how long to wait for the report of try number `attempt` (0 = the first)."""
        base_s = self.smoothed_s + _K * self._deviation_s if self.smoothed_s else self._first_s
        return min(CAP_S, max(FLOOR_S, base_s) * (1 << min(attempt, 10)))
