"""`packetcloud service key`: make and change the key file of the secure-communication service."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from packetcloud.chunk.timestamps import time_text
from packetcloud.cli.domain_client import DurationType
from packetcloud.cli.output import Output, pass_output
from packetcloud.cli.params import FILE

if TYPE_CHECKING:
    from packetcloud.services.secure_communication.keys import ServiceKey

_key_file = click.argument("file", type=FILE)


class KeyIdType(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """The id of a key: 8 hexadecimal digits."""

    name = "KEY_ID"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        text = str(value).lower()
        if len(text) != 8 or not set(text) <= set("0123456789abcdef"):
            self.fail(
                f"{value!r}: expected 8 hexadecimal digits, as printed by "
                "packetcloud service key show",
                param,
                ctx,
            )
        return int(text, 16)


@click.group()
def key() -> None:
    """Make and change the key file of the secure-communication service."""


@key.command()
@_key_file
@pass_output
def create(output: Output, file: Path) -> None:
    """Write FILE with one new key (mode 0600); both directions need a copy of it."""
    from packetcloud.services.secure_communication.keys import create_key_file

    _print_key(output, file, create_key_file(file))


@key.command()
@_key_file
@click.option(
    "--in",
    "in_ms",
    type=DurationType(),
    default="60s",
    show_default=True,
    help="Nothing is encrypted with it earlier: bring FILE everywhere until then. 0s: at once.",
)
@pass_output
def rotate(output: Output, file: Path, in_ms: int) -> None:
    """Add a new key to FILE, to be used a minute from now.

    Until then copy FILE to wherever the service runs, in any order; running services read it again
    by themselves. Their clocks must agree as far as the time that you leave.
    """
    from packetcloud.services.secure_communication.keys import rotate_key_file

    _print_key(output, file, rotate_key_file(file, in_ms / 1000))


@key.command()
@_key_file
@click.argument("key_id", type=KeyIdType())
@click.option(
    "--at-once", is_flag=True, help="Also if chunks under it may be on their way: they are lost."
)
@pass_output
def retire(output: Output, file: Path, key_id: int, at_once: bool) -> None:
    """Take the key KEY_ID out of FILE: what bears it is not decrypted any more.

    Refused while it is in use, and for ten minutes after a newer one took its place.
    """
    from packetcloud.services.secure_communication.keys import retire_key

    retire_key(file, key_id, time.time(), at_once=at_once)
    output.record({"retired": f"{key_id:08x}", "file": str(file)})


@key.command()
@_key_file
@pass_output
def show(output: Output, file: Path) -> None:
    """List the ids of the keys in FILE, the newest last; no secret is printed."""
    from packetcloud.services.secure_communication.keys import key_in_use, load_key_file

    keys, now_s = load_key_file(file), time.time()
    current = key_in_use(keys, now_s)
    rows = []
    for item in keys:
        state = "older" if item.may_encrypt(now_s) else "to come"
        rows.append(
            (
                f"{item.key_id:08x}",
                item.created,
                None if item.not_before_s is None else time_text(item.not_before_s),
                "in use" if item is current else state,
            )
        )
    output.table(("Key ID", "Created", "Used from", "State"), rows)


def _print_key(output: Output, file: Path, created: ServiceKey) -> None:
    record: dict[str, object] = {"key id": f"{created.key_id:08x}", "file": str(file)}
    if created.not_before_s is not None:
        record["used from"] = time_text(created.not_before_s)
    output.record(record)
