"""Backup of a database that is in use, and what comes back from it."""

from __future__ import annotations

import random
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from packetcloud.domain_controller.state import journal, usage
from packetcloud.domain_controller.state.backup import backup, restore, sums_of
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import BackupError
from packetcloud.testbed.private_postgresql import PrivatePostgresql
from tests.system.domain_databases import sqlite_url, url
from tests.system.domain_places import Place, reserve
from tests.system.test_domain_usage import Books, all_meters

__all__ = ["url"]
SEED = 3


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database to restore into."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "restored")
    else:
        server: PrivatePostgresql = request.getfixturevalue("postgresql")
        yield server.make_database()


def test_what_is_restored_is_what_was_there(url: str, empty_url: str, tmp_path: Path) -> None:
    """From each kind of database into each: every row of every table, the journal's chain, the
    sum of all accounts; and it can be worked with."""
    books = Books(url)
    books.take(all_meters(50, random.Random(SEED)))
    books.close_bill(books.draft("acme"))
    file = tmp_path / "backup"
    made = backup(url, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made.rows["usage"] == 450 and made.rows["bills"] == 1 and made.rows["postings"] > 1
    with books.database.reading() as connection:
        assert sums_of(connection) == made
    balances = books.balances()
    books.close()
    assert restore(file, empty_url) == made
    again = Database(empty_url)
    with again.reading() as connection:
        assert usage.balances(connection) == balances and sum(balances.values()) == 0
        assert journal.verify(connection) is None
    again.close()


def test_a_backup_under_load_is_one_state(url: str, tmp_path: Path) -> None:
    """While places are reserved, several backups are made: each is a state that was."""
    books = Books(url)
    with ThreadPoolExecutor(4) as threads:
        lanes = [
            threads.submit(
                lambda lane=lane: [
                    books.writer.do_blocking(
                        reserve(Place(f"{lane}-{number}", number), f"{lane}-{number}")
                    )
                    for number in range(60)
                ]
            )
            for lane in range(4)
        ]
        files = [tmp_path / f"backup-{number}" for number in range(3)]
        made = [backup(url, file) for file in files]
        for lane in lanes:
            lane.result(60)
    books.close()
    for number, file in enumerate(files):
        restored = sqlite_url(tmp_path / f"restored-{number}")
        assert restore(file, restored) == made[number]
        again = Database(restored)
        with again.reading() as connection:
            assert journal.verify(connection) is None
        again.close()


def test_a_damaged_backup_is_refused_and_nothing_is_restored(
    postgresql: PrivatePostgresql, tmp_path: Path
) -> None:
    """Cut anywhere, or with one digit changed; the database stays empty."""
    chance = random.Random(SEED)
    url = postgresql.make_database()
    books = Books(url)
    books.take(all_meters(3, chance))
    books.close()
    file = tmp_path / "backup"
    backup(url, file)
    whole = file.read_bytes()
    damaged = [whole[: chance.randrange(1, len(whole) - 1)] for _ in range(10)]
    position = whole.index(b'"c1","r1-chunks",2') + len(b'"c1","r1-chunks",')
    damaged.append(whole[:position] + b"9" + whole[position + 1 :])
    damaged.append(b"something else")
    for number, text in enumerate(damaged):
        file.write_bytes(text)
        target = sqlite_url(tmp_path / f"restored-{number}")
        with pytest.raises(BackupError, match="backup"):
            restore(file, target)
        empty = Database(target)
        with empty.reading() as connection:
            rows = sums_of(connection).rows
            assert sum(rows.values()) == rows["heads"] == 1
        empty.close()


def test_nothing_is_overwritten(url: str, tmp_path: Path) -> None:
    """Neither a file that is there, nor a database that is not empty."""
    books = Books(url)
    file = tmp_path / "backup"
    backup(url, file)
    with pytest.raises(BackupError, match="there already"):
        backup(url, file)
    books.close()
    with pytest.raises(BackupError, match="not empty"):
        restore(file, url)
    with pytest.raises(BackupError, match="No such file"):
        restore(tmp_path / "absent", sqlite_url(tmp_path / "other"))
    assert sorted(path.name for path in tmp_path.glob("*.part")) == []
