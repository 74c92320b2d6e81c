"""What the core tells the shell to do. Every command may be repeated; its end comes as an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packetcloud.cloudlet.core.instances import Work
from packetcloud.cloudlet.core.values import NOT_ALLOTTED, Allotment
from packetcloud.domain_controller.core.installations import SetState
from packetcloud.domain_controller.core.usage import UsageRecord


@dataclass(frozen=True, slots=True)
class DoWork:
    """Have a node do something with a container; ends with `WorkDone`.

    Attributes:
        vi_type: CREATE, RESIZE and RESTORE: the limits but for those in `limits`.
        limits: CREATE, RESIZE and RESTORE: what may be another than its type's.
        limit_s: STOP: how long it may take to end by itself.
    """

    node: str
    number: int
    work: Work
    vi_type: str = ""
    limit_s: float = 0.0
    limits: Allotment = NOT_ALLOTTED


@dataclass(frozen=True, slots=True)
class RemoveStranger:
    """Delete a container that carries our label and belongs to no VI; seen again if it fails."""

    node: str
    number: int
    why: str


@dataclass(frozen=True, slots=True)
class SendLaunch:
    """Give a VI its service; ends with `ViReady` or `ViFailed`."""

    number: int


@dataclass(frozen=True, slots=True)
class SendStop:
    """Ask a service to finish its tasks and end."""

    number: int


@dataclass(frozen=True, slots=True)
class ExportState:
    """Fetch the state of a VI; ends with `StateExported`."""

    number: int


@dataclass(frozen=True, slots=True)
class ImportState:
    """Give the state that `source` exported to its twin; ends with `StateImported`."""

    source: int
    number: int


@dataclass(frozen=True, slots=True)
class DropState:
    """Forget the state that `source` exported."""

    source: int


@dataclass(frozen=True, slots=True)
class AwaitIdle:
    """Ask the router to say when a VI has no task left; ends with `ViIdle`."""

    number: int
    limit_s: float


@dataclass(frozen=True, slots=True)
class PushTable:
    """Give the router an update; ends with `TableAnswered` or `TableUnanswered`.

    Attributes:
        base_version: the version that the items change; None: they are the whole table.
        put: entries by SID.
        remove: SIDs.
    """

    epoch: int
    version: int
    base_version: int | None
    put: Mapping[str, Mapping[str, object]]
    remove: Sequence[str]


@dataclass(frozen=True, slots=True)
class OperationEnded:
    """What somebody asked for is done, or will not be, and why.

    Attributes:
        vi: which VI it was about; of a launch and a migration the new one. None: of no single one.
    """

    operation: int
    is_done: bool
    text: str
    vi: int | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something that people should read in the log."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class StepDown:
    """Another controller is in charge: end, without touching anything."""

    text: str


@dataclass(frozen=True, slots=True)
class SayAnswer:
    """Answer a directive of the domain controller.

    Attributes:
        seen: not accepted as a directive with this higher number was seen.
    """

    epoch: int
    reservation: str
    number: int
    is_accepted: bool
    text: str = ""
    seen: int = 0


@dataclass(frozen=True, slots=True)
class SayComplete:
    """Say of which reservations there is no more usage; ends with `CompleteTaken`, or is repeated.

    Attributes:
        reservations: name, and the number of the directive that ended it here.
    """

    epoch: int
    reservations: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SayUsage:
    """Send usage records to the domain controller; ends with `UsageTaken`, or is repeated."""

    records: tuple[UsageRecord, ...]


@dataclass(frozen=True, slots=True)
class InstallRules:
    """Give the router a document of rules; ends with `RulesAnswered` or `RulesUnanswered`."""

    rule_set: str
    serial: int
    document: str


@dataclass(frozen=True, slots=True)
class SayRules:
    """Tell the domain controller what became of sets of rules.

    Attributes:
        sequence: grows with each of a run of the controller.
        is_whole: there are no others.
    """

    epoch: int
    sequence: int
    sets: tuple[SetState, ...]
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class DropDomain:
    """End the channel: what is at its other end must not have it."""

    text: str


Command = (
    DoWork
    | RemoveStranger
    | SendLaunch
    | SendStop
    | ExportState
    | ImportState
    | DropState
    | AwaitIdle
    | PushTable
    | OperationEnded
    | Note
    | StepDown
    | SayAnswer
    | SayUsage
    | SayComplete
    | DropDomain
    | InstallRules
    | SayRules
)
ToDomain = SayAnswer | SayUsage | SayComplete | SayRules | DropDomain
"""What goes over the channel, or ends it."""
