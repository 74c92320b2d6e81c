"""`packetcloud bench ids`."""

from __future__ import annotations

from typing import Any

import click

from packetcloud.cli.bench_run import finish, running, shared_options
from packetcloud.cli.output import ExitCode, Output, Table, pass_output

_NAMES = ("ids_gbps", "hyperscan_gbps", "re2_gbps", "python_re_gbps")


@click.command()
@shared_options(1, 5)
@click.option(
    "--rules",
    type=click.IntRange(10, 20_000),
    default=1000,
    show_default=True,
    help="Rules with contents, made up.",
)
@click.option(
    "--chunks",
    type=click.IntRange(1, 10_000),
    default=40,
    show_default=True,
    help="Of 1 MiB, of each kind, in each repeat.",
)
@pass_output
def ids(output: Output, /, rules: int, chunks: int, **options: Any) -> ExitCode:
    """A thousand rules with contents inside the ids service, against other scanners."""
    from packetcloud.testbed.bench.ids import IdsPlan, bench_ids

    with running(output, options) as (timing, progress):
        document = bench_ids(timing, progress, IdsPlan(rules, chunks))
    rows = [
        (kind.replace("_", " "), *(found[name] for name in _NAMES))
        for kind, found in document["kinds"].items()
    ]
    columns = ("payload", "ids", "Hyperscan, contents only", "RE2", "re")
    title = f"{rules} rules, Gbit/s of one core"
    return finish(output, options, document, [Table(columns, rows, title)])
