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

LONG_COUNT = 16
"""Contests with more rules are laid out once for all flows."""
MAX_LONG_CONTESTS_COUNT = 64
"""About 200 KB for each thousand rules. When there are more all are laid out again as they come."""

_Kind = tuple[int, frozenset[int]]
Winners = tuple[Contender | None, ...]
"""Who decides in each contest; None: no rule about that service matches."""


class LateContest:
    """One contest, laid out so that rules whose patterns were not found are not looked at."""

    __slots__ = ("_by_pattern", "_others", "bounds", "contest", "patterns")

    def __init__(self, contest: Contest) -> None:
        self.contest = contest
        self._others: list[int] = []
        """Places of the rules without patterns."""
        self._by_pattern: dict[int, list[int]] = {}
        sizes: set[int] = set()
        for place, one in enumerate(contest.contenders):
            late = one.late
            if late is None:
                self._others.append(place)
                continue
            sizes.add(late.size_min)
            sizes.add(late.size_max + 1)
            if not late.patterns:
                self._others.append(place)
            for number in late.patterns:
                self._by_pattern.setdefault(number, []).append(place)
        self.bounds = frozenset(sizes)
        self.patterns = frozenset(self._by_pattern)

    def winner(self, payload_bytes: int, found: Set[int]) -> Contender | None:
        """As `Contest.winner`. O(rules without patterns, and with one that was found)."""
        contenders = self.contest.contenders
        places = set(self._others)
        for number in found:
            places.update(self._by_pattern.get(number, ()))
        for place in sorted(places):
            one = contenders[place]
            if one.late is None or one.late.holds(payload_bytes, found):
                return one
        return None


class LateContests:
    """The long contests of one version of the rules: tables give one and the same to many flows."""

    def __init__(self) -> None:
        self.forgotten_count = 0
        """How often there were too many."""
        self._long: dict[int, LateContest] = {}
        """By the identity of the contest, which each of them keeps alive."""

    @property
    def count(self) -> int:
        return len(self._long)

    def forget(self) -> None:
        """Begin anew, with other rules."""
        self._long.clear()

    def of(self, contest: Contest) -> LateContest:
        """Return a contest laid out. O(its rules) when it comes first, a millisecond for 1000."""
        if len(contest.contenders) <= LONG_COUNT:
            return LateContest(contest)
        known = self._long.get(id(contest))
        if known is None:
            if len(self._long) >= MAX_LONG_CONTESTS_COUNT:
                self.forgotten_count += 1
                self._long.clear()
            known = self._long[id(contest)] = LateContest(contest)
        return known


class LateAnswer:
    """An answer with late rules, laid out."""

    __slots__ = ("_bounds", "_contests", "_shadow_contests", "answer", "patterns")

    def __init__(self, answer: Answer, known: LateContests) -> None:
        self.answer = answer
        self._contests = [known.of(one) for one in answer.contests]
        self._shadow_contests = [known.of(one) for one in answer.shadow_contests]
        both = self._contests + self._shadow_contests
        self.patterns = _union([one.patterns for one in both])
        self._bounds = sorted(_union([one.bounds for one in both]))

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


def _union(sets: list[frozenset[int]]) -> frozenset[int]:
    some = [one for one in sets if one]
    return some[0] if len(some) == 1 else frozenset().union(*some)
