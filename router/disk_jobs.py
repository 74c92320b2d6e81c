"""What is asked of the disk, what it answers, and how a group of jobs is done.

A group is written, then synced once if any of it is to be durable, then answered; removals come
after the records of their group, so that what a service made of a chunk lasts before that goes.
Source: docs/decisions/0010.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from packetcloud.chunk.hop.api import Buffer
from packetcloud.router.chunk_log import ChunkLog
from packetcloud.router.chunk_record import Record
from packetcloud.router.errors import DamagedRecordError
from packetcloud.router.histogram import LogHistogram

TRY_AGAIN_S = 1.0
"""After an error: how often a disk is asked whether it has room again."""


@dataclass(frozen=True, slots=True)
class Put:
    """Write a chunk; `must_last`: answer when it survives a power cut."""

    record: Record
    pieces: tuple[Buffer, ...]
    size_bytes: int
    must_last: bool


@dataclass(frozen=True, slots=True)
class Remove:
    """Note that a chunk is done with; `must_last`: answer when that survives a power cut."""

    number: int
    must_last: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """Return a chunk's bytes."""

    number: int
    size_bytes: int = 0


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
class RemoveDone:
    number: int
    error: str = ""
    """Why it may be found again after a restart; empty if it will not."""


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


Result = PutDone | RemoveDone | ReadDone | DiskState


@dataclass(slots=True)
class DiskFigures:
    """What the main thread counts of the results."""

    sync: LogHistogram = field(default_factory=LogHistogram)
    groups_count: int = 0
    errors_count: int = 0


def run_group(log: ChunkLog, jobs: Sequence[Job], seconds: Callable[[], float]) -> list[Result]:
    """Do one group of jobs and return the answers, the state of the disk last.

    Args:
        seconds: a clock, for what a sync takes.
    """
    results: list[Result] = []
    removed: list[int] = []
    awaited: list[int] = []
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
            if job.must_last:
                awaited.append(job.number)
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
    removal_error = ""
    try:
        log.remove(removed)
        if awaited:
            log.sync_removed()
    except OSError as problem:
        error = removal_error = _words(problem)
    results += [RemoveDone(number, removal_error) for number in awaited]
    if not removal_error:
        try:
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


def abandon(log: ChunkLog, jobs: Sequence[Job]) -> None:
    """After a fault of ours: leave nothing of what `failed` says is not written, and note removals.

    Raises:
        OSError: it could not be noted.
    """
    numbers = [job.record.number for job in jobs if isinstance(job, Put)]
    log.remove(numbers + [job.number for job in jobs if isinstance(job, Remove)])


def failed(jobs: Sequence[Job]) -> list[Result]:
    """Return the answers to jobs that a fault of ours ended."""
    text = "fault of the disk worker"
    results: list[Result] = []
    for job in jobs:
        if isinstance(job, Put):
            results.append(PutDone(job.record.number, text))
        elif isinstance(job, Read):
            results.append(ReadDone(job.number, error=text))
        elif isinstance(job, Remove) and job.must_last:
            results.append(RemoveDone(job.number, text))
    return results
