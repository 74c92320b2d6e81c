"""What is in rules-v1.json: grants and signed documents of rules, as text, and what they say.

`python -m tests.vectors.rules_v1` compares the file with the code, `--write` writes it anew.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from packetcloud.chunk.grants import Grant, issue_grant
from packetcloud.chunk.identity import Identity
from packetcloud.router.rules.document import Head, line_of
from packetcloud.router.rules.rule import Mode
from packetcloud.router.rules.signed import open_signed, sign_document
from tests.vectors.fields import Fields
from tests.vectors.file import VectorFile

ISP, OWNER, RESELLER, TENANT = (Identity(bytes(31) + bytes([number])) for number in range(1, 5))
SERVICE = bytes(range(20))
BEGIN_S, END_S = 1_767_225_600, 1_798_761_600

FIRST = issue_grant(
    OWNER,
    RESELLER.public_key,
    frozenset({OWNER.guid.value}),
    None,
    BEGIN_S,
    END_S,
    nonce=bytes(16),
    may_delegate=True,
)
SECOND = issue_grant(
    RESELLER,
    TENANT.public_key,
    frozenset({OWNER.guid.value, RESELLER.guid.value}),
    frozenset({SERVICE, bytes(19) + b"\1"}),
    BEGIN_S + 1,
    END_S - 1,
    nonce=bytes(range(16)),
)
RULE = {"name": "a", "service": SERVICE.hex(), "destination": OWNER.guid.hex}
OWN = Head("own", 1, None).to_bytes() + line_of(RULE | {"patterns": {"regex": "a+b", "to": 9}})
THIRD_PARTY = (
    Head(
        "office/1", 7, frozenset({bytes(20), b"\xff" * 20}), BEGIN_S, END_S - 1, True, Mode.SHADOW
    ).to_bytes()
    + line_of(RULE)
    + line_of({"withdraw": "b"})
)


def build() -> Fields:
    """Return what the code encodes now."""
    return {
        "format": "grants and signed documents of demultiplexing rules, version 1",
        "grants": [_grant("the owner's", OWNER, FIRST), _grant("on to a tenant", RESELLER, SECOND)],
        "documents": [
            _document("of an ISP", ISP, OWN, ()),
            _document("of a tenant with a chain", TENANT, THIRD_PARTY, (FIRST, SECOND)),
        ],
    }


def _grant(name: str, issuer: Identity, grant: Grant) -> Fields:
    return {
        "name": name,
        "seed": issuer.seed.hex(),
        "signed": grant.signed_bytes().decode(),
        "fields": grant.to_json(),
    }


def _document(name: str, signer: Identity, body: bytes, grants: tuple[Grant, ...]) -> Fields:
    target = io.BytesIO()
    sign_document(io.BytesIO(body), signer, grants, target)
    text = target.getvalue()
    return {
        "name": name,
        "seed": signer.seed.hex(),
        "signed": open_signed(io.BytesIO(text)).digest.hex(),
        "text": text.decode(),
    }


FILE = VectorFile(Path(__file__).with_name("rules-v1.json"), build)

if __name__ == "__main__":
    sys.exit(FILE.main(sys.argv[1:]))
