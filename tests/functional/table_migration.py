"""A migration under load on the simulated network, as a cloudlet controller drives it.

Two VIs of one service number the chunks that they see; the number is the state that moves. Judged
are the promises of every simulation, and beside them: each chunk arrives, once, in its order, and
the numbers are of one owner after the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from packetcloud.router.cloudlet_table import (
    Put,
    ServiceEntry,
    TableRefusedError,
    TableUpdate,
    UpdateReason,
    ViEntry,
    ViState,
)
from packetcloud.router.settings import RouterSettings, ServiceSettings
from packetcloud.services.sdk import ChunkContext, NetworkService, ServiceChunk, Verdict
from packetcloud.testbed.simulation.application import Operation
from packetcloud.testbed.simulation.journal import Entry, Line
from packetcloud.testbed.simulation.network import LinkOptions
from packetcloud.testbed.simulation.payload import op_of
from packetcloud.testbed.simulation.plan import Fault, Plan
from packetcloud.testbed.simulation.program import identity_of
from packetcloud.testbed.simulation.router_program import RouterProgram
from packetcloud.testbed.simulation.run import SeedResult, run_plan
from packetcloud.testbed.simulation.service_program import ServiceProgram
from packetcloud.testbed.simulation.services import mark_of
from packetcloud.testbed.simulation.trace import Trace
from packetcloud.testbed.simulation.world import World

SERVICE = "upper"
OLD, TWIN = 0, 1
"""Instances of the machines V1 and V2."""
STEPS = ("first", "twin listed", "held", "idle", "moved")
"""What a controller has done, in this order."""
LOOK_S = 0.01
"""How often the controller looks whether it can go on."""
RATE = 40
BEGINS_S, LASTS_S = 1.0, 10.0
"""A VI that was refused before tries again after 5 s at the latest."""
LISTED_AT_S = 0.5
FEWEST_SEEN_COUNT = 20
"""The old one has seen so many chunks before it is held."""
HELD_S = 0.2
"""The controller takes so long over moving the state."""


class NumberingService(NetworkService):
    """Numbers the chunks that it sees, and writes them down."""

    def __init__(self, instance: int, seen: list[tuple[int, int, int]]) -> None:
        self.count = 0
        self._instance = instance
        self._seen = seen
        self._mark = mark_of(SERVICE)

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        self.count += 1
        op = op_of(chunk.payload)
        assert op is not None, "all payloads are the simulation's"
        self._seen.append((self._instance, self.count, op))
        return Verdict.update(bytes(chunk.payload) + self._mark)


@dataclass
class Migration:
    """One run, and what is to go wrong in it."""

    seed: int
    kill_after: str = ""
    """The router is killed right after this step."""
    spool: str = ""
    stale: bool = False
    """A controller of an older epoch wakes up after the cut-over and writes its table."""
    seen: list[tuple[int, int, int]] = field(default_factory=list)
    """Instance, number and operation of each chunk that a VI saw."""
    lines: list[Line] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    stale_answer: str = ""
    result: SeedResult | None = None

    def run(self) -> list[str]:
        """Return what was broken."""
        self.result = run_plan(self._plan(), build=self._build)
        return [*map(str, self.result.violations), *self.result.vacuous, *self._broken()]

    def _plan(self) -> Plan:
        rng = random.Random(f"migration {self.seed}")
        delay_s = rng.choice([0.0002, 0.001, 0.005])
        link = LinkOptions(delay_s=delay_s)
        links = {f"{name}-R1": (link, link) for name in ("A", "B", "V1", "V2")}
        count = int(RATE * LASTS_S)
        operations = tuple(
            Operation(
                number + 1,
                BEGINS_S + number / RATE,
                "A",
                "B",
                200,
                (SERVICE,),
                30.0,
                wants_report=True,
            )
            for number in range(count)
        )
        return Plan(
            self.seed,
            "migration",
            "star",
            links,
            operations,
            services={"V1": SERVICE, "V2": SERVICE},
            spool=self.spool,
            max_unanswered_count=512,
        )

    def _build(self, plan: Plan, trace: Trace, write: Callable[[Line], None]) -> World:
        def note(line: Line) -> None:
            self.lines.append(line)
            write(line)

        return _TableWorld(plan, trace, note, self)

    def _broken(self) -> list[str]:
        broken = []
        if self.done != list(STEPS):
            broken.append(f"not migrated: {self.done}")
        took = [line.op for line in self.lines if line.entry is Entry.TAKEN]
        sent = {line.op for line in self.lines if line.entry is Entry.SUBMITTED}
        if lost := sorted(sent - set(took)):
            broken.append(f"lost: {lost[:5]}")
        if len(took) != len(set(took)):
            broken.append("doubled")
        if not self.kill_after and took != sorted(took):
            broken.append("out of order")
        numbers = [number for _, number, _ in self.seen]
        if numbers != list(range(1, len(numbers) + 1)):
            broken.append("two owners: the numbers of the chunks are not those of one")
        instances = [instance for instance, _, _ in self.seen]
        if instances != sorted(instances):
            broken.append("two owners: the old one saw chunks after the twin did")
        if set(instances) != {OLD, TWIN}:
            broken.append(f"proves nothing: only {set(instances)} saw chunks")
        if self.stale and self.stale_answer != UpdateReason.OLD_EPOCH:
            broken.append(f"the stale controller was answered {self.stale_answer!r}")
        return broken


class _TableWorld(World):
    """A world whose router has its services from a cloudlet controller."""

    def __init__(
        self, plan: Plan, trace: Trace, write: Callable[[Line], None], migration: Migration
    ) -> None:
        super().__init__(plan, trace, write)
        self.controller = _Controller(self, migration)

    def start(self) -> None:
        self.controller.prepare()
        super().start()

    def _router_settings(self, *arguments: Any) -> RouterSettings:
        return replace(super()._router_settings(*arguments), services=(), has_table=True)


class _Controller:
    """Goes through the steps, each again until the router has taken it."""

    def __init__(self, world: _TableWorld, migration: Migration) -> None:
        self._world = world
        self._migration = migration
        self._services: dict[int, NumberingService] = {}
        self._version = 0
        self._update: TableUpdate | None = None
        self._held_at_s = 0.0

    def prepare(self) -> None:
        for name, instance in (("V1", OLD), ("V2", TWIN)):
            program = self._world.programs[name]
            assert isinstance(program, ServiceProgram)
            service = NumberingService(instance, self._migration.seen)
            self._services[instance] = service
            program.make_service = lambda service=service: service  # type: ignore[misc]
        self._look()

    @property
    def _router(self) -> RouterProgram:
        router = self._world.programs["R1"]
        assert isinstance(router, RouterProgram)
        return router

    def _look(self) -> None:
        done = self._migration.done
        if len(done) == len(STEPS):
            return
        if self._router.core is not None and self._may_go_on(STEPS[len(done)]):
            step = STEPS[len(done)]
            if self._take(step):
                done.append(step)
                self._update = None
                self._after(step)
        self._world.time.at(self._world.time.now_s + LOOK_S, self._look)

    def _may_go_on(self, step: str) -> bool:
        core, now_s = self._router.core, self._world.time.now_s
        assert core is not None and core.cloudlet is not None, "asked while the router runs"
        sid = identity_of(SERVICE).sid
        if step == "first":
            return True
        if step == "twin listed":
            return now_s >= LISTED_AT_S
        if step == "held":
            is_used = len(self._migration.seen) >= FEWEST_SEEN_COUNT
            return is_used and core.cloudlet.find(sid, TWIN) is not None
        old = core.cloudlet.find(sid, OLD)
        if step == "idle":
            return old is not None and not old.tasks
        return now_s >= self._held_at_s + HELD_S and core.cloudlet.find(sid, TWIN) is not None

    def _take(self, step: str) -> bool:
        """Do a step; False: it has to be done again."""
        if step == "idle":
            # The state leaves the old one here: whatever it sees after this is lost on the twin.
            self._services[TWIN].count = self._services[OLD].count
            return True
        vis = {
            "first": [(OLD, 1, ViState.SERVING)],
            "twin listed": [(OLD, 1, ViState.SERVING), (TWIN, 1, ViState.HELD)],
            "held": [(OLD, 1, ViState.HELD), (TWIN, 1, ViState.HELD)],
            "moved": [(TWIN, 2, ViState.SERVING)],
        }[step]
        if self._update is None:
            base = self._version or None
            self._version += 1
            self._update = _update(2, self._version, base, vis)
        table = self._router.put_table(self._update)
        return all(result.reason is None for result in table.results)

    def _after(self, step: str) -> None:
        world, migration = self._world, self._migration
        if step == "held":
            self._held_at_s = world.time.now_s
        if step == migration.kill_after:
            world._kill(Fault("kill", "R1", world.time.now_s, 0.3))
        if step == "moved" and migration.stale:
            world.time.at(world.time.now_s + 0.5, self._wake_the_stale_one)

    def _wake_the_stale_one(self) -> None:
        """It was stopped before it knew of the service, and another took over meanwhile."""
        stale = TableUpdate("stale", 1, 7, None, (), "stale")
        try:
            self._router.put_table(stale)
        except TableRefusedError as error:
            self._migration.stale_answer = error.reason
        else:
            self._migration.stale_answer = "accepted"


def _update(
    epoch: int, version: int, base: int | None, vis: list[tuple[int, int, ViState]]
) -> TableUpdate:
    settings = ServiceSettings(identity_of(SERVICE).sid, SERVICE, deadline_ms=2000, grace_s=5.0)
    listed = tuple(ViEntry(instance, owner, 0, state) for instance, owner, state in vis)
    items = (Put(ServiceEntry(settings, listed)),)
    return TableUpdate("controller", epoch, version, base, items, f"{epoch}/{version}")
