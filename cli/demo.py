"""`packetcloud demo`: a file through a router and services, on this machine."""

from __future__ import annotations

import signal
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
@pass_output
def demo(output: Output, file: Path | None, size: str | None, folder: Path | None) -> ExitCode:
    """Send a file through a router and services, all on this machine, and check it.

    Router, services and both hosts are processes of their own, started by the commands that people
    type; no root is needed. FILE, or half compressible data made here, goes plain, through encrypt
    and decrypt, and through compress, encrypt, decrypt and decompress.

    Exit code 1: something was lost, doubled or altered.
    """
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    from packetcloud.testbed.demo.payload import parse_bytes
    from packetcloud.testbed.demo.show import DEFAULT_BYTES, DEFAULT_FOLDER, REPORT, show_demo

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
        with output.progress(*columns) as shown:
            task = shown.add_task("starting", total=None)

            def tell(words: str, delivered: int | None, total: int) -> None:
                if delivered is None:
                    shown.reset(task, total=total, description=words)
                else:
                    done = min(delivered, total)
                    shown.update(task, completed=done, total=total, description=words)

            report = show_demo(file, size_bytes, folder, tell)
    except KeyboardInterrupt:
        output.warn("stopped; all processes ended, their keys and data are removed")
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    output.report(report, [Table(_COLUMNS, _rows(report), _title(report))])
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
