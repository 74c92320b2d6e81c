"""Bills: made from a reading of the records, closed in one transaction that sees nothing changed.

Making a bill of a million records takes its time, so it is done beside the writer. Closing marks
the same records as billed; if there are more or fewer of them by then, nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from packetcloud.domain_controller.core.bills import Bill, make_bill
from packetcloud.domain_controller.core.ledger import Item, NotBilled
from packetcloud.domain_controller.core.money import Currency
from packetcloud.domain_controller.core.quotes import Terms
from packetcloud.domain_controller.core.reservations import Reservation
from packetcloud.domain_controller.core.usage import UsageRecord
from packetcloud.domain_controller.state.documents import dump, load
from packetcloud.domain_controller.state.errors import ConflictError
from packetcloud.domain_controller.state.money_tables import BILLS, TALLIES, USAGE
from packetcloud.domain_controller.state.tables import RESERVATIONS
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.usage import post, record_of

MAX_LISTED_COUNT = 1000
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Draft:
    """A bill that is not closed yet."""

    bill: Bill
    records_count: int


def draft(connection: Connection, owner: str, period: tuple[int, int], currency: Currency) -> Draft:
    """Return the bill of everything that is on no bill yet and was used before the period's end.

    `connection` sees one state: `Database.reading`. Cost: O(records).
    """
    last = last_bill(connection, owner)
    count = 0

    terms_unknown: set[bytes] = set()

    def records() -> Iterator[UsageRecord]:
        nonlocal count
        query = select(USAGE).where(_unbilled(owner, period[1]))
        rows = connection.execute(query.execution_options(yield_per=_ROWS_AT_ONCE))
        for row in rows:
            count += 1
            if row.not_billed == NotBilled.NO_TERMS:
                terms_unknown.add(bytes(row.digest))
            yield record_of(row)

    bill = make_bill(
        owner,
        period,
        currency,
        records(),
        agreed_terms(connection, owner),
        last,
        _billed(connection, owner),
        terms_unknown,
    )
    return Draft(bill, count)


def close(transaction: Transaction, made: Draft) -> None:
    """Keep a bill, and mark what is on it.

    Raises:
        ConflictError: records came in, or another bill was closed, since it was made.
    """
    connection, bill = transaction.connection, made.bill
    last = last_bill(connection, bill.tenant)
    if (last.digest if last is not None else None) != (bill.previous if bill.number > 1 else None):
        raise ConflictError(f"another bill of {bill.tenant!r} was closed meanwhile; make it anew")
    marked = connection.execute(
        update(USAGE).where(_unbilled(bill.tenant, bill.end_ms)).values(bill=bill.number)
    )
    if marked.rowcount != made.records_count:
        raise ConflictError(f"more usage of {bill.tenant!r} came in meanwhile; make the bill anew")
    for line in bill.lines:
        connection.execute(_BILL_ITEM, _item_key(line.item) | {"n": line.quantity})
    row = {
        "owner": bill.tenant,
        "number": bill.number,
        "begin_ms": bill.begin_ms,
        "end_ms": bill.end_ms,
        "total_micros": bill.total_micros,
        "made_ms": transaction.now_ms,
        "digest": bill.digest,
        "document": dump(bill),
    }
    connection.execute(insert(BILLS), row)
    if bill.rounding is not None:
        post(transaction, [bill.rounding])
    transaction.note("bill", f"{bill.tenant}/{bill.number}", bill.tenant, "{}")


def last_bill(connection: Connection, owner: str) -> Bill | None:
    """Return the newest bill of somebody."""
    query = select(BILLS.c.document).where(BILLS.c.owner == owner)
    text = connection.execute(query.order_by(BILLS.c.number.desc()).limit(1)).scalar_one_or_none()
    return None if text is None else load(Bill, text)


def find_bill(connection: Connection, owner: str, number: int) -> Bill | None:
    query = select(BILLS.c.document).where(BILLS.c.owner == owner, BILLS.c.number == number)
    text = connection.execute(query).scalar_one_or_none()
    return None if text is None else load(Bill, text)


def bills(
    connection: Connection, owner: str | None = None, limit: int = MAX_LISTED_COUNT
) -> list[Bill]:
    """Return bills, the newest first."""
    query = select(BILLS.c.document)
    if owner is not None:
        query = query.where(BILLS.c.owner == owner)
    newest_first = BILLS.c.made_ms.desc(), BILLS.c.owner, BILLS.c.number.desc()
    texts = connection.execute(query.order_by(*newest_first).limit(min(limit, MAX_LISTED_COUNT)))
    return [load(Bill, text) for text in texts.scalars()]


def owners_to_bill(connection: Connection, end_ms: int) -> list[str]:
    """Return whose usage before a time is on no bill."""
    query = select(USAGE.c.owner).where(USAGE.c.bill.is_(None), USAGE.c.end_ms <= end_ms)
    query = query.where(USAGE.c.owner.is_not(None)).distinct().order_by(USAGE.c.owner)
    return [owner for owner in connection.execute(query).scalars() if owner is not None]


def agreed_terms(connection: Connection, owner: str) -> dict[tuple[str, int], Terms]:
    """Return all terms of somebody's reservations, by (reservation, number)."""
    query = select(RESERVATIONS.c.document).where(RESERVATIONS.c.owner == owner)
    found: dict[tuple[str, int], Terms] = {}
    for text in connection.execute(query.execution_options(yield_per=_ROWS_AT_ONCE)).scalars():
        reservation = load(Reservation, text)
        asked = (reservation.change.terms,) if reservation.change is not None else ()
        for terms in (*reservation.terms, *asked):
            found[reservation.name, terms.number] = terms
    return found


def _billed(connection: Connection, owner: str) -> dict[Item, int]:
    of_owner = select(RESERVATIONS.c.name).where(RESERVATIONS.c.owner == owner)
    query = select(TALLIES).where(TALLIES.c.reservation.in_(of_owner), TALLIES.c.billed > 0)
    return {
        (row.reservation, row.cloudlet, row.terms, row.meter, row.band): row.billed
        for row in connection.execute(query)
    }


def unbilled_count(connection: Connection, owner: str, end_ms: int) -> int:
    """Return how many records of somebody before a time are on no bill."""
    query = select(func.count()).select_from(USAGE).where(_unbilled(owner, end_ms))
    return connection.execute(query).scalar_one()


def _unbilled(owner: str, end_ms: int) -> Any:
    return (USAGE.c.owner == owner) & USAGE.c.bill.is_(None) & (USAGE.c.end_ms <= end_ms)


def _item_key(item: Item) -> dict[str, Any]:
    return dict(zip(("r", "cl", "t", "m", "b"), item, strict=True))


_BILL_ITEM = (
    update(TALLIES)
    .where(
        TALLIES.c.reservation == bindparam("r"),
        TALLIES.c.cloudlet == bindparam("cl"),
        TALLIES.c.terms == bindparam("t"),
        TALLIES.c.meter == bindparam("m"),
        TALLIES.c.band == bindparam("b"),
    )
    .values(billed=TALLIES.c.billed + bindparam("n"))
)
