"""`packetcloud reservation`: places on cloudlets, asked for, watched, changed and given back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from packetcloud.cli.domain_client import (
    DomainAccess,
    DurationType,
    domain_options,
    money_of,
    print_operation,
    time_of,
    waiting_options,
    wish_of,
    wish_options,
)
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FiniteRange, TimeType

if TYPE_CHECKING:
    from packetcloud.domain_controller.api.answered import PlaceInfo

_reservation = click.argument("reservation_id", metavar="RESERVATION")
_STATES = (
    *("requested", "offered", "confirmed", "active", "ended"),
    *("settled", "refused", "expired", "cancelled"),
)


def _request_key(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[A-Za-z0-9_-]{8,64}", text):
        raise click.BadParameter(f"{text!r}: expected 8 to 64 letters, digits, '-' and '_'")
    return text


@click.group()
def reservation() -> None:
    """Reserve places on cloudlets, watch, change and cancel reservations."""


@reservation.command()
@wish_options
@waiting_options
@click.option(
    "--request-key",
    callback=_request_key,
    help="Of this request, 8 to 64 letters and digits: sent again with it, it is the same one.",
)
@domain_options
@pass_output
def create(
    output: Output,
    /,
    is_waiting: bool,
    limit: float,
    request_key: str | None,
    access: DomainAccess,
    **wish: Any,
) -> ExitCode:
    """Reserve places. Exit code 1: no cloudlet could, or none answered within the limit."""
    if request_key is not None and wish["begin"] is None:
        raise click.UsageError(
            "--request-key needs --begin: from now on is another slot each time it is asked for"
        )
    return _ask(
        output,
        "/v1/reservations",
        wish_of(**wish),
        request_key,
        (is_waiting, limit),
        (access),
    )


@reservation.command("list")
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="Repeatable.")
@click.option("--most", default=100, show_default=True, type=click.IntRange(1), help="So many.")
@domain_options
@pass_output
def list_reservations(
    output: Output,
    states: tuple[str, ...],
    most: int,
    access: DomainAccess,
) -> None:
    """List reservations, the newest first."""
    from packetcloud.domain_controller.api.answered import ReservationPage

    found = []
    with access.open() as client:
        query: dict[str, Any] = {"state": list(states) or None, "limit": min(most, 500)}
        for page in client.all_pages(ReservationPage, "/v1/reservations", **query):
            found += page.reservations
            if len(found) >= most:
                break
    columns = ("ID", "Owner", "State", "VIs", "Type", "Begin", "End", "Cloudlets", "Price")
    rows = [
        (
            one.id,
            one.owner,
            one.state,
            one.count,
            one.vi_type,
            time_of(one.slot.begin_ms),
            time_of(one.slot.end_ms),
            places_of(one.places),
            money_of(one.price_micros, one.currency),
        )
        for one in found[:most]
    ]
    output.report([one.model_dump() for one in found[:most]], [Table(columns, rows)])


@reservation.command()
@_reservation
@domain_options
@pass_output
def show(
    output: Output,
    reservation_id: str,
    access: DomainAccess,
) -> None:
    """Show one reservation."""
    from packetcloud.domain_controller.api.answered import ReservationInfo

    with access.open() as client:
        _print(output, client.get(ReservationInfo, f"/v1/reservations/{reservation_id}"))


@reservation.command()
@_reservation
@click.option("--until", type=TimeType(), help="Its new end; or --by.")
@click.option("--by", "by_ms", type=DurationType(), help="So much later: 30m, 2h, 1d.")
@waiting_options
@domain_options
@pass_output
def extend(
    output: Output,
    reservation_id: str,
    until: float | None,
    by_ms: int | None,
    is_waiting: bool,
    limit: float,
    access: DomainAccess,
) -> ExitCode:
    """Let a reservation end later, where there is room. Exit code 1: there is none."""
    from packetcloud.domain_controller.api.answered import ReservationInfo

    if (until is None) == (by_ms is None):
        raise click.UsageError("give one of --until and --by")
    if until is not None:
        end_ms = int(until * 1000)
    else:
        with access.open() as client:
            info = client.get(ReservationInfo, f"/v1/reservations/{reservation_id}")
        end_ms = info.slot.end_ms + (by_ms or 0)
    path = f"/v1/reservations/{reservation_id}/extend"
    return _ask(output, path, {"end_ms": end_ms}, None, (is_waiting, limit), access)


@reservation.command()
@_reservation
@click.option("--count", type=click.IntRange(1), required=True, help="So many VIs.")
@waiting_options
@domain_options
@pass_output
def resize(
    output: Output,
    reservation_id: str,
    count: int,
    is_waiting: bool,
    limit: float,
    access: DomainAccess,
) -> ExitCode:
    """Give a reservation more VIs, or fewer. Exit code 1: there is no room."""
    path = f"/v1/reservations/{reservation_id}/resize"
    return _ask(output, path, {"count": count}, None, (is_waiting, limit), access)


@reservation.command()
@_reservation
@click.option("--change", "is_change", is_flag=True, help="Only its change that is under way.")
@waiting_options
@domain_options
@pass_output
def cancel(
    output: Output,
    reservation_id: str,
    is_change: bool,
    is_waiting: bool,
    limit: float,
    access: DomainAccess,
) -> ExitCode:
    """Give a reservation back; what it used until then is billed.

    With --change it stays, as it was before the extension or resize that a cloudlet did not answer
    yet. Exit code 1: the change is done or failed already.
    """
    if is_change:
        return _cancel_change(output, reservation_id, access)
    path = f"/v1/reservations/{reservation_id}/cancel"
    return _ask(output, path, None, None, (is_waiting, limit), access)


@reservation.command()
@_reservation
@click.option(
    "--for",
    "state",
    type=click.Choice(_STATES),
    default="active",
    show_default=True,
    help="The state to wait for.",
)
@click.option(
    "--limit", default=3600.0, show_default=True, type=FiniteRange(0), help="Seconds to wait."
)
@domain_options
@pass_output
def wait(
    output: Output,
    reservation_id: str,
    state: str,
    limit: float,
    access: DomainAccess,
) -> ExitCode:
    """Wait until a reservation has a state.

    Exit code 1: it came to an end without it, or is not there within the limit.
    """
    from packetcloud.domain_controller.api.answered import LAST_STATES

    with access.open() as client:
        info = client.await_reservation(
            reservation_id, lambda one: one.state == state or one.state in LAST_STATES, limit
        )
    _print(output, info)
    return ExitCode.FINE if info.state == state else ExitCode.NEGATIVE


def _ask(
    output: Output,
    path: str,
    body: dict[str, Any] | None,
    request_key: str | None,
    waiting: tuple[bool, float],
    access: DomainAccess,
) -> ExitCode:
    from packetcloud.domain_controller.api.answered import OperationInfo

    is_waiting, limit = waiting
    with access.open() as client:
        operation = client.make(OperationInfo, path, body, request_key)
        if is_waiting:
            operation = client.await_operation(operation, limit)
    is_fine = print_operation(output, operation, is_waiting)
    return ExitCode.FINE if is_fine else ExitCode.NEGATIVE


def _cancel_change(output: Output, reservation_id: str, access: DomainAccess) -> ExitCode:
    from packetcloud.domain_controller.api.answered import OperationInfo, ReservationInfo

    with access.open() as client:
        info = client.get(ReservationInfo, f"/v1/reservations/{reservation_id}")
        operation = info.operation and client.get(OperationInfo, f"/v1/operations/{info.operation}")
        if not operation or operation.kind not in ("extend", "resize"):
            output.warn(f"nobody asked for a change of reservation {reservation_id} lately")
            return ExitCode.NEGATIVE
        path = f"/v1/operations/{operation.id}/cancel"
        operation = client.change(OperationInfo, "POST", path)
    print_operation(output, operation, is_waiting=True)
    return ExitCode.FINE if operation.state == "cancelled" else ExitCode.NEGATIVE


def places_of(places: Iterable[PlaceInfo]) -> str:
    """Return the places of a reservation for people, and which of their cloudlets are away."""
    return ", ".join(
        f"{one.cloudlet}: {one.count}"
        + (f" (away since {time_of(one.away_since_ms)})" if one.away_since_ms is not None else "")
        for one in places
    )


def _print(output: Output, info: Any) -> None:
    slot = info.slot
    facts = [
        ("reservation", info.id),
        ("owner", info.owner),
        ("state", info.state),
        ("VIs", f"{info.count} of {info.vi_type}"),
        ("begin", time_of(slot.begin_ms)),
        ("end", time_of(slot.end_ms)),
        ("repeats", slot.repeat and f"every {slot.repeat.every}"),
        ("service", info.service),
        ("on", places_of(info.places)),
        ("price", money_of(info.price_micros, info.currency)),
        ("price list", info.price_list),
        ("why", info.why),
    ]
    output.report(info.model_dump(), [Table(("", ""), facts)])
