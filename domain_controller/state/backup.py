"""Backup while the controller runs, and restore into an empty place; both are checked by sums.

SQLite is copied by its own backup, which reads one state of the file and stops nobody. PostgreSQL
is read in one transaction into a text file: a line that says what it is, a line for each row, and
a last line with the sums; it can be restored into PostgreSQL or into SQLite.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Boolean, Connection, LargeBinary, Table, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from packetcloud.domain_controller.core.reservations import FINAL, Reservation
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.documents import dump, load
from packetcloud.domain_controller.state.errors import (
    BackupError,
    DatabaseAwayError,
    StateConfigError,
)
from packetcloud.domain_controller.state.failures import line_of
from packetcloud.domain_controller.state.schema import newest_version, schema_version
from packetcloud.domain_controller.state.tables import METADATA, RESERVATIONS

FORMAT = "packetcloud domain backup 1"
SQLITE_HEADER = b"SQLite format 3\x00"
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Sums:
    """What a state amounts to: two that are equal hold the same rows."""

    schema: str
    rows: dict[str, int]
    """By table, how many."""
    digests: dict[str, str]
    """By table, SHA-256 over its rows in the order of their keys."""


def backup(url: str, path: Path) -> Sums:
    """Write a copy of a database, which may be in use, to a file that is not there yet.

    Raises:
        BackupError: the file is there already, or cannot be written.
        StateConfigError: the database cannot be read.
    """
    reader = Database(url, only_reads=True)
    partial = path.with_name(f"{path.name}.part")
    try:
        if path.exists():
            raise BackupError(f"{path} is there already; choose another name")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        sums = _copy_sqlite(reader, partial) if reader.is_sqlite else _dump(reader, partial)
        _make_last(partial, path)
    except (OSError, SQLAlchemyError, DatabaseAwayError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):  # the disk that failed may fail at this too
            if not isinstance(error, FileExistsError):
                partial.unlink()
        raise BackupError(f"{path}: {line_of(error)}; nothing was kept of the backup") from None
    finally:
        reader.close()
    return sums


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


def restore(path: Path, url: str, clock_ms: Callable[[], int] = _clock_ms) -> Sums:
    """Make an empty database hold what a backup holds; return its sums.

    Then reservations number what comes from now on above all that cloudlets may have seen.

    Args:
        clock_ms: ms since 1970.

    Raises:
        BackupError: the file is no backup, is damaged, or the place is not empty.
        StateConfigError: the database cannot be used.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(SQLITE_HEADER))
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}") from None
    database = Database(url)
    try:
        with database.writer.begin() as connection:
            _refuse_what_is_not_empty(connection, database.shown_url)
            if start == SQLITE_HEADER:
                expected = _fill_from_sqlite(connection, path)
            else:
                expected = _fill(connection, path)
            found = sums_of(connection)
            if found != expected:
                raise BackupError(f"{path}: its rows are not those that were written; use another")
            _number_on(connection, clock_ms())
    except (SQLAlchemyError, DatabaseAwayError) as error:
        raise BackupError(f"{path}: {line_of(error)}; nothing was restored") from None
    finally:
        database.close()
    return found


def _number_on(connection: Connection, number: int) -> None:
    """Have terms and directives go on above a number, which is the time of this restore in ms.

    After the backup others were given, which usage of cloudlets may name: under a number that is
    given again it would be billed by other terms. Less than one in a ms is given, so that a second
    restore of the same backup begins above those of the first.
    """
    after = ""
    query = select(RESERVATIONS.c.name, RESERVATIONS.c.document)
    query = query.where(RESERVATIONS.c.state.not_in([state.value for state in FINAL]))
    query = query.order_by(RESERVATIONS.c.name).limit(_ROWS_AT_ONCE)
    while rows := connection.execute(query.where(RESERVATIONS.c.name > after)).all():
        for name, text in rows:
            reservation = load(Reservation, text)
            last = max(reservation.last_number, number)
            connection.execute(
                update(RESERVATIONS)
                .where(RESERVATIONS.c.name == name)
                .values(document=dump(replace(reservation, last_number=last)))
            )
        after = rows[-1].name


def sums_of(connection: Connection) -> Sums:
    """Return what a state amounts to. O(rows)."""
    rows: dict[str, int] = {}
    digests: dict[str, str] = {}
    for table in METADATA.sorted_tables:
        count, digest = 0, hashlib.sha256()
        for row in _rows(connection, table):
            count += 1
            digest.update(_line(table, row).encode())
        rows[table.name], digests[table.name] = count, digest.hexdigest()
    return Sums(schema_version(connection), rows, digests)


def _copy_sqlite(reader: Database, partial: Path) -> Sums:
    with contextlib.closing(sqlite3.connect(partial)) as target:
        with reader.reading() as connection:
            source = connection.connection.driver_connection
            assert isinstance(source, sqlite3.Connection), "the URL says so"
            source.backup(target)  # all pages in one step: one state, however much is written
        verdict = target.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise BackupError(f"{reader.shown_url} is damaged: {verdict}; restore a backup of it")
    return _sums_of_file(partial)


def _sums_of_file(path: Path) -> Sums:
    copy = Database(f"sqlite:///{path}", only_reads=True)
    try:
        with copy.reading() as connection:
            return sums_of(connection)
    finally:
        copy.close()


def _dump(reader: Database, partial: Path) -> Sums:
    with reader.reading() as connection, partial.open("w") as file:
        version = schema_version(connection)
        _say(file, {"format": FORMAT, "schema": version})
        for table in METADATA.sorted_tables:
            _say(file, {"table": table.name, "columns": [column.name for column in table.c]})
            for row in _rows(connection, table):
                file.write(_line(table, row))
        sums = sums_of(connection)
        _say(file, {"rows": sums.rows, "digests": sums.digests})
    return sums


def _fill(connection: Connection, path: Path) -> Sums:
    """Read rows into empty tables; return the sums that the file ends with."""
    table: Table | None = None
    waiting: list[dict[str, Any]] = []
    last: dict[str, Any] = {}
    try:
        with path.open() as file:
            head = json.loads(file.readline())
            _check_head(head, path)
            for text in file:
                line = json.loads(text)
                if isinstance(line, list) and table is not None:
                    waiting.append(_row(table, line))
                if waiting and (len(waiting) == _ROWS_AT_ONCE or isinstance(line, dict)):
                    assert table is not None, "rows come after their table"
                    connection.execute(insert(table), waiting)
                    waiting = []
                if isinstance(line, dict):
                    last = line
                    table = METADATA.tables[line["table"]] if "table" in line else None
        sums = Sums(head["schema"], last["rows"], last["digests"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupError(f"{path} is no backup, or its end is missing: {error!r}") from None
    return sums


def _fill_from_sqlite(connection: Connection, path: Path) -> Sums:
    copy = Database(f"sqlite:///{path}", only_reads=True)
    try:
        with copy.reading() as source:
            _check_head({"format": FORMAT, "schema": schema_version(source)}, path)
            for table in METADATA.sorted_tables:
                waiting: list[dict[str, Any]] = []
                for row in _rows(source, table):
                    waiting.append(dict(row._mapping))
                    if len(waiting) == _ROWS_AT_ONCE:
                        connection.execute(insert(table), waiting)
                        waiting = []
                if waiting:
                    connection.execute(insert(table), waiting)
            sums = sums_of(source)
    except StateConfigError as error:
        raise BackupError(f"{path}: {error}") from None
    finally:
        copy.close()
    return sums


def _check_head(head: Any, path: Path) -> None:
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise BackupError(f"{path} is no backup of a domain controller")
    if head["schema"] != newest_version():
        raise BackupError(
            f"{path} has schema {head['schema']}, this version restores {newest_version()}; "
            "restore it with the version that wrote it, then start this one"
        )


def _refuse_what_is_not_empty(connection: Connection, name: str) -> None:
    for table in METADATA.sorted_tables:
        if table.name == "heads":  # begins with a row
            continue
        if connection.execute(select(func.count()).select_from(table)).scalar_one():
            raise BackupError(
                f"{name} is not empty: there is something in {table.name}; restore into a new "
                "database"
            )
    connection.execute(METADATA.tables["heads"].delete())


def _rows(connection: Connection, table: Table) -> Iterator[Any]:
    # Databases sort texts by rules of their own: the order is that of bytes in all of them.
    keys = [
        column.collate("C" if connection.dialect.name == "postgresql" else "BINARY")
        if column.type.python_type is str
        else column
        for column in table.primary_key
    ]
    query = select(table).order_by(*keys).execution_options(yield_per=_ROWS_AT_ONCE)
    return iter(connection.execute(query))


def _line(table: Table, row: Any) -> str:
    return json.dumps([_plain(value) for value in row], separators=(",", ":")) + "\n"


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes | memoryview) else value


def _row(table: Table, values: list[Any]) -> dict[str, Any]:
    row = {}
    for column, value in zip(table.c, values, strict=True):
        if value is not None and isinstance(column.type, LargeBinary):
            value = bytes.fromhex(value)
        elif value is not None and isinstance(column.type, Boolean):
            value = bool(value)
        row[column.name] = value
    return row


def _say(file: TextIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line, separators=(",", ":")) + "\n")


def _make_last(partial: Path, path: Path) -> None:
    """Give the file its name once it is on disk."""
    for place in (partial, None, path.parent):
        if place is None:
            partial.rename(path)
            continue
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
