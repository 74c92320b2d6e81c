"""Fillers of the caps of streams, and of translators. Source: chunk/streams/caps.py."""

from __future__ import annotations

from packetcloud.chunk.streams.answerer import FIRST_CALL
from packetcloud.chunk.streams.caller import MAX_STREAMS_COUNT, Caller
from packetcloud.chunk.streams.events import StreamData
from packetcloud.chunk.streams.inbox import MAX_EARLY_COUNT
from packetcloud.chunk.streams.table import MAX_ENDED_COUNT, MAX_UNSAID_COUNT, StreamTable
from packetcloud.chunk.streams.wire import (
    MAX_FRAMES_COUNT,
    Call,
    Data,
    Frame,
    Grant,
    Message,
    MessageKind,
    Reset,
    ResetCode,
    encode_message,
)
from tests.unit.caps.filled import Filled, fills

SESSION = 7


def caller_with(*frames: Frame, caller: Caller | None = None) -> Caller:
    """Return a host that has heard these frames of its translator."""
    caller = Caller(lambda: SESSION) if caller is None else caller
    caller.receive(encode_message(Message(MessageKind.ANSWER, SESSION, 1, frames)), 0.0)
    return caller


@fills("streams", "frames of one message")
def frames() -> Filled:
    """A translator says the same again and again in one message."""

    def hear(count: int) -> tuple[int, int]:
        caller = caller_with(*[Grant(1, 0, 0)] * count)
        return 0 if caller.foreign_count else count, caller.foreign_count

    at_cap, counted = hear(MAX_FRAMES_COUNT)
    beyond, counted_beyond = hear(MAX_FRAMES_COUNT + 1)
    return Filled(
        MAX_FRAMES_COUNT, at_cap, counted, beyond, counted_beyond, hear(1)[0] == 1, left=0
    )


@fills("streams", "streams of a host")
def streams() -> Filled:
    """A translator calls a host that wants one of its ports."""
    caller = Caller(lambda: SESSION)
    caller.listen(80)

    def call(first: int, end: int) -> tuple[int, int]:
        ids = range(FIRST_CALL + first, FIRST_CALL + end)
        caller_with(*(Call(one, "192.0.2.1", 80, 0) for one in ids), caller=caller)
        return len(caller), caller.calls_refused_count

    at_cap, counted = call(0, MAX_STREAMS_COUNT)
    beyond, counted_beyond = call(MAX_STREAMS_COUNT, MAX_STREAMS_COUNT + 9)
    ids = range(FIRST_CALL, FIRST_CALL + MAX_STREAMS_COUNT)
    caller_with(*(Reset(one, ResetCode.ABORTED) for one in ids), caller=caller)
    left = len(caller)
    goes_on = caller.open("example.org", 80, 0.0) > 0
    return Filled(MAX_STREAMS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("streams", "frames besides data that wait to be sent")
def unsaid() -> Filled:
    """A peer speaks of streams that are not."""
    table = StreamTable(lambda: 0)

    def speak(first: int, end: int) -> tuple[int, int]:
        for stream in range(first, end):
            table.receive(Grant(stream, 0, 0))
        return len(table._unsaid), table.unsaid_dropped_count

    at_cap, counted = speak(0, MAX_UNSAID_COUNT)
    beyond, counted_beyond = speak(MAX_UNSAID_COUNT, MAX_UNSAID_COUNT + 9)
    goes_on = len(table.frames(1 << 20)) > 0
    while table.frames(1 << 20):
        pass
    left = len(table._unsaid)
    return Filled(MAX_UNSAID_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("streams", "ended streams remembered")
def ended() -> Filled:
    """Streams come and go; their memory is kept on purpose."""
    table = StreamTable(lambda: 0)

    def come_and_go(first: int, end: int) -> tuple[int, int]:
        for stream in range(first, end):
            table.want(stream, 0)
            table.receive(Reset(stream, ResetCode.ABORTED))
            table.events.clear()
        return len(table._ended), table.forgotten_count

    at_cap, counted = come_and_go(1, MAX_ENDED_COUNT + 1)
    beyond, counted_beyond = come_and_go(MAX_ENDED_COUNT + 1, MAX_ENDED_COUNT + 10)
    goes_on = table.is_new(MAX_ENDED_COUNT + 10)
    return Filled(MAX_ENDED_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, len(table))


@fills("streams", "pieces of one stream that came early")
def early() -> Filled:
    """A peer sends every second byte of one stream."""
    table = StreamTable(lambda: 1 << 20)
    for stream in (1, 2):
        table.want(stream, 0)
        table.accept(stream)
    inbox = table._streams[1].inbox

    def send(first: int, end: int) -> tuple[int, int]:
        for offset in range(first, end):
            table.receive(Data(1, 1 + 2 * offset, (memoryview(b"x"),)))
        return len(inbox._starts) if 1 in table else 0, table.violations_count

    at_cap, counted = send(0, MAX_EARLY_COUNT)
    beyond, counted_beyond = send(MAX_EARLY_COUNT, MAX_EARLY_COUNT + 9)
    table.events.clear()
    table.receive(Data(2, 0, (memoryview(b"x"),)))
    goes_on = any(isinstance(event, StreamData) for event in table.events)
    left = len(table) - 1
    return Filled(MAX_EARLY_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)
