"""The host's end of a session: it keeps requests outstanding, so that the translator can answer.

The host drives everything: it asks, and a request without an answer means that something was lost
in one direction or the other; then both say again what was not acknowledged.
Source: docs/protocol/stream.md; docs/decisions/0016.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.streams.answerer import (
    FIRST_CALL,
    MAX_ANSWER_BYTES,
    MAX_HELD_REQUEST_BYTES,
    MAX_HOLD_S,
)
from packetcloud.chunk.streams.events import StreamEvent, StreamWanted
from packetcloud.chunk.streams.ports import WantedPorts
from packetcloud.chunk.streams.table import StreamTable
from packetcloud.chunk.streams.wire import (
    HEAD_BYTES,
    MAX_HOST_BYTES,
    Buffer,
    Call,
    Data,
    Grant,
    Listen,
    Listening,
    Message,
    MessageKind,
    NotListening,
    Opened,
    Reset,
    ResetCode,
    decode_message,
    encode_message,
    encoded_bytes,
)

FEWEST_POLLS_COUNT = 2
"""One on its way while the other is held."""
MOST_POLLS_COUNT = 8
"""8 answers of 1 MiB: 1 Gbit/s over 64 ms."""
MAX_PUSHES_COUNT = 16
"""Requests besides, which are answered at once: data, or word of more room."""
MAX_PUSHED_BYTES = 8 << 20
"""What a VI takes at a time by default."""
FIRST_HOLD_S = 0.5
"""Of requests that want a report: without word of them for 1 s they are sent again."""
LOST_AFTER_S = 5.0
"""Without an answer so long after it was due, one of the two is lost; doubled each time."""
LONGEST_LOST_AFTER_S = 20.0
SILENCE_S = 30.0
"""Nothing heard for so long: the translator is gone, and with it the streams."""
STALE_S = 5.0
"""A session in which nothing happened is not used again; translators forget it after 10 s."""
CALM_S = 0.25
"""A poll that is answered early with nothing is one too many: the next waits."""
RETRY_S = 1.0
"""After a refusal of the router."""

MAX_STREAMS_COUNT = 512
TOTAL_WINDOW_BYTES = 128 << 20
"""What all streams together may send us that nobody has read."""
LEAST_WINDOW_BYTES = 64 << 10
"""A stream has this besides, whatever others have: without a window it would stand still."""
MAX_WINDOW_BYTES = 4 << 20
"""Of one stream: 1 Gbit/s over 32 ms."""


@dataclass(frozen=True, slots=True)
class Request:
    """One chunk for the translator."""

    number: int
    payload: bytes
    is_first: bool
    """Nothing has been heard from the translator: ask the network for a report."""


@dataclass(slots=True)
class _Outstanding:
    lost_at: float
    early_until: float
    is_held: bool
    size_bytes: int


class Caller:
    """The streams of a host through one translator.

    Args:
        random_u64: unpredictable; numbers of sessions.
    """

    def __init__(
        self, random_u64: Callable[[], int], max_streams_count: int = MAX_STREAMS_COUNT
    ) -> None:
        self.lost_count = 0
        """Requests that stayed without an answer."""
        self.foreign_count = 0
        """Answers of no session of ours, or malformed."""
        self.sessions_count = 0
        self.asked_again_count = 0
        """Streams that were asked for once more, of a translator that did not know us."""
        self.calls_refused_count = 0
        self._random_u64 = random_u64
        self._max_streams_count = max_streams_count
        self._ports = WantedPorts()
        self._table = StreamTable(self._window_bytes)
        self._next_stream = 1
        self._next_number = 1
        self._quiet_until = -math.inf
        """Nothing is sent before: the router refused something."""
        self._poll_after = -math.inf
        """No poll is sent before: there was one too many."""
        self._begin_session(-math.inf)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def kept_bytes(self) -> int:
        return self._table.kept_bytes

    # streams

    def open(self, host: str, port: int, now: float) -> int:
        """Ask for a stream to a TCP server, and return its number.

        Raises:
            LocalMisuseError: the name is too long or no text, or too many streams are open.
        """
        if not 1 <= len(host.encode("utf-8", "replace")) <= MAX_HOST_BYTES:
            raise LocalMisuseError(f"a host name of 1 to {MAX_HOST_BYTES} bytes is needed")
        if not host.isprintable() or not 1 <= port <= 65535:
            raise LocalMisuseError("a host name without control characters and a port are needed")
        if len(self._table) >= self._max_streams_count:
            raise LocalMisuseError(f"{self._max_streams_count} connections are open already")
        is_idle = not len(self._table) and not len(self._ports)
        if is_idle and now - self._heard_at > STALE_S:
            self._begin_session(now)
        stream = self._next_stream
        self._next_stream = stream + 1 if stream + 1 < FIRST_CALL else 1
        self._table.ask(stream, host, port)
        return stream

    def listen(self, port: int) -> None:
        """Ask for the connections that come in at `port` of the translator."""
        self._ports.want(port)
        self._table.say(Listen(port))

    def unlisten(self, port: int) -> None:
        """Want no more connections of a port. The translator keeps it while the session lasts."""
        self._ports.leave(port)

    def accept(self, stream: int) -> None:
        self._table.accept(stream)

    def room(self, stream: int) -> int:
        return self._table.room(stream)

    def put(self, stream: int, data: Buffer) -> None:
        self._table.put(stream, data)

    def finish(self, stream: int) -> None:
        self._table.finish(stream)

    def consume(self, stream: int, count: int) -> None:
        self._table.consume(stream, count)

    def reset(self, stream: int, code: ResetCode, text: str = "") -> None:
        self._table.reset(stream, code, text)

    def next_event(self) -> StreamEvent | None:
        return self._table.events.popleft() if self._table.events else None

    # the network

    def receive(self, payload: Buffer, now: float) -> None:
        """Take an answer; it may be repeated, late, or none at all."""
        try:
            message = decode_message(payload)
        except ProtocolError:
            self.foreign_count += 1
            return
        if message.session != self._session or message.kind is MessageKind.REQUEST:
            self.foreign_count += 1
            return
        if message.kind is MessageKind.UNKNOWN:
            if message.number in self._outstanding:
                unanswered = self._table.take_unanswered()
                self._end_session("the translator was restarted, or another one answers", now)
                self.asked_again_count += len(unanswered)
                for one in unanswered:
                    self._table.ask_again(one)
            return
        if message.kind is MessageKind.BUSY:
            self._end_session("the translator takes no further hosts now", now)
            self._quiet_until = now + RETRY_S
            return
        self._heard_at = now
        self._is_first = False
        self._lost_in_row = 0
        outstanding = self._outstanding.pop(message.number, None)
        if outstanding is not None and outstanding.is_held:
            self._adapt(outstanding, message, now)
        for frame in message.frames:
            match frame:
                case Call(stream, host, port, window):
                    self._called(stream, host, port, window)
                case Opened() | Data() | Grant() | Reset():
                    self._table.receive(frame)
                case Listening() | NotListening():
                    event = self._ports.hear(frame, now)
                    if event is not None:
                        self._table.events.append(event)
                case _:
                    pass  # only a host says these

    def refused(self, number: int, why: str, now: float) -> None:
        """The network gave up a request."""
        if self._outstanding.pop(number, None) is None:
            return
        self._quiet_until = now + RETRY_S
        if self._is_first:
            self._end_session(why, now)
        else:
            self._lose(1)

    def link_restored(self, now: float) -> None:
        """The session with the router was lost and is back: what the router had may be gone."""
        if self._outstanding:
            count = len(self._outstanding)
            self._outstanding.clear()
            self._lose(count)

    def requests(self, now: float) -> list[Request]:
        """Return what to send now."""
        if now < self._quiet_until:
            return []
        requests: list[Request] = []
        table = self._table
        while table.is_urgent and self._may_push():
            requests.append(self._request(now, MAX_ANSWER_BYTES))
        if now >= self._poll_after and (len(table) or len(self._ports)):
            while self._held_count() < self._polls_count:
                requests.append(self._request(now, MAX_HELD_REQUEST_BYTES))
        return requests

    def next_timeout(self) -> float:
        """Return when to call `handle_timeout`."""
        due = min((one.lost_at for one in self._outstanding.values()), default=math.inf)
        due = min(due, self._ports.ask_at)
        is_wanted = self._table.is_urgent or len(self._table) or len(self._ports)
        for when in (self._poll_after, self._quiet_until):
            if when > -math.inf and is_wanted:
                due = min(due, when)
        return due

    def handle_timeout(self, now: float) -> None:
        """Take note of what was lost; `requests` has more afterwards."""
        if now >= self._poll_after:
            self._poll_after = -math.inf
        if now >= self._quiet_until:
            self._quiet_until = -math.inf
        if now >= self._ports.ask_at:
            self._ports.ask_at = math.inf
            self._ask_for_ports()
        lost = [number for number, one in self._outstanding.items() if one.lost_at <= now]
        if not lost:
            return
        for number in lost:
            del self._outstanding[number]
        if now - self._heard_at >= SILENCE_S:
            self._end_session(f"nothing heard from the translator for {SILENCE_S:.0f} s", now)
        else:
            self._lose(len(lost))

    # inside

    def _window_bytes(self) -> int:
        share = TOTAL_WINDOW_BYTES // max(1, len(self._table))
        free = TOTAL_WINDOW_BYTES - self._table.promised_bytes
        return min(MAX_WINDOW_BYTES, max(LEAST_WINDOW_BYTES, min(share, free)))

    def _begin_session(self, now: float) -> None:
        self._session = self._random_u64()
        self._heard_at = now
        self._is_first, self._is_again = True, False
        self._lost_in_row = 0
        self._polls_count = FEWEST_POLLS_COUNT
        self._poll_after = -math.inf
        self._outstanding: dict[int, _Outstanding] = {}
        events = self._table.events
        self._table = StreamTable(self._window_bytes)
        self._table.events = events
        self.sessions_count += 1
        self._ports.begin_session()
        self._ask_for_ports()

    def _end_session(self, why: str, now: float) -> None:
        self._table.fail_all(ResetCode.TRANSLATOR_LOST, why)
        self._begin_session(now)

    def _lose(self, count: int) -> None:
        self.lost_count += count
        self._lost_in_row += 1
        self._is_again = True
        self._table.send_again()
        self._ask_for_ports()

    def _ask_for_ports(self) -> None:
        for listen in self._ports.asked():
            self._table.say(listen)

    def _called(self, stream: int, host: str, port: int, window: int) -> None:
        table = self._table
        if stream < FIRST_CALL or not table.is_new(stream):
            return
        if port not in self._ports or len(table) >= self._max_streams_count:
            self.calls_refused_count += 1
            is_full = port in self._ports
            code = ResetCode.TOO_MANY if is_full else ResetCode.NOT_ALLOWED
            table.say(Reset(stream, code))
            return
        table.want(stream, window)
        table.events.append(StreamWanted(stream, host, port))

    def _adapt(self, answered: _Outstanding, message: Message, now: float) -> None:
        """Keep more requests outstanding while they bring data, fewer when they bring nothing."""
        if message.frames:
            self._polls_count = min(MOST_POLLS_COUNT, self._polls_count + 1)
            return
        self._polls_count = max(FEWEST_POLLS_COUNT, self._polls_count - 1)
        if now < answered.early_until:
            self._poll_after = now + CALM_S

    def _held_count(self) -> int:
        return sum(one.is_held for one in self._outstanding.values())

    def _may_push(self) -> bool:
        pushes = [one for one in self._outstanding.values() if not one.is_held]
        pushed_bytes = sum(one.size_bytes for one in pushes)
        return len(pushes) < MAX_PUSHES_COUNT and pushed_bytes < MAX_PUSHED_BYTES

    def _request(self, now: float, most_bytes: int) -> Request:
        if self._is_first and not self._outstanding:
            self._heard_at = now
        frames = tuple(self._table.frames(most_bytes))
        number = self._next_number
        self._next_number += 1
        is_again, self._is_again = self._is_again, False
        is_small = HEAD_BYTES + encoded_bytes(frames) <= MAX_HELD_REQUEST_BYTES
        is_held = is_small and self._held_count() < self._polls_count
        longest_s = FIRST_HOLD_S if self._is_first else MAX_HOLD_S
        hold_s = longest_s if is_held else 0.0
        message = Message(
            MessageKind.REQUEST,
            self._session,
            number,
            frames,
            self._is_first,
            is_again,
            int(hold_s * 1000),
            MAX_ANSWER_BYTES,
        )
        payload = encode_message(message)
        patience_s = min(LONGEST_LOST_AFTER_S, LOST_AFTER_S * (1 << min(self._lost_in_row, 8)))
        self._outstanding[number] = _Outstanding(
            now + hold_s + patience_s, now + hold_s / 2, is_held, len(payload)
        )
        return Request(number, payload, self._is_first)
