"""`packetcloud bench vi`: its options and the tables that it prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from packetcloud.cli.bench_run import finish, running, shared_options
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FOLDER, FiniteRange

_COUNT = click.IntRange(1, 10_000)


@click.command()
@shared_options(5, 3)
@click.option(
    "--part",
    "parts",
    type=click.Choice(("penalty", "cold", "standby", "resize", "migration", "idle")),
    multiple=True,
    help="What to measure; may be given more than once. [default: all]",
)
@click.option("--launches", type=_COUNT, help="VIs to start, one by one.  [default: 100]")
@click.option("--resizes", type=_COUNT, help="Changes of size.  [default: 100]")
@click.option("--migrations", type=_COUNT, help="Moves to and fro.  [default: 100]")
@click.option(
    "--rate",
    type=FiniteRange(1, 10_000),
    help="Chunks per second during migrations.  [default: 200]",
)
@click.option("--vis", type=click.IntRange(1, 200), help="VIs on one node, idle.  [default: 50]")
@click.option(
    "--images",
    type=FOLDER,
    help="Where images of VIs are kept. [default: /var/cache/packetcloud/images]",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Few of everything, to see that it works: what is not said otherwise is small.",
)
@pass_output
def vi(
    output: Output,
    /,
    parts: tuple[str, ...],
    images: Path | None,
    quick: bool,
    launches: int | None,
    resizes: int | None,
    migrations: int | None,
    rate: float | None,
    vis: int | None,
    **options: Any,
) -> ExitCode:
    """Services in containers: start, resize, migrations under load, delay, many idle ones (root).

    Private LXD servers of its own, beside whatever LXD this machine runs; removed afterwards.
    """
    from packetcloud.testbed.bench.vi import QUICK, QUICK_TIMING, bench_vi
    from packetcloud.testbed.bench.vi_place import ViPlan

    sizes: dict[str, Any] = {
        "launches": launches,
        "resizes": resizes,
        "migrations": migrations,
        "rate": rate,
        "vis": vis,
    }
    given = {name: value for name, value in sizes.items() if value is not None}
    plan = replace(QUICK if quick else ViPlan(), images=images, **given)
    if parts:
        plan = replace(plan, parts=tuple(dict.fromkeys(parts)))
    if quick:
        options |= {"seconds": QUICK_TIMING.seconds, "repeats": QUICK_TIMING.repeats}
    with running(output, options) as (timing, progress):
        document = bench_vi(plan, timing, progress)
    return finish(output, options, document, list(vi_tables(document)))


def vi_tables(document: dict[str, Any]) -> Iterator[Table]:
    """Return the tables of the parts that were measured."""
    if "penalty" in document:
        yield _penalty(document["penalty"])
    rows = [
        (title, count, *(times[key] for key in ("p50_s", "p95_s", "min_s", "max_s")))
        for title, count, times in _times(document)
    ]
    if rows:
        yield Table(("", "times", "p50 s", "p95 s", "least s", "most s"), rows, "How long it takes")
    yield from _stages(document)
    if "migration" in document:
        found = document["migration"]
        heads = ("migrations", "chunks", "lost", "doubled")
        title = f"Migrations under {found['rate_chunks_per_s']:g} chunks/s"
        yield Table(heads, [[found[key] for key in heads]], title)
    if "idle" in document:
        found = document["idle"]
        names = ("controller_core_share", "router_core_share", "whole_machine_cores")
        values = [found[name] for name in names]
        title = f"Cores in use with {found['vis']} idle VIs on one node"
        yield Table(("controller", "router", "whole machine"), [values], title)


def _times(document: dict[str, Any]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    if "cold" in document:
        found = document["cold"]
        yield "cold start to the first chunk", found["launches"], found["start"]
    if "standby" in document:
        found = document["standby"]
        yield "start of a standby, the same", found["launches"], found["start"]
    if "resize" in document:
        found = document["resize"]
        yield "resize, read back", found["resizes"], found["resize"]
    if "migration" in document:
        found = document["migration"]
        yield "migration: pause of chunks", found["migrations"], found["pause"]
        yield "migration: the whole", found["migrations"], found["duration"]


def _stages(document: dict[str, Any]) -> Iterator[Table]:
    """The stages of a start, without and with a standby."""
    found = {
        part: document[part]["stages_p50_s"] for part in ("cold", "standby") if part in document
    }
    names = dict.fromkeys(name for one in found.values() for name in one)
    rows = [(name.replace("_", " "), *(one.get(name) for one in found.values())) for name in names]
    if rows:
        titles = {"cold": "cold s", "standby": "standby s"}
        heads = ("stage", *(titles[part] for part in found))
        yield Table(heads, rows, "Where the time of a start goes, medians")


def _penalty(penalty: dict[str, Any]) -> Table:
    titles = ("chunk", "back-end", "penalty p50 ms", "p99 ms", "processing", "delivery", "ratio")
    rows: list[list[object]] = []
    for size, figures in penalty["sizes"].items():
        for name in ("process", "lxd"):
            keys = ("delay_penalty_p50", "delay_penalty_p99", "processing_p50", "delivery_p50")
            values = [figures[f"{name}_{key}_ms"] for key in keys]
            ratio = figures["ratio"] if name == "lxd" else None
            rows.append([f"{int(size) >> 10} KiB", name, *values, ratio])
    return Table(titles, rows, "Delay penalty at a steady rate, a quarter of the full one")
