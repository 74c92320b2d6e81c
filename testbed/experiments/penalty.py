"""Delay penalty and its two parts against the size of a chunk, at one chunk per second.

Source: MobiArch'13 paper, section 4.2 and figure 4(b).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.experiments.experiment import Experiment, ExperimentPlan, ExperimentResult
from packetcloud.testbed.experiments.penalty_figures import (
    ALONE,
    AWAKE,
    LIBRARY,
    MIB,
    REST,
    STEADY,
    STEADY_RATE,
    Sample,
    key_of,
    penalty_result,
)
from packetcloud.testbed.experiments.sealing import (
    LXD,
    PROCESS,
    PYCRYPTODOME,
    Column,
    SealingPlace,
    sealing_place,
)
from packetcloud.testbed.experiments.workbench import (
    Workbench,
    open_workbench,
    priority_of_hosts,
)
from packetcloud.testbed.processes import Child, Children, python_command
from packetcloud.testbed.vi_images import vi_image

SIZES = (64 << 10, 128 << 10, 256 << 10, 512 << 10, MIB)
REST_S = 1.0
LOOK_S = 0.3
"""So long after a chunk is known to be through the router is asked about it: half-way to the
next."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    sizes: Sequence[int]
    runs: int
    chunks: int
    """Of a run with 1 MiB; of one with less it is one."""
    steady_chunks: int
    has_awake: bool
    alone_runs: int
    """Where there is LXD: of child processes without it, as everywhere else."""


FULL = Effort(SIZES, runs=10, chunks=2, steady_chunks=320, has_awake=True, alone_runs=4)
QUICK = Effort((64 << 10, MIB), runs=1, chunks=1, steady_chunks=16, has_awake=False, alone_runs=1)


class Penalty:
    """See `Experiment`."""

    name = "penalty"
    title = "Delay penalty against chunk size, one chunk per second"
    seconds = 355
    quick_seconds = 30
    fingerprint = ""
    keys = ("penalty_1mib_p50_ms.process", "penalty_1mib_p50_ms.lxd")

    def make(self, back_ends: Sequence[str], tell: Callable[[str], None]) -> None:
        """Have the image of the containers; building it takes a minute or two."""
        if LXD in back_ends:
            vi_image(tell)

    def run(self, plan: ExperimentPlan) -> ExperimentResult:
        effort = QUICK if plan.is_quick else FULL
        libraries = (LIBRARY,) if plan.is_quick else (LIBRARY, PYCRYPTODOME)
        wanted = [name for name in (PROCESS, LXD) if name in plan.back_ends]
        why = "not wanted, or not to be had on this machine"
        if plan.is_quick:
            why = "a quick run starts containers only with --back-end lxd or both"
        missing = {key_of(name): why for name in (PROCESS, LXD) if name not in wanted}
        columns = [Column(back_end, library) for back_end in wanted for library in libraries]
        failures: list[str] = []
        protections: list[str] = []
        samples = self._measure(plan, effort, columns, failures, protections)
        for name in wanted:
            if not any((s.column.back_end, s.pace) == (name, REST) for s in samples):
                missing[key_of(name)] = "; ".join(failures)
        return penalty_result(samples, missing, failures, protections)

    def _measure(
        self,
        plan: ExperimentPlan,
        effort: Effort,
        columns: Sequence[Column],
        failures: list[str],
        protections: list[str],
    ) -> list[Sample]:
        """Measure all columns at one router; without containers if those do not start."""
        samples: list[Sample] = []
        own = [column for column in columns if column.back_end == PROCESS]
        if own and len(own) < len(columns):
            try:
                with sealing_place(plan.folder / "place-alone", own[:1], plan.tell) as place:
                    _measure_alone(plan, effort, place, samples)
            except TestbedError as error:  # it stands beside the figures, which are there without
                failures.append(f"{ALONE}: {error}")
        try:
            with sealing_place(plan.folder / "place", columns, plan.tell) as place:
                _measure_place(plan, effort, place, samples)
                protections += place.protections()
        except TestbedError as error:
            failures.append(str(error))
            has_figures = any(sample.pace == REST for sample in samples)
            if has_figures or not own or len(own) == len(columns):
                return samples
            with sealing_place(plan.folder / "place-process", own, plan.tell) as place:
                _measure_place(plan, effort, place, samples)
                protections += place.protections()
        return samples


PENALTY: Experiment = Penalty()


def _measure_place(
    plan: ExperimentPlan, effort: Effort, place: SealingPlace, samples: list[Sample]
) -> None:
    with open_workbench(
        place.children,
        place.router,
        place.address,
        effort.sizes,
        priority_of_hosts(plan),
        place.key_file,
    ) as bench:
        tour = _Tour(plan, effort, place, bench, samples)
        tour.warm_up(effort.sizes)
        for run in range(1, effort.runs + 1):
            tour.rest(run)
        for run in range(1, min(3, effort.runs) + 1):
            tour.steady(run)
        if effort.has_awake:
            with _kept_awake():
                tour.rest(1, AWAKE)
                tour.rest(2, AWAKE)
        bench.finish()


def _measure_alone(
    plan: ExperimentPlan, effort: Effort, place: SealingPlace, samples: list[Sample]
) -> None:
    with open_workbench(
        place.children, place.router, place.address, (MIB,), priority_of_hosts(plan), place.key_file
    ) as bench:
        tour = _Tour(plan, effort, place, bench, samples)
        tour.warm_up((MIB,))
        for run in range(1, effort.alone_runs + 1):
            tour.rest(run, ALONE)
        bench.finish()


@dataclass(frozen=True, slots=True)
class _Tour:
    """Goes round sizes and columns, so that a drift of the machine meets all of them."""

    plan: ExperimentPlan
    effort: Effort
    place: SealingPlace
    bench: Workbench
    samples: list[Sample]

    def warm_up(self, sizes: Sequence[int]) -> None:
        """The first chunk of a VI finds out about its path, and one of each size makes buffers."""
        for column in self.place.sids:
            for size in sizes:
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
