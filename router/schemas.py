"""What the management API answers: one model per answer. Times in seconds, sizes in bytes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """Whether the router is alive, or ready for traffic; `detail` says why not."""

    status: Literal["ok", "failing"]
    detail: str = ""


class Conservation(BaseModel):
    """Every chunk ever in custody. `balance` is zero when none was lost or doubled."""

    taken_in: int
    originated: int
    restored: int
    """Taken over from an earlier process."""
    sent_on: int
    delivered: int
    replaced: int
    refused: int
    expired: int
    dropped: int
    held: int
    balance: int


class Reload(BaseModel):
    """The last time the config was read again."""

    succeeded: bool
    detail: str


class Spool(BaseModel):
    """What lies on disk."""

    custody: Literal["memory", "durable"]
    records: int
    used_bytes: int
    max_bytes: int
    disk_bytes: int
    """Of all files, what is dead and the reserve included."""
    spilled: int
    restored: int
    stored: int
    damaged: int
    error: str
    """Why the disk takes nothing now; empty while it does."""


class Info(BaseModel):
    """The router itself."""

    name: str
    guid: str
    na: int
    version: str
    listen: str
    uptime_s: float
    is_draining: bool
    held_bytes: int
    store_bytes: int
    conservation: Conservation
    refused_at_door: dict[str, int]
    """Chunks that were never in custody, by reason."""
    refused: dict[str, int]
    expired: dict[str, int]
    dropped: dict[str, int]
    """By service."""
    reports_sent: int
    reports_undeliverable: int
    hop: dict[str, int]
    spool: Spool | None
    """None: there is no spool."""
    reload: Reload | None


class NeighbourInfo(BaseModel):
    """A host, router or VI; a configured router also while it is away."""

    guid: str
    role: Literal["host", "router", "service"]
    name: str
    is_up: bool
    address: str | None
    queued_bytes: int
    waiting: int
    """Chunks that wait for it to come back."""
    waiting_bytes: int
    flows: int


class Durations(BaseModel):
    """A distribution of durations; quantiles are right within 4 %."""

    count: int
    sum_s: float
    p50_s: float
    p99_s: float


class ViInfo(BaseModel):
    """One attached VI."""

    number: int
    address: str
    tasks: int
    tasks_bytes: int
    state: Literal["serving", "draining", "late"]


class ServiceInfo(BaseModel):
    """One service of the cloudlet."""

    sid: str
    name: str
    is_listed: bool
    priority: int
    fail_policy: Literal["open", "closed"]
    deadline_ms: int
    vis: list[ViInfo]
    waiting: int
    tasks: int
    verdicts: dict[str, int]
    missed_deadlines: int
    retried: int
    late_verdicts: int
    skipped: int
    dropped: int
    emitted: int
    delay_penalty: Durations
    """From the start of forwarding to a VI until the whole verdict is back."""
    processing: Durations
    """The part of it that the VI says it spent in the service."""
    delivery: Durations
    """The rest: transfer and waiting."""


class HeldChunk(BaseModel):
    """One chunk in custody."""

    source: str
    chunk_id: str
    destination: str
    sid: str
    size_bytes: int
    phase: str
    held_s: float
    expires_in_s: float


class HeldChunks(BaseModel):
    """Some of the chunks in custody, those with the least time left at the top."""

    total: int
    chunks: list[HeldChunk]
