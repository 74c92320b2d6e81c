"""The payload patterns of all installed rules, and the numbers that they have in the scanner.

A pattern keeps its number as long as the files of the table do, also after its last rule went; a
table that is made anew numbers anew. Source: docs/decisions/0012.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Self

from packetcloud.router.rules.patterns import MAX_PATTERNS_COUNT
from packetcloud.router.rules.rule import Pattern
from packetcloud.router.rules.store import RuleStore

FEW_DEAD_COUNT = 64
"""Fewer patterns of no rule are not worth a new table."""


class PatternBook:
    """Numbers patterns within one change of the store.

    Args:
        signer: whose patterns are counted; None: the ISP's, for which only the limit of all holds.
        limit, signer_limit: how many different ones there may be, in all and of the signer.
    """

    def __init__(
        self, store: RuleStore, signer: bytes | None, limit: int, signer_limit: int
    ) -> None:
        self._store = store
        self._numbers = {pattern_of(text): number for number, text in store.patterns()}
        self._used = store.used_patterns()
        self._of_signer = store.used_patterns(signer) if signer is not None else None
        self._limit = limit
        self._signer_limit = signer_limit
        self.has_new = False

    @classmethod
    def of_all(cls, store: RuleStore) -> Self:
        """Return a book for rules that were accepted: no limit but the scanner's."""
        return cls(store, None, MAX_PATTERNS_COUNT, MAX_PATTERNS_COUNT)

    @property
    def patterns(self) -> list[Pattern]:
        """All, by number."""
        return sorted(self._numbers, key=self._numbers.__getitem__)

    @property
    def is_wasteful(self) -> bool:
        """Tell whether so many belong to no rule that a new table is worth it."""
        dead = len(self._numbers) - len(self._used)
        return dead > max(FEW_DEAD_COUNT, len(self._numbers) // 4)

    def number(self, pattern: Pattern) -> int:
        """Return the number of a pattern that was taken."""
        return self._numbers[pattern]

    def take(self, patterns: Iterable[Pattern]) -> str | None:
        """Number the patterns of a rule, or say why there is no room for them."""
        wanted = set(patterns)
        new = wanted - self._numbers.keys()
        numbers = {self._numbers[one] for one in wanted - new}
        used = self._used | numbers
        if len(used) + len(new) > self._limit:
            return f"{len(self._used)} patterns of {self._limit}, [rules] max_patterns, are in use"
        if len(self._numbers) + len(new) > MAX_PATTERNS_COUNT:
            return f"{len(self._numbers)} patterns of {MAX_PATTERNS_COUNT} have a place"
        if self._of_signer is not None:
            of_signer = self._of_signer | numbers
            if len(of_signer) + len(new) > self._signer_limit:
                return (
                    f"{len(self._of_signer)} patterns of {self._signer_limit}, "
                    "[rules] max_signer_patterns, are in use by this signer"
                )
        for pattern in new:
            number = len(self._numbers)
            self._numbers[pattern] = number
            self._store.put_pattern(number, text_of(pattern))
            numbers.add(number)
            self.has_new = True
        self._used |= numbers
        if self._of_signer is not None:
            self._of_signer |= numbers
        return None


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
