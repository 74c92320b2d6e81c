"""The translator's end of a session: requests in, each answered once, when there is something to
say or when it was held for as long as it asked.

Source: docs/protocol/stream.md; docs/decisions/0016.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from packetcloud.chunk.streams.events import ListenWanted, StreamWanted
from packetcloud.chunk.streams.table import StreamTable
from packetcloud.chunk.streams.wire import (
    Data,
    Grant,
    Listen,
    Message,
    MessageKind,
    Open,
    Opened,
    Reset,
    ResetCode,
    encode_message,
)

MAX_HOLD_S = 4.0
"""Below the deadline that routers give a service by default, 10 s, with room for the way."""
MAX_HELD_REQUEST_BYTES = 4096
"""A larger one is answered at once: what is held uses up what a router lets a VI have at a time,
8 MiB of all hosts together."""
MIN_ANSWER_BYTES = 4096
MAX_ANSWER_BYTES = 1044480
"""1 MiB less 4 KiB, as in files: header and head fit what routers take."""
FIRST_CALL = 1 << 31
"""Streams that the translator asks for have numbers from here on, those of the host lower ones."""

TokenT = TypeVar("TokenT")


@dataclass(frozen=True, slots=True)
class Answer(Generic[TokenT]):
    """A message for whoever `token` stands for."""

    token: TokenT
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Held(Generic[TokenT]):
    token: TokenT
    number: int
    until_s: float
    answer_bytes: int


class Answerer(Generic[TokenT]):
    """One session, seen from the translator.

    Events of its streams are in `table.events`.

    Args:
        session: the number that the host chose.
        window_bytes: see `StreamTable`.
        max_streams: returns how many streams the session may have now.
        max_held: returns how many requests may be held now; of more, the oldest is answered.
    """

    def __init__(
        self,
        session: int,
        window_bytes: Callable[[], int],
        max_streams: Callable[[], int],
        max_held: Callable[[], int],
    ) -> None:
        self.session = session
        self.table = StreamTable(window_bytes)
        self.heard_at = -math.inf
        """When the last request came."""
        self.refused_count = 0
        """Streams that were too many."""
        self._max_streams = max_streams
        self._max_held = max_held
        self._held: deque[_Held[TokenT]] = deque()
        self._next_call = FIRST_CALL

    @property
    def held_count(self) -> int:
        return len(self._held)

    def call(self, host: str, port: int) -> int:
        """Ask the host for a stream for who came from `host` to our `port`; returns its number."""
        stream = self._next_call
        self._next_call += 1
        self.table.ask(stream, host, port, is_call=True)
        return stream

    def receive(self, message: Message, size_bytes: int, token: TokenT, now: float) -> None:
        """Take a request of this size; `answers` gives its answer sooner or later."""
        self.heard_at = now
        for frame in message.frames:
            match frame:
                case Open(stream, host, port, window):
                    self._wanted(stream, host, port, window)
                case Opened() | Data() | Grant() | Reset():
                    self.table.receive(frame)
                case Listen(port):
                    self.table.events.append(ListenWanted(port))
                case _:
                    pass  # only the translator says these
        if message.is_again:
            self.table.send_again()
        may_be_held = size_bytes <= MAX_HELD_REQUEST_BYTES
        hold_s = min(message.hold_ms / 1000, MAX_HOLD_S) if may_be_held else 0.0
        most = max(MIN_ANSWER_BYTES, min(message.answer_bytes, MAX_ANSWER_BYTES))
        self._held.append(_Held(token, message.number, now + hold_s, most))

    def answers(self, now: float) -> list[Answer[TokenT]]:
        """Return the answers that are due."""
        due = [held for held in self._held if held.until_s <= now]
        if due:
            self._held = deque(held for held in self._held if held.until_s > now)
        answers = [self._answer(held) for held in due]
        while self._held and (self.table.is_urgent or len(self._held) > self._max_held()):
            answers.append(self._answer(self._held.popleft()))
        return answers

    def give_up(self) -> list[Answer[TokenT]]:
        """Return an answer to every request that is held: there will be no better one."""
        answers = [self._answer(held) for held in self._held]
        self._held.clear()
        return answers

    def next_timeout(self) -> float:
        """Return when `answers` has something to do although nothing happens."""
        return min((held.until_s for held in self._held), default=math.inf)

    def _wanted(self, stream: int, host: str, port: int, window: int) -> None:
        table = self.table
        if stream >= FIRST_CALL or not table.is_new(stream):
            return
        if len(table) >= self._max_streams():
            self.refused_count += 1
            table.say(Reset(stream, ResetCode.TOO_MANY, "no further connections are allowed"))
            return
        table.want(stream, window)
        table.events.append(StreamWanted(stream, host, port))

    def _answer(self, held: _Held[TokenT]) -> Answer[TokenT]:
        frames = tuple(self.table.frames(held.answer_bytes))
        message = Message(MessageKind.ANSWER, self.session, held.number, frames)
        return Answer(held.token, encode_message(message))
