"""What happens to a reservation, and what follows from it: the events and commands of its life."""

from __future__ import annotations

from dataclasses import dataclass

from packetcloud.domain_controller.core.quotes import Terms
from packetcloud.domain_controller.core.reservations import Directive, State
from packetcloud.domain_controller.core.wishes import Wish


@dataclass(frozen=True, slots=True)
class Chosen:
    """Places were found, and held in the same transaction."""

    terms: Terms


@dataclass(frozen=True, slots=True)
class NotChosen:
    """No cloudlet can; the text says why."""

    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A cloudlet answered a directive."""

    cloudlet: str
    number: int
    is_accepted: bool
    text: str = ""
    seen: int = 0
    """Not accepted as it has seen a higher number, this one: the domain's state was restored."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The report of a cloudlet does not show what it was told: tell it again."""

    cloudlet: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The time that `next_timeout` named has come."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Its owner, or the ISP, takes it back."""

    text: str


@dataclass(frozen=True, slots=True)
class ChangeWished:
    """Its owner wants another end or number; there is room, and it is held from now on."""

    operation: str
    wish: Wish
    terms: Terms


@dataclass(frozen=True, slots=True)
class ChangeCancelled:
    """An extension or a resize that was not agreed on yet is taken back."""

    operation: str
    text: str


@dataclass(frozen=True, slots=True)
class UsageComplete:
    """A cloudlet has forgotten it, and all records that the cloudlet made of it are in."""

    cloudlet: str
    number: int
    """Of the directive by which it was told to forget it."""


Event = (
    Chosen
    | NotChosen
    | Answered
    | Forgotten
    | Tick
    | Cancelled
    | ChangeWished
    | ChangeCancelled
    | UsageComplete
)


@dataclass(frozen=True, slots=True)
class Choose:
    """Look for places, and give the answer as `Chosen` or `NotChosen`."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a directive until it is answered, or another one for the same cloudlet takes over."""

    directive: Directive


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A row for the journal."""

    before: State
    after: State
    text: str


@dataclass(frozen=True, slots=True)
class ChangeEnded:
    """An extension or a resize is in force, or is not and will not be."""

    operation: str
    is_done: bool
    text: str


Command = Choose | Tell | StateChanged | ChangeEnded
