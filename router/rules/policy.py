"""What a keeper is told: whom it believes, how much it takes. Made of the router's config."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Self

from packetcloud.chunk.names import GUID, name_bytes
from packetcloud.router.rules.proof import Trust
from packetcloud.router.settings import RouterSettings, RuleSettings, RulesFrom, ServiceSettings


@dataclass(frozen=True, slots=True)
class RulePolicy:
    """The part of a config that decides about rules."""

    router: bytes
    """GUID of the router, 20 bytes."""
    open_services: frozenset[bytes]
    """SIDs that everybody may lead chunks to."""
    settings: RuleSettings

    def is_own(self, signer: bytes) -> bool:
        """Tell whether a GUID signs for the ISP."""
        return GUID.unchecked(signer) in self.settings.isp_signers

    def trust(self, public_key: bytes) -> Trust:
        """Return what the rules of one signer are asked with."""
        own = frozenset((public_key,)) if self.is_own(name_bytes(public_key)) else frozenset()
        return Trust(self.router, own, self.open_services)

    def to_json(self) -> dict[str, Any]:
        limits = {one.name: getattr(self.settings, one.name) for one in fields(self.settings)}
        limits["isp_signers"] = sorted(guid.hex for guid in self.settings.isp_signers)
        return {
            "router": self.router.hex(),
            "open_services": sorted(sid.hex() for sid in self.open_services),
            "settings": limits,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        signers = frozenset(map(GUID.from_hex, record["settings"]["isp_signers"]))
        return cls(
            bytes.fromhex(record["router"]),
            frozenset(map(bytes.fromhex, record["open_services"])),
            RuleSettings(**(record["settings"] | {"isp_signers": signers})),
        )


def policy_of(
    settings: RouterSettings, rules: RuleSettings, listed: Iterable[ServiceSettings] = ()
) -> RulePolicy:
    """Return the policy of a router.

    Args:
        listed: services that the cloudlet's table has beside the config.
    """
    return RulePolicy(settings.guid.value, open_of((*settings.services, *listed)), rules)


def open_of(services: Iterable[ServiceSettings]) -> frozenset[bytes]:
    """Return the SIDs of the services to which everybody's rules may lead."""
    return frozenset(one.sid.value for one in services if one.rules_from is RulesFrom.ANYONE)
