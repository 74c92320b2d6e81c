"""A cloudlet's core and two domain controllers on made-up time, and a channel that is cut at will.

Frames may be late, twice, out of order, or of a channel that is over; either side may end between
any two steps; a controller may be stopped, and go on when another one has the cloudlet. The judge
looks at the journals afterwards, without knowing how either side decides.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from sqlalchemy import select

from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import SID
from packetcloud.cloudlet.core import commands as do
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.rows import from_rows, to_domain_rows, to_rows
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.cloudlet.core.values import CloudletSettings
from packetcloud.cloudlet.domain_link.report import report_of
from packetcloud.cloudlet.domain_link.translation import (
    answer_frame,
    complete_frame,
    event_of,
    rules_frame,
    usage_frame,
)
from packetcloud.cloudlet.surroundings import Around
from packetcloud.domain_controller.api import changes as to
from packetcloud.domain_controller.api.changes import Asking, Change
from packetcloud.domain_controller.api.kept import KeptDomain
from packetcloud.domain_controller.api.signatures import Proof
from packetcloud.domain_controller.channel.frames import AnswerFrame, decode_down, encode
from packetcloud.domain_controller.channel.kept import KeptChannel
from packetcloud.domain_controller.channel.session import ChannelEndedError, Session
from packetcloud.domain_controller.core.cloudlets import Cloudlet
from packetcloud.domain_controller.core.installations import RulesState, SetState
from packetcloud.domain_controller.core.money import Currency
from packetcloud.domain_controller.core.prices import Price, PriceList, Tier
from packetcloud.domain_controller.core.principals import Principal, Role, Service
from packetcloud.domain_controller.core.reservations import NEXT, Reservation, State
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import DAY_MS, Slot
from packetcloud.domain_controller.core.usage import Taken, UsageRecord
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.errors import DomainError
from packetcloud.domain_controller.state import (
    catalogue,
    journal,
    outbox,
    ownership,
    registry,
    reports,
    reservations,
    usage,
)
from packetcloud.domain_controller.state.answers import Asked
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.documents import load
from packetcloud.domain_controller.state.errors import StateError
from packetcloud.domain_controller.state.money_tables import TALLIES, USAGE
from packetcloud.domain_controller.state.nonces import Nonce
from packetcloud.domain_controller.state.ownership import Ownership
from packetcloud.domain_controller.state.reports import Reports
from packetcloud.domain_controller.state.tables import RESERVATIONS
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.usage import Signatures
from packetcloud.domain_controller.state.writer import Writer
from tests.functional.rule_world import Author, RuleRouter, wrongs
from tests.unit.cloudlet.core.world import SID as SIDS
from tests.unit.cloudlet.core.world import SMALL, World, settings

START_MS = 1_800_000_000_000
CLOUDLET, TENANT, RIVAL = "c1", "tenant", "rival"
IDENTITY = Identity(b"\x05" * 32)
REPORT_EVERY_MS = 2000
TYPE = ViType("small", Resources(int(SMALL.cpus * 1000), SMALL.memory_bytes, SMALL.disk_bytes))
PRICES = PriceList(
    "standard",
    1,
    Currency("EUR"),
    {1: Price(7, 3600)},
    Price(3, 1000),
    Price(1, 1 << 20),
    (Tier(1000, 1000),),
)
T = TypeVar("T")


class KilledError(BaseException):
    """A controller ends here; nothing catches it on the way."""


@dataclass
class ChannelFaults:
    """How often things go wrong, as shares of the frames or transactions."""

    cut: float = 0.0
    doubled: float = 0.0
    reordered: float = 0.0
    stale: float = 0.0
    """A frame of a channel that is over comes over this one."""
    killed: float = 0.0
    """A domain controller ends before or after a transaction, or at a frame."""
    stopped: float = 0.0
    """A domain controller is stopped at a frame, and goes on later."""
    router: float = 0.0
    """The router's answer to a document is lost, or the router is away, or loses all its rules."""


@dataclass(eq=False)
class Wire:
    """One channel."""

    controller: Controller
    life: int
    """Of the cloudlet's controller that opened it."""
    session: Session | None = None
    is_cut: bool = False


class Controller:
    """One domain controller."""

    def __init__(self, world: ChannelWorld, name: str) -> None:
        self.name = name
        self.world = world
        self.is_up = True
        self.is_stopped = False
        self.held_back: list[Callable[[], None]] = []
        """What reached it while it was stopped."""
        self.wires: list[Wire] = []
        self.start()

    def start(self) -> None:
        """Begin a life, with nothing but what is in the database."""
        world = self.world
        with world.database.reading() as connection:
            self.reports = Reports(connection)
        numbers = world.numbers
        writer: Any = self
        self.domain = KeptDomain(
            world.database, writer, self.reports, lambda: f"{next(numbers):08}", world.clock_ms
        )
        kept = KeptChannel(self.name, world.database, writer, self.domain, self.reports, _now)
        self.channel = Watched(world, kept)
        self.is_up, self.is_stopped = True, False

    async def do(
        self,
        work: Callable[[Transaction], T],
        _locks: Sequence[str] = (),
        nonce: Nonce | None = None,
        asked: Asked | None = None,
    ) -> T:
        """Do what the writer does; the controller may end just before, or just after."""
        world = self.world
        if world.chance(world.channel_faults.killed / 2):
            raise KilledError
        result = world.writer.do_blocking(work, (), nonce, asked)
        if world.chance(world.channel_faults.killed / 2):
            raise KilledError
        return result

    def guarded(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run something of this controller's; it may end there."""
        try:
            drive(coroutine)
        except KilledError:
            self.kill()

    def kill(self) -> None:
        self.is_up = False
        self.world.kills_count += 1
        self.held_back.clear()
        for wire in self.wires:
            self.world.cut(wire)
        self.wires.clear()
        self.world.later(self.world.random.uniform(0.5, 3.0), self.start)

    def stop(self) -> None:
        """It is stopped; what comes in waits, and its channels look dead to the other end."""
        self.is_stopped = True
        for wire in self.wires:
            self.world.later(1.0, lambda wire=wire: self.world.notice(wire))  # type: ignore[misc]
        self.world.later(self.world.random.uniform(2.0, 8.0), self.go_on)

    def go_on(self) -> None:
        if not self.is_up or not self.is_stopped:
            return
        self.is_stopped = False
        held_back, self.held_back = self.held_back, []
        for call in held_back:
            call()
        for wire in list(self.wires):
            self.world.deliver(wire)

    def when_it_runs(self, call: Callable[[], None]) -> None:
        if self.is_stopped:
            self.held_back.append(call)
        elif self.is_up:
            call()


class Watched:
    """The state as the channel asks it, with a witness who notes what must never be."""

    def __init__(self, world: ChannelWorld, kept: KeptChannel) -> None:
        self.world = world
        self.kept = kept
        self.signer = kept.signer
        self.open_channel = kept.open_channel
        self.waiting = kept.waiting
        self.put_report = kept.put_report
        self.compare = kept.compare

    async def directives(self, owner: Ownership, cloudlet: str, sent_before_ms: int) -> list[Any]:
        frames = await self.kept.directives(owner, cloudlet, sent_before_ms)
        self._is_owner(owner, "told the cloudlet something")
        return list(frames)

    async def answered(self, owner: Ownership, cloudlet: str, answer: AnswerFrame) -> None:
        await self.kept.answered(owner, cloudlet, answer)
        self._is_owner(owner, "wrote an answer")
        said = self.world.on_disk.answered.get(answer.reservation)
        if answer.is_accepted and (said is None or said.number < answer.number):
            self.world.wrong.append(f"{answer} is believed, and the cloudlet's disk has {said}")

    async def take(
        self,
        owner: Ownership,
        cloudlet: str,
        records: Sequence[UsageRecord],
        signatures: Signatures,
    ) -> list[Taken | None]:
        taken = await self.kept.take(owner, cloudlet, records, signatures)
        self._is_owner(owner, "wrote usage")
        return taken

    async def usage_complete(
        self, owner: Ownership, cloudlet: str, reservation: str, number: int
    ) -> None:
        await self.kept.usage_complete(owner, cloudlet, reservation, number)
        self._is_owner(owner, "wrote that usage is complete")
        disk = self.world.on_disk
        waiting = [one for one in disk.records.values() if one.reservation == reservation]
        if number == disk.answered[reservation].number and waiting:
            self.world.wrong.append(f"{reservation} is complete, and {len(waiting)} records wait")

    async def rules_said(
        self, owner: Ownership, cloudlet: str, said: Sequence[SetState], *, is_whole: bool
    ) -> Counter[RulesState]:
        states = await self.kept.rules_said(owner, cloudlet, said, is_whole=is_whole)
        self._is_owner(owner, "wrote what became of rules")
        return states

    async def remind(self, owner: Ownership, cloudlet: str, reservation: str) -> None:
        await self.kept.remind(owner, cloudlet, reservation)
        self._is_owner(owner, "wrote a reminder")

    def _is_owner(self, owner: Ownership, what: str) -> None:
        with self.world.database.reading() as connection:
            now = ownership.find(connection, owner.name)
        if now is None or now.epoch != owner.epoch:
            self.world.wrong.append(f"a controller of epoch {owner.epoch} {what}; now {now}")


@dataclass
class ChannelWorld(World):
    """The cloudlet's world, with two domain controllers on one database."""

    folder: Path = Path()
    channel_faults: ChannelFaults = field(default_factory=ChannelFaults)
    settings: CloudletSettings = field(default_factory=lambda: settings(name_at_domain=CLOUDLET))

    def __post_init__(self) -> None:
        self.numbers = itertools.count(1)
        self.kills_count = 0
        self.wire: Wire | None = None
        self.past: list[tuple[bool, str]] = []
        """Frames of channels that are over: whether up, and the text."""
        self.made: dict[tuple[str, int], bytes] = {}
        """Digests of all usage records that were ever on the cloudlet's disk."""
        self.obeyed: dict[str, int] = {}
        """By reservation, the last directive that the cloudlet wrote down."""
        self.attempts = 0
        self.sequence = 0
        self.frames_count = 0
        self.happened: Counter[str] = Counter()
        """Faults of the channel, by kind."""
        self.cut_at: int | None = None
        """Cut at this message."""
        self.ran_ms = 0
        """VI time of reservations, as containers had it."""
        self.has_rules = True
        """Else nothing is said of rules, as there are none."""
        self.rule_router = RuleRouter()
        self.author = Author(Random(self.seed), TENANT)
        self.changes: list[str] = []
        self.database = Database(f"sqlite:///{self.folder / 'domain.sqlite3'}")
        self.writer = Writer(self.database, self.clock_ms)
        self.now = 0.0
        self.writer.do_blocking(_set_up)
        super().__post_init__()
        self.controllers = [Controller(self, name) for name in ("one", "two")]
        self.later(0.5, self.look)
        self.later(0.1, self.meter)
        self.later(0.2, self.connect)
        self.later(0.3, self.look_at_rules)

    def close(self) -> None:
        self.writer.close()
        self.database.close()

    def clock_ms(self) -> int:
        return START_MS + int(self.now * 1000)

    def chance(self, share: float) -> bool:
        return share > 0 and self.random.random() < share

    @property
    def on_disk(self) -> Any:
        return self.saved

    # The cloudlet's end

    def tell(self, event: saw.Event, life: int) -> None:
        super().tell(event, life)
        for key, record in self.saved.records.items():
            if self.made.setdefault(key, record.digest) != record.digest:
                self.wrong.append(f"two usage records {key}")
        for name, said in self.saved.answered.items():
            if said.number < self.obeyed.get(name, 0):
                self.wrong.append(f"{name}: directive {said.number} after {self.obeyed[name]}")
            self.obeyed[name] = said.number

    def begin(self, command: do.Command, life: int) -> None:
        if isinstance(command, do.InstallRules):
            self.later(self.random.uniform(0.01, 0.5), lambda: self.install(command, life))
        else:
            super().begin(command, life)

    def install(self, command: do.InstallRules, life: int) -> None:
        """Give the router a document; the answer may be lost, and the router with all it had."""
        answer = self.rule_router.install(command)
        if self.chance(self.channel_faults.router):
            self.happened["router"] += 1
            fault = self.random.choice(("unanswered", "away", "empty"))
            if fault == "empty":
                self.rule_router.sets.clear()
            elif fault == "away":
                self.rule_router.is_up = False
                self.later(self.random.uniform(1.0, 8.0), self.router_back)
            answer = saw.RulesUnanswered(command.rule_set, command.serial, "no answer in time")
        self.tell(answer, life)

    def router_back(self) -> None:
        self.rule_router.is_up = True

    def look_at_rules(self) -> None:
        self.later(3.0, self.look_at_rules)
        if self.rule_router.is_up and self.is_up and self.saved.rule_sets:
            seen, life = self.rule_router.look(self.core.rule_sets.answers_count), self.life
            self.later(self.random.uniform(0.0, 1.0), lambda: self.tell(seen, life))

    def say_to_domain(self, command: do.ToDomain) -> None:
        if self.wire is None:
            return
        match command:
            case do.SayAnswer():
                self.send_up(self.wire, encode(answer_frame(command)))
            case do.SayUsage():
                self.send_up(self.wire, encode(usage_frame(command, IDENTITY)))
            case do.SayComplete():
                self.send_up(self.wire, encode(complete_frame(command)))
            case do.SayRules() if self.has_rules:
                self.send_up(self.wire, encode(rules_frame(command)))
            case do.DropDomain():
                wire = self.wire
                self.later(0.01, lambda: self.notice(wire))

    def begin_life(self) -> None:
        if self.wire is not None:
            self.cut(self.wire)
            self.wire = None
        super().begin_life()

    def connect(self) -> None:
        self.later(1.0, self.connect)
        if self.wire is not None or not self.is_up:
            return
        self.attempts += 1
        controller = self.controllers[self.attempts % 2]
        if controller.is_up and not controller.is_stopped:
            wire = self.wire = Wire(controller, self.life)
            controller.wires.append(wire)
            controller.guarded(self.open(wire, self.core.saved.domain_epoch))
            self.later(0.1, lambda: self.report(wire))

    async def open(self, wire: Wire, seen_epoch: int) -> None:
        proof = Proof("key", f"nonce-{next(self.numbers):012}", self.clock_ms() + 60_000, b"", b"")
        state = wire.controller.channel
        try:
            owner = await state.open_channel(CLOUDLET, proof, seen_epoch)
        except StateError:
            self.cut(wire)
            return

        async def send(text: str) -> None:
            self.send_down(wire, text)

        wire.session = Session(
            CLOUDLET,
            "example",
            owner,
            IDENTITY.public_key,
            state,
            send,
            self.clock_ms,
            REPORT_EVERY_MS,
        )
        await wire.session.begin()

    def report(self, wire: Wire) -> None:
        if wire is self.wire and self.is_up and not wire.is_cut:
            if self.core.inventory.is_known:
                self.sequence += 1
                self.send_up(wire, encode(report_of(self.core, self.sequence, Around())))
            self.later(REPORT_EVERY_MS / 1000, lambda: self.report(wire))

    def meter(self) -> None:
        self.later(1.0, self.meter)
        here = [one for containers in self.nodes.values() for one in containers.values()]
        for vi in self.saved.vis.values():
            if vi.reservation and any(one.number == vi.number and one.is_launched for one in here):
                self.ran_ms += 1000
        self.tell(saw.Metered(self.clock_ms()), self.life)

    # The channel

    def send_up(self, wire: Wire, text: str) -> None:
        self._send(wire, text, is_up=True)

    def send_down(self, wire: Wire, text: str) -> None:
        if self.chance(self.channel_faults.killed):
            raise KilledError
        self._send(wire, text, is_up=False)

    def _send(self, wire: Wire, text: str, *, is_up: bool) -> None:
        if wire.is_cut:
            return
        self.frames_count += 1
        faults = self.channel_faults
        self.past.append((is_up, text))
        if self.chance(faults.cut) or self.frames_count == self.cut_at:
            self.happened["cut"] += 1
            self.cut(wire)
            return
        if self.chance(faults.stopped):
            self.happened["stopped"] += 1
            wire.controller.stop()
        delays = [0.01]
        if self.chance(faults.reordered):
            self.happened["reordered"] += 1
            delays = [self.random.uniform(0.02, 2.0)]
        if self.chance(faults.doubled):
            self.happened["doubled"] += 1
            delays.append(self.random.uniform(0.02, 3.0))
        if self.chance(faults.stale):
            self.happened["stale"] += 1
            was_up, old = self.random.choice(self.past)
            self.later(0.02, lambda: self._arrive(wire, old, is_up=was_up))
        for delay in delays:
            self.later(delay, lambda: self._arrive(wire, text, is_up=is_up))

    def _arrive(self, wire: Wire, text: str, *, is_up: bool) -> None:
        if wire.is_cut:
            return
        if is_up:
            wire.controller.when_it_runs(lambda: self._receive(wire, text))
        elif wire is self.wire and wire.life == self.life:
            self.tell(event_of(decode_down(text), self.clock_ms()), self.life)

    def _receive(self, wire: Wire, text: str) -> None:
        if wire.session is not None:
            wire.controller.guarded(self._ending(wire, wire.session.receive(text)))

    def deliver(self, wire: Wire) -> None:
        """Have a controller send what waits; also one that has the cloudlet no more."""
        if wire.session is not None:
            wire.controller.guarded(self._ending(wire, wire.session.deliver()))

    async def _ending(self, wire: Wire, work: Awaitable[None]) -> None:
        try:
            await work
        except ChannelEndedError:
            if wire in wire.controller.wires:
                wire.controller.wires.remove(wire)
            self.cut(wire)

    def cut(self, wire: Wire) -> None:
        """Lose what is under way; the cloudlet notices soon, its controller never has to."""
        wire.is_cut = True
        self.later(self.random.uniform(0.01, 0.5), lambda: self.notice(wire))

    def notice(self, wire: Wire) -> None:
        if wire is self.wire:
            self.wire = None
            if wire.life == self.life:
                self.tell(saw.DomainDown(), self.life)

    # The domain

    def look(self) -> None:
        """Do what controllers do again and again."""
        self.later(0.5, self.look)
        for controller in self.controllers:
            controller.when_it_runs(lambda controller=controller: self._look(controller))  # type: ignore[misc]

    def _look(self, controller: Controller) -> None:
        controller.guarded(self._tick(controller))
        if not controller.is_up:
            return
        known = controller.reports.some_unwritten()
        self.writer.do_blocking(lambda transaction: reports.write(transaction, known))
        controller.reports.written(known)
        with self.database.reading() as connection:
            controller.reports.read_others(connection)
        for wire in list(controller.wires):
            if wire.session is not None and controller.is_up:
                with self.database.reading() as connection:
                    is_waiting = bool(drive(_waiting(connection, wire.session.sent_before_ms())))
                if is_waiting:
                    self.deliver(wire)

    async def _tick(self, controller: Controller) -> None:
        with self.database.reading() as connection:
            names = reservations.due(connection, self.clock_ms())
        for name in names:
            await controller.domain.tick(name)

    def ask(
        self, change: Change, tenant: str = TENANT, controller: Controller | None = None
    ) -> str | None:
        """Ask for a change, as a tenant does; return why not, None: it was taken."""
        controller = controller or next(
            (one for one in self.controllers if one.is_up and not one.is_stopped), None
        )
        if controller is None:
            return "nobody is there"
        proof = Proof("tenant", f"nonce-{next(self.numbers):012}", self.clock_ms(), b"", b"")
        try:
            drive(controller.domain.change(change, Asking(tenant, tenant, proof, b"")))
        except KilledError:
            controller.kill()
        except (DomainError, StateError) as error:
            return str(error)
        return None

    def wish_something(self) -> None:
        """Ask for something by chance."""
        begin_ms = self.clock_ms() + self.random.choice((1000, 5000, 20_000))
        length_ms = self.random.choice((5000, 15_000, 30_000))
        count = self.random.choice((1, 1, 2, 3))
        names = [one.name for one in self.kept() if one.state in (State.CONFIRMED, State.ACTIVE)]
        change: Change = to.Reserve(
            TENANT,
            True,
            Wish(TYPE.name, count, Slot(begin_ms, begin_ms + length_ms), service="beta"),
        )
        if names and self.chance(0.5):
            name = self.random.choice(names)
            change = self.random.choice(
                (
                    to.Resize(name, count),
                    to.Extend(name, self.clock_ms() + 2 * length_ms),
                    to.CancelReservation(name),
                )
            )
        self.changes.append(f"{self.now:.1f} {change}: {self.ask(change)}")

    def publish_something(self) -> None:
        """Give the domain a document of rules, or withdraw a set, by chance."""
        change = self.author.change(self.clock_ms())
        self.changes.append(f"{self.now:.1f} {change}: {self.ask(change)}")

    def kept(self) -> list[Reservation]:
        with self.database.reading() as connection:
            texts = connection.execute(select(RESERVATIONS.c.document)).scalars()
            return [load(Reservation, one) for one in texts]

    def charged_ms(self) -> int:
        """Return the VI time of all records that the domain has."""
        with self.database.reading() as connection:
            return sum(connection.execute(select(USAGE.c.quantity)).scalars())

    def kept_on_disk(self) -> Saved:
        """Return what a database would give back now."""
        return from_rows(copy.deepcopy(to_rows(self.saved) | to_domain_rows(self.saved)))

    # The judge

    def judge(self) -> list[str]:
        """Return what is not as it was promised, after a time without faults."""
        found = [*self.wrong, *self.end_wrongs_of_cloudlet(), *self._wrong_in_journal()]
        found += wrongs(self.database, self.rule_router, self.clock_ms())
        with self.database.reading() as connection:
            rows = connection.execute(select(USAGE)).all()
            stored = {(row.meter, row.number): bytes(row.digest) for row in rows}
            if usage.evidence(connection):
                found.append("usage came in two versions")
            billed = sum(row.quantity for row in rows if row.not_billed is None)
            counted = sum(connection.execute(select(TALLIES.c.quantity)).scalars())
            if sum(usage.balances(connection).values()):
                found.append("the accounts do not add up")
            if journal.verify(connection) is not None:
                found.append("the journal is broken")
            records = [usage.record_of(row) for row in rows]
        for key, digest in self.made.items():
            if key not in self.saved.records and stored.get(key) != digest:
                found.append(f"usage record {key} is lost")
        found += [f"usage record {key}: nobody made it" for key in stored.keys() - self.made.keys()]
        if self.saved.records:
            found.append(f"{len(self.saved.records)} usage records were never taken")
        # A change that the cloudlet agreed to, and whose answer came too late, was not agreed on.
        not_billed = [row for row in rows if row.not_billed not in (None, "no_terms")]
        found += [f"not billed: {row.not_billed}: {row}" for row in not_billed]
        if billed != counted:
            found.append(f"{billed} were used and {counted} are on the accounts")
        return [*found, *_overlaps(records)]

    def end_wrongs_of_cloudlet(self) -> list[str]:
        """Compare what runs with what is reserved."""
        wanted = {
            one.name: directive.count
            for one in self.kept()
            for directive in one.directives
            if directive.wanted.value == "running"
        }
        running = {
            name: len(self.core.reservations.running(name))
            for name in {vi.reservation for vi in self.saved.vis.values()} - {""}
        }
        return [
            f"{name}: {running.get(name, 0)} VIs run, {wanted.get(name, 0)} should"
            for name in sorted(wanted.keys() | running.keys())
            if wanted.get(name, 0) != running.get(name, 0)
        ]

    def _wrong_in_journal(self) -> list[str]:
        found, last = [], dict[str, State]()
        after = 0
        with self.database.reading() as connection:
            while events := journal.read(connection, after):
                after = events[-1].number
                for note in (event.note for event in events if event.note.kind == "reservation"):
                    change = json.loads(note.document)
                    before, now = State(change["before"]), State(change["after"])
                    if now not in NEXT[before] or last.get(note.subject, before) is not before:
                        found.append(f"{note.subject}: {last.get(note.subject)} -> {note.document}")
                    last[note.subject] = now
        return found


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits")


async def _now(work: Callable[[], T]) -> T:
    return work()


async def _waiting(connection: Any, before_ms: int) -> bool:
    return bool(outbox.waiting(connection, [CLOUDLET], before_ms))


def _set_up(transaction: Transaction) -> None:
    registry.add_cloudlet(transaction, Cloudlet(CLOUDLET, "north", 250))
    registry.add_principal(transaction, Principal(CLOUDLET, Role.CLOUDLET))
    for name in (TENANT, RIVAL):
        registry.add_principal(transaction, Principal(name, Role.TENANT))
    registry.put_vi_type(transaction, TYPE)
    service = Service("beta", TENANT, SID.from_hex(SIDS["beta"]), "image")
    registry.put_service(transaction, service, transaction.now_ms + DAY_MS)
    catalogue.put_price_list(transaction, PRICES, 0)


def _overlaps(records: Sequence[UsageRecord]) -> list[str]:
    """Name records that charge for the same time."""
    found = []
    ordered = sorted(records, key=lambda one: (one.reservation, one.begin_ms))
    for one, other in itertools.pairwise(ordered):
        if one.reservation == other.reservation and other.begin_ms < one.end_ms:
            found.append(f"charged twice: {one} and {other}")
    return found
