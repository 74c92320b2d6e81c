"""Bills, and their check by whoever has the records. Source: docs/reference/usage-records.md.

A bill lists whole quantities before and after, so that what it charges is a difference of two
costs that anybody can compute again, and all bills together charge exactly what all usage costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from packetcloud.domain_controller.core.checks import (
    check_digest,
    check_integer,
    check_name,
    check_time,
    shown,
)
from packetcloud.domain_controller.core.ledger import (
    ROUNDING,
    Item,
    Posting,
    items_of,
    tenant_account,
)
from packetcloud.domain_controller.core.money import Currency, check_micros, format_money, to_minor
from packetcloud.domain_controller.core.prices import Meter, Price
from packetcloud.domain_controller.core.quotes import Terms
from packetcloud.domain_controller.core.usage import UsageRecord
from packetcloud.domain_controller.errors import InvalidValueError

NO_BILL = bytes(32)
"""What a tenant's first bill names as the digest of the one before it."""
MAX_QUANTITY_OF_BILL = 1 << 62
MAX_FINDINGS_COUNT = 100
"""Differences that a check of a bill tells."""


@dataclass(frozen=True, slots=True)
class BillLine:
    """What one item (reservation, cloudlet, terms, meter, band) costs in this period."""

    item: Item
    price: Price
    before: int
    """Its quantity on all bills before this one."""
    quantity: int
    """What this bill adds."""
    micros: int

    def __post_init__(self) -> None:
        check_integer("line.before", self.before, 0, MAX_QUANTITY_OF_BILL)
        check_integer("line.quantity", self.quantity, 0, MAX_QUANTITY_OF_BILL)
        check_micros("line.micros", self.micros)

    @property
    def name(self) -> str:
        """The item for people."""
        reservation, cloudlet, terms, meter, band = self.item
        return f"{reservation} on {cloudlet}, {meter}, terms {terms}, band {band}"


@dataclass(frozen=True, slots=True)
class RecordSum:
    """The records of one reservation that a bill charges: how many, and a digest of theirs.

    `digest`: SHA-256 of the records' digests, sorted and joined.
    """

    reservation: str
    count: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Bill:
    """What a tenant owes for a period. It never changes; what comes later is on the next one."""

    tenant: str
    number: int
    """1, 2, 3, ... of this tenant."""
    previous: bytes
    """The digest of the bill before it."""
    begin_ms: int
    end_ms: int
    currency: Currency
    lines: tuple[BillLine, ...]
    records: tuple[RecordSum, ...]
    price_lists: tuple[tuple[str, int, bytes], ...]
    """Name, version and digest of the lists that prices come from."""
    exact_micros: int
    """The sum of the lines."""
    total_micros: int
    """The same, rounded once to what the currency can name."""

    def __post_init__(self) -> None:
        check_name("bill.tenant", self.tenant)
        check_integer("bill.number", self.number, 1, MAX_QUANTITY_OF_BILL)
        check_digest("bill.previous", self.previous)
        check_time("bill.begin_ms", self.begin_ms)
        check_time("bill.end_ms", self.end_ms)
        if self.end_ms <= self.begin_ms:
            raise InvalidValueError("bill.end_ms", shown(self.end_ms), "later than bill.begin_ms")
        check_micros("bill.exact_micros", self.exact_micros)
        check_micros("bill.total_micros", self.total_micros)

    @property
    def rounding(self) -> Posting | None:
        """The posting of what rounding adds to the tenant's account; None: nothing."""
        rest = self.total_micros - self.exact_micros
        if not rest:
            return None
        reference = f"bill {self.tenant}/{self.number}"
        return Posting(tenant_account(self.tenant), ROUNDING, rest, reference)

    def to_text(self) -> str:
        """Return the canonical form, of which the digest is made."""
        lines = [
            "packetcloud bill 1",
            f"tenant {self.tenant} {self.number}",
            f"previous {self.previous.hex()}",
            f"period {self.begin_ms} {self.end_ms}",
            f"currency {self.currency.code} {self.currency.minor_digits}",
        ]
        lines += [f"prices {name} {version} {d.hex()}" for name, version, d in self.price_lists]
        for line in self.lines:
            item = " ".join(map(str, line.item))
            price = f"{line.price.micros} {line.price.units}"
            lines.append(f"line {item} {price} {line.before} {line.quantity} {line.micros}")
        lines += [f"records {one.reservation} {one.count} {one.digest.hex()}"
                  for one in self.records]  # fmt: skip
        lines.append(f"total {self.exact_micros} {self.total_micros}")
        return "\n".join(lines) + "\n"

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical form."""
        return sha256(self.to_text().encode()).digest()


def make_bill(
    tenant: str,
    period: tuple[int, int],
    currency: Currency,
    records: Iterable[UsageRecord],
    terms: Mapping[tuple[str, int], Terms],
    last: Bill | None = None,
    before: Mapping[Item, int] | None = None,
    terms_unknown: Container[bytes] = (),
) -> Bill:
    """Return the bill of a period.

    Args:
        records: all that are on no bill yet, each once, in any order.
        terms: by (reservation, number).
        last: the tenant's bill before this one.
        before: the quantities of items on all bills before.
        terms_unknown: digests of records whose terms nobody knew when they came in: nothing was
            posted for them, and nothing is billed, whatever has their number by now. Looked up
            after each record was taken from `records`.
    """
    earlier = before or {}
    quantities: dict[Item, int] = defaultdict(int)
    prices: dict[Item, Price] = {}
    digests: dict[str, list[bytes]] = defaultdict(list)
    lists: set[tuple[str, int, bytes]] = set()
    for record in records:
        agreed = terms.get((record.reservation, record.terms))
        digest = record.digest
        digests[record.reservation].append(digest)
        if digest in terms_unknown:
            continue
        for item, quantity, price in items_of(record, agreed):
            quantities[item] += quantity
            prices[item] = price
        if agreed is not None:
            lists.add((agreed.list_name, agreed.list_version, agreed.list_digest))
    lines = tuple(
        _line(item, prices[item], earlier.get(item, 0), quantity)
        for item, quantity in sorted(quantities.items())
    )
    exact = sum(line.micros for line in lines)
    return Bill(
        tenant,
        last.number + 1 if last is not None else 1,
        last.digest if last is not None else NO_BILL,
        *period,
        currency,
        lines,
        tuple(
            RecordSum(name, len(found), records_digest(found))
            for name, found in sorted(digests.items())
        ),
        tuple(sorted(lists)),
        exact,
        to_minor(exact, currency),
    )


def records_digest(digests: Iterable[bytes]) -> bytes:
    """Return the digest of a set of records."""
    return sha256(b"".join(sorted(digests))).digest()


def verify(
    bill: Bill,
    records: Iterable[UsageRecord],
    terms: Mapping[tuple[str, int], Terms],
    last: Bill | None = None,
    before: Mapping[Item, int] | None = None,
) -> list[str]:
    """Compute a bill again; returns what differs, in sentences. Empty: it is right.

    Args:
        records: those that the tenant holds for this bill.
        terms: those that the tenant agreed to.
        last: the tenant's bill before it; None: this is the first one.
        before: the quantities on all bills before it.
    """
    records = list(records)
    own = make_bill(
        bill.tenant, (bill.begin_ms, bill.end_ms), bill.currency, records, terms, last, before
    )
    findings: list[str] = []
    if (bill.number, bill.previous) != (own.number, own.previous):
        findings.append(
            f"bill {bill.number} does not follow bill {own.number - 1}, or that was changed"
        )
    _compare_records(bill, own, findings)
    _compare_lines(bill, own, findings)
    findings += _counted_twice(records, terms)
    if bill.price_lists != own.price_lists:
        findings.append("the bill names other price lists than the terms that were agreed to")
    for what, stated, computed in (
        ("sum of the lines", bill.exact_micros, own.exact_micros),
        ("total", bill.total_micros, own.total_micros),
    ):
        if stated != computed:
            findings.append(
                f"{what}: the bill says {format_money(stated, bill.currency, is_exact=True)}, "
                f"computed: {format_money(computed, bill.currency, is_exact=True)}"
            )
    return findings[:MAX_FINDINGS_COUNT]


def _line(item: Item, price: Price, before: int, quantity: int) -> BillLine:
    micros = price.cost(before + quantity) - price.cost(before)
    return BillLine(item, price, before, quantity, micros)


def _compare_records(bill: Bill, own: Bill, findings: list[str]) -> None:
    theirs = {one.reservation: one for one in bill.records}
    ours = {one.reservation: one for one in own.records}
    for name in sorted({*theirs, *ours}):
        stated, found = theirs.get(name), ours.get(name)
        if stated == found:
            continue
        counts = [one.count if one is not None else 0 for one in (stated, found)]
        if counts[0] != counts[1]:
            text = f"the bill has {counts[0]} records, there are {counts[1]}"
        else:
            text = "the bill is about other records than those that are there"
        findings.append(f"reservation {name}: {text}")


def _compare_lines(bill: Bill, own: Bill, findings: list[str]) -> None:
    theirs = {line.item: line for line in bill.lines}
    ours = {line.item: line for line in own.lines}
    if len(theirs) != len(bill.lines):
        findings.append("the bill has two lines for the same item")
    for item in sorted({*theirs, *ours}):
        stated, computed = theirs.get(item), ours.get(item)
        if stated == computed:
            continue
        if stated is None or computed is None:
            which = "is missing on the bill" if stated is None else "follows from no record"
            findings.append(f"line {(computed or stated or bill.lines[0]).name}: {which}")
            continue
        for field in ("price", "before", "quantity", "micros"):
            one, other = getattr(stated, field), getattr(computed, field)
            if one != other:
                findings.append(
                    f"line {stated.name}: {field}: the bill says {one}, computed: {other}"
                )


def _counted_twice(
    records: Iterable[UsageRecord], terms: Mapping[tuple[str, int], Terms]
) -> Iterator[str]:
    """Yield where more VIs were metered at one time than were agreed on: by two meters, say.

    No single record shows it. Cost: O(n log n).
    """
    edges: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
    for record in records:
        agreed = terms.get((record.reservation, record.terms))
        part = agreed.part(record.cloudlet) if agreed is not None else None
        if record.kind is not Meter.VI_TIME or part is None or not record.vis:
            continue
        vis = min(record.vis, part.count)  # what is billed of it
        of_place = edges[record.reservation, record.cloudlet]
        of_place += [(record.begin_ms, vis, part.count), (record.end_ms, -vis, part.count)]
    for (reservation, cloudlet), found in sorted(edges.items()):
        count = 0
        for at_ms, change, most in sorted(found):  # an end comes before a begin
            count += change
            if change > 0 and count > most:
                yield (
                    f"reservation {reservation}: at {at_ms} {count} VIs on {cloudlet} are counted, "
                    f"and {most} were agreed on"
                )
                break
