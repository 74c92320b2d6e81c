"""The bug museum: every mistake that is kept there is caught, or the judges are broken."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from packetcloud.testbed.simulation.museum import VARIANTS
from packetcloud.testbed.simulation.variant import Variant, broken, hunt

MUSEUM = Path(__file__).parents[2] / "docs" / "reference" / "bug-museum.md"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What broken networks make the daemons say is expected."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name.replace(" ", "-"))
def test_variant_is_caught(variant: Variant) -> None:
    """Within the seeds that it is given, by a promise that it is said to break."""
    caught, seeds_count = hunt(variant)
    assert caught is not None, f"{variant.name}: not caught by {seeds_count} seeds"


def test_variant_leaves_nothing_behind() -> None:
    """After a hunt the real classes are as they were, also when the run raises."""
    for variant in VARIANTS:
        before = [getattr(owner, name) for owner, name, _ in variant.patches]
        with pytest.raises(ZeroDivisionError), broken(variant):
            assert [getattr(owner, name) for owner, name, _ in variant.patches] != before
            raise ZeroDivisionError
        assert [getattr(owner, name) for owner, name, _ in variant.patches] == before


def test_museum_shows_every_variant() -> None:
    """The page lists each variant with its scenario and its story."""
    rows = [line.strip("| ").split(" | ") for line in MUSEUM.read_text().splitlines()]
    shown = [row for row in rows if len(row) == 3 and row[0] != "variant"]
    assert shown == [[v.name, v.scenario, v.story] for v in VARIANTS]
