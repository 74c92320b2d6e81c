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
    """An expression, and where its matches may end."""

    expression: bytes
    earliest: int = 0
    latest: int | None = None
    is_plain: bool = True
    """Fixed bytes; many of these make one database."""


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


def content_sought(content: Content) -> Sought:
    """Return what to look for; of a content that is relative, anywhere."""
    expression = b"".join(b"\\x%02x" % byte for byte in content.pattern)
    if content.is_nocase:
        expression = b"(?i)" + expression
    if content.is_at_end:
        expression += b"\\z"
    earliest = content.start + len(content.pattern) if content.start else 0
    return Sought(expression, earliest, content.end)


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
