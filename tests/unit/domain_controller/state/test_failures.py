"""What errors of databases mean for the transaction they came in."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.exc import DBAPIError

from packetcloud.domain_controller.state.failures import Failure, concerns_all, failure_of


class _PostgresqlError(Exception):
    def __init__(self, state: str | None) -> None:
        self.sqlstate = state


class OperationalError(Exception):
    """As psycopg names it where the connection is lost."""

    sqlstate = None


def _sqlite(code: int) -> DBAPIError:
    error = sqlite3.OperationalError("said by SQLite")
    error.sqlite_errorcode = code
    return DBAPIError("INSERT", {}, error)


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (sqlite3.SQLITE_FULL, Failure.FULL),
        (sqlite3.SQLITE_BUSY, Failure.AWAY),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Failure.AWAY),
        (sqlite3.SQLITE_IOERR_FSYNC, Failure.AWAY),
        (sqlite3.SQLITE_CORRUPT, Failure.AWAY),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, Failure.REQUEST),
        (sqlite3.SQLITE_ERROR, Failure.REQUEST),
    ],
)
def test_codes_of_sqlite(code: int, failure: Failure) -> None:
    """Also those with more detail."""
    assert failure_of(_sqlite(code)) is failure


@pytest.mark.parametrize(
    ("state", "failure"),
    [
        ("40P01", Failure.AGAIN),
        ("40001", Failure.AGAIN),
        ("55P03", Failure.AGAIN),
        ("57P01", Failure.AWAY),
        ("25P03", Failure.AWAY),
        ("53100", Failure.FULL),
        ("53300", Failure.AWAY),
        ("58030", Failure.AWAY),
        ("23505", Failure.REQUEST),
        ("42601", Failure.REQUEST),
        ("55000", Failure.REQUEST),
    ],
)
def test_states_of_postgresql(state: str, failure: Failure) -> None:
    """One code, or its class."""
    assert failure_of(DBAPIError("INSERT", {}, _PostgresqlError(state))) is failure


def test_a_lost_connection_concerns_all_and_a_fault_of_a_work_only_itself() -> None:
    """A connection that is lost has no state to tell."""
    assert concerns_all(DBAPIError("COMMIT", {}, OperationalError("lost")))
    assert not concerns_all(DBAPIError("INSERT", {}, _PostgresqlError(None)))
    assert not concerns_all(KeyError("mine"))
