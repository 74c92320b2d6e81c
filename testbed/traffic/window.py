"""Which arrivals count: from the first after the warm-up until the time is over."""

from __future__ import annotations

from packetcloud.testbed.bench.trial import Window


class ArrivalWindow:
    """Turns arrivals into one `Window`.

    The arrival that opens the window only sets its beginning and the one that closes it only ends
    it, so neither a slow start nor the length of a chunk distorts the rate.
    """

    def __init__(self, warmup_s: float, seconds: float) -> None:
        self._warmup_s = warmup_s
        self._seconds = seconds
        self._first_s: float | None = None
        self._begin_s: float | None = None
        self._bytes = 0
        self.bodies = 0
        """Bodies inside the window."""

    @property
    def is_open(self) -> bool:
        """Tell whether the warm-up is over."""
        return self._begin_s is not None

    def arrived(self, now_s: float, payload_bytes: int) -> Window | None:
        """Count an arrival; return the window when this arrival closed it."""
        if self._first_s is None:
            self._first_s = now_s
        if self._begin_s is None:
            if now_s - self._first_s >= self._warmup_s:
                self._begin_s = now_s
            return None
        self._bytes += payload_bytes
        self.bodies += 1
        if now_s - self._begin_s < self._seconds:
            return None
        return Window(self._begin_s, now_s, self._bytes)

    def event(self, closed: Window) -> dict[str, object]:
        """Return the fields of the event `window`, for the window that `arrived` returned."""
        return {
            "begin_s": closed.begin_s,
            "end_s": closed.end_s,
            "payload_bytes": closed.payload_bytes,
            "bodies": self.bodies,
        }
