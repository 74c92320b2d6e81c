"""What one side has received on a stream: put in order, and how much more it takes."""

from __future__ import annotations

from bisect import bisect_right

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.streams.wire import Data

MAX_EARLY_COUNT = 1024
"""Pieces of a stream that came before their turn; what goes on from one belongs to it, so that a
late answer costs one, whatever comes behind it. A further one resets the stream: thrown away it
would be missing for good, as nobody says again what no request lost."""


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
        self._early: dict[int, bytearray] = {}
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
        while len(view):
            index = bisect_right(self._starts, offset)
            before = self._starts[index - 1] if index else 0
            known = before + len(self._early[before]) - offset if index else 0
            if known > 0:
                offset, view = offset + known, view[known:]
                continue
            gap = self._starts[index] - offset if index < len(self._starts) else len(view)
            self._add(index, offset, view[:gap])
            offset, view = offset + gap, view[gap:]

    def _add(self, index: int, offset: int, view: memoryview) -> None:
        """Put bytes into the gap before the early piece `index`; O(log n) for each of n bytes."""
        self.early_bytes += len(view)
        before = self._starts[index - 1] if index else 0
        if index and before + len(self._early[before]) == offset:
            offset, piece = before, self._early[before]
            piece += view
        elif len(self._starts) < MAX_EARLY_COUNT:
            piece = self._early[offset] = bytearray(view)
            self._starts.insert(index, offset)
            index += 1
        else:
            raise ProtocolError("stream_early", "too many pieces before their turn")
        while index < len(self._starts) and self._starts[index] == offset + len(piece):
            # A larger one stays by itself until this one has grown: whoever sends backwards would
            # have all of it copied each time.
            if len(self._early[self._starts[index]]) > len(piece):
                break
            piece += self._early.pop(self._starts.pop(index))

    def _in_order(self, view: memoryview, ready: list[memoryview | bytes]) -> None:
        if len(view):
            ready.append(view)
            self.received += len(view)
