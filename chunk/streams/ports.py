"""The ports of a translator that a host wants the connections of: asked for, busy or ours.

Source: docs/protocol/stream.md, "Frames".
"""

from __future__ import annotations

import math
from enum import Enum

from packetcloud.chunk.streams.events import PortBusy, PortListening, PortRefused
from packetcloud.chunk.streams.wire import Listen, Listening, NotListening, ResetCode

ASK_AGAIN_S = 1.0
"""After a port could not be had for the moment."""


class _PortState(Enum):
    ASKED = "asked"
    BUSY = "busy"
    """It could not be had, which was told: once, however often it is asked for."""
    OURS = "ours"


class WantedPorts:
    """What became of each of them."""

    def __init__(self) -> None:
        self.ask_at = math.inf
        """When ports are asked for again that could not be had for the moment."""
        self._states: dict[int, _PortState] = {}

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, port: int) -> bool:
        return port in self._states

    def want(self, port: int) -> None:
        self._states[port] = _PortState.ASKED

    def leave(self, port: int) -> None:
        self._states.pop(port, None)

    def begin_session(self) -> None:
        """Whoever hears us next knows of no port that is ours."""
        self.ask_at = math.inf
        for port, state in self._states.items():
            if state is _PortState.OURS:
                self._states[port] = _PortState.ASKED

    def asked(self) -> list[Listen]:
        """Return how to ask for the ports that are not ours."""
        return [Listen(one) for one, state in self._states.items() if state is not _PortState.OURS]

    def hear(
        self, frame: Listening | NotListening, now: float
    ) -> PortListening | PortBusy | PortRefused | None:
        """Take what the translator says of a port, and return what is new of that."""
        before = self._states.get(frame.port)
        match frame:
            case _ if before is None:
                return None  # not wanted any more
            case Listening(port):
                self._states[port] = _PortState.OURS
                return None if before is _PortState.OURS else PortListening(port)
            case NotListening(port, ResetCode.TOO_MANY, text):
                self._states[port] = _PortState.BUSY
                self.ask_at = min(self.ask_at, now + ASK_AGAIN_S)
                return None if before is _PortState.BUSY else PortBusy(port, text)
            case NotListening(port, code, text):
                del self._states[port]
                return PortRefused(port, code, text)
