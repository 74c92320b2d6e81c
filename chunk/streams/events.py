"""What happens to the streams of a session, for those who own them."""

from __future__ import annotations

from dataclasses import dataclass

from packetcloud.chunk.streams.wire import Buffer, ResetCode


@dataclass(frozen=True, slots=True)
class StreamWanted:
    """The other side wants a stream: to a server, or from who called at a port of its listeners.

    Accept it or reset it.
    """

    stream: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The stream that was asked for is up."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamData:
    """Bytes in order; views are valid until the message's buffer is given back."""

    stream: int
    pieces: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The other side has sent all it had; what is sent to it still arrives."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamWritable:
    """There is room again where there was none."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamDone:
    """Both sides have everything: the stream is forgotten."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """The stream ended before its time, or never came about; it is forgotten."""

    stream: int
    code: ResetCode
    text: str


@dataclass(frozen=True, slots=True)
class ListenWanted:
    """The host wants the connections that come in at this port."""

    port: int


@dataclass(frozen=True, slots=True)
class PortListening:
    """Connections at this port come to us now."""

    port: int


@dataclass(frozen=True, slots=True)
class PortBusy:
    """Connections at this port do not come to us yet; it is asked for again. Told once."""

    port: int
    text: str


@dataclass(frozen=True, slots=True)
class PortRefused:
    """Connections at this port do not come to us."""

    port: int
    code: ResetCode
    text: str


StreamEvent = (
    StreamWanted
    | StreamOpened
    | StreamData
    | StreamEnded
    | StreamWritable
    | StreamDone
    | StreamFailed
    | ListenWanted
    | PortListening
    | PortBusy
    | PortRefused
)
