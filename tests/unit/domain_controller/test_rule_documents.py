"""Rules at the domain controller: what `packetcloud rule sign` writes, and its proof."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest

from packetcloud.chunk.grants import Grant, issue_grant
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.timestamps import time_text
from packetcloud.domain_controller import rule_documents
from packetcloud.domain_controller.errors import OwnershipError, RuleDocumentError
from packetcloud.domain_controller.rule_documents import ProvenRules, prove_rules
from packetcloud.router.rules.document import Head
from packetcloud.router.rules.signed import sign_document

NOW_S = 1_800_000_000
TENANT = Identity(bytes(range(32)))
OWNER = Identity(bytes(range(1, 33)))
SERVICE = Identity(bytes(range(2, 34)))
END = time_text(NOW_S + 1000)


def grant(issuer: Identity, until_s: int = NOW_S + 2000, **other: Any) -> Grant:
    """Let the tenant speak for the issuer's name."""
    names = frozenset({issuer.guid.value})
    fields: dict[str, Any] = {"to": TENANT.public_key, "names": names, "services": None} | other
    return issue_grant(
        issuer,
        fields["to"],
        fields["names"],
        fields["services"],
        NOW_S - 1000,
        until_s,
        nonce=bytes(16),
    )


GRANTS = (grant(OWNER), grant(SERVICE))
HEAD = Head("set-1", 7, None, replaces=True)
RULE = {
    "name": "r1",
    "service": SERVICE.sid.hex,
    "destination": OWNER.guid.hex,
    "valid_until": END,
}


def signed(
    *items: dict[str, Any],
    grants: tuple[Grant, ...] = GRANTS,
    signer: Identity = TENANT,
    head: Head = HEAD,
) -> str:
    """Return a document as the command writes it."""
    body = head.to_bytes()
    body += b"".join(json.dumps(item).encode() + b"\n" for item in items)
    target = io.BytesIO()
    sign_document(io.BytesIO(body), signer, grants, target)
    return target.getvalue().decode()


def test_when_a_set_is_over_and_whether_it_is_whole() -> None:
    """The last end of its rules, none of them later than the head's; without rules the head's."""
    early = RULE | {"name": "r2", "valid_until": time_text(NOW_S + 500)}
    assert proven(signed(early, RULE)).until_ms == (NOW_S + 1000) * 1000
    assert proven(signed(early)).until_ms == (NOW_S + 500) * 1000
    shorter = replace(HEAD, valid_until_s=NOW_S + 100)
    assert proven(signed(early, RULE, head=shorter)).until_ms == (NOW_S + 100) * 1000
    endless = {"name": "r1", "service": SERVICE.sid.hex}
    assert proven(signed(endless, early), is_own=True).until_ms is None
    withdrawn = proven(signed())
    assert (withdrawn.rules_count, withdrawn.until_ms) == (0, None)
    assert not proven(signed({"withdraw": "r1"})).rules_count
    assert proven(signed(RULE)).is_whole
    assert not proven(signed(RULE, head=replace(HEAD, replaces=False))).is_whole


def proven(text: str, is_own: bool = False) -> ProvenRules:
    return prove_rules(text, is_own=is_own, now_ms=NOW_S * 1000)


def test_what_the_command_signs_is_proven() -> None:
    """Set, serial, signer, service and number of items are those of the document."""
    found = proven(signed(RULE, {"withdraw": "r0"}))
    assert (found.set_name, found.serial, found.items_count) == ("set-1", 7, 2)
    assert found.signer_guid == TENANT.guid
    assert found.service == SERVICE.sid.value
    both = RULE | {"destination": [OWNER.guid.hex, OWNER.guid.hex.upper()]}
    assert proven(signed(both)).items_count == 1
    assert proven(signed({"withdraw": "r0"})).service == b""
    assert proven(signed(RULE | {"destination": TENANT.guid.hex}, grants=(grant(SERVICE),)))


def test_the_isp_may_say_everything() -> None:
    """Its rules need no grants; its signature must be right all the same."""
    everything = {"name": "r1", "service": SERVICE.sid.hex}
    assert proven(signed(everything, grants=()), is_own=True).items_count == 1
    with pytest.raises(OwnershipError, match="signature"):
        proven(signed(everything, grants=()).replace("r1", "r2"), is_own=True)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"destination": SERVICE.sid.hex, "service": OWNER.guid.hex}, None),
        ({"destination": "ab" * 20}, "ab" * 20),
        ({"destination": [OWNER.guid.hex, "ab" * 20]}, "ab" * 20),
        ({"service": "cd" * 20}, "cd" * 20),
        ({"sid": "ef" * 20}, "ef" * 20),
        ({"valid_until": time_text(NOW_S + 3000)}, "outlives|until|grant"),
        ({"valid_until": time_text(NOW_S)}, "is over"),
    ],
)
def test_what_is_not_proven_is_refused(item: dict[str, Any], text: str | None) -> None:
    """Each name of a rule needs its chain, for as long as the rule holds."""
    document = signed(RULE | item)
    if text is None:
        proven(document)
        return
    with pytest.raises(OwnershipError, match=text):
        proven(document)


def test_rules_of_a_third_party_end_and_name_something() -> None:
    """As a router would demand."""
    endless = {key: value for key, value in RULE.items() if key != "valid_until"}
    with pytest.raises(OwnershipError, match="must end"):
        proven(signed(endless))
    boundless = {key: value for key, value in RULE.items() if key != "destination"}
    with pytest.raises(OwnershipError, match="must name"):
        proven(signed(boundless))
    with pytest.raises(OwnershipError, match="must name"):
        proven(signed(boundless | {"sid": "00" * 20}))


def test_grants_that_are_forged_or_to_somebody_else_prove_nothing() -> None:
    """The chain ends with the key that signed the document."""
    with pytest.raises(OwnershipError):
        proven(signed(RULE, signer=OWNER, grants=(grant(SERVICE),)))
    with pytest.raises(OwnershipError):
        proven(signed(RULE, grants=()))
    with pytest.raises(OwnershipError):
        proven(signed(RULE, grants=(grant(OWNER, NOW_S - 1), grant(SERVICE))))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "{}\n",
        "[]\n{}\n",
        '{"format":"packetcloud-signed-rules-1","grants":[]}\n',
        '{"format":"packetcloud-signed-rules-1","public_key":"00","signature":"","grants":[]}\n',
        '{"format":"packetcloud-signed-rules-1","public_key":1,"signature":2,"grants":[]}\n',
        "\ud800\n",
        "[" * 100_000 + "\n",
        "\x00\n\x00",
    ],
)
def test_whatever_is_no_document_is_refused(text: str) -> None:
    """With one of two errors, whatever it is."""
    with pytest.raises((RuleDocumentError, OwnershipError)):
        proven(text)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"name":"a","name":"b"}',
        '{"name":"a","service":7}',
        '{"name":"a","service":"zz"}',
        '{"name":"a"}',
    ],
)
def test_an_item_that_cannot_be_read_is_refused(line: str) -> None:
    """Also where it was signed so: what is proven here is what a router reads."""
    body = Head("set-1", 7, None).to_bytes() + line.encode() + b"\n"
    target = io.BytesIO()
    sign_document(io.BytesIO(body), TENANT, GRANTS, target)
    with pytest.raises(RuleDocumentError, match=r"document: "):
        proven(target.getvalue().decode())


def test_several_services_are_several_documents() -> None:
    """What a document leads to is one thing that can be removed."""
    with pytest.raises(RuleDocumentError, match="several services"):
        proven(signed(RULE, RULE | {"name": "r2", "service": OWNER.guid.hex}))


@pytest.mark.parametrize("count", [3, 4])
def test_items_have_a_cap(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap and one beyond."""
    monkeypatch.setattr(rule_documents, "MAX_ITEMS_COUNT", 3)
    document = signed(*(RULE | {"name": f"r{number}"} for number in range(count)))
    if count == 3:
        assert proven(document).items_count == 3
    else:
        with pytest.raises(RuleDocumentError, match="over 3 items"):
            proven(document)


@pytest.mark.parametrize("count", [2, 3])
def test_grants_have_a_cap(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap and one beyond; those beyond are not verified."""
    monkeypatch.setattr(rule_documents, "MAX_GRANTS_COUNT", 2)
    grants = (*GRANTS, grant(OWNER))[:count]
    if count == 2:
        proven(signed(RULE, grants=grants))
    else:
        with pytest.raises(RuleDocumentError, match="over 2 grants"):
            proven(signed(RULE, grants=grants))


@pytest.mark.parametrize("count", [3, 4])
def test_names_have_a_cap(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all rules together."""
    monkeypatch.setattr(rule_documents, "MAX_NAMES_COUNT", 3)
    document = signed(*(RULE | {"name": f"r{number}"} for number in range(count)))
    if count == 3:
        proven(document)
    else:
        with pytest.raises(RuleDocumentError, match="over 3 names"):
            proven(document)
