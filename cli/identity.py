"""`packetcloud identity`: make a key file, and show the name that a key owns."""

from __future__ import annotations

from pathlib import Path

import click

from packetcloud.cli.output import Output, pass_output
from packetcloud.cli.params import FILE

_key_file = click.argument("file", type=FILE)


@click.group()
def identity() -> None:
    """Create and show the keys behind GUIDs and SIDs."""


@identity.command()
@_key_file
@pass_output
def create(output: Output, file: Path) -> None:
    """Generate a key pair and write it to FILE (mode 0600).

    An existing FILE is never overwritten: whoever loses a key loses the name.
    """
    from packetcloud.chunk.identity import create_identity_file

    _print_names(output, file, create_identity_file(file).public_key)


@identity.command()
@_key_file
@pass_output
def show(output: Output, file: Path) -> None:
    """Show the GUID of the key in FILE; the secret part is not printed."""
    from packetcloud.chunk.identity import load_identity_file

    _print_names(output, file, load_identity_file(file).public_key)


def _print_names(output: Output, file: Path, public_key: bytes) -> None:
    from packetcloud.chunk.names import GUID

    guid = GUID.from_public_key(public_key)
    # A service that runs with this key has the same 20 bytes as its SID.
    output.record({"GUID": guid.hex, "public key": public_key.hex(), "file": str(file)})
