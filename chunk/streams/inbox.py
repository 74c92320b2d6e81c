"""What one side has received on a stream: put in order, and how much more it takes."""

from __future__ import annotations

from bisect import bisect_right

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.streams.wire import Data

MAX_EARLY_COUNT = 1024
"""Pieces of a stream that came before their turn; a further one resets the stream. Thrown away it
would be missing for good: nobody says again what no request lost."""


class Inbox:
    """Bytes for an application, in order; their end counts as one byte more."""

    __slots__ = (
        "_early",
        "_end",
        "_starts",
        "consumed",
        "early_bytes",
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
        self.early_bytes = 0
        """What came before its turn: at most the window, as no byte is kept twice."""
        self._early: dict[int, bytes] = {}
        self._starts: list[int] = []
        """Of the early pieces, in order; none overlaps another."""
        self._end: int | None = None

    @property
    def promised_bytes(self) -> int:
        """What the other side may send, or has sent, that the application has not taken."""
        return self.window - self.consumed

    @property
    def kept_bytes(self) -> int:
        """What lies here out of order, or with an application that has not taken it yet."""
        return self.received - self.has_ended - self.consumed + self.early_bytes

    def take(self, data: Data) -> list[memoryview | bytes]:
        """Return what is in order now; what came before its turn is copied and kept.

        Raises:
            ProtocolError: more than was granted, beyond the end, or in too many pieces.
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
        while self._starts and self._starts[0] <= self.received:
            offset = self._starts.pop(0)
            early = self._early.pop(offset)
            self.early_bytes -= len(early)
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
        """Keep what came before its turn, as far as it does not lie here already."""
        index = bisect_right(self._starts, offset)
        if index:
            before = self._starts[index - 1]
            known = max(0, before + len(self._early[before]) - offset)
            offset, view = offset + known, view[known:]
        while len(view):
            is_last = index == len(self._starts)
            gap = len(view) if is_last else min(len(view), self._starts[index] - offset)
            if gap:
                self._add(index, offset, bytes(view[:gap]))
                index += 1
            if is_last or gap == len(view):
                return
            known = gap + len(self._early[self._starts[index]])
            offset, view, index = offset + known, view[known:], index + 1

    def _add(self, index: int, offset: int, piece: bytes) -> None:
        if len(self._starts) >= MAX_EARLY_COUNT:
            raise ProtocolError("stream_early", "too many pieces before their turn")
        self._starts.insert(index, offset)
        self._early[offset] = piece
        self.early_bytes += len(piece)

    def _in_order(self, view: memoryview, ready: list[memoryview | bytes]) -> None:
        if len(view):
            ready.append(view)
            self.received += len(view)
