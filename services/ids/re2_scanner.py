"""Scanning for contents by RE2, where Hyperscan has no wheel: the same answers, more slowly.

RE2 gives up in silence when its set has no memory left; an expression that is always found tells
that, and then all of them count as candidates.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import re2

from packetcloud.services.ids.errors import EngineError
from packetcloud.services.ids.scanner import Sought

MAX_SET_BYTES = 256 << 20
_ANYTHING = b"[\\x00-\\xff]"


class RE2Scanner:
    """A set of contents.

    Raises:
        EngineError: RE2 refuses them, or one is an expression.
    """

    engine = "re2"
    is_exact = False
    size_bytes = 0

    def __init__(self, sought: Sequence[Sought]) -> None:
        if not all(one.pattern for one in sought):
            raise EngineError("pcre needs Hyperscan, which has no wheel for this machine")
        self._count = len(sought)
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.max_mem = MAX_SET_BYTES
        options.never_capture = True
        options.log_errors = False
        self._set: Any = re2.Set.SearchSet(options)
        try:
            for expression in (*(one.expression for one in sought), _ANYTHING):
                self._set.Add(expression)
            self._set.Compile()
        except re2.error as error:
            raise EngineError(f"RE2 cannot take them together: {error}") from None

    def found(self, payload: memoryview | bytes) -> Set[int]:
        """Return the ids of those that are there, wherever."""
        if not payload:
            return frozenset()
        numbers = set(self._set.Match(payload) or ())
        if self._count not in numbers:
            return frozenset(range(self._count))
        numbers.remove(self._count)
        return numbers
