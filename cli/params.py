"""What commands take on their command line: the types of values, and options as a group."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.names import GUID, PUBLIC_KEY_BYTES
from packetcloud.chunk.timestamps import parse_time

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, dir_okay=False)
"""A file, there or not."""
FOLDER = click.Path(path_type=Path, file_okay=False)
"""A folder, there or not."""
_BYTE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BYTE_UNITS |= {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


class NameType(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """A GUID or SID, typed as 40 hexadecimal digits."""

    def __init__(self, kind: type[GUID]) -> None:
        self.name = kind.__name__
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> GUID:
        if isinstance(value, GUID):
            return value
        try:
            return self._kind.from_hex(value)
        except ProtocolError:
            self.fail(
                f"{value!r} is no {self.name}: expected 40 hexadecimal digits, as printed by "
                "packetcloud identity show",
                param,
                ctx,
            )


class TimeType(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """A point in time in RFC 3339, as seconds since 1970."""

    name = "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_time(value)
        except ValueError as error:
            self.fail(f"{value!r}: expected {error}", param, ctx)


class PublicKeyType(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """A public key of 64 hexadecimal digits, or the key file that it belongs to."""

    name = "PUBKEY|FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        if isinstance(value, bytes):
            return value
        try:
            key = bytes.fromhex(value)
        except ValueError:
            key = b""
        if len(key) == PUBLIC_KEY_BYTES:
            return key
        if not Path(value).is_file():
            self.fail(
                f"{value!r}: expected 64 hexadecimal digits, as printed by packetcloud identity "
                "show, or a key file",
                param,
                ctx,
            )
        from packetcloud.chunk.identity import load_identity_file

        return load_identity_file(Path(value)).public_key


class AddressType(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """HOST:PORT; an IPv6 address stands in brackets."""

    name = "HOST:PORT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, colon, port = str(value).rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        in_range = port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535
        if not colon or not bare or not in_range or (":" in bare and bare == host):
            self.fail(
                f"{value!r}: expected HOST:PORT with a port from 1 to 65535, like 127.0.0.1:4700 "
                "or [::1]:4700",
                param,
                ctx,
            )
        return bare, int(port)


class SizeType(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """A number of bytes, with a unit if wanted: 4096, 10M, 2GiB."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().lower().removesuffix("b")
        digits = text.rstrip("kmgti")
        unit = _BYTE_UNITS.get(text[len(digits) :])
        if not digits.isascii() or not digits.isdecimal() or unit is None:
            self.fail(f"{value!r}: expected bytes like 4096, 10M or 2GiB", param, ctx)
        return int(digits) * unit


class RangedSizeType(SizeType):
    """A size that is not any."""

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        size = super().convert(value, param, ctx)
        if not self._least <= size <= self._most:
            self.fail(f"{value!r}: allowed: {self._least} to {self._most} bytes", param, ctx)
        return size


class FiniteRange(click.FloatRange):
    """A range of numbers; "nan" is none, although no comparison refuses it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


SECONDS = FiniteRange(0.1, 86_400)
"""How long to wait for something."""

TIMEOUT = click.option(
    "--timeout",
    type=SECONDS,
    default=10.0,
    show_default=True,
    help="Seconds to wait for answers.",
)
SETTINGS = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a parameter of the manifest; may be given several times.",
)


def url_of(context: click.Context, option: click.Parameter, text: str) -> str:
    """Turn HOST:PORT into a URL; a URL stays what it is."""
    if "://" in text:
        return text
    host, port = AddressType().convert(text, option, context)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


ROUTER = click.option(
    "--url",
    "--router",
    "url",
    metavar="ADDRESS",
    default="127.0.0.1:4701",
    show_default=True,
    callback=url_of,
    help="The router's management API, as HOST:PORT or a URL.",
)


def name_start(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """Check that `text` can be the beginning of a GUID or SID."""
    if text is None:
        return None
    digits = text.strip().lower()
    if not 4 <= len(digits) <= 40 or not set(digits) <= set("0123456789abcdef"):
        raise click.BadParameter(
            f"{text!r} is not the beginning of a name: 4 to 40 hexadecimal digits", context, option
        )
    return digits


EMULATOR = click.option(
    "--emulator",
    type=click.Choice(("auto", "tun", "netem")),
    default="auto",
    show_default=True,
    help="What makes the link: a process of ours between TUN devices, or the kernel. "
    "auto: the kernel where it has netem and can make such a link.",
)


def group(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator for all `options`; help lists them in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
