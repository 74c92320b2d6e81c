"""Who asks: principals with one role each, their keys, and the services of tenants."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from packetcloud.chunk.names import PUBLIC_KEY_BYTES, SID, SID_SEQUENCE, SID_ZERO
from packetcloud.domain_controller.core.checks import (
    check_bool,
    check_name,
    check_text,
    check_time,
    check_type,
    shown,
)
from packetcloud.domain_controller.errors import InvalidValueError

MAX_KEYS_COUNT = 16
"""Of one principal: enough to change keys while old ones still count."""


class Role(StrEnum):
    """What a principal may do; each has one."""

    ISP = "isp"
    """The operator: everything but to speak for a tenant's key."""
    TENANT = "tenant"
    """A third party: its own services, reservations and bills."""
    AUDITOR = "auditor"
    """Reads everything, changes nothing."""
    CLOUDLET = "cloudlet"
    """A cloudlet controller: its reports, answers and usage."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who signs requests."""

    name: str
    role: Role
    title: str = ""
    """For people and on bills."""
    is_open: bool = True
    """False: it may read what it has, and ask for nothing new."""

    def __post_init__(self) -> None:
        check_name("principal.name", self.name)
        if not isinstance(self.role, Role):
            roles = ", ".join(role.value for role in Role)
            raise InvalidValueError("principal.role", shown(self.role), roles)
        check_text("principal.title", self.title, 200)
        check_bool("principal.is_open", self.is_open)


@dataclass(frozen=True, slots=True)
class Key:
    """An Ed25519 key by which a principal signs, for a time."""

    key_id: str
    principal: str
    public_key: bytes
    from_ms: int
    until_ms: int

    def __post_init__(self) -> None:
        check_name("key.key_id", self.key_id)
        check_name("key.principal", self.principal)
        if type(self.public_key) is not bytes or len(self.public_key) != PUBLIC_KEY_BYTES:
            allowed = f"{PUBLIC_KEY_BYTES} bytes"
            raise InvalidValueError("key.public_key", shown(self.public_key), allowed)
        check_time("key.from_ms", self.from_ms)
        check_time("key.until_ms", self.until_ms)
        if self.until_ms <= self.from_ms:
            raise InvalidValueError("key.until_ms", shown(self.until_ms), "later than key.from_ms")

    def counts_at(self, now_ms: int) -> bool:
        """Tell whether the key may sign now."""
        return self.from_ms <= now_ms < self.until_ms


@dataclass(frozen=True, slots=True)
class Service:
    """A service of a tenant, or of the ISP, whose SID it proved to own."""

    name: str
    owner: str
    sid: SID
    image: str
    """The image that its VIs are started from."""

    def __post_init__(self) -> None:
        check_name("service.name", self.name)
        check_name("service.owner", self.owner)
        check_type("service.sid", self.sid, SID, "a SID")
        if self.sid in (SID_ZERO, SID_SEQUENCE):
            raise InvalidValueError("service.sid", self.sid.hex, "a SID that belongs to a key")
        check_text("service.image", self.image, 200)
