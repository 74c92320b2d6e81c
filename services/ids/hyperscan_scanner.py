"""Scanning by Hyperscan. Its scans and its compiler run without the interpreter's lock.

Contents are looked for in two steps. The first looks for their rarest bytes (`windows`) and
compares what stands around each place that is found. A payload in which these are everywhere ends
it; then a second database of whole contents, each reported once, costs the same whatever the
payload. Short contents are whole in both.

Expressions of rules without a content have databases of a few each: to make many of them into one
takes Hyperscan time that grows with their square.

Source: Hyperscan Developer's Reference, "Compiling Patterns", extended parameters.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import hyperscan

from packetcloud.services.ids.errors import EngineError
from packetcloud.services.ids.scanner import Sought, written
from packetcloud.services.ids.windows import WINDOW_BYTES, choose_window

MAX_COMPILED_BYTES = 1 << 20
"""Of one expression by itself."""
TOGETHER_COUNT = 8
"""Expressions in one database."""
MAX_HITS_COUNT = 256
HIT_EVERY_BYTES = 4096
"""Places that the first step compares: so many, and one more for so many bytes. With more it costs
what the second step does."""

_ONCE = hyperscan.HS_FLAG_SINGLEMATCH
_Pattern = tuple[int, bytes, int, int, int | None]
"""Id, expression, flags, where a match may end at the earliest and at the latest."""


@dataclass(frozen=True, slots=True)
class _Around:
    """What stands around the window of a content."""

    sought: Sought
    window_end: int

    def is_at(self, payload: memoryview | bytes, place: int) -> bool:
        """Tell whether the content is there, its window ending at `place`."""
        sought = self.sought
        start = place - self.window_end
        end = start + len(sought.pattern)
        if start < sought.start or (sought.end is not None and end > sought.end):
            return False
        if sought.is_at_end and end != len(payload):
            return False
        found = bytes(payload[start:end])
        return (found.lower() if sought.is_nocase else found) == sought.pattern


class HyperscanScanner:
    """Databases that are scanned one after the other.

    Args:
        has_first_step: without it there is only the second one.

    Raises:
        EngineError: Hyperscan refuses them.
    """

    engine = "hyperscan"
    is_exact = True

    def __init__(self, sought: Sequence[Sought], has_first_step: bool = True) -> None:
        self._around: dict[int, _Around] = {}
        quick: list[_Pattern] = []
        whole: list[_Pattern] = []
        others: list[_Pattern] = []
        for number, one in enumerate(sought):
            if not one.pattern:
                others.append((number, one.expression, _ONCE, 0, None))
                continue
            pattern = (number, one.expression, _ONCE, one.earliest, one.end)
            whole.append(pattern)
            if len(one.pattern) <= WINDOW_BYTES:
                quick.append(pattern)
                continue
            start, end = choose_window(one.pattern)
            if not one.is_hint:
                self._around[number] = _Around(one, end)
            flags = _ONCE if one.is_hint else 0
            window = written(one.pattern[start:end], one.is_nocase)
            quick.append((number, window, flags, 0, None))
        self._quick = _compile(quick) if quick and self._around and has_first_step else None
        self._whole = _compile(whole) if whole else None
        self._others = tuple(
            _compile(others[first : first + TOGETHER_COUNT])
            for first in range(0, len(others), TOGETHER_COUNT)
        )
        databases = (self._quick, self._whole, *self._others)
        self.size_bytes = sum(database.size() for database in databases if database is not None)

    def found(self, payload: memoryview | bytes) -> Set[int]:
        """Return the ids of those that are there."""
        found = self._contents(payload)
        if self._others:
            numbers: list[int] = []
            for database in self._others:
                database.scan(payload, match_event_handler=_note, context=numbers)
            found = found | set(numbers)
        return found

    def _contents(self, payload: memoryview | bytes) -> Set[int]:
        if self._quick is not None:
            hits = _Hits(MAX_HITS_COUNT + len(payload) // HIT_EVERY_BYTES)
            try:
                self._quick.scan(payload, match_event_handler=_hit, context=hits)
                return self._compared(payload, hits) if hits.places else frozenset()
            except hyperscan.ScanTerminated:
                pass
        numbers: list[int] = []
        if self._whole is not None:
            self._whole.scan(payload, match_event_handler=_note, context=numbers)
        return frozenset(numbers)

    def _compared(self, payload: memoryview | bytes, hits: _Hits) -> Set[int]:
        found: set[int] = set()
        for number, place in hits.places:
            around = self._around.get(number)
            if number not in found and (around is None or around.is_at(payload, place)):
                found.add(number)
        return found


class HyperscanFinder:
    """One expression.

    Raises:
        EngineError: Hyperscan refuses it, or makes too much of it.
    """

    def __init__(self, expression: bytes) -> None:
        self._database = _compile([(0, expression, _ONCE, 0, None)])
        size_bytes = self._database.size()
        if size_bytes > MAX_COMPILED_BYTES:
            raise EngineError(f"{size_bytes} bytes compiled; allowed: {MAX_COMPILED_BYTES}")

    def is_in(self, payload: memoryview | bytes) -> bool:
        """Tell whether it is found."""
        found: list[int] = []
        self._database.scan(payload, match_event_handler=_note, context=found)
        return bool(found)


class _Hits:
    """Places that the first step found."""

    __slots__ = ("limit", "places")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.places: list[tuple[int, int]] = []


def _compile(patterns: Sequence[_Pattern]) -> Any:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    try:
        database.compile(
            expressions=[expression for _, expression, _, _, _ in patterns],
            ids=[number for number, _, _, _, _ in patterns],
            elements=len(patterns),
            flags=[flags for _, _, flags, _, _ in patterns],
            ext=[_bounds(earliest, latest) for _, _, _, earliest, latest in patterns],
        )
    except hyperscan.error as error:
        raise EngineError(f"Hyperscan cannot take it: {str(error).rstrip('.')}") from None
    return database


def _bounds(earliest: int, latest: int | None) -> tuple[int, int, int, int, int, int]:
    """Return flags, min_offset, max_offset, min_length, edit_distance, hamming_distance."""
    flags = hyperscan.HS_EXT_FLAG_MIN_OFFSET if earliest else 0
    if latest is not None:
        flags |= hyperscan.HS_EXT_FLAG_MAX_OFFSET
    return flags, earliest, latest or 0, 0, 0, 0


def _note(number: int, begin: int, end: int, flags: int, found: list[int]) -> None:
    found.append(number)


def _hit(number: int, begin: int, end: int, flags: int, hits: _Hits) -> bool:
    """Note a place; tell whether there are too many to go on."""
    hits.places.append((number, end))
    return len(hits.places) > hits.limit
