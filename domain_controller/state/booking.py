"""One step of a reservation in one transaction: the core decides, and what it decides is kept.

Places are looked for under the locks of all cloudlets that could be taken, and held before these
locks are given back: looking and holding cannot come apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from packetcloud.chunk.names import GUID, NA
from packetcloud.domain_controller.core import life
from packetcloud.domain_controller.core.checks import shown
from packetcloud.domain_controller.core.choice import (
    Asker,
    Candidate,
    NoPlace,
    Policy,
    choose,
    nearest,
)
from packetcloud.domain_controller.core.cloudlets import Cloudlet, CloudletReport
from packetcloud.domain_controller.core.events import Choose, Chosen, Command, Event, NotChosen
from packetcloud.domain_controller.core.life import LifeLimits
from packetcloud.domain_controller.core.packing import NodeRoom, rooms_of
from packetcloud.domain_controller.core.prices import PriceList
from packetcloud.domain_controller.core.reservations import Reservation
from packetcloud.domain_controller.core.resources import ViType
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.errors import InvalidValueError
from packetcloud.domain_controller.state import holds, reservations
from packetcloud.domain_controller.state.reservations import Kept
from packetcloud.domain_controller.state.transaction import Transaction


@dataclass(frozen=True, slots=True)
class World:
    """What deciding needs besides what is held: catalogue, prices, cloudlets and their reports."""

    types: Mapping[str, ViType]
    prices: PriceList
    cloudlets: Mapping[str, Cloudlet]
    reports: Mapping[str, CloudletReport]
    limits: LifeLimits = field(default_factory=LifeLimits)
    policy: Policy = nearest
    host_addresses: Mapping[GUID, NA] = field(default_factory=dict)

    def could_take(self, wish: Wish) -> list[str]:
        """Return the cloudlets that a wish may lead to, by name: what its work has to lock."""
        constraints = wish.constraints
        return sorted(
            cloudlet.name
            for cloudlet in self.cloudlets.values()
            if constraints.cloudlet in (None, cloudlet.name)
            and constraints.region in (None, cloudlet.region)
        )


@dataclass(frozen=True, slots=True)
class _Rooms:
    """What nodes have by a report."""

    report: CloudletReport
    cloudlet: Cloudlet
    rooms: tuple[NodeRoom, ...]


def request(
    transaction: Transaction,
    world: World,
    name: str,
    tenant: str,
    is_third_party: bool,
    wish: Wish,
) -> Reservation:
    """Begin a reservation under a name that nothing else has; return it as it is then.

    Raises:
        InvalidValueError: there is no such VI type, or no price for it.
        ConflictError: the tenant has too many reservations.
    """
    now_ms = transaction.now_ms
    reservation, commands = life.request(name, tenant, is_third_party, wish, now_ms)
    reservation, commands = _go_on(transaction, world, reservation, commands)
    reservations.add(transaction, reservation, commands, world.limits)
    return reservation


def handle(transaction: Transaction, world: World, kept: Kept, event: Event) -> Reservation:
    """Have an event change a reservation that `reservations.lock` gave; return it.

    Raises:
        LifeError: somebody asks for what its state does not allow.
    """
    before = kept.reservation
    after, commands = life.handle(before, event, transaction.now_ms, world.limits)
    # What it gives up, others may have, and itself somewhere else: so that is done first.
    after, commands = _go_on(transaction, world, after, commands, before)
    reservations.save(transaction, kept, after, commands, world.limits)
    return after


def calendar_of(transaction: Transaction, world: World, cloudlet: str) -> Candidate:
    """Lock a cloudlet and return it with its calendar, as the core's choice wants it."""
    registered = world.cloudlets[cloudlet]
    report = world.reports.get(cloudlet)
    rooms = _rooms(transaction, report, registered) if report is not None else ()
    calendar = holds.held(transaction, cloudlet).calendar(rooms, world.types)
    return Candidate(registered, report, calendar)


def _rooms(
    transaction: Transaction, report: CloudletReport, cloudlet: Cloudlet
) -> tuple[NodeRoom, ...]:
    """Return what a cloudlet's nodes have, worked out once for each report."""
    key = f"rooms/{cloudlet.name}"
    known = transaction.caches.get(key)
    if not isinstance(known, _Rooms) or (known.report, known.cloudlet) != (report, cloudlet):
        rooms = rooms_of(report, cloudlet.isp_share_permille)
        known = transaction.caches[key] = _Rooms(report, cloudlet, rooms)
    return known.rooms


def _go_on(
    transaction: Transaction,
    world: World,
    reservation: Reservation,
    commands: list[Command],
    before: Reservation | None = None,
) -> tuple[Reservation, list[Command]]:
    """Do what the core asks for within the transaction, until it asks for nothing more."""
    done: list[Command] = []
    while commands:
        done += [one for one in commands if not isinstance(one, Choose)]
        if not any(isinstance(one, Choose) for one in commands):
            break
        event = _choose(transaction, world, reservation, before)
        now_ms = transaction.now_ms
        reservation, commands = life.handle(reservation, event, now_ms, world.limits)
    return reservation, done


def _choose(
    transaction: Transaction, world: World, reservation: Reservation, before: Reservation | None
) -> Chosen | NotChosen:
    wish = reservation.wish
    names = world.could_take(wish)
    own = before.holds if before is not None else ()
    transaction.lock({*names, *(hold.cloudlet for hold in own)})
    candidates = [calendar_of(transaction, world, name) for name in names]
    mine = [
        (one.calendar, hold)
        for one in candidates
        for hold in own
        if hold.cloudlet == one.cloudlet.name
    ]
    for calendar, hold in mine:
        calendar.remove(hold)
    found = choose(
        wish,
        _asker(world, reservation),
        candidates,
        transaction.now_ms,
        reservation.passed,
    )
    for calendar, hold in mine:
        calendar.add(hold)
    return NotChosen(found.text) if isinstance(found, NoPlace) else Chosen(found.terms)


def _asker(world: World, reservation: Reservation) -> Asker:
    vi_type = world.types.get(reservation.wish.vi_type)
    if vi_type is None:
        allowed = ", ".join(sorted(world.types)) or "none yet; see packetcloud vi-type set"
        raise InvalidValueError("wish.vi_type", shown(reservation.wish.vi_type), allowed)
    return Asker(
        reservation.tenant,
        reservation.is_third_party,
        vi_type,
        world.prices,
        world.policy,
        world.host_addresses,
    )
