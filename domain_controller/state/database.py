"""One database by its URL: SQLite in a file of ours alone, or PostgreSQL. Checked when opened.

What makes a commit last is read back, not assumed: `journal_mode=WAL` and `synchronous=FULL` in
SQLite, `synchronous_commit` and `fsync` in PostgreSQL. The schema is brought up to date first.
Source: docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from packetcloud.domain_controller.state.errors import DatabaseAwayError, StateConfigError
from packetcloud.domain_controller.state.failures import concerns_all, line_of
from packetcloud.domain_controller.state.schema import check_schema, schema_version, upgrade

MAX_READERS_COUNT = 8
"""Connections that only read, at the same time; more wait for one of them."""
LOCK_WAIT_S = 2.0
"""So long a statement waits for a lock of somebody else before the batch is tried again."""
IDLE_S = 3.0
"""PostgreSQL ends a transaction that its controller left open for so long: a stopped controller
must not keep the others waiting."""
ALLOWED_URLS = "sqlite:///FOLDER/FILE or postgresql://USER@HOST/DATABASE"
_CACHE_KIB = 65_536


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the database answers, and what it promises."""

    is_up: bool
    kind: str
    schema: str
    detail: str = ""


class Database:
    """An open database. One `writer` for one thread, and connections for readers.

    Args:
        only_reads: beside the controller that uses it, and as it is: nothing can be written.

    Raises:
        StateConfigError: the URL, the file, the server's settings or the schema cannot be used.
    """

    def __init__(self, url: str, *, only_reads: bool = False) -> None:
        self.url = _url(url)
        self.shown_url = self.url.render_as_string(hide_password=True)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._lock: int | None = None
        if self.is_sqlite and not only_reads:
            self._lock = _take_file(Path(self.url.database or ""))
        try:
            self.readers = self._engine(is_writer=False)
            self.writer = self.readers if only_reads else self._engine(is_writer=True)
            if only_reads:
                self._check_for_reading()
            else:
                self._prepare()
        except BaseException as error:  # also Ctrl-C: nobody else gives the lock back
            self._unlock()
            if isinstance(error, SQLAlchemyError | DatabaseAwayError | OSError):
                text = f"{self.shown_url} cannot be opened: {line_of(error)}"
                raise StateConfigError(text) from None
            raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that sees one state of everything and writes nothing.

        Raises:
            DatabaseAwayError: the database does not answer; it is asked anew the next time.
        """
        try:
            with self.readers.connect() as connection:
                yield connection
                connection.rollback()
        except SQLAlchemyError as error:
            if not concerns_all(error):
                raise
            raise DatabaseAwayError(f"the database cannot be read: {line_of(error)}") from error

    def health(self) -> Health:
        """Ask the database something small."""
        kind = self.url.get_backend_name()
        try:
            with self.reading() as connection:
                return Health(True, kind, schema_version(connection))
        except (SQLAlchemyError, DatabaseAwayError) as error:
            return Health(False, kind, "", line_of(error))

    def close(self) -> None:
        """Let go of it."""
        self.writer.dispose()
        self.readers.dispose()
        self._unlock()

    def _check_for_reading(self) -> None:
        if self.is_sqlite and not Path(self.url.database or "").is_file():
            raise StateConfigError(f"{self.shown_url}: there is no such file")
        with self.reading() as connection:
            check_schema(connection, self.shown_url)

    def _prepare(self) -> None:
        with self.writer.connect() as connection:
            connection.rollback()
            check_schema(connection, self.shown_url)
            upgrade(connection)
            if self.is_sqlite:
                _check_sqlite(connection, self.shown_url)
            else:
                _check_postgresql(connection, self.shown_url)

    def _engine(self, *, is_writer: bool) -> Engine:
        size = 1 if is_writer else MAX_READERS_COUNT
        options: dict[str, Any] = {"pool_size": size, "max_overflow": 0, "pool_timeout": 10}
        if self.is_sqlite:
            options["connect_args"] = {"timeout": LOCK_WAIT_S, "check_same_thread": False}
            engine = create_engine(self.url, **options)
            event.listen(
                engine, "connect", _set_up_sqlite_writer if is_writer else _set_up_sqlite_reader
            )
            event.listen(engine, "begin", _begin_immediate if is_writer else _begin)
        else:
            options["connect_args"] = _postgresql_arguments(is_writer)
            level = "READ COMMITTED" if is_writer else "REPEATABLE READ"
            # The writer does its work again; a reader has nobody who would.
            options["pool_pre_ping"] = not is_writer
            engine = create_engine(self.url, isolation_level=level, **options)
        return engine

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def with_password(url: str, password: str | None) -> str:
    """Return a URL with a password that came from elsewhere; None: the URL as it is."""
    if password is None:
        return url
    return _url(url).set(password=password).render_as_string(hide_password=False)


def _url(text: str) -> URL:
    try:
        url = make_url(text)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        # The text may hold a password, so it is not repeated.
        raise StateConfigError(f"the database's URL is not one; allowed: {ALLOWED_URLS}") from None
    if backend == "sqlite" and url.database and url.database != ":memory:" and not url.query:
        return url.set(drivername="sqlite")
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    shown = url.render_as_string(hide_password=True)
    raise StateConfigError(f"database {shown!r} is not possible; allowed: {ALLOWED_URLS}")


def _take_file(path: Path) -> int:
    """Make the file with mode 0600 if it is not there; return the lock that keeps others away."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Keys and bills are in it; what SQLite puts beside it gets the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateConfigError(
            f"{path}: {error.strerror}; allowed: a file in a folder that can be written"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StateConfigError(
            f"{path}: another domain controller uses it; end that one, or have both use one "
            "PostgreSQL"
        ) from None
    return lock


def _postgresql_arguments(is_writer: bool) -> dict[str, Any]:
    settings = {
        "application_name": f"packetcloud-{'writer' if is_writer else 'reader'}",
        "lock_timeout": f"{LOCK_WAIT_S:g}s",
        "idle_in_transaction_session_timeout": f"{IDLE_S if is_writer else 60:g}s",
        "default_transaction_read_only": "off" if is_writer else "on",
        "synchronous_commit": "on",
    }
    return {
        "connect_timeout": 5,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours: see `_begin_immediate`
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")


def _set_up_sqlite_writer(connection: Any, record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    _set_up_sqlite(connection, record)


def _set_up_sqlite_reader(connection: Any, record: object) -> None:
    _set_up_sqlite(connection, record)
    connection.execute("PRAGMA query_only=ON")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _check_sqlite(connection: Connection, name: str) -> None:
    journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    if (journal, synchronous) != ("wal", 2):
        raise StateConfigError(
            f"{name}: journal_mode is {journal}, synchronous {synchronous}; needed: wal and 2 "
            "(FULL); is it on a network's file system? Put it on a local disk"
        )


def _check_postgresql(connection: Connection, name: str) -> None:
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        value = connection.exec_driver_sql(f"SHOW {setting}").scalar_one()
        if value != "on":
            raise StateConfigError(
                f"{name}: {setting} is {value}; needed: on, for what is acknowledged must outlive "
                "a power cut; set it in postgresql.conf"
            )
