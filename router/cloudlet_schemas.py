"""The cloudlet's table in the management API and on disk: updates, answers, what is in force.

Times in seconds, sizes in bytes. Source: docs/reference/cloudlet-table.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID, NA, SID
from packetcloud.router.cloudlet_table import (
    DEFAULT_OUTPUT_RATIO,
    MAX_DESTINATIONS_COUNT,
    MAX_ITEMS_COUNT,
    MAX_SLOTS_COUNT,
    MAX_VIS_COUNT,
    CloudletTable,
    Destinations,
    InspectionPlan,
    ItemReason,
    ItemResult,
    OutputBudget,
    Owner,
    Put,
    Remove,
    ServiceEntry,
    TableUpdate,
    ViEntry,
    ViState,
)
from packetcloud.router.config import Label, NameText, SidText
from packetcloud.router.schemas import Durations
from packetcloud.router.settings import FailPolicy, RulesFrom, ServiceSettings
from packetcloud.router.tap import DEFAULT_SNAP_BYTES

Number = Annotated[int, Field(ge=1, le=(1 << 63) - 1, strict=True)]
"""An epoch or a version: it grows."""
Instance = Annotated[int, Field(ge=0, le=0xFFFF_FFFF, strict=True)]
"""Which bearer of a service's key a VI is."""
Ratio = Annotated[float, Field(ge=1, le=100_000)]
"""What may come out for what goes in: at least as much, or nothing could be sent on as it is."""
VerdictWord = Literal["forward", "update", "drop", "redirect", "emit"]
MAX_INSPECTED_SNAP_BYTES = 64 << 10
"""Half of what is kept of a VI has room for several."""
_CODES: Mapping[VerdictWord, VerdictCode] = {
    "forward": VerdictCode.FORWARD,
    "update": VerdictCode.UPDATE,
    "drop": VerdictCode.DROP,
    "redirect": VerdictCode.REDIRECT,
    "emit": VerdictCode.EMIT,
}
_DEFAULT = ServiceSettings(SID(bytes(20)), "")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ViItem(_Strict):
    """A VI that may attach."""

    instance: Instance
    owner_epoch: Number
    slot: Annotated[int, Field(ge=0, lt=MAX_SLOTS_COUNT, strict=True)]
    state: ViState
    restricted: bool = False
    """What it has left to finish is bound as that of a restricted VI; for `held` and `draining`."""


class InspectionItem(_Strict):
    """Which chunks to and from the VIs of a service are written down."""

    one_in: Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)] = 100
    """One of so many chunks, chosen by source and chunk id."""
    snap_bytes: Annotated[int, Field(ge=0, le=MAX_INSPECTED_SNAP_BYTES, strict=True)] = (
        DEFAULT_SNAP_BYTES
    )
    """Of each payload."""
    keep_mib: Annotated[int, Field(ge=1, le=1024, strict=True)] = 16
    """Of each VI, the newest."""

    def to_plan(self) -> InspectionPlan:
        return InspectionPlan(self.one_in, self.snap_bytes, self.keep_mib << 20)

    @classmethod
    def of(cls, plan: InspectionPlan) -> Self:
        return cls(one_in=plan.one_in, snap_bytes=plan.snap_bytes, keep_mib=plan.keep_bytes >> 20)


class ServiceItem(_Strict):
    """A service with its VIs; what is left out has the defaults of the router's config."""

    sid: SidText
    name: Label
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000, strict=True)] = 0
    fail_policy: FailPolicy = _DEFAULT.fail_policy
    deadline_ms: Annotated[int, Field(ge=50, le=3_600_000, strict=True)] = _DEFAULT.deadline_ms
    grace_s: Annotated[float, Field(ge=0, le=86_400)] = _DEFAULT.grace_s
    max_attempts: Annotated[int, Field(ge=1, le=1000, strict=True)] = _DEFAULT.max_attempts
    rules_from: RulesFrom = _DEFAULT.rules_from
    keeps_flows: Annotated[bool, Field(strict=True)] = _DEFAULT.keeps_flows
    max_output_ratio: Annotated[float, Field(ge=0, le=1000)] = DEFAULT_OUTPUT_RATIO
    allowed_destinations: (
        Annotated[
            list[NameText | Annotated[int, Field(ge=1, le=0xFFFF_FFFF, strict=True)]],
            Field(max_length=MAX_DESTINATIONS_COUNT),
        ]
        | None
    ) = None
    """GUIDs and NAs; null: any."""
    verdicts: list[VerdictWord] | None = None
    """Kinds of verdicts that its VIs may give, besides `failed`; null: any."""
    output_bytes_ratio: Ratio | None = None
    """Bytes that a VI may send for each that it gets, over time; null: any."""
    output_chunks_ratio: Ratio | None = None
    """The same of chunks."""
    inspection: InspectionItem | None = None
    """Null: nobody looks."""
    vis: Annotated[list[ViItem], Field(max_length=MAX_VIS_COUNT)] = []

    def to_entry(self, owners: Mapping[int, tuple[Owner, ...]] | None = None) -> ServiceEntry:
        names = self.allowed_destinations
        settings = ServiceSettings(
            SID.from_hex(self.sid),
            self.name,
            priority=self.priority,
            fail_policy=self.fail_policy,
            deadline_ms=self.deadline_ms,
            grace_s=self.grace_s,
            max_attempts=self.max_attempts,
            rules_from=self.rules_from,
            keeps_flows=self.keeps_flows,
        )
        return ServiceEntry(
            settings,
            tuple(
                ViEntry(vi.instance, vi.owner_epoch, vi.slot, vi.state, vi.restricted)
                for vi in self.vis
            ),
            self.max_output_ratio,
            None if names is None else _destinations(names),
            owners or {},
            None if self.verdicts is None else frozenset(_CODES[word] for word in self.verdicts),
            self._budget(),
            None if self.inspection is None else self.inspection.to_plan(),
        )

    def _budget(self) -> OutputBudget | None:
        if self.output_bytes_ratio is None and self.output_chunks_ratio is None:
            return None
        return OutputBudget(self.output_bytes_ratio, self.output_chunks_ratio)

    @classmethod
    def of(cls, entry: ServiceEntry) -> Self:
        settings, allowed = entry.settings, entry.destinations
        budget = entry.budget or OutputBudget()
        return cls(
            sid=entry.sid.hex,
            name=settings.name,
            priority=settings.priority,
            fail_policy=settings.fail_policy,
            deadline_ms=settings.deadline_ms,
            grace_s=settings.grace_s,
            max_attempts=settings.max_attempts,
            rules_from=settings.rules_from,
            keeps_flows=settings.keeps_flows,
            max_output_ratio=entry.max_output_ratio,
            allowed_destinations=None if allowed is None else _names_of(allowed),
            verdicts=None if entry.verdicts is None else _words_of(entry.verdicts),
            output_bytes_ratio=budget.bytes_ratio,
            output_chunks_ratio=budget.chunks_ratio,
            inspection=None if entry.inspection is None else InspectionItem.of(entry.inspection),
            vis=[
                ViItem(
                    instance=vi.instance,
                    owner_epoch=vi.owner_epoch,
                    slot=vi.slot,
                    state=vi.state,
                    restricted=vi.is_restricted,
                )
                for vi in entry.vis
            ],
        )


class Item(_Strict):
    """One change: a service put in as a whole, or taken out."""

    put: ServiceItem | None = None
    remove: SidText | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.put is None) == (self.remove is None):
            raise ValueError("allowed: either put or remove")
        return self

    def to_item(self) -> Put | Remove:
        if self.put is not None:
            return Put(self.put.to_entry())
        assert self.remove is not None, "one of the two is there"
        return Remove(SID.from_hex(self.remove))


class Update(_Strict):
    """What a controller sends."""

    controller: Label
    epoch: Number
    version: Number
    base_version: Number | None = None
    """The version of the same epoch that the items change; null: they are the whole table."""
    items: Annotated[list[Item], Field(max_length=MAX_ITEMS_COUNT)]

    def to_update(self) -> TableUpdate:
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()
        items = tuple(item.to_item() for item in self.items)
        return TableUpdate(
            self.controller, self.epoch, self.version, self.base_version, items, digest
        )


class ItemAnswer(BaseModel):
    """What became of an item."""

    sid: str
    accepted: bool
    reason: ItemReason | None
    """Null: it is accepted."""
    detail: str = ""


class UpdateAnswer(BaseModel):
    """What is in force after an update, and on disk."""

    epoch: int
    version: int
    items: list[ItemAnswer]

    @classmethod
    def of(cls, table: CloudletTable) -> Self:
        items = [_answer(result) for result in table.results]
        return cls(epoch=table.epoch, version=table.version, items=items)


class TableRefusal(BaseModel):
    """Why a request about the table is refused, and what is in force."""

    reason: str
    detail: str
    controller: str
    epoch: int
    version: int


class OwnerRecord(_Strict):
    """Who serves in a slot, or did; the last of them at the end."""

    slot: int
    instance: int
    owner_epoch: int


class StoredService(_Strict):
    """A service of the table on disk."""

    service: ServiceItem
    owners: list[OwnerRecord]


class StoredTable(_Strict):
    """The table on disk."""

    format: Literal["packetcloud-cloudlet-table-1"] = "packetcloud-cloudlet-table-1"
    controller: str
    epoch: int
    version: int
    digest: str
    results: list[ItemAnswer]
    services: list[StoredService]

    def to_table(self) -> CloudletTable:
        entries = []
        for stored in self.services:
            owners: dict[int, tuple[Owner, ...]] = {}
            for one in stored.owners:
                known = owners.get(one.slot, ())
                owners[one.slot] = (*known, Owner(one.instance, one.owner_epoch))
            entries.append(stored.service.to_entry(owners))
        return CloudletTable(
            self.controller,
            self.epoch,
            self.version,
            {entry.sid.value: entry for entry in entries},
            self.digest,
            tuple(
                ItemResult(SID.from_hex(one.sid), one.reason, one.detail) for one in self.results
            ),
        )

    @classmethod
    def of(cls, table: CloudletTable) -> Self:
        return cls(
            controller=table.controller,
            epoch=table.epoch,
            version=table.version,
            digest=table.digest,
            results=[_answer(result) for result in table.results],
            services=[
                StoredService(
                    service=ServiceItem.of(entry),
                    owners=[
                        OwnerRecord(slot=slot, instance=one.instance, owner_epoch=one.epoch)
                        for slot, known in entry.owners.items()
                        for one in known
                    ],
                )
                for entry in table.services.values()
            ],
        )


class EvidenceReport(BaseModel):
    """A violation: which chunk, and what is wrong."""

    kind: str
    source: str
    """GUID of the chunk's source."""
    chunk_id: int
    ago_s: float
    text: str


class ViReport(BaseModel):
    """One VI: what the table says of it, and, while it is attached, how it is."""

    instance: int
    owner_epoch: int
    slot: int
    state: ViState
    restricted: bool = False
    """By its state, or while it is held or drains."""
    attached: bool
    number: int | None
    """Which VI this is since the router's start; null: it is not attached. What follows is of this
    attachment."""
    tasks: int
    tasks_bytes: int
    waiting: int
    """Chunks that wait because its slot is held."""
    waiting_bytes: int
    to_chunks: int
    """Tasks that it was given; this and the next three also of earlier attachments, while it was
    listed: within one `boot_id` they only grow."""
    to_bytes: int
    from_chunks: int
    """Verdicts."""
    from_bytes: int
    verdicts: dict[str, int]
    violations: dict[str, int]
    """By kind; these and their evidence also of earlier attachments, while it was listed."""
    evidence: list[EvidenceReport]
    """The last of them, the newest at the end."""
    delay_penalty: Durations
    """Of the last 10 to 20 s."""


class ServiceReport(BaseModel):
    """One service of the table."""

    sid: str
    name: str
    priority: int
    waiting: int
    """Chunks that wait for a VI, those of held slots included."""
    waiting_bytes: int
    oldest_waiting_s: float | None
    """How long the router has the one that it took first; null: none waits."""
    held_slots: list[int]
    verdicts: dict[str, int]
    violations: dict[str, int]
    delay_penalty: Durations
    """Of the last 10 to 20 s."""
    vis: list[ViReport]


class TableReport(BaseModel):
    """The table in force, and how its services are."""

    boot_id: str
    """A new one at each start of the router."""
    controller: str
    epoch: int
    """0: no controller has written here."""
    version: int
    problem: str
    """Why the router started without the table that it had; empty if it did not."""
    services: list[ServiceReport]


class IdleAnswer(BaseModel):
    """Whether a VI that is held or draining has come to the end of its tasks."""

    idle: bool
    """It has no task and gets none: it is held or draining. False: time is over, or it serves."""
    attached: bool
    state: ViState
    tasks: int
    tasks_bytes: int
    boot_id: str
    epoch: int
    version: int


def _answer(result: ItemResult) -> ItemAnswer:
    return ItemAnswer(
        sid=result.sid.hex,
        accepted=result.reason is None,
        reason=result.reason,
        detail=result.detail,
    )


def _words_of(codes: frozenset[VerdictCode]) -> list[VerdictWord]:
    return [word for word, code in _CODES.items() if code in codes]


def _destinations(names: list[str | int]) -> Destinations:
    return Destinations(
        frozenset(GUID.from_hex(name) for name in names if isinstance(name, str)),
        frozenset(NA(name) for name in names if isinstance(name, int)),
    )


def _names_of(allowed: Destinations) -> list[str | int]:
    return [*sorted(guid.hex for guid in allowed.guids), *sorted(na.value for na in allowed.nas)]
