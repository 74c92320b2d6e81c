"""Makes documents of rules, signed ones and grants for tests: a small ISP and its neighbourhood."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from packetcloud.chunk.grants import Grant, issue_grant
from packetcloud.chunk.identity import Identity
from packetcloud.router.rules.document import Head, Item, line_of, read_items
from packetcloud.router.rules.proof import Trust
from packetcloud.router.rules.signed import SignedDocument, open_signed, sign_document

NOW_S = 1_800_000_000
DAY_S = 86_400
ISP, OWNER, TENANT, RESELLER, SERVICE, STRANGER = (
    Identity(bytes(31) + bytes([number])) for number in range(1, 7)
)
ROUTER = Identity(bytes(31) + b"\x10").guid.value
TRUST = Trust(ROUTER, frozenset({ISP.public_key}), frozenset({SERVICE.sid.value}))
HEAD = Head("test", 1, None, valid_until_s=NOW_S + DAY_S)


def takes_any_pattern(_pattern: object) -> None:
    """Stand in for the scanner: every pattern can be used."""


def rule_record(**fields: Any) -> dict[str, Any]:
    """Return a rule as JSON: about the owner's name, unless said otherwise; None leaves it out."""
    record = {"name": "r", "service": SERVICE.sid.hex, "destination": OWNER.guid.hex} | fields
    return {key: value for key, value in record.items() if value is not None}


def items_of(*records: dict[str, Any] | bytes, head: Head = HEAD) -> list[Item]:
    """Return what a document with these items holds."""
    lines = [line if isinstance(line, bytes) else line_of(line) for line in records]
    return list(read_items(lines, head, takes_any_pattern))


def body_of(*records: dict[str, Any] | bytes, head: Head = HEAD) -> bytes:
    """Return a document without signature."""
    lines = [line if isinstance(line, bytes) else line_of(line) for line in records]
    return b"".join([head.to_bytes(), *lines])


def signed(body: bytes, signer: Identity = ISP, grants: Iterable[Grant] = ()) -> bytes:
    """Return a document with its signature."""
    target = io.BytesIO()
    sign_document(io.BytesIO(body), signer, grants, target)
    return target.getvalue()


def opened(document: bytes) -> SignedDocument:
    """Open a signed document."""
    return open_signed(io.BytesIO(document))


def grant(
    issuer: Identity = OWNER,
    to: Identity = TENANT,
    names: Iterable[bytes] = (OWNER.guid.value,),
    services: Iterable[bytes] | None = None,
    valid_from_s: int = NOW_S - DAY_S,
    valid_until_s: int = NOW_S + 2 * DAY_S,
    may_delegate: bool = False,
    nonce: bytes = bytes(16),
) -> Grant:
    """Return a grant: the owner's to the tenant, unless said otherwise."""
    return issue_grant(
        issuer,
        to.public_key,
        frozenset(names),
        None if services is None else frozenset(services),
        valid_from_s,
        valid_until_s,
        nonce=nonce,
        may_delegate=may_delegate,
    )
