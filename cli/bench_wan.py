"""`packetcloud bench wan`: how much smaller the WAN optimizer makes what is like what was sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from packetcloud.cli.bench_run import finish, watched
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE

_TREE = click.Path(path_type=Path, exists=True)


@click.command()
@click.option("--old", type=_TREE, help="Old version: a folder or an archive. [default: made]")
@click.option("--new", type=_TREE, help="New version. [default: made from the old one]")
@click.option(
    "--mib",
    type=click.IntRange(1, 1024),
    default=24,
    show_default=True,
    help="Size of a tree that is made.",
)
@click.option(
    "--level",
    type=click.IntRange(1, 19),
    default=3,
    show_default=True,
    help="Level of zstandard, of ours and of each chunk alone.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Passes whose processor time is measured; sizes are the same in each.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of edits and messages.")
@click.option("--json", "json_file", type=FILE, help="Write the whole report to this file.")
@pass_output
def wan(
    output: Output,
    old: Path | None,
    new: Path | None,
    mib: int,
    level: int,
    repeats: int,
    seed: int,
    json_file: Path | None,
) -> ExitCode:
    """Two versions of a source tree through the WAN optimizer, against gzip and zstd --long."""
    from packetcloud.testbed.bench.wan import WanPlan, bench_wan

    if (old is None) != (new is None):
        raise click.UsageError("--old and --new go together")
    plan = WanPlan(old, new, mib << 20, level, seed)
    with watched(output) as progress:
        document = bench_wan(plan, progress, repeats)
    options: dict[str, Any] = {"json_file": json_file, "plot_file": None}
    return finish(output, options, document, _tables(document))


def _tables(document: dict[str, Any]) -> list[Table]:
    least = document["sizes"]["zstd_long_with_old"]
    sizes = [
        (name.replace("_", " "), size, size / document["new_bytes"], size / least)
        for name, size in document["sizes"].items()
    ]
    titles = ("new version", "bytes", "of the original", "times zstd --long with old")
    costs = [
        (name.replace("_", " "), document[f"{name}_ms_per_mib"])
        for name in ("first_compress", "compress", "decompress")
    ]
    small = document["small_messages"]
    rows = [
        (name.replace("_", " "), small[name])
        for name in ("bytes", "gzip", "alone", "with_dictionary")
    ]
    return [
        Table(titles, sizes, document["trees"]),
        Table(("direction", "ms per MiB"), costs, "Time of the processor"),
        Table(("made", "bytes"), rows, f"{small['messages']} small messages"),
    ]
