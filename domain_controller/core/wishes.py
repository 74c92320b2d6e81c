"""What a tenant asks for: VIs of a type, when, and where they may be."""

from __future__ import annotations

from dataclasses import dataclass

from packetcloud.chunk.names import GUID, NA
from packetcloud.domain_controller.core.checks import check_integer, check_name, check_type
from packetcloud.domain_controller.core.cloudlets import MAX_HOPS, MAX_VIS_COUNT
from packetcloud.domain_controller.core.money import MAX_MICROS
from packetcloud.domain_controller.core.slots import Slot

MAX_SPREAD_COUNT = 64
"""Cloudlets over which one reservation is spread."""


@dataclass(frozen=True, slots=True)
class Near:
    """Near a host, or near a router; at most so many hops away."""

    target: GUID | NA
    max_hops: int = MAX_HOPS

    def __post_init__(self) -> None:
        check_type("near.target", self.target, (GUID, NA), "a GUID or an NA")
        check_integer("near.max_hops", self.max_hops, 0, MAX_HOPS)


@dataclass(frozen=True, slots=True)
class Constraints:
    """Where the VIs may be; all of what is given must hold."""

    cloudlet: str | None = None
    region: str | None = None
    near: Near | None = None
    spread: int = 1
    """Over so many different cloudlets, as evenly as the number of VIs allows."""

    def __post_init__(self) -> None:
        if self.cloudlet is not None:
            check_name("constraints.cloudlet", self.cloudlet)
        if self.region is not None:
            check_name("constraints.region", self.region)
        if self.near is not None:
            check_type("constraints.near", self.near, Near, "near a host or an NA")
        most = 1 if self.cloudlet is not None else MAX_SPREAD_COUNT
        check_integer("constraints.spread", self.spread, 1, most)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be reserved."""

    vi_type: str
    count: int
    """VIs at the same time."""
    slot: Slot
    constraints: Constraints = Constraints()
    service: str | None = None
    """What they run; None: places only, for which a service is named later."""
    max_price_micros: int | None = None
    """An offer above this is not made; None: any price."""

    def __post_init__(self) -> None:
        check_name("wish.vi_type", self.vi_type)
        check_integer("wish.count", self.count, 1, MAX_VIS_COUNT)
        check_type("wish.slot", self.slot, Slot, "a slot")
        check_type("wish.constraints", self.constraints, Constraints, "constraints")
        check_integer("wish.constraints.spread", self.constraints.spread, 1, self.count)
        if self.service is not None:
            check_name("wish.service", self.service)
        if self.max_price_micros is not None:
            check_integer("wish.max_price_micros", self.max_price_micros, 0, MAX_MICROS)
