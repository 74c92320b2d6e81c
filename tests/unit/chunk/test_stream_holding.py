"""Which requests a translator holds: what is held uses up what its router lets it have."""

from __future__ import annotations

import pytest

from packetcloud.chunk.streams.answerer import MAX_HELD_REQUEST_BYTES, MAX_HOLD_S, Answerer
from packetcloud.chunk.streams.caller import Caller
from packetcloud.chunk.streams.wire import Message, MessageKind, decode_message

SESSION = 7


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_large_request_is_answered_at_once(beyond: int) -> None:
    """Whatever it asks for; one that is small enough is held for as long as may be."""
    answerer = Answerer[str](SESSION, lambda: 1 << 16, lambda: 8, lambda: 16)
    asked = Message(MessageKind.REQUEST, SESSION, 1, (), hold_ms=60_000, answer_bytes=1 << 20)
    answerer.receive(asked, MAX_HELD_REQUEST_BYTES + beyond, "token", 0.0)
    assert len(answerer.answers(0.0)) == beyond and answerer.held_count == 1 - beyond
    assert len(answerer.answers(MAX_HOLD_S)) == 1 - beyond


def test_a_host_asks_for_no_hold_that_it_does_not_get() -> None:
    """Names make a request large, too."""
    caller = Caller(lambda: SESSION)
    for number in range(20):
        caller.open(f"{number:0>200}.example.org", 80, 0.0)
    asked = [(len(one.payload), decode_message(one.payload)) for one in caller.requests(0.0)]
    assert any(size > MAX_HELD_REQUEST_BYTES for size, _ in asked)
    assert all((size <= MAX_HELD_REQUEST_BYTES) == (one.hold_ms > 0) for size, one in asked)
