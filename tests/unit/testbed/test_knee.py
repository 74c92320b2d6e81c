"""How finely `testbed run load` finds a knee, and at how many runs; nothing is measured."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest

from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.trial import Trial
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.experiments import load
from packetcloud.testbed.experiments.experiment import ExperimentPlan, ExperimentResult
from packetcloud.testbed.experiments.load_figures import (
    DELAYS,
    FINE_SHARE,
    HALVINGS,
    MAIN,
    ROUTER_KNEE,
    Findings,
    Step,
)

FULL_GBPS = 2.0
RUNS_OF_SWEEPS = (2 + 8 * 2 + 3 * 2 + 1) + (2 + 6 + 6 * 2) + (2 + 3)
"""With hosts, at the router, with the other library: full rates and steps; with hosts 10 and 80 %
of the knee too, and the stages. A quarter of the full rate is among the paper's rates here."""


@dataclass
class _Service:
    """Delivers all that is offered, at most `FULL_GBPS`; late from `knee_gbps` on."""

    knee_gbps: ClassVar[float]
    broken_gbps: ClassVar[tuple[float, float]]
    """Between these rates nothing works."""
    runs: ClassVar[list[float]]

    scene: object
    payload_bytes: int
    rate: float
    library: str
    samples_file: Path | None
    is_at_router: bool

    def run(self, timing: Timing) -> Trial:
        offered_gbps = self.rate * self.payload_bytes * 8 / 1e9
        self.runs.append(offered_gbps)
        if self.broken_gbps[0] < offered_gbps < self.broken_gbps[1]:
            raise ChildError("no port")
        details = dict.fromkeys(DELAYS, 2.0 if offered_gbps < self.knee_gbps else 9.0)
        return Trial(min(offered_gbps or FULL_GBPS, FULL_GBPS), 1.0, {"router": 1.0}, details)


Measure = Callable[..., ExperimentResult]


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Runs the experiment on a service with such a knee."""

    @contextlib.contextmanager
    def scene(_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(name="wire")

    monkeypatch.setattr(load, "OurService", _Service)
    monkeypatch.setattr(load, "service_scene", scene)
    monkeypatch.setattr(load, "can_make_namespaces", lambda: False)

    def run(knee_gbps: float, broken_gbps: tuple[float, float] = (0.0, 0.0)) -> ExperimentResult:
        _Service.knee_gbps, _Service.broken_gbps, _Service.runs = knee_gbps, broken_gbps, []
        plan = ExperimentPlan(tmp_path, False, 1, ("process",), lambda text: None)
        return load.LOAD.run(plan)

    return run


@pytest.mark.parametrize("share", [0.26, 0.41, 0.5, 0.56, 0.65, 0.69, 0.75, 0.99])
def test_a_knee_is_found_to_a_twentieth_of_the_full_rate(measure: Measure, share: float) -> None:
    """Wherever it is: steps beyond those of the sweep halve what is left, few of them."""
    knee = measure(share * FULL_GBPS).figures["knee_gbps"]
    assert knee is not None
    assert 0 <= share - knee / FULL_GBPS <= FINE_SHARE + 1e-9
    assert len(_Service.runs) <= RUNS_OF_SWEEPS + 2 * sum(HALVINGS.values())


def test_steps_of_the_sweep_alone_miss_it(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without further steps 69 % is taken for 40 %."""
    monkeypatch.setattr(load, "HALVINGS", {})
    knee = measure(0.69 * FULL_GBPS).figures["knee_gbps"]
    assert knee == pytest.approx(0.4 * FULL_GBPS)
    assert len(_Service.runs) == RUNS_OF_SWEEPS


def test_further_steps_are_measured_as_often_as_the_others(measure: Measure) -> None:
    """They halve: 55, 62.5 and 66.25 % of the full rate; on the paper's path one is enough."""
    result = measure(0.69 * FULL_GBPS)
    rows = [row for row in result.tables["load-runs"] if row["library"] == "openssl"]
    shares = Counter(
        (row["path"], round(cast(float, row["offered_gbps"]) / FULL_GBPS, 4)) for row in rows
    )
    assert [shares["A-R-C-R-B", share] for share in (0.55, 0.625, 0.6625)] == [2, 2, 2]
    assert shares["R-C-R", 0.55] == 2
    assert result.figures[ROUTER_KNEE] == pytest.approx(0.55 * FULL_GBPS)
    said = "5% of the full rate; at most 3 (A-R-C-R-B, openssl) and 1 (R-C-R, openssl)."
    assert any(text.endswith(said) for text in result.measured)


def test_a_rate_at_which_nothing_works_is_not_tried_again(measure: Measure) -> None:
    """The knee is that of the sweep then, and what did not work is said."""
    result = measure(0.69 * FULL_GBPS, (1.05, 1.15))
    assert result.figures["knee_gbps"] == pytest.approx(0.4 * FULL_GBPS)
    said = Counter(text for text in result.failures if text.endswith("no port"))
    assert said == {
        "A-R-C-R-B, openssl, 1.10 Gbit/s: no port": 2,
        "R-C-R, openssl, 1.10 Gbit/s: no port": 2,
    }


def test_without_a_step_on_either_side_nothing_is_between() -> None:
    """Where none keeps up, where none falls behind, and where nothing was measured."""
    found = Findings({MAIN: FULL_GBPS})
    assert found.around_knee_gbps(MAIN) is None
    found.steps += [_step(0.5, 0.5), _step(1.0, 1.0)]
    assert found.around_knee_gbps(MAIN) is None
    found.steps.append(_step(1.5, 1.2))
    assert found.around_knee_gbps(MAIN) == (1.0, 1.5)
    found.steps.append(_step(0.2, 0.1))
    assert found.around_knee_gbps(MAIN) is None


def _step(offered_gbps: float, goodput_gbps: float) -> Step:
    details = dict.fromkeys(DELAYS, 2.0)
    return Step(MAIN, offered_gbps, 1, Trial(goodput_gbps, 1.0, {"router": 1.0}, details))
