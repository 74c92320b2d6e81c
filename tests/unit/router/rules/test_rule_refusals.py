"""The negative table of rules: who may say what, and the reason of each refusal.

Each attack stands beside what it differs from: the table's last column is the same document without
the attack, or with the defence gone, and must be taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from packetcloud.chunk import grant_chains, grants
from packetcloud.chunk.grant_chains import MAX_CHAIN_LINKS_COUNT
from packetcloud.chunk.grants import GRANT_DOMAIN, Grant
from packetcloud.chunk.identity import Identity, verify
from packetcloud.router.rules import signed as signed_module
from packetcloud.router.rules.document import Head
from packetcloud.router.rules.errors import RuleDocumentError, RulesRefusedError
from packetcloud.router.rules.proof import Prover, Trust, refusal_of_head, refusal_of_serial
from packetcloud.router.rules.refusals import Refusal, Refused
from packetcloud.router.rules.rule import Rule
from packetcloud.router.rules.signed import DOCUMENT_DOMAIN
from tests.unit.router.rules.rule_documents import (
    DAY_S,
    HEAD,
    ISP,
    NOW_S,
    OWNER,
    RESELLER,
    ROUTER,
    SERVICE,
    STRANGER,
    TENANT,
    TRUST,
    body_of,
    grant,
    opened,
    rule_record,
    signed,
    takes_any_pattern,
)

X = OWNER.guid.hex
OTHER = STRANGER.guid
CLOSED = replace(TRUST, open_services=frozenset())


def verdict(document: bytes, trust: Trust = TRUST, last_serial: int = 0) -> Refused | None:
    """Ask a router about a document with one rule, as its keeper does."""
    try:
        found = opened(document)
    except RulesRefusedError as error:
        return error.refused
    refused = refusal_of_head(found.head, trust, NOW_S) or refusal_of_serial(
        found.head, last_serial
    )
    if refused is not None:
        return refused
    (rule,) = found.items(takes_any_pattern)
    assert isinstance(rule, Rule), rule
    return Prover(found.signer, found.grants, trust, NOW_S).refusal(rule)


@dataclass(frozen=True)
class Case:
    """One document that must be refused, and its twin that must not."""

    reason: Refusal
    ask: Callable[[], Refused | None]
    ask_control: Callable[[], Refused | None]


def case(
    reason: Refusal,
    document: bytes,
    control: bytes,
    *,
    trust: Trust = TRUST,
    control_trust: Trust | None = None,
    last_serial: int = 0,
    control_last_serial: int | None = None,
) -> Case:
    return Case(
        reason,
        lambda: verdict(document, trust, last_serial),
        lambda: verdict(
            control,
            trust if control_trust is None else control_trust,
            last_serial if control_last_serial is None else control_last_serial,
        ),
    )


def said(signer: Identity = TENANT, *grants: Grant, head: Head = HEAD, **fields: object) -> bytes:
    """Return a signed document with one rule about the owner's name."""
    return signed(body_of(rule_record(**fields), head=head), signer, grants)


def altered(document: bytes, old: bytes, new: bytes) -> bytes:
    assert document.count(old) == 1
    return document.replace(old, new)


def with_signature(one: Grant, signature: bytes) -> Grant:
    return replace(one, signature=signature)


OK_GRANT = grant()
OK_TEXT = json.dumps(OK_GRANT.to_json(), separators=(",", ":")).encode()
ON = grant(OWNER, RESELLER, may_delegate=True)
"""The owner's grant to a reseller, who may grant it on."""
LINK = grant(RESELLER, TENANT)
GOOD = said(TENANT, OK_GRANT)
GOOD_CHAIN = said(TENANT, ON, LINK)
OWN = said(ISP, destination=OTHER.hex)
S2 = "07" * 20


_by_stranger = STRANGER.sign(GRANT_DOMAIN, OK_GRANT.signed_bytes())


def long_chain(links: int) -> list[Grant]:
    keys = [Identity(bytes(30) + bytes([1, number])) for number in range(links - 1)]
    ends = [OWNER, *keys, TENANT]
    return [grant(issuer, to, may_delegate=True) for issuer, to in pairwise(ends)]


CASES = {
    "no signature": case(Refusal.UNSIGNED, body_of(rule_record()), GOOD),
    "a byte of a rule altered": case(
        Refusal.FORGED, altered(OWN, b'"name":"r"', b'"name":"s"'), OWN
    ),
    "a byte of the head altered": case(
        Refusal.FORGED, altered(OWN, b'"serial":1', b'"serial":2'), OWN
    ),
    "an item added": case(Refusal.FORGED, GOOD + b'{"withdraw":"a"}\n', GOOD),
    "the last item cut off": case(Refusal.FORGED, GOOD[: GOOD.rindex(b"\n", 0, -1) + 1], GOOD),
    "signed by another key than stated": case(
        Refusal.FORGED,
        altered(
            OWN,
            b'"public_key":"' + ISP.public_key.hex().encode(),
            b'"public_key":"' + TENANT.public_key.hex().encode(),
        ),
        OWN,
    ),
    "the signature of another document": case(
        Refusal.FORGED,
        OWN.split(b"\n", 1)[0] + b"\n" + said(ISP, name="other").split(b"\n", 1)[1],
        OWN,
    ),
    "a grant taken out": case(Refusal.FORGED, altered(GOOD, OK_TEXT, b""), GOOD),
    "for another router": case(
        Refusal.WRONG_AUDIENCE,
        said(ISP, head=replace(HEAD, audience=frozenset({OTHER.value}))),
        said(ISP, head=replace(HEAD, audience=frozenset({OTHER.value, ROUTER}))),
    ),
    "the same serial again": case(Refusal.REPLAYED, OWN, OWN, last_serial=1, control_last_serial=0),
    "an older serial": case(Refusal.REPLAYED, OWN, OWN, last_serial=7, control_last_serial=0),
    "a document that has ended": case(
        Refusal.EXPIRED,
        said(ISP, head=replace(HEAD, valid_until_s=NOW_S)),
        said(ISP, head=replace(HEAD, valid_until_s=NOW_S + 1)),
    ),
    "a rule that has ended": case(
        Refusal.EXPIRED,
        said(ISP, valid_until="2027-01-15T07:59:59Z"),
        said(ISP, valid_until="2027-01-15T08:00:01Z"),
    ),
    "a third party without an end": case(
        Refusal.ENDLESS,
        said(OWNER, head=Head("test", 1, None)),
        said(OWNER, head=HEAD),
    ),
    "a third party about everything": case(
        Refusal.UNBOUNDED, said(TENANT, OK_GRANT, destination=None), said(ISP, destination=None)
    ),
    "a third party about everybody who sends": case(
        Refusal.UNBOUNDED,
        said(OWNER, destination=None, source=X),
        said(OWNER, destination=X, source=OTHER.hex),
    ),
    "a third party about plain delivery": case(
        Refusal.UNBOUNDED,
        said(OWNER, destination=None, sid="00" * 20),
        said(OWNER, sid="00" * 20),
    ),
    "no grant": case(Refusal.NO_PROOF, said(TENANT), said(OWNER)),
    "a grant to somebody else": case(Refusal.NO_PROOF, said(TENANT, grant(OWNER, STRANGER)), GOOD),
    "a grant of another name": case(
        Refusal.NO_PROOF,
        said(TENANT, grant(OWNER, TENANT, [TENANT.guid.value])),
        GOOD,
    ),
    "one destination of two without grant": case(
        Refusal.NO_PROOF,
        said(TENANT, OK_GRANT, destination=[X, OTHER.hex]),
        said(TENANT, OK_GRANT, grant(STRANGER, TENANT, [OTHER.value]), destination=[X, OTHER.hex]),
    ),
    "a SID beside a destination without grant": case(
        Refusal.NO_PROOF,
        said(TENANT, OK_GRANT, sid=S2),
        said(TENANT, OK_GRANT, sid=TENANT.sid.hex),
    ),
    "a service that is not open": case(
        Refusal.NO_PROOF, GOOD, GOOD, trust=CLOSED, control_trust=TRUST
    ),
    "a service that is not open, control: its grant": case(
        Refusal.NO_PROOF,
        GOOD,
        said(TENANT, OK_GRANT, grant(SERVICE, TENANT, [SERVICE.sid.value])),
        trust=CLOSED,
    ),
    "an own key of another ISP": case(
        Refusal.NO_PROOF, OWN, OWN, trust=Trust(ROUTER), control_trust=TRUST
    ),
    "for another service": case(
        Refusal.SERVICE_NOT_GRANTED,
        said(TENANT, grant(services=[b"\7" * 20])),
        said(TENANT, grant(services=[b"\7" * 20, SERVICE.sid.value])),
    ),
    "a grant that has ended": case(
        Refusal.EXPIRED,
        said(TENANT, grant(valid_until_s=NOW_S)),
        said(TENANT, grant(valid_until_s=NOW_S + DAY_S)),
    ),
    "a grant that has not begun": case(
        Refusal.NOT_YET_VALID,
        said(TENANT, grant(valid_from_s=NOW_S + 1)),
        said(TENANT, grant(valid_from_s=NOW_S)),
    ),
    "a rule that outlives its grant": case(
        Refusal.OUTLIVES_GRANT,
        said(TENANT, grant(valid_until_s=NOW_S + DAY_S - 1)),
        said(TENANT, grant(valid_until_s=NOW_S + DAY_S)),
    ),
    "a forged grant": case(Refusal.FORGED, said(TENANT, with_signature(OK_GRANT, bytes(64))), GOOD),
    "a grant altered after it was signed": case(
        Refusal.FORGED,
        said(TENANT, replace(grant(valid_until_s=NOW_S), valid_until_s=NOW_S + 2 * DAY_S)),
        GOOD,
    ),
    "a grant signed by another": case(
        Refusal.FORGED,
        said(TENANT, with_signature(OK_GRANT, _by_stranger)),
        GOOD,
    ),
    "a grant with a signature of another domain": case(
        Refusal.FORGED,
        said(
            TENANT, with_signature(OK_GRANT, OWNER.sign(DOCUMENT_DOMAIN, OK_GRANT.signed_bytes()))
        ),
        GOOD,
    ),
    "the first link missing": case(Refusal.CHAIN_BROKEN, said(TENANT, LINK), GOOD_CHAIN),
    "the last link missing": case(Refusal.NO_PROOF, said(TENANT, ON), GOOD_CHAIN),
    "the first link forged": case(
        Refusal.FORGED, said(TENANT, with_signature(ON, bytes(64)), LINK), GOOD_CHAIN
    ),
    "the last link forged": case(
        Refusal.FORGED, said(TENANT, ON, with_signature(LINK, bytes(64))), GOOD_CHAIN
    ),
    "the middle link of three missing": case(
        Refusal.CHAIN_BROKEN,
        said(TENANT, long_chain(3)[0], long_chain(3)[2]),
        said(TENANT, *long_chain(3)),
    ),
    "a circle beside the owner": case(
        Refusal.CHAIN_BROKEN,
        said(
            TENANT,
            grant(RESELLER, STRANGER, may_delegate=True),
            grant(STRANGER, RESELLER, may_delegate=True),
            LINK,
        ),
        said(
            TENANT,
            grant(RESELLER, STRANGER, may_delegate=True),
            grant(STRANGER, RESELLER, may_delegate=True),
            LINK,
            ON,
        ),
    ),
    "one link too many": case(
        Refusal.CHAIN_TOO_LONG,
        said(TENANT, *long_chain(MAX_CHAIN_LINKS_COUNT + 1)),
        said(TENANT, *long_chain(MAX_CHAIN_LINKS_COUNT)),
    ),
    "granted on without leave": case(
        Refusal.NOT_DELEGABLE,
        said(TENANT, grant(OWNER, RESELLER), LINK),
        GOOD_CHAIN,
    ),
    "widened in names": case(
        Refusal.WIDENED,
        said(
            TENANT,
            ON,
            grant(RESELLER, TENANT, [OWNER.guid.value, OTHER.value]),
            destination=OTHER.hex,
        ),
        said(TENANT, ON, grant(RESELLER, TENANT, [OWNER.guid.value, OTHER.value])),
    ),
    "widened in services": case(
        Refusal.WIDENED,
        said(
            TENANT,
            grant(OWNER, RESELLER, services=[b"\7" * 20], may_delegate=True),
            grant(RESELLER, TENANT, services=[SERVICE.sid.value]),
        ),
        said(
            TENANT,
            grant(OWNER, RESELLER, services=[SERVICE.sid.value], may_delegate=True),
            grant(RESELLER, TENANT, services=[SERVICE.sid.value]),
        ),
    ),
    "widened to any service": case(
        Refusal.WIDENED,
        said(TENANT, grant(OWNER, RESELLER, services=[SERVICE.sid.value], may_delegate=True), LINK),
        GOOD_CHAIN,
    ),
    "widened to begin earlier": case(
        Refusal.WIDENED,
        said(
            TENANT, grant(OWNER, RESELLER, valid_from_s=NOW_S - DAY_S + 1, may_delegate=True), LINK
        ),
        GOOD_CHAIN,
    ),
    "widened to end later": case(
        Refusal.WIDENED,
        said(
            TENANT,
            grant(OWNER, RESELLER, valid_until_s=NOW_S + 2 * DAY_S - 1, may_delegate=True),
            LINK,
        ),
        GOOD_CHAIN,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_its_reason(name: str) -> None:
    """Each attack is refused for what it is, in one readable sentence; its twin is taken."""
    refused = CASES[name].ask()
    assert refused is not None
    assert refused.reason is CASES[name].reason
    assert str(refused).isprintable()
    assert len(refused.text) > 20
    assert CASES[name].ask_control() is None


def test_every_reason_is_tried() -> None:
    """No reason of signature and proof is without a document that it refuses; those that a
    router's keeper has besides come after them."""
    reasons = list(Refusal)
    of_proof = set(reasons) - {Refusal.REVOKED}  # what is revoked is the keeper's to know
    assert {one.reason for one in CASES.values()} == of_proof


def test_each_byte_counts() -> None:
    """A document with any one bit changed is refused or no document; nothing of it is believed."""
    for at in range(len(GOOD_CHAIN)):
        for bit in (0x01, 0x20):
            forged = bytearray(GOOD_CHAIN)
            forged[at] ^= bit
            with pytest.raises((RulesRefusedError, RuleDocumentError)):
                opened(bytes(forged))


def _follows(link: Grant, before: Grant) -> bool:
    return before.to == link.issuer


def _ignores_domains(key: bytes, _domain: bytes, message: bytes, signature: bytes) -> bool:
    return any(verify(key, one, message, signature) for one in (GRANT_DOMAIN, DOCUMENT_DOMAIN))


DEFENCES: list[tuple[str, object, str, object]] = [
    ("a byte of a rule altered", signed_module, "verify", lambda *_: True),
    ("a forged grant", grants, "verify", lambda *_: True),
    ("a grant altered after it was signed", grants, "verify", lambda *_: True),
    ("a grant with a signature of another domain", grants, "verify", _ignores_domains),
    ("the first link missing", grant_chains, "name_bytes", lambda _: OWNER.guid.value),
    ("widened in names", grant_chains, "name_bytes", lambda _: OTHER.value),
    ("widened in services", Grant, "narrows", _follows),
    ("widened to end later", Grant, "narrows", _follows),
    ("granted on without leave", Grant, "narrows", _follows),
    ("one link too many", grant_chains, "MAX_CHAIN_LINKS_COUNT", MAX_CHAIN_LINKS_COUNT + 1),
    ("a grant that has ended", grant_chains, "_covers", lambda *_: True),
]


@pytest.mark.parametrize(
    ("name", "where", "what", "without"), DEFENCES, ids=[one[0] for one in DEFENCES]
)
def test_without_its_defence_it_is_taken(
    name: str, where: object, what: str, without: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with one defence gone the same document is believed, so it is that defence
    that refuses it."""
    assert CASES[name].ask() is not None
    monkeypatch.setattr(where, what, without)
    assert CASES[name].ask() is None
