"""`BlockingEndpoint`: an endpoint for scripts and the interactive prompt, without any event loop.

A reactor of its own runs in a background thread; every call waits for its result. Several may be
open at once, also beside a program's own reactor.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.hop.api import Buffer
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID, SID
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.endpoint_core import DEFAULT_LIFETIME_S
from packetcloud.host.errors import EndpointClosedError
from packetcloud.host.file_transfer import FileTransfers, SentFile
from packetcloud.host.promise import Promise
from packetcloud.host.reactor import Reactor, new_reactor
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendResult
from packetcloud.host.stream import ChunkStream

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Received:
    """A chunk with a payload of its own: nothing to release."""

    header: ChunkHeader
    payload: bytes


class ReactorThread:
    """A private reactor in a daemon thread."""

    def __init__(self) -> None:
        self.reactor: Reactor = new_reactor()
        started = threading.Event()
        self.reactor.callFromThread(started.set)
        self._thread = threading.Thread(
            target=self.reactor.run,
            kwargs={"installSignalHandlers": False},
            name="packetcloud-reactor",
            daemon=True,
        )
        self._thread.start()
        started.wait()

    def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Run `function` on the reactor's thread and return its value."""

        def begin(future: concurrent.futures.Future[T]) -> None:
            future.set_result(function(*args, **options))

        return self._submit(begin)

    def wait(self, function: Callable[..., Deferred[T]], *args: Any, **options: Any) -> T:
        """Run `function` on the reactor's thread and wait for its promise.

        When the wait is interrupted (Ctrl-C), the promise is cancelled.
        """
        pending: list[Deferred[T]] = []

        def begin(future: concurrent.futures.Future[T]) -> None:
            promise = function(*args, **options)
            pending.append(promise)
            promise.addCallbacks(future.set_result, lambda failure: _fail(future, failure))

        def cancel() -> None:
            for promise in pending:
                promise.cancel()

        try:
            return self._submit(begin)
        except KeyboardInterrupt:
            self.reactor.callFromThread(cancel)
            raise

    def _submit(self, begin: Callable[[concurrent.futures.Future[T]], None]) -> T:
        if not self._thread.is_alive():
            raise EndpointClosedError("the endpoint was closed; open a new one")
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                begin(future)
            except BaseException as error:  # a thread waits for the future, whatever happens here
                future.set_exception(error)

        self.reactor.callFromThread(run)
        return future.result()

    def stop(self) -> None:
        """End the reactor and its thread. Harmless when repeated."""
        if self._thread.is_alive():
            self.reactor.callFromThread(self.reactor.stop)
            self._thread.join()
            self.reactor.close()


class BlockingEndpoint:
    """The same as `Endpoint`, with calls that wait. Use it in a `with` statement or close it."""

    def __init__(self, thread: ReactorThread, endpoint: Endpoint) -> None:
        self._thread = thread
        self._endpoint = endpoint
        self._stream: ChunkStream | None = None
        self._transfers: FileTransfers | None = None

    @classmethod
    def open(cls, router: tuple[str, int], identity: Identity, **options: Any) -> Self:
        """Connect to `router` (host, port); options and errors as in `Endpoint.open`."""
        thread = ReactorThread()
        try:
            endpoint = thread.wait(Endpoint.open, thread.reactor, router, identity, **options)
        except BaseException:  # Ctrl-C too: nobody else knows of the thread yet
            thread.stop()
            raise
        return cls(thread, endpoint)

    @property
    def guid(self) -> GUID:
        return self._endpoint.guid

    def send(self, destination: GUID, payload: Buffer, **options: Any) -> SendResult:
        """Send one chunk and wait for its end; options and errors as in `Endpoint.send`."""
        return self._thread.wait(self._endpoint.send, destination, payload, **options)

    def send_many(
        self, destination: GUID, payloads: Sequence[Buffer], **options: Any
    ) -> list[SendResult]:
        """Send many chunks side by side, as fast as there is room, and wait for all their ends."""

        way = {name: options[name] for name in ("sid", "services") if name in options}

        async def send_all() -> list[SendResult]:
            promises: list[Promise[SendResult]] = []
            for payload in payloads:
                await self._endpoint.writable(destination, **way)
                promises.append(self._endpoint.send(destination, payload, **options))
            return [await promise for promise in promises]

        return self._thread.wait(lambda: Promise.from_coroutine(send_all()))

    def receive(self, timeout_s: float | None = None) -> Received | None:
        """Wait for the next chunk; None when `timeout_s` passed without one, or after `close`.

        The chunk counts as taken when this returns it.
        """
        return self._thread.wait(lambda: Promise.from_coroutine(self._receive(timeout_s)))

    def __iter__(self) -> Iterator[Received]:
        while (chunk := self.receive()) is not None:
            yield chunk

    def send_file(
        self,
        path: Path,
        destination: GUID,
        *,
        services: Sequence[SID] = (),
        lifetime_s: float = DEFAULT_LIFETIME_S,
        resume: bool = False,
        **options: Any,
    ) -> SentFile:
        """Send a file and wait until the receiver has it; as `FileTransfers.send`."""

        def start() -> Promise[SentFile]:
            if self._transfers is None:
                self._transfers = FileTransfers(self._thread.reactor, self._endpoint)
            return self._transfers.send(
                path,
                destination,
                services=services,
                lifetime_s=lifetime_s,
                resume=resume,
                **options,
            )

        return self._thread.wait(start)

    def stats(self) -> dict[str, float | int]:
        """Return all counters and gauges."""
        return self._thread.call(self._endpoint.stats)

    def close(self) -> None:
        """Leave the router and end the thread. Harmless when repeated."""
        try:
            self._thread.wait(self._endpoint.close)
        except EndpointClosedError:
            return
        self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _receive(self, timeout_s: float | None) -> Received | None:
        if self._stream is None:
            self._stream = self._endpoint.receive()
        waiting: Promise[ReceivedChunk] = self._stream.__anext__()
        limit = None
        if timeout_s is not None:
            limit = self._thread.reactor.callLater(timeout_s, waiting.cancel)
        try:
            chunk = await waiting
        except (CancelledError, StopAsyncIteration):
            return None
        finally:
            if limit is not None and limit.active():
                limit.cancel()
        received = Received(chunk.header, bytes(chunk.payload))
        chunk.release()
        return received


def _fail(future: concurrent.futures.Future[Any], failure: Failure) -> None:
    assert failure.value is not None
    future.set_exception(failure.value)
