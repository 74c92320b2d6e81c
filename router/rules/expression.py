"""Expressions over bytes: read, measured, and written out again the same for every engine.

Engines disagree about what an expression means (the end, white space, case beyond ASCII) and about
what they refuse. So they are given a form about which they agree: bytes, sets of bytes, groups,
alternatives and repeats. What this has no room for (back references, looking around) has no linear
time either.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

ALL_BYTES = frozenset(range(256))
WORD_BYTES = 2
"""So many fixed bytes next to each other let a scan skip to where an expression may be found."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """One byte out of some."""

    members: frozenset[int]


@dataclass(frozen=True, slots=True)
class Sequence:
    """Parts one after the other; none: nothing."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of the alternatives."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part from `least` to `most` times; infinity: without end."""

    part: Node
    least: int
    most: float


Node = OneOf | Sequence | Either | Repeat


@dataclass(frozen=True, slots=True)
class Branch:
    """One of the outermost alternatives."""

    node: Node
    from_begin: bool = False
    """It begins where the payload begins."""
    to_end: bool = False


@dataclass(frozen=True, slots=True)
class Expression:
    """What is looked for, of whatever engine."""

    branches: tuple[Branch, ...]

    @property
    def is_anchored(self) -> bool:
        return any(branch.from_begin or branch.to_end for branch in self.branches)

    @property
    def widths(self) -> tuple[int, float]:
        """The fewest and the most bytes of a match."""
        return _widths(Either(tuple(branch.node for branch in self.branches)))

    @property
    def positions_count(self) -> int:
        """Bytes and sets, all repeats written out."""
        return sum(positions_count(branch.node) for branch in self.branches)

    @property
    def word_bytes(self) -> int:
        """The most fixed bytes next to each other that stand in every match, in either case."""
        return min(_words(branch.node).longest for branch in self.branches)

    def to_engine(self) -> bytes:
        """Write it in the language that Hyperscan, RE2 and `re` have in common."""
        return b"|".join(
            (b"\\A" if branch.from_begin else b"")
            + _written(branch.node)
            + (b"\\z" if branch.to_end else b"")
            for branch in self.branches
        )


@dataclass(frozen=True, slots=True)
class _Words:
    """Fixed bytes at the begin, at the end, and the most anywhere, of every match of a node."""

    first: int = 0
    last: int = 0
    longest: int = 0
    is_whole: bool = False
    """Nothing but fixed bytes, always as many."""


def _words(node: Node) -> _Words:
    match node:
        case OneOf(members):
            is_fixed = len({byte | 0x20 for byte in members}) == 1
            return _Words(1, 1, 1, True) if is_fixed else _Words()
        case Sequence(parts):
            return functools.reduce(_next_to, map(_words, parts), _Words(is_whole=True))
        case Either(parts):
            return _Words(longest=min(_words(part).longest for part in parts))
        case Repeat(part, least, most):
            inner = _words(part)
            if not least or not inner.is_whole:
                return replace(inner, is_whole=False) if least else _Words()
            count = inner.longest * least
            return _Words(count, count, count, least == most)


def _next_to(one: _Words, other: _Words) -> _Words:
    return _Words(
        one.first + other.first if one.is_whole else one.first,
        one.last + other.last if other.is_whole else other.last,
        max(one.longest, other.longest, one.last + other.first),
        one.is_whole and other.is_whole,
    )


def repeats_count(node: Node) -> int:
    """Return how often the innermost part is written out at the most."""
    match node:
        case OneOf():
            return 1
        case Repeat(part, least, most):
            return repeats_count(part) * max(1, times(least, most))
        case Sequence(parts) | Either(parts):
            return max(map(repeats_count, parts), default=1)


def positions_count(node: Node) -> int:
    """Return the bytes and sets of a node, all repeats written out."""
    match node:
        case OneOf():
            return 1
        case Repeat(part, least, most):
            return positions_count(part) * times(least, most)
        case Sequence(parts) | Either(parts):
            return sum(map(positions_count, parts))


def times(least: int, most: float) -> int:
    """Return how often a part stands in its repeat when that is written out."""
    return max(least, 1) if most == math.inf else int(most)


def _widths(node: Node) -> tuple[int, float]:
    match node:
        case OneOf():
            return 1, 1
        case Repeat(part, least, most):
            low, high = _widths(part)
            return low * least, high * most if high and most else 0
        case Sequence(parts):
            found = [_widths(part) for part in parts]
            return sum(low for low, _ in found), sum(high for _, high in found)
        case Either(parts):
            found = [_widths(part) for part in parts]
            return min(low for low, _ in found), max(high for _, high in found)


def _written(node: Node) -> bytes:
    match node:
        case OneOf(members):
            return _written_set(members)
        case Repeat(part, least, most):
            bound = b"" if most == math.inf else b"%d" % most
            return b"(?:%b){%d,%b}" % (_written(part), least, bound)
        case Sequence(parts):
            return b"".join(map(_written, parts))
        case Either(parts):
            return b"(?:%b)" % b"|".join(map(_written, parts))


def _written_set(members: frozenset[int]) -> bytes:
    if len(members) == 1:
        return b"\\x%02x" % min(members)
    ranges: list[list[int]] = []
    for byte in sorted(members):
        if ranges and ranges[-1][1] == byte - 1:
            ranges[-1][1] = byte
        else:
            ranges.append([byte, byte])
    written = (
        b"\\x%02x" % low if low == high else b"\\x%02x-\\x%02x" % (low, high)
        for low, high in ranges
    )
    return b"[%b]" % b"".join(written)
