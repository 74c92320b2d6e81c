"""Sets of rules at the cloudlet's core: what is brought to the router when, and what is told."""

from __future__ import annotations

import pytest

from packetcloud.cloudlet.core import commands as do
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core import rule_sets
from packetcloud.cloudlet.core.rule_sets import RuleSets
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.domain_controller.core.installations import (
    MAX_SETS_AT_CLOUDLET_COUNT,
    RulesState,
)

NOW_MS = 1_800_000_000_000
SIGNER = "5" * 40
DOCUMENT = "envelope\nhead\none\ntwo\n"


def make() -> tuple[RuleSets, Saved]:
    saved = Saved(domain_epoch=3)
    sets = RuleSets(saved)
    sets.up(saw.DomainUp(3, NOW_MS), is_in_charge=True)
    return sets, saved


def said(
    name: str = "a", serial: int = 1, epoch: int = 3, until_ms: int | None = None
) -> saw.RulesSaid:
    return saw.RulesSaid(epoch, name, SIGNER, name, serial, until_ms, DOCUMENT)


def taken(name: str = "a", serial: int = 1, refused: int = 0) -> saw.RulesAnswered:
    return saw.RulesAnswered(name, serial, (SIGNER, name, serial), 2 - refused, refused)


def seen(sets: RuleSets, *there: tuple[str, int, int]) -> saw.RulesSeen:
    found = {(SIGNER, name): saw.SetAtRouter(serial, count, 0) for name, serial, count in there}
    return saw.RulesSeen(sets.answers_count, found)


def installs(commands: list[do.Command]) -> list[tuple[str, int]]:
    return [(one.rule_set, one.serial) for one in commands if isinstance(one, do.InstallRules)]


def test_a_look_that_began_before_an_answer_is_late() -> None:
    """It does not know the document yet, which is there all the same."""
    sets, saved = make()
    assert installs(sets.said(said())) == [("a", 1)]
    late = seen(sets)
    sets.answered(taken())
    assert sets.seen(late) == []
    assert saved.rule_sets["a"].state is RulesState.INSTALLED
    assert installs(sets.seen(seen(sets))) == [("a", 1)], "a look of now says that it is lost"


def test_a_document_that_the_router_has_is_not_brought_again_and_again() -> None:
    """Replayed: the next look says which document it has; until then nothing is brought."""
    sets, saved = make()
    sets.said(said())
    again = saw.RulesAnswered("a", 1, None, is_replayed=True, text="replayed")
    assert installs(sets.answered(again)) == []
    assert installs(sets.seen(seen(sets, ("a", 1, 1)))) == []
    known = saved.rule_sets["a"]
    assert (known.state, known.accepted_count, known.refused_count) == (RulesState.PARTLY, 1, 1)


def test_one_document_that_does_not_get_through_holds_up_no_other() -> None:
    """The one that was not tried for longest comes first."""
    sets, _ = make()
    assert installs(sets.said(said("a")) + sets.said(said("b"))) == [("a", 1)]
    sets.unanswered(saw.RulesUnanswered("a", 1, "no"))
    assert installs(sets.seen(seen(sets))) == [("b", 1)]
    assert installs(sets.answered(taken("b"))) == [("a", 1)]


def test_what_is_refused_as_a_whole_is_brought_again_after_a_while() -> None:
    """The router's config may be another by then."""
    sets, saved = make()
    sets.said(said())
    sets.answered(saw.RulesAnswered("a", 1, None, text="wrong audience: \n not for \xe9"))
    known = saved.rule_sets["a"]
    assert (known.state, known.text) == (RulesState.REFUSED, "wrong audience: not for ?")
    assert installs(sets.seen(seen(sets))) == []
    sets.tick(saw.Metered(NOW_MS + rule_sets.TRY_AGAIN_MS))
    assert installs(sets.seen(seen(sets))) == [("a", 1)]


def test_a_document_of_another_set_than_was_said_counts_as_refused() -> None:
    """What a domain controller says of a document is not believed."""
    sets, saved = make()
    sets.said(said())
    sets.answered(saw.RulesAnswered("a", 1, (SIGNER, "other", 1), 2))
    assert saved.rule_sets["a"].state is RulesState.REFUSED


def test_old_epochs_and_old_documents_change_nothing() -> None:
    """A stale controller is not heard; to an older document the answer is what there is."""
    sets, saved = make()
    assert sets.said(said(epoch=2)) == []
    sets.said(said(serial=5))
    (answer,) = sets.said(said(serial=4))
    assert isinstance(answer, do.SayRules) and answer.sets[0].serial == 5
    assert sets.dropped["epoch"] == 1 and saved.rule_sets["a"].serial == 5


def test_what_is_kept_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One set more, one byte more, or rules that are over: refused, and told why; old ones go."""
    sets, saved = make()
    for number in range(MAX_SETS_AT_CLOUDLET_COUNT):
        sets.said(said(f"s{number}", until_ms=NOW_MS + 1))
    (answer,) = sets.said(said("more"))
    assert isinstance(answer, do.SayRules) and "as many as may be" in answer.sets[0].text
    assert len(saved.rule_sets) == MAX_SETS_AT_CLOUDLET_COUNT
    sets.tick(saw.Metered(NOW_MS + rule_sets.KEPT_MS + 2))
    assert not saved.rule_sets
    (answer,) = sets.said(said("old", until_ms=NOW_MS + 1))
    assert isinstance(answer, do.SayRules) and "over" in answer.sets[0].text
    monkeypatch.setattr(rule_sets, "MAX_DOCUMENTS_BYTES", 2 * len(DOCUMENT))
    sets.said(said("a"))
    sets.said(said("b"))
    (answer,) = sets.said(said("c"))
    assert isinstance(answer, do.SayRules) and "bytes" in answer.sets[0].text
    assert set(saved.rule_sets) == {"a", "b"}
