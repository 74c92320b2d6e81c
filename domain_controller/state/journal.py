"""The journal of events: numbered without gaps, each with the digest of all before it.

Numbers follow the order of commits: whoever has read up to a number has missed nothing before it.
Taking out, changing or moving an event breaks the chain at that event. `verify` says where.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from packetcloud.domain_controller.state.rows import insert_all
from packetcloud.domain_controller.state.tables import EVENTS, HEADS

HEAD = "events"
START = bytes(32)
"""The digest before the first event."""
MAX_READ_COUNT = 1000
"""Events that one reading returns."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened."""

    at_ms: int
    kind: str
    subject: str
    owner: str | None
    document: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, in its place in the journal."""

    number: int
    note: Note
    digest: bytes


def append(connection: Connection, notes: Sequence[Note]) -> None:
    """Put events at the end; holds the journal's head until the commit."""
    number, digest = _head(connection)
    rows = []
    for note in notes:
        number += 1
        digest = _digest(digest, number, note)
        rows.append(
            {
                "number": number,
                "at_ms": note.at_ms,
                "kind": note.kind,
                "subject": note.subject,
                "owner": note.owner,
                "document": note.document,
                "digest": digest,
            }
        )
    insert_all(connection, _ADD, rows)
    connection.execute(
        update(HEADS).where(HEADS.c.name == HEAD).values(number=number, digest=digest)
    )


_ADD = insert(EVENTS)


def read(
    connection: Connection,
    after: int = 0,
    *,
    owner: str | None = None,
    subject: str | None = None,
    limit: int = MAX_READ_COUNT,
) -> list[Event]:
    """Return events after a number, in order: all, or those of one owner or subject."""
    query = select(EVENTS).where(EVENTS.c.number > after)
    if owner is not None:
        query = query.where(EVENTS.c.owner == owner)
    if subject is not None:
        query = query.where(EVENTS.c.subject == subject)
    rows = connection.execute(query.order_by(EVENTS.c.number).limit(min(limit, MAX_READ_COUNT)))
    return [
        Event(row.number, Note(row.at_ms, row.kind, row.subject, row.owner, row.document), digest)
        for row in rows
        for digest in (bytes(row.digest),)
    ]


def head(connection: Connection) -> tuple[int, bytes]:
    """Return number and digest of the last event: what somebody else may note as a witness."""
    row = connection.execute(select(HEADS).where(HEADS.c.name == HEAD)).one()
    return row.number, bytes(row.digest)


def verify(connection: Connection) -> int | None:
    """Return the number of the first event that is missing or altered; None: all is right. O(n)."""
    last, last_digest = head(connection)
    expected, digest = 1, START
    for event in _all(connection):
        digest = _digest(digest, expected, event.note)
        if event.number != expected or event.digest != digest:
            return expected
        expected += 1
    return None if (expected - 1, digest) == (last, last_digest) else expected


def _all(connection: Connection) -> Iterator[Event]:
    after = 0
    while events := read(connection, after):
        yield from events
        after = events[-1].number


def _head(connection: Connection) -> tuple[int, bytes]:
    query = select(HEADS).where(HEADS.c.name == HEAD).with_for_update()
    row = connection.execute(query).one()
    return row.number, bytes(row.digest)


def _digest(before: bytes, number: int, note: Note) -> bytes:
    fields = [number, note.at_ms, note.kind, note.subject, note.owner, note.document]
    return hashlib.sha256(before + json.dumps(fields).encode()).digest()
