"""rules-v1.json is what the code writes, and what docs/reference/rules.md says."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import nacl.signing

from packetcloud.chunk.grants import Grant
from packetcloud.chunk.identity import Identity
from packetcloud.router.rules.document import Withdrawal
from packetcloud.router.rules.rule import Rule
from packetcloud.router.rules.signed import open_signed
from tests.vectors import rules_v1

each = rules_v1.FILE.each


def test_the_file_is_what_the_code_writes() -> None:
    """The format never changes by accident: see `python -m tests.vectors.rules_v1`."""
    assert rules_v1.build() == rules_v1.FILE.load()


def _is_signed_as_documented(key: bytes, word: bytes, message: bytes, signature: bytes) -> None:
    """Verify as the page says, without our code. Raises: BadSignatureError."""
    signed = b"packetcloud signature v1\0" + bytes([len(word)]) + word + message
    nacl.signing.VerifyKey(key).verify(signed, signature)


@each("grants")
def test_grants(vector: dict[str, Any]) -> None:
    """Text and value are one; the signature is over the sorted compact JSON of all else."""
    fields = vector["fields"]
    grant = Grant.from_json(fields)
    assert grant.is_genuine
    assert grant.to_json() == fields
    rest = {key: value for key, value in fields.items() if key != "signature"}
    message = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    assert message == vector["signed"]
    key = Identity(bytes.fromhex(vector["seed"])).public_key
    signature = bytes.fromhex(fields["signature"])
    _is_signed_as_documented(key, b"packetcloud-grant-1", message.encode(), signature)


@each("documents")
def test_documents(vector: dict[str, Any]) -> None:
    """They open; what is signed is made as the page says."""
    text = vector["text"].encode()
    items = list(open_signed(io.BytesIO(text)).items(lambda _: None))
    assert items
    assert all(isinstance(item, Rule | Withdrawal) for item in items)
    line, _, body = text.partition(b"\n")
    envelope = json.loads(line)
    grants = b"".join(
        json.dumps(grant, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        for grant in envelope["grants"]
    )
    digests = hashlib.sha256(grants).digest() + hashlib.sha256(body).digest()
    message = hashlib.sha256(digests).digest()
    assert message.hex() == vector["signed"]
    key, signature = (bytes.fromhex(envelope[name]) for name in ("public_key", "signature"))
    assert key == Identity(bytes.fromhex(vector["seed"])).public_key
    _is_signed_as_documented(key, b"packetcloud-rules-1", message, signature)
