"""What experiments make of parts that fail: the rest counts, and what is wrong is said."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from packetcloud.testbed.bench.rounds import Record, Timing
from packetcloud.testbed.bench.translator import TranslatorPlan, translator_failures
from packetcloud.testbed.bench.trial import Trial
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.experiments import goodput, load, penalty
from packetcloud.testbed.experiments.experiment import ExperimentPlan
from packetcloud.testbed.experiments.four_nodes import CHOSEN, FourNodes, OnLinks
from packetcloud.testbed.experiments.load_figures import DELAYS, OTHER, OTHER_KNEE
from packetcloud.testbed.experiments.penalty_figures import ALONE, MIB, REST, Sample
from packetcloud.testbed.experiments.reading import word_of
from packetcloud.testbed.experiments.sealing import LXD, PROCESS, PYCRYPTODOME, Column
from packetcloud.testbed.experiments.services import TRANSLATOR, ServiceFigure


@dataclass
class _Service:
    """Delivers what is offered, at most 1 Gbit/s; with PyCryptodome it does not start."""

    scene: object
    payload_bytes: int
    rate: float
    library: str
    samples_file: Path | None
    is_at_router: bool

    def run(self, timing: Timing) -> Trial:
        if self.library == PYCRYPTODOME:
            raise ChildError("the VI ended")
        offered_gbps = self.rate * self.payload_bytes * 8 / 1e9
        details = dict.fromkeys(DELAYS, 2.0)
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
    said = f"{OTHER}, as fast as it goes: the VI ended"
    assert said in result.failures
    assert result.figures[OTHER_KNEE] is None
    assert result.missing[OTHER_KNEE] == said
    rows = [row for row in result.tables["load-runs"] if row["path"] == "R-C-R"]
    runs = Counter(row["offered_gbps"] for row in rows)
    assert (runs[0.1], runs[1.0]) == (1, 2), "the paper's rates once, shares of the full rate twice"


def test_what_is_measured_without_lxd_beside_does_not_cost_the_figure_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands beside the figures; where it fails, that is said, and both are there."""

    @contextlib.contextmanager
    def place(folder: Path, columns: list[Column], tell: object) -> Iterator[SimpleNamespace]:
        if folder.name == "place-alone":
            raise ChildError("no port")
        yield SimpleNamespace(columns=columns, protections=lambda: ["as found"])

    def measure(_: object, __: object, place: Any, samples: list[Sample]) -> None:
        samples += [Sample(one, REST, MIB, 1, 2.0, 1.0, 1.0) for one in place.columns]

    monkeypatch.setattr(penalty, "sealing_place", place)
    monkeypatch.setattr(penalty, "_measure_place", measure)
    plan = ExperimentPlan(tmp_path, True, 1, (PROCESS, LXD), lambda text: None)
    result = penalty.PENALTY.run(plan)
    assert result.failures == [f"{ALONE}: no port"]
    assert [result.figures[key] for key in penalty.PENALTY.keys] == [2.0, 2.0]


def _fetched(**document: object) -> dict[str, Any]:
    whole: dict[str, Any] = {"files": 10_000, "files_wrong": 0, "files_failure": ""}
    whole |= {"connections": 200, "connections_whole": 200, "connections_seen": 201}
    return whole | document


def test_wrong_files_and_few_connections_are_failures_of_the_translator() -> None:
    """Where all is there, nothing is said."""
    plan = TranslatorPlan()
    assert translator_failures(_fetched(), plan) == []
    assert translator_failures(_fetched(files_wrong=3), plan) == [
        "3 of 10000 files are missing or altered"
    ]
    (said,) = translator_failures(_fetched(files_failure="curl ended with 7"), plan)
    assert said == "0 of 10000 files are missing or altered: curl ended with 7"
    (said,) = translator_failures(_fetched(connections=199, connections_seen=199), plan)
    assert said == "of 200 connections at once 199 were seen together, and 200 came whole"
    few = replace(plan, connections_count=10)
    assert translator_failures(_fetched(connections=8, connections_whole=10), few) == []
    assert translator_failures(_fetched(connections=8, connections_whole=9), few) != []


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (_fetched(), ["aim reached", "aim reached"]),
        (_fetched(connections=199, files_wrong=1), ["short of its aim", "short of its aim"]),
        ({"connections": None, "files_wrong": None}, ["not measured", "not measured"]),
    ],
)
def test_connections_and_files_of_the_translator_are_held_against_their_aims(
    document: dict[str, Any], words: list[str]
) -> None:
    """Beside its share of a direct download."""
    head = {"notes": [], "failures": ["late"], "translator_share_of_direct": 0.9}
    service = cast(ServiceFigure, TRANSLATOR)
    share, connections, files = service.result(head | document).comparisons
    assert share.ours == 0.9
    assert [word_of(asdict(one)) for one in (connections, files)] == words
    assert (connections.note == "late") == (connections.ours is None)


def _mbps(cubic: float, far: float) -> dict[str, Record]:
    link = {"to_right": {"dropped": {}}, "to_left": {"dropped": {}}}
    details = {"seed": 1, "emulator": {"links": {"a": link}}}
    known = {goodput.BBR: 40.0, goodput.CHUNKS: 44.0, goodput.TRANSLATOR: 7.0}
    known |= {goodput.CUBIC: cubic, goodput.FAR_CUBIC: far}
    return {name: Record([Trial(one / 1e3, 1.0, {}, details)]) for name, one in known.items()}


def test_where_tcp_is_not_the_paper_s_there_is_no_gain_over_it() -> None:
    """The links are chosen for TCP CUBIC's figures on both paths: outside of them is a failure."""
    assert goodput.goodput_result(_mbps(4.3, 7.1), False).failures == []
    for cubic, far, title in (
        (3.8, 7.1, goodput.TITLES[goodput.CUBIC]),
        (4.3, 9.0, goodput.TITLES[goodput.FAR_CUBIC]),
    ):
        result = goodput.goodput_result(_mbps(cubic, far), False)
        (said,) = result.failures
        assert said.startswith(f"{title}: ")
        assert result.figures[goodput.GAIN] is None
        assert result.missing[goodput.GAIN] == said
        assert result.figures["goodput.cubic_mbps"] == pytest.approx(cubic)
        assert goodput.goodput_result(_mbps(cubic, far), True).failures == []


def test_a_flow_that_broke_off_does_not_count_as_a_slow_one() -> None:
    """It fails, and says how far it came; one that is whole has its seed."""

    class _Flow:
        name = "cubic"

        def __init__(self, seconds: int) -> None:
            self.per_second_mbps = [4.0] * seconds

        def run(self, timing: Timing) -> Trial:
            is_whole = len(self.per_second_mbps) == timing.seconds + timing.warmup
            details = {"is_whole": is_whole, "per_second_mbps": self.per_second_mbps}
            return Trial(0.004, float(timing.seconds), {}, details)

    scene = SimpleNamespace(
        restart=lambda *conditions: None, report=lambda: {"is_valid": True, "objections": []}
    )
    for seconds in (8, 5, 0):
        on_links = OnLinks(_Flow(seconds), cast(FourNodes, scene), CHOSEN, 6, lambda: 7)
        if seconds == 8:
            assert on_links.run(Timing(warmup=2)).details["seed"] == 7
            continue
        with pytest.raises(ChildError, match=f"broke off after {seconds} of 8 s .seed 7"):
            on_links.run(Timing(warmup=2))
