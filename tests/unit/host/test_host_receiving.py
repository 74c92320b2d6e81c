"""The receiving half: duplicates, reports, chunk ids and the stored window."""

from __future__ import annotations

import errno
import os
import random
import struct
import time
import zlib
from pathlib import Path

import pytest

from packetcloud.chunk.header import decode_header
from packetcloud.chunk.hop.api import Buffer
from packetcloud.chunk.messages import DeliveryReport, Outcome, decode_reports
from packetcloud.chunk.names import SID, ChunkId
from packetcloud.host.chunk_ids import ChunkIds
from packetcloud.host.duplicates import (
    MAX_REFUSED_PER_SOURCE_COUNT,
    DuplicateWindow,
    Seen,
)
from packetcloud.host.errors import HostError
from packetcloud.host.header_template import HeaderTemplate, SendOptions
from packetcloud.host.reports import BATCH_S, PendingReports
from packetcloud.host.window_store import RECORD_BYTES, WindowStore

A, B = b"a" * 20, b"b" * 20


def test_window_knows_each_state_of_a_chunk() -> None:
    """New, pending, taken and refused are told apart, per source."""
    window = DuplicateWindow()
    assert window.arrived(A, 5, 60.0, 0.0) is Seen.NEW
    assert window.arrived(A, 5, 60.0, 0.0) is Seen.PENDING
    window.taken(A, 5)
    assert window.arrived(A, 5, 60.0, 0.0) is Seen.TAKEN
    assert window.arrived(B, 5, 60.0, 0.0) is Seen.NEW
    window.refused(B, 5, "not mine")
    assert window.arrived(B, 5, 60.0, 0.0) is Seen.REFUSED
    assert window.refusal_detail(B, 5) == "not mine"


def test_window_holds_the_ends_of_the_id_space() -> None:
    """Ids 0 and 2**64-1 are ids like any other."""
    window = DuplicateWindow()
    for chunk_id in (0, 255, 256, (1 << 64) - 1):
        assert window.arrived(A, chunk_id, 60.0, 0.0) is Seen.NEW
        assert window.arrived(A, chunk_id, 60.0, 0.0) is Seen.PENDING


def test_window_forgets_only_what_cannot_come_again() -> None:
    """A page stays for twice the lifetime and half a minute."""
    window = DuplicateWindow()
    window.arrived(A, 1, 60.0, 0.0)
    window.expire(149.9)
    assert window.arrived(A, 1, 60.0, 0.0) is Seen.PENDING
    window.expire(150.0)
    assert window.arrived(A, 1, 60.0, 150.0) is Seen.NEW
    assert window.stats()["forgotten_early_total"] == 0


def test_window_cap_per_source_counts_early_forgetting() -> None:
    """At the cap everything is known; one page over it the oldest is forgotten, and counted."""
    window = DuplicateWindow(max_pages_per_source_count=4)
    for page in range(4):
        window.arrived(A, page << 8, 60.0, 0.0)
    assert window.arrived(A, 0, 60.0, 0.0) is Seen.PENDING
    window.arrived(A, 4 << 8, 60.0, 0.0)
    assert window.stats()["forgotten_early_total"] == 1
    assert window.stats()["pages_count"] == 4
    assert window.arrived(A, 1 << 8, 60.0, 0.0) is Seen.PENDING


def test_a_flooding_source_forgets_its_own_pages() -> None:
    """Over the cap of all sources the largest pays, so a quiet source keeps its memory."""
    window = DuplicateWindow(max_pages_per_source_count=100, max_pages_count=50)
    window.arrived(A, 7, 60.0, 0.0)
    for page in range(500):
        window.arrived(B, page << 8, 60.0, 0.0)
    assert window.arrived(A, 7, 60.0, 0.0) is Seen.PENDING
    assert window.stats()["pages_count"] <= 50


def test_a_new_source_at_the_cap_is_remembered() -> None:
    """Making room must not lose the source that the room is made for."""
    window = DuplicateWindow(max_pages_count=2)
    for number in range(10):
        source = bytes([number]) * 20
        assert window.arrived(source, 1, 60.0, 0.0) is Seen.NEW
        assert window.arrived(source, 1, 60.0, 0.0) is Seen.PENDING


def test_refusals_kept_are_capped() -> None:
    """The words of old refusals go; their chunks are then unanswered duplicates, never new ones."""
    window = DuplicateWindow()
    for chunk_id in range(MAX_REFUSED_PER_SOURCE_COUNT + 1):
        window.arrived(A, chunk_id, 60.0, 0.0)
        window.refused(A, chunk_id, "no")
    assert window.arrived(A, 0, 60.0, 0.0) is Seen.PENDING
    assert window.arrived(A, 1, 60.0, 0.0) is Seen.REFUSED
    assert window.stats()["refused_forgotten_total"] == 1


def test_window_agrees_with_a_plain_set() -> None:
    """Against the obvious model, over random ids of several sources."""
    rng = random.Random(3)
    window, model = DuplicateWindow(), set()
    for _ in range(5000):
        key = (rng.choice([A, B]), rng.choice([rng.randrange(600), rng.getrandbits(64)]))
        seen = window.arrived(*key, 60.0, 0.0)
        assert (seen is Seen.NEW) == (key not in model)
        model.add(key)


def test_reports_go_at_once_when_idle_and_in_batches_when_busy() -> None:
    """The first report is due now; the next ones wait together for at most a few ms."""
    reports = PendingReports()
    reports.add(A, DeliveryReport(ChunkId(1), Outcome.DELIVERED), 5.0)
    assert reports.next_timeout() == 5.0
    assert len(reports.flush(5.0)) == 1
    for chunk_id in range(100):
        reports.add(A, DeliveryReport(ChunkId(chunk_id), Outcome.DELIVERED), 5.0005)
    reports.add(B, DeliveryReport(ChunkId(1), Outcome.DELIVERED), 5.0005)
    assert reports.next_timeout() == 5.0 + BATCH_S
    batches = reports.flush(5.0 + BATCH_S)
    assert [(batch.source, len(batch.reports)) for batch in batches] == [(A, 100), (B, 1)]
    assert reports.next_timeout() is None


def test_report_batches_decode_and_stay_small() -> None:
    """However many reports, however long their words: each batch decodes and is under 64 KiB."""
    reports = PendingReports()
    for chunk_id in range(9000):
        detail = "x" * 600 if chunk_id % 7 == 0 else ""
        reports.add(A, DeliveryReport(ChunkId(chunk_id), Outcome.REFUSED, 16, detail), 0.0)
    batches = reports.flush(0.0)
    ids = [r.chunk_id.value for batch in batches for r in decode_reports(batch.payload)]
    assert ids == list(range(9000))
    assert all(len(batch.payload) <= 66_000 for batch in batches)


def test_pending_reports_are_capped() -> None:
    """At the cap all are kept, above it they are dropped and counted."""
    reports = PendingReports(max_pending_count=2)
    for chunk_id in range(3):
        reports.add(A, DeliveryReport(ChunkId(chunk_id), Outcome.DELIVERED), 0.0)
    assert len(reports) == 2
    assert reports.counters["reports_dropped_total"] == 1


def test_chunk_ids_are_dense_per_destination_and_unrelated_between_them() -> None:
    """One run per destination; an id in use is skipped; the space wraps around."""
    starts = iter([100, 5000, (1 << 64) - 1, 7])
    ids = ChunkIds(lambda: next(starts))
    assert [ids.take(A) for _ in range(3)] == [100, 101, 102]
    assert ids.take(B) == 5000
    assert ids.take(A) == 103
    assert ids.take(b"c" * 20) == (1 << 64) - 1
    assert ids.take(b"c" * 20, {0}) == 7


def test_header_template_equals_the_encoder() -> None:
    """A filled template decodes to what was asked for, also with a service sequence."""
    from packetcloud.chunk.identity import Identity

    source, destination = (Identity(bytes([i]) * 32).guid for i in (1, 2))
    services = tuple(SID(bytes([i]) * 20) for i in (7, 8))
    for wanted in ((), services[:1], services):
        template = HeaderTemplate(SendOptions(destination, services=wanted), source)
        header = decode_header(template.fill(77, 1234, 5000))
        assert (header.chunk_id, header.payload_bytes) == (ChunkId(77), 1234)
        assert header.lifetime_ms == 5000
        assert header.wants_report
        assert header.source == source
        assert header.next_sid == (wanted[0] if wanted else None)
    assert decode_header(template.fill(1, 1, 1 << 40)).lifetime_ms == (1 << 32) - 1


def test_window_survives_a_restart(tmp_path: Path) -> None:
    """What was taken before is known after; what was only pending is new again."""
    path = tmp_path / "window"
    store, window = WindowStore(path), DuplicateWindow()
    store.load(window, 0.0)
    for chunk_id in (1, 2, 300):
        window.arrived(A, chunk_id, 60.0, 0.0)
    store.append([(A, 1, 150.0), (A, 300, 150.0)])
    store.close()
    again, restored = WindowStore(path), DuplicateWindow()
    assert again.load(restored, 5.0) == 2
    assert restored.arrived(A, 1, 60.0, 5.0) is Seen.TAKEN
    assert restored.arrived(A, 300, 60.0, 5.0) is Seen.TAKEN
    assert restored.arrived(A, 2, 60.0, 5.0) is Seen.NEW
    again.close()
    restored.expire(5.0 + 151.0)
    assert restored.arrived(A, 1, 60.0, 156.0) is Seen.NEW


def test_window_read_after_a_step_of_the_wall_clock_still_knows_its_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that was set a day forward between two runs let every late copy in again."""
    path = tmp_path / "window"
    store, window = WindowStore(path), DuplicateWindow()
    store.load(window, 0.0)
    store.append([(A, 7, 150.0)])
    store.close()
    later_s = time.time() + 86_400.0
    monkeypatch.setattr(time, "time", lambda: later_s)
    restored = DuplicateWindow()
    assert WindowStore(path).load(restored, 0.0) == 1
    assert restored.arrived(A, 7, 60.0, 0.0) is Seen.TAKEN


def test_window_of_the_first_format_is_still_read(tmp_path: Path) -> None:
    """Its dates are not believed: each record counts in full from the reading."""
    path = tmp_path / "window"
    body = struct.pack(">20sQd32s", A, 0, 1_700_000_000.0, (2).to_bytes(32, "little"))
    record = body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(b"packetcloud window 1\n" + record)
    restored = DuplicateWindow()
    assert WindowStore(path).load(restored, 0.0) == 1
    assert restored.arrived(A, 1, 60.0, 0.0) is Seen.TAKEN
    assert path.read_bytes().startswith(b"packetcloud window 2\n")


def test_compaction_keeps_everything(tmp_path: Path) -> None:
    """After a rewrite the file is small and says the same."""
    path = tmp_path / "window"
    store, window = WindowStore(path), DuplicateWindow()
    store.load(window, 0.0)
    for chunk_id in range(1000):
        window.arrived(A, chunk_id, 60.0, 0.0)
        window.taken(A, chunk_id)
        store.append([(A, chunk_id, 150.0)])
    large = path.stat().st_size
    store.compact(window, 0.0)
    assert path.stat().st_size < large / 100
    restored = DuplicateWindow()
    WindowStore(path).load(restored, 0.0)
    assert all(restored.arrived(A, i, 60.0, 0.0) is Seen.TAKEN for i in range(1000))


def test_damage_in_a_window_file_costs_one_record(tmp_path: Path) -> None:
    """Torn, flipped, or bytes missing anywhere: never an error, never an id that was not stored,
    and all that were whole."""
    path = tmp_path / "window"
    store = WindowStore(path)
    store.load(DuplicateWindow(), 0.0)
    store.append([(A, chunk_id, 150.0) for chunk_id in range(0, 2560, 256)])
    store.close()
    good = path.read_bytes()
    rng = random.Random(5)
    for _ in range(200):
        data = bytearray(good)
        kind = rng.choice(["torn", "flipped", "missing"])
        if kind == "torn":
            del data[rng.randrange(len(data)) :]
        elif kind == "flipped":
            data[rng.randrange(25, len(data))] ^= 1 << rng.randrange(8)
        else:  # a short write, and what came behind it
            record = 21 + rng.randrange(10) * RECORD_BYTES
            del data[record + rng.randrange(RECORD_BYTES) : record + RECORD_BYTES]
        path.write_bytes(data)
        window = DuplicateWindow()
        try:
            WindowStore(path).load(window, 0.0)
        except HostError:
            assert len(data) < 25
            continue
        known = {page.first_id for page in window.taken_pages(0.0)}
        assert known <= set(range(0, 2560, 256))
        whole = (len(data) - 21) // RECORD_BYTES if kind == "torn" else 9
        assert len(known) >= whole
    assert RECORD_BYTES == 72


@pytest.mark.parametrize("room", [0, 1, 71, 72, 100])
def test_a_full_disk_costs_the_window_no_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """It takes a part of a note and says so only then. When it has room again, the notes after it
    can be read, and the one that it refused is made up for by the rewrite that is due."""
    path = tmp_path / "window"
    store, window = WindowStore(path), DuplicateWindow()
    store.load(window, 0.0)
    left = room
    real = os.write

    def write(descriptor: int, data: Buffer) -> int:
        nonlocal left
        some = bytes(data)[:left]
        left -= len(some)
        if not some:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, some)

    def take(chunk_id: int) -> None:
        window.arrived(A, chunk_id, 60.0, 0.0)
        window.taken(A, chunk_id)
        store.append([(A, chunk_id, 150.0)])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            for number in range(1, 3):
                take(number)
    wholes = (path.stat().st_size - 21) / RECORD_BYTES
    assert wholes == room // RECORD_BYTES and store.wants_compaction
    for number in range(10, 50):
        take(number)
    restored = DuplicateWindow()
    path.with_name("copy").write_bytes(path.read_bytes())
    WindowStore(path.with_name("copy")).load(restored, 0.0)
    assert all(restored.arrived(A, number, 60.0, 0.0) is Seen.TAKEN for number in range(10, 50))
    store.compact(window, 0.0)
    assert not store.wants_compaction
    restored = DuplicateWindow()
    WindowStore(path).load(restored, 0.0)
    taken = [1, *range(10, 50)] + [2] * (room >= RECORD_BYTES)
    assert all(restored.arrived(A, number, 60.0, 0.0) is Seen.TAKEN for number in taken)


def test_a_foreign_file_is_not_overwritten(tmp_path: Path) -> None:
    """A state file that is something else is refused and left alone."""
    path = tmp_path / "letter"
    path.write_text("Dear customer")
    with pytest.raises(HostError, match="not a duplicate window"):
        WindowStore(path).load(DuplicateWindow(), 0.0)
    assert path.read_text() == "Dear customer"
