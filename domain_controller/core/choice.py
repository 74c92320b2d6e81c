"""Which cloudlets get a reservation, and when it would fit. The order of preference is replaceable.

Source: docs/decisions/0015-domain-controller.md; docs/reference/reservations.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from packetcloud.chunk.names import GUID, NA
from packetcloud.domain_controller.core.calendar import MAX_SEARCH_STEPS, Calendar, Demand
from packetcloud.domain_controller.core.cloudlets import Cloudlet, CloudletReport
from packetcloud.domain_controller.core.money import format_money
from packetcloud.domain_controller.core.prices import PriceList
from packetcloud.domain_controller.core.quotes import Quote, Share, make_terms, quote
from packetcloud.domain_controller.core.reservations import Reservation
from packetcloud.domain_controller.core.resources import ViType
from packetcloud.domain_controller.core.slots import SECOND_MS, Slot
from packetcloud.domain_controller.core.wishes import Near, Wish

MAX_OPTIONS_COUNT = 64
"""Cloudlets with room that a policy chooses among, nearest first: more are not looked into."""
MAX_REASONS_COUNT = 16
"""Cloudlets of which a refusal says why they are not possible."""
FRESH_MS = 30 * SECOND_MS
"""A cloudlet whose last report is older gets nothing new: some reports were missed."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cloudlet that may get a reservation."""

    cloudlet: Cloudlet
    report: CloudletReport | None
    calendar: Calendar


@dataclass(frozen=True, slots=True)
class Option:
    """A cloudlet that has room for a part of a reservation.

    Attributes:
        hops: to what the VIs should be near; 0 if that was not asked for.
        micros: what the time of the larger part would cost there.
        load_permille: what is reserved there by the last report, of what it has most of.
        has_room_for_more: it has room for the larger of two parts.
    """

    candidate: Candidate
    hops: int
    micros: int
    load_permille: int
    has_room_for_more: bool

    @property
    def name(self) -> str:
        return self.candidate.cloudlet.name


Policy = Callable[[Sequence[Option]], Sequence[Option]]
"""Sorts cloudlets that have room, the one to be taken first in front."""


def nearest(options: Sequence[Option]) -> Sequence[Option]:
    """Fewest hops; among equals the cheapest, then the least loaded."""
    return sorted(options, key=lambda one: (one.hops, one.micros, one.load_permille, one.name))


def cheapest(options: Sequence[Option]) -> Sequence[Option]:
    """Lowest price; among equals the fewest hops, then the least loaded."""
    return sorted(options, key=lambda one: (one.micros, one.hops, one.load_permille, one.name))


def least_loaded(options: Sequence[Option]) -> Sequence[Option]:
    """Smallest share reserved; among equals the fewest hops, then the cheapest."""
    return sorted(options, key=lambda one: (one.load_permille, one.hops, one.micros, one.name))


POLICIES: dict[str, Policy] = {
    "nearest": nearest,
    "cheapest": cheapest,
    "least-loaded": least_loaded,
}


@dataclass(frozen=True, slots=True)
class NoPlace:
    """Nothing can be offered; the text says why, cloudlet by cloudlet."""

    text: str


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and what holds for all that is asked.

    Attributes:
        is_third_party: False: the ISP itself, which has its share and no tiers.
        host_addresses: the NA of hosts that no report shows.
    """

    tenant: str
    is_third_party: bool
    vi_type: ViType
    prices: PriceList
    policy: Policy = nearest
    host_addresses: Mapping[GUID, NA] = field(default_factory=dict)


def choose(
    wish: Wish,
    asker: Asker,
    candidates: Collection[Candidate],
    now_ms: int,
    passed: Collection[str] = (),
) -> Quote | NoPlace:
    """Return what is offered: parts on cloudlets that have room, and their price.

    Raises:
        InvalidValueError: there is no price for the VI type.
    """
    larger, smaller, extra = _parts(wish)
    options: list[Option] = []
    reasons: list[str] = []
    quotes: dict[tuple[str, int], Quote] = {}
    possible = _possible(wish, asker, candidates, now_ms, passed, reasons)
    for hops, candidate in possible:
        conflict = candidate.calendar.conflict(_demand(asker, smaller), wish.slot, now_ms)
        if conflict is not None:
            _note(reasons, candidate.cloudlet.name, conflict.text)
            continue
        has_more = larger == smaller or not candidate.calendar.conflict(
            _demand(asker, larger), wish.slot, now_ms
        )
        count = larger if has_more else smaller
        one = _quote(wish, asker, [(candidate, count)], now_ms)
        quotes[candidate.cloudlet.name, count] = one
        options.append(Option(candidate, hops, one.total_micros, _load(candidate), has_more))
        if len(options) >= MAX_OPTIONS_COUNT:
            break
    if not possible and (unknown := _unknown_host(wish, asker, candidates)):
        return NoPlace(unknown)
    if not options and not reasons:
        named, region = wish.constraints.cloudlet, wish.constraints.region
        which = f" {named!r}" if named is not None else ""
        where = f" in region {region!r}" if region is not None else ""
        return NoPlace(f"no cloudlet{which} is registered{where}")
    chosen = _assign(asker.policy(options), wish.constraints.spread, larger, smaller, extra)
    if chosen is None:
        spread = wish.constraints.spread
        what = f"{len(options)} of {spread} cloudlets have room: " if spread > 1 else ""
        return NoPlace((what + "; ".join(reasons))[:1000])
    name, count = chosen[0][0].cloudlet.name, chosen[0][1]
    offer = quotes[name, count] if len(chosen) == 1 else _quote(wish, asker, chosen, now_ms)
    most = wish.max_price_micros
    if most is not None and offer.total_micros > most:
        currency = asker.prices.currency
        price = format_money(offer.total_micros, currency, is_exact=True)
        return NoPlace(
            f"it would cost {price}, more than max_price_micros = {most} "
            f"({format_money(most, currency, is_exact=True)})"
        )
    return offer


def earliest(
    wish: Wish,
    asker: Asker,
    candidates: Iterable[Candidate],
    now_ms: int,
    latest_begin_ms: int,
) -> Slot | None:
    """Return the slot with the earliest begin at which there would be room; None: not by then."""
    larger, smaller, extra = _parts(wish)
    possible = [one for _, one in _possible(wish, asker, candidates, now_ms, (), [])]
    spread = wish.constraints.spread
    slot = wish.slot.moved_to(max(now_ms, wish.slot.begin_ms))
    for _ in range(MAX_SEARCH_STEPS):
        begins = _begins(possible, _demand(asker, smaller), slot, now_ms, latest_begin_ms)
        if len(begins) < spread:
            return None
        begin = begins[spread - 1]
        if extra:
            more = _begins(possible, _demand(asker, larger), slot, now_ms, latest_begin_ms)
            if len(more) < extra:
                return None
            begin = max(begin, more[extra - 1])
        # Before this no set of cloudlets is large enough; at it, those that fitted earlier must
        # still fit.
        if begin == slot.begin_ms:
            return slot
        slot = slot.moved_to(begin)
    return None


def why_nowhere(wish: Wish, asker: Asker, candidates: Collection[Candidate], now_ms: int) -> str:
    """Return why no cloudlet is possible, whatever room there is; empty: one is."""
    reasons: list[str] = []
    if _possible(wish, asker, candidates, now_ms, (), reasons):
        return ""
    return (_unknown_host(wish, asker, candidates) or "; ".join(reasons))[:1000]


def change(
    reservation: Reservation,
    wish: Wish,
    asker: Asker,
    calendars: Mapping[str, Calendar],
    now_ms: int,
) -> Quote | NoPlace:
    """Return the price of an extension or a resize, on the cloudlets that have it already.

    `calendars` are those of its cloudlets; its own holds are in them, and stay there.
    """
    cloudlets = [part.cloudlet for part in reservation.terms[-1].parts]
    if wish.count < len(cloudlets):
        return NoPlace(f"count = {wish.count}; allowed: at least one VI on each of {cloudlets}")
    count, extra = divmod(wish.count, len(cloudlets))
    shares: list[Share] = []
    reasons: list[str] = []
    own = reservation.holds
    before = reservation.wish
    # Who gives something back needs no room, also where nodes were lost.
    is_less = wish.count <= before.count and wish.slot.last_end_ms <= before.slot.last_end_ms
    for number, name in enumerate(cloudlets):
        calendar = calendars[name]
        part = count + (number < extra)
        mine = [hold for hold in own if hold.cloudlet == name]
        for hold in mine:
            calendar.remove(hold)
        conflict = None if is_less else calendar.conflict(_demand(asker, part), wish.slot, now_ms)
        shares.append(_share(name, part, calendar, wish, asker, now_ms))
        for hold in mine:
            calendar.add(hold)
        if conflict is not None:
            _note(reasons, name, conflict.text)
    if reasons:
        return NoPlace("; ".join(reasons)[:1000])
    return quote(make_terms(asker.prices, asker.vi_type, wish.slot, shares), now_ms)


def hops_to(near: Near, candidate: Candidate, host_addresses: Mapping[GUID, NA]) -> int | None:
    """Return how far a cloudlet is from what VIs should be near; None: unknown."""
    report = candidate.report
    if report is None:
        return None
    target = near.target
    if isinstance(target, GUID):
        if target in report.hosts:
            return 0
        address = host_addresses.get(target)
        if address is None:
            return None
        target = address
    if target == report.na:
        return 0
    return next((one.hops for one in report.distances if one.na == target), None)


def _possible(
    wish: Wish,
    asker: Asker,
    candidates: Iterable[Candidate],
    now_ms: int,
    passed: Collection[str],
    reasons: list[str],
) -> list[tuple[int, Candidate]]:
    """Return the cloudlets that constraints and reports leave, with their hops, nearest first."""
    possible = []
    for candidate in candidates:
        hops = 0
        why = _why_not(wish, candidate, now_ms, passed)
        if why is None and (near := wish.constraints.near) is not None:
            distance = hops_to(near, candidate, asker.host_addresses)
            if distance is None:
                why = "it is not known how far away it is"
            elif distance > near.max_hops:
                why = f"{distance} hops away; allowed: {near.max_hops}"
            else:
                hops = distance
        if why is None:
            possible.append((hops, candidate))
        else:
            _note(reasons, candidate.cloudlet.name, why)
    return sorted(possible, key=lambda pair: pair[0])


def _unknown_host(wish: Wish, asker: Asker, candidates: Iterable[Candidate]) -> str:
    """Return that nobody knows the host that VIs should be near; empty: somebody does."""
    near = wish.constraints.near
    if near is None or not isinstance(near.target, GUID) or near.target in asker.host_addresses:
        return ""
    if any(near.target in one.report.hosts for one in candidates if one.report is not None):
        return ""
    return (
        f"near: no router of a cloudlet here has a host {near.target.hex}; attach it, or name the "
        "NA of a router that it is near to"
    )


def _why_not(wish: Wish, candidate: Candidate, now_ms: int, passed: Collection[str]) -> str | None:
    cloudlet, report = candidate.cloudlet, candidate.report
    constraints = wish.constraints
    if constraints.cloudlet not in (None, cloudlet.name):
        return f"not {constraints.cloudlet}"
    if constraints.region not in (None, cloudlet.region):
        return f"in region {cloudlet.region}, not {constraints.region}"
    if cloudlet.name in passed:
        return "asked already"
    if not cloudlet.is_open:
        return "closed for new reservations"
    if report is None:
        return "it has not reported yet"
    age_ms = report.age_ms(now_ms)
    if age_ms > FRESH_MS:
        return f"its last report is {age_ms // 1000} s old; allowed: {FRESH_MS // 1000}"
    return None


def _parts(wish: Wish) -> tuple[int, int, int]:
    """Return the sizes of larger and smaller parts, and how many are larger."""
    smaller, extra = divmod(wish.count, wish.constraints.spread)
    return smaller + (extra > 0), smaller, extra


def _assign(
    options: Sequence[Option], spread: int, larger: int, smaller: int, extra: int
) -> list[tuple[Candidate, int]] | None:
    """Give parts to cloudlets in the order of preference; None: there are too few."""
    with_more = [one for one in options if one.has_room_for_more][:extra]
    others = [one for one in options if one not in with_more][: spread - extra]
    if len(with_more) < extra or len(others) < spread - extra:
        return None
    return [(one.candidate, larger) for one in with_more] + [
        (one.candidate, smaller) for one in others
    ]


def _begins(
    candidates: Iterable[Candidate], demand: Demand, slot: Slot, now_ms: int, latest_ms: int
) -> list[int]:
    slots = (one.calendar.earliest(demand, slot, now_ms, latest_ms) for one in candidates)
    return sorted(slot.begin_ms for slot in slots if slot is not None)


def _quote(wish: Wish, asker: Asker, parts: Iterable[tuple[Candidate, int]], now_ms: int) -> Quote:
    shares = [
        _share(one.cloudlet.name, count, one.calendar, wish, asker, now_ms) for one, count in parts
    ]
    return quote(make_terms(asker.prices, asker.vi_type, wish.slot, shares), now_ms)


def _share(
    cloudlet: str, count: int, calendar: Calendar, wish: Wish, asker: Asker, now_ms: int
) -> Share:
    if not asker.is_third_party:
        return Share(cloudlet, count)
    held = calendar.held_by(asker.tenant, wish.slot, now_ms)
    return Share(cloudlet, count, held, calendar.for_third_parties)


def _load(candidate: Candidate) -> int:
    assert candidate.report is not None
    capacity = candidate.report.capacity.amounts
    reserved = [0, 0, 0, 0]
    for node in candidate.report.nodes:
        for kind, amount in enumerate(node.reserved.amounts):
            reserved[kind] += amount
    pairs = zip(reserved, capacity, strict=True)
    return max(part * 1000 // whole if whole else 0 for part, whole in pairs)


def _demand(asker: Asker, count: int) -> Demand:
    return Demand(asker.vi_type.name, count, asker.is_third_party)


def _note(reasons: list[str], cloudlet: str, text: str) -> None:
    if len(reasons) < MAX_REASONS_COUNT:
        reasons.append(f"{cloudlet}: {text}")
    elif len(reasons) == MAX_REASONS_COUNT:
        reasons.append("and more")
