"""When the next body is due: as soon as there is room, or at a set rate."""

from __future__ import annotations

import math


class FullWindow:
    """Keeps `outstanding` bodies in flight: as fast as the receiver takes them."""

    def __init__(self, outstanding: int) -> None:
        self._outstanding = outstanding

    def due(self, now_s: float, in_flight: int) -> int:
        """How many bodies to send now."""
        return self._outstanding - in_flight

    def next_s(self) -> float | None:
        """When to ask again without an answer having come in; None: never."""
        return None


class SetRate:
    """Sends `rate` bodies per second whatever comes back, up to `most_outstanding`."""

    def __init__(self, rate: float, start_s: float, most_outstanding: int) -> None:
        self._rate = rate
        self._start_s = start_s
        self._most_outstanding = most_outstanding
        self._sent = 0
        self.skipped = 0
        """Bodies that were due while too many were in flight: the path is beyond its limit."""

    def due(self, now_s: float, in_flight: int) -> int:
        wanted = max(0, math.floor((now_s - self._start_s) * self._rate) + 1 - self._sent)
        taken = min(wanted, max(0, self._most_outstanding - in_flight))
        self.skipped += wanted - taken
        self._sent += wanted
        return taken

    def next_s(self) -> float | None:
        return self._start_s + self._sent / self._rate
