"""A mistake that is made on purpose: how it is patched in, and the hunt for it.

A patched name that is gone raises: whoever renames a method moves its variant along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from packetcloud.testbed.simulation.network import LinkOptions
from packetcloud.testbed.simulation.plan import Plan
from packetcloud.testbed.simulation.run import SeedResult, run_plan
from packetcloud.testbed.simulation.scenario import draw_plan

MOST_SEEDS_COUNT = 40
"""A variant is caught within so many seeds of its scenario."""

Patch = tuple[Any, str, Callable[[Any], Any]]
"""Owner, name, and a function from the real attribute to the broken one."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One mistake."""

    name: str
    story: str
    """What is wrong, and where it comes from."""
    scenario: str
    promises: tuple[str, ...]
    """What may break; any of them counts as caught."""
    patches: tuple[Patch, ...]
    arrange: Callable[[Plan], Plan] = lambda plan: plan
    """Makes the plans of the scenario fit for it."""
    first_seed: int = 0
    """Where the hunt begins: for what is seldom, a seed that is known to meet it."""


@contextmanager
def broken(variant: Variant) -> Iterator[None]:
    """Have the real classes behave as the variant says.

    Raises:
        AttributeError: what it patches is not there any more.
    """
    originals: list[tuple[Any, str, Any]] = []
    try:
        for owner, name, spoil in variant.patches:
            original = getattr(owner, name)
            originals.append((owner, name, original))
            setattr(owner, name, spoil(original))
        yield
    finally:
        for owner, name, original in reversed(originals):
            setattr(owner, name, original)


def hunt(variant: Variant, seeds: int = MOST_SEEDS_COUNT) -> tuple[SeedResult | None, int]:
    """Return the first seed that catches the variant, or None, and how many were run."""
    for number in range(seeds):
        seed = variant.first_seed + number
        plan = variant.arrange(draw_plan(seed, variant.scenario))
        with broken(variant):
            result = run_plan(plan)
        if any(violation.promise in variant.promises for violation in result.violations):
            return result, number + 1
    return None, seeds


def links_with(plan: Plan, **options: Any) -> dict[str, tuple[LinkOptions, LinkOptions]]:
    """Return the links of a plan, each with these options in both directions."""
    return {
        name: (replace(there, **options), replace(back, **options))
        for name, (there, back) in plan.links.items()
    }
