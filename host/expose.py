"""`packetcloud host expose`: a TCP service of this host, reached through a port of a translator."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence

from packetcloud.chunk.streams.tcp_end import TcpEnd, TcpSocket, connected_socket
from packetcloud.chunk.streams.wire import Buffer, ResetCode
from packetcloud.host.proxy_link import TranslatorLink
from packetcloud.host.shared_session import Standing, Tell

MAX_CALLS_COUNT = 512
"""Connections from outside at a time."""
CONNECT_TIMEOUT_S = 10.0


class Exposure:
    """One port of a translator, and the TCP service of this host that it leads to.

    Args:
        port: of the translator.
        tell: called whenever the translator has given us the port, and when it has not.
    """

    def __init__(
        self,
        link: TranslatorLink,
        port: int,
        target: tuple[str, int],
        tell: Tell,
    ) -> None:
        self.link = link
        self.port = port
        self.target = target
        self.counts: Counter[str] = Counter()
        self.loop = asyncio.get_running_loop()
        self._tell = tell
        self._calls: set[_ExposedCall] = set()

    def begin(self) -> None:
        """Ask for the port."""
        self.link.listen(self.port, self)

    def close(self) -> None:
        """Take no more connections, and reset those that there are."""
        self.link.unlisten(self.port, self)
        for call in list(self._calls):
            call.abort()

    def left(self, call: _ExposedCall) -> None:
        self._calls.discard(call)

    # of the link's ports

    def listening(self, port: int) -> None:
        self._tell(Standing.SERVED, "")

    def busy(self, port: int, text: str) -> None:
        self._tell(Standing.WAITING, text)

    def refused(self, port: int, text: str) -> None:
        self._tell(Standing.REFUSED, f"the translator refuses: {text}")

    def called(self, stream: int, host: str, port: int) -> _ExposedCall | None:
        if len(self._calls) >= MAX_CALLS_COUNT:
            self.counts["calls_refused"] += 1
            return None
        self.counts["calls"] += 1
        call = _ExposedCall(self, stream)
        self._calls.add(call)
        return call


class _ExposedCall:
    """One connection from outside: connected to the service, then a `TcpEnd`."""

    def __init__(self, exposure: Exposure, stream: int) -> None:
        self._exposure = exposure
        self._link = exposure.link
        self._stream = stream
        self._end: TcpEnd | None = None
        self._early: deque[bytes] = deque()
        """What came before the service was connected: one window at most."""
        self._has_ended = False
        self._task = exposure.loop.create_task(self._connect())

    def abort(self) -> None:
        self._task.cancel()
        self._link.reset(self._stream, ResetCode.ABORTED, "the host's service is gone")
        if self._end is not None:
            self._end.failed()
        self._exposure.left(self)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                sock = await connected_socket(self._exposure.loop, *self._exposure.target)
        except (OSError, TimeoutError) as error:
            self._exposure.counts["service_unreachable"] += 1
            text = getattr(error, "strerror", None) or "no answer"
            self._link.reset(self._stream, ResetCode.CONNECTION_REFUSED, text)
            self._link.pump_soon()
            self._exposure.left(self)
            return
        tcp = TcpSocket(self._exposure.loop, sock)
        self._end = TcpEnd(tcp, self._link, self._stream, self._link.pump_soon, gone=self.done)
        self._end.received(self._early)
        self._early.clear()
        if self._has_ended:
            self._end.ended()
        self._end.writable()

    # the stream

    def opened(self) -> None:
        """It was ours to accept."""

    def received(self, pieces: Sequence[Buffer]) -> None:
        if self._end is not None:
            self._end.received(pieces)
        else:
            self._early.extend(bytes(piece) for piece in pieces)

    def ended(self) -> None:
        self._has_ended = True
        if self._end is not None:
            self._end.ended()

    def writable(self) -> None:
        if self._end is not None:
            self._end.writable()

    def failed(self, code: ResetCode, text: str) -> None:
        self._task.cancel()
        if self._end is not None:
            self._end.failed()
        self._exposure.left(self)

    def done(self) -> None:
        self._exposure.left(self)
