"""`packetcloud bench`: measure us and our peers in the same run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from packetcloud.cli.output import ExitCode, Output, Table, pass_output

if TYPE_CHECKING:
    from packetcloud.testbed.bench.rounds import Progress, Timing
    from packetcloud.testbed.links import LinkMode

MODES = ("superframe", "wire", "bare")

F = TypeVar("F", bound=Callable[..., Any])


def _options(seconds: int, repeats: int) -> Callable[[F], F]:
    """The options that all benchmarks share."""
    options = (
        click.option(
            "--seconds",
            type=click.IntRange(1, 600),
            default=seconds,
            show_default=True,
            help="Length of each run, after one second of warm-up.",
        ),
        click.option(
            "--repeats",
            type=click.IntRange(1, 100),
            default=repeats,
            show_default=True,
            help="Runs of each contender, in turn; medians are shown.",
        ),
        click.option(
            "--mode",
            "modes",
            type=click.Choice(MODES),
            multiple=True,
            help="Link mode; may be given more than once.  [default: see above]",
        ),
        click.option(
            "--json",
            "json_file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Write the whole report to this file.",
        ),
        click.option(
            "--plot",
            "plot_file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Draw the figures into this PNG file.",
        ),
    )

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group()
def bench() -> None:
    """Measure hop, path, service and small chunks against their peers.

    Root: network namespaces and veth pairs of our own, removed afterwards. Without root: loopback.
    """


@bench.command()
@_options(seconds=5, repeats=5)
@pass_output
def hop(output: Output, /, **options: Any) -> ExitCode:
    """One hop against one TCP flow (CUBIC, BBR), in all three link modes."""
    from packetcloud.testbed.bench.hop import bench_hop

    with _run(output, options, MODES) as (modes, timing, progress):
        document = bench_hop(modes, timing, progress)
    columns = ("mode", "ours Gbit/s", "CUBIC", "BBR", "ratio")
    keys = ("goodput_gbps", "cubic_gbps", "bbr_gbps", "ratio")
    rows = [[mode, *(found[key] for key in keys)] for mode, found in document["modes"].items()]
    return _finish(output, options, document, [Table(columns, rows)])


@contextmanager
def _run(
    output: Output, options: dict[str, Any], default_modes: tuple[str, ...]
) -> Iterator[tuple[list[LinkMode | None], Timing, Progress]]:
    """Settle where to measure; show what runs; end cleanly on SIGTERM too."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    from packetcloud.testbed.bench.rounds import Timing
    from packetcloud.testbed.links import LinkMode
    from packetcloud.testbed.namespaces import can_make_namespaces

    modes: list[LinkMode | None] = [LinkMode(mode) for mode in options["modes"] or default_modes]
    if not can_make_namespaces():
        output.warn("no network namespaces here (not root?): measuring on loopback, without modes")
        modes = [None]
    timing = Timing(seconds=options["seconds"], repeats=options["repeats"])
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with output.progress(*columns) as shown:
            task = shown.add_task("starting", total=None)
            yield modes, timing, lambda text: shown.update(task, description=text)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _finish(
    output: Output, options: dict[str, Any], document: dict[str, Any], tables: list[Table]
) -> ExitCode:
    """Write the files, print the tables, and say what did not work."""
    from packetcloud.testbed.bench.report import write_document

    if options["json_file"]:
        write_document(document, options["json_file"])
    if options["plot_file"]:
        from packetcloud.testbed.bench.plot import plot_document

        plot_document(document, options["plot_file"])
    output.report(document, tables)
    for text in [*document["notes"], *_missing(document)]:
        output.warn(text)
    for text in document["failures"]:
        output.warn(f"a run failed: {text}")
    return ExitCode.NEGATIVE if document["failures"] else ExitCode.FINE


def _missing(document: dict[str, Any]) -> list[str]:
    """Why peers were left out, each reason once."""
    runs = [run for mode in document.get("modes", {}).values() for run in mode["runs"].values()]
    return list(dict.fromkeys(run["missing"] for run in runs if run["missing"]))
