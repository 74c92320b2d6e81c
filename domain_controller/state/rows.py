"""Rows that both databases insert alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite

Row = Mapping[str, Any]


def insert_new(connection: Connection, table: Table, row: Row) -> bool:
    """Insert a row; tell whether it is new. A row with the same key stays as it is."""
    statement = inserting_new(connection.dialect.name, table)
    # Without the option SQLAlchemy forgets the count of an insert.
    done = connection.execute(statement, dict(row), execution_options={"preserve_rowcount": True})
    return done.rowcount == 1


def insert_all_new(
    connection: Connection, table: Table, rows: Sequence[Row], returning: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Insert rows; return of those that are new the columns in `returning`, in no order."""
    if not rows:
        return []
    columns = [table.c[name] for name in returning]
    statement = inserting_new(connection.dialect.name, table).returning(*columns)
    return [tuple(row) for row in connection.execute(statement, list(rows))]


def insert_all(connection: Connection, statement: Any, rows: Sequence[Row]) -> int:
    """Insert rows by a statement made for one of them; return how many were written."""
    if connection.dialect.name == "postgresql":
        # With something to return they go as one statement, else as one message for each row.
        return len(connection.execute(_returning(statement), list(rows)).all())
    # Without the option SQLAlchemy forgets the count of an insert.
    options = {"preserve_rowcount": True}
    return connection.execute(statement, list(rows), execution_options=options).rowcount


def put(connection: Connection, table: Table, row: Row) -> None:
    """Insert a row, or make the row with the same key like it."""
    put_all(connection, table, [row])


def put_all(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows, all with the same columns, or make the rows with the same keys like them."""
    if not rows:
        return
    connection.execute(upserting(connection.dialect.name, table, tuple(rows[0])), list(rows))


@cache
def _returning(statement: Any) -> Executable:
    made: Executable = statement.returning(next(iter(statement.table.primary_key)))
    return made


@cache
def upserting(dialect: str, table: Table, columns: tuple[str, ...]) -> Executable:
    """Return the statement that inserts a row, or makes the row with the same key like it."""
    # Made once: making one costs more than the database takes to do it.
    keys = [column.name for column in table.primary_key]
    kind: Any = postgresql if dialect == "postgresql" else sqlite
    statement = kind.insert(table)
    changed = {name: statement.excluded[name] for name in columns if name not in keys}
    made: Executable = (
        statement.on_conflict_do_update(index_elements=keys, set_=changed)
        if changed
        else statement.on_conflict_do_nothing(index_elements=keys)
    )
    return made


@cache
def inserting_new(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return the statement that inserts a row if none has its key."""
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()
