"""Revocations by themselves: what is one, who may make it, what a book of grants makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from packetcloud.chunk.errors import GrantError
from packetcloud.chunk.grant_chains import Fault, GrantBook, Use
from packetcloud.chunk.grants import Grant, issue_grant
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.revocations import MAX_REVOCATION_BYTES, Revocation, revoke_grant

OWNER, RESELLER, TENANT = (Identity(bytes(31) + bytes([number])) for number in (1, 2, 3))
X = OWNER.guid.value
SERVICE = b"\7" * 20
NOW_S = 1_800_000_000
USE = Use(SERVICE, NOW_S, NOW_S + 10)


def _grant(issuer: Identity = OWNER, to: Identity = TENANT, nonce: int = 0) -> Grant:
    return issue_grant(
        issuer, to.public_key, frozenset({X}), None, NOW_S - 5, NOW_S + 100,
        nonce=nonce.to_bytes(16, "big"), may_delegate=True,
    )  # fmt: skip


def test_a_revocation_goes_and_comes_back() -> None:
    """What is written is what is read, and it is genuine."""
    made = revoke_grant(OWNER, _grant())
    assert Revocation.from_text(made.to_bytes()) == made
    assert made.is_genuine


def test_only_the_issuer_revokes() -> None:
    """Neither who got the grant nor anybody else; nor does a signature fit another grant."""
    with pytest.raises(GrantError, match="only that one can revoke it"):
        revoke_grant(TENANT, _grant())
    made = revoke_grant(OWNER, _grant())
    assert not replace(made, grant=_grant(nonce=1)).is_genuine
    theirs = revoke_grant(TENANT, _grant(TENANT))
    assert not replace(theirs, grant=_grant()).is_genuine
    forged = replace(_grant(), valid_until_s=NOW_S + 1000)
    assert not revoke_grant(OWNER, forged).is_genuine


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: b"{", "not JSON"),
        (lambda _: b"[]", "keys format, grant, signature"),
        (lambda text: text.replace(b'"grant"', b'"grants"'), "keys format, grant, signature"),
        (lambda text: text.replace(b"revocation-1", b"revocation-2"), "format: allowed"),
        (lambda text: text[:-5] + b'"}', "signature: allowed: 128"),
        (lambda text: text.replace(b'"names"', b'"name"'), "unknown key"),
        (lambda text: text + b" " * MAX_REVOCATION_BYTES, "bytes; is it a revocation"),
    ],
)
def test_what_is_no_revocation_is_refused(change: Callable[[bytes], bytes], words: str) -> None:
    text = revoke_grant(OWNER, _grant()).to_bytes().strip()
    with pytest.raises(GrantError, match=words):
        Revocation.from_text(change(text))


def test_the_digest_is_that_of_what_is_signed() -> None:
    """The layout of a file and another signature change nothing; each other field does."""
    grant = _grant()
    again = Grant.from_text(json.dumps(grant.to_json(), indent=2).encode())
    assert again.digest == grant.digest == replace(grant, signature=b"x" * 64).digest
    assert _grant(nonce=1).digest != grant.digest


def test_a_revoked_grant_proves_nothing() -> None:
    """Also what was granted on; another grant of the same does. The reason is told."""
    first, second = _grant(OWNER, RESELLER), _grant(RESELLER, TENANT)
    for revoked in (first, second):
        book = GrantBook([first, second], {revoked.digest}.__contains__)
        doubt = book.doubt(X, TENANT.public_key, USE, NOW_S)
        assert doubt is not None and doubt.fault is Fault.REVOKED
        assert "get a new grant" in doubt.text
    book = GrantBook([first, second, _grant(nonce=7)], {first.digest}.__contains__)
    assert book.doubt(X, TENANT.public_key, USE, NOW_S) is None
    stranger = GrantBook([first], {first.digest}.__contains__)
    other = stranger.doubt(b"\5" * 20, TENANT.public_key, USE, NOW_S)
    assert other is not None and other.fault is Fault.NO_PROOF


@pytest.mark.parametrize(
    ("services", "leads_to_it", "speaks_for_it"),
    [({X}, True, False), ({SERVICE}, False, True), ({X, SERVICE}, True, True), (None, True, True)],
)
def test_a_grant_of_a_sid_tells_its_use_from_speaking_for_it(
    services: set[bytes] | None, leads_to_it: bool, speaks_for_it: bool
) -> None:
    """`services` says which: the SID itself, others, or both."""
    grant = issue_grant(
        OWNER, TENANT.public_key, frozenset({X}), None if services is None else frozenset(services),
        NOW_S - 5, NOW_S + 100, nonce=bytes(16),
    )  # fmt: skip
    book = GrantBook([grant])
    # A rule that leads to X needs X for that use; one about chunks that ask for X leads elsewhere.
    lead = book.doubt(X, TENANT.public_key, replace(USE, service=X), NOW_S)
    speak = book.doubt(X, TENANT.public_key, USE, NOW_S)
    assert (lead is None, speak is None) == (leads_to_it, speaks_for_it)
