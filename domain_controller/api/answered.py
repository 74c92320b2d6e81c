"""What answers carry. Times in ms since 1970 (UTC), money in millionths of the currency's unit."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from packetcloud.domain_controller.api.fields import Answered
from packetcloud.domain_controller.core.installations import RulesState

ReservationState = Literal[
    "requested",
    "offered",
    "confirmed",
    "active",
    "ended",
    "settled",
    "refused",
    "expired",
    "cancelled",
]
LAST_STATES = frozenset({"settled", "refused", "expired", "cancelled"})
"""A reservation that came to one of these stays there."""


class Health(Answered):
    """Whether the controller works."""

    status: Literal["ok", "failing"]
    detail: str = ""


class StatusInfo(Answered):
    """The controller itself, and who asks."""

    domain: str
    version: str
    now_ms: int
    caller: str
    role: str
    cloudlets: int
    cloudlets_connected: int


class TenantInfo(Answered):
    """A tenant."""

    name: str
    title: str
    is_open: bool


class TenantPage(Answered):
    """Some tenants, by name."""

    tenants: list[TenantInfo]
    cursor: str | None
    """Ask with it for more; None: there are none."""


class KeyInfo(Answered):
    """A key that signs for somebody."""

    key_id: str
    """The GUID of the key."""
    public_key: str
    from_ms: int
    until_ms: int


class KeyList(Answered):
    """The keys of somebody that are not revoked."""

    keys: list[KeyInfo]


class ResourcesInfo(Answered):
    """An amount of what VIs share."""

    milli_cpus: int
    memory_bytes: int
    disk_bytes: int
    io_per_s: int


class TypeCountInfo(Answered):
    """So many VIs of a type."""

    vi_type: str
    count: int


class NodeInfo(Answered):
    """A compute node, as its cloudlet sees it."""

    name: str
    is_usable: bool
    capacity: ResourcesInfo
    reserved: ResourcesInfo
    available: ResourcesInfo
    vis: list[TypeCountInfo]


class CloudletInfo(Answered):
    """A cloudlet and what it last said of itself."""

    name: str
    region: str
    is_open: bool
    isp_share_permille: int
    is_connected: bool
    report_age_ms: int | None
    """None: it has not reported yet."""
    capacity: ResourcesInfo
    reserved: ResourcesInfo
    available: ResourcesInfo
    nodes: list[NodeInfo]
    """Empty for tenants: what others run is not theirs to know."""
    public_keys: list[str] = Field(default_factory=list)
    """Every key that was ever registered for it: usage records are signed with them. Empty where
    more than one cloudlet is listed."""


class CloudletList(Answered):
    """The cloudlets, by name."""

    cloudlets: list[CloudletInfo]


class ViTypeInfo(Answered):
    """A size of VI that one can reserve."""

    name: str
    milli_cpus: int
    memory_bytes: int
    disk_bytes: int
    io_per_s: int
    price_tier: int


class ViTypeList(Answered):
    """The VI types, by name."""

    vi_types: list[ViTypeInfo]


class ServiceInfo(Answered):
    """A service whose SID was proven."""

    name: str
    owner: str
    sid: str
    image: str


class ServicePage(Answered):
    """Some services, by SID."""

    services: list[ServiceInfo]
    cursor: str | None


class RulesInfo(Answered):
    """A document of rules that was proven, and where it goes."""

    id: str
    owner: str
    set_name: str
    serial: int
    signer: str
    """GUID of the key that signed it."""
    items: int
    digest: str
    """SHA-256 of the document."""
    rules: int
    """0: the set is withdrawn."""
    cloudlets: list[str]
    """These, and those of `regions`; both empty: all."""
    regions: list[str]
    made_ms: int
    until_ms: int | None
    """From then on none of its rules holds, nor of what was in its place; null: never."""
    state: Literal["in_force", "withdrawn", "ended"]
    """What is wanted; how far that is, `at` says."""
    at: dict[str, int]
    """At how many cloudlets it is `pending`, `waiting`, `installed`, and so on."""


class RefusedRuleInfo(Answered):
    """One rule that a router refused."""

    name: str
    reason: str
    text: str


class RulesAtInfo(Answered):
    """How far a set of rules is at one cloudlet."""

    cloudlet: str
    state: RulesState
    serial: int | None
    """Of the document that it has; null: none that it told of."""
    accepted: int
    refused: int
    revoked: int
    """Rules out of force, as a grant that they need was taken back."""
    text: str
    refusals: list[RefusedRuleInfo]
    """The first of what its router refused."""
    changed_ms: int


class RulesDetail(RulesInfo):
    """With the document itself, and how far it is at each cloudlet."""

    document: str
    cloudlet_states: list[RulesAtInfo]


class RulesPage(Answered):
    """Some documents of rules, the newest first."""

    rules: list[RulesInfo]
    cursor: str | None


class OperationInfo(Answered):
    """Something that was asked for and takes its time."""

    id: str
    kind: str
    subject: str
    """The reservation that it is about."""
    state: Literal["running", "done", "failed", "cancelled"]
    text: str
    """Why it failed."""
    made_ms: int
    changed_ms: int


class PlaceInfo(Answered):
    """VIs on one cloudlet."""

    cloudlet: str
    count: int
    away_since_ms: int | None = None
    """When a cloudlet that should hold them or have them run was last heard of, if that is too long
    ago; what runs there meanwhile is billed once it is back and says so."""


class RepeatInfo(Answered):
    """How a slot repeats."""

    every: Literal["day", "week"]
    count: int | None
    until_ms: int | None


class SlotInfo(Answered):
    """When."""

    begin_ms: int
    end_ms: int
    repeat: RepeatInfo | None


class ReservationInfo(Answered):
    """A reservation."""

    id: str
    owner: str
    state: ReservationState
    version: int
    """Grows with each change."""
    vi_type: str
    count: int
    slot: SlotInfo
    service: str | None
    places: list[PlaceInfo]
    """Empty until it is offered."""
    price_micros: int | None
    """Of all its time, as offered; chunks and bytes come on top as they are used."""
    currency: str | None
    price_list: str | None
    """Its name and version."""
    why: str
    """The reason of its last change."""
    made_ms: int
    changed_ms: int
    operation: str | None
    """The last thing that was asked of it."""


class ReservationPage(Answered):
    """Some reservations, the newest first."""

    reservations: list[ReservationInfo]
    cursor: str | None


class EventInfo(Answered):
    """Something that happened."""

    number: int
    at_ms: int
    kind: str
    subject: str
    owner: str | None
    data: dict[str, object] = Field(default_factory=dict)


class PriceLineInfo(Answered):
    """A part of a price: so many VIs, at the price of their share of the cloudlet."""

    cloudlet: str
    vi_type: str
    count: int
    vi_ms: int
    """VIs times milliseconds."""
    factor_permille: int
    """Of the base price: more, the larger the share of the cloudlet is."""
    amount_micros: int


class UnitPriceInfo(Answered):
    """What so many chunks or bytes cost."""

    micros: int
    units: int


class OfferInfo(Answered):
    """What a reservation would be."""

    places: list[PlaceInfo]
    lines: list[PriceLineInfo]
    total_micros: int
    """Of the VI time; chunks and bytes come on top, as they are used."""
    chunk_price: UnitPriceInfo
    byte_price: UnitPriceInfo
    currency: str
    price_list: str
    """Its name and version."""


class AdviceInfo(Answered):
    """A VI type, and what it costs for the same slot."""

    vi_type: str
    total_micros: int


class QuoteInfo(Answered):
    """Whether and for how much it can be had now. Nothing is held by it."""

    is_possible: bool
    why: str
    """Why not; empty: it is possible."""
    offer: OfferInfo | None
    others: list[AdviceInfo]
    """The other VI types that there is room for, the cheapest first."""


class WayInfo(Answered):
    """So many VIs of a type carry the load."""

    vi_type: str
    count: int
    chunks_per_s: int
    """What they process together."""
    micros_per_hour: int
    """Without tiers, which depend on the cloudlet."""


class WaysInfo(Answered):
    """How a load can be carried."""

    ways: list[WayInfo]
    """The cheapest first; empty: none of the measured types can."""
    currency: str
    price_list: str
    """Its name and version."""


class WhenInfo(Answered):
    """When it would fit."""

    begin_ms: int | None
    """None: not until the time that was asked about."""
    offer: OfferInfo | None
    why: str


class UsageInfo(Answered):
    """A usage record as its cloudlet made it."""

    cloudlet: str
    meter: str
    number: int
    """1, 2, 3, ... of this meter."""
    previous: str
    """Digest of the record before it."""
    reservation: str
    terms: int
    """Of the reservation's terms, by number."""
    kind: Literal["vi-time", "chunks", "bytes"]
    begin_ms: int
    end_ms: int
    quantity: int
    digest: str
    signature: str | None
    """By the cloudlet; null: the record came in before signatures were kept."""
    public_key: str | None
    """That verifies it."""


class UsagePage(Answered):
    """Some usage records, by cloudlet, meter and number."""

    records: list[UsageInfo]
    cursor: str | None


class TermsInfo(Answered):
    """All prices that a reservation was ever offered or changed to, as documents of the core."""

    terms: list[dict[str, object]]


class BillSummary(Answered):
    """A bill."""

    id: str
    tenant: str
    number: int
    begin_ms: int
    end_ms: int
    total_micros: int
    currency: str
    digest: str


class BillInfo(BillSummary):
    """A bill with all that it is made of."""

    document: dict[str, object]
    """What `packetcloud bill verify` computes again."""


class BillPage(Answered):
    """Some bills, the newest first."""

    bills: list[BillSummary]
    cursor: str | None


class PriceListInfo(Answered):
    """A version of a price list. It never changes."""

    name: str
    version: int
    digest: str
    """SHA-256 of the document."""
    document: str
    """One fact a line."""
