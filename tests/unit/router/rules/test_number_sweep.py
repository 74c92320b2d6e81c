"""What rules counted is forgotten when they are gone, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.router.errors import RulesUnavailableError
from packetcloud.router.rule_counts import RuleCounts, Tally
from packetcloud.router.rules.catalogue import Catalogue
from packetcloud.router.rules.number_counts import PAGE_COUNT, NumberCounts
from packetcloud.router.rules.number_sweep import MAX_PAGES_ASKED_COUNT, NumberSweep
from tests.unit.router.rules.keeping import Kept, head
from tests.unit.router.rules.rule_documents import rule_record

ROUNDS_COUNT = 12
RULES_COUNT = 600


class Counted:
    """A keeper, the counts of its router, and the sweep between them."""

    def __init__(self, folder: Path) -> None:
        self.kept = Kept(folder)
        self.counts = RuleCounts()
        self._catalogue = Catalogue(folder)
        self._sweep = NumberSweep(self.counts.by_number, self._ask)
        self.asked: list[list[int]] = []
        self.is_up = True

    async def _ask(self, pages: list[int]) -> list[str]:
        if not self.is_up:
            raise RulesUnavailableError("no keeper")
        self.asked.append(pages)
        there: list[str] = self._catalogue.answer({"what": "numbers", "pages": pages})["there"]
        return there

    def hit(self, *numbers: int) -> None:
        """Let rules decide about a chunk, and let them have decided while in shadow mode."""
        self.counts.add(Tally(numbers, numbers, 1, 0, 0, 0, False, 0))

    def sweep(self) -> None:
        asyncio.run(self._sweep.run(self.kept.keeper.store.gone_count()))

    @property
    def bytes(self) -> int:
        return sum(one.array_bytes for one in self.counts.by_number)

    def number(self, name: str) -> int:
        (number,) = (one.number for one in self.kept.installed() if one.rule.name == name)
        return number


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    counted = Counted(tmp_path)
    yield counted
    counted.kept.close()


def _records(count: int) -> list[dict[str, Any]]:
    return [rule_record(name=f"r{n}", destination=f"{n:040x}") for n in range(count)]


def test_counts_stay_bounded_while_rules_come_and_go(counted: Counted) -> None:
    """Rounds in which many rules are installed, hit and withdrawn leave no count behind; the rule
    that stays keeps its own."""
    counted.kept.install(rule_record(name="stays"), head=head("other"))
    counted.hit(counted.number("stays"))
    most = 0
    for serial in range(1, 2 * ROUNDS_COUNT, 2):
        counted.kept.install(*_records(RULES_COUNT), head=head(serial=serial))
        numbers = [one.number for one in counted.kept.installed() if one.set_name == "test"]
        counted.hit(*numbers)
        most = max(most, counted.bytes)
        gone = [{"withdraw": f"r{n}"} for n in range(RULES_COUNT)]
        counted.kept.install(*gone, head=head(serial=serial + 1))
        counted.sweep()
    assert counted.counts.of(counted.number("stays")) == (1, 1)
    assert [one.pages() for one in counted.counts.by_number] == [[0], [0]]
    # Of one round, a page begun before and one begun after, and the page of the rule that stays.
    assert most <= 2 * 8 * (RULES_COUNT + 3 * PAGE_COUNT)


def test_a_rule_that_comes_back_begins_with_zero(counted: Counted) -> None:
    """Withdrawn and installed again it has another number, and none shows what that one counted;
    neither does one that was replaced."""
    counted.kept.install(*_records(3))
    old = counted.number("r1")
    counted.hit(old, counted.number("r2"))
    counted.kept.install(
        {"withdraw": "r1"}, rule_record(name="r2", priority=1), head=head(serial=2)
    )
    counted.kept.install(rule_record(name="r1"), head=head(serial=3))
    assert counted.counts.of(counted.number("r1")) == (0, 0)
    counted.sweep()
    assert counted.bytes == 0
    counted.hit(counted.number("r1"))
    assert counted.counts.of(counted.number("r1")) == (1, 1)
    assert counted.counts.of(old) == (0, 0)


def test_nothing_is_asked_while_no_rule_has_gone(counted: Counted) -> None:
    """Each departure is swept once."""
    counted.kept.install(*_records(2))
    counted.hit(counted.number("r1"))
    counted.sweep()
    assert not counted.asked
    counted.kept.install({"withdraw": "r0"}, head=head(serial=2))
    for _ in range(2):
        counted.sweep()
    assert counted.asked == [[0], [0]]  # of both counts


def test_a_sweep_without_a_keeper_is_done_by_the_next(counted: Counted) -> None:
    """What could not be asked is asked again."""
    counted.kept.install(*_records(1))
    counted.hit(1)
    counted.kept.install({"withdraw": "r0"}, head=head(serial=2))
    counted.is_up = False
    with pytest.raises(RulesUnavailableError):
        counted.sweep()
    assert counted.counts.of(1) == (1, 1)
    counted.is_up = True
    counted.sweep()
    assert counted.counts.of(1) == (0, 0)


def test_a_step_is_short(counted: Counted) -> None:
    """A sweep asks for so many pages at a time at the most, each once; the keeper takes no more."""
    counts = NumberCounts()
    pages = range(2 * MAX_PAGES_ASKED_COUNT + 1)
    for page in pages:
        counts.add(page * PAGE_COUNT)
    asyncio.run(NumberSweep([counts], counted._ask).run(1))
    assert [len(some) for some in counted.asked] == [MAX_PAGES_ASKED_COUNT] * 2 + [1]
    assert [page for some in counted.asked for page in some] == [*pages]
    assert counts.pages() == []
    with pytest.raises(LocalMisuseError):
        asyncio.run(counted._ask([*range(MAX_PAGES_ASKED_COUNT + 1)]))
