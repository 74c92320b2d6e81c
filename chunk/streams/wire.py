"""The messages of the stream protocol and the frames in them, as bytes.

A message is the payload of one chunk: a head of 28 bytes, then frames of 12 bytes and a body each.
Any bytes whatever are a message, or raise `ProtocolError`. Source: docs/protocol/stream.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError

MAGIC = b"ST"
VERSION = 1
MAX_FRAMES_COUNT = 8192
"""Frames of one message: what a session with every stream open says of each of them, twice."""
MAX_HOST_BYTES = 255
"""A DNS name has 253 characters at most; SOCKS5 allows 255."""
MAX_TEXT_BYTES = 200
MAX_STREAM_ID = (1 << 32) - 1
MAX_OFFSET = 1 << 62
"""Beyond every stream that will ever be sent; sums of two still fit 64 bits."""

_HEAD = struct.Struct(">2sBBQQII")
_FRAME = struct.Struct(">BBHII")
_U64 = struct.Struct(">Q")
_TWO_U64 = struct.Struct(">QQ")
_OPEN = struct.Struct(">QH")
HEAD_BYTES = _HEAD.size
FRAME_BYTES = _FRAME.size
_FIRST, _AGAIN = 0x10, 0x20
"""Flags of requests, in the upper half of the byte that says what a message is."""
_LAST = 0x01
"""Flag of DATA: nothing follows."""

Buffer = bytes | bytearray | memoryview
EnumT = TypeVar("EnumT", bound=IntEnum)


class MessageKind(IntEnum):
    """What a chunk is: the host asks, the translator answers each request once."""

    REQUEST = 1
    ANSWER = 2
    UNKNOWN = 3
    """The answer of who does not hold this session."""
    BUSY = 4
    """The answer of who takes no further session."""


class FrameType(IntEnum):
    OPEN = 1
    OPENED = 2
    DATA = 3
    GRANT = 4
    RESET = 5
    LISTEN = 6
    LISTENING = 7
    CALL = 8
    NOT_LISTENING = 9


class ResetCode(IntEnum):
    """Why a stream ended before both sides had finished, or never came about."""

    ABORTED = 1
    """The other side's application gave it up, or its TCP connection was reset."""
    NOT_ALLOWED = 2
    NAME_UNKNOWN = 3
    NETWORK_UNREACHABLE = 4
    HOST_UNREACHABLE = 5
    CONNECTION_REFUSED = 6
    TIMED_OUT = 7
    TOO_MANY = 8
    UNKNOWN_STREAM = 9
    PROTOCOL_ERROR = 10
    SHUTTING_DOWN = 11
    TRANSLATOR_LOST = 12
    """Never on the wire: the host heard nothing from the translator, or it knows us no longer."""


@dataclass(frozen=True, slots=True)
class Open:
    """A new stream to a TCP server; `window`: so much may be sent back."""

    stream: int
    host: str
    port: int
    window: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream is up; `window`: so much may be sent."""

    stream: int
    window: int


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes from `offset` on; `pieces` lie one after the other."""

    stream: int
    offset: int
    pieces: tuple[Buffer, ...]
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """All before `received` has come, its end counting as one; up to `window` may be sent."""

    stream: int
    received: int
    window: int


@dataclass(frozen=True, slots=True)
class Reset:
    stream: int
    code: ResetCode
    text: str = ""


@dataclass(frozen=True, slots=True)
class Listen:
    """The host wants the connections that come in at this port of the translator."""

    port: int


@dataclass(frozen=True, slots=True)
class Listening:
    port: int


@dataclass(frozen=True, slots=True)
class NotListening:
    port: int
    code: ResetCode
    text: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """A connection came in at `port` from `host`; `window`: so much may be sent back."""

    stream: int
    host: str
    port: int
    window: int


Frame = Open | Opened | Data | Grant | Reset | Listen | Listening | NotListening | Call


@dataclass(frozen=True, slots=True)
class Message:
    """One message; the views in its frames lie in what it was decoded from."""

    kind: MessageKind
    session: int
    number: int
    """Of the request; its answer has the same."""
    frames: tuple[Frame, ...] = ()
    is_first: bool = False
    """Requests: it may begin a session; all may, until an answer has come."""
    is_again: bool = False
    """Requests: something was lost; say again what was not acknowledged."""
    hold_ms: int = 0
    """Requests: for so long the answer may wait for something to say."""
    answer_bytes: int = 0
    """Requests: how large the answer may be."""


def encode_message(message: Message) -> bytes:
    """Return the bytes of a message; the pieces of its data are copied once.

    Raises:
        LocalMisuseError: a value does not fit its field.
    """
    head = _HEAD.pack(
        MAGIC,
        VERSION,
        message.kind | _FIRST * message.is_first | _AGAIN * message.is_again,
        message.session,
        message.number,
        message.hold_ms,
        message.answer_bytes,
    )
    parts: list[Buffer] = [head]
    for frame in message.frames:
        _encode_frame(frame, parts)
    return b"".join(parts)


def encoded_bytes(frames: Iterable[Frame]) -> int:
    """Return how many bytes frames take in a message."""
    parts: list[Buffer] = []
    for frame in frames:
        _encode_frame(frame, parts)
    return sum(len(part) for part in parts)


def decode_message(data: Buffer) -> Message:
    """Return the message that all of `data` is; the data frames are views into it.

    Raises:
        ProtocolError: it is none.
    """
    view = memoryview(data)
    if len(view) < HEAD_BYTES:
        raise ProtocolError("stream_cut", f"{len(view)} bytes, a head has {HEAD_BYTES}")
    magic, version, kind, session, number, hold_ms, answer_bytes = _HEAD.unpack_from(view)
    if magic != MAGIC or version != VERSION:
        raise ProtocolError("stream_version", "no message of this protocol and version")
    flags = kind & (_FIRST | _AGAIN)
    known = _member(MessageKind, kind & ~flags, "stream_kind")
    if flags and known is not MessageKind.REQUEST:
        raise ProtocolError("stream_kind", "an answer with the flags of a request")
    return Message(
        known,
        session,
        number,
        _decode_frames(view[HEAD_BYTES:]),
        bool(flags & _FIRST),
        bool(flags & _AGAIN),
        hold_ms,
        answer_bytes,
    )


def cut_text(text: str) -> str:
    """Return `text` as far as a frame carries it."""
    printable = "".join(one if one.isprintable() else " " for one in text)
    return printable.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


def _encode_frame(frame: Frame, parts: list[Buffer]) -> None:
    flags, stream = 0, 0
    body: Sequence[Buffer]
    match frame:
        case Data(stream, offset, pieces, is_last):
            flags = _LAST if is_last else 0
            type_, body = FrameType.DATA, (_U64.pack(offset), *pieces)
        case Grant(stream, received, window):
            type_, body = FrameType.GRANT, (_TWO_U64.pack(received, window),)
        case Open(stream, host, port, window):
            type_, body = FrameType.OPEN, (_OPEN.pack(window, port), _host_bytes(host))
        case Call(stream, host, port, window):
            type_, body = FrameType.CALL, (_OPEN.pack(window, port), _host_bytes(host))
        case Opened(stream, window):
            type_, body = FrameType.OPENED, (_U64.pack(window),)
        case Reset(stream, code, text):
            type_, body = FrameType.RESET, (bytes((code,)), cut_text(text).encode())
        case Listen(stream):
            type_, body = FrameType.LISTEN, ()
        case Listening(stream):
            type_, body = FrameType.LISTENING, ()
        case NotListening(stream, code, text):
            type_, body = FrameType.NOT_LISTENING, (bytes((code,)), cut_text(text).encode())
    parts.append(_FRAME.pack(type_, flags, 0, stream, sum(len(piece) for piece in body)))
    parts.extend(body)


def _host_bytes(host: str) -> bytes:
    encoded = host.encode("utf-8", "replace")
    if not 1 <= len(encoded) <= MAX_HOST_BYTES:
        raise LocalMisuseError(f"a host name of {len(encoded)} bytes; allowed 1..{MAX_HOST_BYTES}")
    return encoded


def _decode_frames(view: memoryview) -> tuple[Frame, ...]:
    frames: list[Frame] = []
    offset = 0
    while offset < len(view):
        if len(frames) >= MAX_FRAMES_COUNT:
            raise ProtocolError("stream_frames", f"more than {MAX_FRAMES_COUNT} frames")
        if len(view) - offset < FRAME_BYTES:
            raise ProtocolError("stream_cut", "a frame's head is cut off")
        type_, flags, zero, stream, length = _FRAME.unpack_from(view, offset)
        offset += FRAME_BYTES
        if zero or flags & ~_LAST or (flags and type_ != FrameType.DATA):
            raise ProtocolError("stream_frame", "bits that must be zero are set")
        if length > len(view) - offset:
            raise ProtocolError("stream_cut", f"a frame of {length} bytes is cut off")
        known_type = _member(FrameType, type_, "stream_frame")
        frames.append(_decode_frame(known_type, flags, stream, view[offset : offset + length]))
        offset += length
    return tuple(frames)


def _decode_frame(type_: FrameType, flags: int, stream: int, body: memoryview) -> Frame:
    match type_:
        case FrameType.DATA:
            offset = _offset(_fixed(body[:8], _U64)[0])
            return Data(stream, offset, (body[8:],), bool(flags & _LAST))
        case FrameType.GRANT:
            received, window = _fixed(body, _TWO_U64)
            return Grant(stream, _offset(received), _offset(window))
        case FrameType.OPEN | FrameType.CALL:
            window, port = _fixed(body[: _OPEN.size], _OPEN)
            host = _text(body[_OPEN.size :], MAX_HOST_BYTES)
            if not host or not port:
                raise ProtocolError("stream_frame", "no host or no port")
            make = Open if type_ is FrameType.OPEN else Call
            return make(stream, host, port, _offset(window))
        case FrameType.OPENED:
            return Opened(stream, _offset(_fixed(body, _U64)[0]))
        case FrameType.RESET:
            return Reset(stream, *_code_and_text(body))
        case FrameType.LISTEN | FrameType.LISTENING:
            if len(body):
                raise ProtocolError("stream_frame", "bytes left over")
            return (Listen if type_ is FrameType.LISTEN else Listening)(_port(stream))
        case FrameType.NOT_LISTENING:
            return NotListening(_port(stream), *_code_and_text(body))


def _fixed(body: memoryview, layout: struct.Struct) -> tuple[int, ...]:
    if len(body) != layout.size:
        raise ProtocolError("stream_frame", f"{len(body)} bytes, expected {layout.size}")
    return layout.unpack(body)


def _offset(value: int) -> int:
    if value > MAX_OFFSET:
        raise ProtocolError("stream_offset", "an offset that no stream reaches")
    return value


def _port(value: int) -> int:
    if not 1 <= value <= 65535:
        raise ProtocolError("stream_frame", f"port {value}")
    return value


def _text(body: memoryview, limit: int) -> str:
    if len(body) > limit:
        raise ProtocolError("stream_text", f"{len(body)} bytes, allowed {limit}")
    try:
        text = str(body, "utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("stream_text", "no UTF-8") from None
    if not text.isprintable():
        raise ProtocolError("stream_text", "control characters")
    return text


def _code_and_text(body: memoryview) -> tuple[ResetCode, str]:
    if not len(body):
        raise ProtocolError("stream_frame", "no code")
    return _member(ResetCode, body[0], "stream_code"), _text(body[1:], MAX_TEXT_BYTES)


def _member(kind: type[EnumT], value: int, reason: str) -> EnumT:
    try:
        return kind(value)
    except ValueError:
        raise ProtocolError(reason, f"unknown value {value}") from None
