"""What requests change: one value for each kind, with who asks and how that is proven."""

from __future__ import annotations

from dataclasses import dataclass

from packetcloud.domain_controller.api.asked import ViTypeSizes
from packetcloud.domain_controller.api.signatures import Proof
from packetcloud.domain_controller.core.principals import Role
from packetcloud.domain_controller.core.wishes import Wish


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks for a change."""

    principal: str
    owner: str | None
    """Whose things may be changed; None: everybody's."""
    proof: Proof
    """Its nonce is written in the transaction of the change, so a request counts once."""
    digest: bytes
    """SHA-256 of the request: what an idempotency key belongs to."""
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class AddTenant:
    name: str
    title: str


@dataclass(frozen=True, slots=True)
class SetTenantOpen:
    name: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class AddKey:
    name: str
    """Of the tenant or cloudlet whose key it becomes."""
    public_key: bytes
    until_ms: int | None
    role: Role = Role.TENANT


@dataclass(frozen=True, slots=True)
class RevokeKey:
    name: str
    key_id: str
    role: Role = Role.TENANT


@dataclass(frozen=True, slots=True)
class AddCloudlet:
    name: str
    region: str
    public_key: bytes
    isp_share_permille: int


@dataclass(frozen=True, slots=True)
class SetCloudletOpen:
    name: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class SetViType:
    name: str
    sizes: ViTypeSizes


@dataclass(frozen=True, slots=True)
class AddService:
    """Its SID is proven."""

    owner: str
    name: str
    sid: str
    image: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class RemoveService:
    sid: str


@dataclass(frozen=True, slots=True)
class AddRules:
    """Its destinations are proven."""

    owner: str
    set_name: str
    serial: int
    signer: str
    items_count: int
    sid: str
    """Of the service that its rules lead to; empty: it only withdraws."""
    document: str
    digest: bytes
    cloudlets: tuple[str, ...]
    regions: tuple[str, ...]
    rules_count: int
    """0: the set is to have no rules any more."""
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class Reserve:
    owner: str
    is_third_party: bool
    """False: the ISP's own, by its share."""
    wish: Wish


@dataclass(frozen=True, slots=True)
class Extend:
    reservation: str
    end_ms: int


@dataclass(frozen=True, slots=True)
class Resize:
    reservation: str
    count: int


@dataclass(frozen=True, slots=True)
class CancelReservation:
    reservation: str


@dataclass(frozen=True, slots=True)
class CancelOperation:
    operation: str


@dataclass(frozen=True, slots=True)
class CloseBill:
    tenant: str
    end_ms: int


Change = (
    AddTenant
    | SetTenantOpen
    | AddKey
    | RevokeKey
    | AddCloudlet
    | SetCloudletOpen
    | SetViType
    | AddService
    | RemoveService
    | AddRules
    | Reserve
    | Extend
    | Resize
    | CancelReservation
    | CancelOperation
    | CloseBill
)
