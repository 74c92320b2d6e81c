"""Advice on VI types, and what cloudlets run against what is reserved."""

from __future__ import annotations

from dataclasses import replace

import pytest

from packetcloud.domain_controller.core.advice import MAX_CHUNKS_PER_S, Measured, advise
from packetcloud.domain_controller.core.calendar import Conflict
from packetcloud.domain_controller.core.cloudlets import (
    MAX_VIS_COUNT,
    CloudletReport,
    NodeReport,
    Running,
)
from packetcloud.domain_controller.core.life import (
    Answered,
    Chosen,
    LifeLimits,
    Tick,
    handle,
    request,
)
from packetcloud.domain_controller.core.money import Currency
from packetcloud.domain_controller.core.prices import Price, PriceList, Tier
from packetcloud.domain_controller.core.quotes import Share, make_terms
from packetcloud.domain_controller.core.reconciliation import (
    GRACE_MS,
    Finding,
    Kind,
    Remind,
    ShowOnly,
    StopOrphan,
    compare,
    decide,
)
from packetcloud.domain_controller.core.reservations import Reservation
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import HOUR_MS, Slot
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.errors import InvalidValueError

TYPES = {
    "small": ViType("small", Resources(500), 1),
    "large": ViType("large", Resources(2000), 2),
    "huge": ViType("huge", Resources(8000), 9),
}
PRICES = PriceList(
    "p",
    1,
    Currency("EUR"),
    {1: Price(1000, HOUR_MS), 2: Price(3500, HOUR_MS)},
    tiers=(Tier(500, 1000), Tier(1000, 3000)),
)
MEASURED = [Measured("small", 1000), Measured("large", 4500), Measured("huge", 10**6)]


def test_the_cheapest_type_and_number_come_first() -> None:
    """8 000 chunks/s: 2 large ones at 7 000 are cheaper than 8 small ones at 8 000."""
    found = advise(8000, MEASURED, TYPES, PRICES, reserve_permille=0)
    assert [(one.vi_type, one.count, one.micros_per_hour) for one in found] == [
        ("large", 2, 7000),
        ("small", 8, 8000),
    ]
    assert [one.chunks_per_s for one in found] == [9000, 8000]
    few = advise(900, MEASURED, TYPES, PRICES, reserve_permille=100)
    assert (few[0].vi_type, few[0].count) == ("small", 1)
    assert advise(901, MEASURED, TYPES, PRICES, reserve_permille=110)[0].count == 2


def test_tiers_count_where_the_cloudlet_is_known() -> None:
    """Above half of the cloudlet a VI is three times as dear, so fewer processors win."""
    measured = [Measured("small", 1000), Measured("large", 3000)]
    free = advise(6000, measured, TYPES, PRICES, reserve_permille=0)
    assert free[0].vi_type == "small"
    held = advise(
        6000,
        measured,
        TYPES,
        PRICES,
        reserve_permille=0,
        held=Resources(3000),
        capacity=Resources(8000),
    )
    small = next(one for one in held if one.vi_type == "small")
    assert small.micros_per_hour == 2 * 1000 + 4 * 3000


def test_what_cannot_carry_the_load_is_left_out() -> None:
    """No chunks, no price, too many VIs; an unknown type is an error by name."""
    idle = [Measured("small", 0)]
    assert advise(1, idle, TYPES, PRICES) == ()
    most = MAX_VIS_COUNT * 1000
    one = [Measured("small", 1000)]
    assert advise(most, one, TYPES, PRICES, reserve_permille=0)[0].count == MAX_VIS_COUNT
    assert advise(most + 1, one, TYPES, PRICES, reserve_permille=0) == ()
    with pytest.raises(InvalidValueError, match="huge, large, small"):
        advise(1, [Measured("tiny", 1)], TYPES, PRICES)
    for wrong in (0, -1, 1.5, True, MAX_CHUNKS_PER_S + 1):
        with pytest.raises(InvalidValueError, match="wanted_chunks_per_s"):
            advise(wrong, one, TYPES, PRICES)  # type: ignore[arg-type]


def _reservation(*, is_active: bool = True) -> Reservation:
    """Return one that should run two small VIs on c1 and was told so."""
    limits = LifeLimits()
    wish = Wish("small", 2, Slot(HOUR_MS, 2 * HOUR_MS))
    reservation, _ = request("r1", "ann", True, wish, 0)
    terms = make_terms(PRICES, TYPES["small"], wish.slot, [Share("c1", 2)])
    reservation, _ = handle(reservation, Chosen(terms), 0, limits)
    for now in (0, HOUR_MS) if is_active else (0,):
        reservation, _ = handle(reservation, Tick(), now, limits)
        for told in reservation.pending:
            answer = Answered(told.cloudlet, told.number, True)
            reservation, _ = handle(reservation, answer, now, limits)
    return reservation


def _report(*running: Running) -> CloudletReport:
    return CloudletReport("c1", 1, 0, (NodeReport("n", Resources(1)),), running)


@pytest.mark.parametrize(
    ("running", "found"),
    [
        ((Running("r1", "small", 2),), []),
        ((), [(Kind.MISSING, 2)]),
        ((Running("r1", "small", 1),), [(Kind.WRONG_COUNT, 1)]),
        ((Running("r1", "small", 5),), [(Kind.WRONG_COUNT, 3)]),
        ((Running("r1", "large", 2),), [(Kind.WRONG_TYPE, 2), (Kind.WRONG_COUNT, 2)]),
        ((Running("r1", "small", 2), Running("r1", "large", 1)), [(Kind.WRONG_TYPE, 1)]),
        ((Running("r1", "small", 2), Running("r9", "large", 4)), [(Kind.ORPHAN, 4)]),
    ],
)
def test_every_difference_is_found(
    running: tuple[Running, ...], found: list[tuple[Kind, int]]
) -> None:
    """Missing, orphan, wrong type, wrong number; nothing where all is right."""
    findings = compare([_reservation()], _report(*running))
    assert [(one.kind, one.vis_count) for one in findings] == found
    assert all(one.text for one in findings)


def test_what_is_held_only_should_not_run() -> None:
    """Before its slot a reservation runs nothing; what ended is an orphan."""
    confirmed = _reservation(is_active=False)
    assert compare([confirmed], _report()) == []
    early = compare([confirmed], _report(Running("r1", "small", 2)))
    assert [one.kind for one in early] == [Kind.WRONG_COUNT]
    ended, _ = handle(_reservation(), Tick(), 2 * HOUR_MS, LifeLimits())
    late = compare([ended], _report(Running("r1", "small", 2)))
    assert [one.kind for one in late] == [Kind.ORPHAN]


def test_what_was_not_answered_yet_is_no_drift() -> None:
    """The cloudlet is being told; only what it said yes to counts."""
    told, _ = handle(_reservation(is_active=False), Tick(), HOUR_MS, LifeLimits())
    assert told.pending
    assert compare([told], _report()) == []


def test_what_lasts_is_decided_with_a_reason_and_counted() -> None:
    """Within the grace nothing is done; a clock set back does not make it forget."""
    findings = [
        *compare([_reservation()], _report(Running("r9", "small", 1))),
        *compare([], _report(), Conflict(5, 6, "not enough disk_bytes")),
    ]
    decisions, since, drift = decide(findings, {}, 1000)
    assert decisions == [] and drift.counts == dict.fromkeys(Kind, 0)
    decisions, since, drift = decide(findings, since, 1000 + GRACE_MS - 1)
    assert decisions == []
    decisions, since, drift = decide(findings, since, 1000 + GRACE_MS)
    assert [type(one) for one in decisions] == [Remind, StopOrphan, ShowOnly]
    assert all("for 60 s" in one.why for one in decisions)
    assert drift.counts == {
        Kind.MISSING: 1,
        Kind.ORPHAN: 1,
        Kind.OVERBOOKED: 1,
        Kind.WRONG_TYPE: 0,
        Kind.WRONG_COUNT: 0,
    }
    assert (drift.vis_count, drift.oldest_ms) == (3, GRACE_MS)
    decisions, since, drift = decide(findings, since, 0)
    assert decisions == [] and set(since.values()) == {0}
    assert decide([], since, 0)[1] == {}


def test_a_finding_is_the_same_while_its_numbers_change() -> None:
    """Its age goes on when one VI more is missing."""
    one = Finding(Kind.WRONG_COUNT, "c1", "r1", "x", 1)
    _, since, _ = decide([one], {}, 0)
    decisions, _, _ = decide([replace(one, vis_count=2, text="y")], since, GRACE_MS)
    assert len(decisions) == 1
