"""Figures of bundled services by their own benchmarks.

`packetcloud bench translator|wan|ids` shows all that they find; here the figures stand in the
report of the paper's experiments.
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


@dataclass(frozen=True, slots=True)
class Beside:
    """Another number of a benchmark that is held against an aim."""

    key: str
    what: str
    aim: str


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
    beside: tuple[Beside, ...] = ()
    fingerprint: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

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
            self._comparisons(document, "; ".join(failures) or "not measured"),
            {self.name: [{"figure": key, "value": one} for key, one in numbers_of(document)]},
            [],
            [self.measured],
            list(document["notes"]),
            [self.protections],
            failures,
        )

    def _comparisons(self, document: Document, why_none: str) -> list[Comparison]:
        lines = [(self.title, self.unit, self.key, self.aim)]
        lines += [(one.what, "", one.key, one.aim) for one in self.beside]
        return [
            Comparison(what, unit, None, value, aim, why_none if value is None else "")
            for what, unit, key, aim in lines
            for value in [document.get(key)]
        ]


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


def _translator(plan: ExperimentPlan) -> Document:
    from packetcloud.testbed.bench.translator import TranslatorPlan, bench_translator

    if plan.is_quick:
        small = TranslatorPlan(
            rates_bps=(1_000_000_000,),
            download_bytes=16 << 20,
            files_count=50,
            largest_file_bytes=64 << 10,
            connections_count=10,
            connection_bytes=64 << 10,
            seed=plan.seed,
        )
        return bench_translator(small, Timing(repeats=1), plan.tell)
    whole = TranslatorPlan(rates_bps=(1_000_000_000,), seed=plan.seed)
    return bench_translator(whole, Timing(repeats=3), plan.tell)


def _wan(plan: ExperimentPlan) -> Document:
    from packetcloud.testbed.bench.wan import WanPlan, bench_wan

    if plan.is_quick:
        return bench_wan(WanPlan(max_bytes=2 << 20, seed=plan.seed), plan.tell, repeats=1)
    return bench_wan(WanPlan(seed=plan.seed), plan.tell)


def _ids(plan: ExperimentPlan) -> Document:
    from packetcloud.testbed.bench.ids import IdsPlan, bench_ids

    if plan.is_quick:
        return bench_ids(Timing(repeats=1), plan.tell, IdsPlan(rules=100, chunks=4))
    return bench_ids(Timing(), plan.tell)


TRANSLATOR: Experiment = ServiceFigure(
    "translator",
    "Download by curl through proxy and translator over one without",
    150,
    20,
    "translator_share_of_direct",
    "",
    ">= 0.5",
    _translator,
    "curl on A fetches from nginx on B, directly and through proxy, router and translator in turn, "
    "over NICs of 1 Gbit/s; then many connections at once, and many files, all of whose bytes are "
    "compared.",
    "Egress of the translator allows the web server and nothing else.",
    (
        Beside("connections", "connections at once, all of them served whole", ">= 200"),
        Beside("files_wrong", "files that are missing or altered", "<= 0"),
    ),
)
WAN: Experiment = ServiceFigure(
    "wan",
    "WAN optimizer: size of a new version of a tree over what zstd --long makes of it",
    45,
    5,
    "wan_size_over_zstd_long",
    "",
    "<= 1.3",
    _wan,
    "The old version passes first, chunk by chunk, then the new one, through compress and "
    "decompress; counted is what the new one puts on the link. zstd --long has the old version as "
    "its dictionary. What comes out is compared with what went in.",
    "Both directions run in one process, so nothing is between them and this machine.",
)
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
