"""The life of a reservation: an event in; the reservation afterwards, and what is to be done, out.

Commands may be lost or carried out twice: what cloudlets have to know stands in
`Reservation.directives`, and is sent until they answer.
Source: docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from packetcloud.domain_controller.core.checks import readable
from packetcloud.domain_controller.core.events import (
    Answered,
    Cancelled,
    ChangeCancelled,
    ChangeEnded,
    ChangeWished,
    Choose,
    Chosen,
    Command,
    Event,
    Forgotten,
    NotChosen,
    StateChanged,
    Tell,
    Tick,
    UsageComplete,
)
from packetcloud.domain_controller.core.quotes import Terms
from packetcloud.domain_controller.core.reservations import (
    FINAL,
    MAX_ASKED_COUNT,
    MAX_CHANGES_COUNT,
    NEXT,
    Change,
    Directive,
    Reservation,
    State,
    Wanted,
)
from packetcloud.domain_controller.core.slots import DAY_MS, SECOND_MS
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.errors import LifeError

__all__ = [
    "MAX_JUMP",
    "Answered",
    "Cancelled",
    "ChangeCancelled",
    "ChangeEnded",
    "ChangeWished",
    "Choose",
    "Chosen",
    "Command",
    "Event",
    "Forgotten",
    "LifeLimits",
    "NotChosen",
    "StateChanged",
    "Step",
    "Tell",
    "Tick",
    "UsageComplete",
    "check_change",
    "handle",
    "next_timeout",
    "request",
]
"""The words of a life are told and read together with it."""

MAX_JUMP = 1_000_000
"""By so much a number grows at once, after a restore, or up to the time in ms, at which numbers go
on after one: no cloudlet can use up all numbers."""


@dataclass(frozen=True, slots=True)
class LifeLimits:
    """How long each state may last."""

    answer_ms: int = 10 * SECOND_MS
    """For a cloudlet to answer an offer or a change; then the next one is asked."""
    request_ms: int = 60 * SECOND_MS
    """From the request until somebody said yes."""
    settle_ms: int = DAY_MS
    """For the last usage to come in after the end."""


Step = tuple[Reservation, list[Command]]


def request(name: str, tenant: str, is_third_party: bool, wish: Wish, now_ms: int) -> Step:
    """Begin the life of a reservation."""
    reservation = Reservation(
        name, tenant, is_third_party, wish, now_ms, since_ms=now_ms, requested_ms=now_ms
    )
    return reservation, [Choose()]


def handle(reservation: Reservation, event: Event, now_ms: int, limits: LifeLimits) -> Step:
    """Return the reservation after an event, and what is to be done. What is late changes nothing.

    Raises:
        LifeError: somebody asks for what the state does not allow.
    """
    life = _Life(_not_ahead(reservation, now_ms, limits), now_ms, limits)
    life.take(event)
    life.go_on()
    return life.reservation, life.commands


def next_timeout(reservation: Reservation, now_ms: int, limits: LifeLimits) -> int | None:
    """Return when `Tick` is due; None: never.

    A shell whose clock was set back gives every reservation a `Tick`: it brings deadlines near.
    """
    times: list[int] = []
    match reservation.state:
        case State.REQUESTED:
            times.append(reservation.requested_ms + limits.request_ms)
        case State.OFFERED:
            times.append(reservation.requested_ms + limits.request_ms)
            times.append(reservation.since_ms + limits.answer_ms)
        case State.CONFIRMED:
            times.append(reservation.wish.slot.begin_ms)
        case State.ACTIVE:
            slot = (reservation.change or reservation).wish.slot
            edges = [edge for pair in slot.occurrences() for edge in pair]
            times.append(min((edge for edge in edges if edge > now_ms), default=slot.last_end_ms))
        case State.ENDED:
            times.append(reservation.since_ms + limits.settle_ms)
    if reservation.change is not None:
        times.append(reservation.change.deadline_ms)
    return min(times, default=None)


def _not_ahead(reservation: Reservation, now_ms: int, limits: LifeLimits) -> Reservation:
    """Bring times that a clock left in the future back to now, or deadlines would never come."""
    change = reservation.change
    latest_ms = now_ms + limits.answer_ms
    if change is not None and change.deadline_ms > latest_ms:
        reservation = replace(reservation, change=replace(change, deadline_ms=latest_ms))
    if max(reservation.since_ms, reservation.requested_ms) <= now_ms:
        return reservation
    return replace(
        reservation,
        since_ms=min(now_ms, reservation.since_ms),
        requested_ms=min(now_ms, reservation.requested_ms),
    )


class _Life:
    """One event's way through one reservation."""

    def __init__(self, reservation: Reservation, now_ms: int, limits: LifeLimits) -> None:
        self.reservation = reservation
        self.commands: list[Command] = []
        self._now_ms = now_ms
        self._limits = limits

    def take(self, event: Event) -> None:
        match event:
            case Chosen(terms):
                self._chosen(terms)
            case NotChosen(text):
                if self.reservation.state is State.REQUESTED:
                    if self.reservation.passed:
                        # Why the one that was asked said no is what helps.
                        text = readable(f"{self.reservation.text}; {text}")
                    self._become(State.REFUSED, text)
            case Answered():
                self._answered(event)
            case Forgotten(cloudlet):
                self._remind(cloudlet)
            case Cancelled(text):
                self._cancel(text)
            case ChangeWished():
                self._begin_change(event)
            case ChangeCancelled(operation, text):
                change = self.reservation.change
                if change is not None and change.operation == operation:
                    self._drop_change(text)
            case UsageComplete(cloudlet, number):
                self._complete(cloudlet, number)
            case Tick():
                pass  # whatever is due is found by go_on

    def go_on(self) -> None:
        """Do what is due by now; a long silence may have left several steps."""
        change = self.reservation.change
        if change is not None and change.deadline_ms <= self._now_ms:
            self._drop_change("the cloudlet did not answer in time")
        while self._step():
            pass

    def _step(self) -> bool:
        reservation, now, limits = self.reservation, self._now_ms, self._limits
        match reservation.state:
            case State.REQUESTED if now >= reservation.requested_ms + limits.request_ms:
                self._become(State.EXPIRED, "no cloudlet said yes in time")
            case State.OFFERED if now >= reservation.requested_ms + limits.request_ms:
                self._release()
                self._become(State.EXPIRED, "no cloudlet said yes in time")
            case State.OFFERED if now >= reservation.since_ms + limits.answer_ms:
                silent = [one.cloudlet for one in self._parts() if not one.is_answered]
                self._ask_others(silent, f"no answer from {', '.join(silent)}")
            case State.OFFERED if all(one.is_answered for one in self._parts()):
                self._become(State.CONFIRMED, "")
            case State.CONFIRMED if now >= reservation.wish.slot.begin_ms:
                self._become(State.ACTIVE, "")
            case State.ACTIVE if now >= self._last_end_ms():
                self._end("the slot is over")
            case State.ACTIVE:
                return self._direct_parts()
            case State.ENDED if now >= reservation.since_ms + limits.settle_ms:
                self._become(State.SETTLED, "waited long enough for usage")
            case _:
                return False
        return True

    def _chosen(self, terms: Terms) -> None:
        if self.reservation.state is not State.REQUESTED:
            return
        number = self.reservation.last_number + 1
        terms = replace(terms, number=number)
        self.reservation = replace(
            self.reservation, terms=(*self.reservation.terms, terms), last_number=number
        )
        self._become(State.OFFERED, "")
        for part in terms.parts:
            self._tell(part.cloudlet, Wanted.HELD, self.reservation.wish, part.count, number)

    def _answered(self, event: Answered) -> None:
        directive = self.reservation.directive(event.cloudlet)
        if directive is None or directive.number != event.number or directive.is_answered:
            return  # late, or twice
        highest = max(directive.number + MAX_JUMP, self._now_ms)
        is_behind = directive.number < event.seen <= highest
        if is_behind and not event.is_accepted:
            number = max(self.reservation.last_number, event.seen)
            self.reservation = replace(self.reservation, last_number=number)
            self._tell(
                directive.cloudlet,
                directive.wanted,
                directive.wish,
                directive.count,
                directive.terms,
            )
        elif directive.wanted is Wanted.GONE:
            # What it refuses to forget it does not know; what it still runs its report shows.
            self._drop(event.cloudlet)
        elif event.is_accepted:
            self._put(replace(directive, is_answered=True))
            # Of one that was passed over and is away, "gone" may wait for ever.
            if self.reservation.change is not None and all(
                part.is_answered for part in self._parts()
            ):
                self._end_change()
        else:
            self._refused(event)

    def _refused(self, event: Answered) -> None:
        text = readable(f"{event.cloudlet} refused: {event.text}")
        if self.reservation.change is not None:
            self._drop_change(text)
        elif self.reservation.state is State.ACTIVE:
            self._end(f"given up by its cloudlet; {text}")
        else:
            self._ask_others([event.cloudlet], text)

    def _ask_others(self, passed: Iterable[str], text: str) -> None:
        self._release()
        reservation = self.reservation
        # What nobody answered was perhaps not told: it is taken back all the same.
        self.reservation = replace(reservation, passed=(*reservation.passed, *passed))
        self._become(State.REQUESTED, text)
        self.reservation = replace(
            self.reservation,
            requested_ms=reservation.requested_ms
            if reservation.state is State.OFFERED
            else self._now_ms,
        )
        if len(self.reservation.passed) >= MAX_ASKED_COUNT:
            self._become(State.REFUSED, f"{MAX_ASKED_COUNT} cloudlets were asked; the last: {text}")
        elif self._now_ms >= self.reservation.wish.slot.last_end_ms:
            self._become(State.EXPIRED, text)
        else:
            self.commands.append(Choose())

    def _cancel(self, text: str) -> None:
        state = self.reservation.state
        if state in FINAL or state is State.ENDED:
            raise LifeError(
                state.value,
                f"reservation {self.reservation.name} {_stands(state)}; it can be cancelled while "
                "it is requested, offered, confirmed or active",
            )
        self._drop_change("the reservation was cancelled")
        if state is State.ACTIVE:
            self._end(text)
            return
        self._release()
        self._become(State.CANCELLED, text)

    def _begin_change(self, event: ChangeWished) -> None:
        reservation = self.reservation
        check_change(reservation, event.wish)
        number = reservation.last_number + 1
        terms = replace(event.terms, number=number)
        change = Change(event.operation, event.wish, terms, self._now_ms + self._limits.answer_ms)
        self.reservation = replace(reservation, change=change, last_number=number)
        for part in terms.parts:
            before = self.reservation.directive(part.cloudlet)
            wanted = before.wanted if before is not None else Wanted.HELD
            self._tell(part.cloudlet, wanted, event.wish, part.count, number)

    def _end_change(self) -> None:
        change = self.reservation.change
        assert change is not None
        self.reservation = replace(
            self.reservation,
            wish=change.wish,
            terms=(*self.reservation.terms, change.terms),
            change=None,
        )
        self.commands.append(ChangeEnded(change.operation, True, ""))

    def _drop_change(self, text: str) -> None:
        change = self.reservation.change
        if change is None:
            return
        self.reservation = replace(self.reservation, change=None)
        self.commands.append(ChangeEnded(change.operation, False, text))
        terms = self.reservation.terms[-1]
        for part in terms.parts:
            before = self.reservation.directive(part.cloudlet)
            wanted = before.wanted if before is not None else Wanted.HELD
            self._tell(part.cloudlet, wanted, self.reservation.wish, part.count, terms.number)

    def _complete(self, cloudlet: str, number: int) -> None:
        reservation = self.reservation
        if reservation.state is not State.ENDED:
            return
        terms = reservation.terms[-1]
        if cloudlet in reservation.complete or number < terms.number:
            return  # a lower number: it was passed over once, and asked again
        complete = (*reservation.complete, cloudlet)
        self.reservation = replace(reservation, complete=complete)
        if all(part.cloudlet in complete for part in terms.parts):
            self._become(State.SETTLED, "all usage is in")

    def _remind(self, cloudlet: str) -> None:
        directive = self.reservation.directive(cloudlet)
        if directive is not None and directive.is_answered:
            self._put(replace(directive, is_answered=False))
            self.commands.append(Tell(replace(directive, is_answered=False)))

    def _end(self, text: str) -> None:
        self._drop_change("the reservation ended")
        self._release()
        self._become(State.ENDED, text)

    def _release(self) -> None:
        for directive in self._parts():
            self._tell(
                directive.cloudlet,
                Wanted.GONE,
                directive.wish,
                directive.count,
                directive.terms,
            )

    def _parts(self) -> list[Directive]:
        return [one for one in self.reservation.directives if one.wanted is not Wanted.GONE]

    def _last_end_ms(self) -> int:
        """An extension that is not answered yet keeps the reservation: its places are held."""
        change = self.reservation.change
        ends = [one.wish.slot.last_end_ms for one in (self.reservation, change) if one is not None]
        return max(ends)

    def _direct_parts(self) -> bool:
        """Have the VIs run within occurrences and not between them."""
        change = self.reservation.change
        slot = (change or self.reservation).wish.slot
        occurrences = slot.occurrences()
        is_now = any(begin <= self._now_ms < end for begin, end in occurrences)
        wanted = Wanted.RUNNING if is_now else Wanted.HELD
        wrong = [one for one in self._parts() if one.wanted is not wanted]
        for one in wrong:
            self._tell(one.cloudlet, wanted, one.wish, one.count, one.terms)
        return bool(wrong)

    def _tell(self, cloudlet: str, wanted: Wanted, wish: Wish, count: int, terms: int) -> None:
        number = self.reservation.last_number + 1
        directive = Directive(cloudlet, number, wanted, wish, count, terms)
        self.reservation = replace(self.reservation, last_number=number)
        self._put(directive)
        self.commands.append(Tell(directive))

    def _put(self, directive: Directive) -> None:
        known = {one.cloudlet: one for one in self.reservation.directives}
        known[directive.cloudlet] = directive
        self.reservation = replace(self.reservation, directives=tuple(known.values()))

    def _drop(self, cloudlet: str) -> None:
        others = (one for one in self.reservation.directives if one.cloudlet != cloudlet)
        self.reservation = replace(self.reservation, directives=tuple(others))

    def _become(self, state: State, text: str) -> None:
        before = self.reservation.state
        if state not in NEXT[before]:
            raise AssertionError(f"reservation {self.reservation.name}: {before} -> {state}")
        text = readable(text)
        self.reservation = replace(self.reservation, state=state, since_ms=self._now_ms, text=text)
        self.commands.append(StateChanged(before, state, text))


def check_change(reservation: Reservation, wish: Wish) -> None:
    """Refuse a change that cannot be, whether or not there is room for it.

    Raises:
        LifeError: the text says what can be changed, and when.
    """
    state = reservation.state
    name = reservation.name
    if state not in (State.CONFIRMED, State.ACTIVE):
        raise LifeError(
            state.value,
            f"reservation {name} {_stands(state)}; it can be changed while it is confirmed or "
            "active",
        )
    if reservation.change is not None:
        operation = reservation.change.operation
        raise LifeError(state.value, f"reservation {name} is being changed by {operation}; wait")
    if len(reservation.terms) >= MAX_CHANGES_COUNT:
        text = f"reservation {name} was changed {MAX_CHANGES_COUNT} times; make a new one"
        raise LifeError(state.value, text)
    old, new = reservation.wish, wish
    fixed: list[tuple[str, Callable[[Wish], object]]] = [
        ("vi_type", lambda one: one.vi_type),
        ("slot.begin_ms", lambda one: one.slot.begin_ms),
        ("slot.repeat.every", lambda one: one.slot.repeat and one.slot.repeat.every),
        ("constraints", lambda one: one.constraints),
    ]
    for field, of in fixed:
        if of(old) != of(new):
            raise LifeError(state.value, f"reservation {name}: {field} cannot be changed")


def _stands(state: State) -> str:
    """Return where a reservation stands, as the verb of a sentence."""
    return "has ended" if state is State.ENDED else f"is {state.value}"
