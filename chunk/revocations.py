"""Revocations: whoever signed a grant takes it back before it ends.

A revocation is the grant itself and a signature by its issuer. It says nothing but "this grant no
more", so it may be brought by anybody, as often as they like, and never turns into a yes again: a
new grant has another nonce. It is needed no longer than until the grant ends.
Source: docs/decisions/0014; docs/reference/rules.md, "Revocations".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

from packetcloud.chunk.errors import GrantError
from packetcloud.chunk.grants import MAX_GRANT_BYTES, Grant
from packetcloud.chunk.identity import SIGNATURE_BYTES, Identity, verify

REVOCATION_FORMAT = "packetcloud-revocation-1"
REVOCATION_DOMAIN = b"packetcloud-revocation-1"
"""Domain word of the signature."""
MAX_REVOCATION_BYTES = MAX_GRANT_BYTES + 1024

_KEYS = ("format", "grant", "signature")


@dataclass(frozen=True, slots=True)
class Revocation:
    """One grant, taken back by its issuer."""

    grant: Grant
    signature: bytes

    @classmethod
    def from_text(cls, text: bytes) -> Self:
        """Read a revocation; whether its signature is right is not asked here: see `is_genuine`.

        Raises:
            GrantError: no JSON, or no revocation.
        """
        if len(text) > MAX_REVOCATION_BYTES:
            raise GrantError(f"over {MAX_REVOCATION_BYTES} bytes; is it a revocation?")
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            raise GrantError("not JSON") from None
        if not isinstance(record, dict) or sorted(record) != sorted(_KEYS):
            raise GrantError(f"a revocation is a JSON object with the keys {', '.join(_KEYS)}")
        if record["format"] != REVOCATION_FORMAT:
            raise GrantError(f"format: allowed: {REVOCATION_FORMAT!r}")
        signature = record["signature"]
        try:
            octets = bytes.fromhex(signature) if isinstance(signature, str) else b""
        except ValueError:
            octets = b""
        if len(octets) != SIGNATURE_BYTES:
            raise GrantError(f"signature: allowed: {2 * SIGNATURE_BYTES} hexadecimal digits")
        return cls(Grant.from_json(record["grant"]), octets)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": REVOCATION_FORMAT,
            "grant": self.grant.to_json(),
            "signature": self.signature.hex(),
        }

    def to_bytes(self) -> bytes:
        """Return what stands in a file."""
        return json.dumps(self.to_json(), separators=(",", ":")).encode() + b"\n"

    @property
    def is_genuine(self) -> bool:
        """Tell whether the issuer signed both. Cost: two verifications, about 0.2 ms."""
        grant = self.grant
        return grant.is_genuine and verify(
            grant.issuer, REVOCATION_DOMAIN, grant.digest, self.signature
        )


def revoke_grant(issuer: Identity, grant: Grant) -> Revocation:
    """Take a grant back.

    Raises:
        GrantError: it is another key's.
    """
    if grant.issuer != issuer.public_key:
        raise GrantError(
            f"it was granted by the key {grant.issuer.hex()}; only that one can revoke it"
        )
    return Revocation(grant, issuer.sign(REVOCATION_DOMAIN, grant.digest))
