"""Grants: whoever owns a name lets another key speak for it, for some services and some time.

A name is the hash of a key, so a chain of grants that begins with that key proves itself. Each link
is signed by the key that the link before it was given to, and may only narrow: the same services or
fewer, the same time or less. Names are taken one by one: a grant says nothing about those of its
names that nobody granted to its issuer. Who holds a name's own key needs no grant.

A grant is JSON; signed is the canonical form of what it says (`Grant.signed_bytes`), so the layout
of the file does not matter. Source: docs/decisions/0012; docs/reference/rules.md, "Grants".
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Self

from packetcloud.chunk.errors import GrantError
from packetcloud.chunk.identity import SIGNATURE_BYTES, Identity, verify
from packetcloud.chunk.names import GUID_BYTES, PUBLIC_KEY_BYTES
from packetcloud.chunk.timestamps import ALLOWED_TIME, parse_time, time_text

GRANT_FORMAT = "packetcloud-grant-1"
GRANT_DOMAIN = b"packetcloud-grant-1"
"""Domain word of the signature."""
ANY_SERVICE = "any"
NONCE_BYTES = 16
MAX_GRANT_NAMES_COUNT = 1024
"""Names in one grant: 43 KiB of text."""
MAX_GRANT_SERVICES_COUNT = 64
MAX_GRANT_BYTES = 64 * 1024
"""A grant with all the names and services that it may have is shorter."""

_KEYS = (
    "format", "issuer", "to", "names", "services", "valid_from", "valid_until", "may_delegate",
    "nonce", "signature",
)  # fmt: skip
_HEX = re.compile("[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Grant:
    """One link: `issuer` lets the key `to` speak for `names`, in rules that lead to `services`."""

    issuer: bytes
    """Public key, 32 bytes."""
    to: bytes
    """Public key, 32 bytes."""
    names: frozenset[bytes]
    """GUIDs and SIDs, 20 bytes each."""
    services: frozenset[bytes] | None
    """SIDs that rules may lead to; None: any."""
    valid_from_s: int
    """Seconds since 1970; from then on."""
    valid_until_s: int
    """Seconds since 1970; not from then on."""
    may_delegate: bool
    """`to` may grant it on."""
    nonce: bytes
    """16 random bytes, so that no two grants are the same."""
    signature: bytes = b""

    @classmethod
    def from_json(cls, record: object) -> Self:
        """Read a grant; whether its signature is right is not asked here: see `is_genuine`.

        Raises:
            GrantError: something is missing, unknown or not allowed.
        """
        if not isinstance(record, dict):
            raise GrantError("a grant is a JSON object")
        for key in record:
            if key not in _KEYS:
                raise GrantError(f"{_shown(key)}: unknown key; allowed: {', '.join(_KEYS)}")
        for key in _KEYS:
            if key not in record:
                raise GrantError(f"{key}: missing")
        if record["format"] != GRANT_FORMAT:
            raise GrantError(f"format = {_shown(record['format'])}: allowed: {GRANT_FORMAT!r}")
        if not isinstance(record["may_delegate"], bool):
            raise GrantError("may_delegate: allowed: true or false")
        services = record["services"]
        grant = cls(
            issuer=_octets(record, "issuer", PUBLIC_KEY_BYTES),
            to=_octets(record, "to", PUBLIC_KEY_BYTES),
            names=_names(record["names"], "names", MAX_GRANT_NAMES_COUNT),
            services=None
            if services == ANY_SERVICE
            else _names(services, "services", MAX_GRANT_SERVICES_COUNT),
            valid_from_s=_seconds(record, "valid_from"),
            valid_until_s=_seconds(record, "valid_until"),
            may_delegate=record["may_delegate"],
            nonce=_octets(record, "nonce", NONCE_BYTES),
            signature=_octets(record, "signature", SIGNATURE_BYTES),
        )
        if grant.valid_from_s >= grant.valid_until_s:
            raise GrantError("valid_until: allowed: a time after valid_from")
        return grant

    @classmethod
    def from_text(cls, text: bytes) -> Self:
        """Read a grant from the bytes of a file.

        Raises:
            GrantError: no JSON, or no grant.
        """
        if len(text) > MAX_GRANT_BYTES:
            raise GrantError(f"over {MAX_GRANT_BYTES} bytes; is it a grant?")
        try:
            record = json.loads(text, object_pairs_hook=_object_of)
        except (ValueError, RecursionError):
            raise GrantError("not JSON") from None
        return cls.from_json(record)

    def to_json(self) -> dict[str, Any]:
        """Return what stands in a file: lists sorted, times in UTC, digits in lower case."""
        return {
            "format": GRANT_FORMAT,
            "issuer": self.issuer.hex(),
            "to": self.to.hex(),
            "names": sorted(name.hex() for name in self.names),
            "services": ANY_SERVICE
            if self.services is None
            else sorted(sid.hex() for sid in self.services),
            "valid_from": time_text(self.valid_from_s),
            "valid_until": time_text(self.valid_until_s),
            "may_delegate": self.may_delegate,
            "nonce": self.nonce.hex(),
            "signature": self.signature.hex(),
        }

    def to_bytes(self) -> bytes:
        """Return the canonical form: compact JSON, keys in alphabetical order."""
        return _canonical(self.to_json())

    def signed_bytes(self) -> bytes:
        """Return the canonical form of all but the signature."""
        record = self.to_json()
        del record["signature"]
        return _canonical(record)

    @property
    def digest(self) -> bytes:
        """SHA-256 of what is signed, 32 bytes: what a revocation of it names."""
        return hashlib.sha256(self.signed_bytes()).digest()

    @property
    def is_genuine(self) -> bool:
        """Tell whether the issuer signed it. Cost: one verification, about 0.1 ms."""
        return verify(self.issuer, GRANT_DOMAIN, self.signed_bytes(), self.signature)

    def allows(self, service: bytes) -> bool:
        """Tell whether rules under it may lead to `service`."""
        return self.services is None or service in self.services

    def narrows(self, before: Grant) -> bool:
        """Tell whether this link may follow `before`, as far as services and time go."""
        return (
            before.may_delegate
            and before.to == self.issuer
            and (
                before.services is None
                or (self.services is not None and self.services <= before.services)
            )
            and before.valid_from_s <= self.valid_from_s
            and self.valid_until_s <= before.valid_until_s
        )


def issue_grant(
    issuer: Identity,
    to: bytes,
    names: frozenset[bytes],
    services: frozenset[bytes] | None,
    valid_from_s: int,
    valid_until_s: int,
    *,
    nonce: bytes,
    may_delegate: bool = False,
) -> Grant:
    """Make a grant and sign it.

    Raises:
        GrantError: a value that no reader would take.
    """
    fields = (valid_from_s, valid_until_s, may_delegate, nonce)
    unsigned = Grant(issuer.public_key, to, names, services, *fields)
    signature = issuer.sign(GRANT_DOMAIN, unsigned.signed_bytes())
    return Grant.from_json(unsigned.to_json() | {"signature": signature.hex()})


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        # What somebody reads in the file must be what is signed.
        raise GrantError("a key stands there twice")
    return record


def _canonical(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def _octets(record: dict[str, Any], key: str, count: int) -> bytes:
    text = record[key]
    if not isinstance(text, str) or len(text) != 2 * count or _HEX.fullmatch(text) is None:
        raise GrantError(
            f"{key} = {_shown(text)}: allowed: {2 * count} hexadecimal digits in lower case"
        )
    return bytes.fromhex(text)


def _names(texts: object, key: str, most: int) -> frozenset[bytes]:
    what = '"any", or ' if key == "services" else ""
    allowed = f"allowed: {what}a list of 1 to {most} different names of 40 hexadecimal digits"
    if not isinstance(texts, list) or not 1 <= len(texts) <= most:
        raise GrantError(f"{key}: {allowed}")
    for text in texts:
        if not isinstance(text, str) or len(text) != 2 * GUID_BYTES or not _HEX.fullmatch(text):
            raise GrantError(f"{key}: {_shown(text)}: {allowed}, in lower case")
    names = frozenset(map(bytes.fromhex, texts))
    if len(names) != len(texts):
        raise GrantError(f"{key}: {allowed}")
    return names


def _seconds(record: dict[str, Any], key: str) -> int:
    text = record[key]
    try:
        seconds = parse_time(text) if isinstance(text, str) else 0.5
    except ValueError:
        seconds = 0.5
    if seconds != int(seconds):
        raise GrantError(f"{key} = {_shown(text)}: allowed: {ALLOWED_TIME}, in whole seconds")
    return int(seconds)


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
