"""Plain HTTP requests of one client through the proxy, one after the other, with keep-alive.

Two h11 connections, back to back: we are the server of the client and the client of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import h11

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.streams.tcp_end import TcpSocket
from packetcloud.chunk.streams.wire import Buffer, ResetCode
from packetcloud.host.proxy_http import (
    HttpProxyError,
    error_page,
    forwarded_headers,
    request_headers,
    response_headers,
    split_target,
)
from packetcloud.host.proxy_link import TranslatorLink

MAX_HEAD_BYTES = 64 << 10
READ_BYTES = 64 << 10
"""Of a client's body, at a time."""
KEEP_ALIVE_S = 60.0
"""A client that asks nothing for so long is closed."""

_AT_REST = (h11.IDLE, h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
"""A server in these states has had all that we wanted to say to it."""


class HttpExchange:
    """The requests of one client connection.

    Args:
        over: called once, when the connection is closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tcp: TcpSocket,
        link: TranslatorLink,
        over: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._tcp = tcp
        self._link = link
        self._over = over
        self._client = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._server: h11.Connection | None = None
        self._where: tuple[str, int] | None = None
        self._stream = 0
        self._is_open = False
        self._has_server_ended = False
        self._has_answered = False
        """Part of the present response has gone to the client."""
        self._unsent = b""
        """For the server, until the stream has room."""
        self._unconsumed = 0
        """Bytes of the server that it was not told are taken."""
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None
        tcp.owner = self

    def begin(self, head: bytes) -> None:
        """Take what was read of the client so far."""
        self.came(head)
        self._tcp.resume()

    def close(self) -> None:
        """Reset both sides. Harmless when repeated."""
        self._leave()
        self._tcp.abort()

    # the client's socket

    def room(self) -> int:
        if self._unsent or self._client.their_state not in (h11.IDLE, h11.SEND_BODY):
            return 0
        return READ_BYTES

    def came(self, data: bytes) -> None:
        self._client.receive_data(data)
        self._hear_client()

    def came_end(self) -> None:
        self._client.receive_data(b"")
        self._hear_client()

    def sent(self, count: int) -> None:
        self._consume()
        self._await_request()

    def broke(self, why: str) -> None:
        self._leave()

    # the stream to the server

    def opened(self) -> None:
        self._is_open = True
        self._flush()

    def received(self, pieces: Sequence[Buffer]) -> None:
        stream, server = self._stream, self._server
        assert server is not None, "it has a stream"
        for piece in pieces:
            if self._server is not server:
                break  # what came before was the last that it was wanted for
            if server.our_state is h11.IDLE:
                self._drop_server()  # nobody asked for anything
                break
            server.receive_data(bytes(piece))
            self._hear_server()
        count = sum(len(piece) for piece in pieces)
        if self._server is server:
            self._unconsumed += count
            self._consume()
        else:
            self._link.consume(stream, count)
            self._link.pump_soon()

    def ended(self) -> None:
        self._has_server_ended = True
        if self._server is not None:
            self._server.receive_data(b"")
            self._hear_server()
        if self._stream:
            self._drop_server()

    def writable(self) -> None:
        self._flush()

    def failed(self, code: ResetCode, text: str) -> None:
        self._stream, self._server, self._is_open = 0, None, False
        if self._client.our_state is h11.IDLE:
            return  # between two requests: the next one gets a connection of its own
        if self._has_answered:
            self.close()  # what came is not all: the client must not take it for that
        else:
            self._refuse(error_page(code, text))

    def done(self) -> None:
        self._stream, self._server, self._is_open = 0, None, False

    # inside

    def _hear_client(self) -> None:
        while not self._is_over:
            try:
                event = self._client.next_event()
                if isinstance(event, h11.Request):
                    self._ask(event)
                elif isinstance(event, h11.Data):
                    self._to_server(event)
                elif isinstance(event, h11.EndOfMessage):
                    self._to_server(h11.EndOfMessage())
                elif isinstance(event, h11.ConnectionClosed):
                    if self._client.our_state is h11.MUST_CLOSE:
                        self._end()  # else an answer is on its way
                    break
                else:
                    break
            except HttpProxyError as error:
                self._refuse(error.page())
            except h11.RemoteProtocolError as error:
                self._refuse(HttpProxyError(400, f"no HTTP request: {error}").page())
        if not self._is_over:
            self._tcp.resume()

    def _ask(self, request: h11.Request) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if request.method == b"CONNECT":
            raise HttpProxyError(400, "CONNECT must be the first request of a connection")
        host, port, target = split_target(request)
        self._has_answered = False
        if self._where != (host, port) or self._server is None or not self._can_be_used_again():
            self._connect(host, port)
        if self._is_over:
            return
        self._to_server(
            h11.Request(method=request.method, target=target, headers=request_headers(request))
        )

    def _can_be_used_again(self) -> bool:
        server = self._server
        return server is not None and server.our_state is h11.IDLE

    def _connect(self, host: str, port: int) -> None:
        self._drop_server()
        try:
            self._stream = self._link.open(host, port, self)
        except LocalMisuseError as error:
            self._refuse(error_page(ResetCode.TOO_MANY, str(error)))
            return
        self._where, self._is_open, self._has_server_ended = (host, port), False, False
        self._server = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)

    def _to_server(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        if self._server is None or self._server.our_state is h11.MUST_CLOSE:
            return  # it has answered and gone before the request was whole
        try:
            self._unsent += self._server.send(event) or b""
        except h11.LocalProtocolError as error:
            raise HttpProxyError(400, f"a request that cannot be sent on: {error}") from None
        self._flush()

    def _flush(self) -> None:
        if not self._is_open:
            return
        count = min(len(self._unsent), self._link.room(self._stream))
        if count:
            self._link.put(self._stream, self._unsent[:count])
            self._unsent = self._unsent[count:]
            self._link.pump_soon()
        if not self._unsent:
            self._tcp.resume()

    def _hear_server(self) -> None:
        while self._server is not None and not self._is_over:
            try:
                event = self._server.next_event()
            except h11.RemoteProtocolError as error:
                self._drop_server()
                self.failed(ResetCode.PROTOCOL_ERROR, f"the server speaks no HTTP: {error}")
                return
            if isinstance(event, h11.InformationalResponse):
                self._to_client(self._informational(event))
            elif isinstance(event, h11.Response):
                self._to_client(self._response(event))
            elif isinstance(event, h11.Data):
                self._to_client(h11.Data(data=event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._to_client(h11.EndOfMessage())
                self._next_cycle()
            elif isinstance(event, h11.ConnectionClosed):
                self._drop_server()
            else:
                return

    def _informational(self, event: h11.InformationalResponse) -> h11.InformationalResponse:
        return h11.InformationalResponse(
            status_code=event.status_code,
            headers=forwarded_headers(event.headers),
            reason=event.reason,
        )

    def _response(self, event: h11.Response) -> h11.Response:
        return h11.Response(
            status_code=event.status_code,
            headers=response_headers(event.headers),
            reason=event.reason,
        )

    def _to_client(self, event: h11.Event) -> None:
        self._has_answered = True
        pieces = self._client.send_with_data_passthrough(event)
        if pieces:
            self._tcp.write(pieces)

    def _next_cycle(self) -> None:
        """A response is whole: wait for the next request, or close."""
        server, client = self._server, self._client
        is_done = server is not None and server.our_state is server.their_state is h11.DONE
        # What follows an answer unasked must not be taken for the next one.
        if is_done and server is not None and not server.trailing_data[0]:
            server.start_next_cycle()
        else:
            self._drop_server()
        if client.our_state is client.their_state is h11.DONE:
            client.start_next_cycle()
            self._has_answered = False
            self._await_request()
            self._loop.call_soon(self._hear_client)
        else:
            self._end()

    def _await_request(self) -> None:
        """Once all is written, close when nothing is asked for a while."""
        is_idle = not self._is_over and self._client.our_state is h11.IDLE
        if is_idle and self._timer is None and not self._tcp.has_unwritten:
            self._timer = self._loop.call_later(KEEP_ALIVE_S, self._end)

    def _end(self) -> None:
        """Close once everything is written."""
        self._leave()
        self._tcp.close_when_written()

    def _consume(self) -> None:
        """Let the server send as much as the client has taken.

        What is unwritten has at least what of the bytes of the server lies here.
        """
        count = self._unconsumed - self._tcp.unwritten_bytes
        if self._stream and count > 0:
            self._unconsumed -= count
            self._link.consume(self._stream, count)
            self._link.pump_soon()

    def _drop_server(self) -> None:
        """Give up the connection to the server, if there is one."""
        stream, self._stream = self._stream, 0
        server, self._server = self._server, None
        count, self._unconsumed = self._unconsumed, 0
        is_over = server is not None and server.our_state in _AT_REST and not self._unsent
        self._is_open, self._unsent = False, b""
        if not stream:
            return
        if is_over and self._has_server_ended:
            self._link.let_go(stream)
            self._link.consume(stream, count)
        else:
            self._link.reset(stream, ResetCode.ABORTED, "not needed any more")
        self._link.pump_soon()

    def _refuse(self, page: bytes) -> None:
        """Answer with a page of ours, and close once it is written."""
        if self._has_answered:
            self.close()  # a page has no place in the midst of an answer
            return
        self._leave()
        self._tcp.write([page])
        self._tcp.close_when_written()

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._drop_server()
        if not self._is_over:
            self._is_over = True
            self._over()
