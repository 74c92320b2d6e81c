"""`packetcloud service dictionary`: what small payloads have in common, learnt from samples."""

from __future__ import annotations

from pathlib import Path

import click

from packetcloud.cli.output import Output, pass_output
from packetcloud.cli.params import FILE


@click.group()
def dictionary() -> None:
    """Make a dictionary for the small payloads of the wan-optimizer service."""


@dictionary.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("-o", "--out", type=FILE, required=True, help="Where to write the dictionary.")
@click.option(
    "--lines",
    is_flag=True,
    help="Every line is a sample, not every file: for logs and JSON lines.",
)
@click.option(
    "--bytes",
    "max_bytes",
    type=click.IntRange(1 << 10, 1 << 20),
    default=64 << 10,
    show_default=True,
    help="Largest dictionary.",
)
@pass_output
def train(output: Output, files: tuple[Path, ...], out: Path, lines: bool, max_bytes: int) -> None:
    """Learn from FILES what their payloads have in common, and write it to a file.

    Give samples as they are sent, one payload each; both directions then get a copy of the file:
    --set dictionary=FILE.
    """
    from packetcloud.services.wan_optimizer.dictionaries import (
        load_dictionary,
        read_samples,
        train_dictionary,
    )

    samples = read_samples(files, lines=lines)
    out.write_bytes(train_dictionary(samples, max_bytes))
    trained = load_dictionary(out)
    output.record(
        {
            "dictionary": str(out),
            "id": f"{trained.dictionary_id:08x}",
            "bytes": out.stat().st_size,
            "samples": len(samples),
        }
    )
