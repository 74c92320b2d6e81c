"""The payload patterns of all installed rules, and the numbers that they have in the scanner.

A pattern keeps its number as long as the files of the table do, or until a new pattern gets the
number after its last rule went; a table that is made anew numbers anew.
Source: docs/decisions/0012.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Self

from packetcloud.router.rules.patterns import demand_of
from packetcloud.router.rules.rule import Pattern
from packetcloud.router.rules.scanner_share import (
    ALL,
    Good,
    ScannerLoad,
    Share,
    share_of_all,
    share_of_signer,
    share_of_third_parties,
)
from packetcloud.router.rules.store import RuleStore
from packetcloud.router.settings import RuleSettings

FEW_DEAD_COUNT = 64
"""Fewer patterns of no rule are not worth a new table."""


@dataclass(slots=True)
class _Holding:
    """What a signer, or all together, have of the scanner."""

    share: Share
    patterns: set[Pattern]
    load: ScannerLoad = field(init=False)

    def __post_init__(self) -> None:
        self.load = ScannerLoad(map(demand_of, self.patterns))

    def problem(self, wanted: Collection[Pattern], others: _Others | None) -> str | None:
        demands = [demand_of(one) for one in wanted if one not in self.patterns]
        if not demands:
            return None
        for good in Good:
            if good not in self.share.limits:
                continue
            amount = self.load.with_more(good, demands)
            problem = self.share.problem(good, amount)
            if problem is None and others is not None:
                problem = others.share.problem(good, others.amounts[good] + amount)
            if problem is not None:
                return problem
        return None

    def add(self, wanted: Collection[Pattern]) -> None:
        new = [one for one in wanted if one not in self.patterns]
        self.load.add(map(demand_of, new))
        self.patterns.update(new)


@dataclass(frozen=True, slots=True)
class _Others:
    """What third parties may have together, and what all but one of them have, added up."""

    share: Share
    amounts: dict[Good, int]


class PatternBook:
    """Numbers patterns within one change of the store.

    Args:
        signer: the third party whose patterns they are; None: the ISP's.
        settings: what everybody may have; None: as much as the scanner can.
        replaced: a set that becomes another one wholly; what only its rules have is counted when
            it is taken again.
    """

    def __init__(
        self,
        store: RuleStore,
        signer: bytes | None,
        settings: RuleSettings | None,
        replaced: int | None = None,
    ) -> None:
        self._store = store
        self._numbers = {pattern_of(text): number for number, text in store.patterns()}
        by_number = {number: pattern for pattern, number in self._numbers.items()}
        used = {by_number[number] for number in store.used_patterns(replaced)}
        share = share_of_all(settings) if settings is not None else ALL
        self._of_all = _Holding(share, used)
        self._dead = sorted(by_number.keys() - store.used_patterns(), reverse=True)
        self._of_signer: _Holding | None = None
        self._others: _Others | None = None
        if signer is not None and settings is not None:
            by_signer = {
                one: {by_number[number] for number in numbers}
                for one, numbers in store.third_party_patterns(replaced).items()
            }
            own = by_signer.pop(signer, set())
            loads = [ScannerLoad(map(demand_of, patterns)) for patterns in by_signer.values()]
            self._of_signer = _Holding(share_of_signer(settings), own)
            self._others = _Others(
                share_of_third_parties(settings),
                {good: sum(load.with_more(good) for load in loads) for good in Good},
            )
        self.has_new = False

    @classmethod
    def of_all(cls, store: RuleStore) -> Self:
        """Return a book for rules that were accepted: no limit but the scanner's."""
        return cls(store, None, None)

    def for_scanner(self) -> list[Pattern | None]:
        """Return all by number; None in the place of one that no rule has any more."""
        used = self._store.used_patterns()
        patterns = sorted(self._numbers, key=self._numbers.__getitem__)
        return [one if number in used else None for number, one in enumerate(patterns)]

    @property
    def is_wasteful(self) -> bool:
        """Tell whether so many belong to no rule that a new table is worth it."""
        return len(self._dead) > max(FEW_DEAD_COUNT, len(self._numbers) // 4)

    def number(self, pattern: Pattern) -> int:
        """Return the number of a pattern that was taken."""
        return self._numbers[pattern]

    def take_again(self, rule: int) -> str | None:
        """Count the patterns of a rule that stays in the set that is replaced, as `take` does."""
        numbers = self._store.patterns_of(rule)
        return self.take([one for one, number in self._numbers.items() if number in numbers])

    def take(self, patterns: Iterable[Pattern]) -> str | None:
        """Number the patterns of a rule, or say why there is no room for them."""
        wanted = set(patterns)
        problem = self._of_all.problem(wanted, None)
        if self._of_signer is not None:
            problem = self._of_signer.problem(wanted, self._others) or problem
        if problem is not None:
            return problem
        for pattern in wanted:
            if pattern not in self._numbers:
                self._give_number(pattern)
            elif self._numbers[pattern] in self._dead:
                self._dead.remove(self._numbers[pattern])
                self.has_new = True
        self._of_all.add(wanted)
        if self._of_signer is not None:
            self._of_signer.add(wanted)
        return None

    def _give_number(self, pattern: Pattern) -> None:
        number = len(self._numbers)
        if self._dead:
            number = self._dead.pop()
            before = next(one for one, its in self._numbers.items() if its == number)
            del self._numbers[before]
        self._numbers[pattern] = number
        self._store.put_pattern(number, text_of(pattern))
        self.has_new = True


def text_of(pattern: Pattern) -> str:
    """Return a pattern as it stands in the store."""
    return json.dumps(
        [
            pattern.expression.hex(),
            pattern.is_regex,
            pattern.ignore_case,
            pattern.start,
            pattern.end,
        ]
    )


def pattern_of(text: str) -> Pattern:
    """Return the pattern of such a text."""
    expression, *rest = json.loads(text)
    return Pattern(bytes.fromhex(expression), *rest)
