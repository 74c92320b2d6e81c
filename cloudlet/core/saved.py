"""What a controller keeps over its restarts, as the core has it in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from packetcloud.cloudlet.core.commands import OperationEnded
from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.core.migration import Migration
from packetcloud.domain_controller.core.installations import RefusedRule, RulesState
from packetcloud.domain_controller.core.usage import UsageRecord


class Awaited(StrEnum):
    """What ends an operation that somebody asked for."""

    RUNNING = "running"
    GONE = "gone"
    RESIZED = "resized"
    MIGRATED = "migrated"
    EVACUATED = "evacuated"


@dataclass(slots=True)
class Operation:
    """Something that somebody asked for and that is not done yet."""

    number: int
    awaited: Awaited
    vi: int = 0
    node: str = ""
    vi_type: str = ""
    """RESIZED: to become."""

    def ended(self, is_done: bool, text: str = "") -> OperationEnded:
        """Return the command that tells its end."""
        return OperationEnded(self.number, is_done, text, self.vi or None)


@dataclass(slots=True)
class Reserved:
    """What a reservation holds here."""

    name: str
    tenant: str | None
    """None: the ISP itself."""
    vi_type: str
    count: int
    service: str | None
    """None: places only."""
    terms: int
    """What usage has to name."""
    occurrences: tuple[tuple[int, int], ...]
    """(begin, end), ms since 1970."""
    is_running: bool
    """Its VIs are to run now."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How the last directive of a reservation was answered."""

    number: int
    is_accepted: bool
    text: str
    at_ms: int
    is_complete_unsaid: bool = False
    """It was told to forget it, and the domain does not know yet that all usage of it is said."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A span of time in which the same number of VIs ran under the same terms."""

    begin_ms: int
    end_ms: int
    vis: int
    terms: int

    def goes_on_with(self, other: Piece) -> bool:
        """Tell whether `other` is the same, later and without a gap."""
        key = (self.end_ms, self.vis, self.terms)
        return key == (other.begin_ms, other.vis, other.terms)


@dataclass(slots=True)
class Meter:
    """What counts for one reservation."""

    name: str
    number: int
    """Of its last record."""
    previous: str
    """The digest of that."""
    until_ms: int = 0
    """Until when it counted: a clock that is set back has nothing counted twice."""
    written: Piece | None = None
    """What was open when it was last written down."""
    open: Piece | None = None
    """What is counted and in no record yet. Not kept: `written` is."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Chunks that went to a VI, and bytes to and from it."""

    chunks: int = 0
    bytes: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.chunks + other.chunks, self.bytes + other.bytes)

    def __sub__(self, other: Counts) -> Counts:
        return Counts(self.chunks - other.chunks, self.bytes - other.bytes)

    def is_before(self, other: Counts) -> bool:
        """Tell whether a counter that has these cannot have had `other` before."""
        return self.chunks < other.chunks or self.bytes < other.bytes


@dataclass(frozen=True, slots=True)
class Stretch:
    """What went to and from a VI in a span of time, under the same terms."""

    begin_ms: int
    end_ms: int
    terms: int
    counts: Counts

    def takes(self, terms: int, end_ms: int, longest_ms: int) -> bool:
        """Tell whether what was counted until `end_ms` can go into the same record."""
        return terms == self.terms and 0 <= end_ms - self.begin_ms <= longest_ms


@dataclass(frozen=True, slots=True)
class TrafficState:
    """What is counted and in no record yet, and up to which of the router's counts."""

    boot: str = ""
    """Of the router that counted."""
    counts: Counts = Counts()
    """What it had counted when it was last looked at."""
    open: Stretch | None = None


@dataclass(slots=True)
class TrafficMeter:
    """What counts chunks and bytes of one VI."""

    reservation: str
    name: str
    previous: str
    """The digest of its last record."""
    number: int = 0
    """Of that."""
    until_ms: int = 0
    """Until when its records reach."""
    written: TrafficState | None = None
    """The state when it was last written down."""
    now: TrafficState = TrafficState()
    """Not kept: `written` is."""
    written_ms: int = 0
    """When that was; not kept."""


@dataclass(slots=True)
class RuleSet:
    """A set of rules that the router is to have."""

    name: str
    """The domain's id for it."""
    signer: str
    set_name: str
    serial: int
    until_ms: int | None
    """From then on none of its rules holds; None: never."""
    document: str
    """Signed; the whole of the set."""
    state: RulesState = RulesState.WAITING
    accepted_count: int = 0
    refused_count: int = 0
    revoked_count: int = 0
    text: str = ""
    refusals: tuple[RefusedRule, ...] = ()
    retry_ms: int = 0
    """REFUSED: when it is brought again."""


@dataclass(slots=True)
class Saved:
    """All of it. The core changes it in place; the shell writes it down before it does anything."""

    epoch: int = 0
    """Of the last controller that ran."""
    version: int = 0
    """Of the last update of the router's table."""
    next_number: int = 1
    """For the next VI."""
    clock_s: float = 0.0
    """Seconds since 1970 when the clock of the run that wrote it was 0: crashes, next starts and
    readiness are timed by that one."""
    vis: dict[int, Vi] = field(default_factory=dict)
    migrations: dict[int, Migration] = field(default_factory=dict)
    """By the number of the old VI."""
    operations: dict[int, Operation] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """How many VIs each service should have."""
    evacuated: set[str] = field(default_factory=set)
    """Nodes that get no VI."""
    domain_epoch: int = 0
    """The highest of a domain controller that was seen."""
    reserved: dict[str, Reserved] = field(default_factory=dict)
    """By reservation."""
    answered: dict[str, Answered] = field(default_factory=dict)
    """By reservation; also of some that are not held any more, or never were."""
    meters: dict[str, Meter] = field(default_factory=dict)
    """By reservation."""
    records: dict[tuple[str, int], UsageRecord] = field(default_factory=dict)
    """By meter and number: what no domain controller has taken yet."""
    rule_sets: dict[str, RuleSet] = field(default_factory=dict)
    """By the domain's id."""
    traffic: dict[int, TrafficMeter] = field(default_factory=dict)
    """By VI: of those that run for reservations."""
