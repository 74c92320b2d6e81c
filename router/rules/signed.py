"""Signed documents of rules: who says so, over which bytes, and the grants that allow it.

Line 1 is the envelope: public key, signature, grants. The rest is the document. Signed is one
digest over the grants and over every byte of the rest, so a million rules cost one signature. The
envelope has one form only, so that no byte of the file can be another.

Source: docs/reference/rules.md, "Signed".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, BinaryIO

from packetcloud.chunk.errors import GrantError
from packetcloud.chunk.grants import Grant
from packetcloud.chunk.identity import SIGNATURE_BYTES, Identity, verify
from packetcloud.chunk.names import PUBLIC_KEY_BYTES, name_bytes
from packetcloud.router.rules.document import (
    MAX_ITEMS_COUNT,
    Head,
    Item,
    LineItem,
    decode_line,
    head_of_line,
    line_of,
    lines_of,
    read_line_items,
)
from packetcloud.router.rules.errors import RuleDocumentError, RulesRefusedError
from packetcloud.router.rules.fields import CheckPattern
from packetcloud.router.rules.refusals import Refusal, Refused

SIGNED_FORMAT = "packetcloud-signed-rules-1"
ENVELOPE_START = b'{"format":"' + SIGNED_FORMAT.encode() + b'",'
DOCUMENT_DOMAIN = b"packetcloud-rules-1"
"""Domain word of the signature."""
MAX_GRANTS_COUNT = 4096
"""In one document: 0.4 s to verify."""
MAX_ENVELOPE_BYTES = 4 << 20
_READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Envelope:
    """Line 1 of a signed document."""

    public_key: bytes
    """Of the signer, 32 bytes."""
    signature: bytes
    """64 bytes, over the grants and the rest of the document."""
    grants: tuple[Grant, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the line with its end."""
        return line_of(
            {
                "format": SIGNED_FORMAT,
                "public_key": self.public_key.hex(),
                "signature": self.signature.hex(),
                "grants": [grant.to_json() for grant in self.grants],
            }
        )

    @classmethod
    def from_bytes(cls, line: bytes) -> Envelope:
        """Read the line.

        Raises:
            RulesRefusedError: it is no envelope, so nobody signed the document.
            RuleDocumentError: it is one, and not as `to_bytes` makes it.
        """
        if not line.startswith(ENVELOPE_START):
            problem = "the document has no signature; sign it with: packetcloud rule sign"
            raise RulesRefusedError(Refused(Refusal.UNSIGNED, problem))
        try:
            record: Any = decode_line(line)
        except ValueError as error:
            raise RuleDocumentError(f"envelope: {error}") from None
        grants = record.get("grants")
        if not isinstance(grants, list) or len(grants) > MAX_GRANTS_COUNT:
            raise RuleDocumentError(
                f"envelope: grants: allowed: a list of at most {MAX_GRANTS_COUNT} grants"
            )
        envelope = cls(
            _octets(record, "public_key", PUBLIC_KEY_BYTES),
            _octets(record, "signature", SIGNATURE_BYTES),
            tuple(_grant(number, one) for number, one in enumerate(grants, 1)),
        )
        if envelope.to_bytes() != line:
            raise RuleDocumentError("envelope: not in the form that packetcloud rule sign writes")
        return envelope


class SignedDocument:
    """A document whose signature is right; whether its signer may say all this is not asked yet."""

    def __init__(self, stream: BinaryIO, envelope: Envelope, message: bytes, count: int) -> None:
        self.signer = envelope.public_key
        """Public key, 32 bytes."""
        self.grants = envelope.grants
        self.item_count = count
        self.digest = message
        """32 bytes: what was signed. Two documents with the same digest say the same."""
        self._stream = stream
        self._body_at = stream.tell()
        self.head: Head = head_of_line(next(lines_of(stream), b""))

    @property
    def signer_guid(self) -> bytes:
        """The GUID of the signer's key, 20 bytes."""
        return name_bytes(self.signer)

    def items(self, check_pattern: CheckPattern) -> Iterator[Item]:
        """Read the items, from the first one on.

        Raises:
            RuleDocumentError: more than `MAX_ITEMS_COUNT`.
            RulesRefusedError: after the last item: the file was changed since it was opened. Undo
                whatever came of the items.
        """
        return map(itemgetter(1), self.line_items(check_pattern))

    def line_items(self, check_pattern: CheckPattern) -> Iterator[LineItem]:
        """As `items`; each with its line."""
        self._stream.seek(self._body_at)
        digest = hashlib.sha256()
        lines = lines_of(self._stream, digest.update)
        next(lines, b"")  # the head
        yield from read_line_items(lines, self.head, check_pattern)
        if _message(self.grants, digest.digest()) != self.digest:
            problem = "the file was changed while it was read; give it again"
            raise RulesRefusedError(Refused(Refusal.FORGED, problem))


def open_signed(stream: BinaryIO) -> SignedDocument:
    """Check the signature of a document; reads it to its end once.

    Args:
        stream: one that can seek, standing at the envelope. The document reads from it later.

    Raises:
        RulesRefusedError: not signed, or the signature is not right.
        RuleDocumentError: the envelope or the head cannot be read, or there are too many items.
    """
    line = stream.readline(MAX_ENVELOPE_BYTES + 1)
    if len(line) > MAX_ENVELOPE_BYTES:
        raise RuleDocumentError(f"envelope: over {MAX_ENVELOPE_BYTES} bytes in a line")
    envelope = Envelope.from_bytes(line)
    body_at = stream.tell()
    digest, count = _digest_of_rest(stream)
    message = _message(envelope.grants, digest)
    if not verify(envelope.public_key, DOCUMENT_DOMAIN, message, envelope.signature):
        problem = "the signature is not that of these bytes by this key; get the document anew"
        raise RulesRefusedError(Refused(Refusal.FORGED, problem))
    stream.seek(body_at)
    return SignedDocument(stream, envelope, message, max(count - 1, 0))


def sign_document(
    body: BinaryIO, identity: Identity, grants: Iterable[Grant], target: BinaryIO
) -> Envelope:
    """Write a signed document.

    Args:
        body: one that can seek, standing at the head; read twice.
        target: gets envelope and body.

    Raises:
        RuleDocumentError: too many items or grants, or the envelope would be too long.
    """
    body_at = body.tell()
    digest, _ = _digest_of_rest(body)
    chain = tuple(grants)
    signature = identity.sign(DOCUMENT_DOMAIN, _message(chain, digest))
    envelope = Envelope(identity.public_key, signature, chain)
    line = envelope.to_bytes()
    if len(chain) > MAX_GRANTS_COUNT or len(line) > MAX_ENVELOPE_BYTES:
        raise RuleDocumentError(
            f"envelope: allowed: {MAX_GRANTS_COUNT} grants and {MAX_ENVELOPE_BYTES} bytes, "
            "so write several documents"
        )
    target.write(line)
    body.seek(body_at)
    while block := body.read(_READ_BYTES):
        target.write(block)
    return envelope


def _message(grants: Iterable[Grant], body_digest: bytes) -> bytes:
    """Return what is signed: 32 bytes."""
    digest = hashlib.sha256()
    for grant in grants:
        digest.update(grant.to_bytes() + b"\n")
    return hashlib.sha256(digest.digest() + body_digest).digest()


def _digest_of_rest(stream: BinaryIO) -> tuple[bytes, int]:
    """Return the SHA-256 of the rest of a stream, and how many lines it has.

    Raises:
        RuleDocumentError: more than a document may have.
    """
    digest = hashlib.sha256()
    count = 0
    last = b"\n"
    while block := stream.read(_READ_BYTES):
        digest.update(block)
        count += block.count(b"\n")
        last = block[-1:]
        if count > MAX_ITEMS_COUNT + 1:
            raise RuleDocumentError(f"over {MAX_ITEMS_COUNT} items; write several documents")
    return digest.digest(), count + (last != b"\n")


def _octets(record: dict[str, Any], key: str, count: int) -> bytes:
    value = record.get(key)
    try:
        octets = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        octets = b""
    if len(octets) != count:
        raise RuleDocumentError(f"envelope: {key}: allowed: {2 * count} hexadecimal digits")
    return octets


def _grant(number: int, record: object) -> Grant:
    try:
        return Grant.from_json(record)
    except GrantError as error:
        raise RuleDocumentError(f"envelope: grant {number}: {error}") from None
