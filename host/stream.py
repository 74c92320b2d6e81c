"""`async for chunk in endpoint.receive()`: received chunks one at a time."""

from __future__ import annotations

from collections import deque

from packetcloud.host.promise import Promise
from packetcloud.host.received import ReceivedChunk


class ChunkStream:
    """An async iterator over received chunks, for asyncio and Twisted coroutines alike.

    A chunk counts as taken when it is released or the next one is asked for.
    """

    def __init__(self) -> None:
        self._chunks: deque[ReceivedChunk] = deque()
        self._waiters: deque[Promise[ReceivedChunk]] = deque()
        self._last: ReceivedChunk | None = None
        self._is_finished = False

    def __aiter__(self) -> ChunkStream:
        return self

    def __anext__(self) -> Promise[ReceivedChunk]:
        last, self._last = self._last, None
        if last is not None and not last.is_deferred:
            last.accept()
        promise: Promise[ReceivedChunk] = Promise()
        if self._chunks:
            self._last = self._chunks.popleft()
            promise.callback(self._last)
        elif self._is_finished:
            promise.errback(StopAsyncIteration())
        else:
            self._waiters.append(promise)
        return promise

    def put(self, batch: list[ReceivedChunk]) -> None:
        """Queue `batch`; each chunk is answered when the application has had it."""
        for chunk in batch:
            chunk.is_held = True
            self._waiters = deque(waiter for waiter in self._waiters if not waiter.called)
            if self._waiters:
                self._last = chunk
                self._waiters.popleft().callback(chunk)
            else:
                self._chunks.append(chunk)

    def finish(self) -> None:
        """End the iteration; what nobody took is left to the next copy."""
        self._is_finished = True
        for chunk in self._chunks:
            chunk.drop()
        self._chunks.clear()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.called:
                waiter.errback(StopAsyncIteration())
