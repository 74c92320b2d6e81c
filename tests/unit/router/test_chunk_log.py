"""Chunks on disk: what was synced is there after a power cut, and no number comes twice."""

from __future__ import annotations

import random

import pytest

from packetcloud.router.chunk_log import KEY_NAME, REMOVED_NAME, SEGMENT_BYTES, ChunkLog
from packetcloud.router.chunk_record import NUMBERS_COUNT, Record
from tests.unit.router.chunk_records import RESERVE_BYTES, chunk, opened, record
from tests.unit.router.forgetful_storage import ForgetfulStorage


def test_what_was_put_comes_back_after_a_restart_with_all_that_was_said_of_it() -> None:
    """Bytes, deadlines, origin, services; what was removed does not."""
    storage = ForgetfulStorage()
    log, found = opened(storage)
    assert found == []
    for number in range(1, 21):
        data = chunk(number)
        log.put(record(number), [data[:60], data[60:]])
    log.sync()
    log.remove(range(1, 21, 3))
    again = ChunkLog(storage, RESERVE_BYTES)
    kept = again.open()
    assert [one.record for one in kept] == [record(n) for n in range(1, 21) if n % 3 != 1]
    for one in kept:
        data = again.read(one.record.number)
        assert data == chunk(one.record.number) and data.startswith(one.head[:100])
        assert one.size_bytes == len(data)
    assert again.damaged_count == 0


@pytest.mark.parametrize("seed", range(60))
def test_any_course_of_puts_removals_syncs_cuts_and_kills(seed: int) -> None:
    """After each power cut: all that was synced and not removed is there, nothing altered is."""
    rng = random.Random(seed)
    storage = ForgetfulStorage(seed)
    log, _ = opened(storage)
    number = 0
    synced: set[int] = set()
    alive: set[int] = set()
    gone: set[int] = set()
    for _ in range(rng.randint(50, 400)):
        what = rng.random()
        if what < 0.45:
            number += 1
            log.put(record(number), [chunk(number, rng.choice([0, 100, 5000, 400_000]))])
            alive.add(number)
        elif what < 0.75 and alive:
            victims = rng.sample(sorted(alive), min(len(alive), rng.randint(1, 5)))
            log.remove(victims)
            alive -= set(victims)
            gone |= set(victims)
        elif what < 0.9:
            log.sync()
            synced = set(alive)
            log.tidy()
        elif what < 0.95:
            storage.cut_power()
            log, found = opened(storage)
            assert synced - gone <= set(found) <= alive | gone
            alive = set(found)
            synced, gone = set(alive), gone - alive
        else:
            log, found = opened(storage)
            assert set(found) == alive
        for one in rng.sample(sorted(alive), min(3, len(alive))):
            assert log.read(one)[-20:] in (chunk(one, s)[-20:] for s in (0, 100, 5000, 400_000))
    log.remove(sorted(alive))
    log.tidy()
    left = len(storage.files[REMOVED_NAME]) + len(storage.files[KEY_NAME]) + RESERVE_BYTES
    assert storage.used_bytes <= left + SEGMENT_BYTES


def test_numbers_end_with_an_error_and_not_with_the_worker() -> None:
    """A clock of the year 2300 makes numbers that no record has room for: said, nothing written."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    log.put(record(NUMBERS_COUNT - 1), [chunk(1)])
    with pytest.raises(OSError, match="is the clock right"):
        log.put(Record(NUMBERS_COUNT, 1, 2), [chunk(2)])
    assert opened(storage)[1] == [NUMBERS_COUNT - 1]


def test_numbers_go_on_behind_every_record_that_was_seen() -> None:
    """Live, removed and on disk, or only in the list of the removed."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    assert log.next_number == 1
    for number in (5, 9, 7):
        log.put(record(number), [chunk(number)])
    log.remove([9])
    assert log.next_number == 10
    again, _ = opened(storage)
    assert again.next_number == 10
    again.put(record(12), [chunk(12)])
    again.remove([12])
    [last] = sorted(name for name in storage.files if name.startswith("chunks-"))[-1:]
    del storage.files[last]
    assert opened(storage)[0].next_number == 13
