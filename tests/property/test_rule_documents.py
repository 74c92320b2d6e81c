"""Laws of documents of rules and of grants: any bytes give a value, or exactly one named error."""

from __future__ import annotations

import contextlib
import io
import json
from itertools import pairwise
from typing import Any

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from packetcloud.chunk.errors import GrantError
from packetcloud.chunk.grant_chains import MAX_CHAIN_LINKS_COUNT, GrantBook, Use
from packetcloud.chunk.grants import Grant, issue_grant
from packetcloud.chunk.identity import Identity
from packetcloud.router.rules.document import (
    Head,
    ItemError,
    Withdrawal,
    head_of_line,
    line_of,
    read_items,
)
from packetcloud.router.rules.errors import RuleDocumentError, RulesRefusedError
from packetcloud.router.rules.fields import RULE_FIELDS
from packetcloud.router.rules.rule import Rule
from packetcloud.router.rules.signed import open_signed
from packetcloud.router.rules.trial import try_document
from packetcloud.router.rules.written import open_written
from tests.unit.router.rules.rule_documents import (
    HEAD,
    NOW_S,
    OWNER,
    TENANT,
    TRUST,
    body_of,
    grant,
    rule_record,
    signed,
    takes_any_pattern,
)

SIGNED = signed(body_of(rule_record(), {"withdraw": "a"}), TENANT, [grant()])
TOML = b'format = "packetcloud-rules-1"\nset = "s"\nserial = 1\naudience = "any"\n'
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
NAMES = st.binary(min_size=20, max_size=20).map(bytes.hex)
LIKELY = st.one_of(
    JSON,
    NAMES,
    st.lists(NAMES, max_size=3),
    st.sampled_from(["visit", "both", "any", "2027-01-01T00:00:00Z", {"text": "a"}, 5]),
)
RECORDS = st.dictionaries(st.sampled_from([*RULE_FIELDS, "withdraw", "x"]), LIKELY, max_size=5)


def _cut_and_altered(original: bytes) -> st.SearchStrategy[bytes]:
    """Return the original with some of it gone or replaced."""
    places = st.integers(0, len(original))
    return st.builds(
        lambda a, b, middle: original[: min(a, b)] + middle + original[max(a, b) :],
        places,
        places,
        st.binary(max_size=20),
    )


@given(st.lists(st.one_of(st.binary(max_size=200), RECORDS.map(line_of)), max_size=8))
@example([b"[" * 200_000])
def test_any_line_gives_one_item(lines: list[bytes]) -> None:
    """As many items as lines: a rule, a withdrawal, or one error of one readable line."""
    items = list(read_items(lines, HEAD, takes_any_pattern))
    assert len(items) == len(lines)
    for number, item in enumerate(items, 1):
        assert isinstance(item, Rule | Withdrawal | ItemError)
        if isinstance(item, ItemError):
            assert item.number == number
            assert item.text.startswith(f"item {number}")
            assert item.text.isprintable()


@given(RECORDS)
def test_a_good_item_stays_good_among_others(fields: dict[str, Any]) -> None:
    """What stands before it changes nothing about an item."""
    lines = [line_of(rule_record() | fields), line_of(rule_record())]
    assert list(read_items(lines, HEAD, takes_any_pattern))[1:] == list(
        read_items(lines[1:], HEAD, takes_any_pattern)
    )


@given(st.one_of(st.binary(max_size=300), _cut_and_altered(SIGNED)))
def test_any_bytes_as_a_signed_document(data: bytes) -> None:
    """They are refused, or no document; only what was signed is opened."""
    try:
        open_signed(io.BytesIO(data))
    except (RuleDocumentError, RulesRefusedError):
        return
    assert data == SIGNED


@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(max_size=300).map(str.encode),
        _cut_and_altered(TOML),
        _cut_and_altered(body_of(rule_record())),
    )
)
def test_any_bytes_as_a_written_document(data: bytes) -> None:
    """They are a document, or exactly one error says why not."""
    with contextlib.suppress(RuleDocumentError):
        body = open_written(io.BytesIO(data))
        head_of_line(body.readline())
    with contextlib.suppress(RuleDocumentError):
        try_document(io.BytesIO(data), takes_any_pattern, NOW_S)
    with contextlib.suppress(RuleDocumentError, RulesRefusedError):
        try_document(io.BytesIO(data), takes_any_pattern, NOW_S, TRUST)


@given(st.builds(Head, st.just("s"), st.integers(1, 99), st.none(), st.floats(0, 1e11)))
def test_a_head_goes_and_comes_back(head: Head) -> None:
    """Times are kept to the microsecond."""
    read = head_of_line(head.to_bytes())
    assert abs(read.valid_from_s - head.valid_from_s) < 1e-4


@given(
    st.one_of(
        st.binary(max_size=300),
        JSON.map(json.dumps).map(str.encode),
        _cut_and_altered(grant().to_bytes()),
    )
)
def test_any_bytes_as_a_grant(data: bytes) -> None:
    """They are a grant, or exactly one error says why not; genuine only if it says the same."""
    try:
        found = Grant.from_text(data)
    except GrantError:
        return
    assert found == Grant.from_text(found.to_bytes())
    assert not found.is_genuine or found == grant()


S1, S2 = b"\1" * 20, b"\2" * 20
KEYS = [OWNER, *(Identity(bytes(30) + bytes([9, number])) for number in range(3))]
"""Few, so that grants of random keys make chains."""
LINKS = st.builds(
    lambda issuer, to, services, begin, days, may_delegate: issue_grant(
        issuer,
        to.public_key,
        frozenset({OWNER.guid.value}),
        services,
        NOW_S + begin,
        NOW_S + days,
        nonce=bytes(16),
        may_delegate=may_delegate,
    ),
    st.sampled_from(KEYS),
    st.sampled_from(KEYS[1:]),
    st.sampled_from([None, *(frozenset(some) for some in ([S1], [S2], [S1, S2]))]),
    st.integers(-2, 0),
    st.integers(1, 3),
    st.booleans(),
)


def _paths(grants: list[Grant], holder: bytes) -> list[list[Grant]]:
    """Return every chain of the owner's key to the holder, without a circle, in plain code."""
    found = [[one] for one in grants if one.issuer == OWNER.public_key]
    paths = []
    while found:
        path = found.pop()
        if path[-1].to == holder:
            paths.append(path)
        if len(path) < MAX_CHAIN_LINKS_COUNT:
            found += [[*path, one] for one in grants if one not in path and one.narrows(path[-1])]
    return paths


@settings(max_examples=300)
@given(
    st.lists(LINKS, min_size=2, max_size=7, unique=True),
    st.sampled_from(KEYS[1:]),
    st.integers(0, 3),
)
def test_a_key_may_speak_exactly_if_a_chain_says_so(
    grants: list[Grant], holder: Identity, end: int
) -> None:
    """The search finds a chain where there is one, and invents none; what it finds narrows."""
    use = Use(S1, NOW_S, NOW_S + end)
    fitting = [
        path
        for path in _paths(grants, holder.public_key)
        if path[-1].valid_from_s <= NOW_S
        and use.valid_until_s <= path[-1].valid_until_s
        and path[-1].allows(use.service)
    ]
    doubt = GrantBook(grants).doubt(OWNER.guid.value, holder.public_key, use, NOW_S)
    event(f"chains of {max(map(len, fitting), default=0)} links")
    assert (doubt is None) is bool(fitting)
    for path in fitting:
        assert all(
            after.valid_until_s <= before.valid_until_s and before.may_delegate
            for before, after in pairwise(path)
        )
