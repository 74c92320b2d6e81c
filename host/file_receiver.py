"""Receiving files into a folder: the shell between chunks, `incoming` and the disk.

Chunks are decided on the reactor's thread; disk and hashing run in worker threads, one job per file
at a time. Source: docs/protocol/file-transfer.md, "Receiver".
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from packetcloud.chunk.names import GUID
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.file_answers import FileAnswers
from packetcloud.host.file_format import AnswerState, Data, Finish, Offer
from packetcloud.host.file_names import stored_name
from packetcloud.host.file_sender import DIGEST_MISMATCH, UNKNOWN_TRANSFER
from packetcloud.host.inbox_folder import CompletedFile, FolderError, InboxFolder, words_for
from packetcloud.host.incoming import DataVerdict, Incoming, IncomingState
from packetcloud.host.part_file import DigestMismatchError, PartFile, PartLabel
from packetcloud.host.promise import Promise
from packetcloud.host.reactor import DelayedCall, Reactor
from packetcloud.host.received import ReceivedChunk

MAX_ACTIVE_COUNT = 64
"""Files open at the same time: two descriptors each."""
MAX_ACTIVE_PER_SOURCE_COUNT = 16
"""Of them from one source, so that nobody takes all places."""
MAX_TRANSFERS_PER_FILE_COUNT = 16
"""Transfers that share one incoming file: each is a try of its sender to resume it."""
WRITE_BATCH_COUNT = 8
"""Pieces per write job: 8 MiB are 6 ms of work, long enough to hide the hand-over to the thread."""
IDLE_S = 300.0
"""A file that nothing arrives for is closed after 5 minutes; its part stays and can be resumed."""
IDLE_CHECK_S = 30.0
_log = Logger(namespace="packetcloud.host")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReceiveRules:
    """Who may send what."""

    allowed: frozenset[GUID] | None = None
    """Sources; None: anybody."""
    max_bytes: int | None = None
    """Largest single file; None: what fits on the disk."""
    overwrite: bool = False
    """A file of the same name is replaced; else the new one is called `name-1` and so on."""
    sync_disk: bool = True
    """False: no fsync at all. Faster; a power cut can cost files that were said to be complete."""


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file that arrived whole and was checked."""

    path: Path
    source: GUID
    size_bytes: int
    sha256: bytes
    seconds: float
    """From the offer to the renaming."""


@dataclass(frozen=True, slots=True)
class ReceiveProgress:
    """How far one incoming file is."""

    name: str
    source: GUID
    have_bytes: int
    size_bytes: int


@dataclass(slots=True, eq=False)
class _Active:
    """An incoming file, its open part and its work."""

    incoming: Incoming
    part: PartFile | None = None
    pieces: deque[tuple[ReceivedChunk, Data]] = field(default_factory=deque)
    is_working: bool = False
    syncing: Promise[None] | None = None


class FileReceiver:
    """Receives files into one folder until it is closed."""

    def __init__(
        self,
        reactor: Reactor,
        endpoint: Endpoint,
        folder: InboxFolder,
        rules: ReceiveRules,
        on_file: Callable[[ReceivedFile], None] | None = None,
        on_progress: Callable[[ReceiveProgress], None] | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._reactor = reactor
        self._folder = folder
        self._rules = rules
        self._on_file = on_file
        self._on_progress = on_progress
        self._by_id: dict[tuple[bytes, bytes], _Active] = {}
        self._by_key: dict[tuple[bytes, bytes], _Active] = {}
        self._all: list[_Active] = []
        self._folder_lock = DeferredLock()
        self._idle_call: DelayedCall | None = None
        self._answers = FileAnswers(endpoint, self.counters)
        self._is_closing = False

    @property
    def active_count(self) -> int:
        return len(self._all)

    def take(self, chunk: ReceivedChunk, message: Offer | Data | Finish) -> None:
        """Handle one message; answers and releases `chunk`, now or later."""
        source = chunk.header.source
        words = self._check_source(source)
        if self._is_closing:
            chunk.defer()  # no answer: the sender tries again, and may find our successor
            chunk.drop()
            return
        if words is not None:
            self._refuse(chunk, words)
            return
        match message:
            case Data():
                self._take_data(chunk, message, source.value)
            case Offer():
                self._take_offer(chunk, message, source.value)
            case Finish():
                self._take_finish(chunk, message, source.value)

    def answers_delivered(self) -> Promise[None]:
        """Return a promise that is kept when every answer sent so far has ended."""
        return self._answers.all_ended()

    def close(self) -> Promise[None]:
        """Make safe what is there and close all files; unfinished ones can be resumed."""
        self._is_closing = True
        if self._idle_call is not None:
            self._idle_call.cancel()
            self._idle_call = None
        return Promise.from_coroutine(self._close())

    # messages

    def _check_source(self, source: GUID) -> str | None:
        allowed = self._rules.allowed
        if allowed is not None and source not in allowed:
            return "not_allowed: this host takes files only from the GUIDs it was told"
        return None

    def _take_offer(self, chunk: ReceivedChunk, offer: Offer, source: bytes) -> None:
        now = self._reactor.seconds()
        limit = self._rules.max_bytes
        if limit is not None and offer.size_bytes > limit:
            words = f"too_large: the file has {offer.size_bytes} bytes, the limit here is {limit}"
            self._refuse(chunk, words)
            return
        active = self._by_id.get((source, offer.transfer_id))
        if active is None and offer.resume:
            active = self._by_key.get((source, offer.file_key))
        if active is None:
            self._open(chunk, offer, source)
            return
        if active.incoming.size_bytes != offer.size_bytes:
            self._refuse(chunk, "bad_size: the same transfer was offered with another size")
            return
        transfers = active.incoming.transfer_ids
        if offer.transfer_id not in transfers and len(transfers) >= MAX_TRANSFERS_PER_FILE_COUNT:
            self._refuse(chunk, f"busy: {len(transfers)} transfers bring this file already")
            return
        chunk.accept()
        chunk.release()
        self._by_id[source, offer.transfer_id] = active
        active.incoming.asked(offer.transfer_id, offer.question, now)
        if active.incoming.state is IncomingState.RECEIVING:
            self._answer(active, AnswerState.WANTED)

    def _take_data(self, chunk: ReceivedChunk, data: Data, source: bytes) -> None:
        active = self._by_id.get((source, data.transfer_id))
        if active is None:
            self._refuse(chunk, f"{UNKNOWN_TRANSFER}: offer the file again")
            return
        end = data.offset + len(data.data)
        verdict = active.incoming.data(data.offset, end, self._reactor.seconds())
        self.counters[f"data_{verdict.value}_total"] += 1
        if verdict is DataVerdict.BAD:
            self._refuse(chunk, f"bad_range: {data.offset}-{end} is not of this file")
        elif verdict is DataVerdict.HAVE:
            chunk.accept()
            chunk.release()
        else:
            chunk.defer()
            active.pieces.append((chunk, data))
            self._work(active)

    def _take_finish(self, chunk: ReceivedChunk, finish: Finish, source: bytes) -> None:
        active = self._by_id.get((source, finish.transfer_id))
        if active is None:
            chunk.defer()
            Deferred.fromCoroutine(self._answer_old(chunk, finish, source))
            return
        if not active.incoming.finish_asked(finish, self._reactor.seconds()):
            self._refuse(chunk, "bad_size: the file offered had another size")
            return
        chunk.accept()
        chunk.release()
        self._work(active)

    def _refuse(self, chunk: ReceivedChunk, words: str) -> None:
        self.counters[f"refused_{words.split(':', 1)[0]}_total"] += 1
        chunk.refuse(words)
        chunk.release()

    # opening

    def _open(self, chunk: ReceivedChunk, offer: Offer, source: bytes) -> None:
        of_source = sum(active.incoming.source == source for active in self._all)
        if len(self._all) >= MAX_ACTIVE_COUNT or of_source >= MAX_ACTIVE_PER_SOURCE_COUNT:
            self._refuse(chunk, f"busy: {len(self._all)} files are coming in; try again later")
            return
        now = self._reactor.seconds()
        name = stored_name(offer.name)
        active = _Active(Incoming(source, offer.file_key, name, offer.size_bytes, now))
        active.incoming.asked(offer.transfer_id, offer.question, now)
        self._all.append(active)
        self._by_id[source, offer.transfer_id] = active
        self._by_key[source, offer.file_key] = active
        chunk.defer()
        self._watch_idle()
        Deferred.fromCoroutine(self._opening(active, chunk, offer)).addErrback(self._bug)

    async def _opening(self, active: _Active, chunk: ReceivedChunk, offer: Offer) -> None:
        incoming = active.incoming
        folder = self._folder
        label = PartLabel(incoming.source, incoming.file_key, incoming.name, incoming.size_bytes)
        await self._folder_lock.acquire()
        try:
            done = None
            if offer.resume:
                done = await self._run(folder.completed, incoming.source, incoming.file_key)
            if done is None:
                active.part = await self._run(folder.begin, label, offer.resume)
        except FolderError as error:
            self._forget(active)
            self._refuse(chunk, str(error))
            return
        except Exception as error:  # whatever it was, its place comes free and the source hears
            self._forget(active)
            self._refuse(chunk, f"internal_error: {type(error).__name__}")
            raise
        finally:
            self._folder_lock.release()
        chunk.accept()
        chunk.release()
        if done is not None:
            self._forget(active)
            self._answers.complete(incoming.source, offer, done)
            return
        assert active.part is not None
        incoming.opened(active.part.restored)
        self._answer(active, AnswerState.WANTED)
        self._tell_progress(incoming)

    # writing

    def _work(self, active: _Active) -> None:
        if not active.is_working and active.part is not None:
            active.is_working = True
            Deferred.fromCoroutine(self._working(active)).addErrback(self._bug)

    async def _working(self, active: _Active) -> None:
        """Write what has come and finish the file when it is whole, until nothing is left."""
        incoming = active.incoming
        try:
            while incoming.state is IncomingState.RECEIVING:
                if active.pieces:
                    await self._write_some(active)
                    self._sync_if_due(active)
                elif incoming.digest is not None and incoming.is_whole:
                    await self._finish(active)
                else:
                    break
            if incoming.digest is not None and incoming.has_questions and not active.pieces:
                self._answer(active, AnswerState.WANTED)
        finally:
            active.is_working = False

    async def _write_some(self, active: _Active) -> None:
        incoming, part = active.incoming, active.part
        assert part is not None
        count = min(WRITE_BATCH_COUNT, len(active.pieces))
        batch = sorted(
            (active.pieces.popleft() for _ in range(count)), key=lambda item: item[1].offset
        )
        ranges = [(data.offset, data.offset + len(data.data)) for _, data in batch]
        reach = incoming.reach(ranges)
        try:
            await self._run(part.write, [(data.offset, data.data) for _, data in batch], reach)
        except OSError as error:
            words = words_for(error)
            incoming.not_written()
            for chunk, _ in [*batch, *active.pieces]:
                self._refuse(chunk, words)
            active.pieces.clear()
            return
        incoming.wrote(ranges, self._reactor.seconds())
        for chunk, _ in batch:
            chunk.accept()
            chunk.release()
        self._tell_progress(incoming)

    def _sync_if_due(self, active: _Active) -> None:
        """Begin to make safe what was written; writing goes on meanwhile."""
        if active.syncing is None and active.incoming.sync_due(self._reactor.seconds()):
            syncing = Promise.from_coroutine(self._sync(active))
            active.syncing = None if syncing.is_kept else syncing

    async def _sync(self, active: _Active) -> None:
        part = active.part
        written = active.incoming.sync_begins(self._reactor.seconds())
        try:
            if part is not None:
                await self._run(part.sync, written)
        except OSError as error:
            self.counters["sync_failures_total"] += 1
            _log.error("{path}: {error}", path=str(part and part.part_path), error=str(error))
        finally:
            active.syncing = None

    async def _finish(self, active: _Active) -> None:
        incoming, part = active.incoming, active.part
        assert part is not None
        digest = incoming.digest
        assert digest is not None
        incoming.move(IncomingState.FINISHING)
        if active.syncing is not None:
            await active.syncing
        try:
            name = await self._run(part.finish, digest, self._rules.overwrite)
            first_id = min(incoming.transfer_ids)
            done = CompletedFile(
                incoming.source, first_id, incoming.file_key, name, incoming.size_bytes, digest
            )
            await self._folder_lock.run(self._run, self._folder.complete, part, done)
        except DigestMismatchError as error:
            self._forget(active)
            self.counters["digest_mismatches_total"] += 1
            for answer in incoming.answers(AnswerState.FAILED, text=f"{DIGEST_MISMATCH}: {error}"):
                self._answers.send(incoming.source, answer)
            return
        except OSError as error:
            incoming.digest = None
            incoming.move(IncomingState.RECEIVING)
            for answer in incoming.answers(AnswerState.FAILED, text=words_for(error)):
                self._answers.send(incoming.source, answer)
            return
        self.counters["files_total"] += 1
        self.counters["file_bytes_total"] += incoming.size_bytes
        self._forget(active)
        for answer in incoming.answers(AnswerState.COMPLETE, digest, name):
            self._answers.send(incoming.source, answer)
        if self._on_file is not None:
            seconds = self._reactor.seconds() - incoming.started_s
            path = self._folder.path / name
            source = GUID(incoming.source)
            self._on_file(ReceivedFile(path, source, incoming.size_bytes, digest, seconds))

    # answers

    async def _answer_old(self, chunk: ReceivedChunk, finish: Finish, source: bytes) -> None:
        """A FINISH for a file that is not active: perhaps its answer was lost."""
        await self._folder_lock.acquire()
        try:
            done = await self._run(self._folder.completed, source, finish.transfer_id)
        finally:
            self._folder_lock.release()
        if done is None:
            self._refuse(chunk, f"{UNKNOWN_TRANSFER}: offer the file again")
            return
        chunk.accept()
        chunk.release()
        self._answers.complete(source, finish, done)

    def _answer(self, active: _Active, state: AnswerState) -> None:
        for answer in active.incoming.answers(state):
            self._answers.send(active.incoming.source, answer)

    # the rest

    def _forget(self, active: _Active) -> None:
        incoming = active.incoming
        incoming.move(IncomingState.GONE)
        self._all.remove(active)
        for table in (self._by_id, self._by_key):
            for key in [key for key, value in table.items() if value is active]:
                del table[key]

    def _tell_progress(self, incoming: Incoming) -> None:
        if self._on_progress is not None:
            have = incoming.written.total_bytes
            source = GUID(incoming.source)
            self._on_progress(ReceiveProgress(incoming.name, source, have, incoming.size_bytes))

    def _watch_idle(self) -> None:
        if self._idle_call is None and not self._is_closing:
            self._idle_call = self._reactor.callLater(IDLE_CHECK_S, self._close_idle)

    def _close_idle(self) -> None:
        self._idle_call = None
        limit_s = self._reactor.seconds() - IDLE_S
        for active in list(self._all):
            is_idle = active.incoming.last_active_s <= limit_s and not active.is_working
            if is_idle and active.incoming.state is IncomingState.RECEIVING:
                self.counters["idle_closed_total"] += 1
                Deferred.fromCoroutine(self._leave(active)).addErrback(self._bug)
        if self._all:
            self._watch_idle()

    async def _leave(self, active: _Active) -> None:
        self._forget(active)
        if active.syncing is not None:
            await active.syncing
        await self._sync(active)
        if active.part is not None:
            await self._folder_lock.run(self._run, self._folder.leave, active.part)

    async def _close(self) -> None:
        for active in list(self._all):
            for chunk, _ in active.pieces:
                chunk.drop()
            active.pieces.clear()
        while any(active.is_working or active.part is None for active in self._all):
            await _later(self._reactor, 0.01)
        for active in list(self._all):
            await self._leave(active)
        await self._folder_lock.run(self._run, self._folder.close)

    def _run(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        """Call `function` in a worker thread."""
        reactor: Any = self._reactor
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *args)

    def _bug(self, failure: Any) -> None:
        self.counters["bugs_total"] += 1
        _log.failure("receiving a file failed", failure=failure)


def _later(reactor: Reactor, delay_s: float) -> Deferred[None]:
    waiting: Deferred[None] = Deferred()
    reactor.callLater(delay_s, waiting.callback, None)
    return waiting
