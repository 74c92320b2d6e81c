"""What finds many byte strings and expressions in one pass over a payload.

A scanner only tells which of them are there; where, is asked of the few candidates. Two engines:
Hyperscan, and RE2 where Hyperscan has no wheel; RE2 takes contents only, for it means other things
by some expressions than PCRE.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from packetcloud.services.ids.errors import EngineError
from packetcloud.services.ids.rule import Content, Pcre

HAS_HYPERSCAN = importlib.util.find_spec("hyperscan") is not None
HAS_RE2 = importlib.util.find_spec("re2") is not None


@dataclass(frozen=True, slots=True)
class Sought:
    """A content with its range, or an expression."""

    expression: bytes
    """As the engine takes it."""
    pattern: bytes = b""
    """The bytes of a content, in lower case if the case does not matter; empty: an expression."""
    is_nocase: bool = False
    start: int = 0
    end: int | None = None
    is_at_end: bool = False
    is_hint: bool = False
    """It is enough to know that it may be there."""

    @property
    def earliest(self) -> int:
        """Where a match may end at the earliest, if that is bounded."""
        return self.start + len(self.pattern) if self.start else 0


class Scanner(Protocol):
    """A compiled set of expressions; their ids are their places in the sequence."""

    engine: str
    is_exact: bool
    """What it finds is in its range; otherwise it may be elsewhere."""
    size_bytes: int
    """Of what was compiled; 0 where the engine does not say."""

    def found(self, payload: memoryview | bytes) -> Set[int]:
        """Return the ids of those that are there, and perhaps of more."""


class Finder(Protocol):
    """One compiled expression."""

    def is_in(self, payload: memoryview | bytes) -> bool:
        """Tell whether it is found."""


def content_sought(content: Content, *, is_hint: bool = False) -> Sought:
    """Return what to look for; of a content that is relative, anywhere."""
    expression = written(content.pattern, content.is_nocase)
    return Sought(
        expression + b"\\z" if content.is_at_end else expression,
        content.pattern,
        content.is_nocase,
        content.start,
        content.end,
        content.is_at_end,
        is_hint,
    )


def written(pattern: bytes, is_nocase: bool) -> bytes:
    """Return the expression that matches these bytes."""
    expression = b"".join(b"\\x%02x" % byte for byte in pattern)
    return b"(?i)" + expression if is_nocase else expression


def compile_scanner(sought: Sequence[Sought]) -> Scanner:
    """Compile; about a second for ten thousand contents.

    Raises:
        EngineError: they cannot be compiled, or this machine has no engine for them.
    """
    if HAS_HYPERSCAN:
        from packetcloud.services.ids.hyperscan_scanner import HyperscanScanner

        return HyperscanScanner(sought)
    if HAS_RE2:
        from packetcloud.services.ids.re2_scanner import RE2Scanner

        return RE2Scanner(sought)
    raise EngineError("neither hyperscan nor google-re2 is installed; rules need one of them")


def compile_finder(pcre: Pcre) -> Finder:
    """Compile one expression by itself.

    Raises:
        EngineError: the engine refuses it, or this machine has no Hyperscan.
    """
    if not HAS_HYPERSCAN:
        raise EngineError("pcre needs Hyperscan, which has no wheel for this machine")
    from packetcloud.services.ids.hyperscan_scanner import HyperscanFinder

    return HyperscanFinder(pcre.expression)
