"""Holds: what is taken of a cloudlet, from when to when. The check and its insert cannot part.

A cloudlet is locked before its holds are looked at, until the commit. What it holds is known by
heart, with the number of the last change: if that is what the locked row says, nothing was changed
by another controller, and if not, what changed is read. So a check costs no query that grows with
what is held. Source: docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from packetcloud.domain_controller.core.calendar import Calendar, Hold
from packetcloud.domain_controller.core.packing import NodeRoom
from packetcloud.domain_controller.core.resources import ViType
from packetcloud.domain_controller.state.errors import ConflictError
from packetcloud.domain_controller.state.tables import HOLDS
from packetcloud.domain_controller.state.transaction import Transaction

PRUNE_EVERY_MS = 3600 * 1000
"""What is over is forgotten by heart so often; it stays in the table."""


class Held:
    """What one cloudlet holds, as of its last change. Changed by `replace` alone."""

    def __init__(self, cloudlet: str) -> None:
        self.cloudlet = cloudlet
        self.change = -1
        self._holds: dict[int, Hold] = {}
        self._numbers: dict[Hold, list[int]] = {}
        self._types: Mapping[str, ViType] = {}
        self._calendar: Calendar | None = None
        self._pruned_ms = 0

    def calendar(self, rooms: Sequence[NodeRoom], types: Mapping[str, ViType]) -> Calendar:
        """Return its calendar for these nodes and VI types; do not keep it beyond the work."""
        if self._calendar is None or (types is not self._types and types != self._types):
            self._types = types
            self._calendar = Calendar(rooms, types, self._holds.values())
        self._calendar.change_rooms(rooms)
        return self._calendar

    def holds(self) -> list[Hold]:
        """Return what is held, in no order. O(holds)."""
        return list(self._holds.values())

    def number_of(self, hold: Hold) -> int | None:
        """Return the number of one such hold; None: there is none."""
        numbers = self._numbers.get(hold)
        return numbers[-1] if numbers else None

    def put(self, number: int, hold: Hold) -> None:
        self._holds[number] = hold
        self._numbers.setdefault(hold, []).append(number)
        if self._calendar is not None and hold.vi_type in self._types:
            self._calendar.add(hold)
        else:
            self._calendar = None  # made anew with the types of whoever asks next

    def drop(self, number: int) -> None:
        hold = self._holds.pop(number, None)
        if hold is None:
            return
        self._numbers[hold].remove(number)
        if not self._numbers[hold]:
            del self._numbers[hold]
        if self._calendar is not None:
            self._calendar.remove(hold)

    def prune(self, now_ms: int) -> None:
        """Forget what is over."""
        if now_ms < self._pruned_ms + PRUNE_EVERY_MS:
            return
        self._pruned_ms = now_ms
        for number in [number for number, hold in self._holds.items() if hold.end_ms <= now_ms]:
            self.drop(number)


def held(transaction: Transaction, cloudlet: str) -> Held:
    """Lock a cloudlet, and return what it holds now and later.

    Raises:
        ConflictError: there is no such cloudlet.
    """
    change = transaction.lock([cloudlet]).get(cloudlet)
    if change is None:
        raise ConflictError(f"there is no cloudlet {cloudlet!r}; see: packetcloud cloudlet list")
    known = transaction.caches.get(cloudlet)
    if not isinstance(known, Held) or known.change > change:
        known = Held(cloudlet)
        transaction.caches[cloudlet] = known
    if known.change != change:
        _catch_up(transaction, known)
        known.change = change
    known.prune(transaction.now_ms)
    return known


def replace(transaction: Transaction, before: Iterable[Hold], after: Iterable[Hold]) -> None:
    """Hold what is in `after` in place of what is in `before`; what is in both stays.

    That it fits is the caller's to see, in this same transaction.
    """
    old, new = Counter(before), Counter(after)
    gone, made = sorted((old - new).elements()), sorted((new - old).elements())
    transaction.lock({hold.cloudlet for hold in (*gone, *made)})
    for hold in gone:
        known = held(transaction, hold.cloudlet)
        number = known.number_of(hold)
        if number is None:
            continue  # it is over, and nobody's any more
        known.change = transaction.next_change(hold.cloudlet)
        known.drop(number)
        key = {"cl": hold.cloudlet, "n": number, "ch": known.change}
        transaction.connection.execute(_RELEASE, key)
    for hold in made:
        known = held(transaction, hold.cloudlet)
        known.change = transaction.next_change(hold.cloudlet)
        known.put(known.change, hold)
        transaction.add(_ADD, _row(hold, known.change))


def of_reservation(connection: Connection, reservation: str) -> list[Hold]:
    """Return what a reservation holds, on all cloudlets, by time."""
    query = select(HOLDS).where(HOLDS.c.reservation == reservation, HOLDS.c.is_released.is_(False))
    rows = connection.execute(query.order_by(HOLDS.c.begin_ms, HOLDS.c.cloudlet))
    return [_hold(row) for row in rows]


def of_cloudlet(connection: Connection, cloudlet: str, after_ms: int) -> list[Hold]:
    """Return what a cloudlet holds after a time, by time: for readers, who lock nothing."""
    query = select(HOLDS).where(HOLDS.c.cloudlet == cloudlet, HOLDS.c.is_released.is_(False))
    rows = connection.execute(query.where(HOLDS.c.end_ms > after_ms).order_by(HOLDS.c.begin_ms))
    return [_hold(row) for row in rows]


def _catch_up(transaction: Transaction, known: Held) -> None:
    """Read what changed since; of what is over nothing is needed."""
    query = select(HOLDS).where(HOLDS.c.cloudlet == known.cloudlet)
    query = query.where(HOLDS.c.change > known.change, HOLDS.c.end_ms > transaction.now_ms)
    if known.change < 0:
        query = query.where(HOLDS.c.is_released.is_(False))
    for row in transaction.connection.execute(query):
        if row.is_released:
            known.drop(row.number)
        else:
            known.put(row.number, _hold(row))


def _hold(row: Any) -> Hold:
    return Hold(
        row.cloudlet,
        row.reservation,
        row.owner,
        row.begin_ms,
        row.end_ms,
        row.vi_type,
        row.vis_count,
        row.is_third_party,
    )


def _row(hold: Hold, number: int) -> dict[str, Any]:
    return {
        "cloudlet": hold.cloudlet,
        "number": number,
        "reservation": hold.reservation,
        "owner": hold.tenant,
        "is_third_party": hold.is_third_party,
        "begin_ms": hold.begin_ms,
        "end_ms": hold.end_ms,
        "vi_type": hold.vi_type,
        "vis_count": hold.count,
        "change": number,
    }


_ADD = insert(HOLDS)
_RELEASE = (
    update(HOLDS)
    .where(HOLDS.c.cloudlet == bindparam("cl"), HOLDS.c.number == bindparam("n"))
    .values(is_released=True, change=bindparam("ch"))
)
