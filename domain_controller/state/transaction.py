"""One transaction of the writer: what a request's work may use while it is its turn.

Works of one batch share the transaction, each in a savepoint of its own. What all of them say is
written once, just before the commit: events into the journal, and how far each cloudlet's holds
have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Connection, bindparam, select, update

from packetcloud.domain_controller.state.failures import concerns_all
from packetcloud.domain_controller.state.journal import Note, append
from packetcloud.domain_controller.state.tables import CLOUDLETS

T = TypeVar("T")


class CollidedError(Exception):
    """Another controller wrote the same row first: the work is done again, and sees it."""


@dataclass(slots=True)
class Transaction:
    """What a work writes by. Never kept beyond the work."""

    connection: Connection
    now_ms: int
    caches: dict[str, object] = field(default_factory=dict)
    """What is known by heart: by cloudlet, what it holds as of its last change."""
    _notes: list[Note] = field(default_factory=list)
    _changes: dict[str, int] = field(default_factory=dict)
    _moved: set[str] = field(default_factory=set)

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
            rows = self.connection.execute(_LOCK, {"names": lacking})
            self._changes.update((name, change) for name, change in rows)
        return {name: self._changes[name] for name in wanted if name in self._changes}

    def next_change(self, cloudlet: str) -> int:
        """Return the number for a change of a hold of a cloudlet, which is locked."""
        self._changes[cloudlet] += 1
        self._moved.add(cloudlet)
        return self._changes[cloudlet]

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what happens within if it raises."""
        notes_count, changes, moved = len(self._notes), dict(self._changes), set(self._moved)
        self.connection.exec_driver_sql("SAVEPOINT work")
        try:
            yield
        except BaseException as error:  # whatever it was, what it had written goes
            if concerns_all(error):  # there is no savepoint any more to go back to
                raise
            for name, change in self._changes.items():
                if changes.get(name) != change:
                    self.caches.pop(name, None)
            self.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT work")
            self.connection.exec_driver_sql("RELEASE SAVEPOINT work")
            del self._notes[notes_count:]
            self._changes, self._moved = changes, moved
            raise
        self.connection.exec_driver_sql("RELEASE SAVEPOINT work")

    def finish(self) -> None:
        """Write what all works said. The journal comes last: its head is one row for everybody."""
        if self._moved:
            rows = [{"n": name, "c": self._changes[name]} for name in sorted(self._moved)]
            self.connection.execute(_MOVE, rows)
        if self._notes:
            append(self.connection, self._notes)


Work = Callable[[Transaction], T]
"""What one request writes. It may run more than once, so it changes nothing but the database."""

_LOCK = (
    select(CLOUDLETS.c.name, CLOUDLETS.c.change)
    .where(CLOUDLETS.c.name.in_(bindparam("names", expanding=True)))
    .order_by(CLOUDLETS.c.name)
    .with_for_update()  # SQLite has no such words: there the transaction has the whole file
)
_MOVE = update(CLOUDLETS).where(CLOUDLETS.c.name == bindparam("n")).values(change=bindparam("c"))
