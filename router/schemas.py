"""What the management API answers: one model per answer. Times in seconds, sizes in bytes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from packetcloud.router.tap import DEFAULT_SNAP_BYTES, MAX_SNAP_BYTES, Point

NameStart = Annotated[str, Field(pattern="^[0-9a-f]{0,40}$")]
"""The first hex digits of a GUID or SID; empty: any."""


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
    lanes: str | None
    """Where VIs of this machine find memory to share; None: it shares none."""
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


class CountedDurations(Durations):
    """Durations since the router's start. Two such answers can be subtracted, bucket by bucket."""

    buckets: list[tuple[float, int]] | None
    """What each bucket that has any counts as, in seconds, and how many it has; null: not asked
    for."""


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
    delay_penalty: CountedDurations
    """From the moment at which a chunk's turn at this service comes until the whole verdict is
    back."""
    processing: CountedDurations
    """The part of it that the VI says it spent in the service."""
    delivery: CountedDurations
    """The rest: transfer and waiting."""
    wait: CountedDurations
    """The part of delivery before a VI had room."""


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


class CaptureQuery(BaseModel):
    """What a capture is to hold."""

    model_config = ConfigDict(extra="forbid")

    point: list[Point] = Field(default_factory=lambda: list(Point), description="Looks at chunks.")
    guid: NameStart = Field("", description="Of source or destination, as the chunk came.")
    source: NameStart = ""
    destination: NameStart = ""
    sid: NameStart = Field("", description="A service that the chunk asked for as it came.")
    rule: int | None = Field(
        None, ge=0, description="Number of a rule that decided for it, or would have (shadow)."
    )
    sample: int = Field(1, ge=1, le=1 << 32, description="One of so many chunks.")
    count: int | None = Field(None, ge=1, description="Ends after so many looks.")
    seconds: float | None = Field(None, gt=0, description="Ends after this time.")
    snap: int = Field(
        DEFAULT_SNAP_BYTES, ge=0, le=MAX_SNAP_BYTES, description="Bytes of the payload."
    )
