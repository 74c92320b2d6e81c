"""What a cloudlet makes of directives: yes and no, again, too late, at its caps, on its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from packetcloud.cloudlet.core import metering, records, reserved
from packetcloud.cloudlet.core.commands import (
    Command,
    DropDomain,
    Note,
    SayAnswer,
    SayComplete,
    SayUsage,
)
from packetcloud.cloudlet.core.events import (
    CompleteTaken,
    Directed,
    DomainDown,
    DomainUp,
    Metered,
    OrphanSaid,
    UsageTaken,
)
from packetcloud.cloudlet.core.values import CloudletSettings, Resources
from packetcloud.cloudlet.domain_link.report import report_of
from packetcloud.cloudlet.surroundings import Around
from tests.unit.cloudlet.core.world import LARGE, NODE, SID, SMALL, World, settings

AT_MS = 1_000_000
TOLD = Directed(
    epoch=3,
    reservation="r-1",
    number=5,
    is_gone=False,
    is_running=True,
    tenant="tenant",
    vi_type="small",
    resources=SMALL,
    count=2,
    service="beta",
    sid=SID["beta"],
    terms=1,
    occurrences=((AT_MS, AT_MS + 100_000),),
    at_ms=AT_MS,
)


class _World(World):
    """A cloudlet that has its VIs and a domain controller of epoch 3."""

    def __init__(
        self,
        wished: CloudletSettings | None = None,
        capacity: Resources = NODE,
        *,
        is_up: bool = True,
    ) -> None:
        self.said: list[Command] = []
        super().__init__(1, wished or settings(name_at_domain="c1"), capacity=capacity)
        self.run(5)
        if is_up:
            self.tell(DomainUp(3, AT_MS), self.life)

    def say_to_domain(self, command: Command) -> None:
        self.said.append(command)

    def answer(self, event: Directed) -> SayAnswer | None:
        """Return the answer to a directive."""
        self.said.clear()
        self.tell(event, self.life)
        (*_, last) = self.said or [None]
        assert last is None or isinstance(last, SayAnswer)
        return last

    def running(self, name: str = "r-1") -> int:
        return len(self.core.reservations.running(name))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"service": None, "sid": None}, ""),
        ({"vi_type": "huge"}, "no VI type 'huge' here; types: large, small"),
        ({"resources": LARGE}, "another size here"),
        ({"resources": Resources(1.0, SMALL.memory_bytes, 0)}, "another size here"),
        ({"service": "gamma"}, "no service 'gamma' is declared here; services: alpha, beta"),
        ({"tenant": "other"}, "for somebody else"),
        ({"tenant": None}, "for somebody else"),
        ({"sid": "c" * 40}, "another SID"),
        ({"count": 11}, ""),
        ({"count": 12}, "not enough cpus"),
    ],
)
def test_yes_and_no(changes: dict[str, object], words: str) -> None:
    """Of 16 CPUs a quarter is the ISP's, and `beta` has one VI of its own: 11 are left."""
    answer = _World().answer(replace(TOLD, **changes))  # type: ignore[arg-type]
    assert answer is not None
    assert answer.is_accepted is not bool(words)
    assert words in answer.text


@pytest.mark.parametrize(
    ("node_io", "count", "words"),
    [
        (0, 1, "VI type 'busy' needs I/O, and no [[node]] here declares io_per_s"),
        (90, 1, "no node is large enough"),
        (400, 6, ""),
        (400, 7, "not enough io here"),
    ],
)
def test_io_is_reserved_of_what_nodes_declare(node_io: int, count: int, words: str) -> None:
    """Like processors: a quarter is the ISP's; the report says what there is and what is taken."""
    busy = Resources(0.5, 1 << 20, 1 << 20, 100)
    types = {"small": SMALL, "large": LARGE, "busy": busy}
    world = _World(settings(name_at_domain="c1", vi_types=types), replace(NODE, io_per_s=node_io))
    told = replace(TOLD, vi_type="busy", resources=busy, count=count, service=None, sid=None)
    answer = world.answer(told)
    assert answer is not None and words in answer.text
    assert answer.is_accepted is not bool(words)
    assert {one.capacity.io_per_s for one in report_of(world.core, 1, Around()).nodes} == {node_io}


def test_vis_that_do_io_are_spread_over_what_nodes_declare() -> None:
    """Each node gets as many as its I/O allows, and no more, though it has processors left."""
    busy = Resources(0.5, 1 << 20, 1 << 20, 100)
    types = {"small": SMALL, "large": LARGE, "busy": busy}
    plain = settings(name_at_domain="c1", vi_types=types, reads_mib_s=dict.fromkeys(types, 50))
    world = _World(plain, replace(NODE, io_per_s=400))
    world.answer(replace(TOLD, vi_type="busy", resources=busy, count=6))
    world.run(10)
    assert world.running() == 6
    reserved = {one.name: one.reserved.io_per_s for one in report_of(world.core, 1, Around()).nodes}
    assert reserved == {"n1": 300, "n2": 300}


def test_a_directive_again_and_one_that_is_late() -> None:
    """The same number gets the same answer, a lower one is not done, whatever happened between."""
    world = _World()
    first = world.answer(TOLD)
    assert first == SayAnswer(3, "r-1", 5, True)
    world.crash()
    world.run(5)
    world.tell(DomainUp(4, AT_MS), world.life)
    assert world.answer(TOLD) is None, "of an epoch that is over"
    assert world.answer(replace(TOLD, epoch=4)) == replace(first, epoch=4)
    gone = replace(TOLD, epoch=4, number=6, is_gone=True)
    assert world.answer(gone) == SayAnswer(4, "r-1", 6, True)
    late = world.answer(replace(TOLD, epoch=4))
    assert late is not None
    assert (late.is_accepted, late.seen) == (False, 6)
    assert world.saved.reserved == {}


def test_vis_come_change_and_go() -> None:
    """As many as are reserved, within the service, and beside those that are its own."""
    world = _World()
    world.answer(TOLD)
    world.run(5)
    assert world.running() == 2
    world.answer(replace(TOLD, number=6, count=3))
    world.run(5)
    assert world.running() == 3
    refused = world.answer(replace(TOLD, number=7, count=12))
    assert refused is not None and not refused.is_accepted
    world.answer(replace(TOLD, number=8, count=1))
    world.run(10)
    assert world.running() == 1
    world.tell(OrphanSaid(3, "r-1", "nobody reserved it"), world.life)
    world.run(10)
    assert world.running() == 0
    assert world.end_wrongs() == []


def test_a_controller_that_begins_anew_keeps_the_vis_that_run() -> None:
    """Before it knows what time it is, and whether anybody has its channel."""
    world = _World()
    world.answer(TOLD)
    world.run(5)
    before = {vi.instance for vi in world.core.reservations.running("r-1")}
    world.crash()
    world.run(5)
    world.tell(Metered(AT_MS + 1000), world.life)
    world.run(5)
    assert {vi.instance for vi in world.core.reservations.running("r-1")} == before


def test_alone_it_goes_on_until_the_slot_is_over() -> None:
    """Nothing begins; what runs goes on, and ends when its time is over."""
    world = _World()
    world.answer(TOLD)
    world.answer(replace(TOLD, reservation="r-2", is_running=False, count=1))
    world.run(5)
    world.tell(DomainDown(), world.life)
    world.tell(Metered(AT_MS + 99_000), world.life)
    world.run(5)
    assert (world.running(), world.running("r-2")) == (2, 0)
    world.tell(Metered(AT_MS + 100_000), world.life)
    world.run(5)
    assert world.running() == 0


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_controller_that_is_not_in_charge_is_sent_away(epoch: int) -> None:
    world = _World()
    world.said.clear()
    world.tell(DomainUp(epoch, AT_MS), world.life)
    assert [type(one) for one in world.said] == [DropDomain]
    assert world.saved.domain_epoch == 3


def test_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as may be, and one more: reservations, occurrences, answers, records."""
    monkeypatch.setattr(reserved, "MAX_RESERVED_COUNT", 2)
    monkeypatch.setattr(reserved, "MAX_OCCURRENCES_COUNT", 3)
    monkeypatch.setattr(reserved, "MAX_FORGOTTEN_COUNT", 2)
    world = _World()

    def is_taken(name: str, occurrences: int = 1) -> bool:
        times = tuple((AT_MS + 10 * n, AT_MS + 10 * n + 5) for n in range(occurrences))
        event = replace(TOLD, reservation=name, count=1, occurrences=times)
        answer = world.answer(event)
        assert answer is not None
        return answer.is_accepted

    assert is_taken("r-1", 2)
    assert not is_taken("r-2", 2)
    assert is_taken("r-3", 1)
    assert not is_taken("r-4", 1)
    assert set(world.saved.answered) == {"r-1", "r-2", "r-3", "r-4"}
    world.answer(replace(TOLD, reservation="r-5", is_gone=True, at_ms=AT_MS + 1))
    assert "r-5" in world.saved.answered
    assert len(world.saved.answered) == 4


def _meter(world: _World, from_ms: int, until_ms: int) -> None:
    for at_ms in range(from_ms, until_ms + 1, 1000):
        world.tell(Metered(at_ms), world.life)


def _records(world: _World) -> list[tuple[int, int, int]]:
    records = [world.saved.records[key] for key in sorted(world.saved.records)]
    return [(one.begin_ms - AT_MS, one.end_ms - AT_MS, one.vis) for one in records]


def test_what_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen twice, within the slot, once; and what was not taken is sent again."""
    monkeypatch.setattr(metering, "RECORD_MS", 10_000)
    monkeypatch.setattr(metering, "CHECKPOINT_MS", 5000)
    world = _World()
    world.answer(TOLD)
    world.run(5)
    world.said.clear()
    _meter(world, AT_MS - 3000, AT_MS + 12_000)
    assert _records(world) == [(0, 10_000, 2)]
    (sent,) = world.said
    assert isinstance(sent, SayUsage)
    _meter(world, AT_MS + 5000, AT_MS + 12_000)  # the clock was set back
    _meter(world, AT_MS + 13_000, AT_MS + 20_000)
    assert _records(world)[1:] == [(10_000, 20_000, 2)]
    _meter(world, AT_MS + 27_000, AT_MS + 35_000)  # nobody looked for a while
    world.crash()
    world.run(5)
    world.tell(DomainUp(4, AT_MS), world.life)
    _meter(world, AT_MS + 50_000, AT_MS + 51_000)
    assert _records(world)[2:] == [(27_000, 32_000, 2)], "as of the last time it was written down"
    keys = sorted(world.saved.records)
    taken = UsageTaken(4, ((*keys[0], "new"), (*keys[1], "refused"), ("m", 1, "new")))
    world.tell(taken, world.life)
    assert sorted(world.saved.records) == keys[2:]
    assert any("is not billed: refused" in note for note in world.notes)


def test_the_last_record_of_a_reservation_is_said_to_be_the_last() -> None:
    """Not before its VIs are gone and every record is taken; again until it is taken, over a crash.

    Without it the domain waits a day.
    """
    world = _World()
    world.answer(TOLD)
    world.run(5)
    _meter(world, AT_MS, AT_MS + 3000)
    world.answer(replace(TOLD, number=6, is_gone=True))
    _meter(world, AT_MS + 4000, AT_MS + 5000)
    world.run(10)
    assert not [vi for vi in world.saved.vis.values() if vi.reservation]
    _meter(world, AT_MS + 6000, AT_MS + 6000)
    assert not [one for one in world.said if isinstance(one, SayComplete)], "a record waits"
    (key,) = world.saved.records
    world.tell(UsageTaken(3, ((*key, "new"),)), world.life)
    world.said.clear()
    _meter(world, AT_MS + 7000, AT_MS + 12_000)
    assert world.said == [SayComplete(3, (("r-1", 6),))]
    world.crash()
    world.run(5)
    world.tell(DomainUp(4, AT_MS), world.life)
    world.said.clear()
    _meter(world, AT_MS + 13_000, AT_MS + 14_000)
    assert world.said == [SayComplete(4, (("r-1", 6),))]
    world.tell(CompleteTaken(4, (("r-1", 5),)), world.life)
    assert world.saved.answered["r-1"].is_complete_unsaid, "that was said of an earlier time"
    world.tell(CompleteTaken(4, (("r-1", 6),)), world.life)
    world.said.clear()
    _meter(world, AT_MS + 15_000, AT_MS + 120_000)
    assert world.said == []


def test_records_that_nobody_takes_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it what is used is not counted, and that is said; the chain goes on."""
    monkeypatch.setattr(metering, "RECORD_MS", 1000)
    monkeypatch.setattr(records, "MAX_KEPT_COUNT", 3)
    world = _World()
    world.answer(TOLD)
    world.run(5)
    _meter(world, AT_MS, AT_MS + 3000)
    assert (len(world.saved.records), world.core.metering.lost_ms) == (3, 0)
    _meter(world, AT_MS + 4000, AT_MS + 5000)
    assert (len(world.saved.records), world.core.metering.lost_ms) == (3, 4000)
    assert len([note for note in world.notes if "more are lost" in note]) == 1
    taken = tuple((*key, "new") for key in world.saved.records)
    world.tell(UsageTaken(3, taken), world.life)
    _meter(world, AT_MS + 6000, AT_MS + 7000)
    assert [number for _, number in sorted(world.saved.records)] == [4, 5]
    assert not isinstance(world.said[-1], Note)
