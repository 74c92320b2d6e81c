"""`packetcloud bench chunks`: small chunks per second through one router process.

Source: docs/reference/bench.md, "chunks".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from packetcloud.testbed.bench.ours import Load
from packetcloud.testbed.bench.path import attach_ends, check_conservation, router_on_centre
from packetcloud.testbed.bench.report import Document, begin_document
from packetcloud.testbed.bench.rounds import Progress, Record, Timing, run_rounds
from packetcloud.testbed.bench.scene import Scene, path_scene
from packetcloud.testbed.bench.stages import stage_shares
from packetcloud.testbed.bench.trial import Trial, make_trial
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.meter import WHOLE_MACHINE, Meter
from packetcloud.testbed.processes import Children, python_command
from packetcloud.testbed.sampled import BEGIN_SAMPLING

SIZES = (64, 1024, 16384)
OUTSTANDING_BYTES = 2 << 20
"""Chunks in flight: 2 MiB of them, so that a turn of any event loop finds work."""
MOST_OUTSTANDING = 1024
SHOWN_FUNCTIONS = 40
"""Of the router's functions, the most expensive ones."""
BUSY_CORE = 0.9
"""A process that uses so much of one core is the limit: Python has one thread for this."""


@dataclass(frozen=True, slots=True)
class SmallChunks:
    """Chunks of one size from A through the router to B."""

    scene: Scene
    payload_bytes: int
    samples_file: Path | None = None
    """Sample the router's stages into this file."""

    @property
    def name(self) -> str:
        return f"{self.payload_bytes} B"

    def run(self, timing: Timing) -> Trial:
        outstanding = min(MOST_OUTSTANDING, OUTSTANDING_BYTES // self.payload_bytes)
        load = Load(payload_bytes=self.payload_bytes, outstanding=outstanding)
        with Children() as children:
            if self.samples_file is None:
                router = router_on_centre(children, self.scene)
            else:
                router = router_on_centre(children, self.scene, command=self._sampled)
                router.child.signal(BEGIN_SAMPLING)
            ends = attach_ends(children, self.scene, router, load, timing)
            assert ends.sender is not None and ends.receiver is not None
            with Meter([ends.sender, router.child, ends.receiver]) as meter:
                window, chunks = ends.wait_window()
            check_conservation(*ends.finish(), router)
            used = meter.cpu_seconds(window.begin_s, window.end_s)
            router.child.stop()
            return make_trial(
                window,
                meter,
                chunks_per_s=chunks / window.seconds,
                cpu_us_per_chunk={name: cpu_s / chunks * 1e6 for name, cpu_s in used.items()},
                busy_cores={name: cpu_s / window.seconds for name, cpu_s in used.items()},
            )

    def _sampled(self, *arguments: object) -> list[str]:
        module = "packetcloud.testbed.sampled"
        return python_command(module, self.samples_file, "--", "packetcloud.cli", *arguments)


def bench_chunks(
    modes: Sequence[LinkMode | None],
    timing: Timing,
    progress: Progress,
    payload_sizes: Sequence[int] = SIZES,
) -> Document:
    """Measure every size in each mode; None stands for loopback."""
    document = begin_document("chunks", timing, modes[0] is None, ())
    document["modes"] = {}
    document["failures"] = []
    for mode in modes:
        with path_scene(mode) as scene:
            sizes = _measure_sizes(scene, timing, progress, payload_sizes, document["failures"])
            document["modes"][scene.name] = {"sizes": sizes, "links": scene.settings_in_force()}
    counted = document["modes"].get(LinkMode.WIRE.value) or next(iter(document["modes"].values()))
    document["sizes"] = counted["sizes"]
    return document


def _measure_sizes(
    scene: Scene,
    timing: Timing,
    progress: Progress,
    payload_sizes: Sequence[int],
    failures: list[str],
) -> dict[str, Document]:
    def within(text: str) -> None:
        progress(f"{scene.name}: {text}")

    contenders = [SmallChunks(scene, size) for size in payload_sizes]
    records = run_rounds(contenders, timing, within)
    figures = {}
    for contender in contenders:
        record = records[contender.name]
        failures += [f"{scene.name}, {contender.name}: {text}" for text in record.failures]
        within(f"{contender.name}, stages of the router")
        try:
            samples = _sample_router(scene, contender.payload_bytes, timing)
        except ChildError as error:
            failures.append(f"{scene.name}, {contender.name}, stages: {error}")
            samples = {}
        figures[str(contender.payload_bytes)] = size_figures(record, samples)
    return figures


def size_figures(record: Record, samples: dict[str, int]) -> Document:
    """Put the medians of one size together with where the router's time goes.

    Args:
        samples: of the router, by function.
    """
    if not record.trials:
        return {"chunks_per_s": None, "router_stages_us": {}, "failures": record.failures}
    details: list[Any] = [trial.details for trial in record.trials]
    rates = [detail["chunks_per_s"] for detail in details]
    cpu_us = _medians([detail["cpu_us_per_chunk"] for detail in details])
    busy = _medians([detail["busy_cores"] for detail in details])
    return {
        "chunks_per_s": median(rates),
        "min_chunks_per_s": min(rates),
        "max_chunks_per_s": max(rates),
        "samples_chunks_per_s": rates,
        "goodput_gbps": record.goodput_gbps,
        "cpu_us_per_chunk": cpu_us,
        "busy_cores": busy,
        "router_stages_us": {
            name: share * cpu_us["router"] for name, share in stage_shares(samples).items()
        },
        "router_functions_us": {
            name: count / sum(samples.values()) * cpu_us["router"]
            for name, count in list(samples.items())[:SHOWN_FUNCTIONS]
        },
        "limit": limit_of(busy),
        "failures": record.failures,
    }


def limit_of(busy_cores: dict[str, float]) -> str:
    """Say what keeps the rate from being higher."""
    processes = {name: cores for name, cores in busy_cores.items() if name != WHOLE_MACHINE}
    name, cores = max(processes.items(), key=lambda item: item[1])
    if cores >= BUSY_CORE:
        return f"the {name}: {cores:.2f} of the one core that its thread can use"
    return (
        f"the machine: all processes together use {busy_cores[WHOLE_MACHINE]:.2f} cores; "
        f"the {name} most of them, {cores:.2f}"
    )


def _sample_router(scene: Scene, payload_bytes: int, timing: Timing) -> dict[str, int]:
    """Run once more with the sampler in the router: the timed runs go without it."""
    with Children() as scratch:
        file = scratch.directory / "samples.json"
        SmallChunks(scene, payload_bytes, file).run(timing)
        try:
            samples: dict[str, int] = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise ChildError(f"the router left no samples: {error}") from error
    return samples


def _medians(values: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(value[name] for value in values) for name in values[0]}
