"""What one side has to send on a stream, kept until the other side acknowledged it."""

from __future__ import annotations

from bisect import bisect_right

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.streams.wire import Buffer, Data

PIECE_BYTES = 16 << 10
"""Smaller pieces are joined to one of this size: a peer that writes single bytes would else cost
an object for each of them."""

MAX_KEPT_BYTES = 8 << 20
"""Of one stream, whatever window the other side gives: twice the largest window of ours."""


class Outbox:
    """Bytes of an application, in order; their end counts as one byte more."""

    __slots__ = ("_has_ended", "_pieces", "_starts", "acknowledged", "end", "next", "window")

    def __init__(self, window: int = 0) -> None:
        self.window = window
        """Up to this offset the other side takes bytes."""
        self.acknowledged = 0
        """Everything before it has arrived; with the end, one more than there are bytes."""
        self.next = 0
        """What is sent next."""
        self.end = 0
        self._has_ended = False
        self._pieces: list[bytearray | bytes] = []
        self._starts: list[int] = []

    @property
    def room(self) -> int:
        """How many bytes are taken of the application now: what the other side would take, and no
        more than is kept."""
        if self._has_ended:
            return 0
        return max(0, min(self.window - self.end, MAX_KEPT_BYTES - self.kept_bytes))

    @property
    def kept_bytes(self) -> int:
        """What lies here: not sent, or not acknowledged."""
        return self.end - self._starts[0] if self._starts else 0

    @property
    def has_ended(self) -> bool:
        return self._has_ended

    @property
    def is_done(self) -> bool:
        """True when the other side has everything, and knows that it was all."""
        return self._has_ended and self.acknowledged > self.end

    @property
    def has_more(self) -> bool:
        """True when there is something to send."""
        return self.next < self.end or (self._has_ended and self.next == self.end)

    def put(self, data: Buffer) -> None:
        """Take a copy of bytes of the application.

        Raises:
            LocalMisuseError: more than `room`, or after the end.
        """
        if len(data) > self.room:
            raise LocalMisuseError(f"{len(data)} bytes for a stream with room for {self.room}")
        if not len(data):
            return
        last = self._pieces[-1] if self._pieces else b""
        # A piece that may still grow is never lent, only copied.
        if isinstance(last, bytearray) and len(last) + len(data) <= PIECE_BYTES:
            last += data
        else:
            self._starts.append(self.end)
            self._pieces.append(bytearray(data) if len(data) < PIECE_BYTES else bytes(data))
        self.end += len(data)

    def finish(self) -> None:
        """Nothing follows."""
        self._has_ended = True

    def take(self, stream: int, most_bytes: int) -> Data | None:
        """Return what to send next, at most `most_bytes`; None: nothing."""
        if not self.has_more:
            return None
        offset, stop = self.next, min(self.end, self.next + most_bytes)
        parts: list[Buffer] = []
        index = max(0, bisect_right(self._starts, offset) - 1)
        while self.next < stop:
            piece, start = self._pieces[index], self._starts[index]
            part = memoryview(piece)[self.next - start : stop - start]
            parts.append(part if isinstance(piece, bytes) else bytes(part))
            self.next += len(part)
            index += 1
        is_last = self._has_ended and self.next == self.end
        if is_last:
            self.next += 1
        return Data(stream, offset, tuple(parts), is_last) if parts or is_last else None

    def acknowledge(self, received: int, window: int) -> None:
        """The other side has everything before `received` and takes up to `window`.

        Raises:
            ProtocolError: it has what was never sent.
        """
        if received > self.end + self._has_ended:
            raise ProtocolError("stream_offset", "what was never sent is acknowledged")
        self.window = max(self.window, window)
        if received <= self.acknowledged:
            return
        self.acknowledged = received
        self.next = max(self.next, received)
        if received >= self.end:
            self._pieces.clear()
            self._starts.clear()
        else:
            gone = max(0, bisect_right(self._starts, received) - 1)
            del self._pieces[:gone], self._starts[:gone]

    def send_again(self) -> None:
        """What was sent and not acknowledged is lost: it is sent once more."""
        self.next = self.acknowledged
