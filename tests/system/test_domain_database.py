"""Opening a database: what makes commits last is read back; schema, lock, mode, health."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from packetcloud.domain_controller.core.prices import Meter
from packetcloud.domain_controller.core.reservations import State
from packetcloud.domain_controller.core.usage import (
    FIRST_PREVIOUS,
    RecordSignature,
    Taken,
    UsageRecord,
)
from packetcloud.domain_controller.state import (
    holds,
    journal,
    ownership,
    reservations,
    schema,
    usage,
)
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import StateConfigError
from packetcloud.domain_controller.state.money_tables import USAGE
from packetcloud.domain_controller.state.schema import newest_version
from packetcloud.domain_controller.state.writer import Writer
from packetcloud.testbed.private_postgresql import PrivatePostgresql
from tests.system.domain_databases import sqlite_url, url

__all__ = ["url"]


def test_models_and_migrations_agree(url: str) -> None:
    """What the revisions make is what the tables say: nothing to add, drop or change."""
    database = Database(url)
    with database.readers.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, USAGE.metadata) == []
    assert database.health().schema == newest_version()
    database.close()


def test_sqlite_writes_through_and_keeps_others_out(tmp_path: Path) -> None:
    """WAL and FULL as SQLite itself says, mode 0600 of every file, one process at a time."""
    database = Database(sqlite_url(tmp_path))
    for engine in (database.writer, database.readers):
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes["domain.sqlite3"] == modes["domain.sqlite3-wal"] == 0o600
    assert set(modes.values()) == {0o600}, modes
    program = (
        "import sys\nfrom packetcloud.domain_controller.state.database import Database\n"
        "Database(sys.argv[1])"
    )
    command = [sys.executable, "-c", program, sqlite_url(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "another domain controller uses it" in done.stderr
    database.close()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_readers_cannot_write(url: str) -> None:
    """A connection for reading refuses to change anything."""
    database = Database(url)
    with database.reading() as connection, pytest.raises(Exception, match=r"read-?only"):
        connection.execute(text("DELETE FROM events"))
    database.close()


def test_a_newer_schema_is_refused(url: str) -> None:
    """The text names both versions and what to do; the database stays as it is."""
    database = Database(url)
    with database.writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(StateConfigError, match=rf"9999.*{newest_version()}.*run the version"):
        Database(url)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "no url",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://root:secret@host/database",
        "sqlite:////proc/none/file",
    ],
)
def test_urls_that_cannot_be_used_are_refused_without_their_password(wrong: str) -> None:
    """What is allowed is named; what may be a password is not."""
    with pytest.raises(StateConfigError, match="allowed") as caught:
        Database(wrong)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """It is named, and not touched."""
    path = tmp_path / "domain.sqlite3"
    path.write_bytes(b"something else entirely, for a few bytes more than a header" * 40)
    before = path.read_bytes()
    with pytest.raises(StateConfigError, match=r"domain\.sqlite3 cannot be opened"):
        Database(sqlite_url(tmp_path))
    assert path.read_bytes() == before


def test_two_controllers_make_one_schema(postgresql: PrivatePostgresql) -> None:
    """Both start on an empty PostgreSQL at once."""
    url = postgresql.make_database()
    with ThreadPoolExecutor(4) as threads:
        databases = list(threads.map(Database, [url] * 4))
    assert {database.health().schema for database in databases} == {newest_version()}
    for database in databases:
        database.close()


def test_a_server_that_does_not_flush_is_refused(postgresql: PrivatePostgresql) -> None:
    """`synchronous_commit` that a database sets for itself does not count: ours is on."""
    url = postgresql.make_database()
    first = Database(url)
    name = first.url.database
    with first.writer.connect() as connection:
        own = connection.execution_options(isolation_level="AUTOCOMMIT")
        own.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    first.close()
    second = Database(url)
    with second.writer.connect() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
        assert connection.exec_driver_sql("SHOW fsync").scalar_one() == "on"
    second.close()


def test_health_follows_the_server(postgresql: PrivatePostgresql, domain_template: str) -> None:
    """Down while it is down, with what it says; up again without a new start of ours."""
    database = Database(postgresql.make_database(domain_template))
    assert database.health().is_up
    postgresql.stop()
    try:
        down = database.health()
        assert not down.is_up and down.detail
    finally:
        postgresql.start()
    assert database.health().is_up
    database.close()


def test_other_programs_read_while_it_is_open(tmp_path: Path) -> None:
    """An operator looks into the file with sqlite3."""
    database = Database(sqlite_url(tmp_path))
    other = sqlite3.connect(tmp_path / "domain.sqlite3")
    assert other.execute("SELECT COUNT(*) FROM reservations").fetchone() == (0,)
    other.close()
    database.close()


def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """What it holds is still held; what came later is there, and empty."""
    first = Path(__file__).parents[1] / "vectors" / "domain-state-0001.sql"
    old = sqlite3.connect(tmp_path / "domain.sqlite3")
    old.executescript(first.read_text())
    old.close()
    database = Database(sqlite_url(tmp_path))
    assert database.health().schema == newest_version() != "0001"
    with database.reading() as connection:
        assert journal.verify(connection) is None
        kept = reservations.find(connection, "r1", "acme")
        assert kept is not None and kept.reservation.state is State.OFFERED
        assert tuple(holds.of_reservation(connection, "r1")) == kept.reservation.holds
        assert usage.of_owner(connection) == []
    database.close()


def test_records_of_the_second_version_are_there_without_signatures(tmp_path: Path) -> None:
    """Those that come later have theirs beside them; each is read back as it was."""
    path = tmp_path / "domain.sqlite3"
    first = Path(__file__).parents[1] / "vectors" / "domain-state-0001.sql"
    old = sqlite3.connect(path)
    old.executescript(first.read_text())
    old.close()
    fields = (Meter.CHUNKS, 1000, 2000, 7)
    early = UsageRecord("c1", "m1", 1, FIRST_PREVIOUS, "r1", 1, *fields)
    late = UsageRecord("c1", "m1", 2, early.digest, "r1", 1, *fields)
    engine = create_engine(sqlite_url(tmp_path))
    with engine.connect() as connection:
        schema.upgrade(connection, "0002")
        row = (*astuple(early)[:6], "chunks", 1000, 2000, 7)
        columns = "cloudlet,meter,number,previous,reservation,terms,kind,begin_ms,end_ms,quantity"
        values = dict(zip(columns.split(","), row, strict=True))
        values |= {"digest": early.digest, "received_ms": 3000, "owner": "acme"}
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        connection.execute(text(f"INSERT INTO usage ({names}) VALUES ({places})"), values)
        connection.commit()
    engine.dispose()
    database = Database(sqlite_url(tmp_path))
    writer = Writer(database, lambda: 5000)
    proof = RecordSignature(b"k" * 32, b"s" * 64)
    channel = writer.do_blocking(
        lambda work: ownership.take(work, ownership.cloudlet_channel("c1"), "a")
    )
    taken = writer.do_blocking(
        lambda work: usage.take(work, channel, [early, late], {late.digest: proof})
    )
    assert taken == [Taken.AGAIN, Taken.NEW]
    with database.reading() as connection:
        assert usage.signed_of_owner(connection) == [(early, None), (late, proof)]
    writer.close()
    database.close()
