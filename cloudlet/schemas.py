"""What the controller's API takes and answers. Times in seconds, sizes in bytes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LaunchRequest(_Strict):
    """One VI more for a service."""

    service: str
    vi_type: str | None = None
    node: str | None = None


class StopRequest(_Strict):
    """A VI is to go."""

    drain: bool = False
    """When it has no task left."""


class ResizeRequest(_Strict):
    """A VI is to become of another type."""

    vi_type: str


class MigrateRequest(_Strict):
    """A VI is to move."""

    node: str | None = None
    """None: to the least loaded node."""


class EvacuateRequest(_Strict):
    """Every VI of a node is to move away."""

    over: bool = False
    """It may be used again."""


class OperationAccepted(BaseModel):
    """What was asked for is under way, or already at its end: ask for it."""

    operation: int


class OperationInfo(BaseModel):
    """Something that was asked for."""

    operation: int
    state: Literal["running", "done", "failed"]
    vi: int | None = None
    """Which VI it is about; of a launch and a migration the new one. None: no single one."""
    text: str = ""
    """Why it failed."""


class ResourcesInfo(BaseModel):
    """An amount of what VIs share."""

    cpus: float
    memory_bytes: int
    disk_bytes: int
    io_per_s: int = 0
    """Reads and writes; of a node: as its config declares."""


class ProtectionInfo(BaseModel):
    """One protection of a node."""

    name: str
    is_active: bool
    cost: str
    remedy: str


class NodeInfo(BaseModel):
    """A compute node."""

    name: str
    state: Literal["ready", "evacuated", "silent", "lost", "unknown"]
    text: str
    """Why it is silent."""
    capacity: ResourcesInfo
    reserved: ResourcesInfo
    free: ResourcesInfo
    """By measurement."""
    available: ResourcesInfo
    """For the ISP's own VIs."""
    available_to_third_parties: ResourcesInfo
    set_aside: ResourcesInfo
    """For the ISP: third parties' VIs together leave so much of the capacity."""
    boosted_cpus: float
    """What VIs have for their start above what is reserved for them."""
    vis: list[int]
    protections: list[ProtectionInfo]


class ChargeInfo(BaseModel):
    """Something that a VI did, or that was found with it, and what followed."""

    at_s: float
    """Seconds since 1970."""
    text: str


class EvidenceInfo(BaseModel):
    """A violation that the router saw: which chunk, and what is wrong."""

    kind: str
    source: str
    """GUID of the chunk's source."""
    chunk_id: int
    text: str


class LaunchInfo(BaseModel):
    """How far the last launch of a VI is."""

    began_at: float
    """On the monotonic clock of the controller's machine."""
    took_s: dict[str, float]
    """From then to each stage that it has behind it, by name."""


class EgressInfo(BaseModel):
    """What a VI may do in the IP network, and did."""

    is_open: bool
    """Whether it may now: its service was launched, and it is not restricted or on its way out."""
    granted: list[str]
    """What its service is granted."""
    listens: list[int]
    """Ports of its node that lead to it now."""
    denied_packets: int
    """Tries to reach what it may not, since this controller began."""
    denied_bytes: int
    connections: int
    """That began."""
    connections_refused: int
    """That were too many."""


class ViInfo(BaseModel):
    """A VI."""

    number: int
    service: str
    vi_type: str
    node: str
    container: str
    state: str
    role: Literal["owner", "twin", "standby", "retired"]
    slot: int
    instance: int
    owner_epoch: int
    restarts: int
    is_attached: bool
    has_link: bool
    is_restricted: bool
    is_draining: bool
    is_leaving: bool
    why: str
    reservation: str | None
    """For which it runs; None: its service's own."""
    tasks: int | None
    """At the router; None: the router does not answer, or does not know the VI."""
    violations: dict[str, int]
    """By kind, since the router's table lists it; of one that was stopped, until then."""
    evidence: list[EvidenceInfo]
    """The last violations, the newest at the end."""
    restrictions: int
    """How often it was restricted, since an operator last let it start again."""
    restricted_until_s: float | None
    """Seconds since 1970."""
    record: list[ChargeInfo]
    """The last sixteen, the newest at the end."""
    egress: EgressInfo | None
    """None: nothing is granted."""
    status: dict[str, object]
    launch: LaunchInfo | None
    """None: an earlier run of the controller launched it."""


class ServiceInfo(BaseModel):
    """A declared service."""

    name: str
    sid: str
    owner: str | None
    vi_type: str
    replicas_min: int
    replicas_max: int
    wanted: int
    running: int
    standbys: int
    """VIs that wait for a launch, of so many as it should have:"""
    standbys_wanted: int
    text: str
    """Why it has fewer VIs than it should, or the router does not take it."""
    waiting: int | None
    oldest_waiting_s: float | None


class DomainInfo(BaseModel):
    """The domain controller that sells the cloudlet's places, as this side sees it."""

    url: str
    name: str
    """Under which it knows the cloudlet."""
    is_connected: bool
    text: str
    """Why it is not."""
    epoch: int
    """The highest that was seen."""
    reservations: int
    waiting_records: int
    """Usage records that it has not taken yet."""


class StatusInfo(BaseModel):
    """The controller itself."""

    name: str
    epoch: int
    table_version: int
    router: Literal["ready", "silent"]
    router_text: str
    vis: int
    migrations: int
    operations: int
    control_listen: str
    domain: DomainInfo | None
    """None: the config file names none."""


class Health(BaseModel):
    """Whether the controller works, or what is wrong."""

    status: Literal["ok", "failing"]
    detail: str = ""


WaitSeconds = Annotated[float, Field(ge=0, le=60)]
