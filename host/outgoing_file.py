"""Sending one file: the shell between `file_sender`, the file on disk and the endpoint."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from packetcloud.host.endpoint import Endpoint
from packetcloud.host.errors import EndpointClosedError, TransferError
from packetcloud.host.file_format import Answer, data_header
from packetcloud.host.file_sender import (
    FileSend,
    GivenUp,
    SendData,
    SenderState,
    SendMessage,
    SendPlan,
    SentAll,
    WantDigest,
)
from packetcloud.host.header_template import SendOptions
from packetcloud.host.promise import Promise
from packetcloud.host.reactor import DelayedCall, Reactor
from packetcloud.host.results import SendResult
from packetcloud.host.source_file import SourceFile

READ_BATCH_COUNT = 8
"""Pieces per read job: 8 MiB are 5 ms of work, long enough to hide the hand-over to the thread."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file that the receiver has, checked by SHA-256 at both ends."""

    path: Path
    name: str
    """Under which the receiver stored it."""
    size_bytes: int
    sha256: bytes
    seconds: float
    had_bytes: int
    """What the receiver had from an earlier run."""
    was_there: bool
    """The receiver had all of it; nothing was sent."""
    resent_bytes: int


@dataclass(frozen=True, slots=True)
class SendProgress:
    """How far one outgoing file is."""

    delivered_bytes: int
    size_bytes: int
    state: SenderState


class OutgoingFile:
    """One file on its way out. `done` is kept with a `SentFile`, or fails with `TransferError`."""

    def __init__(
        self,
        reactor: Reactor,
        endpoint: Endpoint,
        source: SourceFile,
        plan: SendPlan,
        options: SendOptions,
        lifetime_s: float,
        on_progress: Callable[[SendProgress], None] | None,
    ) -> None:
        self.done: Promise[SentFile] = Promise(lambda _: self.abort("cancelled"))
        self._reactor = reactor
        self._endpoint = endpoint
        self._source = source
        self._plan = plan
        self._options = options
        self._lifetime_s = lifetime_s
        self._on_progress = on_progress
        self._core = FileSend(plan)
        self._to_read: deque[SendData] = deque()
        self._free: list[bytearray] = []
        self._digest_wanted = False
        self._is_reading = False
        self._had_bytes = 0
        self._started_s = reactor.seconds()
        self._timer: DelayedCall | None = None
        self._sends: set[Promise[SendResult]] = set()

    def start(self) -> None:
        """Offer the file to the receiver."""
        self._core.start(self._reactor.seconds())
        self._pump()

    def answered(self, answer: Answer) -> None:
        """The receiver sent an ANSWER for this transfer."""
        was_offering = self._core.state is SenderState.OFFERING
        self._core.answered(answer, self._reactor.seconds())
        if was_offering and self._core.state is SenderState.SENDING:
            self._had_bytes = max(self._had_bytes, self._core.delivered_bytes)
        self._pump()

    def abort(self, text: str) -> None:
        """Give up; harmless when it is over."""
        self._core.abort(text)
        self._pump()

    # inside

    def _pump(self) -> None:
        """Carry out what the core wants, read on, tell progress, set the timer."""
        while commands := self._core.take_commands():
            for command in commands:
                match command:
                    case SendMessage(message):
                        self._send(message.to_bytes(), b"", self._message_ended)
                    case SendData():
                        self._to_read.append(command)
                    case WantDigest():
                        self._digest_wanted = True
                    case SentAll() | GivenUp():
                        self._over(command)
        self._read_on()
        if not self._core.is_over and self._on_progress is not None:
            core, size = self._core, self._plan.size_bytes
            self._on_progress(SendProgress(core.delivered_bytes, size, core.state))
        self._set_timer()

    def _send(
        self, prefix: bytes, payload: bytes | memoryview, ended: Callable[[SendResult], None]
    ) -> None:
        try:
            promise = self._endpoint.send_with(
                self._options, payload, payload_prefix=prefix, lifetime_s=self._lifetime_s
            )
        except EndpointClosedError:
            self._core.abort("this host's endpoint was closed")
            return
        self._sends.add(promise)

        def over(result: SendResult) -> SendResult:
            self._sends.discard(promise)
            ended(result)
            return result

        promise.addCallback(over).addErrback(_ignore)

    def _message_ended(self, result: SendResult) -> None:
        self._core.message_ended(result, self._reactor.seconds())
        self._pump()

    def _data_ended(self, job: int, buffer: bytearray, result: SendResult) -> None:
        self._free.append(buffer)
        self._core.data_ended(job, result, self._reactor.seconds())
        self._pump()

    def _read_on(self) -> None:
        if not self._is_reading and not self._core.is_over:
            if self._to_read or (self._digest_wanted and not self._is_hashed):
                self._is_reading = True
                Deferred.fromCoroutine(self._reading()).addErrback(self._read_failed)
            elif self._digest_wanted:
                self._digest_wanted = False
                self._hashed()

    @property
    def _is_hashed(self) -> bool:
        return self._source.hashed_bytes >= self._plan.size_bytes

    def _hashed(self) -> None:
        try:
            digest = self._source.digest()
        except TransferError as error:
            self._core.abort(str(error), resumable=False)
        else:
            self._core.hashed(digest, self._reactor.seconds())
        self._pump()

    async def _reading(self) -> None:
        """Read (and hash on the way) what is wanted, a batch per job, until nothing is."""
        source = self._source
        while not self._core.is_over:
            while self._to_read and not self._core.is_wanted(self._to_read[0].job):
                self._to_read.popleft()
            if self._to_read and self._to_read[0].start <= source.hashed_bytes:
                count = min(READ_BATCH_COUNT, len(self._to_read))
                batch = [self._to_read.popleft() for _ in range(count)]
                buffers = [self._buffer() for _ in batch]
                views = [
                    memoryview(buffer)[: item.end - item.start]
                    for item, buffer in zip(batch, buffers, strict=True)
                ]
                await self._run(_read_all, source, batch, views)
                self._hand_over(batch, buffers, views)
            elif self._to_read:
                await self._run(source.hash_towards, self._to_read[0].start)
            elif self._digest_wanted and not self._is_hashed:
                await self._run(source.hash_towards, self._plan.size_bytes)
            else:
                break
            self._core.worked(self._reactor.seconds())
        self._is_reading = False
        if self._core.is_over:
            self._source.close()
        else:
            self._pump()

    def _hand_over(
        self, batch: list[SendData], buffers: list[bytearray], views: list[memoryview]
    ) -> None:
        for item, buffer, view in zip(batch, buffers, views, strict=True):
            if self._core.is_over:
                return

            def ended(result: SendResult, job: int = item.job, buffer: bytearray = buffer) -> None:
                self._data_ended(job, buffer, result)

            self._send(data_header(self._plan.transfer_id, item.start), view, ended)

    def _read_failed(self, failure: Any) -> None:
        self._is_reading = False
        error = failure.value
        text = str(error) if isinstance(error, TransferError) else f"a bug: {error!r}"
        self._core.abort(text, resumable=False)
        self._pump()

    def _buffer(self) -> bytearray:
        return self._free.pop() if self._free else bytearray(self._plan.chunk_bytes)

    def _over(self, end: SentAll | GivenUp) -> None:
        for promise in list(self._sends):
            promise.cancel()
        if not self._is_reading:
            self._source.close()
        if self.done.called:
            return
        if isinstance(end, GivenUp):
            self.done.errback(TransferError(end.text, resumable=end.resumable))
            return
        plan = self._plan
        seconds = self._reactor.seconds() - self._started_s
        self.done.callback(
            SentFile(
                self._source.path,
                end.name,
                plan.size_bytes,
                end.digest,
                seconds,
                plan.size_bytes if end.was_there else self._had_bytes,
                end.was_there,
                self._core.resent_bytes,
            )
        )

    def _set_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        due_s = self._core.next_timeout()
        if due_s is not None:
            delay_s = max(0.0, due_s - self._reactor.seconds())
            self._timer = self._reactor.callLater(delay_s, self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        self._core.handle_timeout(self._reactor.seconds())
        self._pump()

    def _run(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        reactor: Any = self._reactor
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *args)


def _ignore(_: Any) -> None:
    """A send that was cancelled at the end of its file."""


def _read_all(source: SourceFile, batch: list[SendData], views: list[memoryview]) -> None:
    for item, view in zip(batch, views, strict=True):
        if item.start > source.hashed_bytes:
            source.hash_towards(item.start)
        source.read(item.start, view)
