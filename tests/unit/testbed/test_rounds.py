"""Interleaved repeats and what they add up to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from packetcloud.testbed.bench.report import failures_of, runs_of
from packetcloud.testbed.bench.rounds import Timing, best, ratio, run_rounds
from packetcloud.testbed.bench.trial import Trial
from packetcloud.testbed.errors import ChildError, MissingToolError, TestbedError

TIMING = Timing(seconds=1, warmup=0, repeats=3)


@dataclass
class Scripted:
    """A contender whose results are given: a goodput, or an error to raise."""

    name: str
    results: list[float | Exception]
    order: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._next: Iterator[float | Exception] = iter(self.results)

    def run(self, timing: Timing) -> Trial:
        self.order.append(self.name)
        result = next(self._next)
        if isinstance(result, Exception):
            raise result
        return Trial(result, 1.0, {"sender": result / 10})


def _quiet(_: str) -> None:
    pass


def test_contenders_take_turns() -> None:
    """A drift of the machine meets every contender alike."""
    order: list[str] = []
    ours = Scripted("ours", [1.0, 2.0, 3.0], order)
    peer = Scripted("peer", [4.0, 5.0, 6.0], order)
    run_rounds([ours, peer], TIMING, _quiet)
    assert order == ["ours", "peer"] * 3


def test_medians_and_spread() -> None:
    """The median counts, the extremes and every sample are kept."""
    records = run_rounds([Scripted("ours", [1.0, 9.0, 2.0])], TIMING, _quiet)
    ours = records["ours"]
    assert ours.goodput_gbps == 2.0
    assert ours.cpu_s_per_gb == {"sender": pytest.approx(0.2)}
    spread = runs_of(records)["runs"]["ours"]
    assert (spread["min_gbps"], spread["max_gbps"]) == (1.0, 9.0)
    assert spread["samples_gbps"] == [1.0, 9.0, 2.0]


def test_a_peer_that_is_not_installed_is_left_out_once() -> None:
    """It is asked once, its figures are missing with the reason, and the rest is measured."""
    peer = Scripted("peer", [MissingToolError("peer is not installed")])
    records = run_rounds([Scripted("ours", [1.0, 1.0, 1.0]), peer], TIMING, _quiet)
    assert peer.order == ["peer"]
    assert records["peer"].missing == "peer is not installed"
    assert records["peer"].goodput_gbps is None
    assert len(records["ours"].trials) == 3


def test_a_failed_run_is_kept_in_the_report() -> None:
    """One failure costs one run; it is named."""
    ours = Scripted("ours", [1.0, ChildError("it fell over"), 3.0])
    records = run_rounds([ours], TIMING, _quiet)
    assert records["ours"].goodput_gbps == 2.0
    assert failures_of(records) == ["ours: it fell over"]


def test_nothing_else_is_measured_when_ours_does_not_work_at_all() -> None:
    """Whoever broke us learns it at once, not after an hour of peers."""
    order: list[str] = []
    ours = Scripted("ours", [ChildError("no")], order)
    with pytest.raises(TestbedError, match="the first run of ours failed: no"):
        run_rounds([ours, Scripted("peer", [1.0], order)], TIMING, _quiet)
    assert order == ["ours"]


def test_ratios_of_missing_figures_are_missing() -> None:
    """No figure is invented for a peer that was not measured."""
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(3.0, None) is None
    assert best(None, 2.0, 1.0) == 2.0
    assert best(None, None) is None
