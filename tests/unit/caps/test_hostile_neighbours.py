"""What a hostile neighbour tried once, or could try: each costs the node no more than it sent."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from packetcloud.chunk.hop import door, wire
from packetcloud.chunk.hop.api import HopConfig, Role
from packetcloud.chunk.hop.incoming_transfers import MAX_PARTIALS_COUNT
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason
from tests.unit.caps.hostile import (
    DATAGRAM_BYTES,
    HONEST,
    SHARE_BYTES,
    TWO_SEGMENTS,
    VICTIM,
    Hostile,
    Scene,
)


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
        hostile.ack(sender.flight.next_burst - 1, received_bytes=sender.sent_bytes)
        scene.step(0.005)
    outstanding = sender.transfers.outstanding
    assert len(outstanding) > 4000 and sender.retransmitted_segments > 4000
    assert all(one.acked is None and one.last_burst is None for one in outstanding.values())
    assert scene.honest_goes_on()


def test_half_of_a_chunk_that_is_given_up_leaves_nothing() -> None:
    """Begun and given up ten thousand times: nothing is held and no table grows."""
    scene = Scene()
    hostile = scene.hostile()
    receiver = hostile.theirs.receiver
    for transfer in range(10_000):
        hostile.data(transfer, TWO_SEGMENTS)
        hostile.forget({transfer: TWO_SEGMENTS})
    assert receiver.credit.held_bytes == 0
    assert not receiver.incoming.transfers and not receiver.outcomes.open_count
    assert scene.honest_goes_on()


def half_of_many(scene: Scene, count: int, body_bytes: int) -> Hostile:
    """Return a neighbour that sent the first datagram of `count` bodies."""
    hostile = scene.hostile()
    for transfer in range(count):
        hostile.data(transfer, body_bytes)
    return hostile


def test_ten_thousand_half_chunks_of_one_neighbour_block_nobody() -> None:
    """T-17: memory stays at the cap, others are served at once, and after the time of grace a whole
    chunk of the same neighbour is taken; what gave way is told to it."""
    scene = Scene()
    tracemalloc.start()
    hostile = half_of_many(scene, 10_000, TWO_SEGMENTS)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    receiver = hostile.theirs.receiver
    assert len(receiver.incoming.transfers) == MAX_PARTIALS_COUNT
    assert grown < 16 << 20
    assert scene.honest_goes_on()
    for _ in range(6):
        scene.step(1.0)
        hostile.control(wire.ProbeFrame(0).to_bytes())  # it is there, it only sends no more
    began = scene.now
    bodies = len(scene.uppers[VICTIM].bodies)
    for index in range(2):
        hostile.data(MAX_PARTIALS_COUNT, TWO_SEGMENTS, index)
    assert len(scene.uppers[VICTIM].bodies) == bodies + 1 and scene.now - began < 1.0
    scene.heard.clear()
    scene.step(0.1)
    told = [
        entry
        for address, datagram in scene.heard
        if address == hostile.address and datagram[0] == wire.CONTROL_BYTE
        for frame in wire.decode_control(datagram)
        if isinstance(frame, wire.RefusedFrame)
        for entry in frame.entries
    ]
    assert (0, Reason.STORE_FULL) in told
    assert hostile.theirs.counters()["evicted_transfers"] == 1


def test_half_chunks_that_use_up_the_credit_give_way_to_whole_ones() -> None:
    """24 half chunks of 1 MiB are all the credit; after the time of grace the slowest give way."""
    scene = Scene()
    hostile = half_of_many(scene, 23, 1 << 20)
    for index in range(400):  # this one comes in well
        hostile.data(23, 1 << 20, index)
    receiver = hostile.theirs.receiver
    hostile.data(24, TWO_SEGMENTS)
    assert scene.victim.dropped["over_credit"] == 1 and not receiver.custody.evicted_transfers
    scene.step(6.0)
    hostile.control(wire.BlockedFrame(TWO_SEGMENTS).to_bytes())
    assert receiver.custody.evicted_transfers == 1 and 23 in receiver.incoming.transfers
    for index in range(2):
        hostile.data(24, TWO_SEGMENTS, index)
    assert scene.uppers[VICTIM].bodies[-1] == bytes(TWO_SEGMENTS)


def test_a_look_for_slow_transfers_is_not_to_be_had_for_each_frame() -> None:
    """1000 BLOCKED frames in a moment make the node look once."""
    scene = Scene()
    hostile = half_of_many(scene, 1000, TWO_SEGMENTS)
    hostile.data(1000, 1 << 20)
    receiver = hostile.theirs.receiver
    looks = []
    receiver.incoming.transfers = _Watched(receiver.incoming.transfers, looks)
    for _ in range(10):
        hostile.control(*[wire.BlockedFrame(24 << 20).to_bytes()] * 100)
        hostile.control(*[wire.BlockedFrame(1 << 20).to_bytes()] * 100)
    for transfer in range(1001, 1100):
        hostile.data(transfer, 1 << 20)
    assert scene.victim.dropped["over_credit"] > 70
    assert len(looks) <= 1


class _Watched(dict[int, object]):
    """Notes each look at all that it holds."""

    def __init__(self, content: dict[int, object], looks: list[int]) -> None:
        super().__init__(content)
        self.looks = looks

    def items(self) -> Any:
        self.looks.append(len(self))
        return super().items()


@pytest.mark.parametrize("greedy_count", [1, 2, 6])
def test_half_chunks_of_a_few_keep_nobody_else_out_of_the_memory_for_all(greedy_count: int) -> None:
    """Whoever holds most of unfinished transfers gives way at once to a neighbour below its share,
    and begins again in vain: it is served after the others, not before them."""
    scene = Scene(config=HopConfig(max_held_bytes=24 << 20))
    assert scene.honest_goes_on()
    hostile = [scene.hostile(number + 1) for number in range(greedy_count)]
    for transfer in range(24):
        for neighbour in hostile:
            neighbour.data(transfer, 1 << 20)
    for turn in range(5):
        assert scene.honest_goes_on()
        for neighbour in hostile:
            neighbour.data(100 + turn, 1 << 20)
    assert scene.victim.pool.held_bytes <= 24 << 20
    assert sum(one.theirs.receiver.custody.evicted_transfers for one in hostile) > 0


def test_a_slow_transfer_goes_on_while_nobody_needs_its_room() -> None:
    """A datagram now and then for minutes: slow, but in nobody's way."""
    scene = Scene()
    hostile = scene.hostile()
    body_bytes = 60 * SHARE_BYTES
    for index in range(60):
        hostile.data(0, body_bytes, index)
        hostile.ack(hostile.theirs.sender.flight.next_burst - 1)
        scene.step(5.0)
    assert scene.uppers[VICTIM].bodies[-1] == bytes(body_bytes)
    assert not hostile.theirs.receiver.custody.evicted_transfers


@pytest.mark.parametrize("leaves", [False, True])
def test_a_neighbour_that_took_anothers_session_id_is_in_nobodys_way(
    leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State is keyed by more than an id that a neighbour chose: the word that the other one was
    restarted is still heard, also after the first one left."""
    scene = Scene()
    assert scene.honest_goes_on()
    honest = next(s for s in scene.victim.sessions.values() if s.peer_address == HONEST)
    with monkeypatch.context() as patch:
        patch.setattr(door, "new_session_id", lambda _: honest.remote_id)
        hostile = scene.hostile()
    assert hostile.theirs.remote_id == honest.remote_id
    if leaves:
        hostile.control(wire.CloseFrame("").to_bytes())
        scene.step(0.05)
        assert not hostile.theirs.is_up
    identity = scene.cores[HONEST].identity
    scene.cores[HONEST] = scene.core(HONEST, Role.HOST, None, DATAGRAM_BYTES, identity)
    honest.send(BodyKind.CHUNK, b"", b"x", object())
    scene.step(0.5)
    assert not honest.is_up
    assert scene.uppers[VICTIM].down[-1] == "the neighbour was restarted"
