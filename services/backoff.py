"""Delays that grow from one failure to the next, with jitter so that many do not move in step."""

from __future__ import annotations

from dataclasses import dataclass

GROWTH = 2.0
JITTER = 0.2
"""A delay is varied by up to a fifth either way."""


@dataclass(slots=True)
class Backoff:
    """Delays from `first_s`, doubling, up to `longest_s`."""

    first_s: float
    longest_s: float
    failures: int = 0

    def next_delay_s(self, random: float) -> float:
        """Count a failure and return how long to wait; `random` is uniform in 0..1."""
        # 2 ** 64 times any first delay is over every longest one: no overflow after years.
        delay = min(self.longest_s, self.first_s * GROWTH ** min(self.failures, 64))
        self.failures += 1
        return delay * (1 - JITTER + 2 * JITTER * random)

    def reset(self) -> None:
        """It worked for long enough: begin again with the first delay."""
        self.failures = 0
