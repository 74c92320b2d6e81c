"""What the experiments make of their measurements: figures, and reasons where there is none."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from typing import Any, cast

import pytest

from packetcloud.testbed.bench.emulated import (
    ATTEMPTS,
    NOT_VOUCHED,
    Conditions,
    EmulatedScene,
    run_valid,
)
from packetcloud.testbed.bench.rounds import Record
from packetcloud.testbed.bench.trial import Trial
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.experiments import EXPERIMENTS, PAPER, goodput, paper
from packetcloud.testbed.experiments.calibration import TRIED, Try, first_links, next_links
from packetcloud.testbed.experiments.experiment import ExperimentResult
from packetcloud.testbed.experiments.four_nodes import CHOSEN, FAR_DELAY_S, Links
from packetcloud.testbed.experiments.goodput import goodput_result
from packetcloud.testbed.experiments.load import TIMING
from packetcloud.testbed.experiments.load_figures import (
    AT_ROUTER,
    DELAYS,
    MAIN,
    RATIO_OF_MEANS,
    RATIO_TO_LEAST,
    ROUTER_KNEE,
    Findings,
    Line,
    Step,
    load_result,
    penalty_ratio,
)
from packetcloud.testbed.experiments.penalty_figures import (
    ALONE,
    AWAKE,
    MIB,
    REST,
    STEADY,
    Sample,
    penalty_result,
)
from packetcloud.testbed.experiments.projection import project
from packetcloud.testbed.experiments.response import (
    cubic_bps,
    loss_for,
    loss_of_path,
    reno_bps,
    rtt_for,
)
from packetcloud.testbed.experiments.scale import PROJECTED, scale_result
from packetcloud.testbed.experiments.sealing import OPENSSL, PROCESS, PYCRYPTODOME, Column
from packetcloud.testbed.experiments.sequence import KEY, MIXED, Passage, sequence_result
from packetcloud.testbed.experiments.services import ServiceFigure
from packetcloud.testbed.experiments.spread import middle, runs_text, slope, spread
from packetcloud.testbed.experiments.workbench import Visits, between


def _check(result: ExperimentResult) -> None:
    """What holds for every result: the figures that its experiment is run for are there, none is
    missing without a reason, and none has both."""
    (keys,) = (one.keys for name, one in _experiments() if name == result.name)
    assert set(keys) <= set(result.figures)
    assert {key for key, value in result.figures.items() if value is None} == set(result.missing)
    assert all(result.missing.values())
    for plot in result.plots:
        for series in plot.series:
            assert len(series.x) == len(series.y)
            assert len(series.low) in (0, len(series.y)) and len(series.high) == len(series.low)


# --- the laws of TCP ----------------------------------------------------------------------------


def test_the_law_of_reno() -> None:
    """1448 bytes, 100 ms, 1 %: 1.2247 / 0.1 segments in a round trip."""
    assert reno_bps(0.1, 0.01) == pytest.approx(1448 * 8 / 0.1 * 12.247, rel=1e-4)


def test_cubic_follows_the_larger_of_two_laws() -> None:
    """On short round trips that of Reno; on long and clean ones its own, by RFC 9438's table."""
    assert cubic_bps(0.03, 0.005) == reno_bps(0.03, 0.005)
    # RFC 8312, table 2 (C = 0.4, RTT 0.1 s, loss 1e-5): 1054 packets.
    window = cubic_bps(0.1, 1e-5) * 0.1 / (1448 * 8)
    assert window == pytest.approx(1054, rel=0.01)


def test_loss_and_round_trip_are_found_from_the_rate() -> None:
    """Both undo the law."""
    assert cubic_bps(0.03, loss_for(7.1e6, 0.03)) == pytest.approx(7.1e6)
    assert cubic_bps(rtt_for(4.3e6, 0.009), 0.009) == pytest.approx(4.3e6)
    assert loss_of_path(0.1, 0.5) == pytest.approx(0.55)


def test_the_search_begins_where_the_laws_give_both_figures_of_the_paper() -> None:
    """From B to C 7.10, from B to A 4.30."""
    links = first_links()
    assert cubic_bps(2 * FAR_DELAY_S, links.loss) == pytest.approx(7.10e6)
    rtt_s = 2 * (FAR_DELAY_S + links.near_delay_s)
    both = loss_of_path(links.loss, links.loss)
    assert cubic_bps(rtt_s, both) == pytest.approx(4.30e6)


def test_the_search_comes_to_an_end() -> None:
    """In a world that is slower than the laws by a factor of its own on each path."""
    links = first_links()
    for _ in range(3):
        last = _measured(links)
        if last.is_close:
            break
        links = next_links(last)
    assert _measured(links).is_close
    assert not _measured(first_links()).is_close


def _measured(links: Links) -> Try:
    near_s = links.near_delay_s
    whole = cubic_bps(2 * (FAR_DELAY_S + near_s), loss_of_path(links.loss, links.loss))
    return Try(links, 0.85 * whole / 1e6, 0.8 * cubic_bps(2 * FAR_DELAY_S, links.loss) / 1e6)


def test_the_links_that_are_used_are_those_that_were_found() -> None:
    """The last try of the stored search, and it was within what is allowed."""
    assert TRIED, "no search is stored"
    assert TRIED[-1].links == CHOSEN
    assert abs(TRIED[-1].whole_mbps / paper.CUBIC_MBPS - 1) <= 0.1
    assert abs(TRIED[-1].far_mbps / paper.TRANSLATOR_MBPS - 1) <= 0.1


# --- spread, slope, projection ------------------------------------------------------------------


def test_spread_and_slope() -> None:
    """Of nothing there is neither."""
    found = spread([3.0, 1.0, 2.0])
    assert found is not None
    assert (found.median, found.low, found.high, found.count) == (2.0, 1.0, 3.0, 3)
    assert found.columns("ms") == {"ms": 2.0, "ms_min": 1.0, "ms_max": 3.0, "ms_samples": 3}
    assert spread([]) is None and middle([]) is None
    assert slope([(1, 3.0), (2, 5.0), (3, 7.0)]) == pytest.approx(2.0)
    assert slope([(1, 3.0), (1, 5.0)]) is None


def test_a_median_says_of_how_many_runs_it_is() -> None:
    """Of one run there is none."""
    assert runs_text(1) == "one run, so no median"
    assert runs_text(3, 3) == "medians of 3 runs"
    assert runs_text(3, 1, 6) == "medians of 1 to 6 runs"
    assert runs_text() == "no run"


def test_a_projection_is_bounded_by_the_router() -> None:
    """A router that needs 2 s for 1 GB carries 4 Gbit/s, however many nodes there are."""
    few, many = project(2, 0.5, 2.0), project(20, 0.5, 2.0)
    assert (few.gbps, few.limit) == (1.0, "nodes")
    assert (many.gbps, many.limit, many.by_nodes_gbps) == (4.0, "router", 10.0)


def test_the_scale_without_a_run_of_one_vi_has_no_projection() -> None:
    """The reason is that run's."""
    records = {1: Record(failures=["it fell over"]), 2: Record([Trial(2.0, 1.0)])}
    result = scale_result(records, 2)
    _check(result)
    assert result.figures["scale.vis_2_gbps"] == 2.0
    assert result.missing[PROJECTED] == "it fell over"
    records[1] = Record([Trial(1.0, 1.0, {"router": 1.0, "vi": 3.0})])
    result = scale_result(records, 2)
    _check(result)
    assert result.figures[PROJECTED] == 8.0
    assert result.figures["scale.router_limit_gbps"] == 8.0


# --- runs that count ----------------------------------------------------------------------------


class _Links:
    """Links whose emulator was late in the runs whose numbers are given."""

    def __init__(self, *late: int) -> None:
        self.late = late
        self.runs = 0

    def restart(self, conditions: Conditions, seed: int) -> None:
        self.runs += 1

    def report(self) -> dict[str, Any]:
        is_late = self.runs in self.late
        return {"is_valid": not is_late, "objections": ["late"] if is_late else []}

    def run(self) -> Trial:
        return Trial(float(self.runs), 1.0)


def test_a_run_with_a_late_emulator_does_not_count() -> None:
    """It is done again; the one that counts is the first that the emulator vouches for."""
    links = _Links(1, 2)
    trial = run_valid(cast(EmulatedScene, links), Conditions.both(Shape()), 1, links.run)
    assert trial.goodput_gbps == 3.0


def test_when_the_emulator_is_always_late_there_is_no_figure() -> None:
    """The figure is missing with that reason; in a quick pass that is no failure."""
    links = _Links(*range(1, ATTEMPTS + 1))
    with pytest.raises(ChildError, match=NOT_VOUCHED) as caught:
        run_valid(cast(EmulatedScene, links), Conditions.both(Shape()), 1, links.run)
    records = {name: _record(4.3) for name in (goodput.BBR, goodput.CHUNKS, goodput.FAR_CUBIC)}
    late = Record(failures=[str(caught.value)])
    assert goodput_result({**records, goodput.CUBIC: late}, False).failures != []
    result = goodput_result({**records, goodput.CUBIC: late}, True)
    _check(result)
    assert result.figures["goodput.cubic_mbps"] is None
    assert result.missing["goodput.cubic_mbps"].startswith(NOT_VOUCHED)
    assert result.failures == []


def _record(*mbps: float, first_seed: int = 1) -> Record:
    link = {"to_right": {"dropped": {"lost": 3}}, "to_left": {"dropped": {}}}
    emulator = {"links": {"a": link, "b": link}}
    return Record(
        [
            Trial(one / 1e3, 1.0, {"receiver": 1.0}, {"seed": seed, "emulator": emulator})
            for seed, one in enumerate(mbps, first_seed)
        ]
    )


def test_the_figures_of_goodput() -> None:
    """Medians; the gain is of the translator over CUBIC from end to end, of averages over the seeds
    with which both ran: here the second and the third."""
    records = {
        goodput.CUBIC: _record(4.0, 4.5, 4.5),
        goodput.BBR: _record(40.0),
        goodput.CHUNKS: _record(44.0),
        goodput.FAR_CUBIC: _record(7.0),
        goodput.TRANSLATOR: _record(8.0, 10.0, 99.0, first_seed=2),
    }
    result = goodput_result(records, False)
    _check(result)
    assert result.figures["goodput.cubic_mbps"] == pytest.approx(4.5)
    assert result.figures["goodput.mf_mbps"] == pytest.approx(44.0)
    assert result.figures["goodput.translator_gain_percent"] == pytest.approx(100.0)
    assert [pair["seed"] for pair in result.tables["goodput-pairs"]] == [2, 3]
    by_name = {one.what: one for one in result.comparisons}
    assert by_name[goodput.TITLES[goodput.CHUNKS]].paper == 26.14
    assert by_name[goodput.TITLES[goodput.FAR_CUBIC]].paper is None, "it measured its translator"
    assert "average 4.33" in by_name[goodput.TITLES[goodput.CUBIC]].note
    assert any("chunks one run, so no median" in text for text in result.measured)
    assert result.tables["goodput-runs"][0]["lost_packets_a"] == 3


def test_without_a_translator_the_gain_is_missing_too() -> None:
    """With the translator's reason, and a failure stays one."""
    records = {name: _record(4.3) for name in (goodput.CUBIC, goodput.BBR, goodput.FAR_CUBIC)}
    result = goodput_result({**records, goodput.CHUNKS: Record(failures=["no session"])}, True)
    _check(result)
    assert result.missing[goodput.GAIN] == result.missing["goodput.translator_mbps"]
    assert result.failures == ["chunks: no session"]


# --- delay penalty ------------------------------------------------------------------------------


def _sample(back_end: str, penalty_ms: float, pace: str = REST, library: str = OPENSSL) -> Sample:
    return Sample(Column(back_end, library), pace, MIB, 1, penalty_ms, 1.0, penalty_ms - 1.0)


def test_the_delay_penalty_is_that_at_rest() -> None:
    """Other paces and libraries stand beside it and are not mixed in."""
    samples = [
        *(_sample(PROCESS, ms) for ms in (3.0, 5.0, 4.0)),
        _sample(PROCESS, 1.5, STEADY),
        _sample(PROCESS, 1.7, AWAKE),
        _sample(PROCESS, 1.6, ALONE),
        _sample(PROCESS, 9.0, REST, PYCRYPTODOME),
    ]
    samples[0] = _sample(PROCESS, 3.3)
    result = penalty_result(samples, {"penalty_1mib_p50_ms.lxd": "no LXD"}, [], ["as found"])
    _check(result)
    assert result.figures["penalty_1mib_p50_ms.process"] == 4.0
    by_name = {one.what: one for one in result.comparisons}
    line = by_name["delay penalty of 1 MiB, lxd, openssl, one chunk per second, average"]
    assert line.ours is None and line.note == "no LXD" and line.paper == 30.0
    start = "delay penalty of 1 MiB, process, openssl, "
    assert by_name[f"{start}{REST}, average"].ours == pytest.approx(4.1)
    median = by_name[f"{start}{REST}, median"]
    assert (median.paper, median.ours, median.aim) == (None, 4.0, "<= 2.2")
    assert by_name[f"{start}steady, median"].ours == 1.5
    assert by_name[f"{start}{ALONE}, median"].ours == 1.6
    assert len(result.tables["penalty"]) == 5
    assert "as found" in result.protections


def _durations(count: int, sum_s: float) -> dict[str, Any]:
    part = {"count": count, "sum_s": sum_s}
    return {"delay_penalty": part, "processing": part, "delivery": part}


def test_visits_are_what_came_between_two_looks() -> None:
    """Means in ms; no visit has none."""
    assert between(_durations(2, 1.0), _durations(4, 1.006)) == Visits(2, *[pytest.approx(3.0)] * 3)
    assert between(None, _durations(1, 0.002)).penalty_ms == pytest.approx(2.0)
    with pytest.raises(ChildError, match="no chunk"):
        between(_durations(2, 1.0), _durations(2, 1.0))


# --- load ---------------------------------------------------------------------------------------


def _step(
    offered: float, penalty_ms: float, goodput_gbps: float | None = None, line: Line = MAIN
) -> Step:
    details = dict.fromkeys(DELAYS, penalty_ms) | {"delay_penalty_mean_ms": 2 * penalty_ms**2}
    delivered = offered if goodput_gbps is None else goodput_gbps
    return Step(line, offered, 1, Trial(delivered, 1.0, {"router": 1.0}, details))


def test_the_knee_is_that_of_the_service_benchmark() -> None:
    """95 % delivered with at most three times the steady penalty; several runs of a rate count as
    their median."""
    found = Findings({MAIN: 4.0})
    found.steps += [_step(0.5, 2.0), _step(1.0, 2.0), _step(2.0, 5.0), _step(2.0, 7.0)]
    found.steps += [_step(2.0, 5.5), _step(3.0, 6.1), _step(4.0, 2.0, 3.0)]
    assert found.knee_gbps(MAIN) == 2.0
    result = load_result(found, "wire", TIMING)
    _check(result)
    assert result.figures["knee_gbps"] == 2.0
    assert result.figures["load.knee_gbps_pycryptodome"] is None
    assert result.missing[ROUTER_KNEE] == "not measured"
    assert not any("fell behind" in one.note for one in result.comparisons), "the last one did"


def test_the_two_paths_have_knees_of_their_own() -> None:
    """`knee_gbps` is that with hosts; the paper's own path, and its rates, stand beside it."""
    found = Findings({MAIN: 2.0, AT_ROUTER: 4.0})
    found.steps += [_step(0.5, 2.0), _step(1.5, 3.0)]
    found.steps += [_step(rate, 2.0, line=AT_ROUTER) for rate in (0.1, 1.0, 3.5)]
    result = load_result(found, "wire", TIMING)
    _check(result)
    assert (result.figures["knee_gbps"], result.figures[ROUTER_KNEE]) == (1.5, 3.5)
    by_name = {one.what: one for one in result.comparisons}
    line = by_name["delay penalty at 100 Mbit/s, R-C-R, average"]
    assert line.ours == 8.0 and line.paper == pytest.approx(29.7, abs=0.05)
    assert by_name[f"knee of one VI, {AT_ROUTER}"].note.startswith("no step fell behind")
    assert result.figures["load.full_gbps_at_router_openssl"] == 4.0
    assert {step["path"] for step in result.tables["load"]} == {"A-R-C-R-B", "R-C-R"}


def test_penalties_are_compared_like_with_like() -> None:
    """Medians with medians, averages with averages; and with the least penalty of all rates, as at
    10 % processors sleep."""
    found = Findings({MAIN: 2.0})
    found.steps += [_step(0.5, 1.5), _step(2.0, 3.0)]
    found.compared += [_step(0.2, 2.0), _step(1.6, 3.0), _step(0.2, 4.0), _step(1.6, 6.0)]
    assert penalty_ratio(found.compared) == pytest.approx(1.5)
    result = load_result(found, "wire", TIMING)
    _check(result)
    assert result.figures["penalty_ratio_80_to_10"] == pytest.approx(1.5)
    assert result.figures[RATIO_OF_MEANS] == pytest.approx(45 / 20)
    assert result.figures[RATIO_TO_LEAST] == pytest.approx(3.0)


def test_without_a_knee_there_is_no_ratio() -> None:
    """Both say why."""
    found = Findings({MAIN: 1.0})
    found.steps += [_step(0.1, 2.0, 0.01)]
    result = load_result(found, "wire", TIMING)
    _check(result)
    assert result.missing["penalty_ratio_80_to_10"] == result.missing["knee_gbps"]


# --- sequences ----------------------------------------------------------------------------------


def _passage(length: int, delay_ms: float) -> Passage:
    names = tuple(f"reader-{n}" for n in range(1, length + 1))
    return Passage(names, 1, [Visits(1, 0.5, 0.2, 0.3)] * length, [delay_ms])


def test_what_one_more_service_costs() -> None:
    """The slope; the mixed sequence is not part of it."""
    mixed = Passage(MIXED, 1, [Visits(1, 2.0, 1.0, 1.0)] * len(MIXED), [99.0])
    result = sequence_result([_passage(1, 2.0), _passage(2, 2.8), _passage(3, 3.6), mixed], [], [])
    _check(result)
    assert result.figures[KEY] == pytest.approx(0.8)
    assert result.figures["sequence.mixed_penalty_ms"] == pytest.approx(12.0)
    assert [row["services"] for row in result.tables["sequence"]] == [1, 2, 3]


def test_one_length_has_no_slope() -> None:
    """It says so."""
    result = sequence_result([_passage(1, 2.0)], [], [])
    _check(result)
    assert KEY in result.missing


# --- figures of services ------------------------------------------------------------------------


def _ids_result(**document: Any) -> ExperimentResult:
    figure = ServiceFigure(
        "ids", "IDS", 2, 1, "ids_gbps", "Gbit/s", ">= 5", lambda plan: {}, "so", "none"
    )
    return figure.result({"notes": [], "failures": [], **document})


def test_the_figure_of_a_service_is_that_of_its_benchmark() -> None:
    """All its numbers stand in a table, those of machine and plan not."""
    document = {"text": {"us": 2}, "machine": {"cores": 2}, "has": True, "rules": 1000}
    result = _ids_result(ids_gbps=6.5, **document)
    _check(result)
    assert result.figures == {"ids_gbps": 6.5}
    rows = [(row["figure"], row["value"]) for row in result.tables["ids"]]
    assert rows == [("ids_gbps", 6.5), ("text.us", 2), ("rules", 1000)]


def test_a_benchmark_that_failed_says_why_its_figure_is_missing() -> None:
    """Whether it says so itself, or is silent."""
    result = _ids_result(ids_gbps=None, failures=["no rules"])
    _check(result)
    assert result.missing == {"ids_gbps": "no rules"}
    assert result.failures == ["no rules"]
    _check(_ids_result())


# --- the list -----------------------------------------------------------------------------------


def _experiments() -> Iterator[tuple[str, Any]]:
    for name, where in EXPERIMENTS.items():
        module, _, attribute = where.partition(":")
        yield name, getattr(importlib.import_module(module), attribute)


def test_every_experiment_is_where_the_list_says() -> None:
    """It has the name that it is listed under, and says how long it takes."""
    for name, experiment in _experiments():
        assert experiment.name == name and experiment.title
        assert 0 < experiment.quick_seconds < experiment.seconds
    assert set(PAPER) <= set(EXPERIMENTS)


def test_the_paper_fits_into_half_an_hour() -> None:
    """And a quick pass of it into three minutes."""
    found = [experiment for name, experiment in _experiments() if name in PAPER]
    assert sum(one.seconds for one in found) <= 1800
    assert sum(one.quick_seconds for one in found) <= 180


def test_the_paper_s_penalty_at_100_mbps_is_computed() -> None:
    """34.76 ms is 17.08 % more than it: 29.7."""
    assert math.isclose(paper.PENALTY_BY_MBPS[100.0], 29.7, abs_tol=0.05)
