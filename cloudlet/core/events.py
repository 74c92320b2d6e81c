"""What the shell tells the core: what was seen, what came of commands, what people want."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from packetcloud.cloudlet.core.instances import Evidence, Work
from packetcloud.cloudlet.core.values import CloudletSettings, Resources
from packetcloud.domain_controller.core.installations import RefusedRule


class Outcome(StrEnum):
    """How a piece of work on a container ended."""

    DONE = "done"
    MISSING = "missing"
    """There is no such container."""
    NO_ROOM = "no-room"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    """The node did not answer; it may have done it all the same."""


@dataclass(frozen=True, slots=True)
class ContainerSeen:
    """One container with this cloudlet's label on a node."""

    number: int
    instance: int
    is_running: bool
    violations: tuple[str, ...] = ()
    """What in its live configuration a VI must not have."""
    differences: tuple[str, ...] = ()
    """Where its live configuration is not what the controller asked for."""


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node answered."""

    node: str
    asked_at: float
    capacity: Resources
    free: Resources
    """What is free by measurement, whatever is reserved."""
    containers: tuple[ContainerSeen, ...]


@dataclass(frozen=True, slots=True)
class NodeSilent:
    """A node did not answer."""

    node: str
    text: str


@dataclass(frozen=True, slots=True)
class WorkDone:
    """A node ended a piece of work; the text is for people."""

    number: int
    work: Work
    outcome: Outcome
    text: str = ""


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A VI called over the control link and proved who it is.

    Attributes:
        is_launched: its service runs already: the controller is what was away.
    """

    number: int
    is_launched: bool


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The control link of a VI ended."""

    number: int


@dataclass(frozen=True, slots=True)
class ViReady:
    """The service in a VI started."""

    number: int


@dataclass(frozen=True, slots=True)
class ViStatus:
    """A VI reported how it is."""

    number: int
    status: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class EgressDenied:
    """A VI tried to reach what it may not in the IP network, so often since the last time."""

    number: int
    packets: int


@dataclass(frozen=True, slots=True)
class ViFailed:
    """A VI said why it cannot go on; `is_config`: the same would happen again."""

    number: int
    text: str
    is_config: bool = False


@dataclass(frozen=True, slots=True)
class StateExported:
    """The state of a VI is with the shell, whole; or it is not, and `text` says why."""

    number: int
    is_done: bool
    text: str = ""


@dataclass(frozen=True, slots=True)
class StateImported:
    """A twin took over the state; or it did not, and `text` says why."""

    number: int
    is_done: bool
    text: str = ""


@dataclass(frozen=True, slots=True)
class IdleAnswer:
    """What the router says of a VI that is to have no task left.

    Attributes:
        is_idle: it is held or draining and has no task; one that is not attached has none either.
        is_attached: its session is there: what it was given, it has answered.
        boot, epoch, version: which start of the router says so, by which table.
    """

    is_idle: bool
    is_attached: bool
    boot: str
    epoch: int
    version: int


@dataclass(frozen=True, slots=True)
class ViIdle:
    """The router was asked to wait for a VI's last task; None: it did not answer."""

    number: int
    answer: IdleAnswer | None


@dataclass(frozen=True, slots=True)
class TableAnswered:
    """The router answered to an update of its table.

    Attributes:
        is_in_force: the version is in force, but for the items in `refused`.
        fenced_by: the epoch of another controller that is in force, the same as ours or a later
            one; None: there is none.
        version_there: the version in force there, where this one is not.
    """

    version: int
    is_in_force: bool
    refused: Mapping[str, str]
    fenced_by: int | None = None
    version_there: int = 0


@dataclass(frozen=True, slots=True)
class TableUnanswered:
    """The router did not answer; it may have taken the update all the same."""

    version: int
    text: str


@dataclass(frozen=True, slots=True)
class ViAtRouter:
    """What the router says of one VI."""

    is_attached: bool
    tasks: int
    violations: Mapping[str, int] = field(default_factory=dict)
    """By kind, since the router's table lists it."""
    evidence: tuple[Evidence, ...] = ()
    """The last of them, the newest at the end."""
    to_chunks: int = 0
    """Chunks that it was given, since the router's table lists it and the router runs."""
    to_bytes: int = 0
    from_bytes: int = 0
    """Size of its verdicts."""


@dataclass(frozen=True, slots=True)
class ServiceAtRouter:
    """What the router says of one service."""

    waiting: int
    oldest_wait_s: float
    penalty_p99_s: float | None
    vis: Mapping[int, ViAtRouter]
    """By instance."""


@dataclass(frozen=True, slots=True)
class RouterSeen:
    """The router answered what is in force there."""

    boot: str
    epoch: int
    version: int
    services: Mapping[str, ServiceAtRouter]
    """By SID."""


@dataclass(frozen=True, slots=True)
class RouterSilent:
    """The router did not answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Configured:
    """The operator changed the settings."""

    settings: CloudletSettings


@dataclass(frozen=True, slots=True)
class Tick:
    """The time that `next_timeout` named has come."""


@dataclass(frozen=True, slots=True)
class LaunchWished:
    """One VI more for a service; `node`: there, if it has room."""

    operation: int
    service: str
    vi_type: str | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True)
class StopWished:
    """A VI is to go, and not to be replaced; `is_drained`: when it has no task left."""

    operation: int
    number: int
    is_drained: bool


@dataclass(frozen=True, slots=True)
class RestartWished:
    """A VI is to start again, also out of quarantine and restrictions."""

    operation: int
    number: int


@dataclass(frozen=True, slots=True)
class ResizeWished:
    """A VI is to become of another type, without a restart."""

    operation: int
    number: int
    vi_type: str


@dataclass(frozen=True, slots=True)
class MigrateWished:
    """A VI is to move; `node` None: to the least loaded."""

    operation: int
    number: int
    node: str | None = None


@dataclass(frozen=True, slots=True)
class EvacuateWished:
    """Every VI of a node is to move, and none may come; `is_over`: it may be used again."""

    operation: int
    node: str
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class DomainUp:
    """A domain controller has the channel, as of an epoch."""

    epoch: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class DomainDown:
    """No domain controller has the channel."""


@dataclass(frozen=True, slots=True)
class Directed:
    """What the domain controller wants of a reservation.

    Attributes:
        tenant: None: the ISP itself.
        resources: of one VI, as it was sold.
        terms: what usage has to name.
        occurrences: (begin, end), ms since 1970, in order.
    """

    epoch: int
    reservation: str
    number: int
    is_gone: bool
    is_running: bool
    tenant: str | None
    vi_type: str
    resources: Resources
    count: int
    service: str | None
    sid: str | None
    terms: int
    occurrences: tuple[tuple[int, int], ...]
    at_ms: int


@dataclass(frozen=True, slots=True)
class CompleteTaken:
    """The domain controller knows of these that there is no more usage: name and number."""

    epoch: int
    reservations: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class UsageTaken:
    """The domain controller has these records: (meter, number, what became of it)."""

    epoch: int
    records: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True, slots=True)
class OrphanSaid:
    """The domain controller knows of no place for a reservation here."""

    epoch: int
    reservation: str
    text: str


@dataclass(frozen=True, slots=True)
class RulesSaid:
    """The domain controller wants a set of rules at the router: a signed document, its whole.

    Attributes:
        until_ms: from then on none of its rules holds; None: never.
    """

    epoch: int
    rule_set: str
    signer: str
    set_name: str
    serial: int
    until_ms: int | None
    document: str


@dataclass(frozen=True, slots=True)
class RulesAnswered:
    """The router judged a document.

    Attributes:
        named: the signer, set and serial that it read; None: it refused the whole document.
        is_replayed: it refused it as it has this one, or a newer one.
        text: why it refused it as a whole.
        refusals: the first of the rules that it refused.
    """

    rule_set: str
    serial: int
    named: tuple[str, str, int] | None
    accepted_count: int = 0
    refused_count: int = 0
    refusals: tuple[RefusedRule, ...] = ()
    is_replayed: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class RulesUnanswered:
    """The router did not take a document in; it may have installed it all the same."""

    rule_set: str
    serial: int
    text: str


@dataclass(frozen=True, slots=True)
class SetAtRouter:
    """A set of rules that the router has."""

    serial: int
    rules_count: int
    revoked_count: int
    """Of these, rules out of force as a grant was taken back."""


@dataclass(frozen=True, slots=True)
class RulesSeen:
    """Every set of rules that the router has, by signer and name.

    Attributes:
        answers_count: how many documents it had judged when it was asked.
    """

    answers_count: int
    sets: Mapping[tuple[str, str], SetAtRouter]


@dataclass(frozen=True, slots=True)
class Metered:
    """Time to look what runs for whom; about once a second."""

    at_ms: int


RulesEvent = RulesSaid | RulesAnswered | RulesUnanswered | RulesSeen
DomainEvent = DomainUp | DomainDown | Directed | UsageTaken | CompleteTaken | OrphanSaid | Metered
Wish = LaunchWished | StopWished | RestartWished | ResizeWished | MigrateWished | EvacuateWished
ViEvent = (
    WorkDone
    | LinkUp
    | LinkDown
    | ViReady
    | ViStatus
    | ViFailed
    | StateExported
    | StateImported
    | ViIdle
    | EgressDenied
)
"""What happens to one VI, which `number` names."""
Event = (
    NodeSeen
    | NodeSilent
    | ViEvent
    | TableAnswered
    | TableUnanswered
    | RouterSeen
    | RouterSilent
    | Configured
    | Tick
    | Wish
    | DomainEvent
    | RulesEvent
)
