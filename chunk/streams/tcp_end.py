"""One TCP socket, read and written without blocking, with back-pressure both ways.

`TcpEnd` joins one to a stream of a session: what the stream takes is read, what it brings is
written, and a stream that failed resets the connection, so that a peer never takes a part for the
whole. Everything runs on the loop's thread.
"""

from __future__ import annotations

import socket
import struct
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from packetcloud.chunk.streams.wire import Buffer, ResetCode

READ_BYTES = 256 << 10
"""Read at once; with 16 MiB read in pieces of 64 KiB a quarter of the time went into the loop."""
_RESET_ON_CLOSE, _END_ON_CLOSE = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)


class SocketOwner(Protocol):
    """Who reads and writes through a `TcpSocket`."""

    def room(self) -> int:
        """Return how many bytes may be read now; 0 stops reading until `resume`."""

    def came(self, data: bytes) -> None:
        """Bytes came, at most `room`."""

    def came_end(self) -> None:
        """The peer has sent all it had."""

    def sent(self, count: int) -> None:
        """So many bytes of what was written are the kernel's now."""

    def broke(self, why: str) -> None:
        """The connection was reset or failed; the socket is closed."""


class TcpSocket:
    """A connected socket; reads nothing before `resume`, closes when both directions have ended."""

    def __init__(self, loop: AbstractEventLoop, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # From the start: of a process that is killed, the peer must not take a part for the whole.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._loop = loop
        self._sock = sock
        self.owner: SocketOwner = _Nobody()
        self._unwritten: deque[memoryview] = deque()
        self.unwritten_bytes = 0
        """What the kernel has not taken yet."""
        self._is_reading = False
        self._has_read_end = False
        self._is_finishing = False
        self._has_written_end = False
        self.is_closed = False

    @property
    def has_unwritten(self) -> bool:
        return bool(self._unwritten)

    def resume(self) -> None:
        """Read as soon as there is something, if there is room."""
        if self._is_reading or self._has_read_end or self.is_closed or self.owner.room() <= 0:
            return
        self._is_reading = True
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def pause(self) -> None:
        """Read nothing until `resume`."""
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._sock.fileno())

    def write(self, pieces: Iterable[Buffer]) -> None:
        """Write all of `pieces`; what the kernel does not take at once is copied."""
        sent_count = 0
        for piece in pieces:
            if self.is_closed:
                return
            view = memoryview(piece)
            count = 0 if self._unwritten else self._send(view)
            sent_count += count
            if count < len(view) and not self.is_closed:
                self._keep(view[count:])
        self._tell_sent(sent_count)

    def finish(self) -> None:
        """End our direction once everything is written."""
        self._is_finishing = True
        self._end_if_written()

    def close(self) -> None:
        """Close as after a conversation that is over. Harmless when repeated."""
        if not self.is_closed:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _END_ON_CLOSE)
            self.abort()

    def close_when_written(self) -> None:
        """Close once everything is written."""
        self.pause()
        self._has_read_end = True
        self.finish()
        if self._has_written_end:
            self.close()

    def abort(self) -> None:
        """Close so that the peer sees a reset. Harmless when repeated."""
        if self.is_closed:
            return
        self.is_closed = True
        self.pause()
        if self._unwritten:
            self._loop.remove_writer(self._sock.fileno())
            self._unwritten.clear()
            self.unwritten_bytes = 0
        self._sock.close()

    def _readable(self) -> None:
        room = min(self.owner.room(), READ_BYTES)
        if room <= 0:
            self.pause()
            return
        try:
            data = self._sock.recv(room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._break(error)
            return
        if data:
            self.owner.came(data)
        else:
            self.pause()
            self._has_read_end = True
            if self._has_written_end:
                self.close()
            self.owner.came_end()

    def _keep(self, view: memoryview) -> None:
        if not self._unwritten:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self._unwritten.append(memoryview(bytes(view)))
        self.unwritten_bytes += len(view)

    def _send(self, view: memoryview) -> int:
        """Return how much the kernel took at once."""
        try:
            return self._sock.send(view)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._break(error)
            return 0

    def _tell_sent(self, count: int) -> None:
        """Tell the owner, who may look at what is unwritten, or write more."""
        if count and not self.is_closed:
            self.owner.sent(count)

    def _writable(self) -> None:
        view = self._unwritten[0]
        count = self._send(view)
        if self.is_closed:
            return
        self.unwritten_bytes -= count
        if count < len(view):
            self._unwritten[0] = view[count:]
        else:
            self._unwritten.popleft()
            if not self._unwritten:
                self._loop.remove_writer(self._sock.fileno())
        self._tell_sent(count)
        self._end_if_written()

    def _end_if_written(self) -> None:
        if not self._is_finishing or self._unwritten or self.is_closed or self._has_written_end:
            return
        self._has_written_end = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._break(error)
            return
        if self._has_read_end:
            self.close()

    def _break(self, error: OSError) -> None:
        self.abort()
        self.owner.broke(error.strerror or str(error))


class _Nobody:
    """Owns a socket that nobody reads yet."""

    def room(self) -> int:
        return 0

    def came(self, data: bytes) -> None: ...
    def came_end(self) -> None: ...
    def sent(self, count: int) -> None: ...
    def broke(self, why: str) -> None: ...


class Streams(Protocol):
    """The streams of a session, as one of their ends uses them."""

    def room(self, stream: int) -> int: ...
    def put(self, stream: int, data: Buffer) -> None: ...
    def finish(self, stream: int) -> None: ...
    def consume(self, stream: int, count: int) -> None: ...
    def reset(self, stream: int, code: ResetCode, text: str = "") -> None: ...


class TcpEnd:
    """A TCP connection as the end of one stream.

    Args:
        moved: called after something was read or written: there may be messages to send.
        early: what was read from the socket before.
        gone: called when the connection broke, and with it the stream.
    """

    def __init__(
        self,
        tcp: TcpSocket,
        streams: Streams,
        stream: int,
        moved: Callable[[], None],
        early: bytes = b"",
        gone: Callable[[], None] = lambda: None,
    ) -> None:
        self.socket = tcp
        tcp.owner = self
        self.moved_count = 0
        """Bytes in both directions."""
        self._streams = streams
        self._stream = stream
        self._moved = moved
        self._gone = gone
        self._early = memoryview(early)

    # what the stream says

    def writable(self) -> None:
        """The stream takes more."""
        if self._early:
            count = min(len(self._early), self.room())
            if count:  # 0: the stream may be no more, and nobody puts anything into it then
                self._streams.put(self._stream, self._early[:count])
            self._early = self._early[count:]
        if not self._early:
            self.socket.resume()

    def received(self, pieces: Iterable[Buffer]) -> None:
        """The stream brought bytes; views are valid during the call only."""
        self.socket.write(pieces)

    def ended(self) -> None:
        """The stream brings no more."""
        self.socket.finish()

    def failed(self) -> None:
        """The stream is no more, and not because all was said."""
        self.socket.abort()

    # what the socket says

    def room(self) -> int:
        return self._streams.room(self._stream)

    def came(self, data: bytes) -> None:
        self.moved_count += len(data)
        self._streams.put(self._stream, data)
        self._moved()

    def came_end(self) -> None:
        self._streams.finish(self._stream)
        self._moved()

    def sent(self, count: int) -> None:
        self.moved_count += count
        self._streams.consume(self._stream, count)
        self._moved()

    def broke(self, why: str) -> None:
        self._streams.reset(self._stream, ResetCode.ABORTED, why)
        self._gone()
        self._moved()


async def connected_socket(loop: AbstractEventLoop, host: str, port: int) -> socket.socket:
    """Return a socket that is connected to an address, for a `TcpSocket`.

    Raises:
        OSError: it cannot be.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, (host, port))
    except BaseException:  # also when the wait was given up: nobody else knows of it yet
        sock.close()
        raise
    return sock
