"""All patterns of one version of the rules in one scan, by Hyperscan.

Hyperscan bounds where a match ends, a pattern also where it begins. For a match of fixed length the
one gives the other. Expressions of no fixed length whose range has a start are found in two passes:
the one scan of everything tells which may be there, and a scan from that start on, once for all
patterns with the same start, which are.

Expressions without a word (two fixed bytes next to each other) are few and have small databases of
their own: to make many of them into one takes Hyperscan time that grows with their square.

Source: Hyperscan Developer's Reference, "Compiling Patterns", extended parameters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from typing import Any, Self

import hyperscan

from packetcloud.router.errors import PatternError
from packetcloud.router.rules.expression import WORD_BYTES, Expression
from packetcloud.router.rules.rule import Pattern

MAX_COMPILED_BYTES = 1 << 20
"""Of one pattern by itself."""
ENGINE = b"hyperscan"

WORDLESS_COUNT = 8
"""Expressions without a word in one database: a quarter of a second in the worst case that was
found, and no slower to scan for than alone."""

_FLAGS = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_DOTALL
_Ranged = tuple[int, Expression, int, int | None]
"""Id, expression, where a match may end at the earliest, and at the latest."""


class HyperscanScanner:
    """A compiled set of patterns, each with its id.

    Args:
        databases: find them all, those of `later` perhaps too early in the payload.
        later: start of a range -> the ids to look for from there on, and their own database.
    """

    def __init__(
        self, databases: Sequence[Any], later: dict[int, tuple[frozenset[int], Any]]
    ) -> None:
        self._databases = tuple(databases)
        self._later = later
        for database in (*databases, *(database for _, database in later.values())):
            database.scratch = hyperscan.Scratch(database)

    @classmethod
    def compile(cls, patterns: Sequence[tuple[int, Pattern, Expression]]) -> Self:
        """Compile; seconds for thousands.

        Args:
            patterns: each with its id before it.

        Raises:
            PatternError: Hyperscan refuses them together.
        """
        with_word: list[_Ranged] = []
        wordless: list[_Ranged] = []
        by_start: dict[int, list[_Ranged]] = {}
        for number, pattern, expression in patterns:
            start, end = pattern.start, pattern.end
            shortest, longest = expression.widths
            into = with_word if expression.word_bytes >= WORD_BYTES else wordless
            into.append((number, expression, start + shortest if start else 0, end))
            if start and shortest != longest:
                end = end - start if end is not None else None
                by_start.setdefault(start, []).append((number, expression, 0, end))
        later = {
            start: (frozenset(one[0] for one in ranged), _database(ranged))
            for start, ranged in by_start.items()
        }
        groups = [with_word] if with_word else []
        for first in range(0, len(wordless), WORDLESS_COUNT):
            groups.append(wordless[first : first + WORDLESS_COUNT])
        return cls([_database(group) for group in groups], later)

    def found(self, payload: memoryview) -> Set[int]:
        """Return the ids of the patterns that were found."""
        found: set[int] = set()
        for database in self._databases:
            database.scan(payload, match_event_handler=_note, context=found)
        if self._later and found:
            for start, (ids, database) in self._later.items():
                if not ids.isdisjoint(found):
                    found -= ids
                    database.scan(payload[start:], match_event_handler=_note, context=found)
        return found

    def to_bytes(self) -> bytes:
        """Return what `from_bytes` makes the scanner of: compiled once, loaded in milliseconds."""
        later = [database for _, database in self._later.values()]
        databases = [hyperscan.dumpb(database) for database in (*self._databases, *later)]
        contents = {
            "sizes": [len(one) for one in databases],
            "later": [[start, sorted(ids)] for start, (ids, _) in self._later.items()],
        }
        return b"\n".join((ENGINE, json.dumps(contents).encode(), b"".join(databases)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Load what `to_bytes` gave.

        Raises:
            PatternError: of another engine, another version of it, another machine, or damaged.
        """
        try:
            engine, contents_text, rest = data.split(b"\n", 2)
            if engine != ENGINE:
                raise ValueError(f"compiled by {engine!r}")
            contents = json.loads(contents_text)
            databases: list[Any] = []
            for size_bytes in contents["sizes"]:
                databases.append(hyperscan.loadb(rest[:size_bytes], hyperscan.HS_MODE_BLOCK))
                rest = rest[size_bytes:]
            later_count = len(contents["later"])
            later = {
                start: (frozenset(ids), database)
                for (start, ids), database in zip(
                    contents["later"], databases[len(databases) - later_count :], strict=True
                )
            }
            return cls(databases[: len(databases) - later_count], later)
        except (ValueError, KeyError, IndexError, TypeError, hyperscan.error) as error:
            raise PatternError(f"not a scanner of this Hyperscan: {error}; compile again") from None


def check_compiles(expression: Expression) -> None:
    """Compile one expression by itself, to see that Hyperscan takes it.

    Raises:
        PatternError: it does not, or makes too much of it.
    """
    size_bytes = _database([(0, expression, 0, None)]).size()
    if size_bytes > MAX_COMPILED_BYTES:
        raise PatternError(f"{size_bytes} bytes compiled; allowed: {MAX_COMPILED_BYTES}")


def _database(ranged: Sequence[_Ranged]) -> Any:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    try:
        database.compile(
            expressions=[expression.to_engine() for _, expression, _, _ in ranged],
            ids=[number for number, _, _, _ in ranged],
            elements=len(ranged),
            flags=[_FLAGS] * len(ranged),
            ext=[_bounds(earliest, latest) for _, _, earliest, latest in ranged],
        )
    except hyperscan.error as error:
        raise PatternError(f"Hyperscan cannot take it: {str(error).rstrip('.')}") from None
    return database


def _bounds(earliest: int, latest: int | None) -> tuple[int, int, int, int, int, int]:
    """Return flags, min_offset, max_offset, min_length, edit_distance, hamming_distance."""
    flags = hyperscan.HS_EXT_FLAG_MIN_OFFSET if earliest else 0
    if latest is not None:
        flags |= hyperscan.HS_EXT_FLAG_MAX_OFFSET
    return flags, earliest, latest or 0, 0, 0, 0


def _note(number: int, begin: int, end: int, flags: int, found: set[int]) -> None:
    found.add(number)
