"""Both ends of a session over a channel that loses, repeats and reorders, on virtual time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

from packetcloud.chunk.streams.answerer import Answerer
from packetcloud.chunk.streams.caller import Caller
from packetcloud.chunk.streams.events import (
    ListenWanted,
    StreamData,
    StreamDone,
    StreamEnded,
    StreamFailed,
    StreamOpened,
    StreamWanted,
)
from packetcloud.chunk.streams.wire import (
    Listening,
    Message,
    MessageKind,
    decode_message,
    encode_message,
)

WINDOW_BYTES = 64 << 10


@dataclass
class Fate:
    """What the channel does with messages."""

    lost: float = 0.0
    repeated: float = 0.0
    longest_s: float = 0.05


@dataclass
class End:
    """An application at one end of one stream."""

    to_send: bytes
    sent: int = 0
    got: bytearray = field(default_factory=bytearray)
    has_ended: bool = False
    is_done: bool = False
    failure: str = ""
    unread: int = 0


class StreamWorld:
    """One host, one translator; each application sends what it is given, then its end.

    Args:
        read_share: of what lies unread, an application reads so much at each look.
    """

    def __init__(self, seed: int, fate: Fate, read_share: float = 1.0) -> None:
        self.now = 0.0
        self.fate = fate
        self.random = Random(seed)
        self.caller = Caller(lambda: self.random.getrandbits(64))
        self.host_ends: dict[int, End] = {}
        self.server_ends: dict[int, End] = {}
        self.answers_to: dict[str, bytes] = {}
        """What a server of this name sends."""
        self.ports_claimed: list[int] = []
        self._read_share = read_share
        self.answerer: Answerer[int] | None = None
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def open(self, name: str, up: bytes, down: bytes) -> int:
        self.answers_to[name] = down
        stream = self.caller.open(name, 80, self.now)
        self.host_ends[stream] = End(up)
        return stream

    def call(self, host: str, port: int, data: bytes) -> int:
        """Somebody comes in at a port of the translator, and sends this."""
        assert self.answerer is not None, "a host has asked for the port"
        stream = self.answerer.call(host, port)
        self.server_ends[stream] = End(data)
        return stream

    def run(self, until_s: float, is_over: Callable[[], bool]) -> None:
        """Go on until `is_over` or the time is up."""
        self._act()
        while self.now < until_s and not is_over():
            came_at = self._queue[0][0] if self._queue else math.inf
            due = min(came_at, self.caller.next_timeout(), self._answerer_due())
            assert due < math.inf, "nothing will ever happen again"
            self.now = max(self.now, due)
            if came_at <= self.now:
                heapq.heappop(self._queue)[2]()
            self.caller.handle_timeout(self.now)
            self._act()

    def restart_translator(self) -> None:
        """Another translator, which knows nothing."""
        self.answerer = None
        self.server_ends.clear()

    def _act(self) -> None:
        for _ in range(50):
            if not (self._host_acts() | self._translator_acts()):
                break

    def _answerer_due(self) -> float:
        return math.inf if self.answerer is None else self.answerer.next_timeout()

    def _host_acts(self) -> bool:
        acted = False
        while (event := self.caller.next_event()) is not None:
            acted = True
            if isinstance(event, StreamWanted):
                self.host_ends[event.stream] = End(self.answers_to["call"])
                self.caller.accept(event.stream)
            elif hasattr(event, "stream"):
                self._note(self.host_ends[event.stream], event)
        for stream, end in self.host_ends.items():
            acted |= self._move(end, stream, self.caller)
        for request in self.caller.requests(self.now):
            acted = True
            self._carry(lambda data=request.payload: self._request_came(data))
        return acted

    def _translator_acts(self) -> bool:
        if self.answerer is None:
            return False
        acted = False
        table = self.answerer.table
        while table.events:
            acted = True
            event = table.events.popleft()
            if isinstance(event, StreamWanted):
                self.server_ends[event.stream] = End(self.answers_to[event.host])
                table.accept(event.stream)
            elif isinstance(event, ListenWanted):
                self.ports_claimed.append(event.port)
                table.say(Listening(event.port))
            elif hasattr(event, "stream") and event.stream in self.server_ends:
                self._note(self.server_ends[event.stream], event)
        for stream, end in self.server_ends.items():
            acted |= self._move(end, stream, table)
        for answer in self.answerer.answers(self.now):
            acted = True
            self._carry(lambda data=answer.payload: self.caller.receive(data, self.now))
        return acted

    def _note(self, end: End, event: object) -> None:
        match event:
            case StreamData(_, pieces):
                for piece in pieces:
                    end.got += piece
                    end.unread += len(piece)
            case StreamEnded():
                end.has_ended = True
            case StreamDone():
                end.is_done = True
            case StreamFailed(_, _, text):
                end.failure = text or "failed"
            case StreamOpened():
                pass

    def _move(self, end: End, stream: int, side: Caller | Answerer) -> bool:
        if end.failure or end.is_done:
            return False
        acted = False
        room = side.room(stream)
        if room and end.sent < len(end.to_send):
            part = end.to_send[end.sent : end.sent + min(room, 7000)]
            side.put(stream, part)
            end.sent += len(part)
            acted = True
        if end.sent == len(end.to_send):
            side.finish(stream)
        if end.unread:
            read = max(1, int(end.unread * self._read_share))
            end.unread -= read
            side.consume(stream, read)
            acted = True
        return acted

    def _request_came(self, data: bytes) -> None:
        message = decode_message(data)
        if message.session != self.caller._session:
            return  # the host does not listen to answers of a session that it has ended
        if self.answerer is None or self.answerer.session != message.session:
            if not message.is_first:
                self._carry(lambda: self.caller.receive(self._unknown(message), self.now))
                return
            self.server_ends.clear()
            self.answerer = Answerer(message.session, lambda: WINDOW_BYTES, lambda: 100, lambda: 16)
        self.answerer.receive(message, len(data), 0, self.now)

    @staticmethod
    def _unknown(message: Message) -> bytes:
        return encode_message(Message(MessageKind.UNKNOWN, message.session, message.number))

    def _carry(self, deliver: Callable[[], None]) -> None:
        copies = 2 if self.random.random() < self.fate.repeated else 1
        for _ in range(copies):
            if self.random.random() >= self.fate.lost:
                self._at(self.now + self.random.uniform(0.001, self.fate.longest_s), deliver)

    def _at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), call))
