"""Reservations: what is kept of one, and what it holds. Values; `life` changes them.

Source: design, section 9; docs/reference/reservations.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest

from packetcloud.domain_controller.core.calendar import Hold
from packetcloud.domain_controller.core.checks import (
    check_bool,
    check_integer,
    check_name,
    check_text,
    check_time,
)
from packetcloud.domain_controller.core.cloudlets import MAX_SEQUENCE, MAX_VIS_COUNT
from packetcloud.domain_controller.core.quotes import Terms
from packetcloud.domain_controller.core.wishes import Wish

MAX_ASKED_COUNT = 16
"""Cloudlets that one reservation asks in turn before it is refused."""
MAX_CHANGES_COUNT = 100
"""Extensions and resizes of one reservation; each leaves terms that usage may name, about 500
bytes that are written with each change of state."""


class State(StrEnum):
    """Where a reservation is in its life."""

    REQUESTED = "requested"
    """Accepted; no cloudlet has it yet."""
    OFFERED = "offered"
    """Held, its price is fixed, its cloudlets are asked."""
    CONFIRMED = "confirmed"
    """Its cloudlets said yes."""
    ACTIVE = "active"
    """The slot began."""
    ENDED = "ended"
    """The slot is over; usage may still come."""
    SETTLED = "settled"
    """All usage is in and billed, or was waited for long enough."""
    REFUSED = "refused"
    """No cloudlet could."""
    EXPIRED = "expired"
    """Nobody said yes in time."""
    CANCELLED = "cancelled"
    """Taken back before the slot began."""


HOLDING = frozenset({State.OFFERED, State.CONFIRMED, State.ACTIVE})
"""States in which a reservation has places."""
FINAL = frozenset({State.SETTLED, State.REFUSED, State.EXPIRED, State.CANCELLED})

NEXT: dict[State, frozenset[State]] = {
    State.REQUESTED: frozenset(
        {State.OFFERED, State.REFUSED, State.EXPIRED, State.CANCELLED},
    ),
    State.OFFERED: frozenset(
        {State.CONFIRMED, State.REQUESTED, State.EXPIRED, State.CANCELLED},
    ),
    State.CONFIRMED: frozenset({State.ACTIVE, State.REQUESTED, State.CANCELLED}),
    State.ACTIVE: frozenset({State.ENDED}),
    State.ENDED: frozenset({State.SETTLED}),
    **dict.fromkeys(FINAL, frozenset()),
}
"""The transitions; there are no others."""


class Wanted(StrEnum):
    """What a cloudlet should make of a reservation."""

    HELD = "held"
    """Keep the places; run nothing."""
    RUNNING = "running"
    """Have the VIs run."""
    GONE = "gone"
    """Stop the VIs and forget the reservation."""


@dataclass(frozen=True, slots=True)
class Directive:
    """The last thing that a cloudlet was told of a reservation. It may be repeated for ever.

    A cloudlet drops a directive with a lower number than the highest it has seen of a reservation.
    """

    cloudlet: str
    number: int
    wanted: Wanted
    wish: Wish
    count: int
    """VIs on this cloudlet."""
    terms: int
    """The number of the terms that usage has to name from now on."""
    is_answered: bool = False

    def __post_init__(self) -> None:
        check_name("directive.cloudlet", self.cloudlet)
        check_integer("directive.number", self.number, 1, MAX_SEQUENCE)
        check_integer("directive.count", self.count, 1, MAX_VIS_COUNT)
        check_integer("directive.terms", self.terms, 1, MAX_SEQUENCE)
        check_bool("directive.is_answered", self.is_answered)


@dataclass(frozen=True, slots=True)
class Change:
    """An extension or a resize that the cloudlets were asked for."""

    operation: str
    """Who waits for its end."""
    wish: Wish
    terms: Terms
    deadline_ms: int

    def __post_init__(self) -> None:
        check_name("change.operation", self.operation)
        check_time("change.deadline_ms", self.deadline_ms)


@dataclass(frozen=True, slots=True)
class Reservation:
    """All that is kept of a reservation."""

    name: str
    tenant: str
    is_third_party: bool
    wish: Wish
    created_ms: int
    state: State = State.REQUESTED
    since_ms: int = 0
    """When it came into this state."""
    requested_ms: int = 0
    """When places were last looked for."""
    text: str = ""
    """Why it is in this state, for people."""
    terms: tuple[Terms, ...] = ()
    """All that were ever agreed on or offered; the last ones are in force."""
    directives: tuple[Directive, ...] = ()
    """At most one for each cloudlet; none for one that is done with it."""
    passed: tuple[str, ...] = ()
    """Cloudlets that are not asked again."""
    last_number: int = 0
    """Of terms and directives."""
    change: Change | None = None
    complete: tuple[str, ...] = ()
    """ENDED: cloudlets of which all usage is in."""

    def __post_init__(self) -> None:
        check_name("reservation.name", self.name)
        check_name("reservation.tenant", self.tenant)
        check_bool("reservation.is_third_party", self.is_third_party)
        for field in ("created_ms", "since_ms", "requested_ms"):
            check_time(f"reservation.{field}", getattr(self, field))
        check_text("reservation.text", self.text)
        check_integer("reservation.last_number", self.last_number, 0, MAX_SEQUENCE)

    @property
    def pending(self) -> tuple[Directive, ...]:
        """What cloudlets were told and did not answer: to be sent again."""
        return tuple(one for one in self.directives if not one.is_answered)

    def directive(self, cloudlet: str) -> Directive | None:
        """Return what a cloudlet was told last; None: nothing, or it is done with it."""
        return next((one for one in self.directives if one.cloudlet == cloudlet), None)

    @property
    def holds(self) -> tuple[Hold, ...]:
        """What it has on cloudlets; while a change is asked for, enough for both."""
        if self.state not in HOLDING:
            return ()
        now = dict(_counts(self.wish, self.terms[-1]))
        later = dict(_counts(self.change.wish, self.change.terms)) if self.change else {}
        return tuple(
            Hold(
                cloudlet,
                self.name,
                self.tenant,
                begin,
                end,
                self.wish.vi_type,
                count,
                self.is_third_party,
            )
            for cloudlet in now
            for begin, end, count in _both(now[cloudlet], later.get(cloudlet, ()))
        )


_Step = tuple[int, int, int]
"""Begin, end, VIs."""


def _counts(wish: Wish, terms: Terms) -> Iterator[tuple[str, tuple[_Step, ...]]]:
    occurrences = wish.slot.occurrences()
    for part in terms.parts:
        yield part.cloudlet, tuple((begin, end, part.count) for begin, end in occurrences)


def _both(now: tuple[_Step, ...], later: tuple[_Step, ...]) -> Iterator[_Step]:
    """Yield the larger of two numbers of VIs at each time; occurrences begin at the same times."""
    for one, other in zip_longest(now, later):
        if one is None or other is None:
            yield one or other
            continue
        begin, shorter, longer = one[0], *sorted((one, other), key=lambda step: step[1])
        if shorter[2] <= longer[2] or shorter[1] == longer[1]:
            yield begin, longer[1], max(shorter[2], longer[2])
        else:
            yield begin, shorter[1], shorter[2]
            yield shorter[1], longer[1], longer[2]
