"""The thread that writes chunks to disk, many of them with one `fsync`.

Jobs in, results out. Whatever came while the last `fsync` ran is one group: it is written, then
synced once if any of it is to be durable, then answered. So a chunk waits for the group before its
own at the most, and nothing waits for company.
Source: docs/decisions/0010, "Group commit".
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from packetcloud.chunk.hop.api import Buffer
from packetcloud.router.chunk_log import ChunkLog, Record
from packetcloud.router.errors import DamagedRecordError
from packetcloud.router.histogram import LogHistogram

GROUP_COUNT = 1024
GROUP_BYTES = 8 << 20
"""One group at the most: 8 MiB take a disk of 200 MB/s 40 ms."""
TRY_AGAIN_S = 1.0
"""After an error: how often a disk is asked whether it has room again."""
_log = logging.getLogger("packetcloud.router")


@dataclass(frozen=True, slots=True)
class Put:
    """Write a chunk; `must_last`: answer when it survives a power cut."""

    record: Record
    pieces: tuple[Buffer, ...]
    size_bytes: int
    must_last: bool


@dataclass(frozen=True, slots=True)
class Remove:
    """Note that a chunk is done with."""

    number: int


@dataclass(frozen=True, slots=True)
class Read:
    """Return a chunk's bytes."""

    number: int


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Find out whether the disk has room again."""


Job = Put | Remove | Read | TryAgain


@dataclass(frozen=True, slots=True)
class PutDone:
    number: int
    error: str = ""
    """Why it is not written; empty if it is."""


@dataclass(frozen=True, slots=True)
class ReadDone:
    number: int
    data: bytes = b""
    error: str = ""
    is_damaged: bool = False


@dataclass(frozen=True, slots=True)
class DiskState:
    """What is on disk, after a group."""

    live_bytes: int
    disk_bytes: int
    damaged_count: int
    error: str = ""
    """The disk does not take anything; empty if it does."""
    sync_s: float | None = None
    """What the `fsync` of the group took."""
    group_count: int = 0
    """Chunks that it made durable."""


Result = PutDone | ReadDone | DiskState


@dataclass(slots=True)
class DiskFigures:
    """What the main thread counts of the results."""

    sync: LogHistogram = field(default_factory=LogHistogram)
    groups_count: int = 0
    errors_count: int = 0


def run_group(
    log: ChunkLog, jobs: Sequence[Job], seconds: Callable[[], float] = time.perf_counter
) -> list[Result]:
    """Do one group of jobs and return the answers, the state of the disk last."""
    results: list[Result] = []
    removed: list[int] = []
    puts: list[int] = []
    error = ""
    must_last = False
    sync_s: float | None = None
    for job in jobs:
        if isinstance(job, Put):
            if error:
                results.append(PutDone(job.record.number, error))
                continue
            try:
                log.put(job.record, job.pieces)
            except OSError as problem:
                error = _words(problem)
                results.append(PutDone(job.record.number, error))
            else:
                puts.append(job.record.number)
                must_last |= job.must_last
        elif isinstance(job, Remove):
            removed.append(job.number)
        elif isinstance(job, Read):
            results.append(_read(log, job.number))
    if must_last:
        began = seconds()
        try:
            log.sync()
        except OSError as problem:
            error = _words(problem)
            results += [PutDone(number, error) for number in puts]
            removed += puts
            puts = []
        sync_s = seconds() - began
    results += [PutDone(number) for number in puts]
    # After the records of the group: what a service made of a chunk lasts before the chunk goes.
    try:
        log.remove(removed)
        log.tidy()
    except OSError as problem:
        error = _words(problem)
    count = len(puts) if must_last else 0
    results.append(
        DiskState(log.live_bytes, log.disk_bytes, log.damaged_count, error, sync_s, count)
    )
    return results


def _read(log: ChunkLog, number: int) -> ReadDone:
    try:
        return ReadDone(number, log.read(number))
    except DamagedRecordError as problem:
        return ReadDone(number, error=str(problem), is_damaged=True)
    except (OSError, KeyError) as problem:
        return ReadDone(number, error=_words(problem))


def _words(problem: Exception) -> str:
    return getattr(problem, "strerror", None) or f"{type(problem).__name__}: {problem}"


class DiskWorker:
    """Runs groups in a thread.

    Args:
        answer: called in that thread with the results of each group; it hands them to the loop.
    """

    def __init__(self, log: ChunkLog, answer: Callable[[list[Result]], None]) -> None:
        self._log = log
        self._answer = answer
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. What may be queued is the caller's to bound: `spool.MAX_QUEUED_BYTES`."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Do what is queued and end the thread."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        is_stopping = False
        while not is_stopping:
            group: list[Job] = []
            size = 0
            job = self._jobs.get()
            while True:
                if job is None:
                    is_stopping = True
                    break
                group.append(job)
                size += job.size_bytes if isinstance(job, Put) else 0
                if len(group) >= GROUP_COUNT or size >= GROUP_BYTES:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if group:
                try:
                    results = run_group(self._log, group)
                except Exception:
                    _log.exception("fault of the disk worker")
                    results = [_failed(one) for one in group if isinstance(one, Put | Read)]
                self._answer(results)


def _failed(job: Put | Read) -> Result:
    if isinstance(job, Put):
        return PutDone(job.record.number, "fault of the disk worker")
    return ReadDone(job.number, error="fault of the disk worker")
