"""Delay penalty against goodput, from the paper's 100 Mbit/s on to the knee of one VI.

Source: MobiArch'13 paper, section 4.2 and figure 4(c).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.scene import Scene, service_scene
from packetcloud.testbed.bench.service import (
    KNEE_DELAY_FACTOR,
    KNEE_DELIVERED,
    STEADY_SHARE,
    knee_gbps,
)
from packetcloud.testbed.bench.service_ours import OurService
from packetcloud.testbed.bench.stages import stage_shares
from packetcloud.testbed.bench.trial import Trial
from packetcloud.testbed.errors import ChildError, TestbedError
from packetcloud.testbed.experiments import paper
from packetcloud.testbed.experiments.experiment import (
    Comparison,
    Experiment,
    ExperimentPlan,
    ExperimentResult,
    Plot,
    Series,
)
from packetcloud.testbed.experiments.sealing import OPENSSL, PYCRYPTODOME
from packetcloud.testbed.experiments.spread import middle, spread
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.namespaces import can_make_namespaces

MIB = 1 << 20
PAPER_GBPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
SHARES = (0.4, 0.55, 0.7, 0.8, 0.9, 1.0, 1.1)
"""Of the full rate: steps from the paper's last to beyond the knee."""
LOW, HIGH = 0.1, 0.8
"""Shares of the knee whose delay penalties are compared."""
LIBRARY = OPENSSL
"""Of the figures; see `penalty`."""
KNEE, RATIO = "knee_gbps", "penalty_ratio_80_to_10"
OTHER_KNEE = f"load.knee_gbps_{PYCRYPTODOME}"
TIMING = Timing(seconds=3, warmup=1, repeats=2)
QUICK_TIMING = Timing(seconds=1, warmup=0, repeats=1)
RATIO_REPEATS = 3
QUICK_PAPER_GBPS, QUICK_SHARES = (0.1,), (0.8,)


@dataclass(frozen=True, slots=True)
class Step:
    """One run at a set rate."""

    library: str
    offered_gbps: float
    run: int
    trial: Trial

    def detail(self, name: str) -> float:
        value = self.trial.details[name]
        assert isinstance(value, int | float)
        return float(value)

    def row(self) -> dict[str, object]:
        row: dict[str, object] = {
            "library": self.library,
            "offered_gbps": self.offered_gbps,
            "run": self.run,
            "goodput_gbps": self.trial.goodput_gbps,
        }
        for key in _DETAILS:
            row[key] = self.trial.details.get(key)
        cpu = self.trial.cpu_s_per_gb
        return row | {f"cpu_s_per_gb_{process}": seconds for process, seconds in cpu.items()}


_DETAILS = (
    "delay_penalty_p50_ms",
    "delay_penalty_p99_ms",
    "delay_penalty_mean_ms",
    "processing_p50_ms",
    "delivery_p50_ms",
    "skipped",
)


@dataclass(slots=True)
class Findings:
    """Everything that was measured."""

    full_gbps: dict[str, float] = field(default_factory=dict)
    """By library, as fast as it goes."""
    steps: list[Step] = field(default_factory=list)
    compared: list[Step] = field(default_factory=list)
    """At `LOW` and `HIGH` of the knee."""
    stages: dict[str, float] = field(default_factory=dict)
    """Shares of the router's processor time at `HIGH`."""
    failures: list[str] = field(default_factory=list)

    def medians(self, library: str) -> list[Document]:
        """Return each offered rate of a library once, ascending, with medians."""
        rates = sorted({one.offered_gbps for one in self.steps if one.library == library})
        return [
            median_step([s for s in self.steps if (s.library, s.offered_gbps) == (library, rate)])
            for rate in rates
        ]

    def knee_gbps(self, library: str) -> float | None:
        """Return the knee, None if no step keeps up."""
        steps = self.medians(library)
        return knee_gbps(steps, steady_penalty_ms(steps, self.full_gbps.get(library)))


def median_step(steps: Sequence[Step]) -> Document:
    """Return what several runs at one rate gave, medians."""
    found: Document = {"library": steps[0].library, "offered_gbps": steps[0].offered_gbps}
    found["goodput_gbps"] = middle(one.trial.goodput_gbps for one in steps)
    for key in _DETAILS[:-1]:
        found[key] = middle(one.detail(key) for one in steps)
    penalties = spread(one.detail("delay_penalty_p50_ms") for one in steps)
    assert penalties is not None
    return found | {"low_ms": penalties.low, "high_ms": penalties.high}


def steady_penalty_ms(steps: Sequence[Mapping[str, Any]], full_gbps: float | None) -> float | None:
    """Return the delay penalty of the step next to the steady rate of `bench service`."""
    if not steps or full_gbps is None:
        return None
    wanted = STEADY_SHARE * full_gbps
    nearest = min(steps, key=lambda step: abs(float(step["offered_gbps"]) - wanted))
    return float(nearest["delay_penalty_p50_ms"])


class LoadExperiment:
    """See `Experiment`."""

    name = "load"
    title = "Delay penalty against goodput, to the knee of one VI"
    seconds = 310
    quick_seconds = 22
    keys = (KNEE, RATIO)

    def run(self, plan: ExperimentPlan) -> ExperimentResult:
        mode = LinkMode.WIRE if can_make_namespaces() else None
        with service_scene(mode) as scene:
            found = _Load(plan, scene).measure()
        return load_result(found, scene.name)


LOAD: Experiment = LoadExperiment()


@dataclass(slots=True)
class _Load:
    """The runs on one scene."""

    plan: ExperimentPlan
    scene: Scene
    found: Findings = field(default_factory=Findings)

    def measure(self) -> Findings:
        quick = self.plan.is_quick
        paper_gbps = QUICK_PAPER_GBPS if quick else PAPER_GBPS
        shares = QUICK_SHARES if quick else SHARES
        self._full(LIBRARY)
        self._steps(LIBRARY, paper_gbps, shares)
        self._compare(1 if quick else RATIO_REPEATS)
        if not quick:
            self._beside(PYCRYPTODOME, shares)
        return self.found

    @property
    def _timing(self) -> Timing:
        return QUICK_TIMING if self.plan.is_quick else TIMING

    def _beside(self, library: str, shares: Sequence[float]) -> None:
        """Measure another library; the figures are there without it."""
        try:
            self._full(library)
        except TestbedError as error:
            self.found.failures.append(f"{library}, as fast as it goes: {error}")
        else:
            self._steps(library, (), shares, repeats=1)

    def _full(self, library: str) -> None:
        """Find out how much passes.

        Raises:
            TestbedError: nothing does, so there is nothing to measure.
        """
        self.plan.tell(f"{library}: as fast as it goes")
        trials = [self._service(library, 0.0).run(self._timing) for _ in range(self._repeats)]
        gbps = middle(t.goodput_gbps for t in trials)
        if not gbps:
            raise TestbedError(f"no chunk passed the service ({library})")
        self.found.full_gbps[library] = gbps

    @property
    def _repeats(self) -> int:
        return self._timing.repeats

    def _steps(
        self,
        library: str,
        paper_gbps: Sequence[float],
        shares: Sequence[float],
        repeats: int | None = None,
    ) -> None:
        full_gbps = self.found.full_gbps[library]
        beyond = max(paper_gbps, default=0.0)
        rates = [*paper_gbps, *(s * full_gbps for s in shares if s * full_gbps > beyond)]
        for run in range(1, (repeats or self._repeats) + 1):
            for rate_gbps in rates:
                self._step(library, rate_gbps, run, self.found.steps)

    def _compare(self, repeats: int) -> None:
        knee = self.found.knee_gbps(LIBRARY)
        if knee is None:
            return
        for run in range(1, repeats + 1):
            for share in (LOW, HIGH):
                self._step(LIBRARY, share * knee, run, self.found.compared)
        self.plan.tell(f"stages of the router at {HIGH:.0%} of the knee")
        file = self.plan.folder / "router-samples.json"
        try:
            self._service(LIBRARY, HIGH * knee, file).run(self._timing)
            self.found.stages = stage_shares(json.loads(file.read_text()))
        except (ChildError, OSError, ValueError) as error:
            self.found.failures.append(f"stages of the router: {error}")

    def _step(self, library: str, gbps: float, run: int, into: list[Step]) -> None:
        what = f"{library}, {gbps * 1e3:.0f} Mbit/s, run {run}"
        self.plan.tell(what)
        try:
            trial = self._service(library, gbps).run(self._timing)
        except ChildError as error:
            self.found.failures.append(f"{what}: {error}")
            return
        into.append(Step(library, gbps, run, trial))

    def _service(self, library: str, gbps: float, samples: Path | None = None) -> OurService:
        rate = gbps * 1e9 / 8 / MIB
        return OurService(self.scene, MIB, rate=rate, library=library, samples_file=samples)


def load_result(found: Findings, mode: str) -> ExperimentResult:
    """Make figures, tables and plot."""
    missing: dict[str, str] = {}
    knee = found.knee_gbps(LIBRARY)
    if knee is None:
        missing[KNEE] = "no step kept up with what was offered"
    ratio = penalty_ratio(found.compared)
    if ratio is None:
        missing[RATIO] = missing.get(KNEE) or "; ".join(found.failures) or "no run at both rates"
    other = found.knee_gbps(PYCRYPTODOME)
    if other is None:
        why = [text for text in found.failures if text.startswith(PYCRYPTODOME)]
        missing[OTHER_KNEE] = "; ".join(why) or "not measured"
    steps = [step for library in (OPENSSL, PYCRYPTODOME) for step in found.medians(library)]
    return ExperimentResult(
        LoadExperiment.name,
        LoadExperiment.title,
        {KNEE: knee, RATIO: ratio, OTHER_KNEE: other}
        | {f"load.full_gbps_{library}": gbps for library, gbps in found.full_gbps.items()},
        missing,
        [
            *_paper_lines(found.medians(LIBRARY)),
            Comparison(
                f"knee of one VI, {LIBRARY}",
                "Gbit/s",
                paper.KNEE_GBPS,
                knee,
                ">= 4",
                missing.get(KNEE, ""),
            ),
            Comparison(f"knee of one VI, {PYCRYPTODOME}", "Gbit/s", None, other),
            Comparison(
                "delay penalty at 80 % of the knee over that at 10 %",
                "",
                None,
                ratio,
                "<= 2",
                missing.get(RATIO, ""),
            ),
        ],
        {
            "load": steps,
            "load-runs": [step.row() for step in (*found.steps, *found.compared)],
            "load-router-stages": [
                {"stage": name, "share": share} for name, share in found.stages.items()
            ],
        },
        [_plot(found)],
        _measured(),
        [*_ASSUMED, f"The links between the places: mode {mode}."],
        [
            "Hosts' sessions with the router are sealed (AES-GCM); the wire between router and VI "
            "is declared private. The VI is a child process with limits: no boundary against "
            "hostile code."
        ],
        found.failures,
    )


def penalty_ratio(compared: Sequence[Step]) -> float | None:
    """Return the delay penalty at the higher of two rates over that at the lower, medians."""
    rates = sorted({one.offered_gbps for one in compared})
    if len(rates) != 2:
        return None
    low, high = (
        middle(s.detail("delay_penalty_p50_ms") for s in compared if s.offered_gbps == rate)
        for rate in rates
    )
    return high / low if low and high else None


def _paper_lines(steps: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    return [
        Comparison(
            f"delay penalty at {step['offered_gbps'] * 1e3:.0f} Mbit/s",
            "ms",
            paper.PENALTY_BY_MBPS.get(round(step["offered_gbps"] * 1e3)),
            step["delay_penalty_mean_ms"],
            "",
            "means, as in the paper",
        )
        for step in steps
        if step["offered_gbps"] in PAPER_GBPS
    ]


def _plot(found: Findings) -> Plot:
    """Figure 4(c)."""
    series = [
        Series(
            "the paper",
            [mbps / 1e3 for mbps in paper.PENALTY_BY_MBPS],
            list(paper.PENALTY_BY_MBPS.values()),
            is_paper=True,
        )
    ]
    for library in found.full_gbps:
        steps = found.medians(library)
        series.append(
            Series(
                f"ours, {library}",
                [step["goodput_gbps"] for step in steps],
                [step["delay_penalty_p50_ms"] for step in steps],
                [step["low_ms"] for step in steps],
                [step["high_ms"] for step in steps],
            )
        )
    return Plot(
        "load",
        "Delay penalty against goodput, 1 MiB (figure 4(c))",
        "goodput, Gbit/s",
        "delay penalty, ms",
        "line",
        series,
        y_log=True,
    )


def _measured() -> list[str]:
    return [
        "A sends chunks of 1 MiB through router and VI to B at a set rate, in runs of "
        f"{TIMING.seconds} s, each with daemons of its own; rates take turns, and medians of "
        f"{TIMING.repeats} runs count. One chunk in 64 is decrypted and compared, all are counted.",
        f"The knee is the last step that delivers {KNEE_DELIVERED:.0%} of what is offered with a "
        f"median delay penalty of at most {KNEE_DELAY_FACTOR:g} times that at about "
        f"{STEADY_SHARE:.0%} of the full rate, as in `packetcloud bench service`.",
        "Stages: samples of the router's processor time by function; processor seconds per 10^9 "
        "bytes of every process are in the table of runs.",
    ]


_ASSUMED = (
    f"AES-128-CBC by {LIBRARY}, as the paper's service has it, makes the figures; {PYCRYPTODOME}, "
    "which is ours if nobody chooses, stands beside them.",
    "Router, VI and both hosts share the cores of one machine; the paper had four machines, whose "
    "link of 1 Gbit/s was the bottleneck.",
)
