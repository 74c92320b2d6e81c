"""The streams of a host through one translator: the shell between an endpoint and a `Caller`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.logger import Logger

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.names import GUID, SID
from packetcloud.chunk.reasons import Reason
from packetcloud.chunk.streams.caller import Caller, Request
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
from packetcloud.chunk.streams.wire import Buffer, ResetCode
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.errors import HostError
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendResult
from packetcloud.host.surroundings import Surroundings

REQUEST_LIFETIME_S = 15.0
"""Held for 4 s at most; later its loss was noticed and it was said again."""
LOOK_S = 0.5
"""How often it is looked whether the session with the router is back."""

_log = Logger(namespace="packetcloud.host")


class StreamOwner(Protocol):
    """Who has a stream; told what happens to it."""

    def opened(self) -> None: ...
    def received(self, pieces: Sequence[Buffer]) -> None:
        """Bytes came; the views are valid during the call only. Say `consume` of all of them."""

    def ended(self) -> None: ...
    def writable(self) -> None: ...
    def failed(self, code: ResetCode, text: str) -> None:
        """It ended before its time, or never came about."""

    def done(self) -> None: ...


class PortOwner(Protocol):
    """Who wants the connections of a port of the translator."""

    def listening(self, port: int) -> None: ...
    def busy(self, port: int, text: str) -> None:
        """It cannot be had now, and is asked for again; told once, until it can."""

    def refused(self, port: int, text: str) -> None: ...
    def called(self, stream: int, host: str, port: int) -> StreamOwner | None:
        """A connection came in; None: it is refused."""


class TranslatorLink:
    """The streams of `endpoint` through the translator with this SID.

    Must be made and used on the endpoint's loop.
    """

    def __init__(self, endpoint: Endpoint, translator: SID) -> None:
        self.caller = Caller(Surroundings().random_u64)
        self.strangers_count = 0
        """Answers that did not come from the translator."""
        self.owner_failures_count = 0
        """Streams and ports whose owner raised an exception."""
        self._endpoint = endpoint
        self._translator = translator
        self._destination = GUID(translator.value)
        self._loop = asyncio.get_running_loop()
        self._owners: dict[int, StreamOwner] = {}
        self._ports: dict[int, PortOwner] = {}
        self._pump_call: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._was_connected = True
        self._is_closed = False
        endpoint.on_chunks(self._arrived, PayloadType.STREAM)

    def open(self, host: str, port: int, owner: StreamOwner) -> int:
        """Ask for a stream to a TCP server.

        Raises:
            LocalMisuseError: no such name can be asked for, or too many streams are open.
        """
        stream = self.caller.open(host, port, self._loop.time())
        self._owners[stream] = owner
        self.pump_soon()
        return stream

    def listen(self, port: int, owner: PortOwner) -> None:
        """Ask for the connections that come in at `port` of the translator."""
        self._ports[port] = owner
        self.caller.listen(port)
        self.pump_soon()

    def unlisten(self, port: int, owner: PortOwner) -> None:
        """Want no more connections of a port; those that still come are reset.

        Nothing happens if `owner` has lost it: it may be another one's by now.
        """
        if self._ports.get(port) is owner:
            del self._ports[port]
            self.caller.unlisten(port)

    def has_port(self, port: int) -> bool:
        return port in self._ports

    def close(self) -> None:
        """Reset every stream; what can still be told to the translator is sent."""
        if self._is_closed:
            return
        for stream in list(self._owners):
            self.caller.reset(stream, ResetCode.ABORTED, "the host stopped")
        self._pump()
        self._is_closed = True
        for call in (self._timer, self._pump_call):
            if call is not None:
                call.cancel()

    # the streams, as their ends use them

    def room(self, stream: int) -> int:
        return self.caller.room(stream)

    def put(self, stream: int, data: Buffer) -> None:
        self.caller.put(stream, data)

    def finish(self, stream: int) -> None:
        self.caller.finish(stream)

    def consume(self, stream: int, count: int) -> None:
        self.caller.consume(stream, count)

    def reset(self, stream: int, code: ResetCode, text: str = "") -> None:
        self.caller.reset(stream, code, text)
        self._owners.pop(stream, None)

    def let_go(self, stream: int) -> None:
        """End our direction of a stream; what still comes is thrown away."""
        if stream in self._owners:
            self._owners[stream] = _Sink(self, stream)
            self.caller.finish(stream)

    def pump_soon(self) -> None:
        """There may be something to send."""
        if self._pump_call is None and not self._is_closed:
            self._pump_call = self._loop.call_soon(self._pump)

    # inside

    def _arrived(self, batch: list[ReceivedChunk]) -> None:
        for chunk in batch:
            if chunk.header.source == self._destination and not self._is_closed:
                self.caller.receive(chunk.payload, self._loop.time())
                self._follow_events()
            else:
                self.strangers_count += 1
            chunk.release()
        self._pump()

    def _pump(self) -> None:
        if self._pump_call is not None:
            self._pump_call.cancel()
            self._pump_call = None
        if self._is_closed:
            return
        self._follow_events()
        for request in self.caller.requests(self._loop.time()):
            self._send(request)
        self._arm()

    def _send(self, request: Request) -> None:
        try:
            promise = self._endpoint.send(
                self._destination,
                request.payload,
                sid=self._translator,
                lifetime_s=REQUEST_LIFETIME_S,
                report=request.is_first,
                payload_type=PayloadType.STREAM,
            )
        except HostError as error:
            self._loop.call_soon(self._refused, request.number, str(error))
            return
        promise.addCallback(self._sent, request.number)

    def _sent(self, result: SendResult, number: int) -> None:
        # A translator sends its answer instead of the request: that is how the latter ends.
        if not result.ok and result.reason != Reason.DROPPED_BY_SERVICE:
            self._refused(number, f"the translator is not reached: {result.explain()}")

    def _refused(self, number: int, why: str) -> None:
        if not self._is_closed:
            self.caller.refused(number, why, self._loop.time())
            self.pump_soon()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.caller.next_timeout()
        if due < math.inf:
            due = min(due, self._loop.time() + LOOK_S)
            self._timer = self._loop.call_at(due, self._timed)

    def _timed(self) -> None:
        self._timer = None
        now = self._loop.time()
        is_connected = self._endpoint.is_connected
        if is_connected and not self._was_connected:
            self.caller.link_restored(now)
        self._was_connected = is_connected
        self.caller.handle_timeout(now)
        self._pump()

    def _follow_events(self) -> None:
        """Tell all that happened: data are views, valid until the message's buffer is given back.

        What one owner does wrong ends its own stream, and no other.
        """
        while (event := self.caller.next_event()) is not None:
            if isinstance(event, ListenWanted | PortListening | PortBusy | PortRefused):
                self._tell_of(event)
            elif not self._tell_of(event):
                self.caller.reset(event.stream, ResetCode.ABORTED, "the host failed")
                self._tell_of(StreamFailed(event.stream, ResetCode.ABORTED, "the host failed"))

    def _tell_of(self, event: StreamEvent) -> bool:
        """Follow an event; return False when its owner failed."""
        try:
            self._follow(event)
        except Exception:  # of whatever owns the stream: events of others wait behind this one
            self.owner_failures_count += 1
            _log.failure("the owner failed at {event}", event=type(event).__name__)
            return False
        return True

    def _follow(self, event: StreamEvent) -> None:
        match event:
            case StreamWanted(stream, host, port):
                self._called(stream, host, port)
            case PortListening(port) if port in self._ports:
                self._ports[port].listening(port)
            case PortBusy(port, text) if port in self._ports:
                self._ports[port].busy(port, text)
            case PortRefused(port, _, text) if port in self._ports:
                self._ports.pop(port).refused(port, text)
            case StreamFailed(stream, code, text):
                owner = self._owners.pop(stream, None)
                if owner is not None:
                    owner.failed(code, text)
            case StreamDone(stream):
                owner = self._owners.pop(stream, None)
                if owner is not None:
                    owner.done()
            case StreamOpened(stream):
                self._tell(stream, lambda owner: owner.opened())
            case StreamData(stream, pieces):
                self._tell(stream, lambda owner: owner.received(pieces))
            case StreamEnded(stream):
                self._tell(stream, lambda owner: owner.ended())
            case StreamWritable(stream):
                self._tell(stream, lambda owner: owner.writable())
            case _:
                pass  # only translators hear these

    def _tell(self, stream: int, what: Callable[[StreamOwner], None]) -> None:
        owner = self._owners.get(stream)
        if owner is not None:
            what(owner)

    def _called(self, stream: int, host: str, port: int) -> None:
        owner = self._ports[port].called(stream, host, port) if port in self._ports else None
        if owner is None:
            self.caller.reset(stream, ResetCode.TOO_MANY, "no further connections are taken")
            return
        self._owners[stream] = owner
        self.caller.accept(stream)


class _Sink:
    """Owns a stream that nobody wants any more."""

    def __init__(self, link: TranslatorLink, stream: int) -> None:
        self._link = link
        self._stream = stream

    def opened(self) -> None: ...
    def received(self, pieces: Sequence[Buffer]) -> None:
        self._link.consume(self._stream, sum(len(piece) for piece in pieces))

    def ended(self) -> None: ...
    def writable(self) -> None: ...
    def failed(self, code: ResetCode, text: str) -> None: ...
    def done(self) -> None: ...
