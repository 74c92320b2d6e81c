"""Which cloudlets get a reservation: constraints, order, parts, price, the earliest begin."""

from __future__ import annotations

from dataclasses import replace

import pytest

from packetcloud.chunk.names import GUID, NA
from packetcloud.domain_controller.core import choice
from packetcloud.domain_controller.core.calendar import Calendar, Hold
from packetcloud.domain_controller.core.choice import (
    FRESH_MS,
    MAX_REASONS_COUNT,
    Asker,
    Candidate,
    NoPlace,
    change,
    cheapest,
    choose,
    earliest,
    least_loaded,
    why_nowhere,
)
from packetcloud.domain_controller.core.cloudlets import (
    Cloudlet,
    CloudletReport,
    Distance,
    NodeReport,
)
from packetcloud.domain_controller.core.documents import from_document, to_document
from packetcloud.domain_controller.core.life import Answered, Chosen, LifeLimits, handle, request
from packetcloud.domain_controller.core.money import Currency
from packetcloud.domain_controller.core.packing import rooms_of
from packetcloud.domain_controller.core.prices import Price, PriceList, Tier
from packetcloud.domain_controller.core.quotes import Quote
from packetcloud.domain_controller.core.reservations import Reservation
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import HOUR_MS, MAX_AHEAD_MS, Every, Repeat, Slot
from packetcloud.domain_controller.core.wishes import Constraints, Near, Wish
from packetcloud.domain_controller.errors import InvalidValueError

SMALL = ViType("small", Resources(1000))
HOST = GUID(b"h" * 20)
PRICES = PriceList(
    "p", 1, Currency("EUR"), {1: Price(1000, HOUR_MS)}, tiers=(Tier(500, 1000), Tier(1000, 2000))
)
SLOT = Slot(HOUR_MS, 2 * HOUR_MS)
WISH = Wish("small", 2, SLOT)
ANN = Asker("ann", True, SMALL, PRICES)


def _candidate(
    name: str,
    cpus: int = 4000,
    *,
    region: str = "north",
    hops: int = 1,
    reserved: int = 0,
    holds: tuple[tuple[int, int, int], ...] = (),
) -> Candidate:
    nodes = (NodeReport("n", Resources(cpus), Resources(reserved)),)
    distances = (Distance(NA(7), hops),)
    report = CloudletReport(name, 1, 0, nodes, na=NA(sum(name.encode())), distances=distances)
    held = [Hold(name, "r0", "bob", a, b, "small", n) for a, b, n in holds]
    calendar = Calendar(rooms_of(report, 0), {"small": SMALL}, held)
    return Candidate(Cloudlet(name, region), report, calendar)


def _names(found: Quote | NoPlace) -> list[str]:
    assert isinstance(found, Quote), found
    return [part.cloudlet for part in found.terms.parts]


def _text(found: Quote | NoPlace) -> str:
    assert isinstance(found, NoPlace), found
    return found.text


def test_constraints_leave_those_that_fit_and_say_why_others_do_not() -> None:
    """Cloudlet, region, distance, freshness, openness, room, those that were asked already."""
    far = _candidate("far", hops=9)
    south = _candidate("south", region="south")
    full = _candidate("full", holds=((0, 2 * HOUR_MS, 3),))
    closed = replace(_candidate("closed"), cloudlet=Cloudlet("closed", "north", is_open=False))
    mute = replace(_candidate("mute"), report=None)
    everybody = [far, south, full, closed, mute]
    where = Constraints(region="north", near=Near(NA(7), 5))
    text = _text(choose(replace(WISH, constraints=where), ANN, everybody, 0))
    for part in (
        "far: 9 hops away; allowed: 5",
        "south: in region south, not north",
        "full: not enough milli_cpus",
        "closed: closed",
        "mute: it has not reported",
    ):
        assert part in text
    assert _names(choose(replace(WISH, constraints=where), ANN, [*everybody, _candidate("ok")], 0))
    only = replace(WISH, constraints=Constraints(cloudlet="far"))
    assert _names(choose(only, ANN, everybody, 0)) == ["far"]
    assert "far: asked already" in _text(choose(only, ANN, everybody, 0, ["far"]))
    assert _text(choose(WISH, ANN, [], 0)) == "no cloudlet is registered"
    there = replace(WISH, constraints=Constraints(cloudlet="c9", region="south"))
    assert _text(choose(there, ANN, [], 0)) == "no cloudlet 'c9' is registered in region 'south'"


@pytest.mark.parametrize(("age", "is_fresh"), [(FRESH_MS, True), (FRESH_MS + 1, False)])
def test_an_old_report_gets_nothing_new(age: int, is_fresh: bool) -> None:
    """What a cloudlet has is not known any more."""
    found = choose(replace(WISH, slot=Slot(age, age + HOUR_MS)), ANN, [_candidate("a")], age)
    assert isinstance(found, Quote) is is_fresh


def test_near_a_host_is_near_the_router_where_it_is() -> None:
    """Attached here, or at an NA that is known; else nobody is near."""
    a = _candidate("a", hops=3)
    assert a.report is not None
    b = replace(_candidate("b"), report=replace(a.report, cloudlet="b", hosts=(HOST,)))
    near = replace(WISH, constraints=Constraints(near=Near(HOST)))
    assert _names(choose(near, ANN, [a, b], 0)) == ["b"]
    assert f"no router of a cloudlet here has a host {HOST.hex}" in _text(choose(near, ANN, [a], 0))
    assert why_nowhere(near, ANN, [a], 0) == _text(choose(near, ANN, [a], 0))
    assert why_nowhere(near, ANN, [a, b], 0) == ""
    far = replace(ANN, host_addresses={HOST: NA(8)})
    assert "not known how far" in _text(choose(near, far, [a], 0))
    known = replace(ANN, host_addresses={HOST: NA(7)})
    assert _names(choose(near, known, [a], 0)) == ["a"]
    here = replace(WISH, constraints=Constraints(near=Near(a.report.na or NA(0), 0)))
    assert _names(choose(here, ANN, [a], 0)) == ["a"]


def test_the_policy_is_replaceable() -> None:
    """Nearest, cheapest, least loaded, or anybody's own."""
    near = _candidate("near", 2000, hops=1, reserved=1000)
    cheap = _candidate("cheap", 8000, hops=2, reserved=7000)
    idle = _candidate("idle", 2000, hops=3)
    wish = replace(WISH, constraints=Constraints(near=Near(NA(7))))
    everybody = [idle, cheap, near]
    assert _names(choose(wish, ANN, everybody, 0)) == ["near"]
    assert _names(choose(wish, replace(ANN, policy=cheapest), everybody, 0)) == ["cheap"]
    assert _names(choose(wish, replace(ANN, policy=least_loaded), everybody, 0)) == ["idle"]
    last = replace(ANN, policy=lambda options: options[::-1])
    assert _names(choose(wish, last, everybody, 0)) == ["idle"]


def test_a_spread_reservation_has_parts_as_even_as_its_number_allows() -> None:
    """5 VIs over 2 cloudlets: 3 where there is room for 3, 2 on the other one."""
    wish = Wish("small", 5, SLOT, Constraints(spread=2))
    small, large = _candidate("a", 2000), _candidate("b", 4000)
    found = choose(wish, ANN, [small, large], 0)
    assert isinstance(found, Quote)
    assert {part.cloudlet: part.count for part in found.terms.parts} == {"a": 2, "b": 3}
    assert "1 of 2 cloudlets have room" in _text(choose(wish, ANN, [large], 0))
    assert isinstance(choose(wish, ANN, [small, _candidate("c", 2000)], 0), NoPlace)


def test_a_price_above_the_highest_is_not_offered() -> None:
    """At the limit it is."""
    price = choose(WISH, ANN, [_candidate("a")], 0)
    assert isinstance(price, Quote)
    most = price.total_micros
    one = [_candidate("a")]
    assert isinstance(choose(replace(WISH, max_price_micros=most), ANN, one, 0), Quote)
    text = _text(choose(replace(WISH, max_price_micros=most - 1), ANN, one, 0))
    assert "max_price_micros" in text and "0.002000 EUR" in text


def test_what_the_tenant_holds_makes_it_dearer() -> None:
    """The share is of the time of the slot at which it holds most."""
    other = _candidate("a", holds=((0, 3 * HOUR_MS, 2),))
    assert choose(WISH, ANN, [other], 0).total_micros == 2000  # type: ignore[union-attr]
    bob = replace(ANN, tenant="bob")
    assert choose(WISH, bob, [other], 0).total_micros == 4000  # type: ignore[union-attr]
    isp = replace(bob, is_third_party=False)
    assert choose(WISH, isp, [other], 0).total_micros == 2000  # type: ignore[union-attr]


def test_the_earliest_begin_is_of_all_cloudlets_that_are_needed() -> None:
    """One: the first that gets free; two: when both have room at the same time."""
    a = _candidate("a", 2000, holds=((0, 3 * HOUR_MS, 1), (5 * HOUR_MS, 9 * HOUR_MS, 1)))
    b = _candidate("b", 2000, holds=((0, 4 * HOUR_MS, 1),))
    found = earliest(WISH, ANN, [a, b], 0, MAX_AHEAD_MS)
    assert found == Slot(3 * HOUR_MS, 4 * HOUR_MS)
    spread = Wish("small", 4, Slot(HOUR_MS, 3 * HOUR_MS), Constraints(spread=2))
    assert earliest(spread, ANN, [a, b], 0, MAX_AHEAD_MS) == Slot(9 * HOUR_MS, 11 * HOUR_MS)
    assert earliest(spread, ANN, [a, b], 0, 9 * HOUR_MS - 1) is None
    assert earliest(spread, ANN, [a], 0, MAX_AHEAD_MS) is None
    uneven = replace(spread, count=3)
    assert earliest(uneven, ANN, [a, b], 0, MAX_AHEAD_MS) == Slot(3 * HOUR_MS, 5 * HOUR_MS)


def _confirmed(candidate: Candidate, wish: Wish) -> Reservation:
    found = choose(wish, ANN, [candidate], 0)
    assert isinstance(found, Quote)
    reservation, _ = request("r1", "ann", True, wish, 0)
    reservation, _ = handle(reservation, Chosen(found.terms), 0, LifeLimits())
    told = reservation.pending[0]
    answer = Answered(told.cloudlet, told.number, True)
    reservation, _ = handle(reservation, answer, 0, LifeLimits())
    for hold in reservation.holds:
        candidate.calendar.add(hold)
    return reservation


def test_a_change_counts_its_own_places_as_free() -> None:
    """Growing within what is left works, beyond it is refused, the calendar stays as it was."""
    a = _candidate("a", holds=((0, 9 * HOUR_MS, 1),))
    reservation = _confirmed(a, WISH)
    calendars = {"a": a.calendar}
    grown = change(reservation, replace(WISH, count=3), ANN, calendars, 0)
    assert isinstance(grown, Quote) and grown.terms.parts[0].count == 3
    assert "not enough" in _text(change(reservation, replace(WISH, count=4), ANN, calendars, 0))
    longer = replace(WISH, slot=Slot(HOUR_MS, 8 * HOUR_MS))
    assert isinstance(change(reservation, longer, ANN, calendars, 0), Quote)
    assert a.calendar.held_by("ann", SLOT) == Resources(2000)


def test_who_gives_back_needs_no_room() -> None:
    """After nodes were lost a reservation can still have fewer VIs, or end earlier; not more."""
    candidate = _candidate("c1", cpus=4000)
    reservation = _confirmed(candidate, WISH)
    candidate.calendar.change_rooms(())
    calendars = {"c1": candidate.calendar}
    assert isinstance(change(reservation, replace(WISH, count=1), ANN, calendars, 0), Quote)
    shorter = replace(WISH, slot=Slot(SLOT.begin_ms, SLOT.end_ms - 1))
    assert isinstance(change(reservation, shorter, ANN, calendars, 0), Quote)
    longer = replace(WISH, count=1, slot=Slot(SLOT.begin_ms, SLOT.end_ms + 1))
    assert "not enough" in _text(change(reservation, longer, ANN, calendars, 0))


def test_reasons_and_options_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many cloudlets are named, then `and more`; so many are looked into."""
    for number in (MAX_REASONS_COUNT, MAX_REASONS_COUNT + 1, MAX_REASONS_COUNT + 5):
        many = [_candidate(f"c{n}", 1) for n in range(number)]
        text = _text(choose(WISH, ANN, many, 0))
        assert text.count("not enough") <= MAX_REASONS_COUNT
        assert ("and more" in text) is (number > MAX_REASONS_COUNT) or len(text) == 1000
    monkeypatch.setattr(choice, "MAX_OPTIONS_COUNT", 2)
    seen: list[int] = []
    policy = lambda options: (seen.append(len(options)), options)[1]  # noqa: E731
    choose(WISH, replace(ANN, policy=policy), [_candidate(f"c{n}") for n in range(3)], 0)
    choose(WISH, replace(ANN, policy=policy), [_candidate(f"c{n}") for n in range(2)], 0)
    assert seen == [2, 2]


def test_a_reservation_is_the_same_after_its_document() -> None:
    """Everything that is kept comes back; what cannot be is refused by its place."""
    wish = Wish(
        "small",
        2,
        Slot(HOUR_MS, 2 * HOUR_MS, Repeat(Every.DAY, 2)),
        Constraints(near=Near(HOST), spread=2),
        "translate",
        10**9,
    )
    found = choose(
        wish, replace(ANN, host_addresses={HOST: NA(7)}), [_candidate("a"), _candidate("b")], 0
    )
    assert isinstance(found, Quote)
    reservation, _ = request("r1", "ann", True, wish, 0)
    reservation, _ = handle(reservation, Chosen(found.terms), 0, LifeLimits())
    document = to_document(reservation)
    assert from_document(Reservation, document) == reservation
    by_address = replace(wish, constraints=Constraints(near=Near(NA(3))))
    assert from_document(Wish, to_document(by_address)) == by_address
    for place, wrong in (
        (("wish", "count"), 0.5),
        (("wish", "slot", "end_ms"), True),
        (("wish", "slot", "repeat", "every"), "year"),
        (("wish", "service"), 1),
        (("state",), "gone"),
        (("terms",), {}),
        (("passed",), [1]),
        (("surprise",), 1),
    ):
        broken = to_document(reservation)
        table = broken
        for key in place[:-1]:
            table = table[key]
        table[place[-1]] = wrong
        with pytest.raises(InvalidValueError, match=place[-1]):
            from_document(Reservation, broken)
    with pytest.raises(InvalidValueError, match=r"wish.count = missing"):
        from_document(Wish, {"vi_type": "small"})
    with pytest.raises(InvalidValueError, match="an object"):
        from_document(Wish, [])
    with pytest.raises(TypeError):
        to_document(1.5)
