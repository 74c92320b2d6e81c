"""Ports of a translator that a host asks for: what was refused for now is asked for again."""

from __future__ import annotations

from packetcloud.chunk.streams.caller import Caller
from packetcloud.chunk.streams.events import PortBusy, PortListening, PortRefused
from packetcloud.chunk.streams.ports import ASK_AGAIN_S
from packetcloud.chunk.streams.wire import (
    Frame,
    Listen,
    Listening,
    Message,
    MessageKind,
    NotListening,
    ResetCode,
    decode_message,
    encode_message,
)

SESSION = 7


def hear(caller: Caller, now: float, *frames: Frame) -> None:
    caller.receive(encode_message(Message(MessageKind.ANSWER, SESSION, 1, frames)), now)


def asked(caller: Caller, now: float) -> list[int]:
    """Return the ports that the host asks for now."""
    caller.handle_timeout(now)
    messages = [decode_message(one.payload) for one in caller.requests(now)]
    return [frame.port for one in messages for frame in one.frames if isinstance(frame, Listen)]


def test_a_port_that_cannot_be_opened_now_is_asked_for_again() -> None:
    """Its program hears of that once; one that is refused for good is asked for once."""
    caller = Caller(lambda: SESSION)
    for port in (80, 81):
        caller.listen(port)
    assert asked(caller, 0.0) == [80, 81]
    for turn in (1.0, 1.0 + ASK_AGAIN_S):
        refused = NotListening(81, ResetCode.NOT_ALLOWED, "no")
        hear(caller, turn, NotListening(80, ResetCode.TOO_MANY, "not now"), refused)
        assert caller.next_timeout() <= turn + ASK_AGAIN_S
        assert asked(caller, turn + ASK_AGAIN_S / 2) == []
        assert asked(caller, turn + ASK_AGAIN_S) == [80]
    hear(caller, 3.5, Listening(80))
    assert asked(caller, 3.5 + ASK_AGAIN_S) == []
    events = iter(caller.next_event, None)
    assert list(events) == [
        PortBusy(80, "not now"),
        PortRefused(81, ResetCode.NOT_ALLOWED, "no"),
        PortListening(80),
    ]


def test_a_session_that_ended_tells_nothing_twice() -> None:
    """A busy port is told once whoever says so; one that was ours is told when it is again."""
    numbers = iter(range(1, 9))
    caller = Caller(numbers.__next__)

    def say(session: int, *frames: Frame, kind: MessageKind = MessageKind.ANSWER) -> None:
        (number, *_) = [one.number for one in caller.requests(0.0)] or [0]
        caller.receive(encode_message(Message(kind, session, number, frames)), 0.0)

    caller.listen(80)
    say(1, NotListening(80, ResetCode.TOO_MANY, "not now"))
    say(1, kind=MessageKind.UNKNOWN)
    say(2, NotListening(80, ResetCode.TOO_MANY, "not now"))
    say(2, Listening(80))
    say(2, kind=MessageKind.UNKNOWN)
    assert asked(caller, 0.0) == [80]
    say(3, Listening(80))
    assert list(iter(caller.next_event, None)) == [
        PortBusy(80, "not now"),
        PortListening(80),
        PortListening(80),
    ]


def test_a_port_that_is_not_wanted_any_more_is_not_asked_for_again() -> None:
    """The time to ask comes, and there is nothing to ask for."""
    caller = Caller(lambda: SESSION)
    caller.listen(80)
    assert asked(caller, 0.0) == [80]
    hear(caller, 1.0, NotListening(80, ResetCode.TOO_MANY))
    caller.unlisten(80)
    assert asked(caller, 1.0 + ASK_AGAIN_S) == []
