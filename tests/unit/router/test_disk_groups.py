"""Jobs for the disk in groups: one sync, answers after it, and none lost when it fails."""

from __future__ import annotations

import queue

from packetcloud.router.chunk_record import Record
from packetcloud.router.disk_jobs import (
    DiskState,
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
from tests.unit.router.chunk_records import chunk, opened, put
from tests.unit.router.forgetful_storage import ForgetfulStorage


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
