"""`packetcloud testbed` and `bench`: what a command line may ask for, before anything is begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from packetcloud.cli import main as cli
from packetcloud.testbed import lxd_daemon
from packetcloud.testbed.bench import link_trial
from packetcloud.testbed.bench.link_trial import LinkPlan
from packetcloud.testbed.emulator.netem import unfit
from packetcloud.testbed.experiments import runs
from packetcloud.testbed.experiments.runs import RunPlan


class _BegunError(Exception):
    """The command line was taken."""


@pytest.fixture(autouse=True)
def plans(monkeypatch: pytest.MonkeyPatch) -> list[LinkPlan]:
    """The links that would have been tried."""
    tried: list[LinkPlan] = []

    def try_link(plan: LinkPlan, show: Any) -> Any:
        tried.append(plan)
        raise _BegunError

    monkeypatch.setattr(link_trial, "try_link", try_link)
    return tried


def run(*words: str) -> Result:
    command: click.Command = cli.packetcloud
    return CliRunner().invoke(command, words)


def test_the_kernel_can_make_a_link_of_which_nothing_odd_was_asked(plans: list[LinkPlan]) -> None:
    """The time of a reordering that was not asked for is no reason against netem."""
    run("testbed", "link", "--emulator", "netem", "--loss", "1%")
    run("testbed", "link", "--reordering", "1%")
    assert not unfit(plans[0].to_right, plans[0].to_left)
    assert plans[1].to_right.reordering_s == 0.005


def test_a_link_without_a_rate_has_no_queue(plans: list[LinkPlan]) -> None:
    """--rate 0 is a link without a limit; a queue is there where there is a rate."""
    run("testbed", "link", "--rate", "0")
    run("testbed", "link")
    assert [plan.to_right.queue_packets for plan in plans] == [0, 125]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seconds", "1", "--tick", "3"], "--tick is 3 s, longer than --seconds 1"),
        (["--chunk", "1GiB"], "allowed: 1 to 67108864 bytes"),
        (["--jitter", "20ms"], "--jitter is larger than --delay"),
        (["--rate", "0", "--queue", "3"], "a queue needs --rate"),
        (["--up", "1s"], "--up and --down go together"),
        (["--tick", "nan"], "is no number"),
        (["--emulator", "netem", "--reordering", "1%"], "no --reordering, --reordering-time"),
    ],
)
def test_what_cannot_be_is_refused_in_the_words_that_were_typed(
    plans: list[LinkPlan], words: list[str], told: str
) -> None:
    """Before anything is begun, with the option's name."""
    result = run("testbed", "link", *words)
    assert (result.exit_code, plans) == (2, [])
    assert told in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["bench", "loss", "--cells", "nan"], "is no number"),
        (["testbed", "simulate", "--seed", "3", "--seeds", "5"], "leave out --seeds"),
        (["testbed", "simulate", "--seed", "3", "--jobs", "2"], "leave out --jobs"),
    ],
)
def test_what_would_be_ignored_is_refused(words: list[str], told: str) -> None:
    """An option that cannot be followed is not passed over."""
    result = run(*words)
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())


def test_where_the_result_goes_is_made_or_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an hour is not lost for a folder that is not there."""

    def begin(*_: object) -> None:
        raise _BegunError

    monkeypatch.setattr(runs, "run_experiments", begin)
    words = ["testbed", "run", "ids", "--back-end", "process", "--out", str(tmp_path / "out")]
    result = run(*words, "--json", str(tmp_path / "new" / "folder" / "ids.json"))
    assert isinstance(result.exception, _BegunError)
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("not a folder")
    result = run(*words, "--json", str(tmp_path / "file" / "ids.json"))
    assert result.exit_code == 2
    assert "choose another file" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "back_ends"),
    [
        ([], ("process", "lxd")),
        (["--quick"], ("process",)),
        (["--quick", "--back-end", "lxd"], ("lxd",)),
    ],
)
def test_a_quick_run_makes_no_containers_unless_asked(
    words: list[str], back_ends: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image and an LXD take longer than all the rest of it."""
    begun: list[RunPlan] = []

    def begin(title: str, parts: object, plan: RunPlan, tell: object) -> None:
        begun.append(plan)
        raise _BegunError

    monkeypatch.setattr(runs, "run_experiments", begin)
    monkeypatch.setattr(lxd_daemon, "lacking_for_lxd", lambda: None)
    run("testbed", "run", "ids", "--out", str(tmp_path / "out"), *words)
    assert [plan.back_ends for plan in begun] == [back_ends]
