"""What a pattern may cost a scan: counted on the expression, never timed, so the same everywhere.

A clock would let a pattern in at one router and refuse it at the next, and no clock sees the worst
payload. So what is dear is counted: the places where a scan must stop, and the positions that are
in work from there on. The prices lie above what scans by Hyperscan took for random expressions over
hostile payloads (`tests/unit/router/rules/scan_cost_benchmark.py`, 3 GHz); ordinary payloads cost a
hundredth of them.

Source: docs/arbitration.md, "What patterns may cost".
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from packetcloud.router.rules.expression import (
    Either,
    Expression,
    Node,
    OneOf,
    Repeat,
    Sequence,
    positions_count,
    times,
)

MAX_EXPRESSION_NS = 100
"""For a byte of the payload: 10 ms for 100 KB."""
STOP_NS = 50
"""For each place where an expression may begin."""
STOP_WORD_BYTES = 4
"""So much fixed text next to each other is a place; without it each byte is one."""
POSITION_NS = 3
"""For each position that may be in work beside those of fixed texts."""
COUNTED_BYTES = 64
"""A set that is counted, as in [a-z]{9,64}, is one position more for each so many."""
TEXT_NS = 40
"""For each place where a text stands, whether it is in its range or not."""
TEXT_END_BYTES = 8
"""Texts that end alike in so many bytes are told from each other one by one."""


def text_of(expression: Expression) -> bytes | None:
    """Return the text that an expression consists of, in lower case; None: it is more than that."""
    if len(expression.branches) > 1 or expression.is_anchored:
        return None
    return _fixed(expression.branches[0].node)


def expression_ns(expression: Expression) -> int:
    """Return what one expression may cost, in nanoseconds for a byte of the payload."""
    loose_count = sum(_loose(branch.node) for branch in expression.branches)
    has_one_place = all(branch.from_begin for branch in expression.branches)
    stops_ns = 0.0 if has_one_place else STOP_NS / _step(expression)
    return math.ceil(stops_ns + POSITION_NS * loose_count)


def texts_ns(texts: Iterable[bytes]) -> int:
    """Return what fixed texts may cost together, in nanoseconds for a byte of the payload.

    Of texts that end differently only one can end at a byte, so what counts is how many end alike:
    `exe`, `.exe` and `cmd.exe` may all be there at once. Cost: O(n log n) of their number.
    """
    most, alike = 0, list[bytes]()
    for end in sorted(text[: -TEXT_END_BYTES - 1 : -1] for text in texts):
        while alike and not end.startswith(alike[-1]):
            alike.pop()
        alike.append(end)
        most = max(most, len(alike))
    return TEXT_NS * most


def _loose(node: Node) -> int:
    """Return how many positions may be in work beside those of fixed texts."""
    if _fixed(node) is not None:
        return 0
    match node:
        case OneOf():
            return 1
        case Repeat(OneOf(), least, most):
            return 1 + times(least, most) // COUNTED_BYTES
        case Repeat():
            return positions_count(node)
        case Sequence(parts) | Either(parts):
            return sum(map(_loose, parts))


def _step(expression: Expression) -> int:
    """Return how many bytes lie at least between two places where a scan must stop."""
    if expression.word_bytes < STOP_WORD_BYTES:
        return 1
    words = [word for branch in expression.branches for word in _words(branch.node)]
    return min(map(_period, words), default=1)


def _words(node: Node) -> list[bytes]:
    """Return the fixed texts that are long enough and stand in every match of a node."""
    found = [b""]
    for part in node.parts if isinstance(node, Sequence) else (node,):
        text = _fixed(part)
        if text is None:
            found.append(b"")
        else:
            found[-1] += text
    return [word for word in found if len(word) >= STOP_WORD_BYTES]


def _fixed(node: Node) -> bytes | None:
    """Return the text that a node is, in lower case, if it is one."""
    match node:
        case OneOf(members):
            in_lower_case = {byte | 0x20 for byte in members}
            return bytes(in_lower_case) if len(in_lower_case) == 1 else None
        case Sequence(parts):
            texts = [_fixed(part) for part in parts]
            return None if None in texts else b"".join(text for text in texts if text is not None)
        case Repeat(part, least, most):
            text = _fixed(part) if least == most else None
            return None if text is None else text * least
        case Either():
            return None


def _period(word: bytes) -> int:
    """Return the least distance at which a word may lie over itself."""
    return next(step for step in range(1, len(word) + 1) if word.startswith(word[step:]))
