"""The calendar: ISP share, nodes, overbooking, many holds, bounded searches."""

from __future__ import annotations

import random

import pytest

from packetcloud.domain_controller.core import packing
from packetcloud.domain_controller.core.calendar import Calendar, Demand, Hold
from packetcloud.domain_controller.core.cloudlets import CloudletReport, NodeReport
from packetcloud.domain_controller.core.packing import Group, NodeRoom, can_pack, rooms_of
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import DAY_MS, HOUR_MS, MAX_AHEAD_MS, Slot
from packetcloud.domain_controller.errors import InvalidValueError

TYPES = {
    "small": ViType("small", Resources(500)),
    "large": ViType("large", Resources(3000)),
}


def _rooms(*milli_cpus: int, share: int = 0) -> tuple[NodeRoom, ...]:
    nodes = tuple(NodeReport(f"n{i}", Resources(cpus)) for i, cpus in enumerate(milli_cpus))
    return rooms_of(CloudletReport("c", 1, 1, nodes), share)


def _hold(
    begin: int, end: int, count: int, vi_type: str = "small", *, is_third_party: bool = True
) -> Hold:
    return Hold("c", "r", "ann", begin, end, vi_type, count, is_third_party)


def test_third_parties_do_not_get_the_isps_share() -> None:
    """A quarter of each node stays for the ISP, whoever asked first."""
    calendar = Calendar(_rooms(2000, share=250), TYPES)
    assert calendar.conflict(Demand("small", 3), Slot(0, HOUR_MS)) is None
    conflict = calendar.conflict(Demand("small", 4), Slot(0, HOUR_MS))
    assert conflict is not None
    assert conflict.text == "not enough milli_cpus (1500 free, 2000 wanted) for third parties"
    calendar.add(_hold(0, HOUR_MS, 3))
    assert calendar.conflict(Demand("small", 1, is_third_party=False), Slot(0, HOUR_MS)) is None
    assert calendar.conflict(Demand("small", 2, is_third_party=False), Slot(0, HOUR_MS))


def test_a_vi_needs_one_node_that_is_large_enough() -> None:
    """Two halves of a place on two nodes are none."""
    calendar = Calendar(_rooms(2000, 2000), TYPES)
    conflict = calendar.conflict(Demand("large", 1), Slot(0, HOUR_MS))
    assert conflict is not None and "no way was found" in conflict.text
    assert calendar.earliest(Demand("large", 1), Slot(0, HOUR_MS), 0, MAX_AHEAD_MS) is None


def test_nodes_that_get_no_vis_do_not_count() -> None:
    """A silent or evacuated node is no capacity."""
    nodes = (NodeReport("a", Resources(500)), NodeReport("b", Resources(500), is_usable=False))
    calendar = Calendar(rooms_of(CloudletReport("c", 1, 1, nodes), 0), TYPES)
    assert calendar.conflict(Demand("small", 2), Slot(0, HOUR_MS))


def test_slots_that_touch_do_not_meet() -> None:
    """The end does not belong to a slot; the earliest begin is the end of what is in the way."""
    calendar = Calendar(_rooms(500), TYPES, [_hold(0, HOUR_MS, 1), _hold(2 * HOUR_MS, DAY_MS, 1)])
    demand = Demand("small", 1)
    assert calendar.conflict(demand, Slot(HOUR_MS, 2 * HOUR_MS)) is None
    assert calendar.conflict(demand, Slot(HOUR_MS, 2 * HOUR_MS + 1))
    assert calendar.conflict(demand, Slot(HOUR_MS - 1, 2 * HOUR_MS))
    fitting = calendar.earliest(demand, Slot(0, HOUR_MS), 0, MAX_AHEAD_MS)
    assert fitting == Slot(HOUR_MS, 2 * HOUR_MS)
    longer = calendar.earliest(demand, Slot(0, HOUR_MS + 1), 0, MAX_AHEAD_MS)
    assert longer == Slot(DAY_MS, DAY_MS + HOUR_MS + 1)
    assert calendar.earliest(demand, Slot(0, HOUR_MS + 1), 0, DAY_MS - 1) is None
    assert calendar.earliest(demand, Slot(0, HOUR_MS), HOUR_MS + 1, 2 * HOUR_MS) is None


def test_what_is_over_does_not_count() -> None:
    """A slot that has begun is asked for what is left of it."""
    calendar = Calendar(_rooms(500), TYPES, [_hold(0, HOUR_MS, 1)])
    assert calendar.conflict(Demand("small", 1), Slot(0, DAY_MS), HOUR_MS) is None
    assert calendar.held_by("ann", Slot(0, DAY_MS), HOUR_MS) == Resources()
    assert calendar.held_by("ann", Slot(0, DAY_MS)) == Resources(500)


def test_fewer_nodes_make_no_hold_disappear() -> None:
    """What is held and no longer fits is told; nothing new comes there."""
    calendar = Calendar(_rooms(1000), TYPES, [_hold(HOUR_MS, DAY_MS, 2)])
    assert calendar.overbooked(0, DAY_MS) is None
    calendar.change_rooms(_rooms(500))
    drift = calendar.overbooked(0, DAY_MS)
    assert drift is not None and (drift.begin_ms, drift.end_ms) == (HOUR_MS, DAY_MS)
    assert calendar.conflict(Demand("small", 1), Slot(HOUR_MS, DAY_MS))
    assert calendar.conflict(Demand("small", 1), Slot(0, HOUR_MS)) is None


@pytest.mark.parametrize(
    ("io_per_s", "text"),
    [
        (0, "not enough io_per_s (0 free, 200 wanted); its nodes declare no I/O capacity"),
        (100, "not enough io_per_s (100 free, 200 wanted)"),
        (200, None),
    ],
)
def test_io_is_reserved_of_what_nodes_declare(io_per_s: int, text: str | None) -> None:
    """Where none is declared nothing that asks for it fits, and the refusal says why."""
    node = NodeReport("n", Resources(1000, io_per_s=io_per_s))
    types = {"busy": ViType("busy", Resources(100, io_per_s=100))}
    calendar = Calendar(rooms_of(CloudletReport("c", 1, 1, (node,)), 0), types)
    conflict = calendar.conflict(Demand("busy", 2, is_third_party=False), Slot(0, HOUR_MS))
    assert (conflict and conflict.text) == text


def test_a_type_that_nobody_knows_is_refused_by_name() -> None:
    """The calendar must know every size that it adds up."""
    with pytest.raises(InvalidValueError, match="large, small"):
        Calendar(_rooms(500), TYPES, [_hold(0, 1, 1, "huge")])


def test_many_thousand_holds_are_as_a_plain_sum_has_them() -> None:
    """5 000 random holds: nothing that fits is oversold, checked boundary by boundary."""
    chance = random.Random(1)
    calendar = Calendar(_rooms(*[8000] * 10), TYPES)
    held: list[tuple[int, int]] = []
    for _ in range(5_000):
        begin = chance.randrange(0, 10_000) * 60_000
        slot = Slot(begin, begin + chance.randrange(1, 300) * 60_000)
        if calendar.conflict(Demand("small", 1), slot) is None:
            calendar.add(_hold(slot.begin_ms, slot.end_ms, 1))
            held.append((slot.begin_ms, slot.end_ms))
    changes = sorted([(end, -1) for _, end in held] + [(begin, 1) for begin, _ in held])
    level = most = 0
    for _, change in changes:
        level += change
        most = max(most, level)
    assert level == 0 and most <= 160
    assert len(held) > 3_000
    found = calendar.earliest(Demand("small", 160), Slot(0, HOUR_MS), 0, MAX_AHEAD_MS)
    assert found is not None and found.begin_ms <= max(end for _, end in held)


def test_the_exact_search_ends_at_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many steps as it takes it finds a way, with one fewer it gives up: no overselling."""
    rooms = [NodeRoom(Resources(10), Resources(10))] * 2
    groups = [Group(Resources(size), True, 1) for size in (6, 5, 4, 3, 2)]
    monkeypatch.setattr(packing, "_first_fit", lambda *_: False)
    needed = next(
        steps
        for steps in range(1, 1000)
        if (monkeypatch.setattr(packing, "MAX_EXACT_STEPS", steps), can_pack(groups, rooms))[1]
    )
    monkeypatch.setattr(packing, "MAX_EXACT_STEPS", needed - 1)
    assert not can_pack(groups, rooms)
    monkeypatch.undo()
    monkeypatch.setattr(packing, "_first_fit", lambda *_: False)
    many = [Group(Resources(1), True, packing.MAX_EXACT_VIS_COUNT)]
    assert can_pack(many, rooms)
    assert not can_pack([*many, Group(Resources(1), True, 1)], rooms)
