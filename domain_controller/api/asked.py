"""What requests carry. Times in ms since 1970 (UTC), money in millionths of the currency's unit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from packetcloud.chunk.names import GUID, NA
from packetcloud.domain_controller.api.fields import (
    MAX_DOCUMENT_CHARS,
    WHOLE,
    Asked,
    ChunksPerS,
    DiskBytes,
    Hex20,
    Hex32,
    Hex64,
    Hops,
    IoPerS,
    MemoryBytes,
    Micros,
    MilliCpus,
    Name,
    NaNumber,
    Permille,
    PriceTier,
    ReservePermille,
    TimeMs,
    Title,
    ViCount,
)
from packetcloud.domain_controller.core.advice import (
    DEFAULT_RESERVE_PERMILLE,
    MAX_CHUNKS_PER_S,
    Measured,
)
from packetcloud.domain_controller.core.checks import check_unique
from packetcloud.domain_controller.core.cloudlets import MAX_HOPS, MAX_TYPES_COUNT
from packetcloud.domain_controller.core.slots import MAX_OCCURRENCES_COUNT, Every, Repeat, Slot
from packetcloud.domain_controller.core.wishes import MAX_SPREAD_COUNT, Constraints, Near, Wish
from packetcloud.domain_controller.errors import InvalidValueError


class NewTenant(Asked):
    """A tenant is to be registered."""

    name: Name
    title: Title = ""
    """For people, and on bills."""


class TenantChange(Asked):
    """A tenant is to be suspended, or not any more."""

    is_open: bool
    """False: it reads what it has and asks for nothing new."""


class NewKey(Asked):
    """A key is to sign for somebody."""

    public_key: Hex32
    until_ms: TimeMs | None = None
    """None: for two years, or until it is revoked."""


class NewCloudlet(Asked):
    """A cloudlet is to be admitted."""

    name: Name
    region: Name
    public_key: Hex32
    """Of its controller, which dials in."""
    isp_share_permille: Permille = 0
    """Of each node so many thousandths are the ISP's own."""


class CloudletChange(Asked):
    """A cloudlet is to get new reservations, or none."""

    is_open: bool


class ViTypeSizes(Asked):
    """What a VI type is."""

    milli_cpus: MilliCpus
    memory_bytes: MemoryBytes
    disk_bytes: DiskBytes
    io_per_s: IoPerS = 0
    price_tier: PriceTier = 1


class SidProof(Asked):
    """A statement by the SID's own key: this tenant may offer it in this domain until then."""

    public_key: Hex32
    until_ms: TimeMs
    signature: Hex64


class NewService(Asked):
    """A service is to be registered."""

    name: Name
    sid: Hex20
    image: Title
    """Which image its VIs start from, as the cloudlets name it."""
    proof: SidProof


class NewRules(Asked):
    """A signed document of rules is to be passed on to the routers of some cloudlets."""

    document: Annotated[str, Field(min_length=1, max_length=MAX_DOCUMENT_CHARS)]
    """As `packetcloud rule sign` writes it."""
    cloudlets: Annotated[tuple[Name, ...], Field(max_length=1024, strict=False)] = ()
    """Their routers; with none, and no `regions`, those of all cloudlets of the domain."""
    regions: Annotated[tuple[Name, ...], Field(max_length=64, strict=False)] = ()
    """And those of the cloudlets of these regions."""


class RepeatAsked(Asked):
    """How a slot repeats: so many times, or while it begins before a time."""

    every: Literal["day", "week"]
    count: Annotated[int, Strict(), Field(ge=1, le=MAX_OCCURRENCES_COUNT), WHOLE] | None = None
    until_ms: TimeMs | None = None


class SlotAsked(Asked):
    """When. Begin belongs to it, end does not."""

    begin_ms: TimeMs
    end_ms: TimeMs
    repeat: RepeatAsked | None = None

    def to_slot(self) -> Slot:
        """Raises: InvalidValueError."""
        one = self.repeat
        repeat = None if one is None else Repeat(Every(one.every), one.count, one.until_ms)
        return Slot(self.begin_ms, self.end_ms, repeat)


class NearAsked(Asked):
    """Near a host or a router; at most so many hops away."""

    host: Hex20 | None = None
    na: NaNumber | None = None
    max_hops: Hops = MAX_HOPS

    def to_near(self) -> Near:
        """Raises: InvalidValueError."""
        if self.host is not None and self.na is None:
            return Near(GUID.from_hex(self.host), self.max_hops)
        if self.na is not None and self.host is None:
            return Near(NA(self.na), self.max_hops)
        given = "both" if self.na is not None else "neither"
        raise InvalidValueError("near", f"{given} of host and na", "one of the two")


class ConstraintsAsked(Asked):
    """Where the VIs may be; all of what is given must hold."""

    cloudlet: Name | None = None
    region: Name | None = None
    near: NearAsked | None = None
    spread: Annotated[int, Strict(), Field(ge=1, le=MAX_SPREAD_COUNT), WHOLE] = 1
    """Over so many cloudlets."""

    def to_constraints(self) -> Constraints:
        """Raises: InvalidValueError."""
        near = self.near.to_near() if self.near is not None else None
        return Constraints(self.cloudlet, self.region, near, self.spread)


class WishAsked(Asked):
    """What is to be reserved."""

    vi_type: Name
    count: ViCount
    """VIs at the same time."""
    slot: SlotAsked
    constraints: ConstraintsAsked = ConstraintsAsked()
    service: Name | None = None
    """What they run."""
    max_price_micros: Micros | None = None
    """An offer above this is not made."""

    def to_wish(self) -> Wish:
        """Raises: InvalidValueError."""
        return Wish(
            self.vi_type,
            self.count,
            self.slot.to_slot(),
            self.constraints.to_constraints(),
            self.service,
            self.max_price_micros,
        )


class MeasuredType(Asked):
    """What one VI of a type processes."""

    vi_type: Name
    chunks_per_s: ChunksPerS


class AdviceAsked(Asked):
    """A load is to be carried by a service that was measured on some VI types."""

    chunks_per_s: Annotated[int, Strict(), Field(ge=1, le=MAX_CHUNKS_PER_S), WHOLE]
    measured: Annotated[
        tuple[MeasuredType, ...], Field(min_length=1, max_length=MAX_TYPES_COUNT, strict=False)
    ]
    """As `packetcloud service benchmark` found them."""
    reserve_permille: ReservePermille = DEFAULT_RESERVE_PERMILLE
    """So much more than the load is to be carried: load comes in bursts."""

    def to_measured(self) -> list[Measured]:
        """Raises: InvalidValueError."""
        check_unique("measured.vi_type", (one.vi_type for one in self.measured), MAX_TYPES_COUNT)
        return [Measured(one.vi_type, one.chunks_per_s) for one in self.measured]


class ExtensionAsked(Asked):
    """A reservation is to end later."""

    end_ms: TimeMs


class ResizeAsked(Asked):
    """A reservation is to have more or fewer VIs."""

    count: ViCount


class NewBill(Asked):
    """A bill of a tenant is to be closed."""

    tenant: Name
    end_ms: TimeMs
    """What was used before this."""


class WhenAsked(Asked):
    """When would it fit?"""

    wish: WishAsked
    until_ms: TimeMs
    """The slot is moved later, but its begin not beyond this."""
