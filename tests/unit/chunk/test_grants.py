"""Grants by themselves: what is one, what is refused, what a chain of them allows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from packetcloud.chunk.errors import GrantError
from packetcloud.chunk.grant_chains import (
    MAX_BOOK_NAMES_COUNT,
    MAX_GRANTS_OF_NAME_COUNT,
    Fault,
    GrantBook,
    Use,
)
from packetcloud.chunk.grants import (
    MAX_GRANT_BYTES,
    MAX_GRANT_NAMES_COUNT,
    MAX_GRANT_SERVICES_COUNT,
    Grant,
    issue_grant,
)
from packetcloud.chunk.identity import Identity

OWNER, TENANT = (Identity(bytes(31) + bytes([number])) for number in (1, 2))
X = OWNER.guid.value
SERVICE = b"\7" * 20
NOW_S = 1_800_000_000
USE = Use(SERVICE, NOW_S, NOW_S + 10)


def _names(count: int, first: int = 0) -> frozenset[bytes]:
    return frozenset(number.to_bytes(20, "big") for number in range(first, first + count))


def _grant(
    names: frozenset[bytes] = frozenset({X}),
    services: frozenset[bytes] | None = None,
    nonce: int = 0,
) -> Grant:
    return issue_grant(
        OWNER,
        TENANT.public_key,
        names,
        services,
        NOW_S - 5,
        NOW_S + 100,
        nonce=nonce.to_bytes(16, "big"),
    )


def test_a_grant_goes_and_comes_back() -> None:
    """What is written is what is read, whatever the layout of the file; and it is genuine."""
    grant = _grant(services=frozenset({SERVICE}))
    assert Grant.from_text(grant.to_bytes()) == grant
    assert Grant.from_text(json.dumps(grant.to_json(), indent=3).encode()) == grant
    assert grant.is_genuine


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": TENANT.public_key},
        {"to": OWNER.public_key},
        {"names": frozenset({SERVICE})},
        {"services": frozenset({SERVICE})},
        {"valid_from_s": 0},
        {"valid_until_s": NOW_S + 101},
        {"may_delegate": True},
        {"nonce": b"\1" * 16},
        {"signature": bytes(64)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_is_signed(change: dict[str, Any]) -> None:
    """A grant that says anything else than what was signed is not genuine."""
    assert not replace(_grant(), **change).is_genuine


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "packetcloud-grant-2"}, "allowed: 'packetcloud-grant-1'"),
        ({"colour": 1}, "'colour': unknown key; allowed: format, issuer"),
        ({"nonce": None}, "nonce: missing"),
        ({"issuer": "00"}, "issuer = '00': allowed: 64 hexadecimal digits in lower case"),
        ({"issuer": OWNER.public_key.hex().upper()}, "in lower case"),
        ({"to": 5}, "to = 5: allowed: 64"),
        ({"names": []}, "names: allowed: a list of 1 to 1024 different names"),
        ({"names": X.hex()}, "names: allowed: a list"),
        ({"names": [X.hex()] * 2}, "names: allowed: a list of 1 to 1024 different"),
        ({"names": ["x"]}, "names: 'x': allowed"),
        ({"services": []}, 'services: allowed: "any", or a list of 1 to 64'),
        ({"services": "all"}, 'services: allowed: "any", or'),
        ({"may_delegate": 1}, "may_delegate: allowed: true or false"),
        ({"valid_from": 0}, "valid_from = 0: allowed: a time of RFC 3339"),
        ({"valid_from": "2026-01-01T00:00:00.5Z"}, "in whole seconds"),
        ({"valid_until": "2026-01-01T00:00:00Z"}, "valid_until: allowed: a time after valid_from"),
        ({"signature": ""}, "signature = '': allowed: 128"),
    ],
    ids=str,
)
def test_what_is_no_grant(change: dict[str, Any], words: str) -> None:
    """It is refused with the key, its value and what is allowed."""
    record = {k: v for k, v in (_grant().to_json() | change).items() if v is not None}
    with pytest.raises(GrantError) as caught:
        Grant.from_text(json.dumps(record).encode())
    assert words in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"[" * 60_000, b"\xff", b"9" * 5000])
def test_what_is_no_json_object(text: bytes) -> None:
    """It is one named error too."""
    with pytest.raises(GrantError):
        Grant.from_text(text)


def test_what_says_something_twice() -> None:
    """What somebody reads in the file is what is signed, so nothing may stand there twice."""
    text = _grant().to_bytes()
    hidden = b'{"services":["' + X.hex().encode() + b'"],' + text[1:]
    with pytest.raises(GrantError, match="twice"):
        Grant.from_text(hidden)


def test_the_caps_of_a_grant() -> None:
    """The largest grant fits into a file; one name or one service more is refused."""
    largest = _grant(_names(MAX_GRANT_NAMES_COUNT), _names(MAX_GRANT_SERVICES_COUNT))
    assert Grant.from_text(largest.to_bytes()) == largest
    with pytest.raises(GrantError, match="names: allowed: a list of 1 to 1024"):
        _grant(_names(MAX_GRANT_NAMES_COUNT + 1))
    with pytest.raises(GrantError, match="1 to 64"):
        _grant(services=_names(MAX_GRANT_SERVICES_COUNT + 1))
    padded = largest.to_bytes().ljust(MAX_GRANT_BYTES)
    assert Grant.from_text(padded) == largest
    with pytest.raises(GrantError, match="over 65536 bytes"):
        Grant.from_text(padded + b" ")


def test_the_caps_of_a_book() -> None:
    """Names in all, and grants of one name: at the cap the book is made, beyond it is not."""
    full = MAX_BOOK_NAMES_COUNT // MAX_GRANT_NAMES_COUNT
    grants = [
        _grant(_names(MAX_GRANT_NAMES_COUNT, number * MAX_GRANT_NAMES_COUNT))
        for number in range(full)
    ]
    GrantBook(grants)
    with pytest.raises(GrantError, match="over 65536 names"):
        GrantBook([*grants, _grant()])
    same = [_grant(nonce=number) for number in range(MAX_GRANTS_OF_NAME_COUNT + 1)]
    assert GrantBook(same[:-1]).doubt(X, TENANT.public_key, USE, NOW_S) is None
    with pytest.raises(GrantError, match=f"over 32 grants name {X.hex()}"):
        GrantBook(same)


def test_the_own_key_needs_no_grant() -> None:
    """Whoever holds the key of a name may speak for it, whatever grants say."""
    assert GrantBook([]).doubt(X, OWNER.public_key, USE, NOW_S) is None
    doubt = GrantBook([]).doubt(X, TENANT.public_key, USE, NOW_S)
    assert doubt is not None
    assert doubt.fault is Fault.NO_PROOF


def test_the_best_of_several_grants_counts() -> None:
    """A grant for another service takes nothing from one that fits, in either order."""
    fits, other = _grant(services=frozenset({SERVICE})), _grant(services=frozenset({bytes(20)}))
    for grants in ([fits, other], [other, fits]):
        assert GrantBook(grants).doubt(X, TENANT.public_key, USE, NOW_S) is None


def test_questions_about_unknown_names_leave_nothing_behind() -> None:
    """A million rules about names that no grant names take no memory in the book."""
    book = GrantBook([_grant()])
    for name in _names(1000):
        assert book.doubt(name, TENANT.public_key, USE, NOW_S) is not None
    assert not book._why
    assert not book._proven
