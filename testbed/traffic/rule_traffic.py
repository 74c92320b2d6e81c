"""Which rules traffic meets: evenly over all of them, or by Zipf's law. Made from a seed."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

NAME_BYTES = 20
SEED = 4

Names = NDArray[np.uint8]
"""Shape (count, 20)."""
Picks = NDArray[np.int64]


class Spread(StrEnum):
    """How traffic is spread over rules."""

    EVEN = "even"
    """Every rule as often as every other: a cache of recent decisions is of no use."""
    ZIPF = "zipf"
    """The n-th most frequent 1/n as often as the first: it is."""


def make_names(count: int) -> Names:
    """Return `count` random names; fewer of them are the first of more."""
    return np.random.default_rng(SEED).integers(0, 256, (count, NAME_BYTES), dtype=np.uint8)


class RuleTraffic:
    """Draws rules out of `count`, forever; two with the same arguments draw the same."""

    def __init__(self, count: int, spread: Spread) -> None:
        self._count = count
        self._generator = np.random.default_rng((SEED, count))
        self._shares: NDArray[np.float64] | None = None
        if spread is Spread.ZIPF:
            shares = np.cumsum(1.0 / np.arange(1, count + 1))
            self._shares = shares / shares[-1]
            # Neighbours in rank are not neighbours in memory.
            self._places = self._generator.permutation(count)

    def draw(self, count: int) -> Picks:
        """Return the numbers of the next `count` rules to meet."""
        if self._shares is None:
            return self._generator.integers(0, self._count, count)
        ranks = np.searchsorted(self._shares, self._generator.random(count))
        return self._places[ranks]
