"""What is kept of reservations, usage and bills, as the API shows it; quotes and the calendar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from packetcloud.domain_controller.api import answered as say
from packetcloud.domain_controller.api.asked import AdviceAsked
from packetcloud.domain_controller.api.kept_registry import (
    KeptRegistry,
    cursor_of,
    cut,
    place_of,
)
from packetcloud.domain_controller.api.port import AbsentError, Page
from packetcloud.domain_controller.core import choice
from packetcloud.domain_controller.core.advice import advise
from packetcloud.domain_controller.core.bills import Bill
from packetcloud.domain_controller.core.calendar import Calendar
from packetcloud.domain_controller.core.checks import shown
from packetcloud.domain_controller.core.choice import FRESH_MS, Asker, Candidate, NoPlace
from packetcloud.domain_controller.core.cloudlets import Cloudlet
from packetcloud.domain_controller.core.documents import to_document
from packetcloud.domain_controller.core.packing import rooms_of
from packetcloud.domain_controller.core.prices import Price, PriceList
from packetcloud.domain_controller.core.principals import Role
from packetcloud.domain_controller.core.quotes import Quote, quote
from packetcloud.domain_controller.core.reservations import State
from packetcloud.domain_controller.core.slots import Slot, check_ahead
from packetcloud.domain_controller.core.usage import RecordSignature, UsageRecord
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.errors import InvalidValueError
from packetcloud.domain_controller.state import (
    bills,
    catalogue,
    holds,
    operations,
    registry,
    reservations,
    usage,
)
from packetcloud.domain_controller.state.booking import World
from packetcloud.domain_controller.state.errors import ConflictError
from packetcloud.domain_controller.state.reports import Reports
from packetcloud.domain_controller.state.reservations import Kept

MAX_OTHERS_COUNT = 16
"""VI types beside the one that was asked about of which a quote says what they cost."""


class KeptPlaces(KeptRegistry):
    """Readings about places and money. Used by several threads."""

    def quote(self, owner: str, wish: Wish, now_ms: int) -> say.QuoteInfo:
        check_ahead(wish.slot, now_ms)
        with self._database.reading() as connection:
            world = read_world(connection, self._reports, now_ms)
            is_third_party = is_tenant(connection, owner)
            candidates = _candidates(connection, world, wish, now_ms)
        asker = asker_of(world, owner, is_third_party, wish)
        found = choice.choose(wish, asker, candidates, now_ms)
        others = []
        for name in sorted(set(world.types) - {wish.vi_type})[:MAX_OTHERS_COUNT]:
            other = replace(wish, vi_type=name, max_price_micros=None)
            try:
                one = choice.choose(
                    other, replace(asker, vi_type=world.types[name]), candidates, now_ms
                )
            except InvalidValueError:
                continue  # the price list has no price for it
            if isinstance(one, Quote):
                others.append(say.AdviceInfo(vi_type=name, total_micros=one.total_micros))
        others.sort(key=lambda one: one.total_micros)
        if isinstance(found, NoPlace):
            return say.QuoteInfo(is_possible=False, why=found.text, offer=None, others=others)
        return say.QuoteInfo(is_possible=True, why="", offer=offer_info(found), others=others)

    def ways(self, wanted: AdviceAsked, now_ms: int) -> say.WaysInfo:
        with self._database.reading() as connection:
            prices = find_prices(connection, now_ms)
            types = registry.vi_types(connection)
        found = advise(
            wanted.chunks_per_s,
            wanted.to_measured(),
            types,
            prices,
            reserve_permille=wanted.reserve_permille,
        )
        return say.WaysInfo(
            ways=[
                say.WayInfo(
                    vi_type=one.vi_type,
                    count=one.count,
                    chunks_per_s=one.chunks_per_s,
                    micros_per_hour=one.micros_per_hour,
                )
                for one in found
            ],
            currency=prices.currency.code,
            price_list=f"{prices.name} {prices.version}",
        )

    def when(self, owner: str, wish: Wish, until_ms: int, now_ms: int) -> say.WhenInfo:
        with self._database.reading() as connection:
            world = read_world(connection, self._reports, now_ms)
            is_third_party = is_tenant(connection, owner)
            candidates = _candidates(connection, world, wish, now_ms)
        asker = asker_of(world, owner, is_third_party, wish)
        slot = choice.earliest(wish, asker, candidates, now_ms, until_ms)
        if slot is None:
            nowhere = choice.why_nowhere(wish, asker, candidates, now_ms)
            why = nowhere or f"no cloudlet has room with a begin until {until_ms}"
            return say.WhenInfo(begin_ms=None, offer=None, why=why)
        found = choice.choose(replace(wish, slot=slot), asker, candidates, now_ms)
        if isinstance(found, NoPlace):
            return say.WhenInfo(begin_ms=None, offer=None, why=found.text)
        return say.WhenInfo(begin_ms=slot.begin_ms, offer=offer_info(found), why="")

    def reservations(
        self, owner: str | None, states: Sequence[str], page: Page
    ) -> say.ReservationPage:
        wanted = [State(one) for one in states]
        before = place_of(page.cursor)
        with self._database.reading() as connection:
            found = reservations.listed(connection, owner, wanted, before, page.limit + 1)
            some, cursor = cut(found, page, _cursor_of_kept)
            away = self._away()
            shown = [reservation_info(connection, one, away) for one in some]
        return say.ReservationPage(reservations=shown, cursor=cursor)

    def reservation(self, owner: str | None, reservation_id: str) -> say.ReservationInfo:
        with self._database.reading() as connection:
            kept = find_kept(connection, owner, reservation_id)
            return reservation_info(connection, kept, self._away())

    def _away(self) -> dict[str, int]:
        """Return when cloudlets that are away were last heard of."""
        now_ms = self.clock_ms()
        return {
            name: report.received_at_ms
            for name, report in self._reports.all().items()
            if report.age_ms(now_ms) > FRESH_MS
        }

    def terms(self, owner: str | None, reservation_id: str) -> say.TermsInfo:
        with self._database.reading() as connection:
            kept = find_kept(connection, owner, reservation_id)
        return say.TermsInfo(terms=[to_document(one) for one in kept.reservation.terms])

    def usage(
        self, owner: str | None, reservation_id: str | None, bill: int | None, page: Page
    ) -> say.UsagePage:
        with self._database.reading() as connection:
            found = usage.signed_of_owner(
                connection, owner, reservation_id, bill, _record_after(page.cursor), page.limit + 1
            )
        some, cursor = cut(
            found, page, lambda one: f"{one[0].cloudlet}:{one[0].meter}:{one[0].number}"
        )
        return say.UsagePage(records=[usage_info(*one) for one in some], cursor=cursor)

    def bills(self, owner: str | None, page: Page) -> say.BillPage:
        with self._database.reading() as connection:
            found = bills.bills(connection, owner)
        names = [bill_id(one) for one in found]
        start = names.index(page.cursor) + 1 if page.cursor in names else 0
        some, cursor = cut(found[start:], page, bill_id)
        return say.BillPage(bills=[bill_summary(one) for one in some], cursor=cursor)

    def bill(self, owner: str | None, bill_id: str) -> say.BillInfo:
        tenant, _, number = bill_id.rpartition("-")
        found = None
        if owner in (None, tenant) and number.isdecimal() and len(number) <= 9:
            with self._database.reading() as connection:
                found = bills.find_bill(connection, tenant, int(number))
        if found is None:
            raise AbsentError(f"there is no bill {bill_id!r}; see: packetcloud bill list")
        return bill_info(found)


def read_world(connection: Connection, reports: Reports, now_ms: int) -> World:
    """Return what offers are made of.

    Raises:
        ConflictError: there are no prices yet.
    """
    prices = find_prices(connection, now_ms)
    cloudlets: dict[str, Cloudlet] = {}
    last = ""
    while some := registry.cloudlets(connection, last):
        cloudlets |= {one.name: one for one in some}
        last = some[-1].name
    types, addresses = registry.vi_types(connection), reports.host_addresses
    return World(types, prices, cloudlets, reports.all(), host_addresses=addresses)


def find_prices(connection: Connection, now_ms: int) -> PriceList:
    """Return the price list of a time.

    Raises:
        ConflictError: there are no prices yet.
    """
    prices = catalogue.price_list_at(connection, now_ms)
    if prices is None:
        raise ConflictError(
            "the domain has no price list, so nothing can be offered; its operator adds one: "
            "price_lists in its config file"
        )
    return prices


def is_tenant(connection: Connection, name: str) -> bool:
    """Tell whether somebody is a third party."""
    principal = registry.find_principal(connection, name)
    return principal is None or principal.role is Role.TENANT


def asker_of(world: World, owner: str, is_third_party: bool, wish: Wish) -> Asker:
    """Return who asks, as the core's choice wants it.

    Raises:
        InvalidValueError: there is no such VI type.
    """
    vi_type = world.types.get(wish.vi_type)
    if vi_type is None:
        allowed = ", ".join(sorted(world.types)) or "none yet; see: packetcloud vi-type set"
        raise InvalidValueError("vi_type", shown(wish.vi_type), allowed)
    addresses = world.host_addresses
    return Asker(owner, is_third_party, vi_type, world.prices, world.policy, addresses)


def find_kept(connection: Connection, owner: str | None, name: str) -> Kept:
    """Raises: AbsentError."""
    found = reservations.find(connection, name, owner)
    if found is None:
        raise AbsentError(f"there is no reservation {name!r}; see: packetcloud reservation list")
    return found


def reservation_info(
    connection: Connection, kept: Kept, away: Mapping[str, int]
) -> say.ReservationInfo:
    """Return what is told of a reservation.

    Args:
        away: when cloudlets that are away were last heard of.
    """
    one = kept.reservation
    wish, terms = one.wish, one.terms[-1] if one.terms else None
    price = None if terms is None else quote(terms, one.created_ms).total_micros
    last = operations.last_of(connection, one.name)
    return say.ReservationInfo(
        id=one.name,
        owner=one.tenant,
        state=one.state.value,
        version=kept.version,
        vi_type=wish.vi_type,
        count=wish.count,
        slot=slot_info(wish.slot),
        service=wish.service,
        places=[
            say.PlaceInfo(
                cloudlet=part.cloudlet,
                count=part.count,
                away_since_ms=away.get(part.cloudlet)
                if one.state in (State.CONFIRMED, State.ACTIVE)
                else None,
            )
            for part in (terms.parts if terms is not None else ())
        ],
        price_micros=price,
        currency=None if terms is None else terms.currency.code,
        price_list=None if terms is None else f"{terms.list_name} {terms.list_version}",
        why=one.text,
        made_ms=kept.made_ms,
        changed_ms=one.since_ms,
        operation=None if last is None else last.id,
    )


def slot_info(slot: Slot) -> say.SlotInfo:
    repeat = slot.repeat
    return say.SlotInfo(
        begin_ms=slot.begin_ms,
        end_ms=slot.end_ms,
        repeat=None
        if repeat is None
        else say.RepeatInfo(every=repeat.every.value, count=repeat.count, until_ms=repeat.until_ms),
    )


def offer_info(found: Quote) -> say.OfferInfo:
    terms = found.terms
    return say.OfferInfo(
        places=[say.PlaceInfo(cloudlet=one.cloudlet, count=one.count) for one in terms.parts],
        lines=[
            say.PriceLineInfo(
                cloudlet=line.cloudlet,
                vi_type=terms.vi_type,
                count=line.count,
                vi_ms=line.vi_ms,
                factor_permille=line.factor_permille,
                amount_micros=line.micros,
            )
            for line in found.lines
        ],
        total_micros=found.total_micros,
        chunk_price=_unit_price(terms.chunk_price),
        byte_price=_unit_price(terms.byte_price),
        currency=terms.currency.code,
        price_list=f"{terms.list_name} {terms.list_version}",
    )


def _unit_price(price: Price) -> say.UnitPriceInfo:
    return say.UnitPriceInfo(micros=price.micros, units=price.units)


def usage_info(record: UsageRecord, signature: RecordSignature | None) -> say.UsageInfo:
    return say.UsageInfo(
        cloudlet=record.cloudlet,
        meter=record.meter,
        number=record.number,
        previous=record.previous.hex(),
        reservation=record.reservation,
        terms=record.terms,
        kind=record.kind.value,
        begin_ms=record.begin_ms,
        end_ms=record.end_ms,
        quantity=record.quantity,
        digest=record.digest.hex(),
        signature=signature.signature.hex() if signature is not None else None,
        public_key=signature.public_key.hex() if signature is not None else None,
    )


def bill_id(bill: Bill) -> str:
    return f"{bill.tenant}-{bill.number}"


def bill_summary(bill: Bill) -> say.BillSummary:
    return say.BillSummary(
        id=bill_id(bill),
        tenant=bill.tenant,
        number=bill.number,
        begin_ms=bill.begin_ms,
        end_ms=bill.end_ms,
        total_micros=bill.total_micros,
        currency=bill.currency.code,
        digest=bill.digest.hex(),
    )


def bill_info(bill: Bill) -> say.BillInfo:
    return say.BillInfo(**bill_summary(bill).model_dump(), document=to_document(bill))


def _cursor_of_kept(kept: Kept) -> str:
    return cursor_of(kept.made_ms, kept.reservation.name)


def _candidates(connection: Connection, world: World, wish: Wish, now_ms: int) -> list[Candidate]:
    """Return the cloudlets that a wish may lead to, with what they hold as this reading sees it."""
    found = []
    for name in world.could_take(wish):
        cloudlet, report = world.cloudlets[name], world.reports.get(name)
        rooms = rooms_of(report, cloudlet.isp_share_permille) if report is not None else ()
        held = holds.of_cloudlet(connection, name, now_ms)
        found.append(Candidate(cloudlet, report, Calendar(rooms, world.types, held)))
    return found


def _record_after(cursor: str | None) -> tuple[str, str, int]:
    cloudlet, _, rest = (cursor or "").partition(":")
    meter, _, number = rest.rpartition(":")
    return cloudlet, meter, int(number) if number.isdecimal() and len(number) <= 16 else 0
