"""Streams of a session that its translator does not know any more."""

from __future__ import annotations

from itertools import count

import pytest

from packetcloud.chunk.streams.caller import SILENCE_S, Caller
from packetcloud.chunk.streams.events import StreamEvent, StreamFailed, StreamOpened
from packetcloud.chunk.streams.wire import (
    Frame,
    Message,
    MessageKind,
    Open,
    Opened,
    decode_message,
    encode_message,
)


class Host:
    """A caller, and what it says."""

    def __init__(self) -> None:
        self.caller = Caller(count(1).__next__)
        self.asked: list[Message] = []

    def open(self) -> int:
        stream = self.caller.open("example.org", 80, 0.0)
        self.speak()
        return stream

    def speak(self, now: float = 0.0) -> None:
        self.asked += [decode_message(one.payload) for one in self.caller.requests(now)]

    def hear(self, kind: MessageKind, *frames: Frame) -> None:
        """An answer to what was said last."""
        last = self.asked[-1]
        message = Message(kind, last.session, last.number, frames)
        self.caller.receive(encode_message(message), 0.0)
        self.speak()

    def opens(self) -> list[tuple[int, Open]]:
        """Return which streams were asked for, and in which session."""
        return [
            (message.session, frame)
            for message in self.asked
            for frame in message.frames
            if isinstance(frame, Open)
        ]

    def events(self) -> list[StreamEvent]:
        return list(iter(self.caller.next_event, None))


@pytest.fixture
def host() -> Host:
    """A host whose session was answered once, for a stream that is open."""
    host = Host()
    host.hear(MessageKind.ANSWER, Opened(host.open(), 1 << 16))
    host.events()
    return host


def failed(host: Host) -> list[int]:
    return [event.stream for event in host.events() if isinstance(event, StreamFailed)]


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_stream_nobody_answered_for_is_asked_for_again(host: Host, is_finished: bool) -> None:
    """In a new session, under its number; whoever wants it sees nothing of that."""
    stream = host.open()
    if is_finished:
        host.caller.finish(stream)
    before = host.asked[-1].session
    host.hear(MessageKind.UNKNOWN)
    assert failed(host) == [1], "the one that was open"
    after, asked = host.opens()[-1]
    assert (asked.stream, asked.host, asked.port) == (stream, "example.org", 80)
    assert after != before and host.asked[-1].is_first and host.caller.asked_again_count == 1
    host.hear(MessageKind.ANSWER, Opened(stream, 1 << 16))
    assert host.events()[0] == StreamOpened(stream)
    assert bool(host.caller.room(stream)) is not is_finished


def test_a_stream_is_asked_for_twice_at_most(host: Host) -> None:
    """Translators that know nobody, one after the other, are no loop."""
    stream = host.open()
    host.hear(MessageKind.UNKNOWN)
    host.events()
    count_before = len(host.opens())
    host.hear(MessageKind.UNKNOWN)
    assert failed(host) == [stream] and len(host.opens()) == count_before


@pytest.mark.parametrize("is_sent", [False, True])
def test_a_stream_that_was_open_is_never_asked_for_again(host: Host, is_sent: bool) -> None:
    """Whether something was sent on it or not: its server may have acted."""
    if is_sent:
        host.caller.put(1, b"POST / HTTP/1.1\r\n")
    host.caller.link_restored(0.0)
    host.speak()
    host.hear(MessageKind.UNKNOWN)
    assert failed(host) == [1] and len(host.opens()) == 1


def test_a_translator_that_is_full_is_not_asked_again(host: Host) -> None:
    """It has answered."""
    stream = host.open()
    host.hear(MessageKind.BUSY)
    assert failed(host) == [1, stream] and not host.caller.asked_again_count


def test_a_translator_that_says_nothing_is_not_asked_again(host: Host) -> None:
    """Whoever wants the stream has waited long enough."""
    stream = host.open()
    host.caller.handle_timeout(SILENCE_S * 2)
    assert failed(host) == [1, stream] and not host.caller.asked_again_count


def test_a_translator_that_is_not_there_is_not_asked_again() -> None:
    """The network has said why."""
    host = Host()
    stream = host.open()
    host.caller.refused(host.asked[0].number, "there is none", 0.0)
    assert failed(host) == [stream] and not host.caller.asked_again_count
