"""The listener of `packetcloud host proxy`: SOCKS and HTTP on one port, told apart by a byte.

Each connection begins as a `ProxyConnection`, which finds out what its client speaks; a tunnel then
is a `TcpEnd`, and plain HTTP requests are an `HttpExchange`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence

from twisted.logger import Logger

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.streams.tcp_end import TcpEnd, TcpSocket
from packetcloud.chunk.streams.tcp_listener import TcpListener
from packetcloud.chunk.streams.wire import Buffer, ResetCode
from packetcloud.host.errors import HostError
from packetcloud.host.proxy_exchange import HttpExchange
from packetcloud.host.proxy_http import HttpProxyError, error_page, read_tunnel_request
from packetcloud.host.proxy_link import TranslatorLink
from packetcloud.host.proxy_socks import SocksConversation, SocksRefusedError

MAX_CLIENTS_COUNT = 1024
"""Connections of programs on this machine; a translator takes 512 of one host by default."""
HEAD_TIMEOUT_S = 30.0
"""For a client to say what it wants."""
MAX_HEAD_BYTES = 64 << 10
"""Of a request, before it is known where it goes."""
BACKLOG_COUNT = 512
_SOCKS_VERSIONS = (4, 5)

_log = Logger(namespace="packetcloud.host")


class Proxy:
    """Takes connections of programs and carries them through a translator."""

    def __init__(self, link: TranslatorLink, max_clients_count: int = MAX_CLIENTS_COUNT) -> None:
        self.link = link
        self._max_clients_count = max_clients_count
        self.counts: Counter[str] = Counter()
        self.loop = asyncio.get_running_loop()
        self._listener: TcpListener | None = None
        self._clients: set[ProxyConnection] = set()

    @property
    def clients_count(self) -> int:
        return len(self._clients)

    def serve(self, sock: socket.socket) -> None:
        """Take the connections of a socket from `listening_socket`, until `close`."""
        self._listener = TcpListener(self.loop, sock, self._accepted, self._paused)

    def close(self) -> None:
        """Take no more connections, and reset those that there are."""
        if self._listener is not None:
            self._listener.close()
        for client in list(self._clients):
            client.abort()

    def left(self, client: ProxyConnection) -> None:
        self._clients.discard(client)

    def _accepted(self, connection: socket.socket, _address: object) -> None:
        self.take(connection)

    def _paused(self) -> None:
        self.counts["accepts_paused"] += 1
        if self.counts["accepts_paused"] == 1:
            _log.warn("no descriptors are left: clients wait for some")

    def take(self, connection: socket.socket) -> None:
        """Serve a connection, or close it when there are too many."""
        if len(self._clients) >= self._max_clients_count:
            self.counts["clients_refused"] += 1
            connection.close()
            return
        self.counts["clients"] += 1
        self._clients.add(ProxyConnection(self, TcpSocket(self.loop, connection)))


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        HostError: nobody can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG_COUNT)
    except OSError as error:
        text = error.strerror or str(error)
        raise HostError(f"cannot listen on {host}:{port}: {text}") from None
    sock.setblocking(False)
    return sock


class ProxyConnection:
    """One client: what it wants, then what it is connected to.

    It owns the socket until a tunnel or an exchange does, and stays the owner of the stream.
    """

    def __init__(self, proxy: Proxy, tcp: TcpSocket) -> None:
        self._proxy = proxy
        self._link = proxy.link
        self._tcp = tcp
        self._socks: SocksConversation | None = None
        self._head = b""
        self._stream = 0
        self._end: TcpEnd | None = None
        self._exchange: HttpExchange | None = None
        self._is_answered = False
        self._timer = proxy.loop.call_later(HEAD_TIMEOUT_S, self.abort)
        tcp.owner = self
        tcp.resume()

    def abort(self) -> None:
        """Reset the client's connection and whatever it is connected to."""
        self._timer.cancel()
        if self._exchange is not None:
            self._exchange.close()
        if self._stream:
            self._link.reset(self._stream, ResetCode.ABORTED, "the client is gone")
            self._link.pump_soon()
        self._tcp.abort()
        self._proxy.left(self)

    # the socket, until somebody else owns it

    def room(self) -> int:
        return 0 if self._stream else MAX_HEAD_BYTES - len(self._head) + 1

    def came(self, data: bytes) -> None:
        self._head += data
        if self._head[0] in _SOCKS_VERSIONS:
            self._hear_socks(data)
        else:
            self._hear_http()

    def came_end(self) -> None:
        if not self._stream:
            self.abort()
        # A client that only half-closed, before it was connected: its end is read again later.

    def sent(self, count: int) -> None:
        pass  # replies of ours

    def broke(self, why: str) -> None:
        self.abort()

    # the stream of a tunnel

    def opened(self) -> None:
        self._timer.cancel()
        assert self._end is None, "a stream opens once"
        reply = b"HTTP/1.1 200 Connection established\r\n\r\n"
        if self._socks is not None:
            reply = self._socks.connected()
        self._is_answered = True
        self._tcp.write([reply])
        self._end = TcpEnd(
            self._tcp, self._link, self._stream, self._link.pump_soon, self._head, self._gone
        )
        self._end.writable()

    def received(self, pieces: Sequence[Buffer]) -> None:
        if self._end is not None:
            self._end.received(pieces)

    def ended(self) -> None:
        if self._end is not None:
            self._end.ended()

    def writable(self) -> None:
        if self._end is not None:
            self._end.writable()

    def failed(self, code: ResetCode, text: str) -> None:
        self._proxy.counts[f"failed_{code.name.lower()}"] += 1
        self._stream = 0
        if self._is_answered:
            self.abort()
        elif self._socks is not None:
            self._refuse(self._socks.failed(code))
        else:
            self._refuse(error_page(code, text))

    def done(self) -> None:
        self._proxy.counts["done"] += 1
        self._tcp.close_when_written()
        self._proxy.left(self)

    # inside

    def _gone(self) -> None:
        self._proxy.left(self)

    def _hear_socks(self, data: bytes) -> None:
        if self._socks is None:
            self._socks = SocksConversation()
        try:
            reply, request = self._socks.receive(data)
        except SocksRefusedError as error:
            self._proxy.counts["socks_refused"] += 1
            self._refuse(error.reply)
            return
        if reply:
            self._tcp.write([reply])
        if request is not None:
            self._head = request.rest
            self._open(request.host, request.port)

    def _hear_http(self) -> None:
        try:
            request = read_tunnel_request(self._head)
            if request is None:
                if len(self._head) > MAX_HEAD_BYTES:
                    raise HttpProxyError(431, "the request's head does not end")
                return
        except HttpProxyError as error:
            self._proxy.counts["http_refused"] += 1
            self._refuse(error.page())
            return
        if request.is_tunnel:
            self._head = request.rest
            self._open(request.host, request.port)
            return
        self._timer.cancel()
        self._exchange = HttpExchange(self._proxy.loop, self._tcp, self._link, self._exchange_over)
        self._exchange.begin(self._head)

    def _exchange_over(self) -> None:
        self._proxy.counts["exchanges"] += 1
        self._proxy.left(self)

    def _open(self, host: str, port: int) -> None:
        self._tcp.pause()
        try:
            self._stream = self._link.open(host, port, self)
        except LocalMisuseError as error:
            self.failed(ResetCode.TOO_MANY, str(error))

    def _refuse(self, reply: bytes) -> None:
        """Say no, and close once that is said."""
        self._timer.cancel()
        self._is_answered = True
        self._tcp.write([reply])
        self._tcp.close_when_written()
        self._proxy.left(self)
