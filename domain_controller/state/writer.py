"""The one thread that writes: what waits is done in one transaction, and answered after its commit.

A request is a work: a function of the transaction, which may run more than once. It is answered
with what the work returned or raised, once that is on disk; or with an error that says whether
anything may have been written. Source: docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from packetcloud.domain_controller.state import answers, nonces
from packetcloud.domain_controller.state.answers import Asked
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import (
    ClosedError,
    DatabaseAwayError,
    DiskFullError,
    NotDoneError,
    OutcomeUnknownError,
    QueueFullError,
)
from packetcloud.domain_controller.state.failures import (
    CollidedError,
    Failure,
    concerns_all,
    failure_of,
    line_of,
)
from packetcloud.domain_controller.state.nonces import Nonce
from packetcloud.domain_controller.state.transaction import Transaction, Work

MAX_WAITING_COUNT = 1024
"""Requests that wait for the writer: at 300 a second, about 3 s of them."""
MAX_BATCH_COUNT = 64
"""Requests of one transaction: on PostgreSQL others wait for its locks."""
ANSWER_WITHIN_S = 10.0
"""So long a request waits for its answer."""
MAX_RETRY_AFTER_S = 60
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class WriterFigures:
    """What the writer did, for metrics."""

    requests: int = 0
    batches: int = 0
    refused: int = 0
    """Not accepted: too many waited."""
    unknown: int = 0
    """Answered as unknown."""
    failures: dict[Failure, int] = field(default_factory=lambda: dict.fromkeys(Failure, 0))
    """Batches that failed, by what failed."""
    busy_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Request:
    work: Work[Any]
    locks: Collection[str]
    nonce: Nonce | None
    asked: Asked | None
    future: Future[Any]
    is_committing: bool = False
    """What becomes of it is the database's to say."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    result: Any = None
    error: Exception | None = None


class _FailedError(Exception):
    """A batch failed as a whole."""

    def __init__(self, failure: Failure, is_unknown: bool, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure
        self.is_unknown = is_unknown


def _no_step(_name: str) -> None:
    """Do nothing at a step."""


class Writer:
    """The writer of one database. `close` it: what waits is written first.

    Args:
        clock_ms: the time that works see.
        at_step: told each step of a batch as it is reached; where tests end the process.
    """

    def __init__(
        self,
        database: Database,
        clock_ms: Callable[[], int],
        *,
        max_waiting: int = MAX_WAITING_COUNT,
        max_batch: int = MAX_BATCH_COUNT,
        answer_within_s: float = ANSWER_WITHIN_S,
        at_step: Callable[[str], None] = _no_step,
    ) -> None:
        self.figures = WriterFigures()
        self._database = database
        self._clock_ms = clock_ms
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._answer_within_s = answer_within_s
        self._at_step = at_step
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._is_closing = threading.Event()
        self._connection: Connection | None = None
        self._caches: dict[str, object] = {}
        self._thread = threading.Thread(target=self._run, name="state-writer", daemon=True)
        self._thread.start()

    async def do(
        self,
        work: Work[T],
        locks: Collection[str] = (),
        nonce: Nonce | None = None,
        asked: Asked | None = None,
    ) -> T:
        """Have a work done, and return what it returned, when that is on disk.

        Args:
            locks: cloudlets whose holds it looks at; see `Transaction.lock`.
            nonce: is used up by it.
            asked: the key that it will ask for by `answers.once`, looked up together with others.

        Raises:
            NotDoneError: nothing was written: too many wait, or the database is away or full.
            OutcomeUnknownError: it may have been written.
            ReplayedError: the nonce was used before; the work was not done.
        """
        request = self._accept(work, locks, nonce, asked)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._answer_within_s, self._give_up, request)
        try:
            result: T = await asyncio.wrap_future(request.future)
        finally:
            timer.cancel()
        return result

    def do_blocking(
        self,
        work: Work[T],
        locks: Collection[str] = (),
        nonce: Nonce | None = None,
        asked: Asked | None = None,
    ) -> T:
        """Do the same as `do`, for threads."""
        request = self._accept(work, locks, nonce, asked)
        with contextlib.suppress(TimeoutError):
            request.future.exception(self._answer_within_s)
        self._give_up(request)
        result: T = request.future.result()
        return result

    @property
    def waiting_count(self) -> int:
        """How many requests wait to be begun."""
        return len(self._waiting)

    def close(self) -> None:
        """Write what waits, and end. What a database that is away does not take is not done.

        A server that is stopped in the middle of a statement is not waited for longer than its
        requests wait: what it was told is then its own to finish or to undo.
        """
        with self._changed:
            self._is_closing.set()
            self._changed.notify_all()
        self._thread.join(self._answer_within_s)
        if self._thread.is_alive():
            _LOG.warning("the database does not answer; it is left as it is")

    def _accept(
        self,
        work: Work[Any],
        locks: Collection[str],
        nonce: Nonce | None,
        asked: Asked | None,
    ) -> _Request:
        request = _Request(work, locks, nonce, asked, Future())
        # From now on only the writer and `_give_up` end it, whatever becomes of who waits for it.
        request.future.set_running_or_notify_cancel()
        with self._changed:
            if self._is_closing.is_set():
                raise ClosedError("this domain controller ends")
            if len(self._waiting) >= self._max_waiting:
                self.figures.refused += 1
                raise QueueFullError(
                    f"{self._max_waiting} requests wait already", self._retry_after_s()
                )
            self._waiting.append(request)
            self._changed.notify_all()
        return request

    def _retry_after_s(self) -> int:
        each_s = self.figures.busy_s / max(1, self.figures.requests)
        return min(MAX_RETRY_AFTER_S, 1 + int(each_s * len(self._waiting)))

    def _give_up(self, request: _Request) -> None:
        with self._changed:
            if request.future.done():
                return
            if request.is_committing:
                self.figures.unknown += 1
                request.future.set_exception(_unknown("the database does not answer"))
            else:
                text = f"the database did not take it within {self._answer_within_s:g} s"
                request.future.set_exception(DatabaseAwayError(text))

    def _run(self) -> None:
        while batch := self._take():
            began_s = monotonic()
            self._settle(batch)
            self.figures.busy_s += monotonic() - began_s
        self._drop()

    def _take(self) -> list[_Request]:
        with self._changed:
            while not self._waiting and not self._is_closing.is_set():
                self._changed.wait()
            count = min(len(self._waiting), self._max_batch)
            return [self._waiting.popleft() for _ in range(count)]

    def _settle(self, batch: list[_Request]) -> None:
        """Do a batch, again and again while the database is away and somebody waits for it."""
        pause_s = _FIRST_PAUSE_S
        is_eager = False
        while batch := self._still_wanted(batch):
            try:
                outcomes = self._try(batch, is_eager)
            except _FailedError as error:
                self.figures.failures[error.failure] += 1
                # One row that the database refuses is the answer to its own request alone.
                is_eager = error.failure is Failure.REQUEST
                batch = self._after_failure(batch, error)
                self._is_closing.wait(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except Exception as error:  # a fault of ours must not end the thread that writes
                _LOG.exception("a batch of %d requests failed", len(batch))
                self._drop()
                self._answer(batch, [_Outcome(error=error)] * len(batch))
                return
            else:
                self.figures.batches += 1
                self.figures.requests += len(batch)
                self._answer(batch, outcomes)
                self._at_step("answered")
                return

    def _still_wanted(self, batch: list[_Request]) -> list[_Request]:
        with self._changed:
            return [request for request in batch if not request.future.done()]

    def _begin_commit(self, batch: list[_Request]) -> bool:
        """Tell whether all may be committed: who was told that nothing was written, must not."""
        with self._changed:
            if any(request.future.done() for request in batch):
                return False
            for request in batch:
                request.is_committing = True
            return True

    def _after_failure(self, batch: list[_Request], error: _FailedError) -> list[_Request]:
        """Answer what has its answer; return what is to be tried again."""
        if error.is_unknown:
            self.figures.unknown += len(batch)
            self._answer(batch, [_Outcome(error=_unknown(str(error)))] * len(batch))
            return []
        if error.failure is Failure.FULL:
            refusal: NotDoneError = DiskFullError(f"the database's disk is full: {error}")
            self._answer(batch, [_Outcome(error=refusal)] * len(batch))
            return []
        if self._is_closing.is_set():
            refusal = ClosedError(f"this domain controller ends; the database is away: {error}")
            self._answer(batch, [_Outcome(error=refusal)] * len(batch))
            return []
        with self._changed:
            for request in batch:
                request.is_committing = False
        return batch

    def _answer(self, batch: list[_Request], outcomes: list[_Outcome]) -> None:
        with self._changed:
            for request, outcome in zip(batch, outcomes, strict=True):
                if request.future.done():
                    continue
                if outcome.error is not None:
                    request.future.set_exception(outcome.error)
                else:
                    request.future.set_result(outcome.result)

    def _try(self, batch: list[_Request], is_eager: bool) -> list[_Outcome]:
        is_committing = False
        try:
            connection = self._connect()
            connection.begin()
            self._at_step("begun")
            transaction = Transaction(connection, self._clock_ms(), self._caches, is_eager)
            transaction.lock(name for request in batch for name in request.locks)
            self._at_step("locked")
            outcomes = self._do(transaction, batch)
            transaction.finish()
            self._at_step("written")
            is_committing = self._begin_commit(batch)
            if not is_committing:
                raise _FailedError(Failure.AGAIN, False, "somebody no longer waits")
            self._at_step("committing")
            connection.commit()
            self._at_step("committed")
        except _FailedError:
            self._drop()
            raise
        except (SQLAlchemyError, CollidedError) as error:
            self._drop()
            failure = failure_of(error)
            if failure is Failure.REQUEST and is_eager:  # of a statement that is ours, not a work's
                failure = Failure.AGAIN
            # A full disk took no commit record; anything else may have broken after it.
            is_unknown = is_committing and failure is Failure.AWAY
            raise _FailedError(failure, is_unknown, line_of(error)) from None
        return outcomes

    def _do(self, transaction: Transaction, batch: list[_Request]) -> list[_Outcome]:
        """Do the works of a batch; what each of them would look up first is looked up for all."""
        signed = [request for request in batch if request.nonce is not None]
        used = [request.nonce for request in signed if request.nonce is not None]
        replays = nonces.use_all(transaction, used) if used else []
        replayed = dict(zip(map(id, signed), replays, strict=True))
        if asked := [request.asked for request in batch if request.asked is not None]:
            answers.look_up(transaction, asked)
        return [
            _Outcome(error=error)
            if (error := replayed.get(id(request))) is not None
            else self._one(transaction, request.work)
            for request in batch
        ]

    def _one(self, transaction: Transaction, work: Work[Any]) -> _Outcome:
        try:
            with transaction.work():
                result = work(transaction)
        except Exception as error:  # whatever a work raises is the answer to who asked for it
            if concerns_all(error):
                raise
            return _Outcome(error=error)
        self._at_step("worked")
        return _Outcome(result)

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.writer.connect()
        return self._connection

    def _drop(self) -> None:
        """Let go of the connection; what was begun on it is undone by the database."""
        connection, self._connection = self._connection, None
        self._caches.clear()
        if connection is None:
            return
        with contextlib.suppress(SQLAlchemyError):  # it is lost: there is nothing left to undo
            connection.invalidate()
        with contextlib.suppress(SQLAlchemyError):
            connection.close()


def _unknown(detail: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"whether it was written is not known: {detail}; ask again with the same idempotency key"
    )
