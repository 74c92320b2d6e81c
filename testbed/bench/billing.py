"""Usage records at a controller's database, a tenth of them twice and all in no order; their bills.

What every tenant owes, in the ledger and on a bill, is compared with a sum that is made here while
the records are: whole quantities by whole prices, without a line of the domain controller. Control:
a meter that counts what comes, record by record. For `bench domain`.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial

from packetcloud.domain_controller.core.money import Currency
from packetcloud.domain_controller.core.prices import Meter, Price
from packetcloud.domain_controller.core.reservations import Reservation
from packetcloud.domain_controller.core.slots import DAY_MS, HOUR_MS, Slot
from packetcloud.domain_controller.core.usage import FIRST_PREVIOUS, Taken, UsageRecord
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.state import bills, booking, ownership, usage
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.ownership import Ownership
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.writer import Writer
from packetcloud.testbed.bench.domain_place import (
    BYTE,
    CHUNK,
    SMALL,
    VI_HOUR,
    bench_world,
    fill,
    now_ms,
    tenant_name,
)
from packetcloud.testbed.bench.rounds import Progress

RECORDS_COUNT = 1_000_000
TWICE_SHARE = 0.1
TENANTS_COUNT = 16
METERS = (Meter.VI_TIME, Meter.CHUNKS, Meter.BYTES, Meter.BYTES)
"""Of each tenant's reservation."""
CLOUDLET = "c0"
SEED = 6
SHOWN_EVERY_BATCHES = 20
_PRICES = {Meter.VI_TIME: VI_HOUR, Meter.CHUNKS: CHUNK, Meter.BYTES: BYTE}
_MICROS_OF_CENT = 10_000
_SLOT_MS = 100 * DAY_MS


@dataclass(frozen=True, slots=True)
class Billing:
    """What became of the records."""

    records_count: int
    sent_count: int
    per_s: float
    bills_s: float
    """For making and closing all bills."""
    errors: int
    """Records not stored once, accounts and bills with a wrong sum, a ledger that is not zero."""
    control_errors: int
    """The same of a meter that counts what comes."""


@dataclass(slots=True)
class _Used:
    """Records, and what they add up to."""

    records: list[UsageRecord] = field(default_factory=list)
    quantities: dict[tuple[str, Meter], int] = field(default_factory=lambda: defaultdict(int))
    """By tenant and meter."""

    def owed_micros(self) -> dict[str, int]:
        """Return what each tenant owes: every meter's whole quantity is rounded once."""
        owed: dict[str, int] = defaultdict(int)
        for (tenant, kind), quantity in self.quantities.items():
            owed[tenant] += _cost(quantity, _PRICES[kind])
        return dict(owed)


def measure_billing(url: str, records_count: int, progress: Progress) -> Billing:
    """Send records to an empty database, make all bills, and compare every sum."""
    world = bench_world(1)
    fill(url, world)
    database = Database(url)
    writer = Writer(database, now_ms, answer_within_s=60.0)
    try:
        begin_ms = now_ms() + HOUR_MS
        wish = Wish(SMALL.name, 1, Slot(begin_ms, begin_ms + _SLOT_MS))
        made = [
            writer.do_blocking(partial(_reserve, world, number, wish))
            for number in range(TENANTS_COUNT)
        ]
        channel = writer.do_blocking(_open_channel)
        progress("billing: making records")
        used = _use(made, records_count)
        chance = random.Random(SEED)
        sent = used.records + chance.sample(used.records, int(records_count * TWICE_SHARE))
        chance.shuffle(sent)
        began_s = time.monotonic()
        new_count = _send(writer, channel, sent, progress)
        took_s = time.monotonic() - began_s
        progress("billing: making bills")
        began_s = time.monotonic()
        billed = _bill(database, writer, begin_ms + _SLOT_MS, world.prices.currency)
        bills_s = time.monotonic() - began_s
        with database.reading() as connection:
            balances = usage.balances(connection)
    finally:
        writer.close()
        database.close()
    owed = used.owed_micros()
    return Billing(
        len(used.records),
        len(sent),
        len(sent) / took_s,
        bills_s,
        abs(new_count - len(used.records)) + judge_sums(owed, billed, balances),
        judge_sums(owed, *_count_what_comes(made, sent)),
    )


def judge_sums(
    owed: Mapping[str, int], billed: Mapping[str, int], balances: Mapping[str, int]
) -> int:
    """Return how many sums are wrong.

    Args:
        owed: millionths by tenant, exact.
        billed: totals of bills by tenant, of whole cents.
        balances: of all accounts, after the bills.
    """
    cents = {tenant: _to_cents(micros) for tenant, micros in owed.items()}
    wrong = sum(billed.get(tenant) != total for tenant, total in cents.items())
    wrong += sum(balances.get(f"tenant/{tenant}") != total for tenant, total in cents.items())
    return wrong + (sum(balances.values()) != 0)


def _use(made: list[Reservation], count: int) -> _Used:
    """Return records of several meters of each reservation, and their sums."""
    chance = random.Random(SEED)
    used = _Used()
    each = count // (len(made) * len(METERS))
    for reservation in made:
        slot = reservation.wish.slot
        step_ms = min(HOUR_MS, (slot.end_ms - slot.begin_ms) // each)
        for meter, kind in enumerate(METERS):
            previous = FIRST_PREVIOUS
            for number in range(1, each + 1):
                begin_ms = slot.begin_ms + (number - 1) * step_ms
                quantity = step_ms if kind is Meter.VI_TIME else chance.randrange(1 << 30)
                record = UsageRecord(
                    *(CLOUDLET, f"{reservation.name}-{meter}", number, previous),
                    *(reservation.name, reservation.terms[0].number, kind),
                    *(begin_ms, begin_ms + step_ms, quantity),
                )
                used.records.append(record)
                used.quantities[reservation.tenant, kind] += quantity
                previous = record.digest
    return used


def _send(writer: Writer, channel: Ownership, sent: list[UsageRecord], progress: Progress) -> int:
    """Return how many were taken as new."""
    new_count, size = 0, usage.MAX_TAKEN_COUNT
    for number, start in enumerate(range(0, len(sent), size)):
        if number % SHOWN_EVERY_BATCHES == 0:
            progress(f"billing: {start} of {len(sent)} records")
        taken = writer.do_blocking(partial(_take, channel, sent[start : start + size]))
        new_count += taken.count(Taken.NEW)
    return new_count


def _bill(database: Database, writer: Writer, end_ms: int, currency: Currency) -> dict[str, int]:
    """Close everybody's bill; return their totals."""
    totals = {}
    for number in range(TENANTS_COUNT):
        tenant = tenant_name(number)
        with database.reading() as connection:
            draft = bills.draft(connection, tenant, (0, end_ms), currency)
        writer.do_blocking(partial(_close, draft))
        totals[tenant] = draft.bill.total_micros
    return totals


def _count_what_comes(
    made: list[Reservation], sent: list[UsageRecord]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return bills and balances as a meter makes them that rounds each record that comes."""
    tenants = {reservation.name: reservation.tenant for reservation in made}
    owed: dict[str, int] = defaultdict(int)
    for record in sent:
        owed[tenants[record.reservation]] += _cost(record.quantity, _PRICES[record.kind])
    billed = {tenant: _to_cents(micros) for tenant, micros in owed.items()}
    balances = {f"tenant/{tenant}": micros for tenant, micros in billed.items()}
    return billed, balances | {"revenue": -sum(billed.values())}


def _cost(quantity: int, price: Price) -> int:
    return round(Fraction(quantity * price.micros, price.units))


def _to_cents(micros: int) -> int:
    return round(Fraction(micros, _MICROS_OF_CENT)) * _MICROS_OF_CENT


def _reserve(
    world: booking.World, number: int, wish: Wish, transaction: Transaction
) -> Reservation:
    return booking.request(transaction, world, f"r{number}", tenant_name(number), True, wish)


def _open_channel(transaction: Transaction) -> Ownership:
    return ownership.take(transaction, ownership.cloudlet_channel(CLOUDLET), "bench")


def _take(channel: Ownership, records: list[UsageRecord], transaction: Transaction) -> list[Taken]:
    return usage.take(transaction, channel, records)


def _close(draft: bills.Draft, transaction: Transaction) -> None:
    bills.close(transaction, draft)
