"""Where `process` runs: on the reactor's thread, in one worker thread, or as coroutines.

The reactor's thread is the default. Handing a 1 MiB chunk to a worker and back costs two wake-ups
and, when both threads run Python, waits for the interpreter lock of up to 5 ms; hashing or
encrypting gains nothing, since a VI has one core. A worker is needed when one chunk takes so long
that the hop's keepalives (every 3 s) would be missed. Figures: docs/how-to/write-a-service.md.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import Protocol

from packetcloud.services.sdk import NetworkService, Verdict
from packetcloud.services.tasks import Task

SLICE_S = 0.002
"""The reactor gets its turn after so much processing: one or two 1 MiB chunks, many small ones."""
SLOW_PROCESS_NS = 1_000_000_000
"""One chunk that takes longer moves an `auto` service into a worker thread."""
_WORKER_AHEAD_COUNT = 2
"""Tasks given to the worker at once: it has the next at hand while a verdict is sent."""
MAX_FAILURE_KINDS = 256
"""Kinds of failure that are told apart; a service can make up any number of them."""

TakeTask = Callable[[], Task | None]
Outcome = Verdict | str
ConcludeTask = Callable[[Task, Outcome, int], None]


class ReactorClock(Protocol):
    """What is needed of Twisted's reactor here."""

    def seconds(self) -> float: ...
    def callLater(self, delay: float, call: Callable[[], None]) -> object: ...
    def callFromThread(self, call: Callable[..., None], *args: object) -> None: ...


class Execution(Protocol):
    """Takes tasks while there are any, runs them, and gives the outcomes back."""

    def wake(self) -> None:
        """Tasks may be waiting; called on the reactor's thread, as often as one likes."""

    def stop(self) -> None:
        """Take no more tasks; the one in progress may still end."""


class ProcessCalls:
    """Calls `process`, times it, and turns whatever it raises into the text of a failure."""

    def __init__(
        self,
        service: NetworkService,
        log: logging.Logger,
        nanoseconds: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.service = service
        self.failures: Counter[tuple[str, str]] = Counter()
        self._log = log
        self._nanoseconds = nanoseconds

    def run(self, task: Task) -> tuple[Outcome, int]:
        """Call `process` for a task that was taken."""
        assert task.chunk is not None
        started = self._nanoseconds()
        try:
            outcome: object = self.service.process(task.chunk, task.context)
        except (Exception, SystemExit) as error:  # an author's code may raise anything
            return self._failure(error), self._nanoseconds() - started
        elapsed = self._nanoseconds() - started
        return self._checked(outcome), elapsed

    async def run_coroutine(self, task: Task) -> tuple[Outcome, int]:
        """The same for `async def process`; the time includes what it awaits."""
        assert task.chunk is not None
        started = self._nanoseconds()
        try:
            outcome: object = self.service.process(task.chunk, task.context)
            if isinstance(outcome, Awaitable):
                outcome = await outcome
        except (Exception, SystemExit) as error:  # an author's code may raise anything
            return self._failure(error), self._nanoseconds() - started
        elapsed = self._nanoseconds() - started
        return self._checked(outcome), elapsed

    def _checked(self, outcome: object) -> Outcome:
        if isinstance(outcome, Verdict):
            return outcome
        return self._failure(TypeError(f"process returned {type(outcome).__name__}, no Verdict"))

    def _failure(self, error: BaseException) -> str:
        """Count the failure and log it with its traceback if it is the first of its kind."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        kind = (type(error).__name__, place)
        if kind not in self.failures and len(self.failures) >= MAX_FAILURE_KINDS:
            kind = ("other", "")
        self.failures[kind] += 1
        if self.failures[kind] == 1:
            self._log.error(
                "process failed (logged once for %s at %s)", kind[0], place, exc_info=error
            )
        return f"{type(error).__name__}: {error}"


class InlineExecution:
    """Runs tasks on the reactor's thread, a slice at a time.

    Args:
        flush: called after a slice: what was concluded can leave.
    """

    def __init__(
        self,
        reactor: ReactorClock,
        calls: ProcessCalls,
        take: TakeTask,
        conclude: ConcludeTask,
        flush: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._calls = calls
        self._take = take
        self._conclude = conclude
        self._flush = flush
        self._is_scheduled = False
        self._is_stopped = False

    def wake(self) -> None:
        if not self._is_scheduled and not self._is_stopped:
            self._is_scheduled = True
            self._reactor.callLater(0, self._run_slice)

    def stop(self) -> None:
        self._is_stopped = True

    def _run_slice(self) -> None:
        self._is_scheduled = False
        end = self._reactor.seconds() + SLICE_S
        while not self._is_stopped:
            task = self._take()
            if task is None:
                break
            outcome, elapsed_ns = self._calls.run(task)
            self._conclude(task, outcome, elapsed_ns)
            if self._reactor.seconds() >= end:
                self.wake()
                break
        self._flush()


class ThreadExecution:
    """Runs tasks in one worker thread, one after the other."""

    def __init__(
        self,
        reactor: ReactorClock,
        calls: ProcessCalls,
        take: TakeTask,
        conclude: ConcludeTask,
    ) -> None:
        self._reactor = reactor
        self._calls = calls
        self._take = take
        self._conclude = conclude
        self._given: SimpleQueue[Task | None] = SimpleQueue()
        self._given_count = 0
        self._is_stopped = False
        # A daemon thread: a `process` that never returns must not keep the VI from ending.
        threading.Thread(target=self._work, name="process", daemon=True).start()

    def wake(self) -> None:
        while not self._is_stopped and self._given_count < _WORKER_AHEAD_COUNT:
            task = self._take()
            if task is None:
                return
            self._given_count += 1
            self._given.put(task)

    def stop(self) -> None:
        self._is_stopped = True
        self._given.put(None)

    def _work(self) -> None:
        while (task := self._given.get()) is not None:
            outcome, elapsed_ns = self._calls.run(task)
            self._reactor.callFromThread(self._done, task, outcome, elapsed_ns)

    def _done(self, task: Task, outcome: Outcome, elapsed_ns: int) -> None:
        self._given_count -= 1
        self._conclude(task, outcome, elapsed_ns)
        self.wake()


class CoroutineExecution:
    """Runs `async def process` on the reactor's event loop, several at once."""

    def __init__(
        self, calls: ProcessCalls, take: TakeTask, conclude: ConcludeTask, concurrency: int
    ) -> None:
        self._calls = calls
        self._take = take
        self._conclude = conclude
        self._concurrency = concurrency
        self._running: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    def wake(self) -> None:
        while not self._is_stopped and len(self._running) < self._concurrency:
            task = self._take()
            if task is None:
                return
            running = asyncio.ensure_future(self._run(task))
            self._running.add(running)
            running.add_done_callback(self._ended)

    def stop(self) -> None:
        self._is_stopped = True

    async def _run(self, task: Task) -> None:
        outcome, elapsed_ns = await self._calls.run_coroutine(task)
        self._conclude(task, outcome, elapsed_ns)

    def _ended(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        self.wake()
