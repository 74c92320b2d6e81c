"""One run: a plan on virtual time, watched while it goes and judged when it is over."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from packetcloud.testbed.simulation.application import LONGEST_HOLD_S, Operation, Tempo
from packetcloud.testbed.simulation.checker import (
    StreamingJudge,
    Violation,
    sorted_verdicts,
)
from packetcloud.testbed.simulation.ciphers import CipherWatch, watching_ciphers
from packetcloud.testbed.simulation.guard import forbidding_real_time
from packetcloud.testbed.simulation.journal import Line
from packetcloud.testbed.simulation.plan import (
    FIRST_PROBE,
    LONGEST_LIFETIME_S,
    PROBE_LIFETIME_S,
    Plan,
)
from packetcloud.testbed.simulation.program import WriteLine
from packetcloud.testbed.simulation.scenario import draw_plan
from packetcloud.testbed.simulation.trace import Trace
from packetcloud.testbed.simulation.virtual_time import EndlessError
from packetcloud.testbed.simulation.watch import Watch
from packetcloud.testbed.simulation.world import World

STEP_S = 0.5
"""How often the caps are looked at, and whether all is over."""
RECOVERY_LIMIT_S = 10.0
"""L10: after the last fault each flow delivers something within so long."""
OPEN_MOVE_LIMIT_S = 20.0
"""The same where a neighbour moved whose session is open: nothing proves that it is he, so the
session ends by its idle time-out (15 s), and the next one begins."""
HELD_UP_LIMIT_S = 2.0
"""L8: who has nothing to do with a fault waits no longer than this for it."""
PROBES_COUNT = 10
PROBE_INTERVAL_S = 2.0
"""Along a flow that has delivered nothing since the last fault, an application tries so often."""
QUIET_LIMIT_S = LONGEST_LIFETIME_S + 40.0
"""After the last fault everything must have come to its end within so long."""
FEWEST_JUDGED_COUNT = 8


Flow = tuple[str, str, tuple[str, ...]]
"""Source, destination and the services on the way."""
BuildWorld = Callable[[Plan, Trace, WriteLine], World]


@dataclass(frozen=True, slots=True)
class SeedResult:
    """What one seed showed."""

    seed: int
    scenario: str
    violations: tuple[Violation, ...]
    vacuous: tuple[str, ...]
    """Why the run proves too little; a run that proves nothing fails."""
    judged_count: int
    delivered_count: int
    events_count: int
    virtual_s: float
    cpu_s: float
    recovery_s: float
    """From the last fault to the first delivery of a chunk sent after it."""
    trace_digest: str
    plan: tuple[str, ...]
    last_events: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.violations and not self.vacuous

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def run_seed(seed: int, scenario: str | None = None, *, tell: bool = False) -> SeedResult:
    """Run one seed; `tell`: keep every event in words."""
    return run_plan(draw_plan(seed, scenario), tell=tell)


def run_plan(plan: Plan, *, tell: bool = False, build: BuildWorld = World) -> SeedResult:
    """Run a plan to its end and judge it.

    Args:
        build: makes the world of the plan.
    """
    began = time.process_time()
    run = _Run(plan, tell, build)
    with forbidding_real_time(), watching_ciphers(run.ciphers):
        run.go()
    return run.result(time.process_time() - began)


class _Run:
    def __init__(self, plan: Plan, tell: bool, build: BuildWorld) -> None:
        self._plan = plan
        self._trace = Trace(tell)
        self._lines: list[Line] = []
        self._flows = list(
            dict.fromkeys((o.source, o.destination, o.services) for o in plan.operations)
        )
        self._probes = [probe for number in range(PROBES_COUNT) for probe in self._round(number)]
        self._world = build(plan, self._trace, self._write)
        names = {name: program.guid.short for name, program in self._world.programs.items()}
        must_end = {
            operation.op: operation.at_s + operation.lifetime_s + _paused_s(plan, operation.source)
            for operation in (*plan.operations, *self._probes)
        }
        self._judge = StreamingJudge(must_end, names)
        self._watch = Watch(self._world)
        self.ciphers = CipherWatch()
        self._is_over = False

    def go(self) -> None:
        """Run load and faults, then the quiet phase with its probes, until nothing is left."""
        plan, world = self._plan, self._world
        world.start()
        end_s = plan.healed_at_s + QUIET_LIMIT_S
        for probe in self._probes:
            world.time.at(probe.at_s, functools.partial(self._send_probe, probe))
        now_s = 0.0
        while now_s < end_s and not self._is_over:
            now_s += STEP_S
            try:
                world.time.run_until(now_s)
            except EndlessError as error:
                world.hosts[0].machine.note_fault(str(error))
                break
            self._watch.look()
            self._is_over = now_s > plan.healed_at_s + 1.0 and self._watch.is_quiet()
        self._watch.finish()
        self._judge.finish(world.time.now_s)

    def result(self, cpu_s: float) -> SeedResult:
        """Put together what was found."""
        plan, world, judge = self._plan, self._world, self._judge
        violations = [*judge.violations, *self._watch.violations]
        now_s = world.time.now_s
        violations += [Violation("L12", 0, text, now_s) for text in self.ciphers.breaches]
        for text in world.faults_of_programs:
            violations.append(Violation("no fault", 0, text, now_s))
        streamed = {(v.promise, v.op) for v in judge.violations if v.promise in ("L1", "L2", "L3")}
        if streamed != (resorted := sorted_verdicts(self._lines)):
            text = f"the two judges disagree: {sorted(streamed ^ resorted)}"
            violations.append(Violation("judges", 0, text, now_s))
        delivered = [op for op in judge.ops.values() if op.takers]
        recovery_s = self._recovery_s()
        if recovery_s > self._recovery_limit_s:
            text = f"no delivery within {self._recovery_limit_s:g} s of the last fault's end"
            violations.append(Violation("L10", 0, text, now_s))
        violations += self._given_up()
        violations += self._held_up()
        violations += self._lost_in_custody()
        return SeedResult(
            plan.seed,
            plan.scenario,
            tuple(sorted(violations, key=lambda violation: violation.time_s)),
            tuple(self._vacuous()),
            judge.judged_count,
            len(delivered),
            world.time.events_count,
            now_s,
            cpu_s,
            recovery_s,
            self._trace.digest,
            tuple(plan.lines()),
            tuple(self._trace.words),
        )

    @property
    def _recovery_limit_s(self) -> float:
        plan = self._plan
        has_moved = any(fault.kind == "move" for fault in plan.faults)
        return OPEN_MOVE_LIMIT_S if has_moved and plan.is_private else RECOVERY_LIMIT_S

    def _recovery_s(self) -> float:
        """Return how long the slowest flow took to deliver something after the last fault."""
        return max(self._first_delivery_s(flow) for flow in self._flows) - self._plan.healed_at_s

    def _first_delivery_s(self, flow: Flow) -> float:
        healed_at_s = self._plan.healed_at_s
        moments = [
            at_s
            for operation in (*self._plan.operations, *self._probes)
            if (operation.source, operation.destination, operation.services) == flow
            and (op := self._judge.ops.get(operation.op)) is not None
            for at_s in op.takers.values()
            if at_s >= healed_at_s
        ]
        return min(moments, default=float("inf"))

    def _given_up(self) -> list[Violation]:
        """Return what expired although it had the time to recover without any fault."""
        found = []
        for operation in (*self._plan.operations, *self._probes):
            op = self._judge.ops.get(operation.op)
            if op is None or op.forgot or op.takers or not operation.wants_report:
                continue
            tempo = self._plan.tempos.get(operation.destination, Tempo())
            if tempo.hold_s > LONGEST_HOLD_S:
                continue  # its application stands still, with the buffer full, several times
            begins_s = max(operation.at_s, self._plan.healed_at_s)
            # Until it ended: a custodian may give up earlier than the lifetime, during an outage.
            left_s = op.ended_at_s - begins_s
            if left_s > self._recovery_limit_s and op.outcome.startswith("expired"):
                text = f"expired after {left_s:.1f} s without a fault"
                found.append(Violation("L10", operation.op, text, op.ended_at_s))
        return found

    def _lost_in_custody(self) -> list[Violation]:
        """Return what routers acknowledged, nobody asked to hear of, and nobody got."""
        plan = self._plan
        if not plan.keeps_custody:
            return []
        recovered_at_s = plan.healed_at_s + self._recovery_limit_s
        return [
            Violation("L1", operation.op, "in custody, and never delivered", op.ended_at_s)
            for operation in plan.operations
            if (op := self._judge.ops.get(operation.op)) is not None
            and op.outcome == "in_custody"
            and not op.takers
            and not plan.tempos.get(operation.destination, Tempo()).may_refuse(operation.op)
            and operation.at_s + operation.lifetime_s > recovered_at_s
        ]

    def _held_up(self) -> list[Violation]:
        """Return what was slow although nothing went wrong along its own flow."""
        found = []
        for operation in self._plan.operations:
            flow = operation.source, operation.destination
            op = self._judge.ops.get(operation.op)
            if op is None or flow not in self._plan.isolated_flows:
                continue
            took_s = min(op.takers.values(), default=float("inf")) - op.submitted_s
            if took_s > HELD_UP_LIMIT_S:
                text = f"delivered after {took_s:.1f} s, with nothing wrong along its own flow"
                found.append(Violation("L8", operation.op, text, op.submitted_s))
        return found

    def _round(self, number: int) -> list[Operation]:
        """Return the chunks of one round of probes: one along each flow."""
        at_s = self._plan.healed_at_s + 0.05 + number * PROBE_INTERVAL_S
        first = FIRST_PROBE + 1000 * number
        # Numbers that no application refuses: those divide by five.
        return [
            Operation(
                first + 5 * at + 1, at_s, source, destination, 600, services, PROBE_LIFETIME_S, True
            )
            for at, (source, destination, services) in enumerate(self._flows)
        ]

    def _send_probe(self, probe: Operation) -> None:
        flow = probe.source, probe.destination, probe.services
        if self._first_delivery_s(flow) == float("inf"):
            hosts = self._world.hosts
            next(host for host in hosts if host.machine.name == probe.source).submit(probe)

    def _vacuous(self) -> list[str]:
        plan, fired = self._plan, self._world.fired
        unfelt = [fault for fault in plan.faults if not fired[fault]]
        if plan.faults_overlap and len(unfelt) < len(plan.faults):
            unfelt = []  # who is dead does not notice that its link is cut
        reasons = [f"fault did not fire: {fault}" for fault in unfelt]
        if self._judge.judged_count < FEWEST_JUDGED_COUNT:
            reasons.append(f"only {self._judge.judged_count} operations were judged")
        if plan.must_spill and not any(router.spilled_count for router in self._world.routers):
            reasons.append("nothing was on disk only")
        for (one, other), path in self._world.network.paths.items():
            reasons += [f"{one}>{other}: {text}" for text in path.unfelt()]
        return reasons

    def _write(self, line: Line) -> None:
        self._lines.append(line)
        self._trace.line(line)
        self._judge.feed(line)
        self._world.noted(line)


def _paused_s(plan: Plan, machine: str) -> float:
    """Return how long a machine is stopped: nobody keeps a deadline who does not run."""
    return sum(
        fault.for_s for fault in plan.faults if fault.kind == "pause" and fault.target == machine
    )
