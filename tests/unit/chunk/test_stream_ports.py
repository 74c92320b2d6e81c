"""Ports of a translator that a host asks for: what was refused for now is asked for again."""

from __future__ import annotations

from packetcloud.chunk.streams.caller import RETRY_S, Caller
from packetcloud.chunk.streams.events import PortListening, PortRefused
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
    """Its program hears nothing of it; one that is refused for good is asked for once."""
    caller = Caller(lambda: SESSION)
    for port in (80, 81):
        caller.listen(port)
    assert asked(caller, 0.0) == [80, 81]
    for turn in (1.0, 1.0 + RETRY_S):
        refused = NotListening(81, ResetCode.NOT_ALLOWED, "no")
        hear(caller, turn, NotListening(80, ResetCode.TOO_MANY, "not now"), refused)
        assert caller.next_timeout() <= turn + RETRY_S
        assert asked(caller, turn + RETRY_S / 2) == []
        assert asked(caller, turn + RETRY_S) == [80]
    hear(caller, 3.5, Listening(80))
    assert asked(caller, 3.5 + RETRY_S) == []
    events = iter(caller.next_event, None)
    assert list(events) == [PortRefused(81, ResetCode.NOT_ALLOWED, "no"), PortListening(80)]


def test_a_port_that_is_not_wanted_any_more_is_not_asked_for_again() -> None:
    """The time to ask comes, and there is nothing to ask for."""
    caller = Caller(lambda: SESSION)
    caller.listen(80)
    assert asked(caller, 0.0) == [80]
    hear(caller, 1.0, NotListening(80, ResetCode.TOO_MANY))
    caller.unlisten(80)
    assert asked(caller, 1.0 + RETRY_S) == []
