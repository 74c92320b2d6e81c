"""Runs of experiments: what is written, also when something fails or is interrupted; the report."""

from __future__ import annotations

import csv
import html.parser
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from packetcloud.testbed import experiments
from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.experiments import runs
from packetcloud.testbed.experiments.experiment import (
    Comparison,
    ExperimentPlan,
    ExperimentResult,
    NeedsMaking,
    Plot,
    Series,
)
from packetcloud.testbed.experiments.reading import number_text, word_of
from packetcloud.testbed.experiments.report import make_report
from packetcloud.testbed.experiments.runs import (
    RunPlan,
    find_experiments,
    nested,
    read_result,
    run_experiments,
)

LINE = Plot("line", "A line", "s", "ms", "line", [Series("ours", [1, 2], [3, 4])])
HOSTILE = "<script>alert('x')</script>&\"$^{"


def _result(name: str, **more: object) -> ExperimentResult:
    values: dict[str, object] = {
        "name": name,
        "title": f"Title of {name}",
        "figures": {f"{name}.fast_mbps": 12.5, f"{name}.slow_mbps": None},
        "missing": {f"{name}.slow_mbps": "nobody was there"},
        "comparisons": [Comparison("goodput", "Mbit/s", 10.0, 12.5, ">= 11")],
        "tables": {"rows": [{"size": 1, "ms": 2.5}, {"size": 2, "note": "late"}]},
        "plots": [],
        "measured": ["M."],
        "assumed": ["A."],
        "protections": ["P."],
    }
    return ExperimentResult(**(values | more))  # type: ignore[arg-type]


@dataclass
class _Experiment:
    name: str
    result: ExperimentResult | BaseException
    title: str = "T"
    seconds: int = 60
    quick_seconds: int = 2
    fingerprint: str = ""
    keys: tuple[str, ...] = ()
    plans: list[ExperimentPlan] = field(default_factory=list)

    def run(self, plan: ExperimentPlan) -> ExperimentResult:
        self.plans.append(plan)
        plan.tell("measuring")
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


def _run(out: Path, *parts: _Experiment, **plan: object) -> dict[str, object]:
    told: list[tuple[str, float, float]] = []
    document = run_experiments(
        "test",
        parts,
        RunPlan(out, **plan),
        lambda *words: told.append(words),  # type: ignore[arg-type]
    )
    total = {words[2] for words in told}
    assert total == {
        float(sum(one.quick_seconds if plan.get("is_quick") else one.seconds for one in parts))
    }
    assert [words[1] for words in told] == sorted(words[1] for words in told)
    return document


def test_a_run_writes_everything(tmp_path: Path) -> None:
    """JSON, CSV and plots of each experiment, and figures flat and by the parts of their keys."""
    one = _Experiment("one", _result("one", plots=[LINE]))
    document = _run(tmp_path / "out", one, is_quick=True)
    assert document == read_result(tmp_path / "out")
    assert document["figures"] == {"one.fast_mbps": 12.5, "one.slow_mbps": None}
    assert document["one"] == {"fast_mbps": 12.5, "slow_mbps": None}
    assert document["missing"] == {"one.slow_mbps": "nobody was there"}
    assert document["failures"] == []
    folder = tmp_path / "out" / "one"
    with (folder / "rows.csv").open() as rows:
        assert list(csv.DictReader(rows)) == [
            {"size": "1", "ms": "2.5", "note": ""},
            {"size": "2", "ms": "", "note": "late"},
        ]
    assert (folder / "line.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "line.svg").read_text().startswith("<svg")


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    """Its failure is in the result by name, a mistake in it with its traceback in a file."""
    broken = _Experiment("broken", TestbedError("no such device"))
    wrong = _Experiment("wrong", ZeroDivisionError("oops"))
    good = _Experiment("good", _result("good"))
    document = _run(tmp_path / "out", broken, wrong, good)
    failures = document["failures"]
    assert isinstance(failures, list)
    assert failures[0] == "broken: no such device"
    assert "wrong: internal error" in failures[1]
    assert "ZeroDivisionError" in (tmp_path / "out" / "wrong" / "traceback.txt").read_text()
    assert document["figures"]["good.fast_mbps"] == 12.5  # type: ignore[index]
    assert document["is_complete"] is True


@dataclass
class _Made(_Experiment):
    """One that needs an image."""

    error: Exception | None = None

    def make(self, back_ends: tuple[str, ...], tell: Callable[[str], None]) -> None:
        tell(f"image for {self.name} on {back_ends[0]}")
        if self.error is not None:
            raise self.error


def test_what_an_experiment_needs_is_made_before_anything_is_measured(tmp_path: Path) -> None:
    """In nobody's time; where it cannot be made, it is for that experiment to say."""
    told: list[str] = []
    parts = [
        _Experiment("one", _result("one")),
        _Made("two", _result("two")),
        _Made("three", TestbedError("no image"), error=TestbedError("no image")),
    ]
    document = run_experiments(
        "test", parts, RunPlan(tmp_path / "out"), lambda text, *_: told.append(text)
    )
    assert told[:3] == ["image for two on process", "image for three on process", "one: starting"]
    assert document["failures"] == ["three: no image"]
    (penalty,) = find_experiments("penalty")
    assert isinstance(penalty, NeedsMaking)


OF_THE_PAPER = (
    *("goodput.cubic_mbps", "goodput.bbr_mbps", "goodput.mf_mbps", "goodput.translator_mbps"),
    *("goodput.translator_gain_percent", "penalty_1mib_p50_ms.process", "penalty_1mib_p50_ms.lxd"),
    *("knee_gbps", "penalty_ratio_80_to_10", "read_only_service_ms_per_mib"),
    *("translator_share_of_direct", "wan_size_over_zstd_long", "ids_gbps"),
)


def test_every_figure_of_the_paper_is_null_with_a_reason_where_its_experiment_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the JSON finds each key, and why it has no value."""

    def fail(self: object, plan: ExperimentPlan) -> ExperimentResult:
        raise TestbedError("no such device")

    parts = find_experiments("paper")
    for one in parts:
        monkeypatch.setattr(type(one), "run", fail)
    document = run_experiments("paper", parts, RunPlan(tmp_path / "out"), lambda *words: None)
    for key in OF_THE_PAPER:
        assert document["figures"][key] is None
        assert document["missing"][key] == "no such device"
    assert {key for one in parts for key in one.keys} == set(document["figures"])


def test_tables_and_plots_that_cannot_be_written_cost_nobody_their_figures(tmp_path: Path) -> None:
    """It is a failure of that experiment; its figures, its other plots and all others are there."""
    crooked = Plot("crooked", "A plot", "s", "ms", "line", [Series("ours", [1, 2], [3])])
    tables = {"no/such/folder": [{"size": 1}]}
    bad = _Experiment("bad", _result("bad", plots=[crooked, LINE], tables=tables))
    document = _run(tmp_path / "out", bad, _Experiment("good", _result("good")))
    plot, table = document["failures"]  # type: ignore[misc, attr-defined]
    assert plot.startswith("bad: plot crooked: ValueError")
    assert table.startswith("bad: tables: FileNotFoundError")
    assert document["figures"]["bad.fast_mbps"] == 12.5  # type: ignore[index]
    assert document["figures"]["good.fast_mbps"] == 12.5  # type: ignore[index]
    assert (tmp_path / "out" / "bad" / "line.svg").exists()
    assert "plot crooked" in make_report(document)


def test_ctrl_c_keeps_what_was_found_and_resume_goes_on(tmp_path: Path) -> None:
    """An interrupted run is written; the next with `resume` measures only what is missing."""
    out = tmp_path / "out"
    first, second = _Experiment("one", _result("one")), _Experiment("two", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        _run(out, first, second)
    half = read_result(out)
    assert half["is_complete"] is False
    assert half["figures"]["one.fast_mbps"] == 12.5
    assert any("interrupted" in text for text in half["failures"])
    assert "interrupted" in make_report(half)
    again = _Experiment("one", _result("one")), _Experiment("two", _result("two"))
    run_experiments("test", again, RunPlan(out, is_resumed=True), lambda *words: None)
    can_know = half["commit"] is not None
    assert len(again[0].plans) == (0 if can_know else 1)
    assert len(again[1].plans) == 1
    other = _Experiment("one", _result("one"))
    run_experiments("test", [other], RunPlan(out, is_resumed=True, seed=2), lambda *words: None)
    assert len(other.plans) == 1, "another seed is another run"


def test_what_was_edited_meanwhile_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topology, or our own code without a commit of it; the control is neither."""
    changes = [""]
    monkeypatch.setattr(runs, "changes_of_tree", lambda: changes[0])
    facts = {"commit": "c", "kernel": "k", "commit_has_local_changes": True, "python": "3"}
    monkeypatch.setattr(runs, "describe_software", lambda: {**facts, "packages": {}})

    def measured(fingerprint: str) -> bool:
        one = _Experiment("one", _result("one"), fingerprint=fingerprint)
        plan = RunPlan(tmp_path / "out", is_resumed=True)
        run_experiments("test", [one], plan, lambda *words: None)
        return bool(one.plans)

    assert measured("as it was")
    assert not measured("as it was")
    assert measured("edited")
    changes[0] = "a line of ours"
    assert measured("edited")
    assert not measured("edited")


class _Busy:
    """Others use one processor and a half."""

    def cores(self) -> float:
        return 1.5


def test_a_busy_machine_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By run, report and each experiment; a quick run's figures mean nothing in any case."""
    machine = {"usable_cores": 2, "load_before": [3.25, 1.0, 1.0], "cpu": "c"}
    monkeypatch.setattr(runs, "describe_machine", lambda: machine)
    monkeypatch.setattr(runs, "OthersWatch", _Busy)
    document = _run(tmp_path / "out", _Experiment("one", _result("one")))
    load, others = document["warnings"]  # type: ignore[misc]
    assert "load of the machine was 3.25" in load
    assert others.startswith("one: others used 1.50 of 2 processors")
    page = make_report(document)
    assert "others used 1.50 of 2 processors" in page and "was 3.25" in page
    assert document["failures"] == []
    assert (
        _run(tmp_path / "quick", _Experiment("one", _result("one")), is_quick=True)["warnings"]
        == []
    )
    machine["load_before"] = [0.1, 0.1, 0.1]
    monkeypatch.setattr(_Busy, "cores", lambda self: 0.01)
    document = _run(tmp_path / "calm", _Experiment("one", _result("one")))
    assert document["warnings"] == []
    assert "something else to do" not in make_report(document)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    """What is not a run's is not written over."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(TestbedError, match=r"thesis\.tex"):
        _run(tmp_path, _Experiment("one", _result("one")))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_somebody_else_s_result_json_does_not_make_a_folder_ours(tmp_path: Path) -> None:
    """Many programs write a file of that name: its format decides, and nothing is touched."""
    (tmp_path / "result.json").write_text('{"format": "of-another-program"}')
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "thesis.tex").write_text("years of work")
    with pytest.raises(TestbedError, match="not the folder of a run"):
        _run(tmp_path, _Experiment("one", _result("one")))
    assert (tmp_path / "one" / "thesis.tex").read_text() == "years of work"


def test_only_a_part_of_a_run_is_replaced(tmp_path: Path) -> None:
    """In a run's folder, too, what bears an experiment's name and is not its part is kept; a part
    is replaced, also one that was interrupted."""
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        _run(out, _Experiment("one", KeyboardInterrupt()))
    (out / "one" / "raw" / "old").write_text("of the run before")
    _run(out, _Experiment("one", _result("one")))
    assert not (out / "one" / "raw" / "old").exists()
    (out / "two").mkdir()
    (out / "two" / "result.json").write_text("{}")
    never = _Experiment("one", _result("one"))
    with pytest.raises(TestbedError, match="two is no part of a run"):
        _run(out, never, _Experiment("two", _result("two")))
    assert (out / "two" / "result.json").read_text() == "{}"
    assert never.plans == [], "it is said before anything is measured"


def test_a_result_that_is_none_is_named(tmp_path: Path) -> None:
    """Nothing there, something else, a run that ended before anything was measured."""
    with pytest.raises(TestbedError, match="testbed run"):
        read_result(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(TestbedError, match="no result of packetcloud testbed run"):
        read_result(tmp_path)


def test_unknown_experiments_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message lists what there is."""
    with pytest.raises(TestbedError, match="no experiment 'no-such'"):
        find_experiments("no-such")


def test_every_listed_experiment_is_there() -> None:
    """Names lead to experiments of that name, and the paper's are among them."""
    assert set(experiments.PAPER) <= set(experiments.EXPERIMENTS)
    for name in experiments.EXPERIMENTS:
        (found,) = find_experiments(name)
        assert found.name == name
        assert found.title and found.seconds >= found.quick_seconds > 0


def test_dotted_keys_become_levels() -> None:
    """A key that is also the beginning of another keeps its figure."""
    assert nested({"a.b": 1.0, "a.c": None, "d": 2.0}) == {"a": {"b": 1.0, "c": None}, "d": 2.0}
    assert nested({"a": 1.0, "a.b": 2.0}) == {"a": 1.0}


@pytest.mark.parametrize(
    ("paper", "ours", "aim", "word"),
    [
        (10.0, 12.0, ">= 11", "aim reached"),
        (10.0, 10.5, ">= 11", "short of its aim"),
        (29.7, 2.0, "<= 2.2", "aim reached"),
        (29.7, 2.3, "<= 2.2 ms", "short of its aim"),
        (4.3, 4.72, "4.30 +- 10 %", "aim reached"),
        (4.3, 3.86, "4.30 ± 10 %", "outside its aim"),
        (4.3, 4.74, "4.30 +- 10 %", "outside its aim"),
        (10.0, 10.5, "", "as in the paper, within 10 %"),
        (10.0, 25.0, "", "2.5 times the paper's"),
        (None, 25.0, "", ""),
        (10.0, None, ">= 11", "not measured"),
    ],
)
def test_a_comparison_is_read(paper: float | None, ours: float | None, aim: str, word: str) -> None:
    """An aim decides; without one, the distance from the paper."""
    row = {"what": "", "unit": "", "paper": paper, "ours": ours, "aim": aim, "note": ""}
    assert word_of(row) == word


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (True, "yes"), (1234567.8, "1,234,568"), (0.123456, "0.1235")]
)
def test_numbers_are_short(value: object, text: str) -> None:
    """Four digits that count."""
    assert number_text(value) == text


class _Page(html.parser.HTMLParser):
    """What a browser would see: tags with attributes, and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _hostile_run(out: Path) -> dict[str, object]:
    plots = [
        Plot("p", HOSTILE, HOSTILE, HOSTILE, kind, [Series(HOSTILE, ["1", "2"], [1.0, 2.0])])
        for kind in ("bar",)
    ]
    hostile = _result(
        "one",
        title=HOSTILE,
        figures={HOSTILE: 1.0},
        missing={HOSTILE: HOSTILE},
        comparisons=[Comparison(HOSTILE, HOSTILE, 1.0, 2.0, HOSTILE, HOSTILE)],
        tables={"rows": [{HOSTILE: HOSTILE}]},
        plots=plots,
        measured=[HOSTILE],
        assumed=[HOSTILE],
        protections=[HOSTILE],
        failures=[HOSTILE],
    )
    return run_experiments(
        HOSTILE, [_Experiment("one", hostile)], RunPlan(out), lambda *words: None
    )


def test_the_report_escapes_everything(tmp_path: Path) -> None:
    """Whatever names and texts hold, they are shown and are no markup: also in plots."""
    document = _hostile_run(tmp_path / "out")
    page = _Page(make_report(document, document))
    assert "script" not in {tag for tag, _ in page.tags}
    shown = "".join(page.texts)
    places = ["title", "comparison", "table", "measured", "assumed", "protections", "failures"]
    assert shown.count("alert('x')") > len(places)


def test_the_control_of_escaping_sees_a_hole() -> None:
    """The test above would fail if a text went in as it is."""
    page = _Page(f"<p>{HOSTILE}</p>")
    assert "script" in {tag for tag, _ in page.tags}


def test_the_report_needs_nothing_from_outside(tmp_path: Path) -> None:
    """No script, no address but names of XML dialects, no file beside it."""
    document = _run(tmp_path / "out", _Experiment("one", _result("one", plots=[LINE])))
    text = make_report(document)
    page = _Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base"}
    assert "svg" in tags
    for _, attributes in page.tags:
        for key, value in attributes.items():
            if key in ("src", "href", "xlink:href", "action", "data"):
                assert value is not None and value.startswith("#"), (key, value)
    style = re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
    assert not any("@import" in one or re.search(r"url\((?!#)", one) for one in style)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_the_report_says_all(tmp_path: Path) -> None:
    """Failures first; then paper, ours, ratio, aim and how to read it; machine, commit, seed."""
    failing = _Experiment("one", _result("one", failures=["the emulator was late"]))
    document = _run(tmp_path / "out", failing)
    shown = " ".join(" ".join(_Page(make_report(document)).texts).split())
    order = ["the emulator was late", "aim reached", "Title of one", "Machine and software"]
    places = [shown.index(text) for text in order]
    assert places == sorted(places)
    for text in ("10 12.5 1.25 >= 11", "M.", "A.", "P.", "nobody was there", "seed 1"):
        assert text in shown, text
    assert str(document["kernel"]) in shown


def test_the_figures_of_a_quick_run_are_held_against_nothing(tmp_path: Path) -> None:
    """Neither an aim nor the paper; the same figures of a whole run are."""
    for is_quick in (True, False):
        parts = (_Experiment("one", _result("one")), _Experiment("two", _result("two")))
        document = _run(tmp_path / str(is_quick), *parts, is_quick=is_quick)
        page = _Page(make_report(document))
        assert ("aim reached" in " ".join(page.texts)) is not is_quick
        assert (("td", {"class": "fine"}) in page.tags) is not is_quick


def test_two_runs_stand_side_by_side(tmp_path: Path) -> None:
    """Each figure of both, their ratio, and in what the runs differ."""
    one = _run(tmp_path / "a", _Experiment("one", _result("one")))
    figures = {"one.fast_mbps": 25.0, "one.other": 1.0}
    other = _run(tmp_path / "b", _Experiment("one", _result("one", figures=figures)), seed=2)
    shown = " ".join(" ".join(_Page(make_report(one, other)).texts).split())
    assert "one.fast_mbps 12.5 25 0.5" in shown
    assert "one.other – 1 –" in shown
    assert "differ in: seed" in shown


def test_the_result_is_json_that_others_can_read(tmp_path: Path) -> None:
    """Plain values only."""
    _run(tmp_path / "out", _Experiment("one", _result("one")))
    json.loads((tmp_path / "out" / "result.json").read_text(), parse_constant=pytest.fail)
