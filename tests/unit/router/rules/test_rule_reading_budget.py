"""A million rules are read in seconds: a guard against work for each that nobody wanted."""

from __future__ import annotations

from tests.unit.router.rules.reading_benchmark import numbered_lines, read, us_of

BUDGET_US = 7.0
SLACK = 3.0
"""5 on the reference machine. A loaded or slower one must not fail this; a model of pydantic for
each item should."""


def test_an_item_keeps_to_its_budget() -> None:
    """A rule about one destination is read and checked in 7 µs, give or take the machine."""
    assert us_of(read, numbered_lines(20_000)) < BUDGET_US * SLACK
