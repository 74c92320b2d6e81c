"""The cloudlet's table on disk and as a part of the daemon."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.names import NA
from packetcloud.router.cloudlet_schemas import ServiceItem, Update
from packetcloud.router.cloudlet_table import CloudletTable, TableRefusedError
from packetcloud.router.errors import TableFileError, TableUnavailableError
from packetcloud.router.rules.policy import policy_of
from packetcloud.router.settings import RuleSettings, RulesFrom, ServiceSettings
from packetcloud.router.storage import FolderStorage
from packetcloud.router.table_service import TableService
from packetcloud.router.table_store import MAX_FILE_BYTES, TABLE_NAME, TableStore
from tests.unit.router.cloudlet_tables import (
    HELD,
    RESTRICTED,
    entry,
    no_objection,
    update,
    vi,
    with_table,
)
from tests.unit.router.forgetful_storage import ForgetfulStorage
from tests.unit.router.router_fakes import A, B, FakeNetwork, S, T, U, service

FULL = entry(
    vi(1),
    vi(2, RESTRICTED, slot=1),
    vi(3, HELD, slot=1),
    ratio=1.5,
    guids=(A, B),
    nas=(NA(2),),
    priority=4,
    rules_from=RulesFrom.ANYONE,
)


def some_table() -> CloudletTable:
    sent = update(FULL, entry(sid=T), entry(vi(1), vi(2), sid=S), epoch=3, version=9)
    return CloudletTable().apply(sent, no_objection)


def test_table_comes_back_as_it_was_saved() -> None:
    """Services, VIs, owners, what the update was answered: all of it."""
    storage = ForgetfulStorage()
    store = TableStore(storage)
    assert store.load() == CloudletTable()
    table = some_table()
    assert table.results[2].reason is not None
    store.save(table)
    storage.cut_power()
    assert store.load() == table
    assert ServiceItem.of(FULL).to_entry() == FULL


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "grown", "too large"])
def test_damaged_file_is_known(damage: str) -> None:
    """Whatever was altered, nothing of it is believed."""
    storage = ForgetfulStorage()
    store = TableStore(storage)
    store.save(some_table())
    data = storage.files[TABLE_NAME]
    if damage == "cut":
        del data[-30:]
    elif damage == "flipped":
        data[200] ^= 1
    elif damage == "emptied":
        data.clear()
    elif damage == "grown":
        data += b"\n"
    else:
        data += bytes(MAX_FILE_BYTES)
    with pytest.raises(TableFileError, match="'table'"):
        store.load()


def test_file_of_another_version_is_named() -> None:
    """Its checksum is right, and it is not ours all the same."""
    storage = ForgetfulStorage()
    store = TableStore(storage)
    store.save(some_table())
    content = bytes(storage.files[TABLE_NAME]).split(b"\n")[0].replace(b"table-1", b"table-2")
    checksum = hashlib.sha256(content).hexdigest().encode()
    storage.replace(TABLE_NAME, content + b"\n" + checksum + b"\n")
    with pytest.raises(TableFileError, match="format"):
        store.load()


class _Daemon:
    """A table service around a router core."""

    def __init__(self, folder: Path) -> None:
        self.net = FakeNetwork(with_table())
        self.listed: list[tuple[ServiceSettings, ...]] = []
        self.table = TableService(
            folder,
            self.net.core,
            lambda: self.net.now,
            lambda: None,
            self.listed.append,
            None,
            "boot",
        )
        self.table.open()

    def put(self, version: int, *items: ServiceItem, epoch: int = 1) -> Any:
        document = {
            "controller": "c",
            "epoch": epoch,
            "version": version,
            "items": [{"put": item} for item in items],
        }
        return asyncio.run(self.table.put(Update.model_validate(document)))


def test_full_disk_refuses_the_update_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written is not in force, and the same update is taken later."""
    daemon = _Daemon(tmp_path)
    daemon.put(1, ServiceItem.of(entry(vi(1))))

    def full(self: FolderStorage, name: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(FolderStorage, "replace", full)
        with pytest.raises(TableUnavailableError, match="No space left") as caught:
            daemon.put(2, ServiceItem.of(entry(sid=T)))
    assert caught.value.status == 503
    assert [one.name for one in daemon.table.report().services] == ["s"]
    daemon.put(2, ServiceItem.of(entry(sid=T)))
    assert [one.name for one in daemon.table.report().services] == ["t"]
    daemon.table.close()


def test_router_starts_without_a_damaged_table_on_a_full_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of that does not hang on the copy."""
    (tmp_path / TABLE_NAME).write_text("torn")

    def full(self: FolderStorage, name: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FolderStorage, "replace", full)
    daemon = _Daemon(tmp_path)
    assert "torn or altered" in daemon.table.report().problem
    daemon.table.close()


def test_update_that_was_written_before_a_kill_is_in_force_after_it(tmp_path: Path) -> None:
    """Killed between the file and the answer: the controller sends it again, and is answered."""
    daemon = _Daemon(tmp_path)
    sent = ServiceItem.of(entry(vi(1)))
    first = daemon.put(1, sent)
    daemon.table.close()
    again = _Daemon(tmp_path)
    assert again.put(1, sent) == first
    with pytest.raises(TableRefusedError, match="other content"):
        again.put(1, ServiceItem.of(entry(sid=T)))
    again.table.close()


def test_rules_of_everybody_lead_to_services_of_the_table_that_say_so(tmp_path: Path) -> None:
    """`rules_from` of the table counts as that of the config."""
    daemon = _Daemon(tmp_path)
    daemon.put(1, ServiceItem.of(entry(rules_from=RulesFrom.ANYONE)), ServiceItem.of(entry(sid=T)))
    (listed,) = daemon.listed
    own = service(U, rules_from=RulesFrom.ANYONE)
    policy = policy_of(with_table(services=(own,)), RuleSettings(), listed)
    assert policy.open_services == {S.value, U.value}
    daemon.table.close()
