"""What the rules that match a flow add up to: for each service the contenders by rank.

Source: `judge`, which says the same of one chunk; docs/decisions/0012.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence
from operator import itemgetter

from packetcloud.router.rules.answer import Answer, Contender, Contest
from packetcloud.router.rules.segment import Candidate

Ranked = list[tuple[int, Contender, bool]]
"""Of one service, by rank: place, rule, whether it is in shadow mode. It ends with the first active
rule that matches every chunk; what is behind that never counts."""
_FEW = 64


class Ranking:
    """The contenders for each service at one time; never changed once made."""

    __slots__ = ("_contests", "by_service", "in_sets", "since_s", "until_s")

    def __init__(
        self,
        by_service: dict[bytes, Ranked],
        since_s: float = -math.inf,
        until_s: float = math.inf,
        in_sets: Sequence[Candidate] = (),
    ) -> None:
        self.by_service = by_service
        self.since_s = since_s
        """It holds from then on, in seconds since 1970."""
        self.until_s = until_s
        """Then no more."""
        self.in_sets = in_sets
        """Rules that match too if fields of the flow are in their sets."""
        self._contests: dict[bytes, tuple[Contest | None, Contest | None]] = {}

    def contests(self, service: bytes) -> tuple[Contest | None, Contest | None]:
        """Return the contest, and the one with shadow rules if there are any; both are kept."""
        contests = self._contests.get(service)
        if contests is None:
            contests = self._contests[service] = _contests(service, self.by_service[service])
        return contests

    def answer(self, version: int) -> Answer:
        pairs = [self.contests(service) for service in self.by_service]
        active = tuple([one for one, _ in pairs if one is not None])
        if all(shadow is None for _, shadow in pairs):
            return Answer(version, active, (), self.until_s)
        both = [shadow or one for one, shadow in pairs]
        return Answer(version, active, tuple([one for one in both if one]), self.until_s)


def ranking(
    candidates: Iterable[Candidate], now_s: float, withdrawn: Container[int], is_answer: bool
) -> Ranking:
    """Rank the rules of one key.

    Args:
        candidates: by rank.
        is_answer: they were found with source and destination exchanged.
    """
    matching: list[Candidate] = []
    in_sets: list[Candidate] = []
    since, until = -math.inf, math.inf
    for candidate in candidates:
        _, contender, effect = candidate
        if contender.number in withdrawn or (is_answer and not effect.holds_for_answers):
            continue
        if now_s < effect.valid_from_s:
            until = min(until, effect.valid_from_s)
        elif now_s >= effect.valid_until_s:
            since = max(since, effect.valid_until_s)
        else:
            since = max(since, effect.valid_from_s)
            until = min(until, effect.valid_until_s)
            (in_sets if effect.sets else matching).append(candidate)
    return Ranking(grouped(matching), since, until, in_sets)


def grouped(candidates: Iterable[Candidate]) -> dict[bytes, Ranked]:
    """Return rules that match, by service. `candidates`: by rank."""
    by_service: dict[bytes, Ranked] = {}
    for place, contender, effect in candidates:
        ranked = by_service.setdefault(effect.service, [])
        if not ranked or not _is_decisive(ranked[-1]):
            ranked.append((place, contender, effect.is_shadow))
    return by_service


def joined(rankings: Sequence[Ranking]) -> Ranking:
    """Return the ranking of the rules of several keys; `in_sets` of each must be dealt with."""
    by_service: dict[bytes, list[Ranked]] = {}
    for one in rankings:
        for service, ranked in one.by_service.items():
            by_service.setdefault(service, []).append(ranked)
    joint = Ranking(
        {service: _merged(lists) for service, lists in by_service.items()},
        max((one.since_s for one in rankings), default=-math.inf),
        min((one.until_s for one in rankings), default=math.inf),
    )
    for one in rankings:
        for service, ranked in one.by_service.items():
            if joint.by_service[service] is ranked:
                joint._contests[service] = one.contests(service)
    return joint


def _merged(lists: list[Ranked]) -> Ranked:
    """Merge lists; the same rule may stand in several. A single one is returned as it is."""
    lists.sort(key=len, reverse=True)
    result = lists[0]
    for other in lists[1:]:
        if len(other) > _FEW:
            result = _cut(sorted([*result, *other], key=itemgetter(0)))
            continue
        result = result.copy()
        for one in other:
            at = bisect_left(result, one[0], key=itemgetter(0))
            if at == len(result):
                if _is_decisive(result[-1]):
                    break
            elif result[at][0] == one[0]:
                continue
            result.insert(at, one)
            if _is_decisive(one):
                del result[at + 1 :]
    return result


def _cut(ranked: Ranked) -> Ranked:
    result: Ranked = []
    for one in ranked:
        if result and result[-1][0] == one[0]:
            continue
        result.append(one)
        if _is_decisive(one):
            break
    return result


def _is_decisive(one: tuple[int, Contender, bool]) -> bool:
    return one[1].late is None and not one[2]


def _contests(service: bytes, ranked: Ranked) -> tuple[Contest | None, Contest | None]:
    active = tuple([contender for _, contender, is_shadow in ranked if not is_shadow])
    contest = Contest(service, active) if active else None
    if len(active) == len(ranked):
        return contest, None
    all_modes = []
    for _, contender, _ in ranked:
        all_modes.append(contender)
        if contender.late is None:
            break
    return contest, Contest(service, tuple(all_modes))
