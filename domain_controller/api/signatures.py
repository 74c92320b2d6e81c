"""Signed requests: what a signature must cover and say, and what is refused.

RFC 9421 with the package http-message-signatures; Ed25519 only. A signature covers method,
authority, path, query, the digest of the body (RFC 9530, also of an empty one), and each header
that the API reads, where it is there. It says when it was made and ends, a nonce, whose key it is,
and our tag. One signature for a request; anything else is refused with a reason.

Source: docs/decisions/0015; docs/reference/domain-requests.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NoReturn

import http_sf
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from http_message_signatures import (
    HTTPMessageSignaturesException,
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    InvalidSignature,
    VerifyResult,
)
from http_message_signatures.algorithms import ED25519

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.identity import Identity
from packetcloud.domain_controller.errors import DomainError

TAG = "packetcloud-domain-1"
"""A signature with another tag was made for something else."""
ALGORITHM = "ed25519"
ALWAYS_COVERED = ("@method", "@authority", "@path", "@query", "content-digest")
COVERED_IF_THERE = ("content-type", "idempotency-key", "last-event-id")
"""Headers that the API reads. Each may stand in a request once."""
CLOCK_SKEW_S = 30
"""So far apart may the clocks of two machines be. With more, requests are refused and say so."""
MAX_VALIDITY_S = 300
"""From `created` to `expires`: nonces are kept for so long, and the skew."""
VALIDITY_S = 60
"""What our client asks for."""
MIN_NONCE_CHARS = 16
MAX_NONCE_CHARS = 64
MAX_KEY_ID_CHARS = 63
MAX_SIGNATURE_HEADER_CHARS = 4096
"""Of each of the two headers: ours have about 400."""
_NONCE = re.compile(rf"[A-Za-z0-9_-]{{{MIN_NONCE_CHARS},{MAX_NONCE_CHARS}}}")
_LABEL = "packetcloud"


class Refusal(StrEnum):
    """Why a signature is refused."""

    MISSING = "missing"
    MALFORMED = "malformed"
    SEVERAL = "several"
    ALGORITHM = "algorithm"
    PARAMETER = "parameter"
    COMPONENT = "component"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    TOO_LONG = "too-long"
    AUTHORITY = "authority"
    UNKNOWN_KEY = "unknown-key"
    WRONG = "wrong"
    DIGEST = "digest"
    REPLAYED = "replayed"


class SignatureRefusedError(DomainError):
    """A request is not signed as it must be; the text says what to do about it."""

    def __init__(self, refusal: Refusal, text: str) -> None:
        super().__init__(text)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class HeaderLines:
    """Header lines in the order in which they came; a name may stand there twice."""

    lines: tuple[tuple[str, str], ...]

    def items(self) -> Iterable[tuple[str, str]]:
        return self.lines

    def all(self, name: str) -> list[str]:
        """Return the values of all lines of a name, which is in lower case."""
        return [value for key, value in self.lines if key.lower() == name]


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request as it came in, without its body."""

    method: str
    url: str
    """Absolute, encoded as it was sent; its host is what the Host header says."""
    headers: HeaderLines


@dataclass(frozen=True, slots=True)
class Proof:
    """Whose key signed a request. Kept with what the request changed, as evidence."""

    key_id: str
    nonce: str
    expires_ms: int
    """From then on the request is refused for its age, and the nonce need not be known any more."""
    signed: bytes
    """The signature base: what was signed, the digest of the body in it."""
    signature: bytes


KeyOf = Callable[[str], bytes | None]
"""Returns the public key (32 bytes) of a key id that counts now; None: there is none."""


def sign_request(message: Any, body: bytes, identity: Identity, nonce: str, now_s: float) -> None:
    """Sign a request in place.

    Args:
        message: of httpx, or whatever has `method`, `url` and `headers`.
        nonce: new for each request.
    """
    there = [name for name in COVERED_IF_THERE if name in message.headers]
    signer = HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=_OwnKey(identity))
    # Signing anew (a second try of the same request) replaces what was there.
    if "content-digest" in message.headers:
        del message.headers["content-digest"]
    signer.sign(
        message,
        key_id=identity.guid.hex,
        created=datetime.fromtimestamp(int(now_s), UTC),
        expires=datetime.fromtimestamp(int(now_s) + VALIDITY_S, UTC),
        nonce=nonce,
        label=_LABEL,
        tag=TAG,
        covered_component_ids=(*ALWAYS_COVERED, *there),
        body=body,
    )


@dataclass(frozen=True, slots=True)
class CheckedHead:
    """A head whose signature is right. Its body may still be another: see `check_body`."""

    head: RequestHead
    proof: Proof
    _results: list[VerifyResult]
    _verifier: _Verifier


def check_head(
    head: RequestHead, key_of: KeyOf, authorities: Container[str], now_s: float
) -> CheckedHead:
    """Return who signed a request. So a stranger's body need not be read.

    Args:
        authorities: `host:port`, in lower case, under which this controller is reached; a request
            to another one is no request to this one.

    Raises:
        SignatureRefusedError: it is not signed, or not as it must be.
        PacketCloudError: what `key_of` raised.
    """
    verifier = _Verifier(key_of, now_s)
    there = [name for name in COVERED_IF_THERE if head.headers.all(name)]
    try:
        _check_headers(head.headers)
        results = verifier.verify(head, max_age=None)
        (result,) = results
        for name in (*ALWAYS_COVERED, *there):
            if f'"{name}"' not in result.covered_components:
                text = f'the signature leaves out what it must cover: "{name}"'
                _refuse(Refusal.COMPONENT, text)
        signature = _signature_of(head.headers, result.label)
    except _Carried as carried:
        raise carried.error from None
    except InvalidSignature as error:
        raise SignatureRefusedError(*_explained(str(error))) from None
    except (HTTPMessageSignaturesException, ValueError, TypeError, LookupError, RecursionError):
        # What parsers do with a stranger's bytes.
        raise SignatureRefusedError(Refusal.MALFORMED, "the signature cannot be read") from None
    covered = result.covered_components
    authority = covered['"@authority"']
    if authority not in authorities:
        raise SignatureRefusedError(
            Refusal.AUTHORITY,
            f"the request is signed for {authority}, which is not this controller; use the address "
            "that its operator gives out",
        )
    parameters = result.parameters
    proof = Proof(
        key_id=str(parameters["keyid"]),
        nonce=str(parameters["nonce"]),
        expires_ms=(int(parameters["expires"]) + CLOCK_SKEW_S) * 1000,
        signed="\n".join(f"{name}: {value}" for name, value in covered.items()).encode(),
        signature=signature,
    )
    return CheckedHead(head, proof, results, verifier)


def check_body(checked: CheckedHead, body: bytes) -> Proof:
    """Return the proof of a request whose body is the one that was signed.

    Raises:
        SignatureRefusedError: it is another one.
    """
    try:
        checked._verifier.verify_body(checked.head, checked._results, body)
    except InvalidSignature as error:
        raise SignatureRefusedError(*_explained(str(error))) from None
    return checked.proof


def body_digest(body: bytes) -> bytes:
    """Return the SHA-256 of a body: what an idempotency key is compared by."""
    return hashlib.sha256(body).digest()


class _Carried(InvalidSignature):
    """An error of ours on its way through the library, which lets only its own errors pass."""

    def __init__(self, error: PacketCloudError) -> None:
        super().__init__(str(error))
        self.error = error


class _OwnKey(HTTPSignatureKeyResolver):
    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self._identity.seed)


class _KnownKeys(HTTPSignatureKeyResolver):
    def __init__(self, key_of: KeyOf) -> None:
        self._key_of = key_of

    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey:
        try:
            public_key = self._key_of(key_id) if 0 < len(key_id) <= MAX_KEY_ID_CHARS else None
        except PacketCloudError as error:
            raise _Carried(error) from error  # a database that is away says nothing of the key
        if public_key is None:
            raise _Carried(
                SignatureRefusedError(
                    Refusal.UNKNOWN_KEY,
                    "no key of this id is registered, or it ended; ask the operator to register "
                    "your public key: packetcloud tenant key add",
                )
            )
        return Ed25519PublicKey.from_public_bytes(public_key)


class _Verifier(HTTPMessageVerifier):
    """The library's, with our clock, and with parameters that must be there."""

    def __init__(self, key_of: KeyOf, now_s: float) -> None:
        super().__init__(signature_algorithm=ED25519, key_resolver=_KnownKeys(key_of))
        self._now_s = now_s

    def validate_created_and_expires(
        self, sig_input: Any, max_age: timedelta | None = None
    ) -> None:
        """Look at every parameter; the library calls this before it asks for the key."""
        parameters = sig_input.params
        for name in ("created", "expires", "nonce", "keyid", "alg", "tag"):
            if name not in parameters:
                _refuse(Refusal.PARAMETER, f"the signature says no {name}")
        if parameters["alg"] != ALGORITHM:
            _refuse(
                Refusal.ALGORITHM,
                f"the signature's algorithm is {parameters['alg']!r}; allowed: {ALGORITHM}",
            )
        if parameters["tag"] != TAG:
            _refuse(Refusal.PARAMETER, f"the signature's tag is not {TAG}: made for something else")
        if _NONCE.fullmatch(parameters["nonce"]) is None:
            _refuse(
                Refusal.PARAMETER,
                f"nonce: allowed: {MIN_NONCE_CHARS} to {MAX_NONCE_CHARS} letters, digits, '-', '_'",
            )
        created, expires = parameters["created"], parameters["expires"]
        if created > self._now_s + CLOCK_SKEW_S:
            _refuse(Refusal.NOT_YET_VALID, self._clock_text("was made in the future"))
        if expires + CLOCK_SKEW_S <= self._now_s:
            _refuse(Refusal.EXPIRED, self._clock_text("is too old"))
        if not 0 < expires - created <= MAX_VALIDITY_S:
            _refuse(
                Refusal.TOO_LONG,
                f"expires: allowed: 1 to {MAX_VALIDITY_S} seconds after created",
            )

    def _clock_text(self, what: str) -> str:
        time = datetime.fromtimestamp(int(self._now_s), UTC).isoformat()
        return f"the signature {what}: it is {time} here; set the clock of your machine"


def _signature_of(headers: HeaderLines, label: str) -> bytes:
    (line,) = headers.all("signature")
    members: Any = http_sf.parse(line.encode("latin-1"), tltype="dictionary")
    return bytes(members[label][0])


def _check_headers(headers: HeaderLines) -> None:
    for name in ("signature-input", "signature"):
        lines = headers.all(name)
        if not lines:
            _refuse(
                Refusal.MISSING,
                f"the request has no {name}; sign it with a registered key: packetcloud ... --key",
            )
        if sum(map(len, lines)) > MAX_SIGNATURE_HEADER_CHARS:
            _refuse(Refusal.MALFORMED, f"{name}: over {MAX_SIGNATURE_HEADER_CHARS} characters")
    for name in ("signature-input", "signature", "content-digest", *COVERED_IF_THERE):
        if len(headers.all(name)) > 1:
            _refuse(Refusal.MALFORMED, f"{name} stands in the request twice")


_BY_TEXT = (
    ("Multiple signatures", Refusal.SEVERAL, "the request has several signatures; allowed: one"),
    ("not found in the message", Refusal.COMPONENT, "the signature covers what is not there: "),
    ("Content-Digest does not match", Refusal.DIGEST, "the body is not what was signed"),
    ("digest", Refusal.DIGEST, "content-digest: "),
    ("Content-Digest", Refusal.DIGEST, "content-digest: "),
    ("Malformed", Refusal.MALFORMED, "the signature cannot be read: "),
    ("must be", Refusal.MALFORMED, "the signature cannot be read: "),
    ("different labels", Refusal.MALFORMED, "the signature cannot be read: "),
    ("No signatures found", Refusal.MISSING, "the request has no signature"),
)
"""What the library says, and what we say: only for the words, since each of these is a refusal."""


def _explained(text: str) -> tuple[Refusal, str]:
    for words, refusal, ours in _BY_TEXT:
        if words in text:
            return refusal, ours + (text if ours.endswith(": ") else "")
    return (
        Refusal.WRONG,
        "the signature is not that of this request by this key: it was altered, or signed with "
        "another key",
    )


def _refuse(refusal: Refusal, text: str) -> NoReturn:
    # Only the library's own kind of error passes through it.
    raise _Carried(SignatureRefusedError(refusal, text))
