"""A small domain for tests of the state: two cloudlets, a VI type, a price list, two tenants."""

from __future__ import annotations

from packetcloud.domain_controller.core.cloudlets import Cloudlet, CloudletReport, NodeReport
from packetcloud.domain_controller.core.money import Currency
from packetcloud.domain_controller.core.prices import Price, PriceList, Tier
from packetcloud.domain_controller.core.principals import Principal, Role
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import HOUR_MS, Slot
from packetcloud.domain_controller.core.wishes import Constraints, Wish
from packetcloud.domain_controller.state import registry
from packetcloud.domain_controller.state.booking import World
from packetcloud.domain_controller.state.transaction import Transaction

NOW_MS = 1_800_000_000_000
BEGIN_MS = NOW_MS + HOUR_MS
SMALL = ViType("small", Resources(1000, 1 << 30, 1 << 30))
PLACES = 4
"""Of each cloudlet."""
PRICES = PriceList(
    "standard",
    1,
    Currency("EUR"),
    {1: Price(7, 3600)},
    Price(3, 1000),
    Price(1, 1 << 20),
    (Tier(500, 1000), Tier(1000, 3000)),
)
TENANTS = ("acme", "other")


def world(cloudlets: tuple[str, ...] = ("c1", "c2"), now_ms: int = NOW_MS) -> World:
    """Return what deciding needs; the reports are new."""
    room = SMALL.resources.times(PLACES)
    return World(
        {SMALL.name: SMALL},
        PRICES,
        {name: Cloudlet(name, "north") for name in cloudlets},
        {name: CloudletReport(name, 1, now_ms, (NodeReport("n1", room),)) for name in cloudlets},
    )


def register(transaction: Transaction) -> None:
    """Enter the cloudlets and the tenants."""
    for cloudlet in world().cloudlets.values():
        registry.add_cloudlet(transaction, cloudlet)
    for name in TENANTS:
        registry.add_principal(transaction, Principal(name, Role.TENANT))


def wish(count: int = 1, begin_ms: int = BEGIN_MS, cloudlet: str | None = None) -> Wish:
    """Wish VIs for an hour."""
    return Wish(SMALL.name, count, Slot(begin_ms, begin_ms + HOUR_MS), Constraints(cloudlet))
