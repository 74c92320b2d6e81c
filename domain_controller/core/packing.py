"""Whether VIs can be laid on nodes: first fit in several orders, then a bounded exact search.

The answer "yes" is always true. "No" may be wrong for many VIs that leave hardly any room: then a
reservation is refused that a cleverer packing had taken, and nothing is oversold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from packetcloud.domain_controller.core.cloudlets import CloudletReport
from packetcloud.domain_controller.core.resources import NOTHING, Resources

MAX_EXACT_VIS_COUNT = 12
"""With more VIs than this only first fit is tried."""
MAX_EXACT_STEPS = 20_000
"""Placements that the exact search tries: about 20 ms."""

Amounts = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """What a node has for all VIs, and for those of third parties."""

    for_all: Resources
    for_third_parties: Resources


@dataclass(frozen=True, slots=True)
class Group:
    """VIs of one size."""

    size: Resources
    is_third_party: bool
    count: int


class _Left:
    """What is left of a node while VIs are laid on it."""

    __slots__ = ("for_all", "for_third")

    def __init__(self, room: NodeRoom) -> None:
        self.for_all = list(room.for_all.amounts)
        self.for_third = list(room.for_third_parties.amounts)

    def most(self, size: Amounts, is_third_party: bool, count: int) -> int:
        """Return how many of `count` VIs still have room."""
        for left, one in zip(self.for_all, size, strict=True):
            if one and left // one < count:
                count = left // one
        if is_third_party:
            for left, one in zip(self.for_third, size, strict=True):
                if one and left // one < count:
                    count = left // one
        return max(0, count)

    def take(self, size: Amounts, is_third_party: bool, count: int) -> None:
        for kind, one in enumerate(size):
            self.for_all[kind] -= one * count
            if is_third_party:
                self.for_third[kind] -= one * count

    @property
    def state(self) -> tuple[int, ...]:
        return *self.for_all, *self.for_third


def rooms_of(report: CloudletReport, isp_share_permille: int) -> tuple[NodeRoom, ...]:
    """Return what the nodes of a cloudlet have that get VIs."""
    return tuple(
        NodeRoom(node.capacity, node.capacity.permille(1000 - isp_share_permille))
        for node in report.nodes
        if node.is_usable
    )


def sum_for_third_parties(rooms: Iterable[NodeRoom]) -> Resources:
    """Return what third parties can have of all nodes together: the whole of their shares."""
    return sum((room.for_third_parties for room in rooms), NOTHING)


def can_pack(groups: Sequence[Group], rooms: Sequence[NodeRoom]) -> bool:
    """Tell whether all VIs have a place. Cost: O(groups x nodes), and the bounded search."""
    groups = [group for group in groups if group.count]
    if lacking_in_sum(groups, rooms):
        return False
    if any(_first_fit(order, rooms) for order in _orders(groups, rooms)):
        return True
    if sum(group.count for group in groups) > MAX_EXACT_VIS_COUNT:
        return False
    largest_first = next(iter(_orders(groups, rooms)))
    vis = [
        (group.size.amounts, group.is_third_party)
        for group in largest_first
        for _ in range(group.count)
    ]
    return _Search([_Left(room) for room in rooms]).place(vis, 0, 0)


def lacking_in_sum(groups: Sequence[Group], rooms: Sequence[NodeRoom]) -> list[str]:
    """Name the kinds of which all nodes together have too little, third parties' share included."""
    wanted, wanted_by_third_parties = _wanted(groups)
    capacity, third = _sums((room.for_all, room.for_third_parties) for room in rooms)
    lacking = capacity.lacking_for(wanted)
    return lacking + [
        name for name in third.lacking_for(wanted_by_third_parties) if name not in lacking
    ]


def free_in_sum(
    groups: Sequence[Group], rooms: Sequence[NodeRoom], is_third_party: bool
) -> Resources:
    """Return what all nodes together have beside VIs for a third party, or for the ISP."""
    capacity, third = _sums((room.for_all, room.for_third_parties) for room in rooms)
    wanted, wanted_by_third_parties = _wanted(groups)
    free = capacity.less(wanted)
    if not is_third_party:
        return free
    share = third.less(wanted_by_third_parties)
    return Resources(*map(min, free.amounts, share.amounts))


def _wanted(groups: Sequence[Group]) -> tuple[Resources, Resources]:
    """Return what all VIs take together, and of it what those of third parties take."""
    amounts = ((one.size.times(one.count), one.is_third_party) for one in groups)
    return _sums((amount, amount if third else NOTHING) for amount, third in amounts)


def _sums(pairs: Iterable[tuple[Resources, Resources]]) -> tuple[Resources, Resources]:
    for_all = for_third_parties = NOTHING
    for one, third in pairs:
        for_all += one
        for_third_parties += third
    return for_all, for_third_parties


def _orders(groups: Sequence[Group], rooms: Sequence[NodeRoom]) -> Iterable[list[Group]]:
    """Yield orders in which first fit often succeeds: by the largest share, then by each kind."""
    largest = [max(room.for_all.amounts[kind] for room in rooms) for kind in range(4)]

    def share(group: Group) -> tuple[int, int]:
        shares = (
            amount * 1_000_000 // most if most else 0
            for amount, most in zip(group.size.amounts, largest, strict=True)
        )
        return -max(shares), not group.is_third_party

    by_share = sorted(groups, key=share)
    yield by_share
    for kind in range(4):
        yield sorted(by_share, key=lambda group: -group.size.amounts[kind])
    yield sorted(by_share, key=lambda group: not group.is_third_party)


def _first_fit(groups: Sequence[Group], rooms: Sequence[NodeRoom]) -> bool:
    lefts = [_Left(room) for room in rooms]
    for group in groups:
        size, count = group.size.amounts, group.count
        for left in lefts:
            taken = left.most(size, group.is_third_party, count)
            if taken:
                left.take(size, group.is_third_party, taken)
                count -= taken
                if not count:
                    break
        if count:
            return False
    return True


class _Search:
    """Every way of laying VIs on nodes, up to a number of steps."""

    def __init__(self, lefts: list[_Left]) -> None:
        self._lefts = lefts
        self._steps = 0

    def place(self, vis: Sequence[tuple[Amounts, bool]], number: int, first: int) -> bool:
        """Tell whether the VIs from `number` on have places; the next one on node `first` or later.

        Equal VIs are laid on nodes in order: which of them is where makes no difference.
        """
        if number == len(vis):
            return True
        size, is_third_party = vis[number]
        is_next_equal = number + 1 < len(vis) and vis[number + 1] == vis[number]
        tried: set[tuple[int, ...]] = set()
        for index in range(first, len(self._lefts)):
            left = self._lefts[index]
            self._steps += 1
            if self._steps > MAX_EXACT_STEPS:
                return False
            if left.state in tried or not left.most(size, is_third_party, 1):
                continue
            tried.add(left.state)
            left.take(size, is_third_party, 1)
            is_placed = self.place(vis, number + 1, index if is_next_equal else 0)
            left.take(size, is_third_party, -1)
            if is_placed:
                return True
        return False
