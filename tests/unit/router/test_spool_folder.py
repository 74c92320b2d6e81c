"""A spool in a real folder."""

from __future__ import annotations

import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from packetcloud.router import chunk_log, disk_service
from packetcloud.router.chunk_log import ChunkLog
from packetcloud.router.chunk_record import Record
from packetcloud.router.settings import SpoolSettings
from packetcloud.router.storage import MAX_OPEN_COUNT, FolderStorage
from tests.unit.router.chunk_records import RESERVE_BYTES, chunk, opened, record
from tests.unit.router.forgetful_storage import ForgetfulStorage


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


def opened_folder(folder: Path) -> tuple[FolderStorage, ChunkLog, list[int]]:
    """Return a folder, the chunks in it, and the numbers that were found."""
    storage = FolderStorage(folder)
    log = ChunkLog(storage, RESERVE_BYTES)
    return storage, log, [found.record.number for found in log.open()]


def test_a_folder_is_a_storage_and_belongs_to_one_process(tmp_path: Path) -> None:
    """The real one: what is put is found after it was closed; a second user is refused."""
    storage, log, _ = opened_folder(tmp_path / "spool")
    for number in range(1, 40):
        log.put(record(number), [chunk(number, 300_000)])
    log.sync()
    log.remove(range(1, 38))
    log.tidy()
    with pytest.raises(OSError, match="another process"):
        FolderStorage(tmp_path / "spool")
    storage.close()
    _, again, found = opened_folder(tmp_path / "spool")
    assert found == [38, 39]
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
        storage, log, _ = opened_folder(tmp_path / "spool")
        for number in range(1, 201):
            log.put(record(number), [chunk(number, 4000)])
        log.sync()
        storage.close()
        storage, log, found = opened_folder(tmp_path / "spool")
        assert found == [*range(1, 201)]
        assert all(log.read(number) == chunk(number, 4000) for number in range(1, 201))
        log.remove(range(1, 201))
        log.tidy()
        storage.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not list((tmp_path / "spool").glob("chunks-*"))
