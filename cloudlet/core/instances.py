"""VIs: what the controller knows of each, what of that is kept in its database."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from packetcloud.cloudlet.core.stages import LaunchTimes, Stage
from packetcloud.cloudlet.core.values import NOT_ALLOTTED, Allotment

MAX_CHARGES_COUNT = 16
"""Kept of each VI: enough to see what it was restricted and stopped for; the log has the rest."""
MAX_CHARGE_CHARS = 500
"""Of each: some ten keys of a configuration, or the last evidence."""
MAX_EVIDENCE_COUNT = 8
"""Kept of each VI, the last ones, as the router does."""


class Role(StrEnum):
    """Whose the service's state is."""

    OWNER = "owner"
    """It serves, and what state the service has is its own."""
    TWIN = "twin"
    """It will be the owner when a migration comes to its end."""
    STANDBY = "standby"
    """It waits to become either; it has no service yet."""
    RETIRED = "retired"
    """It was the owner, or never became it; what is left of it is to be removed."""


class ViState(StrEnum):
    """What a VI is doing. `states.NEXT` says which follows which."""

    PLACED = "placed"
    """Its container is to be created."""
    CREATED = "created"
    """Its container is to be started."""
    BOOTING = "booting"
    """Its container runs and has not called yet."""
    WAITING = "waiting"
    """It called, and is a standby: it has no launch yet."""
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
    RESTORE = "restore"
    """Give it the configuration that it was made with."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A violation that the router saw: which chunk, and what is wrong."""

    kind: str
    source: str
    """GUID of the chunk's source."""
    chunk_id: int
    text: str


@dataclass(frozen=True, slots=True)
class Charge:
    """Something that a VI did, or that was found with it, and what followed."""

    at_s: float
    """Seconds since 1970."""
    text: str


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
    is_condemned: bool = False
    """When it has ended it is not started again, until an operator lets it."""
    resize_to: str | None = None
    """The type that it is about to have: its container may have the one or the other's limits."""
    restrictions: int = 0
    """How often it was restricted, since an operator last let it start again."""
    restricted_until_s: float = 0.0
    """Seconds since 1970."""
    violations: Mapping[str, int] = field(default_factory=dict)
    """By kind, all that the router told, over its restarts."""
    counted: Mapping[str, int] = field(default_factory=dict)
    """Of these, as the router had counted when it was last looked at: it may begin anew."""
    counted_boot: str = ""
    """Which life of the router counted them; empty: not known."""
    evidence: tuple[Evidence, ...] = ()
    """The last `MAX_EVIDENCE_COUNT`, the newest at the end: the router forgets whom it does not
    list, and everybody at its restart."""
    record: tuple[Charge, ...] = ()
    """The last `MAX_CHARGES_COUNT`, the newest at the end."""
    image: str = ""
    """Fingerprint of what its container is made of."""
    boot_cpus: float = 0.0
    """Processors that it may have until it is ready; 0: it starts with the limits of its type."""
    allotted: Allotment = NOT_ALLOTTED
    """The limits of its container, as far as a node said that they are so."""

    reservation: str = ""
    """For which it runs; empty: its service's own."""
    crashes: deque[float] = field(default_factory=deque)
    """When it crashed, within the window of its service's restart policy."""
    backoff_count: int = 0
    """How often its delay was doubled."""
    ready_at: float | None = None
    """Since when it runs."""

    # ---- not kept
    pending: Work | None = None
    giving: Allotment | None = None
    """The limits that the work under way gives it."""
    due_at: float = math.inf
    """When the present state has lasted too long, or the next start is due; that one is kept."""
    retry_at: float = math.inf
    """When what is pending, and its node did not answer, is to be repeated."""
    launch: LaunchTimes | None = None
    """Of its last launch; None: an earlier run of the controller launched it."""
    touched_at: float = -math.inf
    """When something was last done with its container; older observations do not count."""
    heard_at: float = -math.inf
    """When it called, or said that it is alive."""
    has_link: bool = False
    was_launched: bool = False
    """When it called last, its service ran."""
    is_attached: bool = False
    status: Mapping[str, object] = field(default_factory=dict)
    offences: deque[tuple[float, int]] = field(default_factory=deque)
    """(when, how many more), within the window of the service's conduct policy."""
    restriction_ends_at: float = math.inf
    is_astray: bool = False
    """Its container was found to be another than it was made as, and is to be put right."""
    denied_rest: int = 0
    """Denied tries in the IP network that are no whole violation yet."""

    def reached(self, stage: Stage, now: float) -> None:
        """Note how far its launch is."""
        if self.launch is not None:
            self.launch.reached(stage, now)

    @property
    def is_listed(self) -> bool:
        """Tell whether the router is to know of it."""
        return (
            self.role in (Role.OWNER, Role.TWIN)
            and not self.is_leaving
            and self.state not in (ViState.QUARANTINED, ViState.GONE)
        )

    @property
    def is_judged(self) -> bool:
        """Tell whether it answers for what the router saw: also while it drains, or is a twin."""
        return self.role in (Role.OWNER, Role.TWIN) and not self.is_leaving

    @property
    def is_barred(self) -> bool:
        """Tell whether only an operator may have it start again, here or elsewhere."""
        return self.is_condemned or self.state is ViState.QUARANTINED

    @property
    def is_ready_to_launch(self) -> bool:
        """Tell whether it is a standby that could have a service now."""
        return (
            self.role is Role.STANDBY
            and self.state is ViState.WAITING
            and self.has_link
            and not self.is_leaving
            and not self.is_draining
        )

    @property
    def counts(self) -> bool:
        """Tell whether it is one of the VIs that its service should have."""
        return self.role is Role.OWNER and not self.is_leaving and not self.is_draining

    def change_clock(self, shift_s: float, now: float) -> None:
        """Take over the times of an earlier run, whose clock showed `shift_s` less.

        Nothing was in the future, though this machine's wall clock may have been set back.
        """
        self.crashes = deque(min(at + shift_s, now) for at in self.crashes)
        if self.ready_at is not None:
            self.ready_at = min(self.ready_at + shift_s, now)
        self.due_at += shift_s

    def inherit(self, other: Vi) -> None:
        """Take over what another VI of its slot is charged with, beside what it did itself."""
        ends = [vi.restriction_ends_at for vi in (self, other) if vi.is_restricted]
        self.is_restricted |= other.is_restricted
        self.restricted_until_s = max(self.restricted_until_s, other.restricted_until_s)
        self.restriction_ends_at = max(ends, default=math.inf)
        self.offences = deque(sorted((*self.offences, *other.offences)))
        self.remember(other)

    def remember(self, other: Vi) -> None:
        """Keep the record of another VI of its slot, which goes, and how often that was restricted.

        What it is still under is not this one's: it did nothing itself, and has tasks.
        """
        self.restrictions += other.restrictions
        both = sorted((*self.record, *other.record), key=lambda charge: charge.at_s)
        self.record = tuple(both[-MAX_CHARGES_COUNT:])

    def pardon(self) -> None:
        """Charge it with nothing any more; its record stays."""
        self.is_condemned = self.is_restricted = False
        self.restrictions = 0
        self.restricted_until_s = 0.0
        self.restriction_ends_at = math.inf
        self.offences.clear()

    def charge(self, text: str, at_s: float) -> None:
        """Put something on its record."""
        shown = text if len(text) <= MAX_CHARGE_CHARS else f"{text[:MAX_CHARGE_CHARS]}..."
        self.record = (*self.record, Charge(at_s, shown))[-MAX_CHARGES_COUNT:]
