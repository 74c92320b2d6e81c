"""Which packets a seeded chance picks: each by itself or in runs, and never too many in a row."""

from __future__ import annotations

import random


class Chance:
    """Picks a share of the packets.

    With a mean run of 1 each packet is picked by itself. Otherwise a chain of two states, one of
    which picks every packet (Gilbert 1960): it is left with probability 1/mean run, and entered so
    often that the share comes out right.

    Args:
        share: of packets picked, 0 to 1, as long as `longest_run` does not cut in.
        mean_run: packets picked in a row, on average.
        longest_run: after so many in a row one is let off; 0: no limit.
    """

    def __init__(
        self, share: float, source: random.Random, mean_run: float = 1.0, longest_run: int = 0
    ) -> None:
        self._share = share
        self._random = source.random
        self._longest_run = longest_run
        self._run = 0
        self._is_chain = mean_run > 1.0 and 0.0 < share < 1.0
        self._leave = 1.0 / mean_run
        self._enter = share * self._leave / (1.0 - share) if share < 1.0 else 1.0
        self._is_bad = False

    def picks(self) -> bool:
        """Decide about the next packet."""
        if self._share <= 0.0:
            return False
        if self._is_chain:
            draw = self._random()
            self._is_bad = draw >= self._leave if self._is_bad else draw < self._enter
            picked = self._is_bad
        else:
            picked = self._random() < self._share
        if not picked or self._run == self._longest_run > 0:
            self._run = 0
            return False
        self._run += 1
        return True
