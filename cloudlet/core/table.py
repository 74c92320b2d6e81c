"""The router's table: what it should be, and what the router has of it.

What it should be follows from the services and the VIs at every moment; an update is what differs
from the version last taken. One update is under way at a time. When it is not known what the router
has, the whole table is given.
Source: docs/decisions/0013-cloudlet.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from packetcloud.cloudlet.core.commands import Command, Note, PushTable, StepDown
from packetcloud.cloudlet.core.events import RouterSeen, TableAnswered, TableUnanswered
from packetcloud.cloudlet.core.instances import Role, Vi
from packetcloud.cloudlet.core.values import ServiceWish

RETRY_S = 0.5
"""After an update that the router did not answer."""
Entry = Mapping[str, object]


def entry_of(service: ServiceWish, vis: Iterable[Vi], held: frozenset[int]) -> Entry:
    """Return a service's entry.

    Args:
        vis: those of this service.
        held: numbers of the VIs that get no new task for a moment.
    """
    listed = [
        {
            "instance": vi.instance,
            "owner_epoch": vi.owner_epoch,
            "slot": vi.slot,
            "state": _state_of(vi, held),
        }
        for vi in sorted(vis, key=lambda vi: vi.number)
        if vi.is_listed
    ]
    return {"sid": service.sid, **service.router_entry, "vis": listed}


def _state_of(vi: Vi, held: frozenset[int]) -> str:
    if vi.role is Role.TWIN or vi.number in held:
        return "held"
    if vi.is_draining:
        return "draining"
    return "restricted" if vi.is_restricted else "serving"


class RouterTable:
    """The table at the router.

    Args:
        epoch: of this run of the controller, greater than that of any before.
        version: the last one that an earlier run gave.
    """

    def __init__(self, epoch: int, version: int) -> None:
        self.epoch = epoch
        self.version = version
        """The last version that was given to the router, whether or not it is in force."""
        self.due_at = math.inf
        self.refused: dict[str, str] = {}
        """Why the router does not take an entry, by SID."""
        self._wanted: dict[str, Entry] = {}
        self._given: dict[str, Entry] = {}
        """With the version under way."""
        self._base: int | None = None
        """The version in force at the router, if that is known for certain."""
        self._in_force: dict[str, Entry] = {}
        self._is_under_way = False
        self._boot = ""

    def want(self, entries: Mapping[str, Entry], now: float) -> list[Command]:
        """Take note of what the table should be, and give the router what differs."""
        self._wanted = dict(entries)
        return self._push(now)

    @property
    def is_in_charge(self) -> bool:
        """Tell whether the router took what this controller gave last: no other has its epoch."""
        return self._base is not None

    def is_in_force(self, sid: str, instance: int, state: str) -> bool:
        """Tell whether the router is known to have a VI in this state."""
        if self._base is None or sid in self.refused:
            return False
        vis = self._in_force.get(sid, {}).get("vis", ())
        assert isinstance(vis, Iterable)
        return any(vi["instance"] == instance and vi["state"] == state for vi in vis)

    def lacks(self, sid: str, instance: int) -> bool:
        """Tell whether the router is known not to list a VI."""
        if self._base is None:
            return False
        vis = self._in_force.get(sid, {}).get("vis", ())
        assert isinstance(vis, Iterable)
        return all(vi["instance"] != instance for vi in vis)

    def answered(self, event: TableAnswered, now: float) -> list[Command]:
        """The router took an update, or said what it has instead."""
        if event.fenced_by is not None and event.fenced_by >= self.epoch:
            text = f"another controller is in charge of the router: epoch {event.fenced_by}"
            return [StepDown(f"{text}, ours is {self.epoch}")]
        if not self._is_under_way or event.version != self.version:
            return []
        self._is_under_way = False
        if not event.is_in_force:
            self._base = None
            return self._push(now)
        self._base, self._in_force = event.version, self._given
        news = {sid: why for sid, why in event.refused.items() if self.refused.get(sid) != why}
        self.refused = dict(event.refused)
        notes = [
            Note(f"the router refuses service {sid}: {why}", True) for sid, why in news.items()
        ]
        return [*notes, *self._push(now)]

    def unanswered(self, event: TableUnanswered, now: float) -> list[Command]:
        """The router did not answer: give it the whole table a little later."""
        if self._is_under_way and event.version == self.version:
            self._is_under_way = False
            self._base = None
            self.due_at = now + RETRY_S
        return []

    def seen(self, event: RouterSeen, now: float) -> list[Command]:
        """Compare with what the router says that it has."""
        if event.epoch > self.epoch:
            text = f"another controller is in charge of the router: epoch {event.epoch}"
            return [StepDown(f"{text}, ours is {self.epoch}")]
        if self._is_under_way:
            return []
        is_new_boot, self._boot = event.boot != self._boot, event.boot
        if is_new_boot or (event.epoch, event.version) != (self.epoch, self._base):
            self._base = None
            return self._push(now)
        return []

    def due(self, now: float) -> list[Command]:
        """Try again."""
        return self._push(now) if now >= self.due_at else []

    def _push(self, now: float) -> list[Command]:
        if self._is_under_way or (self._base is None and now < self.due_at < math.inf):
            return []
        base = self._base
        old = {} if base is None else self._in_force
        put = {sid: entry for sid, entry in self._wanted.items() if old.get(sid) != entry}
        remove = [sid for sid in old if sid not in self._wanted]
        if base is not None and not put and not remove:
            return []
        self.due_at = math.inf
        self.version += 1
        self._given = dict(self._wanted)
        self._is_under_way = True
        return [PushTable(self.epoch, self.version, base, put, remove)]
