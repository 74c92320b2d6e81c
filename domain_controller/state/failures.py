"""What an error of the database means for the transaction it came in."""

from __future__ import annotations

import sqlite3
from enum import Enum, auto

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


class CollidedError(Exception):
    """Another controller wrote the same row first: the batch is done again, and sees it."""


class Failure(Enum):
    """What failed."""

    REQUEST = auto()
    """One statement: the others of the batch go on."""
    AGAIN = auto()
    """The transaction, for what somebody else did at the same time: try it again."""
    AWAY = auto()
    """The database: it is locked, restarted, or its disk fails. Try it again later."""
    FULL = auto()
    """The disk takes no more."""


def failure_of(error: BaseException) -> Failure:
    """Return what an error means. Source: SQLite's result codes; PostgreSQL, appendix A."""
    if isinstance(error, CollidedError):
        return Failure.AGAIN
    if isinstance(error, PoolTimeoutError):
        return Failure.AWAY
    if not isinstance(error, DBAPIError):
        return Failure.REQUEST
    if isinstance(error.orig, sqlite3.Error):
        return _SQLITE.get(getattr(error.orig, "sqlite_errorcode", 0) & 0xFF, Failure.REQUEST)
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is None:
        return Failure.AWAY if error.connection_invalidated or _is_link(error) else Failure.REQUEST
    return _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2], Failure.REQUEST)


def concerns_all(error: BaseException) -> bool:
    """Tell whether the whole transaction failed."""
    return failure_of(error) is not Failure.REQUEST


def line_of(error: BaseException) -> str:
    """Return what the database itself said, in one line, without our statement."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return " ".join(str(cause).split())


def _is_link(error: DBAPIError) -> bool:
    return type(error.orig).__name__ in ("OperationalError", "InterfaceError")


_SQLITE = {
    sqlite3.SQLITE_BUSY: Failure.AWAY,
    sqlite3.SQLITE_LOCKED: Failure.AWAY,
    sqlite3.SQLITE_NOMEM: Failure.AWAY,
    sqlite3.SQLITE_READONLY: Failure.AWAY,
    sqlite3.SQLITE_INTERRUPT: Failure.AWAY,
    sqlite3.SQLITE_IOERR: Failure.AWAY,
    sqlite3.SQLITE_CORRUPT: Failure.AWAY,
    sqlite3.SQLITE_CANTOPEN: Failure.AWAY,
    sqlite3.SQLITE_PROTOCOL: Failure.AWAY,
    sqlite3.SQLITE_NOTADB: Failure.AWAY,
    sqlite3.SQLITE_FULL: Failure.FULL,
}
_POSTGRESQL = {
    "08": Failure.AWAY,  # connection
    "25006": Failure.AWAY,  # only reading: a stand-by
    "25P03": Failure.AWAY,  # idle in a transaction for too long
    "40": Failure.AGAIN,  # deadlock, serialization
    "53": Failure.AWAY,  # memory, connections
    "53100": Failure.FULL,
    "55P03": Failure.AGAIN,  # lock_timeout
    "57": Failure.AWAY,  # shut down, starting up, cancelled
    "58": Failure.AWAY,  # the server's disk
    "XX": Failure.AWAY,  # internal, damaged
}
