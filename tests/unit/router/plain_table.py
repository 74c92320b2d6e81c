"""A table of rules by the conditions of `judge`, rule after rule: slow, and right by reading."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from packetcloud.chunk.names import SID
from packetcloud.router.rules.answer import Answer, Contender, Contest, Late, Scanner
from packetcloud.router.rules.judge import Miss, first_miss
from packetcloud.router.rules.patterns import compile_scanner
from packetcloud.router.rules.rule import (
    MAX_SIZE_BYTES,
    IfAbsent,
    InstalledRule,
    Match,
    Mode,
    Pattern,
    Question,
    Rule,
)


def installed(rules: Iterable[Rule], *, is_own: bool = True, first: int = 1) -> list[InstalledRule]:
    """The rules as installed one after the other."""
    return [
        InstalledRule(number, "set", bytes(20), is_own, rule)
        for number, rule in enumerate(rules, first)
    ]


def visiting(*services: SID, **changes: Any) -> list[InstalledRule]:
    """Rules that lead every chunk to each of the services."""
    return installed(Rule(f"r{n}", one, **changes) for n, one in enumerate(services))


class PlainTable:
    """A `RuleTable` of any rules."""

    def __init__(self, rules: Iterable[InstalledRule], version: int = 1) -> None:
        self.version = version
        self.rules = sorted(rules, key=lambda one: one.rank, reverse=True)
        patterns = [pattern for one in self.rules for pattern in one.rule.match.patterns]
        self._ids: dict[Pattern, int] = {one: n for n, one in enumerate(dict.fromkeys(patterns))}
        self.scanner: Scanner | None = compile_scanner(list(self._ids)) if self._ids else None
        self.questions: list[Question] = []

    def ask(
        self,
        source: bytes,
        destination: bytes,
        sid: bytes,
        payload_type: int,
        ingress: bytes,
        now_s: float,
    ) -> Answer:
        question = Question(source, destination, sid, payload_type, ingress)
        self.questions.append(question)
        matching = [one for one in self.rules if _early_miss(one, question, now_s) is None]
        active = [one for one in matching if one.rule.mode is Mode.ACTIVE]
        has_shadow = len(active) < len(matching)
        return Answer(
            self.version,
            tuple(self._contests(active)),
            tuple(self._contests(matching)) if has_shadow else (),
            min(self._turns(question, now_s), default=math.inf),
        )

    def _contests(self, rules: list[InstalledRule]) -> Iterator[Contest]:
        for sid in dict.fromkeys(one.rule.service.value for one in rules):
            contenders: list[Contender] = []
            for one in rules:
                if one.rule.service.value == sid:
                    match = one.rule.match
                    late = self._late(match) if match.is_late else None
                    refuses = one.rule.if_absent is IfAbsent.REFUSE
                    contenders.append(Contender(one.number, one.rule.action, late, refuses))
                    if late is None:
                        break
            yield Contest(sid, tuple(contenders))

    def _late(self, match: Match) -> Late:
        ids = tuple(self._ids[pattern] for pattern in match.patterns)
        return Late(match.size_min, match.size_max, ids, match.needs_all_patterns)

    def _turns(self, question: Question, now_s: float) -> Iterator[float]:
        for one in self.rules:
            rule = one.rule
            at_any_time = replace(rule, valid_from_s=-math.inf, valid_until_s=math.inf)
            if _early_miss(replace(one, rule=at_any_time), question, now_s) is None:
                yield from (at for at in (rule.valid_from_s, rule.valid_until_s) if at > now_s)


def _early_miss(one: InstalledRule, question: Question, now_s: float) -> Miss | None:
    """The first condition that does not hold, of those that all chunks of a flow share."""
    match = replace(one.rule.match, size_min=0, size_max=MAX_SIZE_BYTES, patterns=())
    early = replace(one, rule=replace(one.rule, match=match))
    return first_miss(early, question, now_s, _no_patterns)


def _no_patterns(pattern: Pattern, payload: bytes) -> bool:
    raise AssertionError("none is left")
