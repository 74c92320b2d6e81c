"""The hot path stays cheap: a guard against work per chunk that nobody wanted."""

from __future__ import annotations

from tests.unit.router.core_benchmark import core_us_per_chunk

BUDGET_US = 10.0
SLACK = 3.0
"""The budget holds on the reference machine with half of it to spare. A loaded or slower machine
must not fail this; work that grows with what is held, or a parser run per field, should."""


def test_small_plain_chunk_keeps_to_its_budget() -> None:
    """1 KiB from host to host costs the core at most 10 microseconds, give or take the machine."""
    best = min(core_us_per_chunk(count=6_400) for _ in range(5))
    assert best < BUDGET_US * SLACK
