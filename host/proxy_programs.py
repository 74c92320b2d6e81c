"""What `packetcloud host proxy|expose` do, as coroutines on a reactor.

Each serves until it is cancelled, over an endpoint of its own or over that of another program with
the same key, and leaves the router again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from packetcloud.chunk.identity import load_identity_file
from packetcloud.chunk.names import SID
from packetcloud.host.endpoint import CLOSE_FLUSH_S
from packetcloud.host.errors import HostError, MeetingPlaceError
from packetcloud.host.expose import Exposure
from packetcloud.host.meeting_place import Place, claim
from packetcloud.host.programs import Attachment
from packetcloud.host.proxy import Proxy, listening_socket
from packetcloud.host.proxy_link import TranslatorLink
from packetcloud.host.reactor import Reactor
from packetcloud.host.shared_session import (
    End,
    Part,
    SessionHolder,
    Standing,
    Tell,
    TellOf,
    join,
)

T = TypeVar("T")
JOIN_AGAIN_S = 0.1
MAX_TRIES_COUNT = 100
"""To join a holder that says nothing: it has just ended, or will never be one."""

_log = Logger(namespace="packetcloud.host")


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
    with listening_socket(*listen) as sock:
        name = sock.getsockname()
        where = str(name[0]), int(name[1])
        parts = [Part({**_terms(attachment, translator), "serve": "proxy"}, sock)]
        await _serve(reactor, attachment, translator, parts, lambda *_: on_ready(where))


async def run_expose(
    reactor: Reactor,
    attachment: Attachment,
    translator: SID,
    orders: Sequence[ExposeOrder],
    on_ready: Callable[[ExposeOrder], None],
) -> None:
    """Let the translator's ports lead to services of this host until cancelled.

    One that cannot be had now is asked for again; that is logged as a warning, once.

    Raises: what `Attachment.open` raises; HostError: the translator does not give us a port.
    """
    terms = {**_terms(attachment, translator), "serve": "expose"}
    parts = [Part({**terms, "port": one.port, "target": [*one.target]}) for one in orders]

    def told(number: int, standing: Standing, text: str) -> None:
        if standing is Standing.SERVED:
            on_ready(orders[number])
        else:
            _log.warn("{why}; it is asked for again every second", why=text)

    await _serve(reactor, attachment, translator, parts, told)


async def _serve(
    reactor: Reactor,
    attachment: Attachment,
    translator: SID,
    parts: Sequence[Part],
    tell: TellOf,
) -> None:
    """Have the parts served until cancelled: by ourselves, or by who holds the key's session.

    Where programs of the key cannot meet, that does not stop us.

    Args:
        tell: of parts that are served, or wait.

    Raises:
        HostError: one is refused.
    """
    guid = load_identity_file(attachment.key_file).guid

    def told(number: int, standing: Standing, text: str) -> None:
        if standing is Standing.REFUSED:
            raise HostError(text)
        tell(number, standing, text)

    why = "nobody answers there"
    tries_count = 0
    while tries_count < MAX_TRIES_COUNT:
        try:
            place = claim(guid)
            was_told = place is None and await _of_asyncio(join(guid, parts, told))
        except MeetingPlaceError as error:
            why = str(error)
            break
        if place is not None:
            with place:
                return await _hold(reactor, attachment, translator, place, parts, tell)
        tries_count = 0 if was_told else tries_count + 1
        await _of_asyncio(asyncio.sleep(JOIN_AGAIN_S))
    _log.warn(
        "programs of this key cannot meet ({why}): run no other one with it, or they end each "
        "other's session",
        why=why,
    )
    return await _hold(reactor, attachment, translator, None, parts, tell)


async def _hold(
    reactor: Reactor,
    attachment: Attachment,
    translator: SID,
    place: Place | None,
    parts: Sequence[Part],
    tell: TellOf,
) -> None:
    ended: Deferred[None] = Deferred()

    def told(number: int, standing: Standing, text: str) -> None:
        if standing is not Standing.REFUSED:
            tell(number, standing, text)
        elif not ended.called:
            ended.errback(HostError(text))

    endpoint = await attachment.open(reactor)
    link = TranslatorLink(endpoint, translator)
    served = ServedParts(link)
    holder = None
    if place is not None:
        holder = SessionHolder(place, _terms(attachment, translator), served.begin)
    try:
        for number, part in enumerate(parts):
            served.begin(part, partial(told, number))
        await ended
    finally:
        if holder is not None:
            holder.stop()
        served.close()
        link.close()
        try:
            await endpoint.close(flush_s=CLOSE_FLUSH_S)
        finally:
            if holder is not None:
                holder.close()  # the router has our last words: another one may go there


class ServedParts:
    """What is served over one link, for this program and for others."""

    def __init__(self, link: TranslatorLink) -> None:
        self._link = link
        self._parts: dict[int, Proxy | Exposure] = {}
        self._last = 0

    def begin(self, part: Part, tell: Tell) -> End:
        """Serve a part; what is returned ends that.

        Raises:
            HostError: it is none, or its port is served already.
        """
        self._last = number = self._last + 1
        match part.order:
            case {"serve": "proxy"} if part.sock is not None:
                proxy = self._parts[number] = Proxy(self._link)
                proxy.serve(part.sock)
                tell(Standing.SERVED, "")
            case {"serve": "expose", "port": int(port), "target": [str(host), int(own)]}:
                if self._link.has_port(port):
                    raise HostError(f"port {port} of the translator leads elsewhere already")
                exposure = self._parts[number] = Exposure(self._link, port, (host, own), tell)
                exposure.begin()
            case _:
                raise HostError("no order that this version knows")
        return partial(self._end, number)

    def close(self) -> None:
        for number in list(self._parts):
            self._end(number)

    def _end(self, number: int) -> None:
        part = self._parts.pop(number, None)
        if part is not None:
            part.close()


def _terms(attachment: Attachment, translator: SID) -> dict[str, str]:
    host, port = attachment.router
    guid = "" if attachment.router_guid is None else attachment.router_guid.hex
    return {"router": f"{host}:{port}", "translator": translator.hex, "router-guid": guid}


async def _of_asyncio(work: Coroutine[Any, Any, T]) -> T:
    """Await work of the other kind; who is cancelled as it ends is cancelled all the same."""
    task = asyncio.ensure_future(work)

    def cancel(ended: Deferred[bool]) -> None:
        task.cancel()
        ended.callback(False)

    def over(_: object) -> None:
        if not ended.called:
            ended.callback(True)

    ended: Deferred[bool] = Deferred(cancel)
    task.add_done_callback(over)
    if not await ended:
        await Deferred.fromFuture(asyncio.gather(task, return_exceptions=True))
        raise CancelledError
    return task.result()
