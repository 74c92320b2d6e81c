"""The proof of a SID: its own key says which tenant may offer it, in which domain, until when.

Source: paper, section 3.5; docs/decisions/0015.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from packetcloud.chunk.identity import Identity, verify
from packetcloud.chunk.names import SID
from packetcloud.domain_controller.errors import OwnershipError

PROOF_DOMAIN = b"packetcloud-sid-1"
"""Domain word of the signature."""
MAX_PROOF_MS = 10 * 366 * 24 * 3600 * 1000
"""A proof lasts at most so long; then it is made anew."""


@dataclass(frozen=True, slots=True)
class SidProof:
    """A statement by the key of a SID."""

    domain: str
    tenant: str
    until_ms: int
    public_key: bytes
    signature: bytes

    def signed_bytes(self) -> bytes:
        """Return what is signed: compact JSON, keys in alphabetical order."""
        return _signed_bytes(self.domain, self.tenant, self.until_ms, self.public_key)

    def check(self, sid: SID, now_ms: int) -> None:
        """See that it proves `sid` now.

        Raises:
            OwnershipError: it does not; the text says why, and what would.
        """
        if SID.from_public_key(self.public_key) != sid:
            raise OwnershipError(
                f"proof: its key is not that of the SID {sid.hex}; make it with the service's own "
                "key file: packetcloud service register --service-key"
            )
        if not now_ms < self.until_ms <= now_ms + MAX_PROOF_MS:
            raise OwnershipError(
                f"proof.until_ms = {self.until_ms}: allowed: later than now, {now_ms}, by at most "
                f"{MAX_PROOF_MS}"
            )
        if not verify(self.public_key, PROOF_DOMAIN, self.signed_bytes(), self.signature):
            raise OwnershipError(
                f"proof: not signed for the tenant {self.tenant} in the domain {self.domain} until "
                f"{self.until_ms}, or altered; make it anew"
            )


def prove_sid(service: Identity, domain: str, tenant: str, until_ms: int) -> SidProof:
    """Return the proof that `tenant` may offer the SID of this key."""
    message = _signed_bytes(domain, tenant, until_ms, service.public_key)
    signature = service.sign(PROOF_DOMAIN, message)
    return SidProof(domain, tenant, until_ms, service.public_key, signature)


def _signed_bytes(domain: str, tenant: str, until_ms: int, public_key: bytes) -> bytes:
    record = {
        "domain": domain,
        "sid": SID.from_public_key(public_key).hex,
        "tenant": tenant,
        "until_ms": until_ms,
    }
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
