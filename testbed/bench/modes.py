"""The same contenders in every link mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from packetcloud.testbed.bench.report import Document, failures_of, runs_of
from packetcloud.testbed.bench.rounds import Contender, Progress, Record, Timing, run_rounds
from packetcloud.testbed.bench.scene import Scene
from packetcloud.testbed.links import LinkMode

Records = Mapping[str, Record]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure in each mode, and which figures to make of it."""

    scene: Callable[[LinkMode | None], Scene]
    contenders: Callable[[Scene], Sequence[Contender]]
    figures: Callable[[Records], Document]


def measure_modes(
    plan: Plan, modes: Sequence[LinkMode | None], timing: Timing, progress: Progress
) -> tuple[Document, list[str]]:
    """Run the plan in each mode (None: loopback); return figures by mode, and what failed."""
    figures: Document = {}
    failures: list[str] = []
    for mode in modes:
        with plan.scene(mode) as scene:
            records = run_rounds(plan.contenders(scene), timing, _within(scene.name, progress))
            figures[scene.name] = {
                **plan.figures(records),
                **runs_of(records),
                "links": scene.settings_in_force(),
            }
            failures += [f"{scene.name}: {text}" for text in failures_of(records)]
    return figures, failures


def _within(mode: str, progress: Progress) -> Progress:
    return lambda text: progress(f"{mode}: {text}")
