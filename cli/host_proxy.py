"""`packetcloud host proxy|expose`: to the IP network and from it, through a translator."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import click

from packetcloud.chunk.names import SID
from packetcloud.cli.host_run import attached, run
from packetcloud.cli.output import Output, pass_output
from packetcloud.cli.params import AddressType, NameType

if TYPE_CHECKING:
    from packetcloud.host.programs import Attachment
    from packetcloud.host.proxy_programs import ExposeOrder

_translator = click.option(
    "--translator",
    type=NameType(SID),
    required=True,
    help="The SID of the translator service.",
)


@click.command()
@attached
@_translator
@click.option(
    "--listen",
    type=AddressType(),
    default="127.0.0.1:1080",
    show_default=True,
    help="Where programs find the proxy.",
)
@pass_output
def proxy(output: Output, attachment: Attachment, translator: SID, listen: tuple[str, int]) -> None:
    """Carry connections of curl, browsers and others to the IP network, until Ctrl-C.

    One port speaks SOCKS5, SOCKS4a and HTTP. Names are resolved by the translator.
    """
    from packetcloud.host.proxy_programs import run_proxy
    from packetcloud.host.session import InterruptedSessionError

    def ready(address: tuple[str, int]) -> None:
        where = _text(address)
        if not _is_loopback(address[0]):
            output.warn(f"whoever reaches {where} can use this proxy; it asks for no password")
        output.note(f"proxy for SOCKS5 and HTTP at {where}; for curl: -x socks5h://{where}")

    try:
        run(output, lambda reactor: run_proxy(reactor, attachment, translator, listen, ready))
    except InterruptedSessionError:
        output.note("stopped")


@click.command()
@attached
@_translator
@click.option(
    "--port",
    "ports",
    type=click.IntRange(1, 65535),
    required=True,
    multiple=True,
    help="The port of the translator. May be repeated, each with its --to.",
)
@click.option(
    "--to",
    "targets",
    type=AddressType(),
    required=True,
    multiple=True,
    help="The TCP service, as we reach it.",
)
@pass_output
def expose(
    output: Output,
    attachment: Attachment,
    translator: SID,
    ports: tuple[int, ...],
    targets: tuple[tuple[str, int], ...],
) -> None:
    """Let ports of the translator lead to TCP services of this host, until Ctrl-C.

    The translator's operator has to give the ports to this host's GUID. Proxies and further
    services with the same key run beside it.
    """
    from packetcloud.host.proxy_programs import ExposeOrder, run_expose
    from packetcloud.host.session import InterruptedSessionError

    if len(ports) != len(targets):
        text = f"{len(ports)} --port and {len(targets)} --to; allowed: one --to for each --port"
        raise click.UsageError(text)
    if len(set(ports)) < len(ports):
        raise click.BadParameter("a port is given twice", param_hint="--port")
    if not all(_is_address(host) for host, _ in targets):
        raise click.BadParameter("an IP address is needed before the port", param_hint="--to")

    def ready(order: ExposeOrder) -> None:
        output.note(f"port {order.port} of the translator leads to {_text(order.target)}")

    orders = [ExposeOrder(*one) for one in zip(ports, targets, strict=True)]
    try:
        run(output, lambda reactor: run_expose(reactor, attachment, translator, orders, ready))
    except InterruptedSessionError:
        output.note("stopped")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def _text(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
