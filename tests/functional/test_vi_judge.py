"""The judge of `bench vi` on migrations of the simulated network, kept and broken."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from packetcloud.router.cloudlet_pool import CloudletService, CloudletVI
from packetcloud.testbed.bench.vi_judge import Judgement, judge
from packetcloud.testbed.simulation.journal import Entry
from packetcloud.testbed.simulation.variant import Variant, broken
from tests.functional.table_migration import Migration

HELD_IGNORED = Variant(
    "held ignored",
    "A held VI gets tasks as any other.",
    "migration",
    (),
    (
        (CloudletVI, "serves", lambda original: property(lambda self: self.entry is not None)),
        (CloudletService, "_held_slots", lambda original: lambda self, *arguments: frozenset()),
    ),
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What broken networks make the daemons say is expected."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def judged(migration: Migration) -> Judgement:
    """Run a migration; judge what both hosts wrote, with the number that a VI gave each chunk."""
    migration.run()
    numbers = {op: number for _, number, op in migration.seen}
    rows = [
        (line, numbers[line.op] if line.entry is Entry.TAKEN else 0)
        for line in migration.lines
        if line.entry in (Entry.SUBMITTED, Entry.ENDED, Entry.TAKEN)
    ]
    return judge(rows, [], 30.0)


def test_a_migration_without_fault() -> None:
    found = judged(Migration(3))
    assert found.sent > 100
    assert (found.lost, found.doubled, found.problems) == (0, 0, ())


def test_an_old_owner_that_is_not_held_is_caught() -> None:
    """It counts on while its state is on its way: the twin gives the same numbers again."""
    with broken(HELD_IGNORED):
        found = judged(Migration(3))
    assert found.doubled > 0
    assert any("written twice by the service" in text for text in found.problems)
