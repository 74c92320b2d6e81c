"""Delay penalty against goodput, from the paper's 100 Mbit/s on to the knee of one VI.

Two paths. On A-R-C-R-B hosts send through the router, as users do; its knee is `knee_gbps`. On
R-C-R the chunks begin and end at the router's machine, as in the paper, so that what a node carries
is not mixed up with what hosts and their links take.
Source: MobiArch'13 paper, section 4.2 and figure 4(c).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.scene import Scene, service_scene
from packetcloud.testbed.bench.service_ours import OurService
from packetcloud.testbed.bench.stages import stage_shares
from packetcloud.testbed.errors import ChildError, TestbedError
from packetcloud.testbed.experiments.experiment import Experiment, ExperimentPlan, ExperimentResult
from packetcloud.testbed.experiments.load_figures import (
    AT_ROUTER,
    FINE_SHARE,
    HALVINGS,
    HIGH,
    KNEE,
    LOW,
    MAIN,
    OTHER,
    PAPER_GBPS,
    RATIO,
    Findings,
    Line,
    Step,
    load_result,
)
from packetcloud.testbed.experiments.spread import middle
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.namespaces import can_make_namespaces

MIB = 1 << 20
TIMING = Timing(seconds=3, warmup=1, repeats=2)
QUICK_TIMING = Timing(seconds=1, warmup=0, repeats=1)
RATIO_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Sweep:
    """The rates at which a line is measured."""

    line: Line
    gbps: Sequence[float]
    """Measured once each."""
    shares: Sequence[float]
    """Of the full rate, `repeats` times each; those below the last of `gbps` are left out."""
    repeats: int


_BEYOND = (0.7, 0.8, 0.9, 1.0)
SWEEPS = (
    Sweep(MAIN, (), (0.1, 0.25, 0.4, *_BEYOND, 1.1), TIMING.repeats),
    Sweep(AT_ROUTER, PAPER_GBPS, (0.25, 0.4, *_BEYOND, 1.1), TIMING.repeats),
    Sweep(OTHER, (), (0.25, 0.7, 0.9), 1),
)
QUICK_SWEEPS = (Sweep(MAIN, (), (0.8,), 1), Sweep(AT_ROUTER, PAPER_GBPS[:1], (), 1))


class LoadExperiment:
    """See `Experiment`."""

    name = "load"
    title = "Delay penalty against goodput, to the knee of one VI"
    seconds = 415
    quick_seconds = 28
    fingerprint = ""
    keys = (KNEE, RATIO)

    def run(self, plan: ExperimentPlan) -> ExperimentResult:
        mode = LinkMode.WIRE if can_make_namespaces() else None
        with service_scene(mode) as scene:
            found = _Load(plan, scene).measure()
        return load_result(found, scene.name, QUICK_TIMING if plan.is_quick else TIMING)


LOAD: Experiment = LoadExperiment()


@dataclass(slots=True)
class _Load:
    """The runs on one scene."""

    plan: ExperimentPlan
    scene: Scene
    found: Findings = field(default_factory=Findings)

    def measure(self) -> Findings:
        main, *beside = QUICK_SWEEPS if self.plan.is_quick else SWEEPS
        self._full(main.line)
        self._sweep(main)
        self._compare(1 if self.plan.is_quick else RATIO_REPEATS)
        for one in beside:
            self._beside(one)
        return self.found

    @property
    def _timing(self) -> Timing:
        return QUICK_TIMING if self.plan.is_quick else TIMING

    def _beside(self, sweep: Sweep) -> None:
        """Measure another line; the figures are there without it."""
        try:
            self._full(sweep.line)
        except TestbedError as error:
            self.found.failures.append(f"{sweep.line}, as fast as it goes: {error}")
        else:
            self._sweep(sweep)

    def _full(self, line: Line) -> None:
        """Find out how much passes.

        Raises:
            TestbedError: nothing does, so there is nothing to measure.
        """
        self.plan.tell(f"{line}: as fast as it goes")
        repeats = range(self._timing.repeats)
        trials = [self._service(line, 0.0).run(self._timing) for _ in repeats]
        gbps = middle(t.goodput_gbps for t in trials)
        if not gbps:
            raise TestbedError(f"no chunk passed the service ({line})")
        self.found.full_gbps[line] = gbps

    def _sweep(self, sweep: Sweep) -> None:
        full_gbps = self.found.full_gbps[sweep.line]
        beyond = max(sweep.gbps, default=0.0)
        shares_gbps = [share * full_gbps for share in sweep.shares]
        rates = [gbps for gbps in shares_gbps if gbps > beyond]
        for run in range(1, sweep.repeats + 1):
            for rate_gbps in [*sweep.gbps, *rates] if run == 1 else rates:
                self._step(sweep.line, rate_gbps, run, self.found.steps)
        self._narrow(sweep.line, sweep.repeats)

    def _narrow(self, line: Line, repeats: int) -> None:
        """Halve what lies between the knee and the first step beyond; see `HALVINGS`."""
        for _ in range(HALVINGS.get(line, 0)):
            around = self.found.around_knee_gbps(line)
            if around is None or around[1] - around[0] <= FINE_SHARE * self.found.full_gbps[line]:
                return
            rate_gbps = sum(around) / 2
            for run in range(1, repeats + 1):
                self._step(line, rate_gbps, run, self.found.steps)
            if all(step.offered_gbps != rate_gbps for step in self.found.steps):
                return  # no run worked, and the next would be at the same rate

    def _compare(self, repeats: int) -> None:
        knee = self.found.knee_gbps(MAIN)
        if knee is None:
            return
        for run in range(1, repeats + 1):
            for share in (LOW, HIGH):
                self._step(MAIN, share * knee, run, self.found.compared)
        self.plan.tell(f"stages of the router at {HIGH:.0%} of the knee")
        file = self.plan.folder / "router-samples.json"
        try:
            self._service(MAIN, HIGH * knee, file).run(self._timing)
            self.found.stages = stage_shares(json.loads(file.read_text()))
        except (ChildError, OSError, ValueError) as error:
            self.found.failures.append(f"stages of the router: {error}")

    def _step(self, line: Line, gbps: float, run: int, steps: list[Step]) -> None:
        self.plan.tell(f"{line}: {gbps:.2f} Gbit/s, run {run}")
        try:
            trial = self._service(line, gbps).run(self._timing)
        except ChildError as error:
            self.found.failures.append(f"{line}, {gbps:.2f} Gbit/s: {error}")
            return
        steps.append(Step(line, gbps, run, trial))

    def _service(self, line: Line, gbps: float, samples: Path | None = None) -> OurService:
        return OurService(
            self.scene,
            MIB,
            rate=gbps * 1e9 / 8 / MIB,
            library=line.library,
            samples_file=samples,
            is_at_router=line.is_at_router,
        )
