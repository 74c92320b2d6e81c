"""Chunks on disk: what was synced is there after a power cut, nothing altered ever comes back."""

from __future__ import annotations

import errno
import queue
import random
import resource
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.router import chunk_log, disk_service
from packetcloud.router.chunk_log import (
    HEAD_BYTES,
    KEY_NAME,
    NUMBERS_COUNT,
    REMOVED_NAME,
    SEGMENT_BYTES,
    ChunkLog,
    Record,
)
from packetcloud.router.disk_jobs import (
    DiskState,
    Job,
    Put,
    PutDone,
    Read,
    ReadDone,
    Remove,
    Result,
    TryAgain,
    run_group,
)
from packetcloud.router.disk_worker import DiskWorker
from packetcloud.router.errors import DamagedRecordError
from packetcloud.router.settings import SpoolSettings
from packetcloud.router.storage import MAX_OPEN_COUNT, FolderStorage
from tests.unit.router.forgetful_storage import ForgetfulStorage

RESERVE_BYTES = 4096
SID_NAME = b"s" * 20


def chunk(number: int, size: int = 500) -> bytes:
    payload = random.Random(number).randbytes(size)
    header = ChunkHeader(
        source=GUID(b"a" * 20),
        destination=GUID(b"b" * 20),
        chunk_id=ChunkId(number),
        payload_bytes=len(payload),
    )
    return header.to_bytes() + payload


def record(number: int) -> Record:
    return Record(number, 1000 + number, 9000 + number, number % 2 == 1, (SID_NAME,) * (number % 3))


def opened(storage: ForgetfulStorage) -> tuple[ChunkLog, list[int]]:
    log = ChunkLog(storage, RESERVE_BYTES)
    return log, [found.record.number for found in log.open()]


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


def test_a_record_or_head_that_was_damaged_anywhere_costs_itself_and_nothing_else() -> None:
    """A flipped bit at every offset of three records: at most one is lost, none is altered."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    for number in (1, 2, 3):
        log.put(record(number), [chunk(number, 40)])
    [name] = [name for name in storage.files if name.startswith("chunks-")]
    good = bytes(storage.files[name])
    rng = random.Random(5)
    for offset in range(len(good)):
        flipped = bytearray(good)
        flipped[offset] ^= 1 << rng.randrange(8)
        storage.files[name] = flipped
        hurt = 0
        for number in (1, 2, 3):
            try:
                assert log.read(number) == chunk(number, 40)
            except DamagedRecordError:
                hurt += 1
        assert hurt == 1
        copy = ForgetfulStorage()
        copy.files = {key: bytearray(value) for key, value in storage.files.items()}
        again, found = opened(copy)
        assert len(found) == 2 and again.damaged_count >= 1
        assert all(again.read(number) == chunk(number, 40) for number in found)


def test_a_file_that_was_cut_anywhere_keeps_the_records_before() -> None:
    """Truncation at every offset: whole records are there, a torn one is not."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    ends = []
    for number in (1, 2, 3):
        log.put(record(number), [chunk(number, 40)])
        ends.append(log.live_bytes)
    [name] = [name for name in storage.files if name.startswith("chunks-")]
    good = bytes(storage.files[name])
    for size in range(len(good) + 1):
        copy = ForgetfulStorage()
        copy.files = {name: bytearray(good[:size]), KEY_NAME: storage.files[KEY_NAME]}
        _, found = opened(copy)
        assert found == [number for number, end in zip((1, 2, 3), ends, strict=True) if end <= size]


def planted(number: int) -> bytes:
    """A whole, right record of somebody who has no key but his own."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    log.put(Record(number, 1, NUMBERS_COUNT), [b"pay Mallory" * 10])
    [name] = [name for name in storage.files if name.startswith("chunks-")]
    return bytes(storage.files[name])


@pytest.mark.parametrize("hurt", ["the head", "the content", "torn"])
def test_a_record_inside_of_a_payload_never_becomes_one(hurt: str) -> None:
    """Whatever is damaged around it: a host's bytes are no record, whichever number they bear."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    log.put(record(1), [chunk(1)])
    evil = b"".join(map(planted, (77, NUMBERS_COUNT - 1))) * 2
    start = log.live_bytes
    log.put(record(2), [chunk(2, 40), evil, bytes(900)])
    log.put(record(3), [chunk(3)])
    [name] = [name for name in storage.files if name.startswith("chunks-")]
    if hurt == "torn":
        del storage.files[name][start + 1000 :]
    else:
        storage.files[name][start + (20 if hurt == "the head" else 70)] ^= 4
    again, found = opened(storage)
    assert found == ([1] if hurt == "torn" else [1, 3]) and again.damaged_count
    again.put(record(4), [chunk(4)])
    assert opened(storage)[1] == [*found, 4]


def test_numbers_end_with_an_error_and_not_with_the_worker() -> None:
    """A clock of the year 2300 makes numbers that no record has room for: said, nothing written."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    log.put(record(NUMBERS_COUNT - 1), [chunk(1)])
    with pytest.raises(OSError, match="is the clock right"):
        log.put(Record(NUMBERS_COUNT, 1, 2), [chunk(2)])
    assert opened(storage)[1] == [NUMBERS_COUNT - 1]


def test_files_of_others_in_the_folder_are_left_alone() -> None:
    """A copy that an operator made of a segment is neither read nor deleted, nor does it matter to
    a folder that has no key yet."""
    storage = ForgetfulStorage()
    strange = ["chunks-0000000000000000.bak", "chunks-", "chunks-1", "chunks-000000000000000G", "x"]
    for name in strange:
        storage.files[name] = bytearray(b"anything")
    log, found = opened(storage)
    assert found == [] and log.damaged_count == 0
    log.put(record(1), [chunk(1)])
    log, found = opened(storage)
    assert found == [1] and log.damaged_count == 0
    log.remove([1])
    log.tidy()
    assert all(storage.files[name] == b"anything" for name in strange)


def test_a_clock_set_back_uses_no_number_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run begins at the very millisecond of a record that was removed and lies on disk
    still: its first chunk is found after that, as are those of the run before."""
    wall_ms = 1_700_000_000_000
    storage = FolderStorage(tmp_path)
    log = ChunkLog(storage, 0)
    log.open()
    for number in range(3):
        log.put(Record((wall_ms << 20) + number, 1, 2), [chunk(number)])
    log.remove([wall_ms << 20, (wall_ms << 20) + 2])
    storage.close()
    monkeypatch.setattr(disk_service, "wall_ms", lambda: wall_ms)
    config: Any = SimpleNamespace(
        spool_folder=tmp_path,
        file=SimpleNamespace(spool=SimpleNamespace(reserve_bytes=0)),
        settings=SimpleNamespace(spool=SpoolSettings()),
    )
    reactor = SimpleNamespace(callFromThread=lambda call, *given: call(*given))
    service = disk_service.DiskService(reactor, config, lambda results: None)
    assert len(service.open()) == 1
    flow = SimpleNamespace(label=1, ingress=b"")
    entry: Any = SimpleNamespace(
        flow=flow, taken_at=0.0, expires_at=9.0, visit=None, is_originated=False
    )
    assert service.spool.put(entry, [chunk(7)], 0.0, must_last=True)
    service.close()
    storage = FolderStorage(tmp_path)
    again = ChunkLog(storage, 0)
    assert len(again.open()) == 2
    assert again.read(entry.record_number) == chunk(7)
    storage.close()


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


def test_a_list_of_the_removed_that_could_not_be_written_is_written_soon() -> None:
    """The disk fails while a removal is noted: with the next group, whatever that is, a restart
    finds the record no more, and the noise of the torn one is gone."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    run_group(log, [put(1), put(2)], float)
    storage.failing = True
    state = run_group(log, [Remove(1)], float)[-1]
    assert isinstance(state, DiskState) and state.error
    storage.failing = False
    run_group(log, [TryAgain()], float)
    again, found = opened(storage)
    assert found == [2] and again.damaged_count == 0


@pytest.mark.parametrize("loss", ["gone", "damaged", "cut"])
def test_a_folder_that_lost_its_key_is_not_taken_for_an_empty_one(loss: str) -> None:
    """Nothing is thrown away that a key from a backup would bring back."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    log.put(record(1), [chunk(1)])
    key = bytes(storage.files[KEY_NAME])
    if loss == "gone":
        del storage.files[KEY_NAME]
    else:
        storage.files[KEY_NAME] = bytearray(b"x" + key[1:] if loss == "damaged" else key[:-1])
    with pytest.raises(OSError, match="'key' is damaged or gone"):
        opened(storage)
    storage.files[KEY_NAME] = bytearray(key)
    assert opened(storage)[1] == [1]


def test_damage_in_the_list_of_the_removed_brings_back_but_alters_nothing() -> None:
    """A removal whose checksum is wrong is counted; its chunk is found again, which is allowed."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    for number in (1, 2, 3):
        log.put(record(number), [chunk(number)])
    log.remove([1, 2])
    storage.files[REMOVED_NAME][3] ^= 1
    again, found = opened(storage)
    assert found == [1, 3] and again.damaged_count == 1


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


def test_a_folder_is_a_storage_and_belongs_to_one_process(tmp_path: Path) -> None:
    """The real one: what is put is found after it was closed; a second user is refused."""
    storage = FolderStorage(tmp_path / "spool")
    log = ChunkLog(storage, RESERVE_BYTES)
    log.open()
    for number in range(1, 40):
        log.put(record(number), [chunk(number, 300_000)])
    log.sync()
    log.remove(range(1, 38))
    log.tidy()
    with pytest.raises(OSError, match="another process"):
        FolderStorage(tmp_path / "spool")
    storage.close()
    again = ChunkLog(FolderStorage(tmp_path / "spool"), RESERVE_BYTES)
    assert [one.record.number for one in again.open()] == [38, 39]
    assert again.read(38) == chunk(38, 300_000)


def test_a_spool_of_many_segments_needs_few_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may open some forty files more: two hundred segments are written, synced, read,
    found again and deleted."""
    monkeypatch.setattr(chunk_log, "SEGMENT_BYTES", 4096)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10 + MAX_OPEN_COUNT, hard))
    try:
        storage = FolderStorage(tmp_path / "spool")
        log = ChunkLog(storage, RESERVE_BYTES)
        log.open()
        for number in range(1, 201):
            log.put(record(number), [chunk(number, 4000)])
        log.sync()
        storage.close()
        storage = FolderStorage(tmp_path / "spool")
        log = ChunkLog(storage, RESERVE_BYTES)
        assert [one.record.number for one in log.open()] == [*range(1, 201)]
        assert all(log.read(number) == chunk(number, 4000) for number in range(1, 201))
        log.remove(range(1, 201))
        log.tidy()
        storage.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not list((tmp_path / "spool").glob("chunks-*"))


def put(number: int, size: int = 100, *, must_last: bool = True) -> Put:
    data = chunk(number, size)
    return Put(record(number), (data,), len(data), must_last)


def test_a_group_is_synced_once_and_answered_after_that() -> None:
    """Many chunks, one fsync; a chunk that need not last costs none."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    before = storage.syncs_count
    results = run_group(log, [put(number) for number in range(1, 51)], float)
    assert storage.syncs_count == before + 1
    assert [one for one in results if isinstance(one, PutDone)] == [
        PutDone(n) for n in range(1, 51)
    ]
    assert isinstance(results[-1], DiskState) and results[-1].group_count == 50
    run_group(log, [put(60, must_last=False)], float)
    assert storage.syncs_count == before + 1


def test_a_fault_of_ours_leaves_nothing_of_its_group_and_loses_no_removal() -> None:
    """A record that cannot be packed ends its group: the puts beside it are answered as failed and
    are not there, also not after a restart; the removals beside it count; the thread lives on."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    run_group(log, [put(1)], float)
    answers: queue.SimpleQueue[list[Result]] = queue.SimpleQueue()
    worker = DiskWorker(log, answers.put)
    bad = Put(Record(3, -1, 2), (b"x",), 1, True)
    for job in (put(2), Remove(1), bad, put(4)):
        worker.submit(job)
    worker.start()
    done = [one for one in answers.get(timeout=10) if isinstance(one, PutDone)]
    assert [one.number for one in done] == [2, 3, 4] and all(one.error for one in done)
    assert log.live_bytes == 0
    worker.submit(put(5))
    assert PutDone(5) in answers.get(timeout=10)
    worker.stop()
    assert opened(storage)[1] == [5]


def test_a_group_on_a_failing_disk_is_refused_whole_and_the_disk_is_asked_again() -> None:
    """An I/O error while writing or syncing: none of the group counts, none comes back."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    run_group(log, [put(1)], float)
    storage.failing = True
    results = run_group(log, [put(2), put(3), Read(1)], float)
    answers = {one.number: one.error for one in results if isinstance(one, PutDone)}
    assert answers == {2: "Input/output error", 3: "Input/output error"}
    [read] = [one for one in results if isinstance(one, ReadDone)]
    assert read.data == chunk(1, 100)
    storage.failing = False
    state = run_group(log, [TryAgain()], float)[-1]
    assert isinstance(state, DiskState) and not state.error
    results = run_group(log, [put(4), Remove(1)], float)
    assert PutDone(4) in results
    assert opened(storage)[1] == [4]
