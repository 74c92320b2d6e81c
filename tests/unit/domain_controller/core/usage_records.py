"""Records for tests: chains of meters under terms with two bands."""

from __future__ import annotations

import random
from dataclasses import replace

from packetcloud.domain_controller.core.money import Currency
from packetcloud.domain_controller.core.prices import Meter, Price, PriceList, Tier
from packetcloud.domain_controller.core.quotes import Share, Terms, make_terms
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import HOUR_MS, Slot
from packetcloud.domain_controller.core.usage import FIRST_PREVIOUS, UsageRecord

EUR = Currency("EUR")
PRICES = PriceList(
    "std",
    1,
    EUR,
    {1: Price(7001, HOUR_MS)},
    Price(13, 1000),
    Price(5, 1_000_003),
    (Tier(500, 1000), Tier(1000, 1300)),
)
SLOT = Slot(0, 24 * HOUR_MS)
TYPE = ViType("small", Resources(1000))


def terms(number: int = 1, cloudlet: str = "c1", count: int = 3, slot: Slot = SLOT) -> Terms:
    """Two VIs at the base price, the third one dearer."""
    share = Share(cloudlet, count, capacity=Resources(4000))
    return make_terms(PRICES, TYPE, slot, [share], number)


def chain(
    chance: random.Random, count: int, meter: str = "m1", reservation: str = "r1"
) -> list[UsageRecord]:
    """Return records of one meter; each follows from the one before it."""
    records: list[UsageRecord] = []
    previous, at = FIRST_PREVIOUS, 0
    for number in range(1, count + 1):
        kind = chance.choice(list(Meter))
        end = at + chance.randrange(1, 5000)
        quantity = chance.randrange(0, 10**6)
        if kind is Meter.VI_TIME:
            quantity = (end - at) * chance.randrange(0, 4)
        record = UsageRecord("c1", meter, number, previous, reservation, 1, kind, at, end, quantity)
        records.append(record)
        previous, at = record.digest, end % (23 * HOUR_MS)
    return records


def changed(record: UsageRecord) -> UsageRecord:
    """Return a record with the same number that says something else."""
    return replace(record, quantity=record.quantity + (record.end_ms - record.begin_ms))
