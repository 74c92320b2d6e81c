"""The VI's end of the control link: reports go to the controller, its wishes come back.

The link may end at any time: the service runs on, the VI calls again, with a growing delay. What
was reported meanwhile is not kept, but for how it stands, which every status says again.
Source: docs/protocol/control-link.md.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from packetcloud.chunk.errors import PacketCloudError, ProtocolError
from packetcloud.services.backoff import Backoff
from packetcloud.services.control_frames import (
    PROTOCOL_VERSION,
    FrameReader,
    encode_json,
    encode_state,
)
from packetcloud.services.hosting import HostedService
from packetcloud.services.launch_files import replace_in_memory
from packetcloud.services.state_transfer import StateIntake, announcement
from packetcloud.services.vi_settings import ViSettings

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0
"""A controller that comes back hears of its VIs within so long."""
CONNECT_LIMIT_S = 5
_log = logging.getLogger("packetcloud.vi")


def hello(settings: ViSettings, *, is_launched: bool) -> bytes:
    """Return the frame with which a VI says who it is."""
    return encode_json(
        {
            "event": "hello",
            "protocol": PROTOCOL_VERSION,
            "vi": settings.name,
            "token": settings.token,
            "is_launched": is_launched,
            "takes_files": True,
        }
    )


class ControlLink:
    """The control link of a service that runs.

    Args:
        host: the service.
        files: by parameter, the paths of the files that came with its launch.
    """

    def __init__(self, settings: ViSettings, host: HostedService, files: Mapping[str, str]) -> None:
        self._settings = settings
        self._host = host
        self._files = files
        self._backoff = Backoff(FIRST_DELAY_S, LONGEST_DELAY_S)
        self._connection: _Connection | None = None
        self._is_ready = False
        self.reports_dropped_count = 0

    def adopt(self, descriptor: int, family: int) -> None:
        """Go on with a connected socket over which the launch came; it is duplicated."""
        self._host.reactor.adoptStreamConnection(descriptor, family, _Factory(self))

    def report(self, message: dict[str, Any]) -> None:
        """Tell the controller; without a link nothing happens."""
        self._is_ready |= message.get("event") == "ready"
        connection = self._connection
        if connection is None:
            return
        if connection.is_paused:  # the controller does not read; the next status says it again
            self.reports_dropped_count += 1
            return
        connection.send(encode_json(message))

    # The connection says

    def up(self, connection: _Connection, *, is_first: bool) -> None:
        self._connection = connection
        self._backoff.reset()
        if not is_first:
            connection.send(hello(self._settings, is_launched=self._is_ready))

    def down(self, connection: _Connection) -> None:
        if connection is self._connection:
            self._connection = None
        self.call_again()

    def call_again(self) -> None:
        delay_s = self._backoff.next_delay_s(random.random())
        self._host.reactor.callLater(delay_s, self._call)

    def received(self, connection: _Connection, message: dict[str, Any]) -> None:
        match message:
            case {"do": "export"}:
                ensureDeferred(self._export(connection))
            case {"do": "import"}:
                connection.intake = StateIntake(message)
                self.state_received(connection)
            case {"do": "stop"}:
                self._host.stop()
            case {"do": "files", "files": files}:
                for name in replace_in_memory(self._files, files):
                    _log.info("file %s has changed; the service reads it as it likes", name)
            case {"do": "launch"}:
                pass  # told twice: it runs already, and has said so
            case _:
                raise ProtocolError(f"control link: unknown wish {str(message)[:80]}")

    def state_received(self, connection: _Connection) -> None:
        """Hand a state over to the service when it is complete."""
        intake = connection.intake
        if intake is None or not intake.is_complete:
            return
        connection.intake = None
        try:
            self._host.runtime.import_state(intake.state())
        except Exception as error:  # an author's `import_state` may raise anything
            self.report({"event": "failed", "what": "import", "text": _words(error)})
        else:
            self.report({"event": "imported"})

    async def _export(self, connection: _Connection) -> None:
        try:
            state = await self._host.runtime.export_state()
        except Exception as error:  # an author's `export_state` may raise anything
            connection.send(
                encode_json({"event": "failed", "what": "export", "text": _words(error)})
            )
            return
        connection.send(encode_json({"event": "exported", **announcement(state)}))
        connection.stream(encode_state(state))

    def _call(self) -> None:
        host, port = self._settings.controller
        self._host.reactor.connectTCP(host, port, _Factory(self, self), timeout=CONNECT_LIMIT_S)


@implementer(IPushProducer)
class _Connection(Protocol):
    """One TCP connection to the controller."""

    def __init__(self, link: ControlLink, *, is_first: bool) -> None:
        self.intake: StateIntake | None = None
        self._link = link
        self._is_first = is_first
        self._frames = FrameReader()
        self._transport: Any = None
        self._stream: Iterator[bytes] = iter(())
        self.is_paused = False
        """The kernel takes no more: the controller does not read."""

    def connectionMade(self) -> None:
        self._transport = self.transport
        self._transport.registerProducer(self, True)
        self._transport.setTcpKeepAlive(True)
        self._transport.setTcpNoDelay(True)
        self._link.up(self, is_first=self._is_first)

    def dataReceived(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                if isinstance(frame, dict):
                    self._link.received(self, frame)
                elif self.intake is None:
                    raise ProtocolError("control link: a piece of a state that nobody announced")
                else:
                    self.intake.add(frame)
                    self._link.state_received(self)
        except PacketCloudError as error:
            _log.error("%s; calling again", error)
            self._transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._link.down(self)

    def send(self, frame: bytes) -> None:
        self._transport.write(frame)

    def stream(self, frames: Iterator[bytes]) -> None:
        """Send frames as fast as the controller reads them; reports may come in between."""
        self._stream = frames
        self.resumeProducing()

    # IPushProducer

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False
        for frame in self._stream:
            self.send(frame)
            if self.is_paused:
                return

    def stopProducing(self) -> None:
        self._stream = iter(())


class _Factory:
    """What Twisted wants of who makes or adopts a connection.

    Args:
        caller: who hears that a call did not get through; None: the connection is there already.
    """

    noisy = False

    def __init__(self, link: ControlLink, caller: ControlLink | None = None) -> None:
        self._link = link
        self._caller = caller

    def doStart(self) -> None:
        return

    def doStop(self) -> None:
        return

    def startedConnecting(self, connector: object) -> None:
        return

    def buildProtocol(self, address: object) -> _Connection:
        return _Connection(self._link, is_first=self._caller is None)

    def clientConnectionFailed(self, connector: object, reason: object) -> None:
        if self._caller is not None:
            self._caller.call_again()

    def clientConnectionLost(self, connector: object, reason: object) -> None:
        return  # the connection itself says so


def _words(error: BaseException) -> str:
    text = str(error) if isinstance(error, PacketCloudError) else f"{type(error).__name__}: {error}"
    return text[:500]
