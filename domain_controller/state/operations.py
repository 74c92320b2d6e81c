"""Operations: what was asked for and takes its time, so that it can be watched and cancelled.

An operation runs until it is done, failed or cancelled, and is never changed afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from packetcloud.domain_controller.state.tables import OPERATIONS
from packetcloud.domain_controller.state.transaction import Transaction

KEPT_MS = 30 * 24 * 3600 * 1000
"""So long an operation that has ended can be looked at."""


class OperationState(StrEnum):
    """How an operation stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that was asked for and takes its time."""

    id: str
    owner: str | None
    kind: str
    subject: str
    state: OperationState
    text: str
    """Why it failed."""
    made_ms: int
    changed_ms: int


def begin(
    transaction: Transaction,
    id_: str,
    owner: str | None,
    kind: str,
    subject: str,
    state: OperationState = OperationState.RUNNING,
    text: str = "",
) -> Operation:
    """Begin an operation under an id that nothing else has; it may have ended already."""
    now_ms = transaction.now_ms
    made = Operation(id_, owner, kind, subject, state, text, now_ms, now_ms)
    row = {name: getattr(made, name) for name in Operation.__dataclass_fields__}
    transaction.add(_ADD, row | {"state": made.state.value})
    return made


def end(transaction: Transaction, id_: str, state: OperationState, text: str = "") -> bool:
    """End an operation; tell whether it was still running."""
    done = transaction.connection.execute(
        update(OPERATIONS)
        .where(OPERATIONS.c.id == id_, OPERATIONS.c.state == OperationState.RUNNING.value)
        .values(state=state.value, text=text, changed_ms=transaction.now_ms)
    )
    return done.rowcount == 1


def end_of_subject(
    transaction: Transaction, subject: str, state: OperationState, text: str = ""
) -> int:
    """End all operations that run about something; return how many did."""
    of_subject = OPERATIONS.c.subject == subject
    done = transaction.connection.execute(
        update(OPERATIONS)
        .where(of_subject, OPERATIONS.c.state == OperationState.RUNNING.value)
        .values(state=state.value, text=text, changed_ms=transaction.now_ms)
    )
    return done.rowcount


def find(connection: Connection, id_: str, owner: str | None = None) -> Operation | None:
    """Return an operation; with an owner: if it is theirs."""
    row = connection.execute(_FIND, {"i": id_}).one_or_none()
    if row is None or owner not in (None, row.owner):
        return None
    return _operation(row)


def last_of(connection: Connection, subject: str) -> Operation | None:
    """Return the last operation about something."""
    query = select(OPERATIONS).where(OPERATIONS.c.subject == subject)
    newest_first = OPERATIONS.c.made_ms.desc(), OPERATIONS.c.id.desc()
    row = connection.execute(query.order_by(*newest_first).limit(1)).one_or_none()
    return _operation(row) if row else None


def forget_old(transaction: Transaction) -> int:
    """Forget operations that ended long ago; return how many."""
    old = delete(OPERATIONS).where(
        OPERATIONS.c.state != OperationState.RUNNING.value,
        OPERATIONS.c.changed_ms < transaction.now_ms - KEPT_MS,
    )
    return transaction.connection.execute(old).rowcount


def _operation(row: Any) -> Operation:
    return Operation(
        row.id,
        row.owner,
        row.kind,
        row.subject,
        OperationState(row.state),
        row.text,
        row.made_ms,
        row.changed_ms,
    )


_ADD = insert(OPERATIONS)
_FIND = select(OPERATIONS).where(OPERATIONS.c.id == bindparam("i"))
