"""What a set of rules says about a chunk: rule after rule, in the order of their rank.

This is the meaning of rules. The data plane answers faster and must answer the same; `rule explain`
shows this. Cost: O(rules). Source: docs/decisions/0012.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from packetcloud.router.rules.rule import (
    Action,
    Direction,
    InstalledRule,
    Match,
    Mode,
    Pattern,
    Question,
)

Finds = Callable[[Pattern, bytes], bool]
"""Tells whether a pattern is found in a payload."""


class Miss(StrEnum):
    """The first condition that a rule did not meet."""

    NOT_YET_VALID = "not yet valid"
    EXPIRED = "expired"
    SOURCE = "source"
    DESTINATION = "destination"
    SID = "sid"
    PAYLOAD_TYPE = "payload type"
    INGRESS = "ingress"
    SIZE = "size"
    PATTERN = "pattern"


@dataclass(slots=True)
class Judgement:
    """What rules say about one chunk."""

    winners: dict[bytes, InstalledRule] = field(default_factory=dict)
    """By SID of the service: the matching rule of the highest rank."""
    shadowed: list[tuple[InstalledRule, InstalledRule]] = field(default_factory=list)
    """Rules that match but do not count, and the winner."""
    misses: list[tuple[InstalledRule, Miss]] = field(default_factory=list)

    @property
    def visits(self) -> dict[bytes, InstalledRule]:
        """The services that the chunk must visit, with the rule that says so."""
        return {
            sid: winner
            for sid, winner in self.winners.items()
            if winner.rule.action is Action.VISIT
        }


def judge(
    rules: Iterable[InstalledRule],
    question: Question,
    now_s: float,
    finds: Finds,
    *,
    with_shadow: bool = False,
) -> Judgement:
    """Ask every rule.

    Args:
        now_s: seconds since 1970.
        with_shadow: as if the rules in shadow mode were active.
    """
    judgement = Judgement()
    for installed in sorted(rules, key=lambda one: one.rank, reverse=True):
        rule = installed.rule
        if rule.mode is Mode.SHADOW and not with_shadow:
            continue
        miss = first_miss(installed, question, now_s, finds)
        if miss is not None:
            judgement.misses.append((installed, miss))
            continue
        winner = judgement.winners.setdefault(rule.service.value, installed)
        if winner is not installed:
            judgement.shadowed.append((installed, winner))
    return judgement


def first_miss(
    installed: InstalledRule, question: Question, now_s: float, finds: Finds
) -> Miss | None:
    """Return the first condition that does not hold; None: the rule matches."""
    rule = installed.rule
    match = rule.match
    if now_s < rule.valid_from_s:
        return Miss.NOT_YET_VALID
    if now_s >= rule.valid_until_s:
        return Miss.EXPIRED
    miss = _miss_of_ends(match, question)
    if miss is not None:
        return miss
    if match.sids and question.sid not in match.sids:
        return Miss.SID
    if match.payload_types and question.payload_type not in match.payload_types:
        return Miss.PAYLOAD_TYPE
    if match.ingress and question.ingress not in match.ingress:
        return Miss.INGRESS
    if not match.size_min <= len(question.payload) <= match.size_max:
        return Miss.SIZE
    if match.patterns:
        found = (finds(pattern, question.payload) for pattern in match.patterns)
        if not (all(found) if match.needs_all_patterns else any(found)):
            return Miss.PATTERN
    return None


def _miss_of_ends(match: Match, question: Question) -> Miss | None:
    ways = [(question.source, question.destination)]
    if match.direction is Direction.BOTH:
        ways.append((question.destination, question.source))
    for source, destination in ways:
        if (not match.sources or source in match.sources) and (
            not match.destinations or destination in match.destinations
        ):
            return None
    source, _ = ways[0]
    is_source = bool(match.sources) and source not in match.sources
    return Miss.SOURCE if is_source else Miss.DESTINATION
