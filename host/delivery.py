"""Arrived chunks on their way to the application: a batch per loop turn to each callback.

Chunks that nobody asked for yet wait for the callback that will. Source: docs/reference/host.md.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from twisted.logger import Logger

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.header import PayloadType
from packetcloud.host.reactor import Reactor
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.stream import ChunkStream

SEALED_WORDS = (
    "encrypted on its way, and no router decrypted it; is the rule missing that decrypts?"
)
COMPRESSED_WORDS = (
    "compressed on its way, and no router restored it; is the rule missing that decompresses?"
)
UNREADABLE = {
    PayloadType.SEALED: ("sealed_total", SEALED_WORDS),
    PayloadType.SEALED_REPORT: ("sealed_total", SEALED_WORDS),
    PayloadType.COMPRESSED: ("compressed_total", COMPRESSED_WORDS),
}
"""By payload type that no application here can read: what counts it, and what its source is told.
An application that can asks for the type."""
ChunksCallback = Callable[[list[ReceivedChunk]], None]

_log = Logger(namespace="packetcloud.host")


class Delivery:
    """The callbacks of one endpoint and what has arrived for them.

    Args:
        delivered: called when the callbacks of a turn have returned.
    """

    def __init__(self, reactor: Reactor, delivered: Callable[[], None]) -> None:
        self.counters: Counter[str] = Counter()
        self._reactor = reactor
        self._delivered = delivered
        self._callbacks: dict[int | None, ChunksCallback] = {}
        self._inbox: list[ReceivedChunk] = []
        self._unclaimed: deque[ReceivedChunk] = deque()
        self._streams: list[ChunkStream] = []

    def on_chunks(self, callback: ChunksCallback, payload_type: int | None) -> None:
        """Call `callback` from now on; None: with what no other callback takes."""
        if payload_type in self._callbacks:
            raise LocalMisuseError(f"payload type {payload_type} has a callback already")
        self._callbacks[payload_type] = callback
        if self._unclaimed:
            self._inbox[:0] = self._unclaimed
            self._unclaimed.clear()
            self._reactor.callLater(0, self.deliver)

    def stream(self, payload_type: int | None) -> ChunkStream:
        """Return a stream that takes the place of a callback."""
        stream = ChunkStream()
        self.on_chunks(stream.put, payload_type)
        self._streams.append(stream)
        return stream

    def put(self, chunk: ReceivedChunk) -> None:
        """Take in an arrived chunk; it is delivered in the next loop turn."""
        if not self._inbox:
            self._reactor.callLater(0, self.deliver)
        self._inbox.append(chunk)

    def deliver(self) -> None:
        """Hand out what has arrived, now."""
        inbox, self._inbox = self._inbox, []
        if not inbox:
            return
        batches: dict[int | None, list[ReceivedChunk]] = {}
        for chunk in inbox:
            kind = chunk.header.payload_type
            if kind in UNREADABLE and kind not in self._callbacks:
                counter, words = UNREADABLE[PayloadType(kind)]
                self.counters[counter] += 1
                chunk.refuse(words)
                chunk.release()
                continue
            batches.setdefault(kind if kind in self._callbacks else None, []).append(chunk)
        for key, batch in batches.items():
            callback = self._callbacks.get(key)
            if callback is None:
                self._unclaimed.extend(batch)
            else:
                self._call(callback, batch)
        self._delivered()

    def finish(self) -> None:
        """End the streams; what nobody asked for is left to the next copy."""
        for stream in self._streams:
            stream.finish()
        for chunk in self._unclaimed:
            chunk.drop()
        self._unclaimed.clear()

    def _call(self, callback: ChunksCallback, batch: list[ReceivedChunk]) -> None:
        try:
            callback(batch)
        except Exception:  # an application's callback may raise anything
            _log.failure("the receiver of chunks failed; {count} refused", count=len(batch))
            self.counters["callback_failures_total"] += 1
            for chunk in batch:
                chunk.refuse("the receiving application failed")
                chunk.release()
            return
        for chunk in batch:
            if not (chunk.is_deferred or chunk.is_held):
                chunk.accept()
