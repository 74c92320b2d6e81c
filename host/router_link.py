"""The session with the router: found at the start, and again with back-off whenever it is lost."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.hop.api import (
    AdmitNeighbour,
    HopConfig,
    HopReceiver,
    Neighbour,
    Role,
)
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID
from packetcloud.host.errors import HostError, RouterUnreachableError
from packetcloud.host.reactor import DelayedCall, Reactor

RECONNECT_FIRST_S = 0.2
RECONNECT_CAP_S = 5.0
"""A router that comes back is found within 5 s; a dead one costs one handshake per 5 s."""
_log = Logger(namespace="packetcloud.host")


class HopNode(Protocol):
    """The part of `chunk.hop.udp.HopNode` that a host uses."""

    def listen(self, host: str, port: int) -> tuple[str, int]: ...

    def connect(self, address: tuple[str, int], expected: GUID | None) -> Any: ...

    def close(self) -> Any: ...

    def stats(self) -> dict[str, int]: ...


NodeFactory = Callable[
    [Reactor, Identity, Role, HopConfig, HopReceiver, AdmitNeighbour | None], HopNode
]


class RouterLink:
    """Keeps one neighbour, the router, up. `on_up` and `on_down` tell the layer above.

    `random_share` returns a number in [0, 1): hosts that lost one router do not return in step.
    """

    def __init__(
        self,
        reactor: Reactor,
        node: HopNode,
        router: tuple[str, int],
        router_guid: GUID | None,
        on_up: Callable[[], None],
        on_down: Callable[[], None],
        random_share: Callable[[], float],
    ) -> None:
        self.neighbour: Neighbour | None = None
        self.counters: Counter[str] = Counter()
        self._reactor = reactor
        self._node = node
        self._router = router
        self._router_guid = router_guid
        self._on_up = on_up
        self._on_down = on_down
        self._random_share = random_share
        self._address = router
        self._retry_call: DelayedCall | None = None
        self._retry_s = RECONNECT_FIRST_S
        self._is_closing = False

    async def open(self) -> None:
        """Find the router for the first time.

        Raises:
            RouterUnreachableError: no answer, no router, another router, or it refuses us.
        """
        try:
            self._address = await self._resolve()
            self._node.listen(_bind_address(self._address[0]), 0)
            neighbour = await self._node.connect(self._address, self._router_guid)
            if neighbour.role is not Role.ROUTER:
                raise HostError(f"it says it is a {neighbour.role.name.lower()}, not a router")
        except (PacketCloudError, OSError) as error:
            host, port = self._router
            raise RouterUnreachableError(
                f"no session with the router at {host}:{port}: {error}. Is it running there "
                "(packetcloud router status), and is UDP to that port let through?"
            ) from error

    async def close(self) -> None:
        """Leave the router and stop looking for it."""
        self._is_closing = True
        if self._retry_call is not None:
            self._retry_call.cancel()
            self._retry_call = None
        await self._node.close()

    def neighbour_up(self, neighbour: Neighbour) -> None:
        """The hop node has a session."""
        if neighbour.role is not Role.ROUTER or self._is_closing:
            neighbour.close("a host talks to a router only")
            return
        before, self.neighbour = self.neighbour, neighbour
        if before is not None:
            before.close("replaced by a newer session")
            self._on_down()
        self._retry_s = RECONNECT_FIRST_S
        self.counters["sessions_total"] += 1
        self._on_up()

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        """The hop node lost a session."""
        if neighbour is not self.neighbour:
            return
        self.neighbour = None
        self._on_down()
        if not self._is_closing:
            _log.warn(
                "lost the router at {host}:{port} ({reason}); connecting again",
                host=self._router[0],
                port=self._router[1],
                reason=reason or "no reason given",
            )
            self._connect_again()

    async def _resolve(self) -> tuple[str, int]:
        host, port = self._router
        try:
            return str(ipaddress.ip_address(host)), port
        except ValueError:
            pool = self._reactor.getThreadPool()
        reactor: Any = self._reactor
        try:
            found = await deferToThreadPool(
                reactor, pool, socket.getaddrinfo, host, port, 0, socket.SOCK_DGRAM
            )
        except OSError as error:
            raise HostError(f"the name {host!r} does not resolve ({error.strerror})") from error
        return str(found[0][4][0]), port

    def _connect_again(self) -> None:
        if self._is_closing or self._retry_call is not None:
            return
        delay_s = self._retry_s * (0.75 + self._random_share() / 2)
        self._retry_s = min(RECONNECT_CAP_S, self._retry_s * 2)
        self._retry_call = self._reactor.callLater(delay_s, self._retry)

    def _retry(self) -> None:
        self._retry_call = None
        if self.neighbour is not None:
            return
        self.counters["reconnects_tried_total"] += 1
        Deferred.fromCoroutine(self._connect_once())

    async def _connect_once(self) -> None:
        try:
            neighbour = await self._node.connect(self._address, self._router_guid)
        except (PacketCloudError, OSError) as error:
            _log.debug("the router is still away: {error}", error=str(error))
            self._connect_again()
            return
        # `neighbour_up` may come just before or just after this, and `neighbour_down` any time.
        if not neighbour.is_up and self.neighbour is None:
            self._connect_again()


def udp_node(
    reactor: Reactor,
    identity: Identity,
    role: Role,
    config: HopConfig,
    receiver: HopReceiver,
    admit: AdmitNeighbour | None,
) -> HopNode:
    """Make the real hop node: UDP on this reactor."""
    from packetcloud.chunk.hop.udp import HopNode as UdpHopNode

    return UdpHopNode(reactor, identity, role, config, receiver, admit)


def admit_nobody(guid: GUID, role: Role, instance: int) -> str | None:
    """Refuse whoever connects to a host."""
    return "a host takes no neighbours"


def _bind_address(router: str) -> str:
    address = ipaddress.ip_address(router)
    if address.is_loopback:
        return str(address) if address.version == 6 else "127.0.0.1"
    return "0.0.0.0" if address.version == 4 else "::"
