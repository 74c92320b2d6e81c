"""Why rules decide about a chunk as they do: each rule that comes near, in the order of ranks.

`judge` says what holds; this keeps who was outranked by whom, the first condition that a rule
misses, and what rules in shadow mode would change. Source: docs/how-to/explain-a-chunk.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from packetcloud.router.rules.judge import Finds, Judgement, Miss, judge
from packetcloud.router.rules.rule import Direction, InstalledRule, Match, Mode, Question


class Outcome(StrEnum):
    """What became of a rule."""

    DECIDES = "decides"
    """Of all rules about its service that match it has the highest rank."""
    OUTRANKED = "outranked"
    """It matches, and another rule about its service decides."""
    MISSED = "missed"
    """A condition of it does not hold."""
    WOULD_DECIDE = "would decide"
    """It is in shadow mode; if it were active, it would."""
    WOULD_BE_OUTRANKED = "would be outranked"
    """It is in shadow mode and matches; another rule would decide all the same."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule and what became of it."""

    installed: InstalledRule
    outcome: Outcome
    miss: Miss | None = None
    """The first condition that does not hold."""
    by: InstalledRule | None = None
    """The rule that outranks it."""
    would_be_by: InstalledRule | None = None
    """It decides; with the rules in shadow mode this one would."""


@dataclass(frozen=True, slots=True)
class RulesExplained:
    """What rules say about one chunk, and why."""

    findings: tuple[Finding, ...]
    """Of the rules that come near, the one of highest rank first."""
    rules_count: int
    """Of all rules that were there to ask."""
    winners: dict[bytes, InstalledRule]
    """By SID of the service: who decides."""
    shadow_winners: dict[bytes, InstalledRule]
    """The same if shadow rules were active."""

    @property
    def others_count(self) -> int:
        """Rules that do not even come near: they name things, and none that this chunk has."""
        return self.rules_count - len(self.findings)


def comes_near(match: Match, question: Question) -> bool:
    """Tell whether a rule names something that the chunk has, or names nothing at all."""
    ends = [(match.sources, question.source), (match.destinations, question.destination)]
    if match.direction is Direction.BOTH:
        ends += [(match.sources, question.destination), (match.destinations, question.source)]
    return (
        any(value in names for names, value in ends)
        or question.sid in match.sids
        or question.payload_type in match.payload_types
        or question.ingress in match.ingress
        or not names_anything(match)
    )


def names_anything(match: Match) -> bool:
    """Tell whether a rule names a GUID, SID, payload type or neighbour."""
    return bool(
        match.sources or match.destinations or match.sids or match.payload_types or match.ingress
    )


def explain_rules(
    rules: Iterable[InstalledRule],
    question: Question,
    now_s: float,
    finds: Finds,
    *,
    rules_count: int | None = None,
) -> RulesExplained:
    """Ask rules about a chunk and keep why each says what it says. O(rules).

    Args:
        rules: all, or at least all that come near.
        now_s: seconds since 1970.
        finds: tells whether a pattern is found in a payload.
        rules_count: how many there are, if `rules` are not all.
    """
    asked = list(rules)
    near = [one for one in asked if comes_near(one.rule.match, question)]
    active = judge(near, question, now_s, finds)
    shadow = judge(near, question, now_s, finds, with_shadow=True)
    missed = {id(one): miss for one, miss in shadow.misses}
    findings = [
        _finding(one, missed.get(id(one)), active, shadow)
        for one in sorted(near, key=lambda one: one.rank, reverse=True)
    ]
    return RulesExplained(
        tuple(findings),
        len(asked) if rules_count is None else rules_count,
        active.winners,
        shadow.winners,
    )


def _finding(
    one: InstalledRule, miss: Miss | None, active: Judgement, shadow: Judgement
) -> Finding:
    if miss is not None:
        return Finding(one, Outcome.MISSED, miss)
    sid = one.rule.service.value
    would = shadow.winners[sid]
    if one.rule.mode is Mode.SHADOW:
        if would is one:
            return Finding(one, Outcome.WOULD_DECIDE)
        return Finding(one, Outcome.WOULD_BE_OUTRANKED, by=would)
    winner = active.winners[sid]
    if winner is not one:
        return Finding(one, Outcome.OUTRANKED, by=winner)
    return Finding(one, Outcome.DECIDES, would_be_by=would if would is not one else None)
