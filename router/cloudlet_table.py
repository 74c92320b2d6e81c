"""The table of services that the cloudlet controller owns: what an update makes of it.

An update carries the controller's epoch and a version. It is refused as a whole if it is of an
older epoch, or does not follow what is in force; each of its items is taken or refused by itself,
and a refused one changes nothing. In one slot there is one owner at a time: an instance that served
there before another does so again only with a greater epoch of ownership. No I/O here.
Source: docs/decisions/0013; docs/reference/cloudlet-table.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID, NA, SID
from packetcloud.router.settings import ServiceSettings

MAX_SERVICES_COUNT = 256
"""Services of the table, about 10 KiB each."""
MAX_VIS_COUNT = 1024
"""VIs of the table: as many as a router has neighbours."""
MAX_SLOTS_COUNT = 256
"""Slots of one service: more replicas than a cloudlet has nodes."""
MAX_OWNERS_COUNT = 8
"""Instances remembered that served in a slot: more than migrations that one mistake could undo."""
MAX_DESTINATIONS_COUNT = 1024
"""Names and addresses that one service may send to."""
MAX_ITEMS_COUNT = 2 * MAX_SERVICES_COUNT
"""Of one update: every service taken out, and every service put in."""
DEFAULT_OUTPUT_RATIO = 2.0
"""As a manifest has it that says nothing."""


class ViState(StrEnum):
    """What a VI may do."""

    SERVING = "serving"
    """It gets the tasks of its slot."""
    HELD = "held"
    """It gets no new task and finishes those it has; nobody else gets the chunks of its slot."""
    DRAINING = "draining"
    """It gets no new task and finishes those it has; the chunks of its slot go to others."""
    RESTRICTED = "restricted"
    """It serves, but may not emit, redirect, or make much more than it gets."""

    @property
    def serves(self) -> bool:
        return self in (ViState.SERVING, ViState.RESTRICTED)


class ItemReason(StrEnum):
    """Why an item is refused, or an update as a whole."""

    OWN_SERVICE = "own_service"
    """The router's own config has the SID."""
    STILL_HERE = "still_here"
    """The SID has VIs or chunks here that are not of the table."""
    NAME_IN_USE = "name_in_use"
    """Another service has the name."""
    TWICE = "twice"
    """The update has another item of this SID before it."""
    TOO_MANY_SERVICES = "too_many_services"
    TOO_MANY_VIS = "too_many_vis"
    INSTANCE_TWICE = "instance_twice"
    """Two VIs of the service with the same instance."""
    SLOT_TAKEN = "slot_taken"
    """Two VIs of the service that serve in the same slot."""
    OLD_OWNER = "old_owner"
    """Another has served in the slot since this one did, by the same epoch or a greater one."""


class UpdateReason(StrEnum):
    """Why an update is refused as a whole."""

    OLD_EPOCH = "old_epoch"
    """A controller of a later epoch has written here: this one is to stop."""
    OTHER_CONTROLLER = "other_controller"
    """The epoch is another controller's."""
    OLD_VERSION = "old_version"
    """This version, or a later one, is in force, with other content."""
    WRONG_BASE = "wrong_base"
    """It follows a version that is not in force: send a whole table."""


class TableRefusedError(PacketCloudError):
    """An update is refused as a whole, and nothing of it is in force; the text names both epochs
    and versions. After `old_epoch` stop, after `wrong_base` send a whole table."""

    def __init__(self, reason: UpdateReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ViEntry:
    """One VI that may attach."""

    instance: int
    owner_epoch: int
    slot: int
    state: ViState
    is_restricted: bool = False
    """Also while it is held or drains."""

    @property
    def is_bound(self) -> bool:
        """Tell whether it may not emit, redirect, or make much more than it gets."""
        return self.is_restricted or self.state is ViState.RESTRICTED


class Owner(NamedTuple):
    """Who serves in a slot, or did."""

    instance: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where the chunks that a service makes or redirects may go."""

    guids: frozenset[GUID]
    nas: frozenset[NA]


@dataclass(frozen=True, slots=True)
class OutputBudget:
    """What the VIs of a service may send for what they get, over time; None: any amount."""

    bytes_ratio: float | None = None
    chunks_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class InspectionPlan:
    """Which chunks to and from the VIs of a service are written down."""

    one_in: int
    """One of so many chunks, chosen by source and chunk id: the same ones at every router."""
    snap_bytes: int
    """Of each payload."""
    keep_bytes: int
    """Of each VI, the newest."""


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One service of the table."""

    settings: ServiceSettings
    vis: tuple[ViEntry, ...] = ()
    max_output_ratio: float = DEFAULT_OUTPUT_RATIO
    """Payload that a restricted VI may make of a chunk, by the payload that it got."""
    destinations: Destinations | None = None
    """None: any."""
    owners: Mapping[int, tuple[Owner, ...]] = field(default_factory=dict)
    """By slot: who served there, the last of them at the end, for as long as the slot is listed."""
    verdicts: frozenset[VerdictCode] | None = None
    """Kinds that it declared; FAILED is always one of them. None: any."""
    budget: OutputBudget | None = None
    """None: none."""
    inspection: InspectionPlan | None = None
    """None: nobody looks."""

    @property
    def sid(self) -> SID:
        return self.settings.sid

    @property
    def slots_count(self) -> int:
        return max((vi.slot + 1 for vi in self.vis), default=0)


@dataclass(frozen=True, slots=True)
class Put:
    """An item: the service is as this says from now on."""

    entry: ServiceEntry

    @property
    def sid(self) -> SID:
        return self.entry.sid


@dataclass(frozen=True, slots=True)
class Remove:
    """An item: the service is not of the table any more."""

    sid: SID


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of an item."""

    sid: SID
    reason: ItemReason | None = None
    """None: it is accepted."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TableUpdate:
    """What a controller sends."""

    controller: str
    epoch: int
    version: int
    base_version: int | None
    """The version of the same epoch that the items change; None: they are the whole table."""
    items: tuple[Put | Remove, ...]
    digest: str
    """Names the content of the update."""


Refusal = tuple[ItemReason, str]
"""Of an item: why, and in words."""

WhyNot = Callable[[SID, str], Refusal | None]
"""Returns why the router cannot let the table have a SID and a name; None: it can."""


@dataclass(frozen=True, slots=True)
class CloudletTable:
    """One version."""

    controller: str = ""
    epoch: int = 0
    """0: no controller has written here."""
    version: int = 0
    services: Mapping[bytes, ServiceEntry] = field(default_factory=dict)
    digest: str = ""
    """Of the update that made it, and what it was answered:"""
    results: tuple[ItemResult, ...] = ()

    def apply(self, update: TableUpdate, why_not: WhyNot) -> CloudletTable:
        """Return the version after an update; this one itself if the update is in force already.

        Raises:
            TableRefusedError: the update is refused as a whole.
        """
        if self._is_in_force(update):
            return self
        draft = _Draft(self.services)
        if update.base_version is None:
            named = {item.sid.value for item in update.items if isinstance(item, Put)}
            for sid in self.services.keys() - named:
                draft.remove(sid)
        seen: set[bytes] = set()
        results = []
        for item in update.items:
            refusal: Refusal | None = None
            if item.sid.value in seen:
                text = "this update has another item of this SID; allowed: one of each"
                refusal = ItemReason.TWICE, text
            elif isinstance(item, Remove):
                draft.remove(item.sid.value)
            else:
                refusal = why_not(item.sid, item.entry.settings.name) or draft.put(item.entry)
            seen.add(item.sid.value)
            results.append(ItemResult(item.sid, *refusal or (None, "")))
        return CloudletTable(
            update.controller,
            update.epoch,
            update.version,
            draft.services,
            update.digest,
            tuple(results),
        )

    def with_services(self, services: Mapping[bytes, ServiceEntry]) -> CloudletTable:
        """Return this version with other services."""
        return replace(self, services=services)

    def _is_in_force(self, update: TableUpdate) -> bool:
        """Tell whether the update was taken before.

        Raises:
            TableRefusedError: it is not the next one either.
        """
        theirs = f"epoch {update.epoch}, version {update.version} of {update.controller}"
        ours = f"epoch {self.epoch}, version {self.version} of {self.controller}"
        if update.epoch < self.epoch:
            text = f"{theirs}: {ours} is in force; a controller of an older epoch is to stop"
            raise TableRefusedError(UpdateReason.OLD_EPOCH, text)
        if update.epoch > self.epoch:
            if update.base_version is not None:
                text = f"{theirs}: {ours} is in force; a new epoch begins with a whole table"
                raise TableRefusedError(UpdateReason.WRONG_BASE, text)
            return False
        if update.controller != self.controller:
            text = f"{theirs}: {ours} is in force; two controllers cannot have the same epoch"
            raise TableRefusedError(UpdateReason.OTHER_CONTROLLER, text)
        if update.version == self.version and update.digest == self.digest:
            return True
        if update.version <= self.version:
            text = f"{theirs}: {ours} is in force, with other content; allowed: a greater version"
            raise TableRefusedError(UpdateReason.OLD_VERSION, text)
        if update.base_version not in (None, self.version):
            text = f"{theirs} follows {update.base_version}: {ours} is in force; send a whole table"
            raise TableRefusedError(UpdateReason.WRONG_BASE, text)
        return False


class _Draft:
    """The services of the next version, item after item."""

    def __init__(self, services: Mapping[bytes, ServiceEntry]) -> None:
        self.services = dict(services)
        self._sids = {entry.settings.name: sid for sid, entry in services.items()}
        self._vis_count = sum(len(entry.vis) for entry in services.values())

    def remove(self, sid: bytes) -> None:
        entry = self.services.pop(sid, None)
        if entry is not None:
            del self._sids[entry.settings.name]
            self._vis_count -= len(entry.vis)

    def put(self, entry: ServiceEntry) -> Refusal | None:
        """Take a service, or return why it cannot be taken beside the others."""
        sid, name = entry.sid.value, entry.settings.name
        old = self.services.get(sid)
        other = self._sids.get(name, sid)
        if other != sid:
            return ItemReason.NAME_IN_USE, f"service {SID(other)} is called {name} already"
        if old is None and len(self.services) >= MAX_SERVICES_COUNT:
            return ItemReason.TOO_MANY_SERVICES, f"allowed: {MAX_SERVICES_COUNT} services"
        vis_count = self._vis_count + len(entry.vis) - (len(old.vis) if old is not None else 0)
        if vis_count > MAX_VIS_COUNT:
            return ItemReason.TOO_MANY_VIS, f"allowed: {MAX_VIS_COUNT} VIs of all services"
        refusal = _refusal_of_vis(entry) or _refusal_of_owners(entry, old)
        if refusal is None:
            self.remove(sid)
            self.services[sid] = _with_owners(entry, old)
            self._sids[name] = sid
            self._vis_count = vis_count
        return refusal


def _refusal_of_vis(entry: ServiceEntry) -> Refusal | None:
    instances: set[int] = set()
    serving: dict[int, int] = {}
    for vi in entry.vis:
        if vi.instance in instances:
            text = f"instance {vi.instance} stands there twice; allowed: once"
            return ItemReason.INSTANCE_TWICE, text
        instances.add(vi.instance)
        if vi.state.serves:
            if vi.slot in serving:
                text = (
                    f"instances {serving[vi.slot]} and {vi.instance} both serve in slot {vi.slot}; "
                    "allowed: one that serves, the others held"
                )
                return ItemReason.SLOT_TAKEN, text
            serving[vi.slot] = vi.instance
    return None


def _refusal_of_owners(entry: ServiceEntry, old: ServiceEntry | None) -> Refusal | None:
    for vi in entry.vis:
        owners = old.owners.get(vi.slot, ()) if old is not None and vi.state.serves else ()
        before = next((one for one in owners if one.instance == vi.instance), None)
        if before is None:
            continue
        last = owners[-1]
        if vi.owner_epoch > last.epoch or (before is last and vi.owner_epoch == last.epoch):
            continue
        text = (
            f"slot {vi.slot} belongs to instance {last.instance} by owner_epoch {last.epoch}, "
            f"not to instance {vi.instance} by {vi.owner_epoch}; allowed: a greater one"
        )
        return ItemReason.OLD_OWNER, text
    return None


def _with_owners(entry: ServiceEntry, old: ServiceEntry | None) -> ServiceEntry:
    """Return the entry with those who serve and served in each slot that it lists."""
    slots = {vi.slot for vi in entry.vis}
    owners = {slot: known for slot, known in old.owners.items() if slot in slots} if old else {}
    for vi in entry.vis:
        if vi.state.serves:
            others = [one for one in owners.get(vi.slot, ()) if one.instance != vi.instance]
            known = (*others, Owner(vi.instance, vi.owner_epoch))
            owners[vi.slot] = known[-MAX_OWNERS_COUNT:]
    return replace(entry, owners=owners)
