"""The calendar of a cloudlet: what is held when, what fits, and when it would fit.

Source: docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from packetcloud.domain_controller.core.checks import (
    check_bool,
    check_integer,
    check_name,
    check_time,
    shown,
)
from packetcloud.domain_controller.core.cloudlets import MAX_VIS_COUNT
from packetcloud.domain_controller.core.packing import (
    Group,
    NodeRoom,
    can_pack,
    free_in_sum,
    lacking_in_sum,
    sum_for_third_parties,
)
from packetcloud.domain_controller.core.resources import NOTHING, Resources, ViType
from packetcloud.domain_controller.core.slots import Slot
from packetcloud.domain_controller.core.timeline import Level, Timeline
from packetcloud.domain_controller.errors import InvalidValueError

MAX_SEARCH_STEPS = 10_000
"""Begins that a search for the earliest one tries."""
MAX_KNOWN_COUNT = 65_536
"""Packings whose answer is kept, some hundred bytes each."""


@dataclass(frozen=True, slots=True, order=True)
class Hold:
    """VIs that a reservation has on a cloudlet from begin to end."""

    cloudlet: str
    reservation: str
    tenant: str
    begin_ms: int
    end_ms: int
    vi_type: str
    count: int
    is_third_party: bool = True

    def __post_init__(self) -> None:
        check_name("hold.cloudlet", self.cloudlet)
        check_name("hold.reservation", self.reservation)
        check_name("hold.tenant", self.tenant)
        check_time("hold.begin_ms", self.begin_ms)
        check_time("hold.end_ms", self.end_ms)
        if self.end_ms <= self.begin_ms:
            raise InvalidValueError("hold.end_ms", shown(self.end_ms), "later than hold.begin_ms")
        check_name("hold.vi_type", self.vi_type)
        check_integer("hold.count", self.count, 1, MAX_VIS_COUNT)
        check_bool("hold.is_third_party", self.is_third_party)


@dataclass(frozen=True, slots=True)
class Demand:
    """VIs that need places."""

    vi_type: str
    count: int
    is_third_party: bool = True


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why something does not fit, and when that is so."""

    begin_ms: int
    end_ms: int
    text: str


class Calendar:
    """What is held on one cloudlet over time.

    Args:
        rooms: its nodes, as its last report says.
        types: every VI type that is held there or may be asked for.
    """

    def __init__(
        self,
        rooms: Sequence[NodeRoom],
        types: Mapping[str, ViType],
        holds: Iterable[Hold] = (),
    ) -> None:
        self._rooms = tuple(rooms)
        self._for_third_parties = sum_for_third_parties(self._rooms)
        self._types = types
        self._all = Timeline()
        self._tenants: dict[str, Timeline] = {}
        self._known: dict[tuple[tuple[tuple[str, bool], int], ...], bool] = {}
        for hold in holds:
            self.add(hold)

    @property
    def for_third_parties(self) -> Resources:
        """What third parties can have of the cloudlet: the whole of which they have shares."""
        return self._for_third_parties

    def change_rooms(self, rooms: Sequence[NodeRoom]) -> None:
        """Take the nodes of a later report; what is held stays, also where it no longer fits."""
        if tuple(rooms) != self._rooms:
            self._rooms = tuple(rooms)
            self._for_third_parties = sum_for_third_parties(self._rooms)
            self._known.clear()

    def add(self, hold: Hold) -> None:
        """Hold something; whether it fits is for the caller to ask first."""
        self._change(hold, hold.count)

    def remove(self, hold: Hold) -> None:
        """Take back what `add` did with the same hold."""
        self._change(hold, -hold.count)

    def conflict(self, demand: Demand, slot: Slot, now_ms: int = 0) -> Conflict | None:
        """Return the first time of a slot at which `demand` does not fit; None: it fits.

        Times before `now_ms` do not count. Cost: O(blocks + steps of the slot that are crowded).
        """
        for begin, end in slot.occurrences():
            if end > now_ms:
                for at, until, level in self._unfit(demand, max(begin, now_ms), end):
                    return Conflict(at, until, self._reason(demand, level))
        return None

    def earliest(
        self, demand: Demand, slot: Slot, now_ms: int, latest_begin_ms: int
    ) -> Slot | None:
        """Return the slot at the earliest begin at which it fits, at `slot.begin_ms` or later.

        None: not with a begin up to `latest_begin_ms`, or not within `MAX_SEARCH_STEPS`.
        """
        begin = max(slot.begin_ms, now_ms)
        if not self._fits({}, demand):
            return None
        occurrences = slot.occurrences()
        offsets = [(a - slot.begin_ms, b - slot.begin_ms) for a, b in occurrences]
        for _ in range(MAX_SEARCH_STEPS):
            if begin > latest_begin_ms:
                return None
            later = begin
            for offset, end in offsets:
                for _at, until, _level in self._unfit(demand, begin + offset, begin + end):
                    # Whatever begins before the end of the crowded step still meets it.
                    later = max(later, until - offset)
            if later == begin:
                return slot.moved_to(begin)
            begin = later
        return None

    def held_by(self, tenant: str, slot: Slot, now_ms: int = 0) -> Resources:
        """Return of each kind the most that a tenant holds at any time of a slot."""
        timeline = self._tenants.get(tenant)
        if timeline is None:
            return NOTHING
        steps = {
            tuple(level.items())
            for begin, end in slot.occurrences()
            if end > now_ms
            for level in timeline.levels(max(begin, now_ms), end)
        }
        most = NOTHING
        for step in steps:
            total = self._sum(dict(step))
            if not total.fits_in(most):
                pairs = zip(most.amounts, total.amounts, strict=True)
                most = Resources(*(max(pair) for pair in pairs))
        return most

    def overbooked(self, begin_ms: int, end_ms: int) -> Conflict | None:
        """Return the first time at which what is held has no room: drift after a report."""
        for at, until, level in self._all.unfit(begin_ms, end_ms, self._packs):
            return Conflict(at, until, self._reason(None, level))
        return None

    def _change(self, hold: Hold, count: int) -> None:
        if hold.vi_type not in self._types:
            types = ", ".join(sorted(self._types)) or "none"
            raise InvalidValueError("hold.vi_type", shown(hold.vi_type), types)
        key = (hold.vi_type, hold.is_third_party)
        self._all.add(hold.begin_ms, hold.end_ms, key, count)
        timeline = self._tenants.setdefault(hold.tenant, Timeline())
        timeline.add(hold.begin_ms, hold.end_ms, key, count)
        if not timeline:
            del self._tenants[hold.tenant]

    def _unfit(
        self, demand: Demand, begin_ms: int, end_ms: int
    ) -> Iterable[tuple[int, int, Level]]:
        return self._all.unfit(begin_ms, end_ms, lambda level: self._fits(level, demand))

    def _fits(self, level: Level, demand: Demand) -> bool:
        key = (demand.vi_type, demand.is_third_party)
        return self._packs({**level, key: level.get(key, 0) + demand.count})

    def _packs(self, level: Level) -> bool:
        known = tuple(sorted(level.items()))
        answer = self._known.get(known)
        if answer is None:
            answer = can_pack(self._groups(level), self._rooms)
            if len(self._known) >= MAX_KNOWN_COUNT:
                self._known.clear()
            self._known[known] = answer
        return answer

    def _groups(self, level: Level) -> list[Group]:
        return [
            Group(self._types[vi_type].resources, is_third_party, count)
            for (vi_type, is_third_party), count in level.items()
        ]

    def _sum(self, level: Level) -> Resources:
        total = NOTHING
        for group in self._groups(level):
            total += group.size.times(group.count)
        return total

    def _reason(self, demand: Demand | None, level: Level) -> str:
        held = self._groups(level)
        asked: Group | None = None
        if demand is not None:
            size = self._types[demand.vi_type].resources
            asked = Group(size, demand.is_third_party, demand.count)
        lacking = lacking_in_sum(held if asked is None else [*held, asked], self._rooms)
        if not lacking:
            return "no way was found to lay the VIs on the nodes, though all nodes together suffice"
        if asked is None:
            text = f"not enough {', '.join(lacking)}"
        else:
            free = free_in_sum(held, self._rooms, asked.is_third_party)
            whose = " for third parties" if asked.is_third_party else ""
            text = f"not enough {_amounts(lacking, free, asked.size.times(asked.count))}{whose}"
        if "io_per_s" in lacking and not any(room.for_all.io_per_s for room in self._rooms):
            text += "; its nodes declare no I/O capacity"
        return text


def _amounts(kinds: Iterable[str], free: Resources, wanted: Resources) -> str:
    """Return of each of these kinds how much is free and how much is wanted."""
    return ", ".join(
        f"{kind} ({getattr(free, kind)} free, {getattr(wanted, kind)} wanted)" for kind in kinds
    )
