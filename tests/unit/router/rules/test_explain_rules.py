"""What `rule explain` says about rules: who decides, who is outranked, what is missed."""

from __future__ import annotations

import pytest

from packetcloud.chunk.names import SID
from packetcloud.router.rules.explain import Outcome, comes_near, explain_rules
from packetcloud.router.rules.judge import Miss, judge
from packetcloud.router.rules.patterns import finds
from packetcloud.router.rules.rule import (
    Action,
    Direction,
    InstalledRule,
    Match,
    Mode,
    Pattern,
    Question,
    Rule,
)

A, B, C = (bytes([letter]) * 20 for letter in b"abc")
S, T = SID(b"s" * 20), SID(b"t" * 20)
QUESTION = Question(A, B, bytes(20), 0, A, b"payload")
TO_B, TO_C = Match(destinations=frozenset({B})), Match(destinations=frozenset({C}))


def installed(*rules: Rule, is_own: bool = True) -> list[InstalledRule]:
    return [InstalledRule(n, "set", A, is_own, rule) for n, rule in enumerate(rules, 1)]


def told(rules: list[InstalledRule], question: Question = QUESTION) -> list[tuple[object, ...]]:
    """Name, outcome, and the rule or condition that made it so, in the order that is shown."""
    explained = explain_rules(rules, question, 100.0, finds)
    found: list[tuple[object, ...]] = []
    for one in explained.findings:
        why = one.by or one.would_be_by
        found.append((one.installed.rule.name, one.outcome, why.rule.name if why else one.miss))
    return found


def test_rules_are_told_by_rank() -> None:
    """The winner comes first, the outranked behind it name it, whatever the order of arrival."""
    rules = installed(
        Rule("older", S, TO_B),
        Rule("pass", S, TO_B, Action.PASS, priority=5),
        Rule("visit", S, TO_B, priority=5),
        Rule("elsewhere", S, Match(sources=frozenset({C}), direction=Direction.FORWARD)),
        Rule("other", T, Match()),
    )
    assert told(rules) == [
        ("visit", Outcome.DECIDES, None),
        ("pass", Outcome.OUTRANKED, "visit"),
        ("older", Outcome.OUTRANKED, "visit"),
        ("other", Outcome.DECIDES, None),
    ]
    explained = explain_rules(rules, QUESTION, 100.0, finds)
    assert (explained.rules_count, explained.others_count) == (5, 1)


def test_a_third_party_is_outranked_by_the_isp() -> None:
    """The ISP's pass outranks a third party's visit of any priority."""
    (own,) = installed(Rule("own", S, TO_B, Action.PASS))
    theirs = InstalledRule(7, "theirs", C, False, Rule("theirs", S, TO_B, priority=100))
    assert told([theirs, own]) == [
        ("own", Outcome.DECIDES, None),
        ("theirs", Outcome.OUTRANKED, "own"),
    ]


@pytest.mark.parametrize(
    ("rule", "miss"),
    [
        (Rule("r", S, TO_B, valid_from_s=200.0), Miss.NOT_YET_VALID),
        (Rule("r", S, TO_B, valid_until_s=100.0), Miss.EXPIRED),
        (Rule("r", S, Match(sources=frozenset({C}), destinations=frozenset({B}))), Miss.SOURCE),
        (
            Rule("r", S, Match(sources=frozenset({B}), direction=Direction.FORWARD), priority=1),
            None,
        ),
        (Rule("r", S, Match(sources=frozenset({A}), sids=frozenset({T.value}))), Miss.SID),
        (Rule("r", S, Match(sources=frozenset({A}), size_min=8)), Miss.SIZE),
        (Rule("r", S, Match(patterns=(Pattern(b"PAY"),))), Miss.PATTERN),
        (Rule("r", S, Match(ingress=frozenset({C}), payload_types=frozenset({0}))), Miss.INGRESS),
    ],
)
def test_the_first_condition_that_does_not_hold_is_told(rule: Rule, miss: Miss | None) -> None:
    """A near miss says why; a rule that names only what the chunk has not is left out."""
    expected = [("r", Outcome.MISSED, miss)] if miss is not None else []
    assert told(installed(rule)) == expected


def test_rules_in_shadow_mode_say_what_they_would_do() -> None:
    """The one that would decide is marked, and so is the one whose place it would take."""
    shadow = Mode.SHADOW
    rules = installed(
        Rule("now", S, TO_B),
        Rule("would", S, TO_B, Action.PASS, shadow, priority=9),
        Rule("would not", S, TO_B, mode=shadow, priority=8),
        Rule("alone", T, Match(), mode=shadow),
        Rule("missed", T, TO_B, mode=shadow, valid_from_s=200.0),
    )
    assert told(rules) == [
        ("would", Outcome.WOULD_DECIDE, None),
        ("would not", Outcome.WOULD_BE_OUTRANKED, "would"),
        ("now", Outcome.DECIDES, "would"),
        ("alone", Outcome.WOULD_DECIDE, None),
        ("missed", Outcome.MISSED, Miss.NOT_YET_VALID),
    ]
    explained = explain_rules(rules, QUESTION, 100.0, finds)
    assert set(explained.winners) == {S.value}
    assert set(explained.shadow_winners) == {S.value, T.value}


def test_what_does_not_come_near_never_matches() -> None:
    """Leaving rules out changes no winner: only what cannot match is left out."""
    matches = [
        Match(sources=frozenset({source}), destinations=frozenset({destination}), direction=way)
        for source in (A, B, C)
        for destination in (A, B, C)
        for way in Direction
    ]
    rules = installed(*(Rule(f"r{n}", S, match) for n, match in enumerate(matches)))
    for one in rules:
        alone = judge([one], QUESTION, 100.0, finds)
        assert comes_near(one.rule.match, QUESTION) or not alone.winners
