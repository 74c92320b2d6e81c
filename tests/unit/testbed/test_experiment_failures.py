"""What experiments make of parts that fail: the rest counts, and what is wrong is said."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.trial import Trial
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.experiments import load
from packetcloud.testbed.experiments.experiment import ExperimentPlan
from packetcloud.testbed.experiments.sealing import PYCRYPTODOME


@dataclass
class _Service:
    """Delivers what is offered, at most 1 Gbit/s; with PyCryptodome it does not start."""

    scene: object
    payload_bytes: int
    rate: float
    library: str
    samples_file: Path | None

    def run(self, timing: Timing) -> Trial:
        if self.library == PYCRYPTODOME:
            raise ChildError("the VI ended")
        offered_gbps = self.rate * self.payload_bytes * 8 / 1e9
        details = dict.fromkeys(load._DETAILS, 2.0)
        return Trial(min(offered_gbps or 1.0, 1.0), 1.0, {"router": 1.0}, details)


def test_a_library_that_stands_beside_the_figures_does_not_cost_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes last; where it does not run, that is a failure, and its own figure is missing."""

    @contextlib.contextmanager
    def scene(_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(name="wire")

    monkeypatch.setattr(load, "OurService", _Service)
    monkeypatch.setattr(load, "service_scene", scene)
    monkeypatch.setattr(load, "can_make_namespaces", lambda: False)
    plan = ExperimentPlan(tmp_path, False, 1, ("process",), lambda text: None)
    result = load.LOAD.run(plan)
    assert result.figures["knee_gbps"] == pytest.approx(1.0)
    assert result.figures["penalty_ratio_80_to_10"] == pytest.approx(1.0)
    said = f"{PYCRYPTODOME}, as fast as it goes: the VI ended"
    assert said in result.failures
    assert result.figures[load.OTHER_KNEE] is None
    assert result.missing[load.OTHER_KNEE] == said
