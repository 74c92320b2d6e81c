"""Scanning by Hyperscan. Its scans and its compiler run without the interpreter's lock.

Each expression is reported once in a scan, so that a payload full of it costs no more. All contents
are one database. Expressions of rules without a content have databases of a few each: to make many
of them into one takes Hyperscan time that grows with their square.

Source: Hyperscan Developer's Reference, "Compiling Patterns", extended parameters.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import hyperscan

from packetcloud.services.ids.errors import EngineError
from packetcloud.services.ids.scanner import Sought

MAX_COMPILED_BYTES = 1 << 20
"""Of one expression by itself."""
TOGETHER_COUNT = 8
"""Expressions in one database."""
_FLAGS = hyperscan.HS_FLAG_SINGLEMATCH
_NOTHING: frozenset[int] = frozenset()


class HyperscanScanner:
    """Databases that are scanned one after the other.

    Raises:
        EngineError: Hyperscan refuses them.
    """

    engine = "hyperscan"
    is_exact = True

    def __init__(self, sought: Sequence[Sought]) -> None:
        plain = [number for number, one in enumerate(sought) if one.is_plain]
        others = [number for number, one in enumerate(sought) if not one.is_plain]
        groups = [plain] if plain else []
        for first in range(0, len(others), TOGETHER_COUNT):
            groups.append(others[first : first + TOGETHER_COUNT])
        self._databases = tuple(_compile([(n, sought[n]) for n in group]) for group in groups)
        self.size_bytes = sum(database.size() for database in self._databases)

    def found(self, payload: memoryview | bytes) -> Set[int]:
        """Return the ids of those that are there."""
        found: list[int] = []
        for database in self._databases:
            database.scan(payload, match_event_handler=_note, context=found)
        return frozenset(found) if found else _NOTHING


class HyperscanFinder:
    """One expression.

    Raises:
        EngineError: Hyperscan refuses it, or makes too much of it.
    """

    def __init__(self, expression: bytes) -> None:
        self._database = _compile([(0, Sought(expression))])
        size_bytes = self._database.size()
        if size_bytes > MAX_COMPILED_BYTES:
            raise EngineError(f"{size_bytes} bytes compiled; allowed: {MAX_COMPILED_BYTES}")

    def is_in(self, payload: memoryview | bytes) -> bool:
        """Tell whether it is found."""
        found: list[int] = []
        self._database.scan(payload, match_event_handler=_note, context=found)
        return bool(found)


def _compile(numbered: Sequence[tuple[int, Sought]]) -> Any:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    try:
        database.compile(
            expressions=[one.expression for _, one in numbered],
            ids=[number for number, _ in numbered],
            elements=len(numbered),
            flags=[_FLAGS] * len(numbered),
            ext=[_bounds(one) for _, one in numbered],
        )
    except hyperscan.error as error:
        raise EngineError(f"Hyperscan cannot take it: {str(error).rstrip('.')}") from None
    return database


def _bounds(sought: Sought) -> tuple[int, int, int, int, int, int]:
    """Return flags, min_offset, max_offset, min_length, edit_distance, hamming_distance."""
    flags = hyperscan.HS_EXT_FLAG_MIN_OFFSET if sought.earliest else 0
    if sought.latest is not None:
        flags |= hyperscan.HS_EXT_FLAG_MAX_OFFSET
    return flags, sought.earliest, sought.latest or 0, 0, 0, 0


def _note(number: int, begin: int, end: int, flags: int, found: list[int]) -> None:
    found.append(number)
