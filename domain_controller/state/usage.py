"""Usage: each record is stored once, counted once and posted once, in whatever order it comes.

A record that is there already changes nothing. One that differs from what is there under its
number is kept as evidence, and is not billed. A cloudlet's records are taken by its owner alone.
Source: docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, bindparam, case, func, insert, select, tuple_, update

from packetcloud.domain_controller.core.ledger import (
    Item,
    Posting,
    Tally,
    items_of,
    post_usage,
    why_not_billed,
)
from packetcloud.domain_controller.core.prices import Meter, Price
from packetcloud.domain_controller.core.quotes import Terms
from packetcloud.domain_controller.core.reservations import Reservation
from packetcloud.domain_controller.core.usage import (
    RecordSignature,
    Taken,
    UsageRecord,
)
from packetcloud.domain_controller.state.documents import load
from packetcloud.domain_controller.state.money_tables import (
    EVIDENCE,
    METERS,
    POSTINGS,
    TALLIES,
    USAGE,
)
from packetcloud.domain_controller.state.ownership import Ownership, cloudlet_channel, require
from packetcloud.domain_controller.state.rows import insert_all_new, insert_new, put_all
from packetcloud.domain_controller.state.tables import RESERVATIONS
from packetcloud.domain_controller.state.transaction import Transaction

MAX_TAKEN_COUNT = 1000
"""Records of one work: other requests wait for it, about 50 ms."""
MAX_LISTED_COUNT = 1000
_KEYS_AT_ONCE = 500

Signatures = Mapping[bytes, RecordSignature]
"""By the digest of the record."""
NO_SIGNATURES: Signatures = MappingProxyType({})
_Key = tuple[str, str, int]
"""Cloudlet, meter, number."""


def take(
    transaction: Transaction,
    channel: Ownership,
    records: Sequence[UsageRecord],
    signatures: Signatures = NO_SIGNATURES,
) -> list[Taken]:
    """Store, count and post records; return for each, in order, what became of it.

    Args:
        channel: that the cloudlet which sent them is the caller's.
        signatures: that were found right.

    Raises:
        StaleOwnerError: the cloudlet is somebody else's by now.
        ValueError: one is another cloudlet's, or there are more than `MAX_TAKEN_COUNT`.
    """
    if len(records) > MAX_TAKEN_COUNT:
        raise ValueError(f"{len(records)} records; allowed: {MAX_TAKEN_COUNT}")
    for record in records:
        if cloudlet_channel(record.cloudlet) != channel.name:
            raise ValueError(f"a record of {record.cloudlet} came by {channel.name}")
    require(transaction, channel)
    known = known_reservations(transaction.connection, {one.reservation for one in records})
    first: dict[_Key, UsageRecord] = {}
    for record in records:
        first.setdefault(_key(record), record)
    new = _insert(transaction, [first[key] for key in sorted(first)], known, signatures)
    _count(transaction, [record for key, record in first.items() if key in new], known)
    stored = _digests(transaction.connection, [key for key in first if key not in new])
    stored |= {key: first[key].digest for key in new}
    return [_outcome(transaction, record, stored, new, signatures) for record in records]


def of_owner(
    connection: Connection,
    owner: str | None = None,
    reservation: str | None = None,
    bill: int | None = None,
    after: _Key = ("", "", 0),
    limit: int = MAX_LISTED_COUNT,
) -> list[UsageRecord]:
    """Return records by (cloudlet, meter, number), after one of them.

    Args:
        bill: only those of this bill.
    """
    found = signed_of_owner(connection, owner, reservation, bill, after, limit)
    return [record for record, _ in found]


def signed_of_owner(
    connection: Connection,
    owner: str | None = None,
    reservation: str | None = None,
    bill: int | None = None,
    after: _Key = ("", "", 0),
    limit: int = MAX_LISTED_COUNT,
) -> list[tuple[UsageRecord, RecordSignature | None]]:
    """Return the same as `of_owner`, with their signatures; None: it has none."""
    here = tuple_(USAGE.c.cloudlet, USAGE.c.meter, USAGE.c.number)
    query = select(USAGE).where(here > _tuple(after))
    if owner is not None:
        query = query.where(USAGE.c.owner == owner)
    if reservation is not None:
        query = query.where(USAGE.c.reservation == reservation)
    if bill is not None:
        query = query.where(USAGE.c.bill == bill)
    query = query.order_by(USAGE.c.cloudlet, USAGE.c.meter, USAGE.c.number)
    rows = connection.execute(query.limit(min(limit, MAX_LISTED_COUNT)))
    return [
        (
            record_of(row),
            RecordSignature(bytes(row.signed_by), bytes(row.signature))
            if row.signature is not None
            else None,
        )
        for row in rows
    ]


def evidence(connection: Connection, limit: int = MAX_LISTED_COUNT) -> list[UsageRecord]:
    """Return records that differ from what was stored under their numbers, the newest first."""
    query = select(EVIDENCE.c.record).order_by(EVIDENCE.c.received_ms.desc())
    rows = connection.execute(query.limit(min(limit, MAX_LISTED_COUNT))).scalars()
    return [UsageRecord.from_bytes(bytes(record)) for record in rows]


def meters_with_gaps(connection: Connection, owner: str | None = None) -> list[tuple[str, str]]:
    """Return (cloudlet, meter) of those of which records are missing; with an owner: theirs."""
    query = select(METERS.c.cloudlet, METERS.c.meter)
    query = query.where(METERS.c.records_count < METERS.c.last_number)
    if owner is not None:
        query = query.where(METERS.c.owner == owner)
    rows = connection.execute(query.order_by(METERS.c.cloudlet, METERS.c.meter))
    return [(row.cloudlet, row.meter) for row in rows]


def has_gaps(connection: Connection, reservation: str, cloudlet: str) -> bool:
    """Tell whether records are missing before the last of a meter of a reservation there."""
    query = (
        select(USAGE.c.meter)
        .where(USAGE.c.reservation == reservation, USAGE.c.cloudlet == cloudlet)
        .group_by(USAGE.c.meter)
        .having(func.count() < func.max(USAGE.c.number))
    )
    return connection.execute(query.limit(1)).first() is not None


def numbers_of(connection: Connection, cloudlet: str, meter: str) -> list[int]:
    """Return the numbers that came in of a meter, in order: what a cloudlet need not send again."""
    query = select(USAGE.c.number).where(USAGE.c.cloudlet == cloudlet, USAGE.c.meter == meter)
    return list(connection.execute(query.order_by(USAGE.c.number)).scalars())


def balances(connection: Connection) -> dict[str, int]:
    """Return the balance of each account. Their sum is zero. O(postings)."""
    found: dict[str, int] = {}
    for account, sign in ((POSTINGS.c.debit, 1), (POSTINGS.c.credit, -1)):
        query = select(account, func.sum(POSTINGS.c.micros)).group_by(account)
        for name, micros in connection.execute(query):
            found[name] = found.get(name, 0) + sign * int(micros)
    return found


def post(transaction: Transaction, postings: Iterable[Posting]) -> None:
    """Enter postings; each reference once."""
    rows = [
        {
            "reference": one.reference,
            "debit": one.debit,
            "credit": one.credit,
            "micros": one.micros,
            "at_ms": transaction.now_ms,
        }
        for one in postings
    ]
    if rows:
        transaction.connection.execute(insert(POSTINGS), rows)


def record_of(row: Any) -> UsageRecord:
    """Return the record that a row of `USAGE` keeps."""
    return UsageRecord(
        row.cloudlet,
        row.meter,
        row.number,
        bytes(row.previous),
        row.reservation,
        row.terms,
        Meter(row.kind),
        row.begin_ms,
        row.end_ms,
        row.quantity,
    )


def terms_of(reservation: Reservation | None, number: int) -> Terms | None:
    """Return terms that were agreed on, or are asked for, by their number."""
    if reservation is None:
        return None
    asked = (reservation.change.terms,) if reservation.change is not None else ()
    return next((one for one in (*reservation.terms, *asked) if one.number == number), None)


def _insert(
    transaction: Transaction,
    records: Sequence[UsageRecord],
    known: Mapping[str, Reservation],
    signatures: Signatures,
) -> set[_Key]:
    rows = [
        _row(record, known.get(record.reservation), transaction.now_ms)
        | _signature_columns(record, signatures)
        for record in records
    ]
    keys = ("cloudlet", "meter", "number")
    return {
        (cloudlet, meter, number)
        for cloudlet, meter, number in insert_all_new(transaction.connection, USAGE, rows, keys)
    }


def _count(
    transaction: Transaction,
    records: Sequence[UsageRecord],
    known: Mapping[str, Reservation],
) -> None:
    """Count and post records that are new."""
    agreed = {
        (record.reservation, record.terms): terms_of(known.get(record.reservation), record.terms)
        for record in records
    }
    items = {
        item
        for record in records
        for item, _, _ in items_of(record, agreed[record.reservation, record.terms])
    }
    before, billed = _tallies(transaction.connection, sorted(items))
    tally = Tally(before)
    postings = []
    meters: dict[tuple[str, str], list[Any]] = {}
    for record in records:
        reservation = known.get(record.reservation)
        of_meter = meters.setdefault((record.cloudlet, record.meter), [None, 0, 0])
        of_meter[0] = reservation.tenant if reservation is not None else None
        of_meter[1] += 1
        of_meter[2] = max(of_meter[2], record.number)
        if reservation is None:
            continue
        terms = agreed[record.reservation, record.terms]
        posting = post_usage(record, terms, reservation.tenant, tally)
        if posting is not None:
            postings.append(posting)
    post(transaction, postings)
    _put_tallies(transaction.connection, tally, billed)
    _put_meters(transaction.connection, meters)


def _tallies(
    connection: Connection, items: Sequence[Item]
) -> tuple[dict[Item, tuple[int, Price]], dict[Item, int]]:
    found: dict[Item, tuple[int, Price]] = {}
    billed: dict[Item, int] = {}
    here = tuple_(*_ITEM)
    for start in range(0, len(items), _KEYS_AT_ONCE):
        some = items[start : start + _KEYS_AT_ONCE]
        for row in connection.execute(select(TALLIES).where(here.in_(some)).with_for_update()):
            item = (row.reservation, row.cloudlet, row.terms, row.meter, row.band)
            found[item] = (row.quantity, Price(row.price_micros, row.price_units))
            billed[item] = row.billed
    return found, billed


def _put_tallies(connection: Connection, tally: Tally, billed: Mapping[Item, int]) -> None:
    rows = [
        {
            "reservation": item[0],
            "cloudlet": item[1],
            "terms": item[2],
            "meter": item[3],
            "band": item[4],
            "quantity": quantity,
            "billed": billed.get(item, 0),
            "price_micros": price.micros,
            "price_units": price.units,
        }
        for item, (quantity, price) in sorted(tally.items.items())
    ]
    put_all(connection, TALLIES, rows)


def _put_meters(connection: Connection, meters: Mapping[tuple[str, str], Sequence[Any]]) -> None:
    for (cloudlet, meter), (owner, count, last) in sorted(meters.items()):
        key = {"cl": cloudlet, "m": meter}
        row = {"owner": owner, "records_count": count, "last_number": last}
        if not insert_new(connection, METERS, {"cloudlet": cloudlet, "meter": meter, **row}):
            connection.execute(_COUNT_METER, key | {"n": count, "last": last})


def known_reservations(connection: Connection, names: set[str]) -> dict[str, Reservation]:
    """Return those of these reservations that there are, by name."""
    found: dict[str, Reservation] = {}
    wanted = sorted(names)
    for start in range(0, len(wanted), _KEYS_AT_ONCE):
        some = wanted[start : start + _KEYS_AT_ONCE]
        query = select(RESERVATIONS.c.document).where(RESERVATIONS.c.name.in_(some))
        for text in connection.execute(query).scalars():
            reservation = load(Reservation, text)
            found[reservation.name] = reservation
    return found


def _digests(connection: Connection, keys: Sequence[_Key]) -> dict[_Key, bytes]:
    found: dict[_Key, bytes] = {}
    here = tuple_(USAGE.c.cloudlet, USAGE.c.meter, USAGE.c.number)
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        query = select(USAGE.c.cloudlet, USAGE.c.meter, USAGE.c.number, USAGE.c.digest)
        for row in connection.execute(query.where(here.in_(some))):
            found[row.cloudlet, row.meter, row.number] = bytes(row.digest)
    return found


def _outcome(
    transaction: Transaction,
    record: UsageRecord,
    stored: Mapping[_Key, bytes],
    new: set[_Key],
    signatures: Signatures,
) -> Taken:
    key = _key(record)
    if stored[key] != record.digest:
        row = {
            "cloudlet": record.cloudlet,
            "meter": record.meter,
            "number": record.number,
            "digest": record.digest,
            "record": record.to_bytes(),
            "received_ms": transaction.now_ms,
            **_signature_columns(record, signatures),
        }
        insert_new(transaction.connection, EVIDENCE, row)
        return Taken.DIFFERENT
    if key in new:
        new.discard(key)  # the same record twice in one call is new once
        return Taken.NEW
    return Taken.AGAIN


def _row(record: UsageRecord, reservation: Reservation | None, now_ms: int) -> dict[str, Any]:
    why = why_not_billed(record, terms_of(reservation, record.terms))
    return {
        "cloudlet": record.cloudlet,
        "meter": record.meter,
        "number": record.number,
        "previous": record.previous,
        "digest": record.digest,
        "reservation": record.reservation,
        "terms": record.terms,
        "kind": record.kind.value,
        "begin_ms": record.begin_ms,
        "end_ms": record.end_ms,
        "quantity": record.quantity,
        "received_ms": now_ms,
        "owner": reservation.tenant if reservation is not None else None,
        "not_billed": why.value if why is not None else None,
    }


def _signature_columns(record: UsageRecord, signatures: Signatures) -> dict[str, Any]:
    found = signatures.get(record.digest) if signatures else None
    return {
        "signature": found.signature if found is not None else None,
        "signed_by": found.public_key if found is not None else None,
    }


def _key(record: UsageRecord) -> _Key:
    return record.cloudlet, record.meter, record.number


def _tuple(key: _Key) -> Any:
    return tuple_(*(bindparam(None, value) for value in key))


_ITEM = [TALLIES.c[name] for name in ("reservation", "cloudlet", "terms", "meter", "band")]
_COUNT_METER = (
    update(METERS)
    .where(METERS.c.cloudlet == bindparam("cl"), METERS.c.meter == bindparam("m"))
    .values(
        records_count=METERS.c.records_count + bindparam("n"),
        last_number=case(
            (METERS.c.last_number < bindparam("last"), bindparam("last")),
            else_=METERS.c.last_number,
        ),
    )
)
