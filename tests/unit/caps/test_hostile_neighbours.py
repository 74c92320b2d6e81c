"""What a hostile neighbour tried once, or could try: each costs the node no more than it sent."""

from __future__ import annotations

import tracemalloc

import pytest

from packetcloud.chunk.messages import BodyKind
from tests.unit.caps.hostile import TWO_SEGMENTS, VICTIM, Scene


@pytest.mark.parametrize("datagram_bytes", [1472, 9000, 65_507])
def test_bodies_of_one_byte_take_no_datagram_of_memory_each(datagram_bytes: int) -> None:
    """T-16: DATA with one byte of body, held above: less than 100 times what was sent."""
    scene = Scene()
    hostile = scene.hostile(datagram_bytes=datagram_bytes)
    scene.uppers[VICTIM].keeps = True
    hostile.data(0, 1)
    tracemalloc.start()
    for transfer in range(1, 1001):
        hostile.data(transfer, 1)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(scene.uppers[VICTIM].keep) == 1001
    assert grown < 100 * 1000 * 29
    for body in scene.uppers[VICTIM].keep:
        assert bytes(body.contiguous()) == b"\0"
        body.release()
    assert scene.victim.pool.held_bytes == 0


def test_an_ack_that_calls_thousands_of_small_bodies_lost_is_cheap() -> None:
    """One ACK of 50 bytes makes no table for each body that it leaves out."""
    scene = Scene()
    hostile = scene.hostile()
    sender = hostile.theirs.sender
    for _ in range(5000):
        hostile.theirs.send(BodyKind.CHUNK, b"", b"x", object())
    for _ in range(50):
        hostile.ack(sender._next_burst - 1, received_bytes=sender.sent_bytes)
        scene.step(0.005)
    assert len(sender._outstanding) > 4000 and sender.retransmitted_segments > 4000
    assert all(one.acked is None and one.last_burst is None for one in sender._outstanding.values())
    assert scene.honest_goes_on()


def test_half_of_a_chunk_that_is_given_up_leaves_nothing() -> None:
    """Begun and given up ten thousand times: nothing is held and no table grows."""
    scene = Scene()
    hostile = scene.hostile()
    receiver = hostile.theirs.receiver
    for transfer in range(10_000):
        hostile.data(transfer, TWO_SEGMENTS)
        hostile.forget({transfer: TWO_SEGMENTS})
    assert receiver.held_bytes == 0
    assert not receiver._incoming and not receiver._done and not receiver._refused
    assert scene.honest_goes_on()
