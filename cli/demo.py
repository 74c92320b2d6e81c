"""`packetcloud demo`: a file through a router and services, on this machine."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FOLDER

_COLUMNS = (
    *("scenario", "step", "Gbit/s", "processing ms", "delivery ms", "penalty ms", "p99 ms"),
    *("sent", "delivered", "refused", "held", "SHA-256"),
)


@click.command()
@click.argument(
    "file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--bytes",
    "size",
    metavar="SIZE",
    help="Size of the file that is made when none is given.  [default: 256MiB]",
)
@click.option(
    "--dir",
    "folder",
    type=FOLDER,
    help="Where report.json goes, and data while it runs.  [default: build/demo]",
)
@click.option(
    "--isolation",
    type=click.Choice(("process", "lxd")),
    default="process",
    show_default=True,
    help="Services as child processes, or in containers of a private LXD server (root).",
)
@click.option(
    "--images",
    type=FOLDER,
    help="Where images of containers are kept. [default: /var/cache/packetcloud/images]",
)
@pass_output
def demo(
    output: Output,
    file: Path | None,
    size: str | None,
    folder: Path | None,
    isolation: str,
    images: Path | None,
) -> ExitCode:
    """Send a file through a router and services, all on this machine, and check it.

    Router, services and both hosts are processes of their own, started by the commands that people
    type; no root is needed. With `--isolation lxd` a cloudlet's controller runs the services in
    containers. FILE, or half compressible data made here, goes plain, through encrypt
    and decrypt, and through compress, encrypt, decrypt and decompress.

    Exit code 1: something was lost, doubled or altered.
    """
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    from packetcloud.testbed.demo.payload import parse_bytes
    from packetcloud.testbed.demo.show import DEFAULT_BYTES, DEFAULT_FOLDER, REPORT, show_demo

    if images is not None and isolation != "lxd":
        raise click.UsageError("--images is for --isolation lxd; child processes need no image")
    if file is not None and size is not None:
        raise click.UsageError("--bytes says how much to make; with FILE nothing is made")
    try:
        size_bytes = parse_bytes(size) if size is not None else DEFAULT_BYTES
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--bytes") from None
    folder = folder or DEFAULT_FOLDER
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with output.progress(*columns) as shown, contextlib.ExitStack() as stack:
            task = shown.add_task("starting", total=None)

            def tell(words: str, delivered: int | None, total: int) -> None:
                if delivered is None:
                    shown.reset(task, total=total, description=words)
                else:
                    done = min(delivered, total)
                    shown.update(task, completed=done, total=total, description=words)

            back_end = None
            if isolation == "lxd":
                from packetcloud.testbed.demo.containers import Containers

                containers = Containers(images, lambda words: tell(words, None, size_bytes))
                back_end = stack.enter_context(containers)
            report = show_demo(file, size_bytes, folder, tell, back_end=back_end)
    except KeyboardInterrupt:
        output.warn("stopped; all that was started ended, its keys and data are removed")
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    tables = [Table(_COLUMNS, _rows(report), _title(report))]
    if report["protections"]:
        tables.append(_protections(report["protections"]))
    output.report(report, tables)
    for scenario in report["scenarios"]:
        for problem in scenario["problems"]:
            output.warn(f"{scenario['scenario']}: {problem}")
    if not report["ok"]:
        output.warn(f"logs are in {folder / 'run'}")
        return ExitCode.NEGATIVE
    output.note("sent are all chunks: the file's, and the questions and answers about it")
    output.note(
        "delivery is the way to a service and back, and at full rate most of it is waiting in line"
    )
    output.note(f"nothing lost, doubled or altered; the report is {folder / REPORT}")
    return ExitCode.FINE


def _protections(protections: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (one["name"], "active" if one["is_active"] else "missing", one["cost"], one["remedy"])
        for one in protections
    ]
    columns = ("protection", "", "what that costs", "remedy")
    styles = {"active": "green", "missing": "yellow"}
    return Table(columns, rows, "Between a service and this machine", styles)


def _title(report: dict[str, Any]) -> str:
    file = report["file"]
    return f"{file['name']}, {file['bytes']:,} bytes, from host A through a router to host B"


def _rows(report: dict[str, Any]) -> list[list[object]]:
    """A row for every scenario, and below it one for every service on the way."""
    rows: list[list[object]] = []
    for scenario in report["scenarios"]:
        if "conservation" not in scenario:
            rows.append([scenario["scenario"], "failed", *[None] * (len(_COLUMNS) - 2)])
            continue
        sums = scenario["conservation"]
        refused = sums["refused"] + sums["expired"] + sums["dropped"]
        counts = [sums["taken_in"] + sums["originated"], sums["delivered"], refused, sums["held"]]
        verdict = "same" if scenario["ok"] else "NOT RIGHT"
        whole = [scenario["scenario"], "A to B", scenario["goodput_gbps"], *[None] * 4]
        rows.append([*whole, *counts, verdict])
        for service in scenario["services"]:
            times = [
                service["processing_p50_ms"],
                service["delivery_p50_ms"],
                service["delay_penalty_p50_ms"],
                service["delay_penalty_p99_ms"],
            ]
            verdicts = sum(service["verdicts"].values())
            row = [None, service["service"], None, *times]
            rows.append([*row, service["tasks"], verdicts, service["dropped"], None, None])
    return rows


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
