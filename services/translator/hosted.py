"""One host's session at the translator: its streams, and the sockets at their other ends."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections import Counter
from dataclasses import dataclass

from packetcloud.chunk.names import GUID
from packetcloud.chunk.streams.answerer import Answer, Answerer
from packetcloud.chunk.streams.events import (
    ListenWanted,
    PortBusy,
    PortListening,
    PortRefused,
    StreamData,
    StreamDone,
    StreamEnded,
    StreamEvent,
    StreamFailed,
    StreamOpened,
    StreamWanted,
    StreamWritable,
)
from packetcloud.chunk.streams.tcp_end import TcpEnd, TcpSocket
from packetcloud.chunk.streams.wire import Buffer, Listening, Message, NotListening, ResetCode
from packetcloud.services.translator.connector import Connector
from packetcloud.services.translator.errors import RefusedConnectionError
from packetcloud.services.translator.listeners import Listeners
from packetcloud.services.translator.sessions import Sessions

Token = asyncio.Future[bytes]


@dataclass(slots=True)
class _Connection:
    end: TcpEnd
    seen_count: int
    quiet_since: float


class HostedSession:
    """The session of one host, and what it is connected to.

    Args:
        counts: of the whole translator.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: GUID,
        number: int,
        sessions: Sessions[HostedSession],
        connector: Connector,
        listeners: Listeners,
        counts: Counter[str],
        log: logging.Logger,
    ) -> None:
        self.source = source
        self.number = number
        self._loop = loop
        self._sessions = sessions
        self._connector = connector
        self._listeners = listeners
        self._counts = counts
        self._log = log
        self._answerer: Answerer[Token] = Answerer(
            number, self._window_bytes, self._max_streams, sessions.held_share
        )
        self._table = self._answerer.table
        self._connections: dict[int, _Connection] = {}
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._starved: dict[int, None] = {}
        """Connections with something to read, and no room to read it to."""
        self._noted = (0, 0, 0)
        self._pump_call: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self.has_ports = False

    @property
    def heard_at(self) -> float:
        return self._answerer.heard_at

    @property
    def streams_count(self) -> int:
        return len(self._table)

    @property
    def outgoing_bytes(self) -> int:
        return self._table.outgoing_bytes

    def request(self, message: Message, size_bytes: int, token: Token) -> None:
        """Take a request; the views in it are not used any more when this returns."""
        self._answerer.receive(message, size_bytes, token, self._loop.time())
        self._pump()

    def arrived(self, sock: socket.socket, host: str, port: int) -> None:
        """Offer the host a connection that came in at one of its ports."""
        if self._max_streams() <= len(self._table):
            self._counts["calls_refused"] += 1
            sock.close()
            return
        stream = self._answerer.call(host, port)
        self._note()
        self._counts["calls"] += 1
        self._connect_end(stream, sock)
        self._pump_soon()

    def sweep(self, now: float, idle_timeout_s: float) -> None:
        """Reset connections on which nothing moves, and go on with those that waited for room."""
        for stream, one in list(self._connections.items()):
            if one.end.moved_count != one.seen_count:
                one.seen_count, one.quiet_since = one.end.moved_count, now
            elif now - one.quiet_since >= idle_timeout_s:
                self._counts["idle"] += 1
                text = f"nothing moved for {idle_timeout_s:g} s"
                self._table.reset(stream, ResetCode.TIMED_OUT, text)
                self._drop(stream)
        self._feed()
        self._pump()

    def close(self) -> None:
        """Reset every connection; requests that are held are answered."""
        for stream in self._table.ids():
            self._table.reset(stream, ResetCode.SHUTTING_DOWN, "the translator ended the session")
        for stream in list(self._connections):
            self._drop(stream)
        for task in list(self._opening.values()):
            task.cancel()
        self._opening.clear()
        self._listeners.release(self)
        self._answer(self._answerer.give_up())
        self._note()
        for call in (self._pump_call, self._timer):
            if call is not None:
                call.cancel()

    # the streams, as the ends of connections use them

    def room(self, stream: int) -> int:
        room = self._table.room(stream)
        if room <= 0:
            return 0
        shared = self._sessions.room(self.source.value)
        if shared <= 0:
            self._starved[stream] = None
        return min(room, shared)

    def put(self, stream: int, data: Buffer) -> None:
        self._table.put(stream, data)
        self._note()

    def finish(self, stream: int) -> None:
        self._table.finish(stream)

    def consume(self, stream: int, count: int) -> None:
        self._table.consume(stream, count)

    def reset(self, stream: int, code: ResetCode, text: str = "") -> None:
        self._table.reset(stream, code, text)
        self._drop(stream)

    # inside

    def _max_streams(self) -> int:
        return self._noted[0] + self._sessions.connections_left(self.source.value)

    def _window_bytes(self) -> int:
        return self._sessions.upload_window(self._table.promised_bytes - self._noted[2])

    def _pump_soon(self) -> None:
        if self._pump_call is None:
            self._pump_call = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Follow the events, and give the answers that are due."""
        if self._pump_call is not None:
            self._pump_call.cancel()
            self._pump_call = None
        events = self._table.events
        while events:
            self._tell_of(events.popleft())
        self._note()
        if self._starved:
            self._feed()
        now = self._loop.time()
        self._answer(self._answerer.answers(now))
        self._arm(self._answerer.next_timeout())

    def _tell_of(self, event: StreamEvent) -> None:
        """Follow an event; what goes wrong with one connection ends that one, and no other."""
        try:
            self._follow(event)
        except Exception:  # events of other connections, and requests, wait behind this one
            self._counts["failures"] += 1
            self._log.exception("a connection failed at %s", type(event).__name__)
            if not isinstance(event, ListenWanted | PortListening | PortBusy | PortRefused):
                self._table.reset(event.stream, ResetCode.ABORTED, "the translator failed")
                self._drop(event.stream)

    def _follow(self, event: StreamEvent) -> None:
        match event:
            case StreamWanted(stream, host, port):
                self._opening[stream] = self._loop.create_task(self._open(stream, host, port))
            case ListenWanted(port):
                self._claim(port)
            case StreamDone(stream):
                self._counts["done"] += 1
                self._connections.pop(stream, None)
                self._starved.pop(stream, None)
            case StreamFailed(stream, code):
                self._counts["reset"] += 1
                self._counts["protocol_errors"] += code is ResetCode.PROTOCOL_ERROR
                self._drop(stream)
            case StreamOpened(stream) | StreamWritable(stream):
                if stream in self._connections:
                    self._connections[stream].end.writable()
            case StreamData(stream, pieces):
                if stream in self._connections:
                    self._connections[stream].end.received(pieces)
            case StreamEnded(stream):
                if stream in self._connections:
                    self._connections[stream].end.ended()
            case _:
                pass  # only hosts hear these

    async def _open(self, stream: int, host: str, port: int) -> None:
        self._counts["asked"] += 1
        sock: socket.socket | None = None
        try:
            sock = await self._connector.connect(host, port, self.source.value)
            if stream in self._table:
                self._connect_end(stream, sock)
                self._table.accept(stream)
                self._counts["connected"] += 1
            else:
                sock.close()
        except RefusedConnectionError as error:
            self._counts[error.code.name.lower()] += 1
            self._table.reset(stream, error.code, str(error))
        except Exception:  # else the host would wait for its stream for good
            self._counts["failures"] += 1
            self._log.exception("a connection could not be opened")
            self._table.reset(stream, ResetCode.ABORTED, "the translator failed")
            self._drop(stream)
            if sock is not None:
                sock.close()
        finally:
            self._opening.pop(stream, None)
        self._pump_soon()

    def _connect_end(self, stream: int, sock: socket.socket) -> None:
        end = TcpEnd(TcpSocket(self._loop, sock), self, stream, self._pump_soon)
        self._connections[stream] = _Connection(end, 0, self._loop.time())

    def _claim(self, port: int) -> None:
        refusal = self._listeners.claim(self._loop, port, self.source, self, self.arrived)
        if refusal is not None:
            self._counts["ports_refused"] += 1
            self._table.say(NotListening(port, *refusal))
        else:
            self.has_ports = True
            self._table.say(Listening(port))

    def _feed(self) -> None:
        """Read again where there was no room, while there is some."""
        for stream in list(self._starved):
            if self._sessions.room(self.source.value) <= 0:
                return
            del self._starved[stream]
            if stream in self._connections:
                self._connections[stream].end.writable()

    def _drop(self, stream: int) -> None:
        """Reset the connection of a stream that is no more."""
        connection = self._connections.pop(stream, None)
        if connection is not None:
            connection.end.failed()
        self._starved.pop(stream, None)
        task = self._opening.pop(stream, None)
        if task is not None and task is not asyncio.current_task(self._loop):
            task.cancel()

    def _note(self) -> None:
        """Tell the lists of all sessions what this one holds now."""
        table = self._table
        now = len(table), table.outgoing_bytes, table.promised_bytes
        if now != self._noted:
            changes = [new - old for new, old in zip(now, self._noted, strict=True)]
            self._noted = now
            self._sessions.note(self.source.value, *changes)

    def _answer(self, answers: list[Answer[Token]]) -> None:
        for answer in answers:
            if not answer.token.done():
                answer.token.set_result(answer.payload)

    def _arm(self, at: float) -> None:
        """Come back at this time; one timer, moved when it has to be earlier."""
        if self._timer is not None and (self._timer_at <= at or at == math.inf):
            return
        if self._timer is not None:
            self._timer.cancel()
        if at < math.inf:
            self._timer_at = at
            self._timer = self._loop.call_at(at, self._timed)

    def _timed(self) -> None:
        self._timer = None
        self._pump()
