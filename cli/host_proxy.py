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
    "--port", type=click.IntRange(1, 65535), required=True, help="The port of the translator."
)
@click.option(
    "--to", "target", type=AddressType(), required=True, help="The TCP service, as we reach it."
)
@pass_output
def expose(
    output: Output,
    attachment: Attachment,
    translator: SID,
    port: int,
    target: tuple[str, int],
) -> None:
    """Let a port of the translator lead to a TCP service of this host, until Ctrl-C.

    The translator's operator has to give the port to this host's GUID.
    """
    from packetcloud.host.proxy_programs import ExposeOrder, run_expose
    from packetcloud.host.session import InterruptedSessionError

    if not _is_address(target[0]):
        raise click.BadParameter("an IP address is needed before the port", param_hint="--to")

    def ready(order: ExposeOrder) -> None:
        output.note(f"port {order.port} of the translator leads to {_text(order.target)}")

    orders = [ExposeOrder(port, target)]
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
