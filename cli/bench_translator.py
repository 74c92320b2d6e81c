"""`packetcloud bench translator`: its options and the tables that it prints."""

from __future__ import annotations

from typing import Any

import click

from packetcloud.cli.bench_run import finish, running
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE


@click.command()
@click.option("--quick", is_flag=True, help="Little of everything: to see that it works.")
@click.option(
    "--repeats",
    type=click.IntRange(1, 100),
    default=5,
    show_default=True,
    help="Downloads by each way, in turn; medians are shown.",
)
@click.option("--json", "json_file", type=FILE, help="Write the whole report to this file.")
@pass_output
def translator(output: Output, /, quick: bool, **options: Any) -> ExitCode:
    """curl through proxy, router and translator against curl alone and a plain SOCKS relay.

    With --quick the figures mean nothing.
    """
    from packetcloud.testbed.bench.translator import QUICK, TranslatorPlan, bench_translator

    options |= {"seconds": 1, "plot_file": None}
    with running(output, options, warmup=0) as (timing, progress):
        document = bench_translator(QUICK if quick else TranslatorPlan(), timing, progress)
    return finish(output, options, document, translator_tables(document))


def translator_tables(document: dict[str, Any]) -> list[Table]:
    """Return goodput by rate, and what else was tried."""
    columns = ("every NIC", "direct Mbit/s", "ours", "microsocks", "share of direct")
    rows = [
        (
            rate,
            *(found["mbps"].get(way) for way in ("direct", "ours", "microsocks")),
            found["share_of_direct"],
        )
        for rate, found in document["rates"].items()
    ]
    keys = ("translator_share_of_direct", "connections", "files", "files_wrong")
    return [Table(columns, rows), Table(keys, [tuple(document.get(key) for key in keys)])]
