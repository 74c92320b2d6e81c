"""`packetcloud bench domain`: its options and the tables that it prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from packetcloud.cli.bench_run import finish, watched
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE

_PARTS = ("rate", "races", "billing", "reports", "failover", "stale")
_ROWS = {
    "rate": ("per_s", "p50_ms", "p99_ms", "controller_cores", "controller_ms"),
    "races": ("rounds", "oversold", "short_rounds", "other_answers", "control_oversold"),
    "billing": ("records_count", "per_s", "bills_s", "errors", "control_errors"),
    "reports": ("cloudlets", "report_bytes", "core_share"),
    "failover": ("kills_count", "answered_count", "pause_s", "silence_s", "lost", "doubled"),
    "stale": ("refused", "accepted", "control_accepted"),
}
_TITLES = {
    "rate": "Reservations over signed HTTP, 64 clients",
    "races": "64 clients for 50 places",
    "billing": "Usage records out of order, a tenth of them twice",
    "reports": "Reports of cloudlets",
    "failover": "Two controllers, one killed again and again",
    "stale": "Commands of a controller that was stopped and replaced",
}


@click.command()
@click.option(
    "--part",
    "parts",
    type=click.Choice(_PARTS),
    multiple=True,
    help="What to measure; may be given more than once. [default: all]",
)
@click.option(
    "--database",
    "databases",
    type=click.Choice(("sqlite", "postgresql")),
    multiple=True,
    help="Where it is kept; may be given more than once. [default: both]",
)
@click.option("--quick", is_flag=True, help="Little of everything: to see that it works.")
@click.option("--rounds", type=click.IntRange(1, 10_000), help="Races. [default: 1000; --quick: 5]")
@click.option(
    "--records",
    type=click.IntRange(64, 10_000_000),
    help="Usage records. [default: 1000000; --quick: 6400]",
)
@click.option(
    "--failover-s",
    type=click.IntRange(1, 3600),
    help="Seconds in which controllers are killed. [default: 300; --quick: 8]",
)
@click.option("--json", "json_file", type=FILE, help="Write the whole report to this file.")
@click.option("--plot", "plot_file", type=FILE, help="Draw the figures into this PNG file.")
@pass_output
def domain(
    output: Output,
    /,
    parts: tuple[str, ...],
    databases: tuple[str, ...],
    quick: bool,
    rounds: int | None,
    records: int | None,
    failover_s: int | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> ExitCode:
    """A domain controller on SQLite and PostgreSQL: places, bills, reports, kills.

    Controllers are processes, tenants reserve over signed HTTP. 20 minutes with all parts.
    """
    from packetcloud.testbed.bench.domain import QUICK, bench_domain
    from packetcloud.testbed.bench.domain_parts import DomainPlan

    given = {"parts": parts, "databases": databases, "rounds": rounds, "records": records}
    given |= {"failover_s": failover_s}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value}
    plan = replace(QUICK if quick else DomainPlan(), **chosen)
    with watched(output) as progress:
        document = bench_domain(plan, progress)
    files = {"json_file": json_file, "plot_file": plot_file}
    return finish(output, files, document, domain_tables(document))


def domain_tables(document: dict[str, Any]) -> list[Table]:
    """Return a table for each part that was measured."""
    tables = []
    for part, keys in _ROWS.items():
        rows = [
            (kind, *(found[part][key] for key in keys))
            for kind, found in document["databases"].items()
            if part in found
        ]
        if rows:
            titles = ("database", *(key.replace("_", " ") for key in keys))
            tables.append(Table(titles, rows, _TITLES[part]))
    return tables
