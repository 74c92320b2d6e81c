"""VIs: what the controller knows of each, what of that is kept in its database."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """Whose the service's state is."""

    OWNER = "owner"
    """It serves, and what state the service has is its own."""
    TWIN = "twin"
    """It will be the owner when a migration comes to its end."""
    RETIRED = "retired"
    """It was the owner, or never became it; what is left of it is to be removed."""


class ViState(StrEnum):
    """What a VI is doing. `life.NEXT` says which follows which."""

    PLACED = "placed"
    """Its container is to be created."""
    CREATED = "created"
    """Its container is to be started."""
    BOOTING = "booting"
    """Its container runs and has not called yet."""
    LAUNCHING = "launching"
    """It has its launch and is not ready yet."""
    RUNNING = "running"
    FAILING = "failing"
    """It is to be killed, and started again later."""
    BACKING_OFF = "backing-off"
    QUARANTINED = "quarantined"
    """It failed too often, or did what it must not; an operator may release it."""
    STOPPING = "stopping"
    """It is asked to end in good order."""
    DELETING = "deleting"
    """Its container is to be removed."""
    GONE = "gone"


class Work(StrEnum):
    """What a node is asked to do with a container; one at a time for each."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    KILL = "kill"
    DELETE = "delete"
    RESIZE = "resize"


@dataclass(slots=True)
class Vi:
    """One VI. What stands above the line is kept, the rest is found out again after a restart."""

    number: int
    """Never given twice in a cloudlet; its container's name is made of it."""
    service: str
    vi_type: str
    node: str
    instance: int
    """32 bits: which bearer of the service's key."""
    token: str = field(repr=False)
    """With it the VI proves over the control link who it is."""
    address: int
    """Number of its addresses on the two bridges."""
    slot: int = 0
    """Its place at the router: flows keep to a slot."""
    role: Role = Role.OWNER
    owner_epoch: int = 1
    """Grows by one each time the service's state in this slot gets another owner."""
    state: ViState = ViState.PLACED
    why: str = ""
    """Why it is as it is, for people."""
    restarts: int = 0
    """How often it had begun and had to begin again; an attempt that its node refused is none."""
    is_leaving: bool = False
    """It is to be removed as soon as what is under way with it is done."""
    is_draining: bool = False
    """It finishes its tasks and gets no new ones; then it leaves."""
    is_restricted: bool = False

    # ---- not kept
    pending: Work | None = None
    due_at: float = math.inf
    """When the present state has lasted too long, or the next attempt is due."""
    ready_at: float | None = None
    touched_at: float = -math.inf
    """When something was last done with its container; older observations do not count."""
    has_link: bool = False
    was_launched: bool = False
    """When it called last, its service ran."""
    is_attached: bool = False
    resize_to: str | None = None
    status: Mapping[str, object] = field(default_factory=dict)
    crashes: deque[float] = field(default_factory=deque)
    backoff_count: int = 0
    offences: deque[tuple[float, int]] = field(default_factory=deque)
    """(when, how many more), within the window of the service's conduct policy."""
    seen_violations: int = 0

    @property
    def is_listed(self) -> bool:
        """Tell whether the router is to know of it."""
        return (
            self.role is not Role.RETIRED
            and not self.is_leaving
            and self.state not in (ViState.QUARANTINED, ViState.GONE)
        )

    @property
    def counts(self) -> bool:
        """Tell whether it is one of the VIs that its service should have."""
        return self.role is Role.OWNER and not self.is_leaving and not self.is_draining
