"""A world for the life of reservations: cloudlets on made-up time, a controller that is killed.

Commands and answers are lost, late or doubled; cloudlets refuse, are silent, crash and forget; the
clock steps. What was committed is kept, nothing else. The checker recomputes what is sold from the
reservations alone, second by second, without the calendar.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from packetcloud.chunk.names import NA
from packetcloud.domain_controller.core.calendar import Calendar
from packetcloud.domain_controller.core.choice import Asker, Candidate, NoPlace, change, choose
from packetcloud.domain_controller.core.cloudlets import Cloudlet, CloudletReport, NodeReport
from packetcloud.domain_controller.core.documents import from_document, to_document
from packetcloud.domain_controller.core.life import (
    Answered,
    Cancelled,
    ChangeEnded,
    ChangeWished,
    Choose,
    Chosen,
    Command,
    Event,
    Forgotten,
    LifeLimits,
    NotChosen,
    StateChanged,
    Tell,
    Tick,
    UsageComplete,
    handle,
    next_timeout,
    request,
)
from packetcloud.domain_controller.core.money import Currency
from packetcloud.domain_controller.core.packing import rooms_of
from packetcloud.domain_controller.core.prices import Price, PriceList
from packetcloud.domain_controller.core.reservations import (
    FINAL,
    HOLDING,
    NEXT,
    Directive,
    Reservation,
    State,
    Wanted,
)
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import HOUR_MS
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.errors import LifeError

S = 1000
START_MS = 1_800_000_000_000
TYPES = {"small": ViType("small", Resources(1000)), "large": ViType("large", Resources(3000))}
PRICES = PriceList("test", 1, Currency("EUR"), {1: Price(1000, 3_600_000)})
LIMITS = LifeLimits(answer_ms=5 * S, request_ms=30 * S, settle_ms=HOUR_MS)
NODES = (4000, 2000)
REPEAT_MS = 1 * S


@dataclass
class Faults:
    """How often things go wrong, as shares."""

    lost: float = 0.0
    doubled: float = 0.0
    refused: float = 0.0
    killed: float = 0.0


@dataclass
class FakeCloudlet:
    """A cloudlet's controller: it takes the directive with the highest number."""

    name: str
    known: dict[str, Directive] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    """The highest number seen of each reservation; kept also of those that are gone."""
    is_silent: bool = False

    def take(self, reservation: str, directive: Directive, refuses: bool) -> tuple[bool, str]:
        if directive.number < self.numbers.get(reservation, 0):
            return False, "an older directive"
        if directive.number == self.numbers.get(reservation) and reservation in self.known:
            return True, ""
        self.numbers[reservation] = directive.number
        if directive.wanted is Wanted.GONE:
            self.known.pop(reservation, None)
            return True, ""
        if refuses:
            self.known.pop(reservation, None)
            return False, "no"
        self.known[reservation] = directive
        return True, ""


@dataclass
class World:
    """Everything outside the core, and the state that a database keeps."""

    seed: int
    faults: Faults = field(default_factory=Faults)
    cloudlets_count: int = 3

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = START_MS
        self.skew = 0
        """By how much the controller's clock is wrong."""
        self.cloudlets = {
            f"c{number}": FakeCloudlet(f"c{number}") for number in range(self.cloudlets_count)
        }
        self.rows: dict[str, Reservation] = {}
        """What a commit leaves: each was read from its document."""
        self.history: dict[str, list[State]] = {}
        self.operations: dict[str, bool | None] = {}
        """Changes: done, not done, or still under way."""
        self.wrong: list[str] = []
        self.kills = 0
        self.sold_seconds = 0
        self._queue: list[tuple[int, int, Callable[[], object]]] = []
        self._order = 0
        self._boots()

    @property
    def clock(self) -> int:
        """What the controller takes for the time."""
        return self.now + self.skew

    # The controller

    def _boots(self) -> None:
        self.life = self.random.random()
        life = self.life
        self.later(REPEAT_MS, lambda: self._beat(life))
        for name in list(self.rows):
            if self.load(name).state is State.REQUESTED:
                self.later(1, lambda name=name: self._choose(name))  # type: ignore[misc]

    def kill(self) -> None:
        """End the controller now; another one begins with what was committed."""
        self.kills += 1
        self.life = -1.0
        self.later(self.random.randrange(1, 3 * S), self._boots)

    def load(self, name: str) -> Reservation:
        return self.rows[name]

    def ask(self, tenant: str, wish: Wish, *, is_third_party: bool = True) -> str:
        """Request a reservation; it is committed, and its places are looked for."""
        name = f"r{len(self.rows)}"
        reservation, commands = request(name, tenant, is_third_party, wish, self.clock)
        self.history[name] = [reservation.state]
        self._commit(reservation, [])
        if self.life >= 0:
            for command in commands:
                assert isinstance(command, Choose)
                self._choose(name)
        return name

    def cancel(self, name: str) -> None:
        self._event(name, Cancelled("its owner did"))

    def change(self, name: str, wish: Wish) -> None:
        """Ask for an extension or a resize; is there no room, nothing happens."""
        if self.life < 0:
            return
        reservation = self.load(name)
        if reservation.state not in (State.CONFIRMED, State.ACTIVE) or reservation.change:
            return
        part = reservation.terms[-1].parts
        calendars = {one.cloudlet: self._calendar(one.cloudlet) for one in part}
        found = change(reservation, wish, self._asker(reservation), calendars, self.clock)
        if not isinstance(found, NoPlace):
            operation = f"o{len(self.operations)}"
            self.operations[operation] = None
            self._event(name, ChangeWished(operation, wish, found.terms))

    def _event(self, name: str, event: Event) -> None:
        """One transaction; then the commands, between any two of which the controller may end."""
        if self.life < 0:
            return
        try:
            reservation, commands = handle(self.load(name), event, self.clock, LIMITS)
        except LifeError:
            return
        self._commit(reservation, commands)
        for command in commands:
            if self.random.random() < self.faults.killed:
                self.kill()
                return
            self._begin(name, command)

    def _commit(self, reservation: Reservation, commands: list[Command]) -> None:
        name = reservation.name
        for command in commands:
            if isinstance(command, StateChanged):
                if command.before is not self.history[name][-1]:
                    self.wrong.append(f"{name}: {command} after {self.history[name][-1]}")
                if command.after not in NEXT[command.before]:
                    self.wrong.append(f"{name}: {command}")
                self.history[name].append(command.after)
            elif isinstance(command, ChangeEnded):
                if self.operations[command.operation] is not None:
                    self.wrong.append(f"{name}: {command} twice")
                self.operations[command.operation] = command.is_done
        self.rows[name] = from_document(Reservation, to_document(reservation))
        self._check()

    def _begin(self, name: str, command: Command) -> None:
        match command:
            case Choose():
                self._choose(name)
            case Tell(directive):
                self._send(name, directive)
            case StateChanged(_, State.ENDED):
                self.later(self.random.randrange(S, 20 * S), lambda: self._usage(name))

    def _usage(self, name: str) -> None:
        reservation = self.load(name)
        for part in reservation.terms[-1].parts:
            self._event(name, UsageComplete(part.cloudlet, reservation.last_number))

    def _choose(self, name: str) -> None:
        reservation = self.load(name)
        if reservation.state is not State.REQUESTED:
            return
        candidates = [self._candidate(cloudlet) for cloudlet in self.cloudlets]
        found = choose(
            reservation.wish,
            self._asker(reservation),
            candidates,
            self.clock,
            reservation.passed,
        )
        if isinstance(found, NoPlace):
            self._event(name, NotChosen(found.text))
        else:
            self._event(name, Chosen(found.terms))

    def _asker(self, reservation: Reservation) -> Asker:
        vi_type = TYPES[reservation.wish.vi_type]
        return Asker(reservation.tenant, reservation.is_third_party, vi_type, PRICES)

    def _calendar(self, cloudlet: str) -> Calendar:
        holds = [
            hold
            for name in self.rows
            for hold in self.load(name).holds
            if hold.cloudlet == cloudlet
        ]
        return Calendar(rooms_of(self._report(cloudlet), 250), TYPES, holds)

    def _report(self, cloudlet: str) -> CloudletReport:
        nodes = tuple(NodeReport(f"n{i}", Resources(cpus)) for i, cpus in enumerate(NODES))
        return CloudletReport(cloudlet, 1, self.clock, nodes, na=NA(1))

    def _candidate(self, cloudlet: str) -> Candidate:
        registered = Cloudlet(cloudlet, "north", 250)
        return Candidate(registered, self._report(cloudlet), self._calendar(cloudlet))

    def _beat(self, life: float) -> None:
        """Send again what is not answered, let deadlines pass, compare with reports."""
        if life != self.life:
            return
        self.later(REPEAT_MS, lambda: self._beat(life))
        for name in list(self.rows):
            reservation = self.load(name)
            due = next_timeout(reservation, self.clock, LIMITS)
            if due is not None and due <= self.clock:
                self._event(name, Tick())
                reservation = self.load(name)
            for directive in reservation.pending:
                self._send(name, directive)
            for directive in reservation.directives:
                cloudlet = self.cloudlets[directive.cloudlet]
                if directive.is_answered and name not in cloudlet.known and not cloudlet.is_silent:
                    self._event(name, Forgotten(directive.cloudlet))

    # Cloudlets

    def _send(self, name: str, directive: Directive) -> None:
        copies = 1 + (self.random.random() < self.faults.doubled)
        for _ in range(copies):
            if self.random.random() >= self.faults.lost:
                delay = self.random.randrange(1, 2 * S)
                self.later(delay, lambda: self._arrives(name, directive))

    def _arrives(self, name: str, directive: Directive) -> None:
        cloudlet = self.cloudlets[directive.cloudlet]
        if cloudlet.is_silent:
            return
        refuses = self.random.random() < self.faults.refused
        is_accepted, text = cloudlet.take(name, directive, refuses)
        if self.random.random() < self.faults.lost:
            return
        highest = cloudlet.numbers.get(name, 0)
        seen = 0 if highest == directive.number else highest
        answer = Answered(directive.cloudlet, directive.number, is_accepted, text, seen)
        for _ in range(1 + (self.random.random() < self.faults.doubled)):
            self.later(self.random.randrange(1, S), lambda: self._event(name, answer))

    def forget(self, cloudlet: str) -> None:
        """A cloudlet loses everything that it had on disk."""
        self.cloudlets[cloudlet].known.clear()
        self.cloudlets[cloudlet].numbers.clear()

    # Time

    def later(self, delay_ms: int, call: Callable[[], object]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self._order, call))

    def run(self, duration_ms: int) -> None:
        """Let time pass."""
        end = self.now + duration_ms
        while self._queue and self._queue[0][0] <= end:
            self.now, _, call = heapq.heappop(self._queue)
            call()
        self.now = end

    # The checker

    def _check(self) -> None:
        """L6: at no time is more sold than is there, recomputed from the reservations alone."""
        sold: dict[str, list[tuple[int, int, int]]] = {}
        for reservation in self.rows.values():
            if reservation.state not in HOLDING:
                continue
            wishes = [(reservation.wish, reservation.terms[-1])]
            if reservation.change is not None:
                wishes.append((reservation.change.wish, reservation.change.terms))
            for edge in {cloudlet for _, terms in wishes for cloudlet in _cloudlets(terms)}:
                steps = [
                    (begin, end, TYPES[wish.vi_type].resources.milli_cpus * part.count)
                    for wish, terms in wishes
                    for part in terms.parts
                    if part.cloudlet == edge
                    for begin, end in wish.slot.occurrences()
                ]
                edges = sorted({time for begin, end, _ in steps for time in (begin, end)})
                for begin, end in itertools.pairwise(edges):
                    inside = [n for a, b, n in steps if a <= begin < b]
                    if inside:
                        sold.setdefault(edge, []).append((begin, end, max(inside)))
        most = sum(NODES) * 750 // 1000
        for cloudlet, steps in sold.items():
            changes = sorted(
                [(begin, 1, cpus) for begin, _, cpus in steps]
                + [(end, 0, -cpus) for _, end, cpus in steps]
            )
            level = 0
            for at, _, cpus in changes:
                level += cpus
                # Only what still comes was sold with this knowledge: a change may have cut others.
                if level > most and at >= self.clock:
                    self.wrong.append(f"{cloudlet} oversold at {at}: {level} of {most}")
                    return

    def wrongs_now(self) -> list[str]:
        """Return where a cloudlet has something else than what it said yes to."""
        wrong = list(self.wrong)
        for name, reservation in self.rows.items():
            if reservation.state in HOLDING and reservation.change is None:
                parts = {part.cloudlet: part.count for part in reservation.terms[-1].parts}
                for told in reservation.directives:
                    if told.wanted is Wanted.GONE:
                        continue
                    if (told.count, told.wish) != (parts[told.cloudlet], reservation.wish):
                        wrong.append(f"{name}: {told.cloudlet} was told another number or slot")
                    known = self.cloudlets[told.cloudlet].known.get(name)
                    if told.is_answered and told != replace(known or told, is_answered=True):
                        wrong.append(f"{name} on {told.cloudlet}: {known} instead of {told}")
                    if told.is_answered and known is None:
                        wrong.append(f"{name} on {told.cloudlet} was forgotten")
        return wrong

    def end_wrongs(self) -> list[str]:
        """Return what is not as it should be after a time without faults."""
        wrong = self.wrongs_now()
        wrong += [f"{name} never ended" for name, end in self.operations.items() if end is None]
        for name in self.rows:
            reservation = self.load(name)
            for cloudlet in self.cloudlets.values():
                known = cloudlet.known.get(name)
                told = reservation.directive(cloudlet.name)
                if reservation.state in HOLDING and told is not None:
                    if told != known and (known is None or known.number != told.number):
                        wrong.append(f"{name} on {cloudlet.name}: {known} instead of {told}")
                elif known is not None:
                    wrong.append(f"orphan: {name} on {cloudlet.name}, {reservation.state}")
            if reservation.pending:
                wrong.append(f"{name}: {reservation.pending} without an answer")
            last = reservation.wish.slot.last_end_ms
            if reservation.state is State.ENDED:
                last = reservation.since_ms + LIMITS.settle_ms
            if last + LIMITS.request_ms < self.clock and reservation.state not in FINAL:
                wrong.append(f"{name} is {reservation.state} long after its end")
        return wrong


def _cloudlets(terms: object) -> list[str]:
    return [part.cloudlet for part in terms.parts]  # type: ignore[attr-defined]
