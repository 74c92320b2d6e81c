"""All patterns of one version of the rules by RE2, where Hyperscan has no wheel.

The same meaning, at a small part of the pace: one set of all expressions tells which may be there,
and those with a range are asked about one by one. RE2 gives up in silence when its set has no
memory left; an expression that is always found tells that, and then each is asked by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from functools import lru_cache
from typing import Any, Self

import re2

from packetcloud.router.errors import PatternError
from packetcloud.router.rules.expression import Expression
from packetcloud.router.rules.rule import Pattern

ENGINE = b"re2"
MAX_SET_BYTES = 256 << 20

_ANYTHING = b"[\\x00-\\xff]"
_NOTHING = b"[^\\x00-\\xff]"
_Range = tuple[int, int | None]
_EVERYWHERE: _Range = (0, None)


class RE2Scanner:
    """A set of expressions; their ids are their places in the sequence.

    Args:
        expressions: as engines take them.
        ranges: of each, where matches may lie.
    """

    def __init__(self, expressions: Sequence[bytes], ranges: Sequence[_Range]) -> None:
        self._expressions = tuple(expressions)
        self._ranges = tuple(ranges)
        self._set = re2.Set.SearchSet(_options(MAX_SET_BYTES))
        try:
            for expression in (*self._expressions, _ANYTHING):
                self._set.Add(expression)
            self._set.Compile()
        except re2.error as error:
            raise PatternError(f"RE2 cannot take them together: {error}") from None

    @classmethod
    def compile(cls, count: int, patterns: Sequence[tuple[int, Pattern, Expression]]) -> Self:
        """Compile.

        Args:
            count: more than the largest id.
            patterns: each with its id before it.

        Raises:
            PatternError: RE2 refuses them together.
        """
        expressions, ranges = [_NOTHING] * count, [_EVERYWHERE] * count
        for number, pattern, expression in patterns:
            expressions[number] = expression.to_engine()
            ranges[number] = pattern.start, pattern.end
        return cls(expressions, ranges)

    def found(self, payload: memoryview) -> Set[int]:
        """Return the ids of the patterns that were found."""
        if not payload:
            return frozenset()
        last = len(self._expressions)
        numbers = self._set.Match(payload) or ()
        if last not in numbers:
            numbers = range(last)
        elif len(numbers) == 1:
            return frozenset()
        return {
            number
            for number in numbers
            if number != last
            and (self._is_sure(number, numbers) or self._is_there(number, payload))
        }

    def _is_sure(self, number: int, numbers: object) -> bool:
        return not isinstance(numbers, range) and self._ranges[number] == _EVERYWHERE

    def _is_there(self, number: int, payload: memoryview) -> bool:
        start, end = self._ranges[number]
        return is_there(self._expressions[number], payload[start:end])

    def to_bytes(self) -> bytes:
        """Return what `from_bytes` makes the scanner of."""
        contents = [
            [expression.decode("ascii"), start, end]
            for expression, (start, end) in zip(self._expressions, self._ranges, strict=True)
        ]
        return ENGINE + b"\n" + json.dumps(contents).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Compile what `to_bytes` gave: RE2 keeps nothing compiled.

        Raises:
            PatternError: of another engine, or damaged.
        """
        try:
            engine, contents = data.split(b"\n", 1)
            if engine != ENGINE:
                raise ValueError(f"compiled by {engine!r}")
            patterns = json.loads(contents)
            expressions = [expression.encode("ascii") for expression, _, _ in patterns]
            return cls(expressions, [(start, end) for _, start, end in patterns])
        except (ValueError, TypeError, AttributeError) as error:
            raise PatternError(f"not a scanner of RE2: {error}; compile again") from None


def is_there(expression: bytes, payload: bytes | memoryview) -> bool:
    """Tell whether a match lies in the payload, asking RE2 about this expression alone."""
    return _compiled(expression).search(payload) is not None


def check_compiles(expression: Expression) -> None:
    """Compile one expression by itself, to see that RE2 takes it.

    Raises:
        PatternError: it does not.
    """
    try:
        _compiled(expression.to_engine())
    except re2.error as error:
        raise PatternError(f"RE2 cannot take it: {error}") from None


@lru_cache(maxsize=4096)
def _compiled(expression: bytes) -> Any:
    return re2.compile(expression, _options(8 << 20))


def _options(max_bytes: int) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = max_bytes
    options.never_capture = True
    options.log_errors = False
    return options
