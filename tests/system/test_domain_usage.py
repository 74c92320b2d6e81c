"""Usage and money: each record once, exact sums in any order, bills that anyone computes again.

The number of records is an option: `pytest --domain-records 1000000`.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from packetcloud.domain_controller.core.bills import verify
from packetcloud.domain_controller.core.events import Answered, ChangeWished, Event
from packetcloud.domain_controller.core.ledger import REVENUE, ROUNDING, Tally, post_usage
from packetcloud.domain_controller.core.money import Currency
from packetcloud.domain_controller.core.prices import Meter, Price
from packetcloud.domain_controller.core.quotes import Band, PartTerms
from packetcloud.domain_controller.core.reservations import Reservation
from packetcloud.domain_controller.core.slots import HOUR_MS
from packetcloud.domain_controller.core.usage import FIRST_PREVIOUS, Taken, UsageRecord
from packetcloud.domain_controller.state import (
    bills,
    booking,
    intake,
    ownership,
    reservations,
    usage,
)
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import ConflictError, StaleOwnerError
from packetcloud.domain_controller.state.ownership import Ownership
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.writer import Writer
from tests.system.domain_databases import url
from tests.system.domain_world import BEGIN_MS, NOW_MS, register, wish, world

__all__ = ["url"]
SEED = 29
EUR = Currency("EUR")
PERIOD = (NOW_MS, BEGIN_MS + HOUR_MS)
RESERVATIONS = {"r1": "acme", "r2": "acme", "r3": "other"}


@pytest.fixture
def books(url: str) -> Iterator[Books]:
    made = Books(url)
    yield made
    made.close()


class Books:
    """A controller with three reservations, whose usage comes in."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.writer = Writer(self.database, lambda: NOW_MS, answer_within_s=60)
        self.writer.do_blocking(register)
        for name, tenant in RESERVATIONS.items():
            self.writer.do_blocking(lambda work, n=name, t=tenant: _reserve(work, n, t))
        self.channel = self.open_channel("c1")

    def open_channel(self, cloudlet: str) -> Ownership:
        name = ownership.cloudlet_channel(cloudlet)
        return self.writer.do_blocking(lambda work: ownership.take(work, name, "a"))

    def take(self, records: list[UsageRecord]) -> list[Taken]:
        return self.writer.do_blocking(lambda work: usage.take(work, self.channel, records))

    def draft(self, owner: str) -> bills.Draft:
        with self.database.reading() as connection:
            return bills.draft(connection, owner, PERIOD, EUR)

    def close_bill(self, made: bills.Draft) -> None:
        self.writer.do_blocking(lambda work: bills.close(work, made))

    def balances(self) -> dict[str, int]:
        with self.database.reading() as connection:
            return usage.balances(connection)

    def close(self) -> None:
        self.writer.close()
        self.database.close()


def _reserve(transaction: Transaction, name: str, tenant: str) -> None:
    booking.request(transaction, world(), name, tenant, True, wish())


def meter(reservation: str, kind: Meter, count: int, chance: random.Random) -> list[UsageRecord]:
    """Return the records of one meter, in order."""
    name = f"{reservation}-{kind.value}"
    records: list[UsageRecord] = []
    previous, at_ms = FIRST_PREVIOUS, BEGIN_MS
    step_ms = HOUR_MS // count
    for number in range(1, count + 1):
        quantity = step_ms if kind is Meter.VI_TIME else chance.randrange(1 << 20)
        record = UsageRecord(
            *("c1", name, number, previous, reservation, 1, kind),
            *(at_ms, at_ms + step_ms, quantity),
        )
        records.append(record)
        previous, at_ms = record.digest, at_ms + step_ms
    return records


def all_meters(count: int, chance: random.Random) -> list[UsageRecord]:
    return [
        record
        for reservation in RESERVATIONS
        for kind in Meter
        for record in meter(reservation, kind, count, chance)
    ]


def expected(books: Books, records: list[UsageRecord]) -> dict[str, int]:
    """Return what tenants owe, computed by the core from all records at once."""
    tallies = {tenant: Tally() for tenant in RESERVATIONS.values()}
    with books.database.reading() as connection:
        kept = {name: reservations.find(connection, name) for name in RESERVATIONS}
    for record in records:
        found = kept[record.reservation]
        assert found is not None
        tenant = RESERVATIONS[record.reservation]
        post_usage(record, found.reservation.terms[0], tenant, tallies[tenant])
    return {tenant: tally.total_micros for tenant, tally in tallies.items()}


@pytest.mark.timeout(1800)
def test_a_million_records_with_duplicates_out_of_order_are_exact(
    books: Books, pytestconfig: pytest.Config
) -> None:
    """A tenth comes twice, all in no order: each is counted once, the sum is that of the core over
    all quantities at once, and all accounts together are zero."""
    chance = random.Random(SEED)
    count = pytestconfig.getoption("--domain-records") // (len(RESERVATIONS) * len(Meter))
    records = all_meters(count, chance)
    sent = records + chance.sample(records, len(records) // 10)
    chance.shuffle(sent)
    taken: list[Taken] = []
    for start in range(0, len(sent), usage.MAX_TAKEN_COUNT):
        taken += books.take(sent[start : start + usage.MAX_TAKEN_COUNT])
    assert taken.count(Taken.NEW) == len(records)
    assert taken.count(Taken.AGAIN) == len(sent) - len(records)
    found = books.balances()
    owed = expected(books, records)
    assert {name: found[f"tenant/{name}"] for name in owed} == owed
    assert sum(found.values()) == 0 and found[REVENUE] == -sum(owed.values())
    with books.database.reading() as connection:
        assert usage.meters_with_gaps(connection) == []
        assert len(usage.of_owner(connection, "other")) == min(3 * count, usage.MAX_LISTED_COUNT)


def test_a_record_that_differs_is_evidence_and_is_not_billed(books: Books) -> None:
    """Also within one call, and when it comes again."""
    first = meter("r1", Meter.CHUNKS, 3, random.Random(SEED))
    forged = UsageRecord(
        *("c1", first[1].meter, 2, first[0].digest, "r1", 1, Meter.CHUNKS),
        *(first[1].begin_ms, first[1].end_ms, first[1].quantity + 1),
    )
    new, again, different = Taken.NEW, Taken.AGAIN, Taken.DIFFERENT
    assert books.take([*first, forged, first[0]]) == [new, new, new, different, again]
    owed = books.balances()
    assert books.take([forged, *first]) == [different, again, again, again]
    assert books.balances() == owed
    with books.database.reading() as connection:
        assert usage.evidence(connection) == [forged]


def test_gaps_are_known_until_they_close(books: Books) -> None:
    """A meter of which a record is missing is named, by its tenant too."""
    records = meter("r3", Meter.BYTES, 4, random.Random(SEED))
    books.take([records[0], records[3]])
    with books.database.reading() as connection:
        assert usage.meters_with_gaps(connection, "other") == [("c1", records[0].meter)]
        assert usage.meters_with_gaps(connection, "acme") == []
        assert usage.numbers_of(connection, "c1", records[0].meter) == [1, 4]
    books.take(records[1:3])
    with books.database.reading() as connection:
        assert usage.meters_with_gaps(connection) == []


def test_usage_of_nobody_is_kept_and_not_billed(books: Books) -> None:
    """A reservation that is unknown, and terms that were never agreed on."""
    stray = UsageRecord(
        *("c1", "m9", 1, FIRST_PREVIOUS, "r9", 1, Meter.CHUNKS, BEGIN_MS, BEGIN_MS + 1, 5)
    )
    odd = UsageRecord(
        *("c1", "m1", 1, FIRST_PREVIOUS, "r1", 9, Meter.CHUNKS, BEGIN_MS, BEGIN_MS + 1, 5)
    )
    assert books.take([stray, odd]) == [Taken.NEW, Taken.NEW]
    assert books.balances() == {}


def test_bills_charge_everything_once_and_can_be_verified(books: Books) -> None:
    """Two bills, the second of what came late: together they charge what all usage costs; what
    each is made of is enough to compute it again; rounding has an account of its own."""
    chance = random.Random(SEED)
    records = [one for one in all_meters(7, chance) if RESERVATIONS[one.reservation] == "acme"]
    early, late = records[::2], records[1::2]
    books.take(early)
    first = books.draft("acme")
    books.close_bill(first)
    books.take(late)
    second = books.draft("acme")
    books.close_bill(second)
    owed = expected(books, records)["acme"]
    assert first.bill.exact_micros + second.bill.exact_micros == owed
    found = books.balances()
    assert found["tenant/acme"] == first.bill.total_micros + second.bill.total_micros
    assert sum(found.values()) == 0
    assert found.get(ROUNDING, 0) == owed - found["tenant/acme"]
    with books.database.reading() as connection:
        terms = bills.agreed_terms(connection, "acme")
        last, before = None, {}
        for number in (1, 2):
            bill = bills.find_bill(connection, "acme", number)
            assert bill is not None
            on_bill = usage.of_owner(connection, "acme", bill=number)
            assert verify(bill, on_bill, terms, last, before) == []
            assert verify(bill, on_bill[1:], terms, last, before) != []
            before = {line.item: line.before + line.quantity for line in bill.lines} | {
                item: quantity
                for item, quantity in before.items()
                if item not in {line.item for line in bill.lines}
            }
            last = bill
        assert bills.last_bill(connection, "acme") == second.bill
        assert bills.bills(connection, "other") == []
        assert bills.owners_to_bill(connection, PERIOD[1]) == []


def test_a_bill_is_not_closed_over_what_came_meanwhile(books: Books) -> None:
    """Neither with more records than it was made of, nor twice."""
    records = meter("r1", Meter.CHUNKS, 4, random.Random(SEED))
    books.take(records[:2])
    made = books.draft("acme")
    books.take(records[2:])
    with pytest.raises(ConflictError, match="came in meanwhile"):
        books.close_bill(made)
    made = books.draft("acme")
    books.close_bill(made)
    with pytest.raises(ConflictError, match="another bill"):
        books.close_bill(made)
    with books.database.reading() as connection:
        assert bills.unbilled_count(connection, "acme", PERIOD[1]) == 0
        assert len(bills.bills(connection)) == 1


def test_records_are_taken_from_their_own_cloudlet_by_its_owner_alone(books: Books) -> None:
    """Not by a channel that another controller took over, nor by another cloudlet's."""
    records = meter("r1", Meter.CHUNKS, 2, random.Random(SEED))
    mine = books.channel
    books.channel = books.open_channel("c2")
    with pytest.raises(ValueError, match="record of c1 came by cloudlet/c2"):
        books.take(records)
    books.channel = mine
    theirs = books.open_channel("c1")
    with pytest.raises(StaleOwnerError, match="epoch 2"):
        books.take(records)
    with books.database.reading() as connection:
        assert usage.of_owner(connection) == []
    books.channel = theirs
    assert books.take(records) == [Taken.NEW, Taken.NEW]


def test_more_records_than_may_come_at_once_are_refused(books: Books) -> None:
    """At the cap they are taken, one more is refused, and nothing of it is kept."""
    records = all_meters(200, random.Random(SEED))
    with pytest.raises(ValueError, match="1000"):
        books.take(records[: usage.MAX_TAKEN_COUNT + 1])
    with books.database.reading() as connection:
        assert usage.of_owner(connection) == []
    assert len(books.take(records[: usage.MAX_TAKEN_COUNT])) == usage.MAX_TAKEN_COUNT


def test_usage_counts_only_from_a_cloudlet_that_has_the_places(books: Books) -> None:
    """Whoever reports for others leaves no trace: no row, no gap that somebody's bill waits for."""
    (right,) = meter("r1", Meter.VI_TIME, 1, random.Random(SEED))
    with books.database.reading() as connection:
        kept = reservations.find(connection, "r1")
    assert kept is not None
    (part,) = kept.reservation.terms[-1].parts
    other = "c2" if part.cloudlet == "c1" else "c1"
    mine, foreign = books.open_channel(part.cloudlet), books.open_channel(other)

    def take(channel: Ownership, cloudlet: str, **changes: object) -> Taken:
        record = replace(right, cloudlet=cloudlet, **changes)  # type: ignore[arg-type]
        work = functools.partial(
            intake.take_from, owner=channel, cloudlet=cloudlet, records=[record]
        )
        (taken,) = books.writer.do_blocking(work)
        assert taken is not None
        return taken

    assert take(foreign, other, number=1000) is Taken.REFUSED
    assert take(mine, part.cloudlet, reservation="r9") is Taken.REFUSED
    assert take(mine, part.cloudlet) is Taken.NEW
    assert take(mine, part.cloudlet) is Taken.AGAIN
    assert take(mine, part.cloudlet, number=2, reservation="r2") is Taken.REFUSED
    assert take(mine, part.cloudlet, quantity=0) is Taken.DIFFERENT
    with books.database.reading() as connection:
        assert usage.meters_with_gaps(connection) == []
        assert [one.number for one in usage.of_owner(connection, "acme")] == [1]
        assert len(usage.evidence(connection)) == 1
    books.open_channel(part.cloudlet)
    with pytest.raises(StaleOwnerError):
        take(mine, part.cloudlet)


def test_usage_under_a_change_that_is_given_up_is_on_no_account(books: Books) -> None:
    """It is asked for again until the change is agreed on or given up: accounts and bills agree."""

    def handle(event: Event) -> Reservation:
        def work(transaction: Transaction) -> Reservation:
            kept = reservations.lock(transaction, "r1")
            assert kept is not None
            return booking.handle(transaction, world(), kept, event)

        return books.writer.do_blocking(work)

    def take(record: UsageRecord) -> Taken | None:
        work = functools.partial(
            intake.take_from, owner=books.channel, cloudlet="c1", records=[record]
        )
        (taken,) = books.writer.do_blocking(work)
        return taken

    with books.database.reading() as connection:
        kept = reservations.find(connection, "r1")
    assert kept is not None
    asked = handle(Answered("c1", kept.reservation.pending[0].number, True))
    larger = replace(asked.wish, count=2)
    terms = replace(asked.terms[-1], parts=(PartTerms("c1", (Band(2, 1000, Price(7, 3600)),)),))
    asked = handle(ChangeWished("o1", larger, terms))
    assert asked.change is not None
    (first,) = meter("r1", Meter.VI_TIME, 1, random.Random(SEED))
    under_change = replace(first, terms=asked.change.terms.number)
    assert take(under_change) is None
    (told,) = asked.pending
    handle(Answered("c1", told.number, False, "no room"))
    assert take(under_change) is Taken.NEW
    assert books.balances() == {}
    assert books.draft("acme").bill.exact_micros == 0
