"""Sets of rules for cloudlets: a row for each pair, sent by the owner until it is answered.

What a cloudlet is to have of a set is the newest document of it, so a row needs no more than its
serial. Sending, and noting what was said, depend on the owner's epoch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, update

from packetcloud.domain_controller.core.installations import (
    MAX_SETS_AT_CLOUDLET_COUNT,
    RulesState,
    SetState,
    Told,
    heard,
)
from packetcloud.domain_controller.state.documents import dump, load
from packetcloud.domain_controller.state.errors import ConflictError
from packetcloud.domain_controller.state.ownership import Ownership, require
from packetcloud.domain_controller.state.rows import put_all
from packetcloud.domain_controller.state.tables import RULE_DIRECTIVES, RULE_SETS
from packetcloud.domain_controller.state.transaction import Transaction

MAX_SENT_COUNT = 4
"""Documents that one reading returns: of up to a megabyte each."""
KEPT_MS = 3_600_000
"""Rows of a set whose rules are all over are kept for so long, as routers keep such rules."""
_ROWS = RULE_DIRECTIVES.c


@dataclass(frozen=True, slots=True)
class Document:
    """A set as it is sent."""

    rule_set: str
    signer: str
    name: str
    serial: int
    until_ms: int | None
    text: str


@dataclass(frozen=True, slots=True)
class AtCloudlet:
    """How far a set is at one cloudlet."""

    cloudlet: str
    told: Told
    changed_ms: int


def want(transaction: Transaction, rule_set: str, serial: int, cloudlets: Collection[str]) -> None:
    """Have cloudlets be told of a document of a set.

    Raises:
        ConflictError: one of them has as many sets as it may.
    """
    counts = (
        select(_ROWS.cloudlet, func.count())
        .where(_ROWS.rule_set != rule_set)
        .group_by(_ROWS.cloudlet)
        .having(func.count() >= MAX_SETS_AT_CLOUDLET_COUNT)
    )
    full = {row[0] for row in transaction.connection.execute(counts)} & set(cloudlets)
    if full:
        raise ConflictError(
            f"cloudlet {min(full)!r} has {MAX_SETS_AT_CLOUDLET_COUNT} sets of rules, as many as it "
            "may; put more rules into one set"
        )
    rows = [_new_row(transaction, one, rule_set, serial) for one in sorted(cloudlets)]
    put_all(transaction.connection, RULE_DIRECTIVES, rows)


def want_all(transaction: Transaction, cloudlet: str, serials: Mapping[str, int]) -> None:
    """Have a new cloudlet be told of sets."""
    some = sorted(serials.items())[:MAX_SETS_AT_CLOUDLET_COUNT]
    rows = [_new_row(transaction, cloudlet, rule_set, serial) for rule_set, serial in some]
    put_all(transaction.connection, RULE_DIRECTIVES, rows)


def cloudlets_of(connection: Connection, rule_set: str) -> frozenset[str]:
    """Return the cloudlets that a set was given to."""
    query = select(_ROWS.cloudlet).where(_ROWS.rule_set == rule_set)
    return frozenset(connection.execute(query).scalars())


def waiting(connection: Connection, sent_before_ms: int) -> frozenset[str]:
    """Return which cloudlets have a set that waits for its answer."""
    query = select(_ROWS.cloudlet).distinct().where(*_due(sent_before_ms))
    return frozenset(connection.execute(query).scalars())


def send(
    transaction: Transaction, owner: Ownership, cloudlet: str, sent_before_ms: int
) -> list[Document]:
    """Return what a cloudlet is to be sent now, noted as sent.

    Raises:
        StaleOwnerError: another controller owns the cloudlet.
    """
    connection = transaction.connection
    sets = RULE_SETS.c
    query = (
        select(_ROWS.rule_set, sets.signer, sets.name, sets.serial, sets.until_ms, sets.text)
        .join(RULE_SETS, sets.id == _ROWS.rule_set)
        .where(_ROWS.cloudlet == cloudlet, *_due(sent_before_ms))
        .order_by(_ROWS.changed_ms, _ROWS.rule_set)
        .limit(MAX_SENT_COUNT)
    )
    found = [Document(*row) for row in connection.execute(query)]
    if found:
        require(transaction, owner)
        names = [one.rule_set for one in found]
        connection.execute(
            update(RULE_DIRECTIVES)
            .where(_ROWS.cloudlet == cloudlet, _ROWS.rule_set.in_(names))
            .values(sent_ms=transaction.now_ms, epoch=owner.epoch)
        )
    return found


def hear(
    transaction: Transaction,
    owner: Ownership,
    cloudlet: str,
    said: Iterable[SetState],
    *,
    is_whole: bool,
) -> Counter[RulesState]:
    """Note what a cloudlet says of sets; return how many of its sets are in which state.

    Args:
        is_whole: it has no others.

    Raises:
        StaleOwnerError: another controller owns the cloudlet.
    """
    require(transaction, owner)
    by_set = {one.rule_set: one for one in said}
    states: Counter[RulesState] = Counter()
    for row in transaction.connection.execute(_OF_CLOUDLET, {"cloudlet": cloudlet}).all():
        before = _told(row)
        after = before
        if is_whole or row.rule_set in by_set:
            after = heard(before, by_set.get(row.rule_set), is_whole=is_whole)
        states[after.state] += 1
        if after != before:
            _put(transaction, cloudlet, after, is_new=after.state is not before.state)
            _note(transaction, cloudlet, row.owner, before, after)
    return states


def states(connection: Connection, rule_set: str) -> list[AtCloudlet]:
    """Return how far a set is at each cloudlet, by name."""
    query = select(RULE_DIRECTIVES).where(_ROWS.rule_set == rule_set).order_by(_ROWS.cloudlet)
    return [
        AtCloudlet(row.cloudlet, _told(row), row.changed_ms) for row in connection.execute(query)
    ]


def counts(connection: Connection, rule_sets: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return at how many cloudlets each of these sets is in which state."""
    query = (
        select(_ROWS.rule_set, _ROWS.state, func.count())
        .where(_ROWS.rule_set.in_(rule_sets))
        .group_by(_ROWS.rule_set, _ROWS.state)
        .order_by(_ROWS.rule_set, _ROWS.state)
    )
    found: dict[str, dict[str, int]] = {one: {} for one in rule_sets}
    for rule_set, state, count in connection.execute(query):
        found[rule_set][state] = count
    return found


def forget_ended(transaction: Transaction) -> int:
    """Forget what cloudlets are to have of sets whose rules are all over; return how many rows."""
    ended = select(RULE_SETS.c.id).where(RULE_SETS.c.until_ms < transaction.now_ms - KEPT_MS)
    gone = delete(RULE_DIRECTIVES).where(_ROWS.rule_set.in_(ended))
    return transaction.connection.execute(gone).rowcount


_OF_CLOUDLET = (
    select(RULE_DIRECTIVES, RULE_SETS.c.owner)
    .join(RULE_SETS, RULE_SETS.c.id == _ROWS.rule_set)
    .where(_ROWS.cloudlet == bindparam("cloudlet"))
    .order_by(_ROWS.rule_set)
)


def _due(sent_before_ms: int) -> tuple[Any, Any]:
    is_due = _ROWS.sent_ms.is_(None) | (_ROWS.sent_ms < sent_before_ms)
    return _ROWS.is_answered.is_(False), is_due


def _new_row(transaction: Transaction, cloudlet: str, rule_set: str, serial: int) -> dict[str, Any]:
    return {
        "cloudlet": cloudlet,
        "rule_set": rule_set,
        "serial": serial,
        "is_answered": False,
        "state": RulesState.PENDING.value,
        "changed_ms": transaction.now_ms,
        "epoch": None,
        "sent_ms": None,
        "document": "",
    }


def _told(row: Any) -> Told:
    said = load(SetState, row.document) if row.document else None
    return Told(row.rule_set, row.serial, row.is_answered, said)


def _put(transaction: Transaction, cloudlet: str, told: Told, *, is_new: bool) -> None:
    values: dict[str, Any] = {
        "is_answered": told.is_answered,
        "state": told.state.value,
        "document": "" if told.said is None else dump(told.said),
    }
    if is_new:
        values["changed_ms"] = transaction.now_ms
    transaction.connection.execute(
        update(RULE_DIRECTIVES)
        .where(_ROWS.cloudlet == cloudlet, _ROWS.rule_set == told.rule_set)
        .values(**values)
    )


def _note(transaction: Transaction, cloudlet: str, owner: str, before: Told, after: Told) -> None:
    """Put into the journal what became of a set, but not that it is on its way."""
    said = after.said
    on_its_way = (RulesState.PENDING, RulesState.WAITING)
    if after.state in on_its_way and before.state in on_its_way:
        return
    if said is None or _gist(before) == _gist(after):
        return
    change = {
        "cloudlet": cloudlet,
        "serial": said.serial,
        "state": after.state.value,
        "accepted": said.accepted_count,
        "refused": said.refused_count,
        "revoked": said.revoked_count,
        "text": said.text,
    }
    document = json.dumps(change, separators=(",", ":"))
    transaction.note("rules-state", after.rule_set, owner, document)


def _gist(told: Told) -> tuple[object, ...]:
    said = told.said
    if said is None:
        return (told.state,)
    return told.state, said.serial, said.accepted_count, said.refused_count, said.revoked_count
