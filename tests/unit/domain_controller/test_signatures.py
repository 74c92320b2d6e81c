"""Signed requests (RFC 9421): what is taken, and each way in which a request is refused."""

from __future__ import annotations

import base64
import dataclasses
import datetime
from collections.abc import Callable

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms

from packetcloud.chunk.identity import Identity
from packetcloud.domain_controller.api.signatures import (
    ALWAYS_COVERED,
    CLOCK_SKEW_S,
    MAX_SIGNATURE_HEADER_CHARS,
    MAX_VALIDITY_S,
    TAG,
    VALIDITY_S,
    Refusal,
    SignatureRefusedError,
    sign_request,
)
from tests.unit.domain_controller.signed_requests import (
    AUTHORITY,
    BODY,
    NONCE,
    NOW_S,
    OURS,
    THEIRS,
    URL,
    Sent,
    arrived,
    sent,
)


def refusal_of(
    request: Sent, now_s: float = NOW_S, keys: tuple[Identity, ...] = (OURS,)
) -> Refusal:
    with pytest.raises(SignatureRefusedError) as caught:
        request.check(now_s, keys)
    assert len(str(caught.value)) > 15, "the text says what to do"
    return caught.value.refusal


def altered(**changed: object) -> Sent:
    right = sent()
    return Sent(dataclasses.replace(right.head, **changed), right.body)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "request_",
    [
        sent(),
        sent("GET", body=b"", headers={}),
        sent("GET", f"http://{AUTHORITY}/", b"", {}),
        sent("DELETE", f"http://{AUTHORITY}/v1/services/a%20b?x=%2F&x=2", b"", {}),
        sent("PUT", body=bytes(range(256))),
        sent("GET", body=b"", headers={"Last-Event-ID": "12"}),
    ],
    ids=["post", "get", "root", "encoded", "octets", "events"],
)
def test_what_is_signed_right_is_taken(request_: Sent) -> None:
    """The proof names key and nonce, and holds what was signed."""
    proof = request_.check()
    assert (proof.key_id, proof.nonce) == (OURS.guid.hex, NONCE)
    assert proof.expires_ms == (NOW_S + VALIDITY_S + CLOCK_SKEW_S) * 1000
    assert f'"@method": {request_.head.method}\n'.encode() in proof.signed
    Ed25519PrivateKey.from_private_bytes(OURS.seed).public_key().verify(
        proof.signature, proof.signed
    )


def test_every_byte_of_the_body_counts() -> None:
    """A body with one bit changed, cut off or longer is refused."""
    right = sent()
    for at in range(len(BODY)):
        other = BODY[:at] + bytes([BODY[at] ^ 1]) + BODY[at + 1 :]
        assert refusal_of(Sent(right.head, other)) is Refusal.DIGEST
    assert refusal_of(Sent(right.head, BODY[:-1])) is Refusal.DIGEST
    assert refusal_of(Sent(right.head, BODY + b" ")) is Refusal.DIGEST
    assert refusal_of(Sent(right.head, b"")) is Refusal.DIGEST


@pytest.mark.parametrize(
    "request_",
    [
        altered(method="PUT"),
        altered(url=f"http://{AUTHORITY}/v1/reservations?limit=4"),
        altered(url=f"http://{AUTHORITY}/v1/reservations"),
        altered(url=f"http://{AUTHORITY}/v1/reservation%73?limit=3"),
        altered(url=f"http://{AUTHORITY}/v1/bills?limit=3"),
        altered(url="http://127.0.0.1:4801/v1/reservations?limit=3"),
        sent().with_headers({"idempotency-key": "key-of-a-thief"}),
        sent().with_headers({"content-type": "text/plain"}),
    ],
    ids=["method", "query", "no-query", "path-form", "path", "host", "idempotency", "type"],
)
def test_what_was_altered_is_refused(request_: Sent) -> None:
    """Method, path, query, host and the headers that are read are all part of what is signed."""
    assert refusal_of(request_) is Refusal.WRONG


def test_a_request_to_another_controller_is_refused() -> None:
    """Signed rightly, by a known key, for another address."""
    assert refusal_of(sent(url="http://other.example:4800/v1/status")) is Refusal.AUTHORITY


def test_keys_that_are_not_registered_are_refused() -> None:
    """An unknown key, and a known key id over the signature of another key."""
    assert refusal_of(sent(key=THEIRS)) is Refusal.UNKNOWN_KEY
    assert refusal_of(sent(), keys=()) is Refusal.UNKNOWN_KEY
    theirs = sent(key=THEIRS)
    stated = theirs.header("signature-input").replace(THEIRS.guid.hex, OURS.guid.hex)
    assert refusal_of(theirs.with_headers({"signature-input": stated})) is Refusal.WRONG


@pytest.mark.parametrize(
    ("now_s", "refusal"),
    [
        (NOW_S - CLOCK_SKEW_S - 1, Refusal.NOT_YET_VALID),
        (NOW_S - CLOCK_SKEW_S, None),
        (NOW_S + VALIDITY_S + CLOCK_SKEW_S - 1, None),
        (NOW_S + VALIDITY_S + CLOCK_SKEW_S, Refusal.EXPIRED),
        (NOW_S + 10_000_000, Refusal.EXPIRED),
    ],
)
def test_a_signature_has_its_time(now_s: float, refusal: Refusal | None) -> None:
    """Clocks may differ by the skew, to the second."""
    if refusal is None:
        sent().check(now_s)
    else:
        assert refusal_of(sent(), now_s) is refusal


@pytest.mark.parametrize("header", ["signature", "signature-input"])
def test_without_a_signature_nothing_goes(header: str) -> None:
    """Either header alone is nothing."""
    assert refusal_of(sent().with_headers({header: None})) is Refusal.MISSING


def test_without_a_digest_nothing_goes() -> None:
    """The digest is covered, so it must be there."""
    assert refusal_of(sent().with_headers({"content-digest": None})) is Refusal.COMPONENT


class _Key(HTTPSignatureKeyResolver):
    def resolve_private_key(self, key_id: str) -> object:
        return Ed25519PrivateKey.from_private_bytes(OURS.seed)


class _Secret(HTTPSignatureKeyResolver):
    """The public key as a shared secret: what a verifier would use that believes `alg`."""

    def resolve_private_key(self, key_id: str) -> object:
        return OURS.public_key


def by_hand(
    change: Callable[[str], str] = str,
    *,
    covered: tuple[str, ...] = (*ALWAYS_COVERED, "content-type", "idempotency-key"),
    algorithm: type[algorithms.HTTPSignatureAlgorithm] = algorithms.ED25519,
    resolver: HTTPSignatureKeyResolver | None = None,
) -> Sent:
    """Return a request whose parameters are changed before it is signed, with the right key."""

    class Signer(HTTPMessageSigner):  # type: ignore[misc]  # the package has no annotations
        def prepare(self, message: object, **options: object) -> object:
            made = super().prepare(message, **options)
            old = made.signature_params
            base = made.signature_base.decode().replace(old, change(old)).encode()
            return dataclasses.replace(made, signature_params=change(old), signature_base=base)

        def apply(
            self, message: httpx.Request, made: object, signature: bytes, **_: object
        ) -> None:
            message.headers["signature-input"] = f"a={made.signature_params}"  # type: ignore[attr-defined]
            encoded = base64.b64encode(signature).decode()
            message.headers["signature"] = f"a=:{encoded}:"

    headers = {"Idempotency-Key": "key-of-a-test", "Content-Type": "application/json"}
    request = httpx.Request("POST", URL, content=BODY, headers=headers)
    template = httpx.Request("POST", URL, content=BODY, headers=headers)
    sign_request(template, BODY, OURS, NONCE, NOW_S)
    request.headers["content-digest"] = template.headers["content-digest"]
    signer = Signer(signature_algorithm=algorithm, key_resolver=resolver or _Key())
    signer.sign(
        request,
        key_id=OURS.guid.hex,
        created=datetime.datetime.fromtimestamp(NOW_S, datetime.UTC),
        expires=datetime.datetime.fromtimestamp(NOW_S + VALIDITY_S, datetime.UTC),
        nonce=NONCE,
        tag=TAG,
        covered_component_ids=covered,
        use_existing_digest=True,
    )
    return arrived(request)


def test_the_way_to_sign_by_hand_is_right() -> None:
    """What the next tests spoil is taken as long as nothing is spoilt."""
    assert by_hand().check().nonce == NONCE


@pytest.mark.parametrize("left_out", [*ALWAYS_COVERED, "content-type", "idempotency-key"])
def test_each_component_must_be_covered(left_out: str) -> None:
    """A signature that leaves one out is refused, although it is right."""
    everything = (*ALWAYS_COVERED, "content-type", "idempotency-key")
    covered = tuple(name for name in everything if name != left_out)
    assert refusal_of(by_hand(covered=covered)) is Refusal.COMPONENT


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda text: text.replace(';alg="ed25519"', ""), Refusal.PARAMETER),
        (lambda text: text.replace(f';nonce="{NONCE}"', ""), Refusal.PARAMETER),
        (lambda text: text.replace(f';tag="{TAG}"', ""), Refusal.PARAMETER),
        (lambda text: text.replace(TAG, "another-protocol"), Refusal.PARAMETER),
        (lambda text: text.replace(f";created={int(NOW_S)}", ""), Refusal.PARAMETER),
        (lambda text: text.replace(f";expires={int(NOW_S) + VALIDITY_S}", ""), Refusal.PARAMETER),
        (lambda text: text.replace(f';keyid="{OURS.guid.hex}"', ""), Refusal.PARAMETER),
        (lambda text: text.replace(NONCE, "short"), Refusal.PARAMETER),
        (lambda text: text.replace(NONCE, "n" * 65), Refusal.PARAMETER),
        (lambda text: text.replace(NONCE, "n" * 15 + " "), Refusal.PARAMETER),
        (lambda text: text.replace("ed25519", "hmac-sha256"), Refusal.ALGORITHM),
        (lambda text: text.replace("ed25519", "none"), Refusal.ALGORITHM),
        (lambda text: text.replace("ed25519", "rsa-v1_5-sha256"), Refusal.ALGORITHM),
        (
            lambda text: text.replace(
                f"expires={int(NOW_S) + VALIDITY_S}", f"expires={int(NOW_S) + MAX_VALIDITY_S + 1}"
            ),
            Refusal.TOO_LONG,
        ),
        (
            lambda text: text.replace(
                f"expires={int(NOW_S) + VALIDITY_S}", f"expires={int(NOW_S)}"
            ),
            Refusal.TOO_LONG,
        ),
        (lambda text: text.replace(f"created={int(NOW_S)}", "created=1.5"), Refusal.MALFORMED),
        (lambda text: text.replace(f"created={int(NOW_S)}", 'created="now"'), Refusal.MALFORMED),
        (lambda text: text + ";more=1", Refusal.WRONG),
    ],
)
def test_each_parameter_is_looked_at(change: Callable[[str], str], refusal: Refusal) -> None:
    """Signed rightly, with a parameter that is missing, unknown or not allowed."""
    assert refusal_of(by_hand(change)) is refusal


def test_the_longest_validity_is_taken() -> None:
    """To the second."""
    longest = f"expires={int(NOW_S) + MAX_VALIDITY_S}"
    by_hand(lambda text: text.replace(f"expires={int(NOW_S) + VALIDITY_S}", longest)).check()


def test_the_algorithm_is_ours_to_choose() -> None:
    """A signature by HMAC with the public key as its secret proves nothing."""
    forged = by_hand(algorithm=algorithms.HMAC_SHA256, resolver=_Secret())
    assert refusal_of(forged) is Refusal.ALGORITHM
    lying = by_hand(
        lambda text: text.replace("hmac-sha256", "ed25519"),
        algorithm=algorithms.HMAC_SHA256,
        resolver=_Secret(),
    )
    assert refusal_of(lying) is Refusal.WRONG


def test_two_signatures_are_refused() -> None:
    """Also when both are right: who checks must not choose."""
    one = sent()
    inputs, signature = one.header("signature-input"), one.header("signature")
    both = {
        "signature-input": f"{inputs}, b{inputs.removeprefix('packetcloud')}",
        "signature": f"{signature}, b{signature.removeprefix('packetcloud')}",
    }
    assert refusal_of(one.with_headers(both)) is Refusal.SEVERAL


@pytest.mark.parametrize(
    "name", ["signature", "signature-input", "content-digest", "idempotency-key", "content-type"]
)
def test_headers_that_stand_there_twice_are_refused(name: str) -> None:
    """Who checks and who reads must not see different ones."""
    one = sent()
    lines = (*one.head.headers.lines, (name, one.header(name)))
    head = dataclasses.replace(one.head, headers=dataclasses.replace(one.head.headers, lines=lines))
    assert refusal_of(Sent(head, one.body)) is Refusal.MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a=(",
        "a=()",
        "a=1",
        'a=("@method"',
        "a=:AAAA:",
        "=" * 100,
        "\x00",
        "é",
        'a=("@status");created=1',
        "(" * 1000,
        'a=("@method" "@method")',
    ],
)
@pytest.mark.parametrize("name", ["signature", "signature-input"])
def test_whatever_stands_there_is_refused_with_a_reason(name: str, text: str) -> None:
    """No bytes of a stranger's make anything but a refusal."""
    refusal_of(sent().with_headers({name: text}))


@pytest.mark.parametrize("name", ["signature", "signature-input"])
def test_long_headers_are_refused_unread(name: str) -> None:
    """One character above the cap is refused for that; at the cap it is looked at."""
    value = sent().header(name)
    longest = value + " " * (MAX_SIGNATURE_HEADER_CHARS - len(value))
    sent().with_headers({name: longest}).check()
    assert refusal_of(sent().with_headers({name: longest + " "})) is Refusal.MALFORMED


def test_a_second_try_is_signed_anew() -> None:
    """The same request object, signed again with another nonce, is right again."""
    request = httpx.Request("POST", URL, content=BODY, headers={"Idempotency-Key": "12345678"})
    sign_request(request, BODY, OURS, NONCE, NOW_S)
    sign_request(request, BODY, OURS, NONCE[::-1], NOW_S + 5)
    assert arrived(request).check().nonce == NONCE[::-1]
