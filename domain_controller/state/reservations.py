"""Reservations: a value of the core for each, saved with its holds, directives and events at once.

Whoever changes one reads it by `lock`, in the transaction that saves it: between the two nobody
else changes it. Source: docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, literal, select, tuple_, update

from packetcloud.domain_controller.core.events import ChangeEnded, Command, StateChanged
from packetcloud.domain_controller.core.life import LifeLimits, next_timeout
from packetcloud.domain_controller.core.reservations import FINAL, HOLDING, Reservation, State
from packetcloud.domain_controller.state import holds, operations, outbox
from packetcloud.domain_controller.state.documents import dump, load
from packetcloud.domain_controller.state.errors import ConflictError
from packetcloud.domain_controller.state.operations import OperationState
from packetcloud.domain_controller.state.tables import RESERVATIONS
from packetcloud.domain_controller.state.transaction import Transaction

MAX_OPEN_COUNT = 10_000
"""Reservations of one tenant that are not at their end."""
COUNTED_EVERY_MS = 10_000
"""So often a tenant's reservations are counted anew."""
MAX_LISTED_COUNT = 1000
MAX_DUE_COUNT = 256
"""Deadlines that one reading returns; ask again for the rest."""


@dataclass(slots=True)
class _Opened:
    """How many reservations of a tenant are not at their end."""

    count: int
    read_ms: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A reservation as it is kept."""

    reservation: Reservation
    version: int
    """Grows with each change."""
    made_ms: int


def add(
    transaction: Transaction,
    reservation: Reservation,
    commands: Iterable[Command],
    limits: LifeLimits,
) -> None:
    """Keep a new reservation, with what it holds and what is to be told.

    Raises:
        ConflictError: its tenant has too many.
    """
    opened = _opened(transaction, reservation.tenant)
    if opened.count >= MAX_OPEN_COUNT:
        raise ConflictError(
            f"{reservation.tenant!r} has {MAX_OPEN_COUNT} reservations that have not ended, as "
            "many as it may; cancel some, or wait until they end"
        )
    opened.count += 1
    row = _row(transaction, reservation, limits)
    row |= {"owner": reservation.tenant, "made_ms": transaction.now_ms, "version": 1}
    transaction.add(_ADD, row)
    _save_parts(transaction, None, reservation, commands)


def save(
    transaction: Transaction,
    before: Kept,
    after: Reservation,
    commands: Iterable[Command],
    limits: LifeLimits,
) -> None:
    """Keep a reservation that was changed, with what it holds and what is to be told."""
    row = _row(transaction, after, limits)
    row = {f"new_{name}": value for name, value in row.items() if name != "name"}
    changed = transaction.connection.execute(
        _SAVE, row | {"of_name": after.name, "of_version": before.version}
    )
    if changed.rowcount != 1:
        raise AssertionError(f"reservation {after.name} was saved without its lock")
    _save_parts(transaction, before.reservation, after, commands)


def lock(transaction: Transaction, name: str, owner: str | None = None) -> Kept | None:
    """Return a reservation that nobody else changes until the commit."""
    query = select(RESERVATIONS).where(RESERVATIONS.c.name == name).with_for_update()
    return _one(transaction.connection, query, owner)


def find(connection: Connection, name: str, owner: str | None = None) -> Kept | None:
    """Return a reservation; with an owner: if it is theirs."""
    return _one(connection, select(RESERVATIONS).where(RESERVATIONS.c.name == name), owner)


def listed(
    connection: Connection,
    owner: str | None = None,
    states: Collection[State] = (),
    before: tuple[int, str] | None = None,
    limit: int = MAX_LISTED_COUNT,
) -> list[Kept]:
    """Return reservations, the newest first.

    Args:
        states: only these; empty: all.
        before: (made_ms, name) of the last one that was read.
    """
    query = select(RESERVATIONS)
    if owner is not None:
        query = query.where(RESERVATIONS.c.owner == owner)
    if states:
        query = query.where(RESERVATIONS.c.state.in_([state.value for state in states]))
    if before is not None:
        here = tuple_(RESERVATIONS.c.made_ms, RESERVATIONS.c.name)
        query = query.where(here < tuple_(*map(literal, before)))
    newest_first = RESERVATIONS.c.made_ms.desc(), RESERVATIONS.c.name.desc()
    rows = connection.execute(query.order_by(*newest_first).limit(min(limit, MAX_LISTED_COUNT)))
    return [_kept(row) for row in rows]


def due(connection: Connection, now_ms: int, limit: int = MAX_DUE_COUNT) -> list[str]:
    """Return the names of reservations whose deadlines have passed, the longest ago first."""
    query = select(RESERVATIONS.c.name).where(RESERVATIONS.c.due_ms <= now_ms)
    query = query.order_by(RESERVATIONS.c.due_ms, RESERVATIONS.c.name).limit(limit)
    return list(connection.execute(query).scalars())


def next_due_ms(connection: Connection) -> int | None:
    """Return when the next deadline passes."""
    due: int | None = connection.execute(select(func.min(RESERVATIONS.c.due_ms))).scalar_one()
    return due


def open_count(connection: Connection, owner: str) -> int:
    """Return how many reservations of a tenant are not at their end."""
    query = select(func.count()).select_from(RESERVATIONS)
    final = [state.value for state in FINAL]
    in_force = (RESERVATIONS.c.owner == owner) & RESERVATIONS.c.state.not_in(final)
    return connection.execute(query.where(in_force)).scalar_one()


def serving(connection: Connection, owner: str, service: str) -> str | None:
    """Return a reservation of somebody's that has or asks for places for a service; None: none."""
    query = select(RESERVATIONS.c.document).where(
        RESERVATIONS.c.owner == owner,
        RESERVATIONS.c.state.in_([state.value for state in (State.REQUESTED, *HOLDING)]),
        RESERVATIONS.c.document.contains(f'"{service}"'),  # few have its name; these are looked at
    )
    for text in connection.execute(query).scalars():
        reservation = load(Reservation, text)
        if reservation.wish.service == service:
            return reservation.name
    return None


def _opened(transaction: Transaction, owner: str) -> _Opened:
    """Return how many are open, as of a while ago and with what was added here since.

    To count them for each request would cost more the more there are; that another controller's
    are seen late, or one that was undone is counted for a while, does no harm to a cap.
    """
    key = f"open reservations/{owner}"
    known = transaction.caches.get(key)
    if (
        not isinstance(known, _Opened)
        or known.count >= MAX_OPEN_COUNT
        or transaction.now_ms >= known.read_ms + COUNTED_EVERY_MS
    ):
        count = open_count(transaction.connection, owner)
        known = transaction.caches[key] = _Opened(count, transaction.now_ms)
    return known


def _save_parts(
    transaction: Transaction,
    before: Reservation | None,
    after: Reservation,
    commands: Iterable[Command],
) -> None:
    holds.replace(transaction, before.holds if before else (), after.holds)
    told = before.directives if before else ()
    outbox.replace(transaction, after.name, told, after.directives)
    for command in commands:
        match command:
            case StateChanged(was, now, text):
                data = json.dumps({"before": was.value, "after": now.value, "text": text})
                transaction.note("reservation", after.name, after.tenant, data)
                if before is not None and now in _ENDS_OPERATIONS:
                    # Of the operation that asked for it; a change ends by `ChangeEnded`.
                    end = _ENDS_OPERATIONS[now]
                    operations.end_of_subject(transaction, after.name, end, text)
            case ChangeEnded(operation, is_done, text):
                state = OperationState.DONE if is_done else OperationState.FAILED
                operations.end(transaction, operation, state, text)


def _row(
    transaction: Transaction, reservation: Reservation, limits: LifeLimits
) -> dict[str, object]:
    return {
        "name": reservation.name,
        "state": reservation.state.value,
        "due_ms": next_timeout(reservation, transaction.now_ms, limits),
        "document": dump(reservation),
    }


def _one(connection: Connection, query: Any, owner: str | None) -> Kept | None:
    if owner is not None:
        query = query.where(RESERVATIONS.c.owner == owner)
    row = connection.execute(query).one_or_none()
    return _kept(row) if row else None


def _kept(row: Any) -> Kept:
    return Kept(load(Reservation, row.document), row.version, row.made_ms)


_ENDS_OPERATIONS = {
    State.CONFIRMED: OperationState.DONE,
    State.REFUSED: OperationState.FAILED,
    State.EXPIRED: OperationState.FAILED,
    State.CANCELLED: OperationState.CANCELLED,
}
_ADD = insert(RESERVATIONS)
_SAVE = (
    update(RESERVATIONS)
    .where(RESERVATIONS.c.name == bindparam("of_name"))
    .where(RESERVATIONS.c.version == bindparam("of_version"))
    .values(
        state=bindparam("new_state"),
        due_ms=bindparam("new_due_ms"),
        document=bindparam("new_document"),
        version=RESERVATIONS.c.version + 1,
    )
)
