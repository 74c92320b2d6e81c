"""Double entry: what usage costs, as transfers between accounts whose sum is zero.

What a (reservation, meter, price) costs is one division of its whole quantity. Each record posts
the difference that it makes, so that neither the order of records nor how often a meter was read
changes the sum. Source: docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from packetcloud.domain_controller.core.checks import check_name, shown
from packetcloud.domain_controller.core.money import check_micros
from packetcloud.domain_controller.core.prices import Meter, Price
from packetcloud.domain_controller.core.quotes import Terms
from packetcloud.domain_controller.core.slots import SECOND_MS
from packetcloud.domain_controller.core.usage import UsageRecord
from packetcloud.domain_controller.errors import InvalidValueError

REVENUE = "isp/revenue"
"""What VIs, chunks and bytes earned."""
ROUNDING = "isp/rounding"
"""What bills were rounded up or down by."""
RECEIPTS = "isp/receipts"
"""What tenants paid."""


def tenant_account(tenant: str) -> str:
    """Return the account of what a tenant owes."""
    check_name("tenant", tenant)
    return f"tenant/{tenant}"


@dataclass(frozen=True, slots=True)
class Posting:
    """A transfer: `debit` gets what `credit` gives. Together they are zero.

    Attributes:
        micros: may be negative: then it goes the other way.
        reference: what it is for: a record, a bill.
    """

    debit: str
    credit: str
    micros: int
    reference: str

    def __post_init__(self) -> None:
        if self.debit == self.credit:
            raise InvalidValueError("posting.credit", shown(self.credit), "another account")
        check_micros("posting.micros", self.micros)


class NotBilled(StrEnum):
    """Why a record, or a part of it, is not billed; always in the tenant's favour."""

    NO_TERMS = "no_terms"
    """No terms with this number were agreed on, or not with this cloudlet."""
    OUTSIDE = "outside"
    """Not within the time that was reserved."""
    TOO_MANY = "too_many"
    """More VIs than were reserved; what was reserved is billed."""


SLACK_MS = 10 * SECOND_MS
"""By so much a record may reach out of its slot: clocks differ, and VIs take time to end."""

Item = tuple[str, str, int, str, int]
"""Reservation, cloudlet, terms, meter, band: what has one price. Chunks and bytes: band 0."""


def items_of(record: UsageRecord, terms: Terms | None) -> list[tuple[Item, int, Price]]:
    """Return what a record counts towards: (item, quantity, price). Empty: nothing is billed."""
    part = terms.part(record.cloudlet) if terms is not None else None
    if terms is None or part is None:
        return []
    if not terms.slot.covers(record.begin_ms, record.end_ms, SLACK_MS):
        return []
    reservation, cloudlet, number = record.reservation, record.cloudlet, record.terms
    if record.kind is not Meter.VI_TIME:
        price = terms.chunk_price if record.kind is Meter.CHUNKS else terms.byte_price
        item = (reservation, cloudlet, number, record.kind.value, 0)
        return [(item, record.quantity, price)]
    items = []
    length = record.end_ms - record.begin_ms
    left = record.quantity // length
    for index, band in enumerate(part.bands):
        count = min(left, band.count)
        if count:
            item = (reservation, cloudlet, number, record.kind.value, index)
            items.append((item, count * length, band.price))
            left -= count
    return items


def why_not_billed(record: UsageRecord, terms: Terms | None) -> NotBilled | None:
    """Return why a record, or a part of it, is not billed; None: it is."""
    if terms is None or (part := terms.part(record.cloudlet)) is None:
        return NotBilled.NO_TERMS
    if not terms.slot.covers(record.begin_ms, record.end_ms, SLACK_MS):
        return NotBilled.OUTSIDE
    if record.kind is Meter.VI_TIME and record.vis > part.count:
        return NotBilled.TOO_MANY
    return None


class Tally:
    """Whole quantities, and what they cost."""

    def __init__(self, quantities: Mapping[Item, tuple[int, Price]] | None = None) -> None:
        self._items = dict(quantities or {})

    @property
    def items(self) -> Mapping[Item, tuple[int, Price]]:
        """Quantity and price by item."""
        return self._items

    def add(self, item: Item, quantity: int, price: Price) -> int:
        """Count a quantity; returns by how much the item's cost grows."""
        before = self._items.get(item)
        if before is None:
            self._items[item] = (quantity, price)
            return price.cost(quantity)
        if before[1] != price:
            raise AssertionError(f"{item} has two prices: {before[1]}, {price}")
        after = before[0] + quantity
        self._items[item] = (after, price)
        return price.cost(after) - price.cost(before[0])

    @property
    def total_micros(self) -> int:
        """What everything costs."""
        return sum(price.cost(quantity) for quantity, price in self._items.values())


def post_usage(
    record: UsageRecord, terms: Terms | None, tenant: str, tally: Tally
) -> Posting | None:
    """Count a record that is new; returns the posting that it makes; None: it costs nothing."""
    micros = sum(tally.add(*item) for item in items_of(record, terms))
    if not micros:
        return None
    reference = f"usage {record.cloudlet}/{record.meter}/{record.number}"
    return Posting(tenant_account(tenant), REVENUE, micros, reference)


def balances(postings: Iterable[Posting]) -> dict[str, int]:
    """Return the balance of each account: what it got less what it gave. Their sum is zero."""
    result: dict[str, int] = {}
    for posting in postings:
        result[posting.debit] = result.get(posting.debit, 0) + posting.micros
        result[posting.credit] = result.get(posting.credit, 0) - posting.micros
    return result
