"""Ports at which the IP network reaches hosts: each belongs to one GUID, and is open while that
GUID claims it."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.names import GUID
from packetcloud.chunk.streams.tcp_listener import EXHAUSTED, TcpListener
from packetcloud.chunk.streams.wire import ResetCode
from packetcloud.services.errors import ServiceConfigError

BACKLOG_COUNT = 256
_PASSING = EXHAUSTED | {errno.EADDRINUSE}
"""Why a port cannot be opened now, and may be later."""

Arrived = Callable[[socket.socket, str, int], None]
"""Called with a connection, who it comes from, and our port."""


@dataclass(frozen=True, slots=True)
class PortOwner:
    """One entry of the parameter `listen`."""

    address: str
    port: int
    owner: GUID


class Listeners:
    """The ports of one translator."""

    def __init__(self, owners: tuple[PortOwner, ...], log: logging.Logger) -> None:
        self._owners = {one.port: one for one in owners}
        self._open: dict[int, _OpenPort] = {}
        self._failed: set[int] = set()
        """Ports of which it was logged that they cannot be opened now."""
        self._log = log
        self.paused_count = 0
        """How often connections had to wait for descriptors."""

    def claim(
        self, loop: AbstractEventLoop, port: int, source: GUID, claimant: object, arrived: Arrived
    ) -> tuple[ResetCode, str] | None:
        """Give `claimant` the connections of a port from now on; returns why not, or None.

        The last claim of the owner counts: a program that was restarted gets its port back.
        With `TOO_MANY` a later claim may be granted.
        """
        entry = self._owners.get(port)
        if entry is None or entry.owner != source:
            return ResetCode.NOT_ALLOWED, f"port {port} is not this host's"
        known = self._open.get(port)
        if known is not None:
            known.claimant, known.arrived = claimant, arrived
            return None
        try:
            sock = _listen(entry)
        except OSError as error:
            why = os.strerror(error.errno or 0)  # its own text has our address, too
            if port not in self._failed:  # once: claims are repeated
                self._failed.add(port)
                self._log.warning("cannot listen on %s:%d: %s", entry.address, port, why)
            is_for_now = error.errno in _PASSING
            code = ResetCode.TOO_MANY if is_for_now else ResetCode.NOT_ALLOWED
            return code, f"the translator cannot listen on port {port}: {why}"
        self._failed.discard(port)
        self._open[port] = _OpenPort(loop, sock, port, claimant, arrived, self._paused)
        return None

    def release(self, claimant: object) -> None:
        """Close the ports of who is gone: connections to them are refused."""
        for port, one in list(self._open.items()):
            if one.claimant is claimant:
                del self._open[port]
                one.close()

    def close(self) -> None:
        for one in self._open.values():
            one.close()
        self._open.clear()

    def _paused(self) -> None:
        self.paused_count += 1
        if self.paused_count == 1:
            self._log.warning("no descriptors are left: connections at ports wait for some")


class _OpenPort:
    """One listening socket."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        sock: socket.socket,
        port: int,
        claimant: object,
        arrived: Arrived,
        paused: Callable[[], None],
    ) -> None:
        self.claimant = claimant
        self.arrived = arrived
        self._port = port
        self._listener = TcpListener(loop, sock, self._accepted, paused)

    def close(self) -> None:
        self._listener.close()

    def _accepted(self, connection: socket.socket, address: tuple[str, int]) -> None:
        self.arrived(connection, str(address[0]), self._port)


def parse_owners(text: str) -> tuple[PortOwner, ...]:
    """Read the parameter `listen`: `PORT=GUID` or `ADDRESS:PORT=GUID`, by commas or blanks.

    Raises:
        ServiceConfigError: an entry is none, or a port is given twice.
    """
    owners: dict[int, PortOwner] = {}
    for word in text.replace(",", " ").split():
        where, _, guid = word.partition("=")
        address, _, port = where.rpartition(":")
        address = address.strip("[]") or "0.0.0.0"
        try:
            ipaddress.ip_address(address)
            entry = PortOwner(address, int(port), GUID.from_hex(guid))
        except (ValueError, ProtocolError) as error:
            raise ServiceConfigError(
                f"parameter listen: {word!r} is no entry; expected PORT=GUID or "
                "ADDRESS:PORT=GUID, the GUID of the host that the port belongs to"
            ) from error
        if not 1 <= entry.port <= 65535 or entry.port in owners:
            raise ServiceConfigError(
                f"parameter listen: port {entry.port} is given twice, or none from 1 to 65535"
            )
        owners[entry.port] = entry
    return tuple(owners.values())


def check_ports(owners: tuple[PortOwner, ...]) -> None:
    """See that the ports can be listened at.

    Raises:
        ServiceConfigError: one cannot.
    """
    for entry in owners:
        try:
            _listen(entry).close()
        except OSError as error:
            raise ServiceConfigError(
                f"parameter listen: cannot listen on {entry.address}:{entry.port}: {error.strerror}"
            ) from error


def _listen(entry: PortOwner) -> socket.socket:
    family = socket.AF_INET6 if ":" in entry.address else socket.AF_INET
    sock = socket.create_server((entry.address, entry.port), family=family, backlog=BACKLOG_COUNT)
    sock.setblocking(False)
    return sock
