"""One transaction of the writer: what a request's work may use while it is its turn.

Works of one batch share the transaction, and each can be undone alone. What all of them say is
written once, just before the commit: rows that are only added, events into the journal, and how far
each cloudlet's holds have changed. So most works need no statement of their own, and no savepoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, select, update

from packetcloud.domain_controller.state.failures import CollidedError, concerns_all
from packetcloud.domain_controller.state.journal import Note, append
from packetcloud.domain_controller.state.rows import Row, insert_all
from packetcloud.domain_controller.state.tables import CLOUDLETS, METADATA

T = TypeVar("T")


@dataclass(slots=True)
class Transaction:
    """What a work writes by. Never kept beyond the work."""

    _connection: Connection
    now_ms: int
    caches: dict[str, object] = field(default_factory=dict)
    """What is known by heart: by cloudlet, what it holds as of its last change."""
    is_eager: bool = False
    """Rows are added as soon as a work says so, for a row that the database refuses to be the
    fault of that work alone."""
    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    """What was looked up for the whole batch: see `state.answers`."""
    _rows: list[tuple[Any, Row]] = field(default_factory=list)
    """Statements with their rows, to be written before anything else is asked."""
    _begun_count: int | None = None
    """How many rows there were when the present work began; None: no work is under way."""
    _has_savepoint: bool = False
    _notes: list[Note] = field(default_factory=list)
    _changes: dict[str, int] = field(default_factory=dict)
    _moved: set[str] = field(default_factory=set)

    @property
    def dialect(self) -> str:
        """The name of the database's kind, as SQLAlchemy has it."""
        return self._connection.dialect.name

    @property
    def connection(self) -> Connection:
        """What a work reads and writes by itself; all that was added before is there."""
        if self._begun_count is not None and not self._has_savepoint:
            self._write(self._rows[: self._begun_count])
            del self._rows[: self._begun_count]
            self._begun_count = 0
            self._connection.exec_driver_sql("SAVEPOINT work")
            self._has_savepoint = True
        self._write(self._rows)
        self._rows.clear()
        return self._connection

    def add(self, statement: Any, row: Row) -> None:
        """Have a row inserted before the commit, together with others of the same statement.

        Only what cannot be refused: the key is new, or the statement says what to do where it is
        not. A statement whose rows are not all new makes the whole batch be done again.
        """
        self._rows.append((statement, row))
        if self.is_eager:
            _ = self.connection

    def note(self, kind: str, subject: str, owner: str | None, document: str) -> None:
        """Put an event into the journal.

        Args:
            owner: whose event it is; None: the domain's own.
        """
        self._notes.append(Note(self.now_ms, kind, subject, owner, document))

    def lock(self, cloudlets: Iterable[str]) -> dict[str, int]:
        """Let nobody else change what these cloudlets hold until the commit.

        Returns how far the holds of each have changed; without what does not exist. Locks are
        taken by name; a batch that asks for its cloudlets first waits for nobody in a circle.
        """
        wanted = set(cloudlets)
        lacking = sorted(wanted - self._changes.keys())
        if lacking:
            rows = self._connection.execute(_LOCK, {"names": lacking})
            self._changes.update((name, change) for name, change in rows)
        return {name: self._changes[name] for name in wanted if name in self._changes}

    def next_change(self, cloudlet: str) -> int:
        """Return the number for a change of a hold of a cloudlet, which is locked."""
        self._changes[cloudlet] += 1
        self._moved.add(cloudlet)
        return self._changes[cloudlet]

    @contextmanager
    def work(self) -> Iterator[None]:
        """Undo what happens within if it raises."""
        notes_count, changes, moved = len(self._notes), dict(self._changes), set(self._moved)
        answers = dict(self.answers)
        self._begun_count = len(self._rows)
        try:
            yield
        except BaseException as error:  # whatever it was, what it had written goes
            if concerns_all(error):  # there is no savepoint any more to go back to
                self._has_savepoint = False
                raise
            for name, change in self._changes.items():
                if changes.get(name) != change:
                    self.caches.pop(name, None)
            if self._has_savepoint:
                self._connection.exec_driver_sql("ROLLBACK TO SAVEPOINT work")
            del self._rows[self._begun_count :]
            del self._notes[notes_count:]
            self._changes, self._moved, self.answers = changes, moved, answers
            raise
        finally:
            self._end_work()

    def finish(self) -> None:
        """Write what all works said. The journal comes last: its head is one row for everybody."""
        self._write(self._rows)
        self._rows.clear()
        if self._moved:
            rows = [{"n": name, "c": self._changes[name]} for name in sorted(self._moved)]
            self._connection.execute(_MOVE, rows)
        if self._notes:
            append(self._connection, self._notes)

    def _end_work(self) -> None:
        self._begun_count = None
        if self._has_savepoint:
            self._has_savepoint = False
            self._connection.exec_driver_sql("RELEASE SAVEPOINT work")

    def _write(self, rows: Iterable[tuple[Any, Row]]) -> None:
        """Insert rows, those first which others point to."""
        by_statement: dict[Any, list[Row]] = {}
        for statement, row in rows:
            by_statement.setdefault(statement, []).append(row)
        for statement in sorted(by_statement, key=lambda one: _ORDER[one.table.name]):
            some = by_statement[statement]
            if insert_all(self._connection, statement, some) != len(some):
                raise CollidedError(f"a row of {statement.table.name} is another controller's")


Work = Callable[[Transaction], T]
"""What one request writes. It may run more than once, so it changes nothing but the database."""

_ORDER = {table.name: number for number, table in enumerate(METADATA.sorted_tables)}
_LOCK = (
    select(CLOUDLETS.c.name, CLOUDLETS.c.change)
    .where(CLOUDLETS.c.name.in_(bindparam("names", expanding=True)))
    .order_by(CLOUDLETS.c.name)
    .with_for_update()  # SQLite has no such words: there the transaction has the whole file
)
_MOVE = update(CLOUDLETS).where(CLOUDLETS.c.name == bindparam("n")).values(change=bindparam("c"))
