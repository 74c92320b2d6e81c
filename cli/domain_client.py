"""What the commands that ask a domain controller share: its address, the key, times, wishes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packetcloud.chunk.errors import ProtocolError
from packetcloud.cli.output import Output, Table
from packetcloud.cli.params import FILE, FiniteRange, TimeType, group, url_of

if TYPE_CHECKING:
    from packetcloud.domain_controller.api.answered import OperationInfo
    from packetcloud.domain_controller.client import DomainClient

DEFAULT_URL = "http://127.0.0.1:4800"
URL_VARIABLE = "PACKETCLOUD_DOMAIN"
KEY_VARIABLE = "PACKETCLOUD_KEY"
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

_options = group(
    click.option(
        "--url",
        default=DEFAULT_URL,
        show_default=True,
        envvar=URL_VARIABLE,
        callback=url_of,
        help="The domain controller, as HOST:PORT or a URL; "
        f"{URL_VARIABLE} in the environment works too.",
    ),
    click.option(
        "--key",
        "key_file",
        type=FILE,
        required=True,
        envvar=KEY_VARIABLE,
        help=f"Your key file, which signs what you ask; or {KEY_VARIABLE}. "
        "See: packetcloud identity create",
    ),
    click.option("--ca", "ca_file", type=FILE, help="Certificates to trust, instead of the usual."),
    click.option(
        "--timeout",
        default=20.0,
        show_default=True,
        type=FiniteRange(0.1, 3600),
        help="Seconds to wait for answers.",
    ),
)


@dataclass(frozen=True, slots=True)
class DomainAccess:
    """Where the domain controller is, and who asks."""

    url: str
    key_file: Path
    ca_file: Path | None
    timeout_s: float

    def open(self) -> DomainClient:
        """Return a client that signs with the key file; close it."""
        from packetcloud.chunk.identity import load_identity_file
        from packetcloud.domain_controller.client import DomainClient

        identity = load_identity_file(self.key_file)
        ca = None if self.ca_file is None else str(self.ca_file)
        return DomainClient(self.url, identity, self.timeout_s, ca_file=ca)


def domain_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that asks a domain controller; it gets them as `access`."""

    @functools.wraps(command)
    def with_access(
        *given: Any, url: str, key_file: Path, ca_file: Path | None, timeout: float, **named: Any
    ) -> Any:
        access = DomainAccess(url, key_file, ca_file, timeout)
        return command(*given, access=access, **named)

    return _options(with_access)


waiting_options = group(
    click.option(
        "--wait/--no-wait", "is_waiting", default=True, help="Return when it is done. [default]"
    ),
    click.option(
        "--limit",
        default=60.0,
        show_default=True,
        type=FiniteRange(0),
        help="Seconds to wait for it to be done.",
    ),
)


class DurationType(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """A time span: 90s, 30m, 2h, 1d, 1w; in milliseconds."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        digits, unit = str(value)[:-1], str(value)[-1:]
        is_number = digits.isascii() and digits.isdecimal() and len(digits) <= 9
        if not is_number or unit not in _UNITS_S:
            self.fail(f"{value!r}: expected a time span like 90s, 30m, 2h, 1d or 1w", param, ctx)
        return int(digits) * _UNITS_S[unit] * 1000


class NearType(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """A host by its GUID, or a router by its NA."""

    name = "GUID|NA"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        text = str(value)
        if text.isascii() and text.isdecimal() and len(text) <= 10:
            return {"na": int(text)}
        from packetcloud.chunk.names import GUID

        try:
            return {"host": GUID.from_hex(text).hex}
        except ProtocolError:
            self.fail(
                f"{value!r}: expected a GUID of 40 hexadecimal digits, or an NA as a number",
                param,
                ctx,
            )


slot_options = group(
    click.option(
        "--begin", type=TimeType(), help="When, like 2027-01-31T12:00:00Z. [default: now]"
    ),
    click.option("--end", type=TimeType(), help="Until when; or --for."),
    click.option("--for", "duration_ms", type=DurationType(), help="How long: 90s, 30m, 2h, 1d."),
    click.option("--every", type=click.Choice(["day", "week"]), help="The slot repeats."),
    click.option("--times", type=click.IntRange(1), help="So often, with --every."),
    click.option("--cloudlet", help="On this cloudlet only."),
    click.option("--region", help="In this region only."),
    click.option("--near", type=NearType(), help="Near a host or a router."),
    click.option("--max-hops", type=click.IntRange(0, 255), help="So near, with --near."),
    click.option("--spread", type=click.IntRange(1), help="Over so many cloudlets."),
    click.option("--service", help="The name of the registered service that they run."),
    click.option("--max-price", help="At most so much, like 12.50; else there is no offer."),
)
wish_options = group(
    click.option("--vi-type", required=True, help="Which size; see: packetcloud vi-type list"),
    click.option("--count", default=1, show_default=True, help="VIs at the same time."),
    slot_options,
)


def wish_of(
    *,
    vi_type: str,
    count: int,
    begin: float | None,
    end: float | None,
    duration_ms: int | None,
    every: str | None,
    times: int | None,
    cloudlet: str | None,
    region: str | None,
    near: dict[str, Any] | None,
    max_hops: int | None,
    spread: int | None,
    service: str | None,
    max_price: str | None,
) -> dict[str, Any]:
    """Return the body that asks for what the options say.

    Raises:
        click.UsageError: options that do not go together.
    """
    if (end is None) == (duration_ms is None):
        raise click.UsageError("give one of --end and --for")
    if (every is None) != (times is None):
        raise click.UsageError("--every and --times belong together")
    if max_hops is not None and near is None:
        raise click.UsageError("--max-hops says how far from --near")
    begin_ms = int((time.time() if begin is None else begin) * 1000)
    end_ms = int(end * 1000) if end is not None else begin_ms + (duration_ms or 0)
    slot: dict[str, Any] = {"begin_ms": begin_ms, "end_ms": end_ms}
    if every is not None:
        slot["repeat"] = {"every": every, "count": times}
    where: dict[str, Any] = {"cloudlet": cloudlet, "region": region, "spread": spread}
    if near is not None:
        where["near"] = near if max_hops is None else near | {"max_hops": max_hops}
    wish: dict[str, Any] = {"vi_type": vi_type, "count": count, "slot": slot}
    wish["constraints"] = {key: value for key, value in where.items() if value is not None}
    if service is not None:
        wish["service"] = service
    if max_price is not None:
        wish["max_price_micros"] = micros_of(max_price)
    return wish


def micros_of(text: str) -> int:
    """Return an amount like 12.50 in millionths.

    Raises:
        click.UsageError: it is none.
    """
    from packetcloud.domain_controller.core.money import MICROS, parse_money
    from packetcloud.domain_controller.errors import InvalidValueError

    assert MICROS == 1_000_000
    try:
        return parse_money("--max-price", text)
    except InvalidValueError as error:
        raise click.UsageError(str(error)) from None


def time_of(ms: int | None) -> str | None:
    """Return a time for people, in UTC; options that take a time take it as it is."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def money_of(micros: int | None, currency: str | None) -> str | None:
    """Return an amount for people, with all its digits: what is rounded is said on bills."""
    if micros is None:
        return None
    sign = "-" if micros < 0 else ""
    whole, part = divmod(abs(micros), 1_000_000)
    return f"{sign}{whole}.{part:06} {currency or ''}".strip()


def print_operation(output: Output, operation: OperationInfo, is_waiting: bool) -> bool:
    """Print how an operation ended; tell whether that is what was wanted."""
    facts = [
        ("operation", operation.id),
        (operation.kind, operation.subject),
        ("state", operation.state),
        ("text", operation.text),
    ]
    output.report(operation.model_dump(), [Table(("", ""), facts)])
    if operation.state == "running" and is_waiting:
        output.warn(
            "not done within the limit; it goes on: packetcloud reservation wait "
            f"{operation.subject}"
        )
    return operation.state == "done" or (operation.state == "running" and not is_waiting)
