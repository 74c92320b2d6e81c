"""Grants that are taken back: their rules are out of force at once, and stay so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.grants import Grant
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import SID_ZERO
from packetcloud.chunk.revocations import revoke_grant
from packetcloud.router.rules import revoker
from packetcloud.router.rules.catalogue import Catalogue
from packetcloud.router.rules.explain_store import RulesQuestion
from packetcloud.router.rules.rule import Question
from packetcloud.router.rules.store import STORE_FILE, RuleStore
from tests.unit.router.rules.keeping import POLICY, Kept, head
from tests.unit.router.rules.rule_documents import (
    DAY_S,
    ISP,
    NOW_S,
    OWNER,
    RESELLER,
    STRANGER,
    TENANT,
    grant,
    rule_record,
)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    keeper = Kept(tmp_path)
    yield keeper
    keeper.close()


def bring(kept: Kept, given: Grant, issuer: Identity = OWNER) -> dict[str, Any]:
    """Bring the revocation of a grant; load the version."""
    return bring_text(kept, revoke_grant(issuer, given).to_bytes())


def bring_text(kept: Kept, text: bytes) -> dict[str, Any]:
    path = kept.folder / "revocation"
    path.write_bytes(text)
    answer = kept.keeper.revoke(path, in_force=kept.version)
    path.unlink()
    if "state" in answer:
        kept.load(answer["state"])
    return answer


def in_force(kept: Kept) -> set[str]:
    """Return the rules that the table decides by."""
    assert kept.loaded is not None
    answer = kept.loaded.table.ask(
        bytes(20), OWNER.guid.value, SID_ZERO.value, 1, b"n" * 20, kept.now_s
    )
    numbers = {one.number for contest in answer.contests if (one := contest.winner(0, frozenset()))}
    return {row.name for row in kept.keeper.store.numbered(sorted(numbers))}


def test_rules_that_rest_on_a_grant_are_out_of_force_at_once(kept: Kept) -> None:
    """And stay so over a restart and a table made anew; the rules of others decide."""
    kept.install(rule_record(name="own", priority=-1))
    given = grant()
    kept.install(rule_record(name="t"), head=head("theirs"), signer=TENANT, grants=[given])
    assert kept.keeper.store.totals().active == 2
    answer = bring(kept, given)
    assert answer["outcome"]["rules"] == 1 and answer["outcome"]["is_new"]
    assert in_force(kept) == {"own"}
    totals = kept.keeper.store.totals()
    assert (totals.active, totals.revoked) == (1, 1)
    page = Catalogue(kept.folder).sets(None, 9)
    assert (page["active"], page["revoked"]) == (1, 1)
    assert [(one["set"], one["active"], one["revoked"]) for one in page["sets"]] == [
        ("test", 1, 0), ("theirs", 0, 1),
    ]  # fmt: skip
    kept.close()
    for path in (kept.folder / "tables").iterdir():
        path.unlink()
    kept.open()
    assert in_force(kept) == {"own"}
    assert Catalogue(kept.folder).rule("theirs", "t", None)["rule"]["revoked_grant"] == (
        given.digest.hex()
    )


def test_a_revoked_grant_is_not_believed_again(kept: Kept) -> None:
    """Neither in the same document, nor in a new one, nor from another signer; a new grant is."""
    given = grant()
    bring(kept, given)
    for serial in (1, 2):
        outcome = kept.install(
            rule_record(name="t"), head=head(serial=serial), signer=TENANT, grants=[given]
        )["outcome"]
        assert outcome["reasons"] == {"revoked": 1}
    anew = kept.install(
        rule_record(name="t"),
        head=head(serial=3),
        signer=TENANT,
        grants=[given, grant(nonce=b"n" * 16)],
    )
    assert anew["outcome"]["accepted"] == 1
    assert in_force(kept) == {"t"}


def test_a_revoked_rule_is_in_force_again_with_a_new_grant(kept: Kept) -> None:
    """The same words are a change then."""
    given = grant()
    kept.install(rule_record(name="t"), signer=TENANT, grants=[given])
    bring(kept, given)
    anew = kept.install(
        rule_record(name="t"),
        head=head(serial=2),
        signer=TENANT,
        grants=[grant(nonce=b"n" * 16)],
    )
    assert anew["outcome"]["accepted"] == 1 and in_force(kept) == {"t"}
    assert kept.keeper.store.totals().revoked == 0


def test_every_link_of_a_chain_can_be_taken_back_by_its_issuer(kept: Kept) -> None:
    """What was granted on ends with it; a rule with another chain stays."""
    first = grant(to=RESELLER, may_delegate=True)
    second = grant(RESELLER, TENANT)
    kept.install(rule_record(name="chain"), signer=TENANT, grants=[first, second])
    direct = head("direct")
    kept.install(
        rule_record(name="both", priority=1),
        head=direct,
        signer=TENANT,
        grants=[first, second, grant()],
    )
    assert bring(kept, second, RESELLER)["outcome"]["rules"] == 1
    assert bring(kept, first)["outcome"]["rules"] == 0
    assert in_force(kept) == {"both"}
    assert bring(kept, grant())["outcome"]["rules"] == 1
    assert in_force(kept) == set()


def test_a_revocation_may_be_brought_again(kept: Kept) -> None:
    """It changes nothing and makes no version."""
    given = grant()
    kept.install(rule_record(name="t"), signer=TENANT, grants=[given])
    bring(kept, given)
    version = kept.version
    again = bring(kept, given)["outcome"]
    assert (again["is_new"], again["rules"]) == (False, 0)
    assert kept.version == version


def test_what_the_issuer_did_not_sign_takes_nothing_back(kept: Kept) -> None:
    """Forged, unreadable, or of a grant that has ended: refused with the reason."""
    given = grant()
    kept.install(rule_record(name="t"), signer=TENANT, grants=[given])
    theirs = replace(revoke_grant(TENANT, grant(TENANT)), grant=given)
    assert bring_text(kept, theirs.to_bytes())["refusal"]["reason"] == "forged"
    assert bring_text(kept, b"{}")["refusal"]["reason"] == "unreadable"
    ended = grant(valid_until_s=NOW_S - 1)
    assert bring(kept, ended)["refusal"]["reason"] == "expired"
    assert in_force(kept) == {"t"}


def test_a_revocation_is_forgotten_when_its_grant_ends(kept: Kept) -> None:
    given = grant()
    bring(kept, given)
    kept.now_s = given.valid_until_s - 1
    kept.keeper.tidy(kept.version)
    assert kept.keeper.store.revocations.is_revoked(given.digest)
    kept.now_s = given.valid_until_s
    kept.keeper.tidy(kept.version)
    assert not kept.keeper.store.revocations.is_revoked(given.digest)


def test_revocations_of_nothing_do_not_keep_out_those_that_matter(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can sign grants and take them back: of those there are only so many."""
    monkeypatch.setattr(revoker, "MAX_REVOCATIONS_COUNT", 6)
    monkeypatch.setattr(revoker, "MAX_EARLY_REVOCATIONS_COUNT", 4)
    monkeypatch.setattr(revoker, "MAX_ISSUER_REVOCATIONS_COUNT", 2)
    given = [grant(nonce=bytes(15) + bytes([number])) for number in range(2)]
    for number, one in enumerate(given):
        kept.install(
            rule_record(name=f"t{number}"), head=head(f"s{number}"), signer=TENANT, grants=[one]
        )

    def fill(issuer: Identity, first: int, count: int) -> list[str]:
        answers = [
            bring(kept, grant(issuer, nonce=bytes(14) + bytes([9, first + number])), issuer)
            for number in range(count)
        ]
        return [one.get("refusal", {}).get("reason", "taken") for one in answers]

    assert fill(STRANGER, 0, 3) == ["taken", "taken", "too many revocations"]
    assert fill(RESELLER, 0, 2) == ["taken", "taken"]
    assert fill(TENANT, 0, 1) == ["too many revocations"]
    for one in given:
        assert bring(kept, one)["outcome"]["rules"] == 1
    last = grant(nonce=b"z" * 16)
    kept.install(rule_record(name="t"), head=head("s"), signer=TENANT, grants=[last])
    assert bring(kept, last)["refusal"]["reason"] == "too many revocations"
    assert in_force(kept) == {"t"}


def test_an_explanation_names_revoked_rules(kept: Kept) -> None:
    """They come near and decide nothing."""
    given = grant()
    kept.install(rule_record(name="t"), signer=TENANT, grants=[given])
    bring(kept, given)
    question = Question(bytes(20), OWNER.guid.value, SID_ZERO.value, 1, b"n" * 20, b"")
    asked = RulesQuestion(frozenset(), question, True, float(NOW_S))
    told = Catalogue(kept.folder).answer({"what": "explain", **asked.to_json()})
    assert told["report"]["revoked"] == ["test/t"]
    assert told["report"]["findings"] == [] and told["winners"] == {}


def test_rules_of_the_isp_rest_on_no_grant(kept: Kept) -> None:
    """A document of it may carry one all the same."""
    kept.install(rule_record(name="own"), grants=[grant()])
    assert bring(kept, grant())["outcome"]["rules"] == 0
    assert in_force(kept) == {"own"}


def test_a_store_of_before_knows_revocations_when_it_is_opened(kept: Kept) -> None:
    """What is in it stays."""
    kept.install(rule_record(name="t"), signer=TENANT, grants=[grant()])
    connection = kept.keeper.store.connection
    connection.executescript(
        "DROP TABLE revocations; DROP TABLE revoked_rules; PRAGMA user_version = 1;"
    )
    kept.close()
    assert (kept.folder / STORE_FILE).exists()
    kept.open()
    assert in_force(kept) == {"t"}
    assert bring(kept, grant())["outcome"]["rules"] == 1
    reader = RuleStore.open(kept.folder, is_reader=True)
    assert reader.revocations.is_revoked(grant().digest)
    reader.close()


def test_withdrawn_and_ended_rules_are_revoked_no_more(kept: Kept) -> None:
    """Nothing of them stays."""
    given = grant()
    records = [rule_record(name="a"), rule_record(name="b")]
    kept.install(*records, signer=TENANT, grants=[given])
    bring(kept, given)
    kept.install({"withdraw": "a"}, head=head(serial=2), signer=TENANT)
    assert len(kept.keeper.store.revocations.revoked_rules()) == 1
    kept.now_s = NOW_S + DAY_S + 7200
    kept.load(kept.keeper.tidy(kept.version))
    assert (
        kept.keeper.store.revocations.revoked_rules() == {}
        and kept.keeper.store.totals().revoked == 0
    )
    assert POLICY.is_own(ISP.guid.value)
