"""Files that commands write: never what they read, and whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click


def refuse_to_overwrite(out: Path, *files: Path) -> None:
    """Keep what is read from being written over; a key would be lost."""
    for file in files:
        if out.exists() and file.exists() and out.samefile(file):
            raise click.UsageError(f"--out {out} is a file that is read; write to another")


@contextmanager
def replacing(out: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `out` when all is written; of a device, itself."""
    if out.exists() and not out.is_file():
        with out.open("wb") as target:
            yield target
        return
    place = out.resolve()
    temporary = place.with_name(f".{place.name}.new")
    try:
        with temporary.open("wb") as target:
            yield target
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
