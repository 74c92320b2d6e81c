"""From a name and a port to a connected socket, by the rules of egress."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from packetcloud.chunk.streams.tcp_end import connected_socket
from packetcloud.chunk.streams.wire import ResetCode
from packetcloud.services.translator.egress import Address, Egress
from packetcloud.services.translator.errors import RefusedConnectionError

MAX_RESOLVING_COUNT = 256
"""Names that are looked up or wait for it; a resolver that does not answer holds each for 10 s."""
MAX_RESOLVING_PER_SOURCE_COUNT = 64
"""Of one host: more than a browser asks for at once; none fills the line alone."""
RESOLVER_THREADS_COUNT = 8
THREADS_PER_SOURCE_COUNT = 4
"""One host whose names nobody answers for leaves half of the threads to others."""
MAX_ADDRESSES_COUNT = 4
"""Of one name, tried one after the other."""

_NO_THREAD = "the translator has no thread to look names up"

Resolve = Callable[[str, int, bytes], Awaitable[list[str]]]
"""Called with a name, a port, and the GUID of who asks."""

_CODES = {
    errno.ECONNREFUSED: ResetCode.CONNECTION_REFUSED,
    errno.ENETUNREACH: ResetCode.NETWORK_UNREACHABLE,
    errno.ENETDOWN: ResetCode.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: ResetCode.HOST_UNREACHABLE,
    errno.EHOSTDOWN: ResetCode.HOST_UNREACHABLE,
    errno.EADDRNOTAVAIL: ResetCode.NETWORK_UNREACHABLE,
    errno.EAFNOSUPPORT: ResetCode.NETWORK_UNREACHABLE,
    errno.ETIMEDOUT: ResetCode.TIMED_OUT,
    errno.EMFILE: ResetCode.TOO_MANY,
    errno.ENFILE: ResetCode.TOO_MANY,
}


class _Share:
    """What one host has looked up now."""

    __slots__ = ("count", "turns")

    def __init__(self) -> None:
        self.count = 0
        self.turns = asyncio.Semaphore(THREADS_PER_SOURCE_COUNT)


class Resolver:
    """Looks names up in a few threads: the system's resolver blocks."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(RESOLVER_THREADS_COUNT, "resolve")
        self._waiting_count = 0
        self._shares: dict[bytes, _Share] = {}
        self.refused_count = 0

    async def __call__(self, name: str, port: int, source: bytes) -> list[str]:
        """Return the addresses of a name, in the system's order.

        Raises:
            RefusedConnectionError: it has none, or too many are asked for at once.
        """
        share = self._enter(source)
        try:
            await share.turns.acquire()
        except BaseException:  # the wait was given up
            self._leave(source)
            raise
        try:
            asked = self._pool.submit(socket.getaddrinfo, name, port, type=socket.SOCK_STREAM)
        except RuntimeError:  # `limits.processes` is used up: the pool starts threads when needed
            self._answered(source)
            self.refused_count += 1
            raise RefusedConnectionError(ResetCode.TOO_MANY, _NO_THREAD) from None
        loop = asyncio.get_running_loop()
        # Not when the wait is given up: a thread is busy until the resolver has answered.
        asked.add_done_callback(partial(_tell, loop, partial(self._answered, source)))
        try:
            found = await asyncio.wrap_future(asked)
        except (OSError, UnicodeError) as error:
            text = getattr(error, "strerror", None) or "no name that can be looked up"
            raise RefusedConnectionError(ResetCode.NAME_UNKNOWN, f"{name}: {text}") from None
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _enter(self, source: bytes) -> _Share:
        share = self._shares.get(source)
        own_count = share.count if share is not None else 0
        is_full = self._waiting_count >= MAX_RESOLVING_COUNT
        if is_full or own_count >= MAX_RESOLVING_PER_SOURCE_COUNT:
            self.refused_count += 1
            raise RefusedConnectionError(ResetCode.TOO_MANY, "too many names are looked up now")
        if share is None:
            share = self._shares[source] = _Share()
        share.count += 1
        self._waiting_count += 1
        return share

    def _answered(self, source: bytes) -> None:
        self._shares[source].turns.release()
        self._leave(source)

    def _leave(self, source: bytes) -> None:
        self._waiting_count -= 1
        self._shares[source].count -= 1
        if not self._shares[source].count:
            del self._shares[source]


class Connector:
    """Opens TCP connections.

    Args:
        timeout_s: for looking up and connecting together.
    """

    def __init__(self, egress: Egress, resolve: Resolve, timeout_s: float) -> None:
        self._egress = egress
        self._resolve = resolve
        self._timeout_s = timeout_s

    async def connect(self, name: str, port: int, source: bytes) -> socket.socket:
        """Return a connected socket.

        Args:
            source: the GUID of who asks for it.

        Raises:
            RefusedConnectionError: it may not be reached, or cannot be.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._connect(name, port, source)
        except TimeoutError:
            text = f"{name}:{port} did not answer within {self._timeout_s:g} s"
            raise RefusedConnectionError(ResetCode.TIMED_OUT, text) from None

    async def _connect(self, name: str, port: int, source: bytes) -> socket.socket:
        addresses = await self._addresses(name, port, source)
        try:
            allowed = [one for one in addresses if self._may_connect(name, one, port)]
        except OSError as error:  # no descriptor is left to find out with
            code = _CODES.get(error.errno or 0, ResetCode.HOST_UNREACHABLE)
            raise RefusedConnectionError(code, f"{name}:{port}: {error.strerror}") from None
        if not allowed:
            # Which address it was is not said: what is private stays so.
            text = f"the translator may not connect to {name}:{port}"
            raise RefusedConnectionError(ResetCode.NOT_ALLOWED, text)
        loop = asyncio.get_running_loop()
        failure = OSError(errno.EHOSTUNREACH, "no address")
        for number, address in enumerate(allowed[:MAX_ADDRESSES_COUNT], 1):
            share_s = self._timeout_s / min(len(allowed), MAX_ADDRESSES_COUNT)
            is_last = number == min(len(allowed), MAX_ADDRESSES_COUNT)
            try:
                async with asyncio.timeout(None if is_last else share_s):
                    return await connected_socket(loop, str(address), port)
            except TimeoutError:
                failure = OSError(errno.ETIMEDOUT, "no answer")
            except OSError as error:
                failure = error
        code = _CODES.get(failure.errno or 0, ResetCode.HOST_UNREACHABLE)
        raise RefusedConnectionError(code, f"{name}:{port}: {failure.strerror or failure}")

    async def _addresses(self, name: str, port: int, source: bytes) -> list[Address]:
        with suppress(ValueError):
            return [ipaddress.ip_address(name.strip("[]").partition("%")[0])]
        return [
            ipaddress.ip_address(found.partition("%")[0])
            for found in await self._resolve(name, port, source)
        ]

    def _may_connect(self, name: str, address: Address, port: int) -> bool:
        if not self._egress.may_connect(name, address, port):
            return False
        return self._egress.opens(address, port) or not _is_own(address)


def _is_own(address: Address) -> bool:
    """Tell whether an address is this machine's own; nothing is sent for it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
            own = ipaddress.ip_address(probe.getsockname()[0])
        except OSError:
            return False
    return own == address


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], None], _: object) -> None:
    with suppress(RuntimeError):  # the loop was closed: nobody counts any more
        loop.call_soon_threadsafe(call)
