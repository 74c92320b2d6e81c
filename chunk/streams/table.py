"""The streams of one session, the same at both ends: frames in, events out; frames to send.

A stream is OPENING until the side that was asked for it accepts, then OPEN; each direction ends by
itself. Whoever reset a stream, or has it complete, remembers how it ended for a while, so that a
repeated frame gets the same answer. Source: docs/protocol/stream.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.streams.events import (
    StreamData,
    StreamDone,
    StreamEnded,
    StreamEvent,
    StreamFailed,
    StreamOpened,
    StreamWritable,
)
from packetcloud.chunk.streams.inbox import Inbox
from packetcloud.chunk.streams.outbox import Outbox
from packetcloud.chunk.streams.wire import (
    FRAME_BYTES,
    HEAD_BYTES,
    MAX_HOST_BYTES,
    MAX_TEXT_BYTES,
    Buffer,
    Call,
    Data,
    Frame,
    Grant,
    Listen,
    Listening,
    NotListening,
    Open,
    Opened,
    Reset,
    ResetCode,
)

MAX_ENDED_COUNT = 1024
"""Ended streams that are remembered: half a second of 2000 connections/s. Of an older one a
repeated frame is answered as of one that never was."""
MAX_UNSAID_COUNT = 8192
"""Frames besides data that wait to be sent; a peer that makes us say more hears no more of it."""
LEAST_SHARE_BYTES = 16 << 10
"""Of a message, for each stream that has something to send."""
_FULL_FRAME_BYTES = FRAME_BYTES + MAX_HOST_BYTES + 16
_DATA_FRAME_BYTES = FRAME_BYTES + 8
_GRANT_FRAME_BYTES = FRAME_BYTES + 16


class StreamState(Enum):
    ASKED = "asked"
    """We asked for it."""
    WANTED = "wanted"
    """The other side asks for it."""
    OPEN = "open"


class Stream:
    """One stream, seen from one end."""

    __slots__ = ("first", "id", "inbox", "is_second_try", "outbox", "state")

    def __init__(self, id_: int, state: StreamState, inbox: Inbox, outbox: Outbox) -> None:
        self.id = id_
        self.state = state
        self.inbox = inbox
        self.outbox = outbox
        self.first: Frame | None = None
        """What we said first of it: said again until the other side has said something of it."""
        self.is_second_try = False
        """It was asked for in an earlier session."""


class StreamTable:
    """The streams of one session.

    Args:
        window_bytes: returns how much one stream may send that has not been consumed; asked when it
            begins and whenever something was consumed, `promised_bytes` being those of the others.
        ended_count: how many ended streams are remembered.
    """

    def __init__(self, window_bytes: Callable[[], int], ended_count: int = MAX_ENDED_COUNT) -> None:
        self._window_bytes = window_bytes
        self._ended_count = ended_count
        self._streams: dict[int, Stream] = {}
        self._ended: dict[int, Frame] = {}
        """What to say of streams that are no more."""
        self._unsaid: dict[tuple[str, int], Frame] = {}
        self._owed: dict[int, None] = {}
        """Streams with a grant to tell, when a message goes anyway."""
        self._ready: dict[int, None] = {}
        """Streams with data to send, in turn."""
        self._is_urgent = False
        self._newest_wanted = 0
        self.outgoing_bytes = 0
        """What was put and is not acknowledged, of all streams."""
        self.promised_bytes = 0
        """What the other side may send, or has sent, that nobody has taken, of all streams."""
        self.events: deque[StreamEvent] = deque()
        self.unsaid_dropped_count = 0
        self.forgotten_count = 0
        """Ended streams that are not remembered any more."""
        self.violations_count = 0
        """Streams that were reset because the other side did what it may not."""

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, stream: int) -> bool:
        return stream in self._streams

    @property
    def is_urgent(self) -> bool:
        """True when something should be sent now."""
        return bool(self._ready or self._unsaid or self._is_urgent)

    @property
    def kept_bytes(self) -> int:
        """What lies in all streams; O(streams)."""
        return sum(one.inbox.kept_bytes + one.outbox.kept_bytes for one in self._streams.values())

    def ids(self) -> tuple[int, ...]:
        return tuple(self._streams)

    # what the owner of the streams does

    def ask(self, stream: int, host: str, port: int, *, is_call: bool = False) -> None:
        """Ask the other side for a stream to `host`; a call says who came from there."""
        window = self._window_bytes()
        self.promised_bytes += window
        one = Stream(stream, StreamState.ASKED, Inbox(window), Outbox())
        one.first = (Call if is_call else Open)(stream, host, port, window)
        self._streams[stream] = one
        self.say(one.first)

    def take_unanswered(self) -> list[Stream]:
        """Take out the streams that may be asked for in another session: once each.

        Nothing was heard of them, so nothing was sent on them.
        """
        asked = [one for one in self._streams.values() if one.state is StreamState.ASKED]
        unanswered = [one for one in asked if not one.is_second_try]
        for one in unanswered:
            self._forget(one.id, Reset(one.id, ResetCode.ABORTED))
        return unanswered

    def ask_again(self, one: Stream) -> None:
        """Ask for a stream that another session's table gave out."""
        assert isinstance(one.first, Open), "we asked for it"
        self.ask(one.id, one.first.host, one.first.port)
        again = self._streams[one.id]
        again.outbox, again.is_second_try = one.outbox, True

    def is_new(self, stream: int) -> bool:
        """Tell whether the other side asks for this stream for the first time.

        Of one that is known, or so old that it may be forgotten, what there is to say is said.
        """
        known = self._streams.get(stream)
        if known is not None:
            if known.first is not None:
                self.say(known.first)
            return False
        if stream in self._ended or stream <= self._newest_wanted - self._ended_count // 2:
            self.say(self._ended.get(stream, Reset(stream, ResetCode.UNKNOWN_STREAM)))
            return False
        return True

    def want(self, stream: int, window: int) -> None:
        """The other side asks for a new stream."""
        self._newest_wanted = max(self._newest_wanted, stream)
        self._streams[stream] = Stream(stream, StreamState.WANTED, Inbox(0), Outbox(window))

    def accept(self, stream: int) -> None:
        """Let the stream begin that the other side asked for."""
        one = self._one(stream)
        if one.state is not StreamState.WANTED:
            raise LocalMisuseError(f"stream {stream} is {one.state.value}, not wanted")
        window = self._window_bytes()
        one.state = StreamState.OPEN
        one.inbox.window = one.inbox.told_window = window
        self.promised_bytes += window
        one.first = Opened(stream, window)
        self.say(one.first)
        if one.outbox.has_more:
            self._ready[stream] = None
        if one.outbox.room:
            self.events.append(StreamWritable(stream))

    def room(self, stream: int) -> int:
        """Return how many bytes the stream takes now; 0 when it is no more."""
        one = self._streams.get(stream)
        return 0 if one is None or one.state is not StreamState.OPEN else one.outbox.room

    def put(self, stream: int, data: Buffer) -> None:
        """Send a copy of `data`, which must fit `room`."""
        self._one(stream).outbox.put(data)
        self.outgoing_bytes += len(data)
        self._ready[stream] = None

    def finish(self, stream: int) -> None:
        """Send the end; harmless when the stream is no more."""
        one = self._streams.get(stream)
        if one is not None and not one.outbox.has_ended:
            one.outbox.finish()
            if one.state is StreamState.OPEN:
                self._ready[stream] = None

    def consume(self, stream: int, count: int) -> None:
        """The application has taken `count` bytes; harmless when the stream is no more."""
        one = self._streams.get(stream)
        if one is None:
            return
        # What it has itself is not taken from it.
        self.promised_bytes -= one.inbox.promised_bytes
        one.inbox.consume(count, self._window_bytes())
        self.promised_bytes += one.inbox.promised_bytes
        self._owe(one)
        self._retire_if_done(one)

    def reset(self, stream: int, code: ResetCode, text: str = "") -> None:
        """End the stream at once, and say why; harmless when it is no more."""
        if stream in self._streams:
            frame = Reset(stream, code, text)
            self._forget(stream, frame)
            self.say(frame)

    # what the other side says

    def receive(self, frame: Frame) -> None:
        """Take a frame about a stream: OPENED, DATA, GRANT or RESET."""
        assert isinstance(frame, Opened | Data | Grant | Reset), "others are the session's"
        one = self._streams.get(frame.stream)
        if one is None:
            self._answer_for_ended(frame)
            return
        if one.state is StreamState.ASKED and not isinstance(frame, Reset):
            one.state, one.first = StreamState.OPEN, None
            if one.outbox.has_more:
                self._ready[one.id] = None
            self.events.append(StreamOpened(one.id))
        try:
            match frame:
                case Opened():
                    self._acknowledged(one, 0, frame.window)
                case Data() if one.state is StreamState.WANTED:
                    raise ProtocolError("stream_state", "data before the stream was accepted")
                case Data():
                    self._arrived(one, frame)
                case Grant():
                    self._acknowledged(one, frame.received, frame.window)
                case Reset():
                    self._fail(one, frame.code, frame.text, Reset(one.id, ResetCode.ABORTED))
        except ProtocolError as error:
            self.violations_count += 1
            answer = Reset(one.id, ResetCode.PROTOCOL_ERROR, str(error))
            self._fail(one, ResetCode.PROTOCOL_ERROR, str(error), answer)
            self.say(answer)

    def send_again(self) -> None:
        """Something was lost: say again all that the other side has not acknowledged."""
        for one in self._streams.values():
            if one.first is not None:
                self.say(one.first)
            if one.state is StreamState.OPEN:
                one.outbox.send_again()
                self._owed[one.id] = None
                if one.outbox.has_more:
                    self._ready[one.id] = None
        self._is_urgent = True

    def fail_all(self, code: ResetCode, text: str) -> None:
        """The other side is gone: end every stream without a word to it."""
        for one in list(self._streams.values()):
            self._fail(one, code, text, Reset(one.id, code, text))

    # what to send

    def say(self, frame: Frame) -> None:
        """Send this frame with the next message."""
        match frame:
            case Listen(number) | Listening(number) | NotListening(number):
                key = (type(frame).__name__, number)
            case _:
                key = (type(frame).__name__, frame.stream)
        if key not in self._unsaid and len(self._unsaid) >= MAX_UNSAID_COUNT:
            self.unsaid_dropped_count += 1
            return
        self._unsaid[key] = frame

    def frames(self, most_bytes: int) -> list[Frame]:
        """Return what to send in a message of at most `most_bytes`, and count it as sent."""
        left = most_bytes - HEAD_BYTES
        frames: list[Frame] = []
        while self._unsaid and left >= _FULL_FRAME_BYTES:
            key = next(iter(self._unsaid))
            frames.append(self._unsaid.pop(key))
            left -= _FULL_FRAME_BYTES
        while self._owed and left >= _GRANT_FRAME_BYTES:
            stream = next(iter(self._owed))
            del self._owed[stream]
            frames.append(self._grant(self._streams[stream]))
            left -= _GRANT_FRAME_BYTES
        if not self._owed:
            self._is_urgent = False
        self._add_data(frames, left)
        return frames

    def _add_data(self, frames: list[Frame], left: int) -> None:
        share = max(LEAST_SHARE_BYTES, left // len(self._ready)) if self._ready else 0
        while self._ready and left > _DATA_FRAME_BYTES:
            stream = next(iter(self._ready))
            del self._ready[stream]
            outbox = self._streams[stream].outbox
            data = outbox.take(stream, min(share, left) - _DATA_FRAME_BYTES)
            if data is not None:
                frames.append(data)
                left -= _DATA_FRAME_BYTES + sum(len(piece) for piece in data.pieces)
            if outbox.has_more:
                self._ready[stream] = None

    def _grant(self, one: Stream) -> Grant:
        one.inbox.told_window = one.inbox.window
        return Grant(one.id, one.inbox.received, one.inbox.window)

    # inside

    def _one(self, stream: int) -> Stream:
        one = self._streams.get(stream)
        if one is None:
            raise LocalMisuseError(f"stream {stream} is no more")
        return one

    def _acknowledged(self, one: Stream, received: int, window: int) -> None:
        had_room = one.outbox.room > 0
        kept_bytes = one.outbox.kept_bytes
        one.outbox.acknowledge(received, window)
        self.outgoing_bytes += one.outbox.kept_bytes - kept_bytes
        if received:
            one.first = None
        if not one.outbox.has_more:
            self._ready.pop(one.id, None)
        if not had_room and one.outbox.room and one.state is StreamState.OPEN:
            self.events.append(StreamWritable(one.id))
        self._retire_if_done(one)

    def _arrived(self, one: Stream, data: Data) -> None:
        had_ended = one.inbox.has_ended
        pieces = one.inbox.take(data)
        one.first = None
        if pieces:
            self.events.append(StreamData(one.id, tuple(pieces)))
        self._owe(one)
        if one.inbox.has_ended and not had_ended:
            self._is_urgent = True
            self.events.append(StreamEnded(one.id))
        self._retire_if_done(one)

    def _owe(self, one: Stream) -> None:
        """Tell the other side what came and what it may send: soon when it may wait for that."""
        self._owed[one.id] = None
        inbox = one.inbox
        if inbox.window - inbox.told_window >= max(1, inbox.promised_bytes // 4):
            self._is_urgent = True

    def _retire_if_done(self, one: Stream) -> None:
        inbox = one.inbox
        is_consumed = inbox.has_ended and inbox.consumed >= inbox.received - 1
        if is_consumed and one.outbox.is_done and one.id in self._streams:
            last = self._grant(one)
            self._forget(one.id, last)
            self.say(last)
            self.events.append(StreamDone(one.id))

    def _fail(self, one: Stream, code: ResetCode, text: str, answer: Frame) -> None:
        self._forget(one.id, answer)
        self.events.append(StreamFailed(one.id, code, text))

    def _forget(self, stream: int, answer: Frame) -> None:
        one = self._streams.pop(stream)
        self.outgoing_bytes -= one.outbox.kept_bytes
        self.promised_bytes -= one.inbox.promised_bytes
        self._owed.pop(stream, None)
        self._ready.pop(stream, None)
        self._ended[stream] = answer
        while len(self._ended) > self._ended_count:
            del self._ended[next(iter(self._ended))]
            self.forgotten_count += 1

    def _answer_for_ended(self, frame: Opened | Data | Grant | Reset) -> None:
        """Say how a stream ended to who still speaks of it; a RESET is never answered."""
        if isinstance(frame, Reset):
            return
        answer = self._ended.get(frame.stream)
        if answer is None:
            self.say(Reset(frame.stream, ResetCode.UNKNOWN_STREAM))
        elif isinstance(answer, Reset) or isinstance(frame, Data):
            self.say(answer)


assert FRAME_BYTES + MAX_TEXT_BYTES + 1 <= _FULL_FRAME_BYTES
