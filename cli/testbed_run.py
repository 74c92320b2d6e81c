"""`packetcloud testbed run|report`: experiments, and the loads of topologies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE, FOLDER
from packetcloud.cli.testbed_topology import IMAGES

if TYPE_CHECKING:
    from packetcloud.testbed.experiments.experiment import Experiment

_DEFAULT_OUT = "build/NAME"


@click.command()
@click.argument("what", metavar="NAME|FILE", required=False)
@click.option("--out", type=FOLDER, help=f"Where everything goes.  [default: {_DEFAULT_OUT}]")
@click.option("--quick", is_flag=True, help="Only to see that it works; figures mean nothing.")
@click.option(
    "--seed", type=click.IntRange(0), help="Of every chance.  [default: the file's, or 1]"
)
@click.option("--json", "json_file", type=FILE, help="Write the result to this file too.")
@click.option(
    "--back-end",
    type=click.Choice(("process", "lxd", "both")),
    help="Where services run.  [default: process, and lxd where it is; with --quick process]",
)
@click.option("--only", multiple=True, metavar="NAME", help="Of `paper`, this part; repeatable.")
@click.option("--resume", is_flag=True, help="Keep what an interrupted run found already.")
@click.option("--rootless", is_flag=True, help="A topology: in a user namespace, also as root.")
@IMAGES
@click.option("--list", "wants_list", is_flag=True, help="Print the experiments and examples.")
@pass_output
def run(
    output: Output,
    /,
    what: str | None,
    out: Path | None,
    quick: bool,
    seed: int | None,
    json_file: Path | None,
    back_end: str | None,
    only: tuple[str, ...],
    resume: bool,
    rootless: bool,
    images: Path | None,
    wants_list: bool,
) -> ExitCode:
    """Run an experiment, or the load of a topology, and write figures and a report.

    NAME is an experiment, `paper` for all that reproduce the paper, or an example; FILE a topology.

    Exit code 1: something failed or an emulator was late, as the report says; the rest counts.
    """
    from packetcloud.testbed.experiments.report import write_report
    from packetcloud.testbed.experiments.runs import RunPlan, read_result, run_experiments
    from packetcloud.testbed.topology.rootless import become_root_here

    if wants_list:
        _print_list(output)
        return ExitCode.FINE
    if what is None:
        raise click.UsageError("say what to run: an experiment or a topology; --list names them")
    title, experiments, own_seed = _find(what, only, images)
    out = out or Path("build") / title
    if own_seed is not None and (rootless or os.geteuid() != 0):
        become_root_here(Path.cwd())
    if json_file is not None:
        _see_that_it_can_be_written(json_file)
    plan = RunPlan(
        out,
        is_quick=quick,
        seed=(own_seed or 1) if seed is None else seed,
        back_ends=_back_ends(back_end, quick),
        is_resumed=resume,
    )
    try:
        with _ended_by_sigterm(), _progress(output) as progress:
            document = run_experiments(title, experiments, plan, progress.tell)
    except KeyboardInterrupt:
        write_report(read_result(out), out)
        output.warn(f"stopped; all is taken down, and what was measured is in {out}")
        raise
    report = write_report(document, out)
    if json_file is not None:
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    _print_run(output, document)
    if quick:
        output.note("a quick run: its figures mean nothing")
    output.note(f"the report is {report}")
    return ExitCode.NEGATIVE if document["failures"] else ExitCode.FINE


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.argument("other", metavar="[DIR2]", type=FOLDER, required=False)
@pass_output
def report(output: Output, folder: Path, other: Path | None) -> None:
    """Make the report of the run in DIR anew; with DIR2, that run's figures stand beside them."""
    from packetcloud.testbed.experiments.report import write_report
    from packetcloud.testbed.experiments.runs import read_result

    document = read_result(folder)
    path = write_report(document, folder, read_result(other) if other is not None else None)
    if output.is_json:
        output.report({"report": str(path)}, [])
    else:
        output.note(f"the report is {path}")


COMMANDS = (run, report)


def _find(
    what: str, only: tuple[str, ...], images: Path | None
) -> tuple[str, list[Experiment], int | None]:
    """Return a title, what to run, and the seed in the file of a topology."""
    from packetcloud.testbed.experiments import EXPERIMENTS
    from packetcloud.testbed.experiments.runs import find_experiments
    from packetcloud.testbed.topology.experiment import TopologyExperiment
    from packetcloud.testbed.topology.model import Topology
    from packetcloud.testbed.topology.samples import example_names, find_topology

    is_file = Path(what).is_file() or what.endswith(".toml")
    if (
        what in EXPERIMENTS
        or (what == "paper" and not is_file)
        or not (is_file or what in example_names())
    ):
        if images is not None:
            raise click.UsageError("--images is for a topology with containers")
        return what, find_experiments(what, only), None
    if only:
        raise click.UsageError("--only chooses parts of `paper`; a topology has one")
    topology = Topology.load(find_topology(what))
    if not topology.file.load:
        raise click.UsageError(f"{what} has no [[load]]: nothing to run; see: testbed sample")
    return topology.name, [TopologyExperiment(topology, images)], topology.file.run.seed


def _see_that_it_can_be_written(json_file: Path) -> None:
    """Make the folder of a file; whoever measures for half an hour is told before, not after."""
    try:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        is_new = not json_file.exists()
        json_file.open("a").close()
        if is_new:
            json_file.unlink()
    except OSError as error:
        text = f"--json {json_file}: {error.strerror}; choose another file"
        raise click.UsageError(text) from None


def _back_ends(wanted: str | None, is_quick: bool) -> tuple[str, ...]:
    from packetcloud.testbed.lxd_daemon import check_lxd, lacking_for_lxd

    if wanted == "process" or (wanted is None and is_quick):
        return ("process",)
    if wanted is not None:
        check_lxd()
        return ("lxd",) if wanted == "lxd" else ("process", "lxd")
    reason = lacking_for_lxd()
    return ("process",) if reason is not None else ("process", "lxd")


def _print_list(output: Output) -> None:
    from packetcloud.testbed.experiments import EXPERIMENTS, PAPER
    from packetcloud.testbed.topology.samples import example_names

    rows = [(name, "experiment" + (", in paper" if name in PAPER else "")) for name in EXPERIMENTS]
    rows += [(name, "topology") for name in example_names()]
    output.table(("name", "is"), rows)


def _print_run(output: Output, document: dict[str, Any]) -> None:
    from packetcloud.testbed.experiments.reading import ratio_of, word_of

    rows = [
        (
            *(one["name"], line["what"], line["unit"], line["paper"], line["ours"]),
            *(ratio_of(line), line["aim"] or None),
            None if document["is_quick"] else word_of(line) or None,
        )
        for one in document["experiments"]
        for line in one["comparisons"]
    ]
    columns = ("experiment", "what", "unit", "paper", "ours", "ratio", "aim", "reading")
    output.report(document, [Table(columns, rows)] if rows else [])
    for text in (*document["failures"], *document["warnings"]):
        output.warn(text)
    for key, why in document["missing"].items():
        output.warn(f"no {key}: {why}")


class _Progress:
    """How far a run is: a bar on a terminal, lines otherwise; time left by its own estimates."""

    def __init__(self, output: Output, shown: Any) -> None:
        self._output = output
        self._shown = shown
        self._task = shown.add_task("starting", total=1.0, left="?")
        self._began_s = self._at_s = time.monotonic()
        self._through_s = 0.0
        self._last = ""

    def tell(self, text: str, through_s: float, total_s: float) -> None:
        now_s = time.monotonic()
        if through_s != self._through_s:
            self._through_s, self._at_s = through_s, now_s
        done_s = min(through_s + now_s - self._at_s, total_s)
        left = f"{total_s - done_s:.0f} s"
        self._shown.update(self._task, description=text, total=total_s, completed=done_s, left=left)
        if self._shown.disable and text != self._last and not self._output.is_json:
            self._output.note(f"{now_s - self._began_s:6.1f} s, about {left} left: {text}")
        self._last = text


@contextlib.contextmanager
def _progress(output: Output) -> Iterator[_Progress]:
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    left = TextColumn("about {task.fields[left]} left")
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), left
    with output.progress(*columns) as shown:
        yield _Progress(output, shown)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
