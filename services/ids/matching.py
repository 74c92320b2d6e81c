"""Exact confirmation: do the parts of one rule hold in one payload?

The parts hold if there is any way of placing them. So for each part the set of places where a match
of it may end is carried on, and nothing is tried twice: the work is that of finding the contents,
never exponential. Suricata searches the same space by going back and stops at a limit.

Over the border of two chunks only what lies on both sides of it counts: each place then carries
along which of the pieces its matches have touched. Source: docs/reference/ids.md, "Borders".
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packetcloud.services.ids.byte_values import is_true, jump, place_of
from packetcloud.services.ids.errors import OverBudgetError
from packetcloud.services.ids.rule import ByteJump, ByteTest, Content, DataAt, Part, Pcre
from packetcloud.services.ids.scanner import Finder

PLACE_COST_BYTES = 256
"""What one place that is found costs, in bytes that are searched in the same time."""
SEARCH_COST_BYTES = 1024
"""What beginning to search costs."""

Ends = list[int]
_States = dict[int, Ends]
"""Pieces that were touched, as bits -> where the last match may end, ascending."""


class Budget:
    """The work that is left for one chunk, in bytes searched: counted, so the same everywhere."""

    __slots__ = ("left_bytes",)

    def __init__(self, limit_bytes: int) -> None:
        self.left_bytes = limit_bytes

    def spend(self, count_bytes: int) -> None:
        """Raises: OverBudgetError: there is not so much left."""
        self.left_bytes -= count_bytes
        if self.left_bytes < 0:
            raise OverBudgetError


class Searched:
    """A payload, or a stretch around the border of chunks, that is searched.

    Args:
        view: the bytes.
        borders: where one piece ends and the next begins; none: it is one piece.
    """

    __slots__ = ("_lower", "_plain", "borders", "view")

    def __init__(self, view: memoryview, borders: tuple[int, ...] = ()) -> None:
        self.view = view
        self.borders = borders
        self._plain: bytes | None = None
        self._lower: bytes | None = None

    def plain(self, budget: Budget) -> bytes:
        """Return the bytes as something that can be searched, copied once."""
        if self._plain is None:
            budget.spend(len(self.view))
            self._plain = bytes(self.view)
        return self._plain

    def lower(self, budget: Budget) -> bytes:
        """Return them in lower case (ASCII)."""
        if self._lower is None:
            budget.spend(2 * len(self.view))
            self._lower = self.plain(budget).lower()
        return self._lower

    def pieces_touched(self, start: int, end: int) -> int:
        """Return which pieces bytes from `start` to `end` lie in, as bits."""
        if not self.borders:
            return 0
        first = bisect.bisect_right(self.borders, start)
        last = bisect.bisect_left(self.borders, end)
        return ((1 << (last - first + 1)) - 1) << first

    def pieces(self) -> Iterator[memoryview]:
        """Yield the pieces in their order."""
        places = (0, *self.borders, len(self.view))
        for start, end in itertools.pairwise(places):
            yield self.view[start:end]


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts of one rule, and what is known of them before any payload."""

    parts: tuple[Part, ...]
    finders: Mapping[int, Finder]
    """Place of a pcre among the parts -> its compiled form."""
    carries: tuple[bool, ...]
    """For each part whether a later one is relative to its match."""

    @classmethod
    def of(cls, parts: tuple[Part, ...], finders: Mapping[int, Finder]) -> Plan:
        """Return the plan of these parts."""
        carries = []
        for number in range(len(parts)):
            is_needed = False
            for later in parts[number + 1 :]:
                if not isinstance(later, Content):
                    is_needed = is_needed or later.is_relative
                elif later.is_relative:
                    is_needed = True
                elif not later.is_negated:
                    break
            carries.append(is_needed)
        return cls(parts, finders, tuple(carries))


def holds(plan: Plan, searched: Searched, budget: Budget) -> bool:
    """Tell whether all parts hold; over borders, whether they do with at least two of the pieces.

    Raises:
        OverBudgetError: that would take more work than is left.
    """
    states: _States = {0: [0]}
    for number, part in enumerate(plan.parts):
        match part:
            case DataAt():
                states = _data_at(part, states, len(searched.view))
            case ByteTest() | ByteJump():
                states = _by_number(part, states, searched, budget)
            case Pcre():
                states = _expression(part, plan.finders[number], states, searched, budget)
            case Content() if part.is_negated:
                states = _absent(part, states, searched, budget)
            case Content():
                states = _present(part, states, searched, budget, plan.carries[number])
        if not states:
            return False
    return not searched.borders or any(touched & (touched - 1) for touched in states)


def _present(
    part: Content, states: _States, searched: Searched, budget: Budget, carries: bool
) -> _States:
    length, size = len(part.pattern), len(searched.view)
    text = searched.lower(budget) if part.is_nocase else searched.plain(budget)
    if part.is_at_end and not text.endswith(part.pattern):
        return {}
    if not part.is_relative:
        end = size if part.end is None else min(part.end, size)
        start = max(part.start, size - length) if part.is_at_end else part.start
        return _joined(
            part, states, searched, _places(text, part.pattern, start, end, budget), carries
        )
    distance = part.distance or 0
    first = min(ends[0] for ends in states.values())
    last = max(ends[-1] for ends in states.values())
    start = max(0, first + distance)
    if part.is_at_end:
        start = max(start, size - length)
    end = size if part.within is None else min(size, last + distance + part.within)
    new: dict[int, Ends] = {}
    for place in _places(text, part.pattern, start, end, budget):
        touched = searched.pieces_touched(place, place + length)
        for mask, ends in states.items():
            if not _is_reached(ends, place, length, distance, part.within):
                continue
            if not searched.borders and not carries:
                return {0: [place + length]}
            _note_end(new, mask | touched, place + length)
    return new


def _is_reached(ends: Ends, place: int, length: int, distance: int, within: int | None) -> bool:
    """Tell whether a match at `place` is right for one of the ends before it.

    A distance that leads before the payload leads to its begin.
    """
    if within is None:
        return max(0, ends[0] + distance) <= place
    number = bisect.bisect_left(ends, place + length - distance - within)
    return number < len(ends) and max(0, ends[number] + distance) <= place


def _joined(
    part: Content, states: _States, searched: Searched, places: Iterator[int], carries: bool
) -> _States:
    """Return the states after a content that does not depend on the match before it."""
    length = len(part.pattern)
    new: dict[int, Ends] = {}
    for place in places:
        if not searched.borders and not carries:
            return {0: [place + length]}
        touched = searched.pieces_touched(place, place + length)
        for mask in states:
            _note_end(new, mask | touched, place + length)
    return new


def _note_end(states: _States, mask: int, end: int) -> None:
    ends = states.setdefault(mask, [])
    if not ends or ends[-1] != end:
        ends.append(end)


def _absent(part: Content, states: _States, searched: Searched, budget: Budget) -> _States:
    size = len(searched.view)
    text = searched.lower(budget) if part.is_nocase else searched.plain(budget)
    if not part.is_relative:
        end = size if part.end is None else min(part.end, size)
        return {} if _is_there(part, text, part.start, end, budget) else states
    distance = part.distance or 0
    kept: _States = {}
    for mask, ends in states.items():
        if part.within is None:
            # What is not there behind one end is not there behind a later one either.
            number = _first_without(part, text, ends, distance, size, budget)
            if number < len(ends):
                kept[mask] = ends[number:]
            continue
        left = []
        for end in ends:
            stop = min(size, end + distance + part.within)
            if not _is_there(part, text, max(0, end + distance), stop, budget):
                left.append(end)
        if left:
            kept[mask] = left
    return kept


def _first_without(
    part: Content, text: bytes, ends: Ends, distance: int, size: int, budget: Budget
) -> int:
    """Return the first of `ends` behind which the content is nowhere."""
    budget.spend(size + SEARCH_COST_BYTES)
    last = text.rfind(part.pattern)
    if part.is_at_end and not text.endswith(part.pattern):
        last = -1
    for number, end in enumerate(ends):
        if max(0, end + distance) > last:
            return number
    return len(ends)


def _is_there(part: Content, text: bytes, start: int, end: int, budget: Budget) -> bool:
    if part.is_at_end:
        begin = len(text) - len(part.pattern)
        return start <= begin and end == len(text) and text.endswith(part.pattern)
    return next(_places(text, part.pattern, start, end, budget), None) is not None


def _data_at(part: DataAt, states: _States, size: int) -> _States:
    if not part.is_relative:
        return states if (part.count < size) != part.is_negated else {}
    kept = {
        mask: [end for end in ends if (end + part.count <= size) != part.is_negated]
        for mask, ends in states.items()
    }
    return {mask: ends for mask, ends in kept.items() if ends}


def _by_number(
    part: ByteTest | ByteJump, states: _States, searched: Searched, budget: Budget
) -> _States:
    text = searched.plain(budget)
    found: dict[int, set[int]] = {}
    for mask, ends in states.items():
        budget.spend(len(ends) * PLACE_COST_BYTES)
        for end in ends:
            new = jump(part, text, end) if isinstance(part, ByteJump) else end
            if new is None or (isinstance(part, ByteTest) and not is_true(part, text, end)):
                continue
            start = place_of(part.number, end)
            touched = searched.pieces_touched(start, start + part.number.count)
            found.setdefault(mask | touched, set()).add(new)
    return {mask: sorted(ends) for mask, ends in found.items()}


def _expression(
    part: Pcre, finder: Finder, states: _States, searched: Searched, budget: Budget
) -> _States:
    if part.is_relative:
        kept: _States = {}
        for mask, ends in states.items():
            good = [
                end
                for end in ends
                if _is_found(finder, searched.view[end:], budget) != part.is_negated
            ]
            if good:
                kept[mask] = good
        return kept
    if _is_found(finder, searched.view, budget) == part.is_negated:
        return {}
    if part.is_negated or not searched.borders:
        return states
    # Where the match lies is not known: in each piece in which it is found, or else in several.
    alone = [
        1 << number
        for number, piece in enumerate(searched.pieces())
        if _is_found(finder, piece, budget)
    ]
    new: _States = {}
    for mask, ends in states.items():
        for touched in alone or [(1 << len(searched.borders) + 1) - 1]:
            new[mask | touched] = sorted({*new.get(mask | touched, ()), *ends})
    return new


def _is_found(finder: Finder, view: memoryview, budget: Budget) -> bool:
    budget.spend(2 * len(view) + 2 * SEARCH_COST_BYTES)
    return finder.is_in(view)


def _places(text: bytes, pattern: bytes, start: int, end: int, budget: Budget) -> Iterator[int]:
    """Yield where `pattern` begins within `text[start:end]`, ascending."""
    budget.spend(SEARCH_COST_BYTES)
    while 0 <= start <= end:
        place = text.find(pattern, start, end)
        budget.spend((place if place >= 0 else end) - start + PLACE_COST_BYTES)
        if place < 0:
            return
        yield place
        start = place + 1
