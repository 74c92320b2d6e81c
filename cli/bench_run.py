"""What the benchmarks of `packetcloud bench` have in common: options, the run, its report."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from packetcloud.cli.output import ExitCode, Output, Table
from packetcloud.cli.params import FILE, F, group

if TYPE_CHECKING:
    from packetcloud.testbed.bench.rounds import Progress, Timing
    from packetcloud.testbed.links import LinkMode

MODES = ("superframe", "wire", "bare")
MODE = click.option(
    "--mode",
    "modes",
    type=click.Choice(MODES),
    multiple=True,
    help="Link mode; may be given more than once. [default: all three]",
)


def shared_options(seconds: int, repeats: int, *others: Callable[[Any], Any]) -> Callable[[F], F]:
    """The options that all benchmarks share, and `others` of this one."""
    return group(
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
        *others,
        click.option(
            "--json",
            "json_file",
            type=FILE,
            help="Write the whole report to this file.",
        ),
        click.option(
            "--plot",
            "plot_file",
            type=FILE,
            help="Draw the figures into this PNG file.",
        ),
    )


@contextmanager
def measuring(
    output: Output, options: dict[str, Any]
) -> Iterator[tuple[list[LinkMode | None], Timing, Progress]]:
    """Settle where to measure; show what runs; end cleanly on SIGTERM too."""
    from packetcloud.testbed.links import LinkMode
    from packetcloud.testbed.namespaces import can_make_namespaces

    modes: list[LinkMode | None] = [LinkMode(mode) for mode in options["modes"] or MODES]
    if not can_make_namespaces():
        output.warn("no network namespaces here (not root?): measuring on loopback, without modes")
        modes = [None]
    with running(output, options) as (timing, progress):
        yield modes, timing, progress


@contextmanager
def running(
    output: Output, options: dict[str, Any], warmup: int = 1
) -> Iterator[tuple[Timing, Progress]]:
    """Show what runs; end cleanly on SIGTERM too."""
    from packetcloud.testbed.bench.rounds import Timing

    timing = Timing(options["seconds"], warmup, options["repeats"])
    with watched(output) as progress:
        yield timing, progress


@contextmanager
def watched(output: Output) -> Iterator[Progress]:
    """Show what runs; end cleanly on SIGTERM too."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with output.progress(*columns) as shown:
            task = shown.add_task("starting", total=None)
            yield lambda text: shown.update(task, description=text)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def finish(
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
    modes = list(document.get("modes", {}).values())
    groups = [*modes, *(size for mode in modes for size in mode.get("sizes", {}).values())]
    for part in ("cells", "own_kind", "beside"):
        groups += document.get(part, {}).values()
    groups.append(document.get("background", {}))
    runs = [run for group in groups for run in group.get("runs", {}).values()]
    return list(dict.fromkeys(run["missing"] for run in runs if run["missing"]))
