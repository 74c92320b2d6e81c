"""Several programs of one key on one machine: the first holds the session with the router.

A router knows one session of a GUID, so that two programs with one key would end each other's for
ever. The first one holds it, and listens at the key's meeting place; a later one hands it what it
wants served, a listening socket or a port of the translator, and waits. When the holder ends, one
of the others takes its place. Only programs of the same user join.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from packetcloud.chunk.names import GUID
from packetcloud.chunk.streams.tcp_listener import TcpListener
from packetcloud.host.errors import HostError
from packetcloud.host.meeting_place import Place, connect

MAX_MESSAGE_BYTES = 4096
MAX_PROGRAMS_COUNT = 64
MAX_PARTS_COUNT = 256
"""Of one program."""
SAY_AGAIN_S = 0.01
"""A holder that has not read all that it was told is told the rest this much later."""
LEFT_OPEN = frozenset({"router-guid"})
"""Terms that a program may leave empty: whatever the holder's are, they are its own."""


class Standing(StrEnum):
    """What becomes of a part."""

    SERVED = "served"
    WAITING = "waiting"
    """It cannot be served now, and will be as soon as it can."""
    REFUSED = "refused"


End = Callable[[], None]
Tell = Callable[[Standing, str], None]
"""Called with how it stands with a part, and why it is not served."""
TellOf = Callable[[int, Standing, str], None]
"""The same, with the part's number before."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a program wants served."""

    order: Mapping[str, Any]
    """Says what; as JSON it fits a message."""
    sock: socket.socket | None = None
    """Goes along with it."""


Begin = Callable[[Part, Tell], End]
"""Serves a part from now on; what it returns ends that."""


class SessionHolder:
    """Serves the parts of other programs as if they were our own.

    Args:
        place: closed by who made it, after this.
        terms: of the session; who asks for others is refused.
        begin: serves a part; may raise HostError.
    """

    def __init__(self, place: Place, terms: Mapping[str, str], begin: Begin) -> None:
        self._terms = terms
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._programs: set[_Program] = set()
        self._listener = TcpListener(self._loop, place.sock, self._accepted, lambda: None)

    def stop(self) -> None:
        """Take no more programs and orders; the place stays ours until `close`."""
        self._listener.stop()
        for program in self._programs:
            program.stop()

    def close(self) -> None:
        """Let the others go: one of them takes our place."""
        self._listener.close()
        for program in list(self._programs):
            program.close()

    def begin(self, part: Part, tell: Tell) -> End:
        """Serve a part.

        Raises:
            HostError: it cannot be served here.
        """
        for name, value in self._terms.items():
            asked = part.order.get(name)
            if asked != value and (asked or name not in LEFT_OPEN):
                runs = f"with --{name} {value}" if value else f"without --{name}"
                raise HostError(
                    f"another program of this key runs {runs}; allowed: the same, "
                    "or a key of its own"
                )
        return self._begin(part, tell)

    def left(self, program: _Program) -> None:
        self._programs.discard(program)

    def _accepted(self, connection: socket.socket, _address: object) -> None:
        if len(self._programs) >= MAX_PROGRAMS_COUNT:
            text = f"{1 + MAX_PROGRAMS_COUNT} programs use this key; allowed: no more"
            _refuse(connection, text)
        else:
            self._programs.add(_Program(self, self._loop, connection))


class _Program:
    """Another program whose parts we serve."""

    def __init__(
        self, holder: SessionHolder, loop: asyncio.AbstractEventLoop, sock: socket.socket
    ) -> None:
        self._holder = holder
        self._loop = loop
        self._sock = sock
        self._ends: list[End] = []
        self._orders_count = 0
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def stop(self) -> None:
        self._loop.remove_reader(self._sock.fileno())

    def close(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        self._holder.left(self)
        for end in self._ends:
            end()

    def _readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, MAX_MESSAGE_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        socks = [socket.socket(fileno=one) for one in descriptors]
        if not data:
            self.close()
            return
        number, self._orders_count = self._orders_count, self._orders_count + 1
        try:
            order = json.loads(data)
            if not isinstance(order, dict) or number >= MAX_PARTS_COUNT:
                raise HostError("no order that this version knows")
            part = Part(order, socks[0] if socks else None)
            self._ends.append(self._holder.begin(part, partial(self._tell, number)))
        except (HostError, ValueError) as error:
            for sock in socks:
                sock.close()
            self._tell(number, Standing.REFUSED, str(error))

    def _tell(self, number: int, standing: Standing, text: str) -> None:
        with suppress(OSError):  # it is gone, which is read next
            self._sock.send(_told(number, standing, text))


async def join(guid: GUID, parts: Sequence[Part], tell: TellOf) -> bool:
    """Have the holder serve `parts`; returns when it has ended, False if it never told anything.

    Raises:
        MeetingPlaceError: there is none. Else whatever `tell` raises.
    """
    loop = asyncio.get_running_loop()
    was_told = False
    try:
        sock = connect(guid)
    except OSError:
        return False
    with sock:
        saying = loop.create_task(_say(sock, parts))
        try:
            while data := await loop.sock_recv(sock, MAX_MESSAGE_BYTES):
                was_told = True
                number, standing, text = json.loads(data)
                tell(number, Standing(standing), text)
        except OSError:
            pass  # the holder ended
        finally:
            saying.cancel()
        return was_told


async def _say(sock: socket.socket, parts: Sequence[Part]) -> None:
    """Send the parts, as fast as they are read."""
    with suppress(OSError):  # the holder ended, which is read next
        for part in parts:
            while not _is_sent(sock, part):
                await asyncio.sleep(SAY_AGAIN_S)


def _is_sent(sock: socket.socket, part: Part) -> bool:
    descriptors = [] if part.sock is None else [part.sock.fileno()]
    try:
        socket.send_fds(sock, [json.dumps(dict(part.order)).encode()], descriptors)
    except BlockingIOError:
        return False
    return True


def _refuse(connection: socket.socket, text: str) -> None:
    """Tell a program why it is not taken; what it said is read, or the end overtakes the text."""
    with connection, suppress(OSError):
        connection.setblocking(False)
        connection.shutdown(socket.SHUT_RD)
        while connection.recv(MAX_MESSAGE_BYTES):
            pass
        connection.send(_told(0, Standing.REFUSED, text))


def _told(number: int, standing: Standing, text: str) -> bytes:
    return json.dumps([number, standing, text]).encode()
