"""The writer: one transaction for many, each request undone or answered alone, honest errors."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from packetcloud.domain_controller.state import answers, operations
from packetcloud.domain_controller.state.answers import Answer, Asked
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import (
    ClosedError,
    DatabaseAwayError,
    NotDoneError,
    OutcomeUnknownError,
    QueueFullError,
    ReplayedError,
)
from packetcloud.domain_controller.state.failures import Failure
from packetcloud.domain_controller.state.journal import read, verify
from packetcloud.domain_controller.state.nonces import Nonce
from packetcloud.domain_controller.state.tables import OPERATIONS
from packetcloud.domain_controller.state.transaction import Transaction, Work
from packetcloud.domain_controller.state.writer import Writer
from packetcloud.testbed.private_postgresql import PrivatePostgresql, quick_parent
from tests.system.domain_databases import sqlite_url, url

__all__ = ["url"]
NOW_MS = 1_800_000_000_000
LIMIT_S = 30.0


def adds(name: str) -> Work[str]:
    """A work that inserts a row and notes it."""

    def work(transaction: Transaction) -> str:
        row = {"kind": "test", "subject": name, "state": "done", "text": ""}
        times = {"made_ms": transaction.now_ms, "changed_ms": transaction.now_ms}
        transaction.connection.execute(insert(OPERATIONS), {"id": name, **row, **times})
        transaction.note("added", name, None, "{}")
        return name

    return work


def names(database: Database) -> set[str]:
    with database.reading() as connection:
        return set(connection.execute(select(OPERATIONS.c.id)).scalars())


@contextmanager
def writing(url: str, **options: Any) -> Iterator[tuple[Database, Writer]]:
    database = Database(url)
    writer = Writer(database, lambda: NOW_MS, **options)
    try:
        yield database, writer
    finally:
        writer.close()
        database.close()


class Gate:
    """Holds the writer at a step until it is opened."""

    def __init__(self, step: str) -> None:
        self._step = step
        self.reached = threading.Event()
        self.opened = threading.Event()

    def at_step(self, name: str) -> None:
        if name == self._step:
            self.reached.set()
            assert self.opened.wait(LIMIT_S)


def test_many_requests_share_a_commit_and_all_are_kept(url: str) -> None:
    """While one batch is held, the rest gathers into the next: far fewer commits than requests."""
    gate = Gate("written")
    with writing(url, at_step=gate.at_step) as (database, writer):

        async def ask() -> list[str]:
            first = asyncio.create_task(writer.do(adds("first")))
            await asyncio.to_thread(gate.reached.wait, LIMIT_S)
            rest = [asyncio.create_task(writer.do(adds(f"{n}"))) for n in range(60)]
            await asyncio.sleep(0)
            gate.opened.set()
            return [await one for one in (first, *rest)]

        assert set(asyncio.run(ask())) == names(database)
        assert writer.figures.requests == 61 and writer.figures.batches == 2
        with database.reading() as connection:
            assert [event.number for event in read(connection)] == list(range(1, 62))
            assert verify(connection) is None


def test_a_request_that_fails_undoes_itself_alone(url: str) -> None:
    """Its row and its event go; those before and after it in the same batch stay."""
    gate = Gate("begun")
    with writing(url, at_step=gate.at_step) as (database, writer), ThreadPoolExecutor(8) as threads:

        def fails(transaction: Transaction) -> None:
            adds("gone")(transaction)
            raise KeyError("mine")

        def doubles(transaction: Transaction) -> None:
            adds("gone too")(transaction)
            adds("gone too")(transaction)

        works: list[Work[Any]] = [adds("a"), fails, adds("b"), doubles, adds("c")]
        futures = [threads.submit(writer.do_blocking, work) for work in works]
        gate.opened.set()
        errors = [future.exception(LIMIT_S) for future in futures]
        assert [type(error).__name__ for error in errors] == [
            *("NoneType", "KeyError", "NoneType", "IntegrityError", "NoneType")
        ]
        assert names(database) == {"a", "b", "c"}
        with database.reading() as connection:
            assert {event.note.subject for event in read(connection)} == {"a", "b", "c"}
            assert verify(connection) is None


def test_rows_that_are_added_together_fail_alone(url: str) -> None:
    """A row that the database refuses is the answer to its own request; what a request that failed
    had added is not there. All are in one batch."""
    gate = Gate("begun")
    with writing(url, at_step=gate.at_step) as (database, writer), ThreadPoolExecutor(8) as threads:

        def begins(name: str, *, fails: bool = False) -> Work[str]:
            def work(transaction: Transaction) -> str:
                operations.begin(transaction, name, None, "test", name)
                transaction.note("added", name, None, "{}")
                if fails:
                    raise KeyError("mine")
                return name

            return work

        held = threads.submit(writer.do_blocking, begins("held"))
        assert gate.reached.wait(LIMIT_S)
        works = [begins("a"), begins("gone", fails=True), adds("b"), begins("a"), begins("c")]
        futures = []
        for count, work in enumerate(works, 1):
            futures.append(threads.submit(writer.do_blocking, work))
            until(lambda count=count: writer.waiting_count == count)  # type: ignore[misc]
        gate.opened.set()
        errors = [future.exception(LIMIT_S) for future in (held, *futures)]
        assert [type(error).__name__ for error in errors] == [
            *("NoneType", "NoneType", "KeyError", "NoneType", "IntegrityError", "NoneType")
        ]
        assert names(database) == {"held", "a", "b", "c"}
        assert writer.figures.failures[Failure.REQUEST] == 1
        with database.reading() as connection:
            assert [one.note.subject for one in read(connection)] == ["held", "a", "b", "c"]
            assert verify(connection) is None


def test_a_nonce_is_used_once_whatever_becomes_of_the_request(url: str) -> None:
    """Also by two requests of one batch, and by one that failed."""
    gate = Gate("begun")
    nonce = Nonce("key", "nonce", NOW_MS + 1000)
    with writing(url, at_step=gate.at_step) as (database, writer), ThreadPoolExecutor(8) as threads:

        def fails(_transaction: Transaction) -> str:
            raise KeyError("mine")

        held = threads.submit(writer.do_blocking, adds("held"))
        assert gate.reached.wait(LIMIT_S)
        futures = []
        for count, (work, one) in enumerate(
            [(adds("a"), nonce), (adds("b"), nonce), (fails, Nonce("key", "other", NOW_MS + 1))], 1
        ):
            futures.append(threads.submit(writer.do_blocking, work, (), one))
            until(lambda count=count: writer.waiting_count == count)  # type: ignore[misc]
        gate.opened.set()
        errors = [type(future.exception(LIMIT_S)).__name__ for future in (held, *futures)]
        assert errors == ["NoneType", "NoneType", "ReplayedError", "KeyError"]
        for one in (nonce, Nonce("key", "other", NOW_MS + 1)):
            with pytest.raises(ReplayedError):
                writer.do_blocking(adds("c"), (), one)
        assert writer.do_blocking(adds("d"), (), Nonce("another key", "nonce", NOW_MS + 1)) == "d"
        assert names(database) == {"held", "a", "d"}


def test_two_controllers_that_are_asked_under_one_key_do_it_once(
    postgresql: PrivatePostgresql, domain_template: str
) -> None:
    """Both look the key up, and find nothing; who writes second sees the answer of the first."""
    url = postgresql.make_database(domain_template)
    gate = Gate("written")
    asked = Asked("acme", "key", b"digest")
    with (
        writing(url, at_step=gate.at_step) as (_, slow),
        writing(url) as (database, quick),
        ThreadPoolExecutor(2) as threads,
    ):

        def asks(name: str) -> Work[Answer]:
            def act(transaction: Transaction) -> Answer:
                operations.begin(transaction, name, None, "test", name)
                return Answer(202, name)

            return lambda transaction: answers.once(transaction, asked, lambda: act(transaction))

        first = threads.submit(slow.do_blocking, asks("first"), (), None, asked)
        assert gate.reached.wait(LIMIT_S)
        second = threads.submit(quick.do_blocking, asks("second"), (), None, asked)
        until(lambda: quick.waiting_count == 0)
        gate.opened.set()
        given = [one.result(LIMIT_S) for one in (first, second)]
        assert len({one.body for one in given}) == 1
        assert sorted(one.is_repeated for one in given) == [False, True]
        assert names(database) == {given[0].body}


def test_what_does_not_fit_the_queue_is_refused_before_it_is_accepted(url: str) -> None:
    """At the cap a request is taken, one more is refused with when to come again."""
    gate = Gate("begun")
    with (
        writing(url, at_step=gate.at_step, max_waiting=2) as (database, writer),
        ThreadPoolExecutor(3) as threads,
    ):
        held = threads.submit(writer.do_blocking, adds("held"))
        assert gate.reached.wait(LIMIT_S)
        taken = [threads.submit(writer.do_blocking, adds(name)) for name in "ab"]
        until(lambda: writer.waiting_count == 2)
        with pytest.raises(QueueFullError) as caught:
            writer.do_blocking(adds("refused"))
        assert 1 <= caught.value.retry_after_s <= 60
        gate.opened.set()
        assert [one.result(LIMIT_S) for one in (held, *taken)] == ["held", "a", "b"]
        assert names(database) == {"held", "a", "b"} and writer.figures.refused == 1


def test_a_stalled_commit_is_answered_as_unknown_and_what_waits_as_not_done(url: str) -> None:
    """Who is being committed may have been written; who only waited was not, ever."""
    gate = Gate("committing")
    with (
        writing(url, at_step=gate.at_step, answer_within_s=0.2) as (database, writer),
        ThreadPoolExecutor(2) as threads,
    ):
        tried = threads.submit(writer.do_blocking, adds("tried"))
        assert gate.reached.wait(LIMIT_S)
        waited = threads.submit(writer.do_blocking, adds("waited"))
        assert isinstance(tried.exception(LIMIT_S), OutcomeUnknownError)
        assert isinstance(waited.exception(LIMIT_S), DatabaseAwayError)
        gate.opened.set()
        until(lambda: names(database) == {"tried"})
        writer.close()
        assert names(database) == {"tried"}


def test_who_was_told_that_nothing_was_written_is_not_written(url: str) -> None:
    """It had its turn, but the batch hung before its commit: the batch is done again without it."""
    gate = Gate("written")
    with (
        writing(url, at_step=gate.at_step, answer_within_s=0.2) as (database, writer),
        ThreadPoolExecutor(1) as threads,
    ):
        future = threads.submit(writer.do_blocking, adds("late"))
        assert isinstance(future.exception(LIMIT_S), DatabaseAwayError)
        gate.opened.set()
        until(lambda: _is_done(writer, "next"))
        assert names(database) == {"next"}


def test_a_file_locked_by_another_program_is_waited_for(tmp_path: Path) -> None:
    """Someone holds BEGIN EXCLUSIVE for longer than SQLite waits; nobody has to do anything."""
    with (
        writing(sqlite_url(tmp_path)) as (database, writer),
        ThreadPoolExecutor(1) as threads,
    ):
        other = sqlite3.connect(tmp_path / "domain.sqlite3", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        future = threads.submit(writer.do_blocking, adds("a"))
        until(lambda: writer.figures.failures[Failure.AWAY] >= 1)
        other.execute("ROLLBACK")
        assert future.result(LIMIT_S) == "a"
        other.close()
        assert names(database) == {"a"}


def test_a_lock_that_lasts_is_a_clear_error(tmp_path: Path) -> None:
    """After `answer_within_s` the asker knows that nothing was written."""
    with writing(sqlite_url(tmp_path), answer_within_s=0.5) as (database, writer):
        other = sqlite3.connect(tmp_path / "domain.sqlite3", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseAwayError, match="nothing was written"):
            writer.do_blocking(adds("a"))
        other.execute("ROLLBACK")
        other.close()
        until(lambda: _is_done(writer, "b"))
        assert names(database) == {"b"}


def test_a_fault_in_a_batch_does_not_end_the_writer(url: str) -> None:
    """Whatever goes wrong between the works, the next batch is done."""
    faults = iter([RuntimeError("a fault of ours")])

    def at_step(name: str) -> None:
        if name == "written" and (fault := next(faults, None)):
            raise fault

    with writing(url, at_step=at_step) as (database, writer):
        with pytest.raises(RuntimeError, match="a fault of ours"):
            writer.do_blocking(adds("a"))
        assert writer.do_blocking(adds("b")) == "b"
        assert names(database) == {"b"}


def test_closing_writes_what_waits_and_takes_no_more(url: str) -> None:
    """Everything accepted is answered; afterwards nothing is."""
    gate = Gate("begun")
    with (
        writing(url, at_step=gate.at_step) as (database, writer),
        ThreadPoolExecutor(4) as threads,
    ):
        futures = [threads.submit(writer.do_blocking, adds("a"))]
        assert gate.reached.wait(LIMIT_S)
        futures += [threads.submit(writer.do_blocking, adds(name)) for name in "bc"]
        until(lambda: writer.waiting_count == 2)
        closing = threads.submit(writer.close)
        gate.opened.set()
        closing.result(LIMIT_S)
        assert {future.result(LIMIT_S) for future in futures} == {"a", "b", "c"} == names(database)
        with pytest.raises(ClosedError):
            writer.do_blocking(adds("late"))


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_restarted_server_loses_nothing_acknowledged(end: str) -> None:
    """Requests go on while PostgreSQL is ended and started: each is kept, or was not done, or is
    unknown; afterwards writing goes on by itself."""
    with (
        PrivatePostgresql(quick_parent()) as server,
        writing(server.make_database()) as (database, writer),
    ):
        going_on = threading.Event()
        kept: set[str] = set()
        unknown: set[str] = set()

        def ask(lane: int) -> None:
            number = 0
            while not going_on.is_set():
                number += 1
                name = f"{lane}/{number}"
                try:
                    kept.add(writer.do_blocking(adds(name)))
                except OutcomeUnknownError:
                    unknown.add(name)

        with ThreadPoolExecutor(8) as threads:
            lanes = [threads.submit(ask, lane) for lane in range(8)]
            try:
                for _ in range(3):
                    before = len(kept)
                    until(lambda before=before: len(kept) > before + 50)  # type: ignore[misc]
                    getattr(server, end)()
                    server.start()
                before = len(kept)
                until(lambda: len(kept) > before + 50)
            finally:
                going_on.set()
            for lane in lanes:
                lane.result(LIMIT_S)
        written = names(database)
        assert kept <= written <= kept | unknown
        with database.reading() as connection:
            assert verify(connection) is None
            count = connection.execute(select(func.count()).select_from(OPERATIONS)).scalar_one()
        assert count == len(written)
        assert writer.figures.failures[Failure.AWAY] >= 1


def test_a_stalled_server_is_waited_for(
    postgresql: PrivatePostgresql, domain_template: str
) -> None:
    """PostgreSQL stops where it is for longer than a request waits: who waits learns that nothing
    was written, and nothing is; then it goes on, and so does writing."""
    url = postgresql.make_database(domain_template)
    with writing(url, answer_within_s=0.5) as (database, writer):
        writer.do_blocking(adds("before"))
        with paused(postgresql), pytest.raises(DatabaseAwayError):
            writer.do_blocking(adds("during"))
        until(lambda: _is_done(writer, "after"))
        assert names(database) == {"before", "after"}


def test_closing_does_not_wait_for_a_server_that_is_stopped(
    postgresql: PrivatePostgresql, domain_template: str
) -> None:
    """A controller ends while its database hangs; who waits learns that nothing was done."""
    url = postgresql.make_database(domain_template)
    with ThreadPoolExecutor(1) as threads, writing(url, answer_within_s=0.5) as (_, writer):
        writer.do_blocking(adds("before"))
        with paused(postgresql):
            asked = threads.submit(writer.do_blocking, adds("during"))
            writer.close()
            assert isinstance(asked.exception(LIMIT_S), NotDoneError)


@contextmanager
def paused(server: PrivatePostgresql) -> Iterator[None]:
    """Stop a server where it is, for a while."""
    server.pause()
    try:
        yield
    finally:
        server.go_on()


def _is_done(writer: Writer, name: str) -> bool:
    try:
        writer.do_blocking(adds(name))
    except DatabaseAwayError:
        return False
    return True


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    over = threading.Event()
    timer = threading.Timer(LIMIT_S, over.set)
    timer.start()
    try:
        while not condition():
            assert not over.wait(0.01), "the condition did not come true"
    finally:
        timer.cancel()
