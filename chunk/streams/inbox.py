"""What one side has received on a stream: put in order, and how much more it takes."""

from __future__ import annotations

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.streams.wire import Data

MAX_EARLY_COUNT = 1024
"""Pieces of a stream that came before their turn; further ones are dropped and come again."""


class Inbox:
    """Bytes for an application, in order; their end counts as one byte more."""

    __slots__ = (
        "_early",
        "_early_bytes",
        "_end",
        "consumed",
        "early_dropped_count",
        "has_ended",
        "received",
        "told_window",
        "window",
    )

    def __init__(self, window: int) -> None:
        self.window = window
        """Up to this offset bytes are taken; it never goes back."""
        self.told_window = window
        """The window that the other side was told of last."""
        self.received = 0
        """Everything before it has come; with the end, one more than there are bytes."""
        self.consumed = 0
        """What the application has taken."""
        self.has_ended = False
        """The end has come, and everything before it."""
        self._early: dict[int, bytes] = {}
        self._early_bytes = 0
        self.early_dropped_count = 0
        self._end: int | None = None

    @property
    def kept_bytes(self) -> int:
        """What lies here out of order, or with an application that has not taken it yet."""
        return self.received - self.has_ended - self.consumed + self._early_bytes

    def take(self, data: Data) -> list[memoryview | bytes]:
        """Return what is in order now; what came before its turn is copied and kept.

        Raises:
            ProtocolError: more than was granted, or beyond the end.
        """
        (piece,) = data.pieces
        view = memoryview(piece)
        stop = data.offset + len(view)
        if data.is_last:
            if self._end not in (None, stop) or stop < self.received - self.has_ended:
                raise ProtocolError("stream_offset", "another end than before")
            self._end = stop
        if stop > self.window or (self._end is not None and stop > self._end):
            raise ProtocolError("stream_window", "more than was granted")
        ready: list[memoryview | bytes] = []
        if self.has_ended:
            return ready
        if data.offset > self.received:
            self._keep(data.offset, view)
            return ready
        self._in_order(view[self.received - data.offset :], ready)
        while self._early and (offset := min(self._early)) <= self.received:
            early = self._early.pop(offset)
            self._early_bytes -= len(early)
            self._in_order(memoryview(early)[self.received - offset :], ready)
        if self._end == self.received:
            self.has_ended = True
            self.received += 1
        return ready

    def consume(self, count: int, window_bytes: int) -> None:
        """The application has taken `count` bytes; it may have `window_bytes` that it has not."""
        self.consumed += count
        self.window = max(self.window, self.consumed + window_bytes)

    def _keep(self, offset: int, view: memoryview) -> None:
        """Keep what came before its turn; pieces that overlap may not add up to over the window."""
        if offset in self._early:
            return
        if len(self._early) >= MAX_EARLY_COUNT:
            self.early_dropped_count += 1
            return
        if len(view) and self._early_bytes + len(view) <= self.window - self.received:
            self._early[offset] = bytes(view)
            self._early_bytes += len(view)

    def _in_order(self, view: memoryview, ready: list[memoryview | bytes]) -> None:
        if len(view):
            ready.append(view)
            self.received += len(view)
