"""Delay penalty and its two parts against the size of a chunk, at one chunk per second.

Source: MobiArch'13 paper, section 4.2 and figure 4(b).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.experiments import paper
from packetcloud.testbed.experiments.experiment import (
    Comparison,
    Experiment,
    ExperimentPlan,
    ExperimentResult,
    Plot,
    Series,
)
from packetcloud.testbed.experiments.sealing import (
    LXD,
    OPENSSL,
    PROCESS,
    PYCRYPTODOME,
    Column,
    SealingPlace,
    sealing_place,
)
from packetcloud.testbed.experiments.spread import middle, spread
from packetcloud.testbed.experiments.workbench import Workbench, open_workbench
from packetcloud.testbed.processes import Child, Children, python_command

MIB = 1 << 20
SIZES = (64 << 10, 128 << 10, 256 << 10, 512 << 10, MIB)
REST, AWAKE, STEADY = "one chunk per second", "one per second, kept awake", "steady"
REST_S = 1.0
LOOK_S = 0.5
"""So long after a chunk the router is asked about it: half-way to the next."""
STEADY_RATE = 50.0
"""Chunks per second: none waits for another, processors and caches stay warm."""
LIBRARY = OPENSSL
"""Of the figures: what the paper's service uses. The other one stands beside it for 1 MiB."""
AIMS = {PROCESS: 2.2, LXD: 2.6}


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    sizes: Sequence[int]
    runs: int
    chunks: int
    """Of a run with 1 MiB; of one with less it is one."""
    steady_chunks: int
    has_awake: bool


FULL = Effort(SIZES, runs=10, chunks=2, steady_chunks=100, has_awake=True)
QUICK = Effort((64 << 10, MIB), runs=1, chunks=1, steady_chunks=10, has_awake=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """One chunk, or the mean of the chunks of one run at the steady rate; in ms."""

    column: Column
    pace: str
    payload_bytes: int
    run: int
    penalty_ms: float
    processing_ms: float
    delivery_ms: float


class Penalty:
    """See `Experiment`."""

    name = "penalty"
    title = "Delay penalty against chunk size, one chunk per second"
    seconds = 340
    quick_seconds = 30
    keys = ("penalty_1mib_p50_ms.process", "penalty_1mib_p50_ms.lxd")

    def run(self, plan: ExperimentPlan) -> ExperimentResult:
        effort = QUICK if plan.is_quick else FULL
        libraries = (LIBRARY,) if plan.is_quick else (LIBRARY, PYCRYPTODOME)
        wanted = [name for name in (PROCESS, LXD) if name in plan.back_ends]
        missing = {
            key_of(name): "not wanted, or not to be had on this machine"
            for name in (PROCESS, LXD)
            if name not in wanted
        }
        columns = [Column(back_end, library) for back_end in wanted for library in libraries]
        failures: list[str] = []
        samples = self._measure(plan, effort, columns, failures)
        for name in wanted:
            if not any(sample.column.back_end == name for sample in samples):
                missing[key_of(name)] = "; ".join(failures)
        return penalty_result(samples, missing, failures)

    def _measure(
        self,
        plan: ExperimentPlan,
        effort: Effort,
        columns: Sequence[Column],
        failures: list[str],
    ) -> list[Sample]:
        """Measure all columns at one router; without containers if those do not start."""
        samples: list[Sample] = []
        try:
            with sealing_place(plan.folder / "place", columns, plan.tell) as place:
                _measure_place(plan, effort, place, samples)
        except TestbedError as error:
            failures.append(str(error))
            own = [column for column in columns if column.back_end == PROCESS]
            if samples or not own or len(own) == len(columns):
                return samples
            with sealing_place(plan.folder / "place-process", own, plan.tell) as place:
                _measure_place(plan, effort, place, samples)
        return samples


PENALTY: Experiment = Penalty()


def key_of(back_end: str) -> str:
    """Return the key of the figure for 1 MiB."""
    return f"penalty_1mib_p50_ms.{back_end}"


def penalty_result(
    samples: Sequence[Sample], missing: Mapping[str, str], failures: Sequence[str]
) -> ExperimentResult:
    """Make figures, tables and plot."""
    figures: dict[str, float | None] = {key_of(name): None for name in (PROCESS, LXD)}
    for name in figures.copy():
        back_end = name.rpartition(".")[2]
        figures[name] = _median_ms(samples, Column(back_end, LIBRARY), REST)
    comparisons = []
    for back_end, library, pace in _LINES:
        ours = _median_ms(samples, Column(back_end, library), pace)
        is_figure = (library, pace) == (LIBRARY, REST)
        if ours is None and not is_figure:
            continue
        comparisons.append(
            Comparison(
                f"delay penalty of 1 MiB, {back_end}, {library}, {pace}",
                "ms",
                paper.PENALTY_1MB_MS if pace == REST else None,
                ours,
                f"<= {AIMS[back_end]}" if is_figure else "",
                missing.get(key_of(back_end), "the paper: below 30 ms" if is_figure else ""),
            )
        )
    rows = [_row(column, pace, size, samples) for column, pace, size in _cells(samples)]
    return ExperimentResult(
        Penalty.name,
        Penalty.title,
        figures,
        missing,
        comparisons,
        {"penalty": rows, "penalty-samples": [_sample_row(sample) for sample in samples]},
        [_plot(rows)],
        _MEASURED,
        _ASSUMED,
        _protections({sample.column.back_end for sample in samples}),
        failures,
    )


_LINES = tuple(
    (back_end, library, pace)
    for pace in (REST, AWAKE, STEADY)
    for library in (OPENSSL, PYCRYPTODOME)
    for back_end in (PROCESS, LXD)
)


def _measure_place(
    plan: ExperimentPlan, effort: Effort, place: SealingPlace, samples: list[Sample]
) -> None:
    with open_workbench(
        place.children, place.router, place.address, effort.sizes, place.key_file
    ) as bench:
        tour = _Tour(plan, effort, place, bench, samples)
        tour.warm_up()
        for run in range(1, effort.runs + 1):
            tour.rest(run)
        for run in range(1, min(3, effort.runs) + 1):
            tour.steady(run)
        if effort.has_awake:
            with _kept_awake():
                tour.rest(1, AWAKE)
                tour.rest(2, AWAKE)
        bench.finish()


@dataclass(frozen=True, slots=True)
class _Tour:
    """Goes round sizes and columns, so that a drift of the machine meets all of them."""

    plan: ExperimentPlan
    effort: Effort
    place: SealingPlace
    bench: Workbench
    samples: list[Sample]

    def warm_up(self) -> None:
        """The first chunk of a VI finds out about its path, and one of each size makes buffers."""
        for column in self.place.sids:
            for size in self.effort.sizes:
                self.bench.send([self.place.sids[column]], size)
                self.bench.visits([self.place.sids[column]], 1)

    def rest(self, run: int, pace: str = REST) -> None:
        """One chunk per second, whatever it visits."""
        for size in reversed(self.effort.sizes) if pace == REST else (MIB,):
            for column in self._columns(size):
                self.plan.tell(f"{pace}: {size >> 10} KiB, {column.name}, run {run}")
                for _ in range(self.effort.chunks if size == MIB else 1):
                    self._one(column, size, run, pace)

    def steady(self, run: int) -> None:
        """A second or two of one chunk after the other."""
        for size in self.effort.sizes:
            for column in self._columns(size):
                self.plan.tell(f"{STEADY}: {size >> 10} KiB, {column.name}, run {run}")
                sid, count = self.place.sids[column], self.effort.steady_chunks
                self.bench.send([sid], size, count, 1 / STEADY_RATE)
                self._take(column, size, run, STEADY, count)

    def _columns(self, size: int) -> list[Column]:
        return [c for c in self.place.sids if size == MIB or c.library == LIBRARY]

    def _one(self, column: Column, size: int, run: int, pace: str) -> None:
        next_s = time.monotonic() + REST_S
        self.bench.send([self.place.sids[column]], size)
        time.sleep(LOOK_S)
        self._take(column, size, run, pace, 1)
        time.sleep(max(0.0, next_s - time.monotonic()))

    def _take(self, column: Column, size: int, run: int, pace: str, count: int) -> None:
        (found,) = self.bench.visits([self.place.sids[column]], count)
        self.samples.append(
            Sample(
                column,
                pace,
                size,
                run,
                found.penalty_ms,
                found.processing_ms,
                found.delivery_ms,
            )
        )


@contextlib.contextmanager
def _kept_awake() -> Iterator[None]:
    with Children() as children:
        command = python_command("packetcloud.testbed.experiments.awake")
        cores = len(os.sched_getaffinity(0))
        spinners: list[Child] = [children.start(f"awake-{n}", command) for n in range(cores)]
        for spinner in spinners:
            spinner.wait_event("ready", 20.0)
        yield


def _of(samples: Sequence[Sample], column: Column, pace: str, size: int = MIB) -> list[Sample]:
    return [
        one for one in samples if (one.column, one.pace, one.payload_bytes) == (column, pace, size)
    ]


def _median_ms(samples: Sequence[Sample], column: Column, pace: str) -> float | None:
    return middle(sample.penalty_ms for sample in _of(samples, column, pace))


def _cells(samples: Sequence[Sample]) -> list[tuple[Column, str, int]]:
    found = dict.fromkeys((one.column, one.pace, one.payload_bytes) for one in samples)
    return sorted(found, key=lambda cell: (cell[0].name, cell[1], cell[2]))


def _row(column: Column, pace: str, size: int, samples: Sequence[Sample]) -> dict[str, object]:
    found = _of(samples, column, pace, size)
    row: dict[str, object] = {
        "back_end": column.back_end,
        "library": column.library,
        "pace": pace,
        "chunk_kib": size >> 10,
    }
    for part in ("penalty_ms", "processing_ms", "delivery_ms"):
        values = spread(getattr(sample, part) for sample in found)
        assert values is not None
        row |= values.columns(part)
    mean = sum(sample.penalty_ms for sample in found) / len(found)
    return row | {"penalty_ms_mean": mean}


def _sample_row(sample: Sample) -> dict[str, object]:
    return {
        "back_end": sample.column.back_end,
        "library": sample.column.library,
        "pace": sample.pace,
        "chunk_kib": sample.payload_bytes >> 10,
        "run": sample.run,
        "penalty_ms": sample.penalty_ms,
        "processing_ms": sample.processing_ms,
        "delivery_ms": sample.delivery_ms,
    }


def _plot(rows: Sequence[Mapping[str, object]]) -> Plot:
    """Figure 4(b): delay penalty and processing over the size."""
    series = [
        Series(
            "the paper, 1 MB: below", [1000 * 1000 / 1024], [paper.PENALTY_1MB_MS], is_paper=True
        )
    ]
    for back_end in (PROCESS, LXD):
        for pace in (REST, STEADY):
            found = [
                row
                for row in rows
                if (row["back_end"], row["library"], row["pace"]) == (back_end, LIBRARY, pace)
            ]
            if not found:
                continue
            for part in ("penalty", "processing"):
                key = f"{part}_ms"
                series.append(
                    Series(
                        f"{back_end}, {pace}: {part}",
                        [_number(row["chunk_kib"]) for row in found],
                        [_number(row[key]) for row in found],
                        [_number(row[f"{key}_min"]) for row in found],
                        [_number(row[f"{key}_max"]) for row in found],
                    )
                )
    title = "Delay penalty and processing against chunk size (figure 4(b))"
    return Plot("penalty", title, "chunk, KiB", "ms, median", "line", series, y_log=True)


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


_MEASURED = (
    "Delay penalty: from the start of forwarding a chunk to the VI until the whole verdict is "
    "back, as the router counts it; processing is what the VI says it spent in the service, "
    "delivery the rest.",
    "At one chunk per second each sample is one chunk; 10 runs for each size and "
    "back-end, in turn, of 2 chunks with 1 MiB, else of one; the first chunk of each size and VI "
    f"does not count. At the steady rate ({STEADY_RATE:g} chunks per second) each is the mean of a "
    "run.",
    "Kept awake: the same while a program of the lowest priority keeps every core from halting.",
    "What arrived was counted, and a sample of it decrypted and compared with what was sent.",
)
_ASSUMED = (
    f"AES-128-CBC by {LIBRARY}, as the paper's service has it, makes the figures; {PYCRYPTODOME}, "
    "which is ours if nobody chooses, stands beside them.",
    "The paper's 1 MB is taken for 1 MiB. Its router and node were two machines joined by 1 "
    "Gbit/s, where 1 MB takes 8 ms each way; here a veth pair or loopback joins two processes.",
)


def _protections(back_ends: set[str]) -> list[str]:
    found = ["The caller's and the sinks' sessions with the router are sealed (AES-GCM)."]
    if PROCESS in back_ends:
        found.append(
            "process: a supervised child process with limits of memory, processor, files; no "
            "boundary against hostile code."
        )
    if LXD in back_ends:
        found.append(
            "lxd: an unprivileged container with an id map of its own, limits of memory, "
            "processor, processes and disk, filtered links to the router alone."
        )
    return found
