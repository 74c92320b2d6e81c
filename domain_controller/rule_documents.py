"""Signed documents of rules: whose they are, and whether their signer may say what they say.

Only as much of a document is read as its proof needs: the envelope, the head, and of each rule the
names that must be proven. The routers that it goes to read all of it, and refuse what is wrong item
by item. Source: docs/decisions/0012; docs/reference/rules.md, "Signed" and "Refusals".
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from packetcloud.chunk.errors import GrantError
from packetcloud.chunk.grant_chains import GrantBook, Use
from packetcloud.chunk.grants import Grant
from packetcloud.chunk.identity import verify
from packetcloud.chunk.names import GUID, GUID_BYTES, PUBLIC_KEY_BYTES, SID_ZERO
from packetcloud.chunk.timestamps import parse_time
from packetcloud.domain_controller.core.checks import MAX_TIME_MS
from packetcloud.domain_controller.errors import OwnershipError, RuleDocumentError

SIGNED_FORMAT = "packetcloud-signed-rules-1"
RULES_FORMAT = "packetcloud-rules-1"
DOCUMENT_DOMAIN = b"packetcloud-rules-1"
MAX_ITEMS_COUNT = 10_000
MAX_GRANTS_COUNT = 256
"""Each takes 0.1 ms to verify, while its sender waits."""
MAX_NAMES_COUNT = 65_536
"""Of all rules of a document together."""


@dataclass(frozen=True, slots=True)
class ProvenRules:
    """A document whose signer may say all that it says."""

    signer: bytes
    """Public key."""
    set_name: str
    serial: int
    items_count: int
    service: bytes
    """The SID that all its rules lead to; empty: it only withdraws."""
    digest: bytes
    """SHA-256 of the document."""
    is_whole: bool
    """The set becomes exactly its rules, whatever a router had before."""
    rules_count: int
    until_ms: int | None
    """From then on none of its rules holds; None: one of them has no end."""

    @property
    def signer_guid(self) -> GUID:
        return GUID.from_public_key(self.signer)


def prove_rules(text: str, *, is_own: bool, now_ms: int) -> ProvenRules:
    """Check a document.

    Args:
        is_own: who brings it speaks for the ISP, which may say everything.

    Raises:
        RuleDocumentError: it is no signed document of rules, or too large.
        OwnershipError: something in it is not proven.
    """
    data = text.encode("utf-8", "surrogatepass")
    envelope_line, newline, body = data.partition(b"\n")
    if not newline:
        raise RuleDocumentError("document: no signed rules; sign them: packetcloud rule sign")
    signer, signature, grants = _envelope(envelope_line)
    if not verify(signer, DOCUMENT_DOMAIN, _message(grants, body), signature):
        raise OwnershipError("document: the signature is not that of these rules by this key")
    head_line, _, rest = body.partition(b"\n")
    head = _object("head", head_line)
    set_name, serial = head.get("set"), head.get("serial")
    if head.get("format") != RULES_FORMAT or not isinstance(set_name, str):
        raise RuleDocumentError("document: head: not that of a document of rules")
    if len(set_name) > 64 or type(serial) is not int or not 0 < serial < 1 << 63:
        raise RuleDocumentError("document: head: set or serial is not possible")
    lines = rest.splitlines()
    if len(lines) > MAX_ITEMS_COUNT:
        raise RuleDocumentError(
            f"document: over {MAX_ITEMS_COUNT} items; write several, or install it at the router"
        )
    rules = [one for line in lines if "withdraw" not in (one := _object("item", line))]
    services = {_name("service", rule.get("service")) for rule in rules}
    if len(services) > 1:
        raise RuleDocumentError(
            "document: its rules lead to several services; allowed: one document for each"
        )
    if not is_own:
        _Prover(signer, grants, head, now_ms / 1000).prove(rules)
    return ProvenRules(
        signer,
        set_name,
        serial,
        len(lines),
        next(iter(services), b""),
        hashlib.sha256(data).digest(),
        head.get("replace") is True,
        len(rules),
        _end_ms(head, rules),
    )


class _Prover:
    """Asks rules for their proof, as a router will."""

    def __init__(
        self, signer: bytes, grants: list[Grant], head: dict[str, Any], now_s: float
    ) -> None:
        self._signer = signer
        self._now_s = now_s
        self._until_s = _time("valid_until", head.get("valid_until"), math.inf)
        self._from_s = _time("valid_from", head.get("valid_from"), -math.inf)
        try:
            self._book = GrantBook(grants)
        except GrantError as error:
            raise RuleDocumentError(f"document: grants: {error}") from None

    def prove(self, rules: Iterable[dict[str, Any]]) -> None:
        count = 0
        for rule in rules:
            until_s = _time("valid_until", rule.get("valid_until"), self._until_s)
            from_s = _time("valid_from", rule.get("valid_from"), self._from_s)
            if until_s == math.inf:
                raise OwnershipError(
                    "document: a rule of a third party must end; give the rule or its set a "
                    "valid_until"
                )
            if until_s <= self._now_s:
                raise OwnershipError("document: a rule in it is over; sign a new one")
            names = _names("destination", rule) | (_names("sid", rule) - {SID_ZERO.value})
            if not names:
                raise OwnershipError(
                    "document: a rule of a third party must name a destination or a SID, as those "
                    "can be proven"
                )
            count += len(names)
            if count > MAX_NAMES_COUNT:
                raise RuleDocumentError(f"document: over {MAX_NAMES_COUNT} names in its rules")
            service = _name("service", rule.get("service"))
            use = Use(service, max(from_s, self._now_s), until_s)
            for name in (service, *sorted(names)):
                doubt = self._book.doubt(name, self._signer, use, self._now_s)
                if doubt is not None:
                    raise OwnershipError(f"document: {name.hex()} {doubt.text}")


def _envelope(line: bytes) -> tuple[bytes, bytes, list[Grant]]:
    record = _object("envelope", line)
    grants = record.get("grants")
    if record.get("format") != SIGNED_FORMAT or not isinstance(grants, list):
        raise RuleDocumentError("document: not signed; sign it: packetcloud rule sign")
    if len(grants) > MAX_GRANTS_COUNT:
        raise RuleDocumentError(
            f"document: over {MAX_GRANTS_COUNT} grants; write several, or install it at the router"
        )
    try:
        signer = bytes.fromhex(record["public_key"])
        signature = bytes.fromhex(record["signature"])
        read = [Grant.from_json(one) for one in grants]
    except (KeyError, TypeError, ValueError):
        raise RuleDocumentError("document: envelope: no key and signature") from None
    except GrantError as error:
        raise RuleDocumentError(f"document: envelope: {error}") from None
    if len(signer) != PUBLIC_KEY_BYTES:
        raise RuleDocumentError("document: envelope: no key")
    return signer, signature, read


def _message(grants: Iterable[Grant], body: bytes) -> bytes:
    """Return what is signed; see docs/reference/rules.md, "Signed"."""
    digest = hashlib.sha256()
    for grant in grants:
        digest.update(grant.to_bytes() + b"\n")
    return hashlib.sha256(digest.digest() + hashlib.sha256(body).digest()).digest()


def _object(what: str, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise RuleDocumentError(f"document: {what}: no JSON object that says each thing once")
    return record


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        # What is proven here must be what a router reads there.
        raise ValueError("a key stands there twice")
    return record


def _names(key: str, rule: dict[str, Any]) -> set[bytes]:
    values = rule.get(key, [])
    return {_name(key, value) for value in (values if isinstance(values, list) else [values])}


def _name(key: str, value: object) -> bytes:
    try:
        name = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        name = b""
    if len(name) != GUID_BYTES or len(str(value)) != 2 * GUID_BYTES:
        raise RuleDocumentError(f"document: {key}: allowed: names of 40 hexadecimal digits")
    return name


def _end_ms(head: dict[str, Any], rules: Iterable[dict[str, Any]]) -> int | None:
    of_set_s = _time("valid_until", head.get("valid_until"), math.inf)
    ends_s = (_time("valid_until", rule.get("valid_until"), of_set_s) for rule in rules)
    end_s = max((min(one, of_set_s) for one in ends_s), default=of_set_s)
    return None if end_s == math.inf else max(0, min(int(end_s * 1000), MAX_TIME_MS))


def _time(key: str, value: object, default: float) -> float:
    if value is None:
        return default
    try:
        return parse_time(value if isinstance(value, str) else "")
    except ValueError as error:
        raise RuleDocumentError(f"document: {key}: allowed: {error}") from None
