"""Figures of bundled services by their own benchmarks.

`packetcloud bench ids` shows all that it finds; here its figure stands in the report of the paper's
experiments.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.experiments.experiment import (
    Comparison,
    Experiment,
    ExperimentPlan,
    ExperimentResult,
)

DOCUMENT = "bench.json"


@dataclass(slots=True)
class ServiceFigure:
    """One figure of one benchmark; see `Experiment`."""

    name: str
    title: str
    seconds: int
    quick_seconds: int
    key: str
    """Of the figure, in the benchmark's document and in ours."""
    unit: str
    aim: str
    measure: Callable[[ExperimentPlan], Document]
    measured: str
    protections: str

    def run(self, plan: ExperimentPlan) -> ExperimentResult:
        document = self.measure(plan)
        (plan.folder / DOCUMENT).write_text(json.dumps(document, indent=2) + "\n")
        return self.result(document)

    def result(self, document: Document) -> ExperimentResult:
        """Make figures and tables of the benchmark's document."""
        value: float | None = document.get(self.key)
        failures: list[str] = document["failures"]
        missing = {} if value is not None else {self.key: "; ".join(failures) or "not measured"}
        return ExperimentResult(
            self.name,
            self.title,
            {self.key: value},
            missing,
            [Comparison(self.title, self.unit, None, value, self.aim, missing.get(self.key, ""))],
            {self.name: [{"figure": key, "value": one} for key, one in numbers_of(document)]},
            [],
            [self.measured],
            list(document["notes"]),
            [self.protections],
            failures,
        )


def numbers_of(document: Document, before: str = "") -> list[tuple[str, float]]:
    """Return every number of a document with its dotted key; lists and the head are left out."""
    found: list[tuple[str, float]] = []
    for key, value in document.items():
        if isinstance(value, dict) and key not in _HEAD:
            found += numbers_of(value, f"{before}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((before + key, value))
    return found


_HEAD = ("machine", "packages", "peers", "plan")


def _ids(plan: ExperimentPlan) -> Document:
    from packetcloud.testbed.bench.ids import IdsPlan, bench_ids

    if plan.is_quick:
        return bench_ids(Timing(repeats=1), plan.tell, IdsPlan(rules=100, chunks=4))
    return bench_ids(Timing(), plan.tell)


IDS: Experiment = ServiceFigure(
    "ids",
    "IDS: payload inspected with 1 000 content rules by one core",
    30,
    5,
    "ids_gbps",
    "Gbit/s",
    ">= 5",
    _ids,
    "The service's own `process` on chunks of 1 MiB, rules of Suricata's language.",
    "The service runs in one process with its measurement.",
)
