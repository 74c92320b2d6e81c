"""The rules of one flow that depend on the chunk: settled for each, remembered by what it takes.

What decides is which of the rules' bounds the size lies between and which of their patterns were
found. Chunks alike in that share one flow, so the rules are gone through once for each kind.
Source: docs/decisions/0012.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from packetcloud.router.rules.answer import Answer, Contender, Contest, Scanner

if TYPE_CHECKING:
    from packetcloud.router.flow import Flow

MAX_KINDS_COUNT = 16
"""Kinds of chunks of one flow that are remembered, about 600 bytes each. Sources choose payloads,
so a full memory is emptied; what was forgotten costs a look at the flow's rules."""

_Kind = tuple[int, frozenset[int]]
Winners = tuple[Contender | None, ...]
"""Who decides in each contest; None: no rule about that service matches."""


class _LateContest:
    """One contest, laid out so that rules whose patterns were not found are not looked at."""

    __slots__ = ("_by_pattern", "_contenders", "_others")

    def __init__(self, contest: Contest) -> None:
        self._contenders = contest.contenders
        self._others: list[int] = []
        """Places of the rules without patterns."""
        self._by_pattern: dict[int, list[int]] = {}
        for place, one in enumerate(contest.contenders):
            if one.late is None or not one.late.patterns:
                self._others.append(place)
                continue
            for number in one.late.patterns:
                self._by_pattern.setdefault(number, []).append(place)

    def winner(self, payload_bytes: int, found: Set[int]) -> Contender | None:
        """As `Contest.winner`. O(rules without patterns, and with one that was found)."""
        places = set(self._others)
        for number in found:
            places.update(self._by_pattern.get(number, ()))
        for place in sorted(places):
            one = self._contenders[place]
            if one.late is None or one.late.holds(payload_bytes, found):
                return one
        return None


class LateAnswer:
    """An answer with late rules, worked out for as many flows as have it. O(rules)."""

    __slots__ = ("_bounds", "_contests", "_shadow_contests", "answer", "patterns")

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._contests = [_LateContest(one) for one in answer.contests]
        self._shadow_contests = [_LateContest(one) for one in answer.shadow_contests]
        lates = [
            one.late
            for contest in answer.contests + answer.shadow_contests
            for one in contest.contenders
            if one.late is not None
        ]
        self.patterns = frozenset(number for late in lates for number in late.patterns)
        sizes = {late.size_min for late in lates} | {late.size_max + 1 for late in lates}
        self._bounds = sorted(sizes)

    def kind(self, payload_bytes: int, found: Set[int]) -> _Kind:
        """Return what decides about a chunk."""
        return bisect_right(self._bounds, payload_bytes), self.patterns & found

    def winners(self, payload_bytes: int, found: Set[int]) -> tuple[Winners, Winners]:
        """Return who decides about a chunk, and who would with the shadow rules."""
        return (
            tuple(one.winner(payload_bytes, found) for one in self._contests),
            tuple(one.winner(payload_bytes, found) for one in self._shadow_contests),
        )


class LateRules:
    """The late rules of one flow.

    Args:
        scanner: of the same version of the rules.
    """

    __slots__ = ("_late", "answer", "flows", "scanner")

    def __init__(self, late: LateAnswer, scanner: Scanner | None) -> None:
        self._late = late
        self.answer = late.answer
        assert scanner is not None or not late.patterns, "patterns have a scanner"
        self.scanner = scanner if late.patterns else None
        """Looks at payloads; None: nobody has to."""
        self.flows: dict[_Kind, Flow] = {}

    def kind(self, payload_bytes: int, found: Set[int]) -> _Kind:
        """Return what decides about a chunk in whose payload these patterns were found."""
        return self._late.kind(payload_bytes, found)

    def winners(self, payload_bytes: int, kind: _Kind) -> tuple[Winners, Winners]:
        """Return who decides about chunks of this kind, and who would with the shadow rules."""
        return self._late.winners(payload_bytes, kind[1])

    def remember(self, kind: _Kind, flow: Flow) -> bool:
        """Keep the flow of a kind; True: there were too many, and the others are forgotten."""
        is_full = len(self.flows) >= MAX_KINDS_COUNT and kind not in self.flows
        if is_full:
            self.flows.clear()
        self.flows[kind] = flow
        return is_full


def winners_of(contests: Sequence[Contest]) -> Winners:
    """Return who decides in each contest about a chunk for which no late rule holds."""
    return tuple(
        next((one for one in contest.contenders if one.late is None), None) for contest in contests
    )
