"""`packetcloud service benchmark`: chunks per second of a service on VIs of each type."""

from __future__ import annotations

import json
from pathlib import Path

import click

from packetcloud.cli.output import Output, Table, pass_output
from packetcloud.cli.params import FILE, SETTINGS, FiniteRange


@click.command()
@click.argument("manifest")
@click.option(
    "--vi-type",
    "names",
    multiple=True,
    help="Only this type; may be given more than once. [default: all of the catalogue]",
)
@click.option(
    "--catalogue",
    type=FILE,
    help="VI types, as a cloudlet's catalogue. [default: the one that comes with PacketCloud]",
)
@click.option(
    "--generate",
    type=click.Choice(["text", "random", "zeros", "mixed"]),
    default="mixed",
    show_default=True,
    help="Payloads.",
)
@click.option(
    "--chunk-bytes",
    type=click.IntRange(0, 1 << 20),
    default=1 << 16,
    show_default=True,
    help="Payload of one chunk.",
)
@click.option(
    "--seconds",
    type=FiniteRange(0.1, 600),
    default=2.0,
    show_default=True,
    help="Length of each run.",
)
@SETTINGS
@click.option("--json", "json_file", type=FILE, help="Write it for: packetcloud quote --measured")
@pass_output
def benchmark(
    output: Output,
    manifest: str,
    names: tuple[str, ...],
    catalogue: Path | None,
    generate: str,
    chunk_bytes: int,
    seconds: float,
    settings: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Measure how many chunks a second one VI of each type does with the service MANIFEST.

    Each type is a process that gets so much of one processor. Measure where nothing else runs.
    """
    from rich.progress import SpinnerColumn, TextColumn

    from packetcloud.cloudlet.vi_types import load_catalogue
    from packetcloud.services import benchmark as of
    from packetcloud.services.catalogue import find_service
    from packetcloud.services.parameters import parse_settings
    from packetcloud.services.trial import GeneratedKind

    found = find_service(manifest).manifest
    found.resolve(parse_settings(settings))  # refused here, before anything runs
    types = load_catalogue(catalogue)
    chosen = [types.get(name) for name in dict.fromkeys(names)] or list(types.types.values())
    sizes = [of.TypeSize(one.name, one.limits.vcpu, one.limits.memory_mib << 20) for one in chosen]
    load = of.Load(manifest, settings, GeneratedKind(generate), chunk_bytes, seconds)
    with output.progress(SpinnerColumn(), TextColumn("{task.description}")) as shown:
        task = shown.add_task("starting", total=None)
        measured = of.measure_types(
            load, sizes, lambda name: shown.update(task, description=f"VI type {name}")
        )
    service = found.service
    document = of.report_of(load, service.name, service.version, measured)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(document, indent=2) + "\n")
    rows = [
        (one.vi_type, one.chunks_per_s, one.cores, one.peak_bytes >> 20, one.note or None)
        for one in measured
    ]
    title = f"{service.name}, chunks of {chunk_bytes} bytes, one VI"
    output.report(document, [Table(("VI type", "Chunks/s", "Cores", "MiB", ""), rows, title)])
