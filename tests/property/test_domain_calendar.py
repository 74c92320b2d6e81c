"""The calendar against an oracle that tries everything at every instant."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packetcloud.domain_controller.core import timeline
from packetcloud.domain_controller.core.calendar import Calendar, Demand, Hold
from packetcloud.domain_controller.core.packing import Group, NodeRoom, can_pack
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import DAY_MS, Every, Repeat, Slot

S = 1000
TYPES = {
    "small": ViType("small", Resources(1, 2, 1, 0)),
    "large": ViType("large", Resources(3, 1, 2, 1)),
}
AMOUNT = st.integers(0, 6)
ROOMS = st.lists(
    st.tuples(st.builds(Resources, AMOUNT, AMOUNT, AMOUNT, AMOUNT), st.integers(0, 1000)).map(
        lambda pair: NodeRoom(pair[0], pair[0].permille(pair[1]))
    ),
    min_size=1,
    max_size=3,
)


@st.composite
def _hold(draw: st.DrawFn) -> Hold:
    begin = draw(st.integers(0, 9))
    return Hold(
        "c",
        "r",
        draw(st.sampled_from(["ann", "bob"])),
        begin * S,
        draw(st.integers(begin + 1, 10)) * S,
        draw(st.sampled_from(sorted(TYPES))),
        draw(st.integers(1, 2)),
        draw(st.booleans()),
    )


@st.composite
def _slot(draw: st.DrawFn) -> Slot:
    begin = draw(st.integers(0, 9)) * S
    end = begin + draw(st.integers(1, 4)) * S
    return Slot(begin, end)


def _oracle_packs(groups: Sequence[Group], rooms: Sequence[NodeRoom]) -> bool:
    """Try every way of laying every VI on a node."""
    vis = [group for group in groups for _ in range(group.count)]
    for places in itertools.product(range(len(rooms)), repeat=len(vis)):
        for number, room in enumerate(rooms):
            here = [vi for vi, place in zip(vis, places, strict=True) if place == number]
            total = [sum(vi.size.amounts[kind] for vi in here) for kind in range(4)]
            third = [
                sum(vi.size.amounts[kind] for vi in here if vi.is_third_party) for kind in range(4)
            ]
            if any(a > b for a, b in zip(total, room.for_all.amounts, strict=True)) or any(
                a > b for a, b in zip(third, room.for_third_parties.amounts, strict=True)
            ):
                break
        else:
            return True
    return False


def _oracle_fits(
    holds: Sequence[Hold], rooms: Sequence[NodeRoom], demand: Demand, slot: Slot
) -> bool:
    """Ask at every second of the slot."""
    mine = Group(TYPES[demand.vi_type].resources, demand.is_third_party, demand.count)
    return all(
        _oracle_packs(
            [
                mine,
                *(
                    Group(TYPES[hold.vi_type].resources, hold.is_third_party, hold.count)
                    for hold in holds
                    if hold.begin_ms <= at < hold.end_ms
                ),
            ],
            rooms,
        )
        for begin, end in slot.occurrences()
        for at in range(begin, end, S)
    )


DEMAND = st.builds(Demand, st.sampled_from(sorted(TYPES)), st.integers(1, 2), st.booleans())


@given(ROOMS, st.lists(_hold(), max_size=3), DEMAND, _slot())
@settings(max_examples=150, deadline=None)
def test_what_fits_fits_at_every_instant_and_what_does_not_has_a_reason(
    rooms: list[NodeRoom], holds: list[Hold], demand: Demand, slot: Slot
) -> None:
    """For few VIs the answer is exact; the earliest begin is the first at which it fits."""
    calendar = Calendar(rooms, TYPES, holds)
    conflict = calendar.conflict(demand, slot)
    assert (conflict is None) == _oracle_fits(holds, rooms, demand, slot)
    if conflict is not None:
        assert conflict.text
        assert conflict.begin_ms < slot.end_ms and conflict.end_ms > slot.begin_ms
    earliest = calendar.earliest(demand, slot, 0, 20 * S)
    begins = (
        at
        for at in range(slot.begin_ms, 21 * S, S)
        if _oracle_fits(holds, rooms, demand, slot.moved_to(at))
    )
    assert (earliest.begin_ms if earliest is not None else None) == next(begins, None)


@given(
    st.lists(st.tuples(_hold(), st.integers(0, 3)), max_size=30), st.integers(2, 6), _slot(), ROOMS
)
@settings(deadline=None)
def test_steps_are_those_of_a_plain_sum_whatever_was_added_and_removed(
    changes: list[tuple[Hold, int]], block: int, slot: Slot, rooms: list[NodeRoom]
) -> None:
    """Blocks of a few boundaries, cut and joined, tell what a sum over all holds tells."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "BLOCK_COUNT", block)
        calendar = Calendar(rooms, TYPES)
        held: list[Hold] = []
        for hold, removed in changes:
            calendar.add(hold)
            held.append(hold)
            if removed == 0:
                gone = held.pop(0)
                calendar.remove(gone)
        for tenant in ("ann", "bob"):
            most = [0, 0, 0, 0]
            for at in range(slot.begin_ms, slot.end_ms, S):
                here = [
                    hold
                    for hold in held
                    if hold.tenant == tenant and hold.begin_ms <= at < hold.end_ms
                ]
                for kind in range(4):
                    total = sum(TYPES[h.vi_type].resources.amounts[kind] * h.count for h in here)
                    most[kind] = max(most[kind], total)
            assert list(calendar.held_by(tenant, slot).amounts) == most
        for hold in held:
            calendar.remove(hold)
        assert calendar.held_by("ann", slot) == calendar.held_by("bob", slot) == Resources()
        assert calendar.overbooked(0, 10 * S) is None


@given(
    st.lists(
        st.builds(
            Group,
            st.builds(Resources, AMOUNT, AMOUNT, AMOUNT, AMOUNT),
            st.booleans(),
            st.integers(0, 2),
        ),
        max_size=3,
    ),
    ROOMS,
)
@settings(deadline=None)
def test_packing_few_vis_is_exact(groups: list[Group], rooms: list[NodeRoom]) -> None:
    """First fit and the bounded search together find a way where there is one."""
    assert can_pack(groups, rooms) == _oracle_packs(groups, rooms)


@given(st.lists(_hold(), max_size=4), st.integers(0, 3), st.integers(1, 3), ROOMS)
@settings(max_examples=60, deadline=None)
def test_a_slot_that_repeats_begins_earliest_where_every_occurrence_fits(
    holds: list[Hold], day: int, count: int, rooms: list[NodeRoom]
) -> None:
    """A crowded second day moves the first one too."""
    moved = [
        Hold(
            hold.cloudlet,
            hold.reservation,
            hold.tenant,
            hold.begin_ms + number % count * DAY_MS,
            hold.end_ms + number % count * DAY_MS,
            hold.vi_type,
            hold.count,
            hold.is_third_party,
        )
        for number, hold in enumerate(holds)
    ]
    demand = Demand("small", 1)
    slot = Slot(day * S, (day + 2) * S, Repeat(Every.DAY, count))
    earliest = Calendar(rooms, TYPES, moved).earliest(demand, slot, 0, 12 * S)
    begins = (
        at
        for at in range(slot.begin_ms, 13 * S, S)
        if _oracle_fits(moved, rooms, demand, slot.moved_to(at))
    )
    assert (earliest.begin_ms if earliest is not None else None) == next(begins, None)
