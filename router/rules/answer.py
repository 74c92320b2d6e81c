"""What the rules answer about a flow, and what is left to ask about each of its chunks.

Made by a table of rules for the fields that all chunks of a flow have in common; settled for one
chunk when its size and what was found in its payload are known. Source: docs/decisions/0012.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol

from packetcloud.router.rules.rule import MAX_SIZE_BYTES, Action


@dataclass(frozen=True, slots=True)
class Late:
    """The conditions of a rule that depend on the chunk."""

    size_min: int = 0
    size_max: int = MAX_SIZE_BYTES
    patterns: tuple[int, ...] = ()
    """Ids in the scanner of the same table; empty for none."""
    needs_all_patterns: bool = False

    def holds(self, payload_bytes: int, found: Set[int]) -> bool:
        """Tell whether they hold; `found`: ids of the patterns found in the payload."""
        if not self.size_min <= payload_bytes <= self.size_max:
            return False
        if not self.patterns:
            return True
        if self.needs_all_patterns:
            return all(one in found for one in self.patterns)
        return any(one in found for one in self.patterns)


@dataclass(frozen=True, slots=True)
class Contender:
    """A rule that matches a flow, as far as that can be told without the chunk."""

    number: int
    """Of the rule."""
    action: Action
    late: Late | None = None
    """None: it matches every chunk of the flow."""
    refuses_absent: bool = False
    """Chunks that it leads to a service which nobody knows here are refused."""


@dataclass(frozen=True, slots=True)
class Contest:
    """The rules about one service, by rank, up to the first that matches every chunk."""

    sid: bytes
    contenders: tuple[Contender, ...]

    def winner(self, payload_bytes: int, found: Set[int]) -> Contender | None:
        for one in self.contenders:
            if one.late is None or one.late.holds(payload_bytes, found):
                return one
        return None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one version of the rules says about a flow."""

    version: int
    contests: tuple[Contest, ...] = ()
    """One for each service that an active rule names."""
    shadow_contests: tuple[Contest, ...] = ()
    """The same as if shadow rules were active; empty if none of them contends."""
    until_s: float = math.inf
    """Seconds since 1970: ask again from then on, as the validity of a rule begins or ends."""

    @property
    def is_late(self) -> bool:
        """Tell whether each chunk must be looked at."""
        return any(
            one.late is not None
            for contest in self.contests + self.shadow_contests
            for one in contest.contenders
        )

    @property
    def needs_scan(self) -> bool:
        """Tell whether payloads must be scanned for patterns."""
        return any(
            one.late is not None and one.late.patterns
            for contest in self.contests + self.shadow_contests
            for one in contest.contenders
        )


class Scanner(Protocol):
    """Finds all patterns of one version of the rules in a payload."""

    def found(self, payload: memoryview) -> Set[int]:
        """Return the ids of the patterns that were found. Linear in the payload."""


class RuleTable(Protocol):
    """One version of the rules, as the data plane asks it. Never changes."""

    version: int
    scanner: Scanner | None
    """None: no rule has a pattern."""

    def ask(
        self,
        source: bytes,
        destination: bytes,
        sid: bytes,
        payload_type: int,
        ingress: bytes,
        now_s: float,
    ) -> Answer:
        """Ask about a flow; names have 20 bytes, `now_s` is seconds since 1970."""
