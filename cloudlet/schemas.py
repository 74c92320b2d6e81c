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
    text: str = ""
    """Why it failed."""


class ResourcesInfo(BaseModel):
    """An amount of what VIs share."""

    cpus: float
    memory_bytes: int
    disk_bytes: int


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
    vis: list[int]
    protections: list[ProtectionInfo]


class ViInfo(BaseModel):
    """A VI."""

    number: int
    service: str
    vi_type: str
    node: str
    container: str
    state: str
    role: Literal["owner", "twin", "retired"]
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
    tasks: int | None
    """At the router; None: the router does not answer, or does not know the VI."""
    violations: int | None
    status: dict[str, object]


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
    text: str
    """Why it has fewer VIs than it should, or the router does not take it."""
    waiting: int | None
    oldest_waiting_s: float | None


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


class Health(BaseModel):
    """Whether the controller works, or what is wrong."""

    status: Literal["ok", "failing"]
    detail: str = ""


WaitSeconds = Annotated[float, Field(ge=0, le=60)]
