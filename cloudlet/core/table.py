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
RETRY_REFUSED_S = 5.0
"""After an item that it refused: what is in the way there may be gone by then."""
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
            **_state_of(vi, held),
        }
        for vi in sorted(vis, key=lambda vi: vi.number)
        if vi.is_listed
    ]
    return {"sid": service.sid, **service.router_entry, "vis": listed}


def _state_of(vi: Vi, held: frozenset[int]) -> Entry:
    if vi.role is Role.TWIN or vi.number in held:
        state = "held"
    elif vi.is_draining:
        state = "draining"
    else:
        return {"state": "restricted" if vi.is_restricted else "serving"}
    # What it has left to finish is bound all the same.
    return {"state": state, "restricted": True} if vi.is_restricted else {"state": state}


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
        self.refused: dict[str, str] = {}
        """Why the router does not take an entry, by SID."""
        self._refused_entries: dict[str, Entry] = {}
        """What it did not take; not given again before `_refused_until`."""
        self._refused_until = math.inf
        self._silent_until = math.inf
        """After an update that was not answered, when the next is due."""
        self._wanted: dict[str, Entry] = {}
        self._given: PushTable | None = None
        """The update under way."""
        self._base: int | None = None
        """The version in force at the router, if that is known for certain."""
        self._in_force: dict[str, Entry] = {}
        """What it has of each service, where that is known."""
        self._unknown: set[str] = set()
        """SIDs of which it refused what we gave, and kept what we do not know."""
        self.boot = ""
        """Of the router, when it was looked at last."""

    def want(self, entries: Mapping[str, Entry], now: float) -> list[Command]:
        """Take note of what the table should be, and give the router what differs."""
        self._wanted = dict(entries)
        for sid in [sid for sid in self.refused if self._in_force.get(sid) == entries.get(sid)]:
            if sid not in self._unknown:  # what it has is wanted again
                del self.refused[sid]
                self._refused_entries.pop(sid, None)
        return self._push(now)

    @property
    def due_at(self) -> float:
        """When `due` is to be called; infinite: never."""
        if self._given is not None:
            return math.inf
        return self._silent_until if self._base is None else self._refused_until

    @property
    def is_in_charge(self) -> bool:
        """Tell whether the router took what this controller gave last: no other has its epoch."""
        return self._base is not None

    def is_in_force(self, sid: str, instance: int, state: str) -> bool:
        """Tell whether the router is known to have a VI in this state."""
        if self._base is None:
            return False
        vis = self._in_force.get(sid, {}).get("vis", ())
        assert isinstance(vis, Iterable)
        return any(vi["instance"] == instance and vi["state"] == state for vi in vis)

    @property
    def version_in_force(self) -> int:
        """The version that the router is known to have; 0: it is not known."""
        return self._base or 0

    def lacks(self, sid: str, instance: int) -> bool:
        """Tell whether the router is known not to list a VI."""
        if self._base is None or sid in self._unknown:
            return False
        vis = self._in_force.get(sid, {}).get("vis", ())
        assert isinstance(vis, Iterable)
        return all(vi["instance"] != instance for vi in vis)

    def answered(self, event: TableAnswered, now: float) -> list[Command]:
        """The router took an update, or said what it has instead."""
        if event.fenced_by is not None and event.fenced_by >= self.epoch:
            text = f"another controller is in charge of the router: epoch {event.fenced_by}"
            return [StepDown(f"{text}, ours is {self.epoch}")]
        given = self._given
        if given is None or event.version != given.version:
            return []
        self._given = None
        if not event.is_in_force:
            self._base = None
            self.version = max(self.version, event.version_there)
            return self._push(now)
        self._take_in(given, event.refused, now)
        news = {sid: why for sid, why in event.refused.items() if self.refused.get(sid) != why}
        kept = {sid: why for sid, why in self.refused.items() if sid in self._refused_entries}
        self.refused = {**kept, **event.refused}
        notes = [
            Note(f"the router refuses service {sid}: {why}", True) for sid, why in news.items()
        ]
        return [*notes, *self._push(now)]

    def unanswered(self, event: TableUnanswered, now: float) -> list[Command]:
        """The router did not answer: give it the whole table a little later."""
        if self._given is not None and event.version == self._given.version:
            self._given = None
            self._base = None
            self._silent_until = now + RETRY_S
        return []

    def seen(self, event: RouterSeen, now: float) -> list[Command]:
        """Compare with what the router says that it has."""
        if event.epoch > self.epoch:
            text = f"another controller is in charge of the router: epoch {event.epoch}"
            return [StepDown(f"{text}, ours is {self.epoch}")]
        if self._given is not None:
            return []
        is_new_boot, self.boot = event.boot != self.boot, event.boot
        if is_new_boot or (event.epoch, event.version) != (self.epoch, self._base):
            self._base = None
            return self._push(now)
        return []

    def due(self, now: float) -> list[Command]:
        """Try again."""
        return self._push(now) if now >= self.due_at else []

    def _take_in(self, given: PushTable, refused: Mapping[str, str], now: float) -> None:
        """Note what the router has after an update, of which it refused some items."""
        if given.base_version is None:
            # Of what it refused it kept what it had of the service; nobody here knows what that is.
            self._in_force, self._refused_entries, self._unknown = {}, {}, set(refused)
        for sid in (*given.put, *given.remove):
            self._refused_entries.pop(sid, None)
            if sid not in refused:
                self._in_force.pop(sid, None)
                self._unknown.discard(sid)
        for sid, entry in given.put.items():
            (self._refused_entries if sid in refused else self._in_force)[sid] = entry
        self._base = given.version
        if not self._refused_entries:
            self._refused_until = math.inf
        elif refused:
            self._refused_until = now + RETRY_REFUSED_S

    def _push(self, now: float) -> list[Command]:
        if self._given is not None or (self._base is None and now < self._silent_until < math.inf):
            return []
        base = self._base
        known = {} if base is None else self._in_force
        is_retry = base is None or now >= self._refused_until
        put = {
            sid: entry
            for sid, entry in self._wanted.items()
            if known.get(sid) != entry and (is_retry or self._refused_entries.get(sid) != entry)
        }
        there = () if base is None else (*known, *self._unknown)
        remove = [sid for sid in there if sid not in self._wanted]
        if is_retry:
            self._silent_until = self._refused_until = math.inf
        if base is not None and not put and not remove:
            return []
        self.version += 1
        self._given = PushTable(self.epoch, self.version, base, put, remove)
        return [self._given]
