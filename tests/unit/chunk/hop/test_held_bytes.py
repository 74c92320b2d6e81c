"""What a neighbour may hold at its receiver, and when it gives way."""

from __future__ import annotations

from typing import Any

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import (
    HopConfig,
    Settlement,
)
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason
from tests.unit.chunk.hop.hop_link import A, B, Link


def test_credit_stops_the_sender_and_a_release_lets_it_go_on() -> None:
    """A neighbour that holds its bodies is sent no more than its credit, and more once it lets
    go."""
    link = Link(config=HopConfig(credit_bytes=300_000 + 3 * wire.TAG_BYTES))
    neighbour = link.connect()
    upper = link.uppers[B]
    upper.keeps = True
    for number in range(10):
        neighbour.send(BodyKind.CHUNK, b"", bytes(100_000), number)
    link.run(lambda: len(upper.bodies) == 3)
    link.pass_time(2)
    assert len(upper.bodies) == 3
    upper.keep.pop(0).release()
    link.run(lambda: len(upper.bodies) == 4)
    while len(upper.bodies) < 10:
        upper.keep.pop(0).release()
        link.run(lambda: bool(upper.keep))
    for body in upper.keep:
        body.release()
    link.run_until_settled(10)
    assert not link.cores[B].dropped


def test_beyond_what_all_neighbours_may_hold_a_body_is_refused_unread() -> None:
    """One over the cap is refused, and taken once something is released."""
    link = Link(config=HopConfig(max_held_bytes=250_000))
    neighbour = link.connect()
    upper = link.uppers[B]
    upper.keeps = True
    for number in range(3):
        neighbour.send(BodyKind.CHUNK, b"", bytes(100_000), number)
    link.run_until_settled(3)
    assert sorted(link.uppers[A].settled, key=lambda one: str(one[0])) == [
        (0, Settlement.ACCEPTED, 0),
        (1, Settlement.ACCEPTED, 0),
        (2, Settlement.REFUSED, Reason.STORE_FULL),
    ]
    upper.keep.pop().release()
    neighbour.send(BodyKind.CHUNK, b"", bytes(100_000), 3)
    link.run_until_settled(4)
    assert link.uppers[A].settled[-1][1] is Settlement.ACCEPTED


def test_a_neighbour_that_sends_nothing_for_a_while_keeps_no_buffer_ready() -> None:
    """The buffer for its next body goes back to all; the body after that arrives all the same."""
    link = Link(config=HopConfig())
    neighbour = link.connect()
    core = link.cores[B]
    (session,) = core.sessions.values()
    for number in range(2):
        neighbour.send(BodyKind.CHUNK, b"", bytes(1 << 20), number)
        link.run_until_settled(number + 1)
        assert session.receiver.incoming.landing() is not None
        free_bytes = core.pool.free_bytes
        link.pass_time(10.0)
        assert session.is_up and session.receiver.incoming.landing() is None
        assert core.pool.free_bytes > free_bytes + (1 << 20)


def test_a_slow_transfer_gives_way_to_a_body_of_the_largest_size() -> None:
    """What BLOCKED names is as it travels, so with its tag; one byte more makes nobody give way."""
    link = Link(config=HopConfig(max_body_bytes=100_000, credit_bytes=150_000))
    session = link.connect()
    (theirs,) = link.cores[B].sessions.values()

    def only_first_segments(source: Any, datagram: bytes) -> bool:
        return source != A or datagram[0] != wire.DATA_BYTE or not any(datagram[20:24])

    link.on_datagram = only_first_segments
    session.send(BodyKind.CHUNK, b"", bytes(100_000), "slow")
    link.pass_time(7)
    theirs.receiver.custody.note_blocked(100_000 + wire.TAG_BYTES + 1, link.now)
    assert theirs.counters()["evicted_transfers"] == 0
    theirs.receiver.custody.note_blocked(100_000 + wire.TAG_BYTES, link.now)
    assert theirs.counters()["evicted_transfers"] == 1
