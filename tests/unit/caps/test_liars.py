"""Neighbours that lie in their acknowledgements: they are left, or they achieve nothing."""

from __future__ import annotations

from typing import Any

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import HopConfig
from packetcloud.chunk.hop.suites import Suite
from packetcloud.chunk.messages import BodyKind
from tests.unit.caps.hostile import HONEST, Scene
from tests.unit.chunk.hop.hop_link import A, B, Link

MIB = 1 << 20


def sealed_link(seed: int) -> Link:
    link = Link(seed, config=HopConfig(), delay_s=0.02)
    session = link.connect()
    assert session.suite is not Suite.OPEN
    return link


def carry(link: Link, count: int, ahead: int) -> bool:
    """Have B send `count` bodies to A, whose ACKs name bursts `ahead` of what arrived.

    Returns whether B still has the session at the end.
    """
    (ours,) = link.cores[A].sessions.values()
    (theirs,) = link.cores[B].sessions.values()
    for _ in range(count):
        theirs.send(BodyKind.CHUNK, b"", bytes(100_000), object())
    receiver = ours.receiver
    take_ack = receiver.acks.take

    def lie(now: float, *others: Any) -> list[bytes]:
        honest = receiver.acks.largest_burst
        newest = theirs.sender.flight.next_burst - 1  # it guesses well: never too far ahead
        receiver.acks.largest_burst = min(honest + ahead, newest)
        try:
            return take_ack(now, *others)
        finally:
            receiver.acks.largest_burst = honest

    if ahead:
        acks: Any = receiver.acks
        acks.take = lie
    settled = link.uppers[B].settled
    link.run(lambda: not theirs.is_up or len(settled) == count, 120)
    return theirs.is_up


@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_whoever_acknowledges_ahead_is_left(seed: int, ahead: int) -> None:
    """T-11: ACKs that name bursts before they arrive end the session within some hundred bursts,
    with a word why; the bodies that were under way are settled as lost, and none twice."""
    link = sealed_link(seed)
    assert not carry(link, 2000, ahead)
    (theirs,) = link.cores[B].sessions.values() or [None]
    link.pump()
    assert link.cores[B].dropped["lying_ack"] == 1
    assert "acknowledges what was never sent" in link.uppers[B].down[-1]
    assert theirs is None or theirs.sender.flight.next_burst < 1000
    settled = link.uppers[B].settled
    assert len({id(token) for token, _, _ in settled}) == len(settled) == 2000


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_neighbour_is_not_left(seed: int) -> None:
    """The same without the lie: numbers are left out, and nobody notices."""
    link = sealed_link(seed)
    assert carry(link, 400, 0)
    (theirs,) = link.cores[B].sessions.values()
    assert theirs.sender.flight.skipped, "some numbers were left out"
    assert not link.cores[B].dropped["lying_ack"]
    assert theirs.sender.retransmitted_segments == 0


def test_an_ack_for_another_session_changes_nothing() -> None:
    """T-11: a neighbour that knows another's session id acknowledges in its place, in vain."""
    scene = Scene()
    assert scene.honest_goes_on()
    hostile = scene.hostile()
    honest = next(s for s in scene.victim.sessions.values() if s.peer_address == HONEST)
    honest.send(BodyKind.CHUNK, b"", bytes(MIB), object())
    scene.pump()
    flight, transfers = honest.sender.flight, honest.sender.transfers
    before = (flight.largest_acked, transfers.done_below, transfers.credit_limit)
    frame = wire.AckFrame(flight.next_burst - 1, 0, MIB, 1 << 60, 1 << 30, 1)
    hostile.send(wire.encode_control(honest.local_id, 0, [frame.to_bytes()]))
    assert (flight.largest_acked, transfers.done_below, transfers.credit_limit) == before
    assert honest.is_up and scene.honest_goes_on()


def test_an_ack_beyond_what_was_sent_changes_nothing() -> None:
    """T-11: bursts and transfers that are yet to come are dropped, with what else the ACK says."""
    scene = Scene()
    hostile = scene.hostile()
    flight, transfers = hostile.theirs.sender.flight, hostile.theirs.sender.transfers
    hostile.theirs.send(BodyKind.CHUNK, b"", bytes(MIB), object())
    scene.pump()
    before = (flight.largest_acked, transfers.done_below, len(transfers.outstanding))
    for burst, below in ((1000, 0), (1, 1000), (0x7FFF_FFFF, 0), (1, 0x7FFF_FFFF)):
        hostile.ack(burst, below, received_bytes=1 << 50)
    assert (flight.largest_acked, transfers.done_below, len(transfers.outstanding)) == before
    assert scene.victim.dropped["optimistic_ack"] == 4
    assert scene.honest_goes_on()
