"""The room that chunks take on disk: a full one, what is dead in it, and how it is cleared."""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass

import pytest

from packetcloud.router import chunk_log
from packetcloud.router.chunk_log import SEGMENT_BYTES, ChunkLog
from packetcloud.router.chunk_record import HEAD_BYTES, Record
from packetcloud.router.disk_jobs import (
    DiskState,
    Job,
    Put,
    Remove,
    TryAgain,
    run_group,
)
from packetcloud.router.errors import DamagedRecordError
from tests.unit.router.chunk_records import RESERVE_BYTES, chunk, opened, put, record
from tests.unit.router.forgetful_storage import ForgetfulStorage


def test_a_full_disk_takes_nothing_keeps_all_and_lets_go() -> None:
    """The put fails; what was there is there; removals are noted with the reserve's room; when
    there is room again the reserve comes back and puts go on."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    for number in range(1, 11):
        log.put(record(number), [chunk(number, 10_000)])
    log.sync()
    storage.limit_bytes = storage.used_bytes + 5
    with pytest.raises(OSError, match="No space left"):
        log.put(record(11), [chunk(11, 10_000)])
    log.remove([1, 2, 3])
    assert not log.has_reserve
    again, found = opened(storage)
    assert found == [*range(4, 11)]
    storage.limit_bytes = None
    again.tidy()
    assert again.has_reserve
    again.put(record(12), [chunk(12)])
    assert again.read(12) == chunk(12)
    assert again.read(4) == chunk(4, 10_000)


def test_little_that_lives_does_not_keep_much_that_is_dead() -> None:
    """One chunk in twenty stays: the files stay within half as much again and a few segments."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    kept = []
    for number in range(1, 1200):
        log.put(record(number), [chunk(number, 100_000)])
        if number % 20:
            log.remove([number])
        else:
            kept.append(number)
        if number % 10 == 0:
            log.sync()
            log.tidy()
    assert log.disk_bytes <= 1.5 * log.live_bytes + 6 * SEGMENT_BYTES
    assert storage.used_bytes <= 1.5 * log.live_bytes + 7 * SEGMENT_BYTES
    again, found = opened(storage)
    assert found == kept
    assert all(again.read(number) == chunk(number, 100_000) for number in kept)


@pytest.mark.parametrize("size", [8192, 2048, 512])
def test_files_keep_within_their_bound_whatever_leaves_first(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A full spool whose chunks leave in any order, one for each that comes, of any size: half as
    much again and eight segments, as docs/reference/router.md says of 8 MiB each."""
    segment_bytes, spool_bytes = 64 << 10, 4 << 20
    monkeypatch.setattr(chunk_log, "SEGMENT_BYTES", segment_bytes)
    monkeypatch.setattr(chunk_log, "REMOVED_SLACK_BYTES", 8 << 10)
    rng = random.Random(1)
    log, _ = opened(ForgetfulStorage())
    alive: list[int] = []
    number = worst = 0
    while number * size < 6 * spool_bytes:
        jobs: list[Job] = []
        for _ in range(segment_bytes // size):
            number += 1
            jobs.append(Put(Record(number, 1, 2), (bytes(size - HEAD_BYTES),), size, False))
            if len(alive) * size >= spool_bytes:
                victim = rng.randrange(len(alive))
                jobs.append(Remove(alive[victim]))
                alive[victim] = number
            else:
                alive.append(number)
        state = run_group(log, jobs, float)[-1]
        assert isinstance(state, DiskState) and not state.error
        worst = max(worst, log.disk_bytes)
    assert worst <= 1.5 * spool_bytes + 8 * segment_bytes


def test_a_segment_that_cannot_be_read_keeps_no_other_from_being_cleared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one with the most dead bytes has a damaged record: it stays until that has left, it is
    tried once, and the rest is cleared as ever."""
    monkeypatch.setattr(chunk_log, "SEGMENT_BYTES", 4000)
    monkeypatch.setattr(chunk_log, "DEAD_SEGMENTS_COUNT", 1)
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    for number in range(1, 81):
        log.put(record(number), [chunk(number, 700)])
    storage.files["chunks-0000000000000000"][200] ^= 1
    for number in range(2, 81):
        if number % 4 != 1:
            run_group(log, [Remove(number)], float)
    assert log.disk_bytes <= 1.5 * log.live_bytes + 8 * 4000 + RESERVE_BYTES
    assert log.damaged_count == 1
    with pytest.raises(DamagedRecordError):
        log.read(1)
    assert all(log.read(number) == chunk(number, 700) for number in range(5, 81, 4))
    log.remove([1])
    log.tidy()
    assert "chunks-0000000000000000" not in storage.files


@dataclass
class Evacuated:
    """Records 1 to 4 in a full segment, 5 in the next one, all synced."""

    storage: ForgetfulStorage
    log: ChunkLog

    def after_a_cut(self) -> set[int]:
        """Return what a power cut now would leave, whatever of the unsynced it takes."""
        left = {1, 2, 3, 4, 5}
        for seed in range(30):
            copy = ForgetfulStorage(seed)
            copy.files = {name: bytearray(data) for name, data in self.storage.files.items()}
            copy.synced = dict(self.storage.synced)
            copy.cut_power()
            left &= set(opened(copy)[1])
        return left


@pytest.fixture
def evacuated(monkeypatch: pytest.MonkeyPatch) -> Evacuated:
    monkeypatch.setattr(chunk_log, "SEGMENT_BYTES", 3600)
    monkeypatch.setattr(chunk_log, "DEAD_SEGMENTS_COUNT", 0)
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    run_group(log, [put(number, 700) for number in range(1, 5)], float)
    run_group(log, [put(5, 400)], float)
    return Evacuated(storage, log)


def test_an_evacuation_that_was_not_synced_leaves_the_old_segment(
    evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sync fails once: what was synced before lives through a power cut then and ever after."""
    storage = evacuated.storage

    def fails(name: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "sync", fails)
        state = run_group(evacuated.log, [Remove(1), Remove(2)], float)[-1]
    assert isinstance(state, DiskState) and state.error == "Input/output error"
    assert evacuated.after_a_cut() == {3, 4, 5}
    for _ in range(3):
        state = run_group(evacuated.log, [TryAgain()], float)[-1]
        assert isinstance(state, DiskState) and not state.error
        assert evacuated.after_a_cut() == {3, 4, 5}
    assert evacuated.log.read(3) == chunk(3, 700)
    run_group(evacuated.log, [Remove(3)], float)
    run_group(evacuated.log, [Remove(4)], float)
    assert evacuated.after_a_cut() == {5}


@pytest.mark.parametrize("room", [0, 100, 900, 1700])
def test_an_evacuation_that_a_full_disk_ended_leaves_the_old_segment(
    evacuated: Evacuated, room: int
) -> None:
    """No, one, or two copies had room; a record leaves; those beside it live through a cut."""
    storage, log = evacuated.storage, evacuated.log
    storage.limit_bytes = storage.used_bytes + 24 + room
    state = run_group(log, [Remove(1), Remove(2)], float)[-1]
    assert isinstance(state, DiskState) and bool(state.error) == (room < 1600)
    assert evacuated.after_a_cut() == {3, 4, 5}
    run_group(log, [Remove(4)], float)
    assert evacuated.after_a_cut() >= {3, 5}
    storage.limit_bytes = None
    run_group(log, [TryAgain()], float)
    assert evacuated.after_a_cut() == {3, 5}
    assert log.read(3) == chunk(3, 700)
