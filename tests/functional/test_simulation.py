"""The seeds of every push: whole networks on virtual time, judged by their journals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from packetcloud.testbed.simulation.campaign import command_of, run_checked
from packetcloud.testbed.simulation.run import SeedResult, run_plan, run_seed
from packetcloud.testbed.simulation.scenario import SCENARIOS, draw_plan

SEEDS_COUNT = 600
"""Twenty-three of each scenario; the whole campaign is `packetcloud testbed simulate`."""
SEEDS_PER_TEST = 25
"""A few seconds: small enough that workers share the load evenly."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What broken networks make the daemons say is expected."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS_COUNT, SEEDS_PER_TEST))
def test_no_seed_breaks_a_promise(first: int) -> None:
    """Every fault of every plan was felt, and every promise was kept."""
    results = [run_checked(seed, None)[0] for seed in range(first, first + SEEDS_PER_TEST)]
    assert not (failed := [result for result in results if not result.ok]), _report(failed)
    assert sum(result.judged_count for result in results) >= 20 * SEEDS_PER_TEST


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_seed_runs_the_same_twice(scenario: str) -> None:
    """The hash over all that happens is the same; another seed has another."""
    first, again, other = (run_seed(seed, scenario) for seed in (3, 3, 4))
    assert first.trace_digest == again.trace_digest
    assert first.trace_digest != other.trace_digest


@pytest.mark.parametrize("scenario", ["spill", "durable_services"])
def test_a_run_in_which_nothing_spilled_proves_nothing(scenario: str) -> None:
    """The scenarios that are there for the disk say so when memory was enough."""
    plan = draw_plan(3, scenario)
    assert not run_plan(plan).vacuous
    assert "nothing was on disk only" in run_plan(replace(plan, waiting_bytes=1 << 30)).vacuous


def _report(failed: list[SeedResult]) -> str:
    lines = []
    for result in failed:
        lines += ["", command_of(result), *map(str, result.violations), *result.vacuous]
    return "\n".join(lines)
