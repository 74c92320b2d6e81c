"""The hop node as a part of the daemon: it listens, and keeps calling neighbour routers."""

from __future__ import annotations

import logging
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred

from packetcloud.chunk.hop.udp import HopConnectError, HopNode
from packetcloud.chunk.names import GUID
from packetcloud.router.config import split_address
from packetcloud.router.errors import RouterConfigError
from packetcloud.router.redial import Redial

REDIAL_CHECK_S = 0.2
_log = logging.getLogger("packetcloud.router")


class HopService(Service):
    """The hop node: listens, and keeps calling the neighbours that have an address."""

    def __init__(self, reactor: Any, node: HopNode, listen: str, redial: Redial) -> None:
        self.node = node
        self.address: tuple[str, int] | None = None
        self.redial = redial
        self._reactor = reactor
        self._listen = listen
        self._call: Any = None

    def startService(self) -> None:
        """Bind the port.

        Raises:
            RouterConfigError: it cannot be bound.
        """
        try:
            self.address = self.node.listen(*split_address(self._listen))
        except OSError as error:
            raise RouterConfigError(
                f"[router] listen = {self._listen!r}: {error.strerror or error}; "
                "allowed: a free UDP port of this machine"
            ) from None
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's
        self._check()

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's
        if self._call is not None and self._call.active():
            self._call.cancel()
        return ensureDeferred(self.node.close())

    def _check(self) -> None:
        up = {neighbour.guid for neighbour in self.node.neighbours if neighbour.is_up}
        for target in self.redial.due(up, self._reactor.seconds()):
            ensureDeferred(self._dial(target.guid, target.address))
        self._call = self._reactor.callLater(REDIAL_CHECK_S, self._check)

    async def _dial(self, guid: GUID, address: tuple[str, int]) -> None:
        try:
            await self.node.connect(address, guid)
        except Exception as error:  # whatever it was, the neighbour must be called again
            if self.redial.failed(guid, self._reactor.seconds()):
                expected = isinstance(error, HopConnectError)
                text = "neighbour %s: %s; trying on"
                _log.warning(text, guid.short, error, exc_info=None if expected else error)
        else:
            _log.info("neighbour %s at %s:%d is up", guid.short, *address)
            self.redial.succeeded(guid, self._reactor.seconds())
