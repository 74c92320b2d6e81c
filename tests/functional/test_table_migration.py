"""Migrations on the simulated network: nothing lost, nothing doubled, one owner, in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from packetcloud.router.cloudlet_pool import CloudletService, CloudletVI
from packetcloud.router.cloudlet_table import CloudletTable
from packetcloud.testbed.simulation.variant import Variant, broken
from tests.functional.table_migration import STEPS, Migration


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What broken networks make the daemons say is expected."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", range(4))
def test_migration_under_load_loses_and_doubles_nothing(seed: int) -> None:
    """Old and twin held, idle, cut-over: each chunk once, in order, by one owner at a time."""
    assert Migration(seed).run() == []


@pytest.mark.parametrize("step", STEPS)
def test_router_killed_between_the_steps_knows_them_after_it(step: str) -> None:
    """With durable custody nothing is lost either: the table in force is the last one answered."""
    assert Migration(7, kill_after=step, spool="durable").run() == []


def test_controller_that_was_stopped_changes_nothing_when_it_wakes_up() -> None:
    """Another took over meanwhile: its epoch is refused, and chunks go on."""
    assert Migration(3, stale=True).run() == []


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda original: lambda self, *arguments: value


def _serves_if_listed(original: Any) -> Any:
    return property(lambda self: self.entry is not None)


def _never_lets_go(original: Any) -> Any:
    return lambda self: original(self) | self.held.keys()


BROKEN = (
    Variant(
        "held ignored",
        "A held VI gets tasks as any other.",
        "migration",
        ("two owners",),
        (
            (CloudletVI, "serves", _serves_if_listed),
            (CloudletService, "_held_slots", _always(frozenset())),
        ),
    ),
    Variant(
        "slot not handed over",
        "What waited for a held slot waits on when somebody serves there.",
        "migration",
        ("lost",),
        ((CloudletService, "_held_slots", _never_lets_go),),
    ),
    Variant(
        "epoch unchecked",
        "An update of any controller is put in force.",
        "migration",
        ("lost", "the stale controller"),
        ((CloudletTable, "_is_in_force", _always(False)),),
    ),
)


@pytest.mark.parametrize("variant", BROKEN, ids=lambda variant: variant.name.replace(" ", "-"))
def test_broken_variant_is_caught(variant: Variant) -> None:
    """The judge sees each of the mistakes that this is all about."""
    with broken(variant):
        found = Migration(3, stale=True).run()
    assert any(text.startswith(variant.promises) for text in found), found
