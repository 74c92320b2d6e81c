"""Payload patterns: which may be installed, and the scanner that finds them all in one pass.

A pattern is found if some match of it lies wholly within its range of the payload, whatever other
matches there are. `^` and `$` are the two ends of the payload; where a range moves an end nothing
can be anchored to it. Two engines give the same answers: Hyperscan, and RE2 where Hyperscan has no
wheel; what RE2 refuses is refused under both.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.router.errors import PatternError
from packetcloud.router.rules import re2_scanner
from packetcloud.router.rules.expression import WORD_BYTES, Expression
from packetcloud.router.rules.expression_reader import literal, parse
from packetcloud.router.rules.re2_scanner import RE2Scanner
from packetcloud.router.rules.rule import MAX_SIZE_BYTES, Pattern
from packetcloud.router.rules.scan_cost import MAX_EXPRESSION_NS, expression_ns, text_of

HAS_HYPERSCAN = importlib.util.find_spec("hyperscan") is not None
"""Whether there is a wheel of it for this machine."""
if HAS_HYPERSCAN:
    from packetcloud.router.rules import hyperscan_scanner
    from packetcloud.router.rules.hyperscan_scanner import HyperscanScanner

MAX_PATTERNS_COUNT = 10_000
"""In one version of the rules: measured at 15 Gbit/s of one core."""
MAX_STARTS_COUNT = 8
"""Different starts of ranges of expressions of no fixed length: each may cost one more scan."""
MAX_WORDLESS_COUNT = 32
"""Patterns without two fixed bytes next to each other: a scan cannot skip to where they may be, so
each costs time of its own with every payload."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one pattern takes of the scanner."""

    text: bytes | None
    """It is this text, in lower case, and costs what `scan_cost.texts_ns` says of all."""
    expression_ns: int
    """It is an expression that may cost so much for a byte of payload by itself."""
    is_wordless: bool
    late_start: int
    """Begin of its range if that takes a scan of its own; 0: it does not."""


def check_pattern(pattern: Pattern) -> str | None:
    """Say why a pattern may not be installed; None: it may. Cost: about a millisecond."""
    try:
        expression = _expression_of(pattern)
        _check_range(pattern, expression)
        _check_cost(expression)
        re2_scanner.check_compiles(expression)
        if HAS_HYPERSCAN:
            hyperscan_scanner.check_compiles(expression)
    except PatternError as error:
        return str(error)
    return None


def compile_scanner(
    patterns: Sequence[Pattern | None], *, use_hyperscan: bool = HAS_HYPERSCAN
) -> HyperscanScanner | RE2Scanner:
    """Return the scanner of all patterns of a version; ids are their places in `patterns`.

    In a place with None there is none to be found. Its `to_bytes` is for `load_scanner` in another
    process. Cost: seconds for thousands.

    Raises:
        PatternError: a pattern that `check_pattern` refuses, or too many of them.
    """
    if not 0 < len(patterns) <= MAX_PATTERNS_COUNT:
        raise PatternError(f"{len(patterns)} patterns; allowed: 1 to {MAX_PATTERNS_COUNT}")
    numbered = [
        (number, pattern, _expression_of(pattern))
        for number, pattern in enumerate(patterns)
        if pattern is not None
    ]
    for _, pattern, expression in numbered:
        _check_range(pattern, expression)
    demands = [demand_of(pattern) for _, pattern, _ in numbered]
    starts = {one.late_start for one in demands} - {0}
    wordless_count = sum(one.is_wordless for one in demands)
    if len(starts) > MAX_STARTS_COUNT:
        raise PatternError(
            f"{len(starts)} different starts of expressions of no fixed length; "
            f"allowed: {MAX_STARTS_COUNT} in all rules"
        )
    if wordless_count > MAX_WORDLESS_COUNT:
        raise PatternError(
            f"{wordless_count} patterns without {WORD_BYTES} fixed bytes next to each other; "
            f"allowed: {MAX_WORDLESS_COUNT} in all rules"
        )
    if use_hyperscan and not HAS_HYPERSCAN:
        raise LocalMisuseError("Hyperscan is not installed: on this machine RE2 looks for patterns")
    if use_hyperscan:
        return HyperscanScanner.compile(numbered)
    return RE2Scanner.compile(len(patterns), numbered)


def load_scanner(data: bytes) -> HyperscanScanner | RE2Scanner:
    """Return the scanner that `to_bytes` gave, compiled by this machine.

    Raises:
        PatternError: another engine or version compiled it, or it is damaged.
    """
    if HAS_HYPERSCAN and data.startswith(hyperscan_scanner.ENGINE):
        return HyperscanScanner.from_bytes(data)
    return RE2Scanner.from_bytes(data)


@lru_cache(maxsize=2 * MAX_PATTERNS_COUNT)
def demand_of(pattern: Pattern) -> Demand:
    """Return what a pattern takes of the scanner. Cost: O(its bytes, repeats written out)."""
    expression = _expression_of(pattern)
    text = text_of(expression)
    shortest, longest = expression.widths
    late_start = pattern.start if shortest != longest else 0
    cost_ns = expression_ns(expression) * (2 if late_start else 1)
    return Demand(
        text, cost_ns if text is None else 0, expression.word_bytes < WORD_BYTES, late_start
    )


def finds(pattern: Pattern, payload: bytes) -> bool:
    """Tell whether a pattern is found in a payload: what `judge` asks. By RE2, one at a time.

    Raises:
        PatternError: `check_pattern` refuses it.
    """
    return re2_scanner.is_there(
        _engine_form(pattern), memoryview(payload)[pattern.start : pattern.end]
    )


@lru_cache(maxsize=4096)
def _engine_form(pattern: Pattern) -> bytes:
    expression = _expression_of(pattern)
    _check_range(pattern, expression)
    return expression.to_engine()


def _expression_of(pattern: Pattern) -> Expression:
    read = parse if pattern.is_regex else literal
    return read(pattern.expression, ignore_case=pattern.ignore_case)


def _check_cost(expression: Expression) -> None:
    cost_ns = 0 if text_of(expression) is not None else expression_ns(expression)
    if cost_ns > MAX_EXPRESSION_NS:
        raise PatternError(
            f"a scan for it may take {cost_ns} ns for each byte of payload; allowed: "
            f"{MAX_EXPRESSION_NS}; write more fixed text, and fewer repeats of what is more than "
            "one set of bytes"
        )


def _check_range(pattern: Pattern, expression: Expression) -> None:
    start, end = pattern.start, pattern.end
    if not 0 <= start <= MAX_SIZE_BYTES:
        raise PatternError(f"start = {start}; allowed: 0 to {MAX_SIZE_BYTES}")
    if end is None:
        end = MAX_SIZE_BYTES
    elif not 0 < end <= MAX_SIZE_BYTES:
        raise PatternError(f"end = {end}; allowed: 1 to {MAX_SIZE_BYTES}")
    shortest, _ = expression.widths
    if end - start < shortest:
        raise PatternError(
            f"{shortest} bytes at least cannot lie from {start} to before {end}; widen the range"
        )
    if start and any(branch.from_begin for branch in expression.branches):
        raise PatternError("^ is the begin of the payload; allowed with it: start = 0")
    if pattern.end is not None and any(branch.to_end for branch in expression.branches):
        raise PatternError("$ is the end of the payload; allowed with it: no end")
