"""What `load` makes of its runs: knees, ratios, tables and the plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.service import (
    KNEE_DELAY_FACTOR,
    KNEE_DELIVERED,
    STEADY_SHARE,
    kept_count,
    knee_gbps,
)
from packetcloud.testbed.bench.trial import Trial
from packetcloud.testbed.experiments import paper
from packetcloud.testbed.experiments.experiment import Comparison, ExperimentResult, Plot, Series
from packetcloud.testbed.experiments.sealing import OPENSSL, PYCRYPTODOME
from packetcloud.testbed.experiments.spread import middle, runs_text, spread
from packetcloud.testbed.protections import told_in

PAPER_GBPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
LOW, HIGH = 0.1, 0.8
"""Shares of the knee whose delay penalties are compared."""
KNEE, RATIO = "knee_gbps", "penalty_ratio_80_to_10"
RATIO_OF_MEANS = "load.penalty_ratio_80_to_10_of_means"
RATIO_TO_LEAST = "load.penalty_ratio_80_to_least"
ROUTER_KNEE = "load.knee_at_router_gbps"
OTHER_KNEE = f"load.knee_gbps_{PYCRYPTODOME}"


@dataclass(frozen=True, slots=True)
class Line:
    """What is measured at several rates."""

    library: str
    is_at_router: bool = False
    """The chunks begin and end at the router's machine."""

    @property
    def path(self) -> str:
        return "R-C-R" if self.is_at_router else "A-R-C-R-B"

    @property
    def key(self) -> str:
        """In the names of figures."""
        return f"at_router_{self.library}" if self.is_at_router else self.library

    def __str__(self) -> str:
        return f"{self.path}, {self.library}"


MAIN = Line(OPENSSL)
"""Of the figures; see `penalty`."""
AT_ROUTER = Line(OPENSSL, is_at_router=True)
"""As the paper has it: R sends chunks to C and gets them back."""
OTHER = Line(PYCRYPTODOME)
HALVINGS = {MAIN: 3, AT_ROUTER: 1}
"""Steps beyond those of a sweep, at most, that narrow a knee; each is measured as often as those
are. The paper's path has its knee where steps are close anyhow."""
FINE_SHARE = 0.05
"""Of the full rate: runs at one rate differ by as much near a knee, so no closer steps are made."""
_KNEES = ((MAIN, KNEE), (AT_ROUTER, ROUTER_KNEE), (OTHER, OTHER_KNEE))


@dataclass(frozen=True, slots=True)
class Step:
    """One run at a set rate."""

    line: Line
    offered_gbps: float
    run: int
    trial: Trial

    def detail(self, name: str) -> float:
        value = self.trial.details[name]
        assert isinstance(value, int | float)
        return float(value)

    def row(self) -> dict[str, object]:
        row: dict[str, object] = {
            "path": self.line.path,
            "library": self.line.library,
            "offered_gbps": self.offered_gbps,
            "run": self.run,
            "goodput_gbps": self.trial.goodput_gbps,
        }
        for key in (*DELAYS, "skipped"):
            row[key] = self.trial.details.get(key)
        cpu = self.trial.cpu_s_per_gb
        return row | {f"cpu_s_per_gb_{process}": seconds for process, seconds in cpu.items()}


DELAYS = (
    "delay_penalty_p50_ms",
    "delay_penalty_p99_ms",
    "delay_penalty_mean_ms",
    "processing_p50_ms",
    "processing_mean_ms",
    "delivery_p50_ms",
    "delivery_mean_ms",
    "wait_p50_ms",
    "wait_mean_ms",
)


@dataclass(slots=True)
class Findings:
    """Everything that was measured."""

    full_gbps: dict[Line, float] = field(default_factory=dict)
    """As fast as it goes."""
    steps: list[Step] = field(default_factory=list)
    compared: list[Step] = field(default_factory=list)
    """At `LOW` and `HIGH` of the knee."""
    stages: dict[str, float] = field(default_factory=dict)
    """Shares of the router's processor time at `HIGH`."""
    failures: list[str] = field(default_factory=list)

    def medians(self, line: Line) -> list[Document]:
        """Return each offered rate of a line once, ascending, with medians."""
        rates = sorted({one.offered_gbps for one in self.steps if one.line == line})
        return [
            median_step([s for s in self.steps if (s.line, s.offered_gbps) == (line, rate)])
            for rate in rates
        ]

    def knee_gbps(self, line: Line) -> float | None:
        """Return the knee, None if no step keeps up."""
        steps = self.medians(line)
        return knee_gbps(steps, steady_penalty_ms(steps, self.full_gbps.get(line)))

    def around_knee_gbps(self, line: Line) -> tuple[float, float] | None:
        """Return what was offered in the last step before the node falls behind, and in the next
        one; None if there are not both."""
        steps = self.medians(line)
        kept = kept_count(steps, steady_penalty_ms(steps, self.full_gbps.get(line)))
        if not 0 < kept < len(steps):
            return None
        return steps[kept - 1]["offered_gbps"], steps[kept]["offered_gbps"]


def median_step(steps: Sequence[Step]) -> Document:
    """Return what several runs at one rate gave: medians, of means too."""
    line = steps[0].line
    found: Document = {
        "path": line.path,
        "library": line.library,
        "offered_gbps": steps[0].offered_gbps,
    }
    found["goodput_gbps"] = middle(one.trial.goodput_gbps for one in steps)
    for key in DELAYS:
        found[key] = middle(one.detail(key) for one in steps)
    penalties = spread(one.detail("delay_penalty_p50_ms") for one in steps)
    assert penalties is not None
    return found | {"low_ms": penalties.low, "high_ms": penalties.high, "runs": len(steps)}


def steady_penalty_ms(steps: Sequence[Mapping[str, Any]], full_gbps: float | None) -> float | None:
    """Return the delay penalty of the step next to the steady rate of `bench service`."""
    if not steps or full_gbps is None:
        return None
    wanted = STEADY_SHARE * full_gbps
    nearest = min(steps, key=lambda step: abs(float(step["offered_gbps"]) - wanted))
    return float(nearest["delay_penalty_p50_ms"])


def penalty_ratio(compared: Sequence[Step], which: str = "delay_penalty_p50_ms") -> float | None:
    """Return the delay penalty at the higher of two rates over that at the lower: the same kind of
    figure of each run, and the median over the runs."""
    rates = sorted({one.offered_gbps for one in compared})
    if len(rates) != 2:
        return None
    low, high = (
        middle(s.detail(which) for s in compared if s.offered_gbps == rate) for rate in rates
    )
    return high / low if low and high else None


def ratio_to_least(found: Findings) -> float | None:
    """Return the delay penalty at the higher of two rates over the least at any rate."""
    rates = {one.offered_gbps for one in found.compared}
    if len(rates) != 2:
        return None
    high = middle(
        s.detail("delay_penalty_p50_ms") for s in found.compared if s.offered_gbps == max(rates)
    )
    least = min((s["delay_penalty_p50_ms"] for s in found.medians(MAIN)), default=None)
    return high / least if high and least else None


def load_result(found: Findings, mode: str, timing: Timing) -> ExperimentResult:
    """Make figures, tables and plot."""
    missing: dict[str, str] = {}
    figures: dict[str, float | None] = {key: found.knee_gbps(line) for line, key in _KNEES}
    for line, key in _KNEES:
        if figures[key] is None:
            missing[key] = _why_no_knee(found, line)
    figures |= {
        RATIO: penalty_ratio(found.compared),
        RATIO_OF_MEANS: penalty_ratio(found.compared, "delay_penalty_mean_ms"),
        RATIO_TO_LEAST: ratio_to_least(found),
    }
    for key in (RATIO, RATIO_OF_MEANS, RATIO_TO_LEAST):
        if figures[key] is None:
            missing[key] = missing.get(KNEE) or "; ".join(found.failures) or "no run at both rates"
    figures |= {f"load.full_gbps_{line.key}": gbps for line, gbps in found.full_gbps.items()}
    steps = [step for line, _ in _KNEES for step in found.medians(line)]
    every = [*found.steps, *found.compared]
    return ExperimentResult(
        "load",
        "Delay penalty against goodput, to the knee of one VI",
        figures,
        missing,
        _comparisons(found, figures, missing),
        {
            "load": steps,
            "load-runs": [step.row() for step in every],
            "load-router-stages": [
                {"stage": name, "share": share} for name, share in found.stages.items()
            ],
        },
        [_plot(found)],
        _measured(found, timing),
        [*_ASSUMED, f"The links between the places: mode {mode}."],
        [*_SESSIONS, *told_in(step.trial.details for step in every)],
        found.failures,
    )


def _why_no_knee(found: Findings, line: Line) -> str:
    if found.medians(line):
        return "no step kept up with what was offered"
    own = [text for text in found.failures if text.startswith(str(line))]
    return "; ".join(own) or "not measured"


def _comparisons(
    found: Findings, figures: Mapping[str, float | None], missing: Mapping[str, str]
) -> list[Comparison]:
    lines = [
        Comparison(
            f"delay penalty at {step['offered_gbps'] * 1e3:.0f} Mbit/s, R-C-R, average",
            "ms",
            paper.PENALTY_BY_MBPS.get(round(step["offered_gbps"] * 1e3)),
            step["delay_penalty_mean_ms"],
            "",
            f"averages, as in the paper; our median is {step['delay_penalty_p50_ms']:.3g} ms",
        )
        for step in found.medians(AT_ROUTER)
        if step["offered_gbps"] in PAPER_GBPS
    ]
    unbounded = [
        key
        for line, key in _KNEES
        if (steps := found.medians(line)) and figures[key] == steps[-1]["goodput_gbps"]
    ]
    for what, unit, theirs, key, aim, note in (
        (
            f"knee of one VI, {MAIN}",
            "Gbit/s",
            paper.KNEE_GBPS,
            KNEE,
            ">= 4",
            "hosts and their sealed links included, which the paper's is without",
        ),
        (
            f"knee of one VI, {AT_ROUTER}",
            "Gbit/s",
            paper.KNEE_GBPS,
            ROUTER_KNEE,
            "",
            "the paper's path: chunks begin and end at R",
        ),
        (f"knee of one VI, {OTHER}", "Gbit/s", None, OTHER_KNEE, "", ""),
        (
            "delay penalty at 80 % of the knee over that at 10 %",
            "",
            None,
            RATIO,
            "<= 2",
            "medians; at 10 % processors sleep between chunks, so that one is not the least",
        ),
        ("the same of averages", "", None, RATIO_OF_MEANS, "", ""),
        ("at 80 % of the knee over the least at any rate", "", None, RATIO_TO_LEAST, "", ""),
    ):
        if key in unbounded:
            note = f"no step fell behind: at least so much{note and f'; {note}'}"
        lines.append(Comparison(what, unit, theirs, figures[key], aim, missing.get(key, note)))
    return lines


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
    for line in found.full_gbps:
        steps = found.medians(line)
        series.append(
            Series(
                f"ours, {line}",
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
        "delay penalty, ms (ours: medians)",
        "line",
        series,
        y_log=True,
    )


def _measured(found: Findings, timing: Timing) -> list[str]:
    counts = sorted({step["runs"] for line, _ in _KNEES for step in found.medians(line)})
    return [
        "Chunks of 1 MiB at a set rate through router and VI, in runs of "
        f"{timing.seconds} s, each with daemons of its own; rates take turns; {runs_text(*counts)} "
        "for each rate. One chunk in 64 is decrypted and compared, all are counted.",
        "A-R-C-R-B: from A to B over veth pairs, sealed. R-C-R: sender and receiver are at the "
        "router's machine, over its loopback, unsealed, as the paper's router has the chunks and "
        "gets them back; all that is left of the hosts is what gives and takes the bytes.",
        "Delay penalties are of the time that counts alone: the router is asked when the warm-up "
        "is over and at the end, and the one is taken from the other. A chunk's penalty begins "
        "with its turn at the service, so what it waits at the router for a VI with room is in it "
        "(`wait`, part of the delivery).",
        f"A knee is the last step that delivers {KNEE_DELIVERED:.0%} of what is offered with a "
        f"median delay penalty of at most {KNEE_DELAY_FACTOR:g} times that at about "
        f"{STEADY_SHARE:.0%} of the full rate, as in `packetcloud bench service`. More steps halve "
        "what lies between it and the first one beyond, until that is "
        f"{FINE_SHARE:.0%} of the full rate; at most "
        f"{' and '.join(f'{count} ({line})' for line, count in HALVINGS.items())}.",
        "Stages: samples of the router's processor time by function; processor seconds per 10^9 "
        "bytes of every process are in the table of runs.",
    ]


_SESSIONS = (
    "A-R-C-R-B: hosts' sessions with the router are sealed (AES-GCM). R-C-R: they go over "
    "loopback, which both ends declare private. On both, so is the wire between router and VI.",
)
_ASSUMED = (
    f"AES-128-CBC by {OPENSSL}, as the paper's service has it, makes the figures; {PYCRYPTODOME}, "
    "which is ours if nobody chooses, stands beside them.",
    "Router, VI, sender and receiver share the cores of one machine; the paper had machines of "
    "their own, whose link of 1 Gbit/s was the bottleneck.",
)
