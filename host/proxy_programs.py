"""What `packetcloud host proxy|expose` do, as coroutines on a reactor.

Each opens an endpoint, serves until it is cancelled, and leaves the router again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from twisted.internet.defer import Deferred

from packetcloud.chunk.names import SID
from packetcloud.host.errors import HostError
from packetcloud.host.expose import Exposure
from packetcloud.host.programs import Attachment
from packetcloud.host.proxy import Proxy
from packetcloud.host.proxy_link import TranslatorLink
from packetcloud.host.reactor import Reactor


@dataclass(frozen=True, slots=True)
class ExposeOrder:
    """One service to expose."""

    port: int
    """Of the translator."""
    target: tuple[str, int]


async def run_proxy(
    reactor: Reactor,
    attachment: Attachment,
    translator: SID,
    listen: tuple[str, int],
    on_ready: Callable[[tuple[str, int]], None],
) -> None:
    """Serve SOCKS and HTTP clients at `listen` until cancelled.

    Raises: what `Attachment.open` raises; HostError: nobody can listen there.
    """
    endpoint = await attachment.open(reactor)
    try:
        link = TranslatorLink(endpoint, translator)
        proxy = Proxy(link)
        try:
            on_ready(proxy.listen(*listen))
            await _for_ever()
        finally:
            proxy.close()
            link.close()
    finally:
        await endpoint.close()


async def run_expose(
    reactor: Reactor,
    attachment: Attachment,
    translator: SID,
    orders: Sequence[ExposeOrder],
    on_ready: Callable[[ExposeOrder], None],
) -> None:
    """Let the translator's ports lead to services of this host until cancelled.

    Raises: what `Attachment.open` raises; HostError: the translator does not give us a port.
    """
    endpoint = await attachment.open(reactor)
    ended: Deferred[None] = Deferred()

    def lost(text: str) -> None:
        if not ended.called:
            ended.errback(HostError(f"the translator refuses: {text}"))

    try:
        link = TranslatorLink(endpoint, translator)
        exposures = []
        try:
            for order in orders:
                exposure = Exposure(link, order.target, partial(_ready, on_ready, order), lost)
                exposures.append(exposure)
                link.listen(order.port, exposure)
            await ended
        finally:
            for exposure in exposures:
                exposure.close()
            link.close()
    finally:
        await endpoint.close()


def _ready(on_ready: Callable[[ExposeOrder], None], order: ExposeOrder, _port: int) -> None:
    on_ready(order)


async def _for_ever() -> None:
    waiting: Deferred[None] = Deferred()
    await waiting
