"""A proxy between clients and a translator that a test plays; no sockets, no time, no network.

The buffer of each answer is overwritten when it is given back, as the next chunk would do.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any, Protocol

import pytest

from packetcloud.chunk.names import GUID, SID
from packetcloud.chunk.streams.wire import (
    Buffer,
    Data,
    Frame,
    Grant,
    Message,
    MessageKind,
    Open,
    Opened,
    Reset,
    ResetCode,
    decode_message,
    encode_message,
)
from packetcloud.host.proxy import Proxy
from packetcloud.host.proxy_link import TranslatorLink

TRANSLATOR = SID(bytes(19) + b"\x07")
WINDOW = 1 << 20
ROOM = 1 << 30
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Ready(Protocol):
    """A socket that says whether it is ready."""

    @property
    def is_readable(self) -> bool: ...

    room: int
    """How much may be written."""


class FakeSocket:
    """A connected socket: its client says `incoming`, and takes `room` more bytes."""

    _numbers = count(1000)

    def __init__(self, *incoming: bytes, room: int = ROOM) -> None:
        self.incoming = deque(incoming)
        """An empty one is the client's end."""
        self.room = room
        self.taken = b""
        self.has_ended = False
        self.is_closed = False
        self.is_broken = False
        self._number = next(self._numbers)
        self._linger = b""

    @property
    def was_reset(self) -> bool:
        return self.is_closed and self._linger == _RESET_ON_CLOSE

    def fileno(self) -> int:
        return self._number

    def setblocking(self, _: bool) -> None: ...

    def setsockopt(self, _level: int, option: int, value: bytes) -> None:
        if option == socket.SO_LINGER:
            self._linger = value

    def recv(self, most: int) -> bytes:
        if self.is_broken:
            raise ConnectionResetError(104, "Connection reset by peer")
        if not self.incoming:
            raise BlockingIOError
        data = self.incoming.popleft()
        assert len(data) <= most
        return data

    def send(self, data: Buffer) -> int:
        if self.is_broken:
            raise BrokenPipeError(32, "Broken pipe")
        if not self.room:
            raise BlockingIOError
        part = bytes(data[: self.room])
        self.taken += part
        self.room -= len(part)
        return len(part)

    def shutdown(self, _: int) -> None:
        self.has_ended = True

    def close(self) -> None:
        self.is_closed = True

    @property
    def is_readable(self) -> bool:
        return bool(self.incoming or self.is_broken)


class FakeLoop:
    """What happens next, and later; each socket is ready when it says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sockets: dict[int, Ready] = {}
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._timers: list[Any] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[..., None], *args: object) -> Any:
        timer = SimpleNamespace(when=when, call=lambda: call(*args), is_cancelled=False)
        timer.cancel = lambda: setattr(timer, "is_cancelled", True)
        self._timers.append(timer)
        return timer

    def call_later(self, delay_s: float, call: Callable[..., None], *args: object) -> Any:
        return self.call_at(self.now + delay_s, call, *args)

    def call_soon(self, call: Callable[..., None], *args: object) -> Any:
        return self.call_at(self.now, call, *args)

    def add_reader(self, number: int, call: Callable[[], None]) -> None:
        self._readers[number] = call

    def remove_reader(self, number: int) -> None:
        self._readers.pop(number, None)

    def add_writer(self, number: int, call: Callable[[], None]) -> None:
        self._writers[number] = call

    def remove_writer(self, number: int) -> None:
        self._writers.pop(number, None)

    def settle(self) -> None:
        """Go on until nothing happens any more at this time."""
        for _ in range(1000):
            if not self._turn():
                return
        raise AssertionError("it never settles")

    def pass_time(self, seconds: float) -> None:
        """Let the timers of so long run."""
        until = self.now + seconds
        while due := [one.when for one in self._pending() if one.when <= until]:
            self.now = max(self.now, min(due))
            self.settle()
        self.now = until

    def _pending(self) -> list[Any]:
        return [one for one in self._timers if not one.is_cancelled]

    def _turn(self) -> bool:
        calls = [one for one in self._pending() if one.when <= self.now]
        self._timers = [one for one in self._pending() if one.when > self.now]
        for timer in calls:
            if not timer.is_cancelled:
                timer.call()
        ready = [
            (calls_of, number)
            for calls_of, is_ready in (
                (self._readers, lambda one: one.is_readable),
                (self._writers, lambda one: one.room > 0),
            )
            for number in list(calls_of)
            if is_ready(self.sockets[number])
        ]
        for calls_of, number in ready:
            if number in calls_of:
                calls_of[number]()
        return bool(calls or ready)


class ProxyWorld:
    """One proxy; what it asks of the translator is in `frames`, what that says is `answer`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = FakeLoop()
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self.loop)
        self.frames: list[Frame] = []
        self._session = 0
        self._numbers: deque[int] = deque()
        """Of requests that have no answer yet."""
        self._arrived: Callable[[list[Any]], None] = lambda _: None
        endpoint: Any = SimpleNamespace(
            on_chunks=self._on_chunks, send=self._send, is_connected=True
        )
        self.link = TranslatorLink(endpoint, TRANSLATOR)
        self.proxy = Proxy(self.link)

    def client(self, *incoming: bytes, room: int = ROOM) -> FakeSocket:
        """Connect a client, and go on until nothing happens."""
        sock = FakeSocket(*incoming, room=room)
        self.loop.sockets[sock.fileno()] = sock
        self.proxy.take(sock)  # type: ignore[arg-type]  # it plays a socket
        self.loop.settle()
        return sock

    def opened(self, *incoming: bytes, room: int = ROOM) -> tuple[FakeSocket, int]:
        """Connect a client whose first request opens a stream; return both."""
        sock = self.client(*incoming, room=room)
        stream = self.streams()[-1]
        self.answer(Opened(stream, WINDOW))
        return sock, stream

    def answer(self, *frames: Frame) -> None:
        """Say all of this in one message, then give its buffer back."""
        number = self._numbers.popleft()
        message = Message(MessageKind.ANSWER, self._session, number, frames)
        buffer = bytearray(encode_message(message))
        chunk = SimpleNamespace(
            header=SimpleNamespace(source=GUID(TRANSLATOR.value)),
            payload=memoryview(buffer),
            release=lambda: buffer.__setitem__(slice(None), b"\xee" * len(buffer)),
        )
        try:
            self._arrived([chunk])
        except Exception:  # as `Delivery` does
            chunk.release()
        self.loop.settle()

    def streams(self) -> list[int]:
        return [frame.stream for frame in self.frames if isinstance(frame, Open)]

    def resets(self, stream: int) -> list[ResetCode]:
        """Return the codes with which the host reset a stream."""
        return [
            frame.code
            for frame in self.frames
            if isinstance(frame, Reset) and frame.stream == stream
        ]

    def said(self, stream: int) -> bytes:
        """Return what the host sent on a stream."""
        return b"".join(
            bytes(piece)
            for frame in self.frames
            if isinstance(frame, Data) and frame.stream == stream
            for piece in frame.pieces
        )

    def granted(self, stream: int) -> int:
        """Return up to where the translator may send on a stream."""
        return max(
            frame.window
            for frame in self.frames
            if isinstance(frame, Grant | Open) and frame.stream == stream
        )

    def _on_chunks(self, callback: Callable[[list[Any]], None], _: int) -> None:
        self._arrived = callback

    def _send(self, _destination: GUID, payload: bytes, **_more: object) -> Any:
        message = decode_message(payload)
        self._session = message.session
        self._numbers.append(message.number)
        self.frames += message.frames
        return SimpleNamespace(addCallback=lambda *_: None)
