"""Links that alter datagrams, and no checksum: never a body altered, never one stuck."""

from __future__ import annotations

import random

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Settlement
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason
from tests.unit.chunk.hop.hop_link import A, B, Link

SIZES = [1, 700, 1418, 1424, 1425, 2864, 2865, 20_000, 300_000, 1 << 20]


@pytest.mark.parametrize("corruption", [0.02, 0.05])
@pytest.mark.parametrize("datagram_bytes", [1200, 1472, 9000, 65_507])
def test_bodies_survive_corruption(corruption: float, datagram_bytes: int) -> None:
    """Each body arrives once and as it was, and the whole takes no longer than a lossy link's."""
    link = Link(datagram_bytes, corruption=corruption, datagram_bytes=datagram_bytes)
    neighbour = link.connect()
    bodies = [link.random.randbytes(size) for size in SIZES * 2]
    began = link.now
    for number, body in enumerate(bodies):
        neighbour.send(BodyKind.CHUNK, b"", body, number)
    link.run_until_settled(len(bodies), 60)
    assert sorted(link.uppers[B].bodies) == sorted(bodies)
    assert {how for _, how, _ in link.uppers[A].settled} == {Settlement.ACCEPTED}
    assert link.now - began < 20
    assert link.cores[B].stats()["held_bytes"] == 0


@pytest.mark.parametrize("seed", range(12))
def test_bodies_survive_whatever_a_link_does(seed: int) -> None:
    """Loss, repeats, reordering and corruption together: every body once, intact, none missing."""
    chooser = random.Random(seed)
    link = Link(
        seed,
        loss=chooser.choice([0.0, 0.05, 0.2]),
        duplication=chooser.choice([0.0, 0.1]),
        corruption=chooser.choice([0.01, 0.05, 0.1]),
        jitter_s=chooser.choice([0.0, 0.004, 0.02]),
        datagram_bytes=chooser.choice([1200, 1472, 20_000]),
    )
    neighbour = link.connect()
    bodies = [link.random.randbytes(chooser.choice(SIZES[:-1])) for _ in range(40)]
    for number, body in enumerate(bodies):
        neighbour.send(BodyKind.CHUNK, b"", body, number)
    link.run_until_settled(len(bodies), 300)
    assert sorted(link.uppers[B].bodies) == sorted(bodies)
    assert {how for _, how, _ in link.uppers[A].settled} == {Settlement.ACCEPTED}


def test_handshakes_get_through_loss_and_corruption() -> None:
    """50 of 50 handshakes succeed at 30 % loss and 30 % corruption each way."""
    for seed in range(50):
        link = Link(seed, loss=0.3, corruption=0.3)
        assert link.connect().is_up


def test_only_what_was_altered_is_sent_again() -> None:
    """One bit in one of 729 segments: that segment goes out again, and nothing else."""
    link = Link()
    neighbour = link.connect()
    altered: list[int] = []

    def alter(source: object, datagram: bytes) -> bool:
        is_data = source == A and datagram[0] == wire.DATA_BYTE
        if is_data and not altered and wire.DATA_HEADER.unpack_from(datagram)[6] == 333:
            altered.append(1)
            link.put(source, B, datagram[:-1] + bytes([datagram[-1] ^ 1]))
            return False
        return True

    link.on_datagram = alter
    body = link.random.randbytes(1 << 20)
    neighbour.send(BodyKind.CHUNK, b"", body, "x")
    link.run(lambda: bool(link.uppers[A].settled))
    assert link.uppers[B].bodies == [body]
    assert neighbour.sender.retransmitted_segments == 1
    assert link.cores[B].counters()["damaged_segments"] == 1


def test_an_altered_repeat_of_what_was_compared_does_not_refuse_a_good_body(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While digests are compared a right repeat mends one segment, and an altered one of another,
    which was found right already, comes too: the body is taken, not refused as wrongly sealed."""
    link = Link(delay_s=0.005)
    neighbour = link.connect()
    segments: dict[int, bytes] = {}

    def alter(source: object, datagram: bytes) -> bool:
        if source != A or datagram[0] != wire.DATA_BYTE:
            return True
        index = wire.DATA_HEADER.unpack_from(datagram)[6]
        is_first = index not in segments
        segments.setdefault(index, datagram)
        if index == 200 and is_first:
            link.put(source, B, altered(datagram))
        return not (index == 200 and is_first)

    link.on_datagram = alter
    body = link.random.randbytes(400_000)
    neighbour.send(BodyKind.CHUNK, b"", body, "x")
    receiver = next(iter(link.cores[B].sessions.values())).receiver
    link.run(lambda: bool(receiver.repairs.transfers))
    link.receive(B, A, [segments[200]])
    (repair,) = receiver.repairs.transfers.values()
    take_digests = repair.take_digests
    compared: list[int] = []

    def interrupted(frame: wire.DigestsFrame) -> list[int] | None:
        result = take_digests(frame)
        compared.append(frame.first)
        if frame.first == 0:
            link.receive(B, A, [altered(segments[7])])
        return result

    monkeypatch.setattr(repair, "take_digests", interrupted)
    link.run(lambda: bool(link.uppers[A].settled))
    assert len(compared) > 1, "one frame of digests would prove nothing"
    assert link.uppers[A].settled == [("x", Settlement.ACCEPTED, 0)]
    assert link.uppers[B].bodies == [body]


def altered(datagram: bytes) -> bytes:
    """Return a segment of which one bit of the body is another."""
    return datagram[:200] + bytes([datagram[200] ^ 1]) + datagram[201:]


@pytest.mark.parametrize("stride", [1472, 9000, 65_507])
def test_an_altered_repeat_costs_nothing(stride: int) -> None:
    """Every second segment comes twice, then altered: the body is whole without a question."""
    link = Link(datagram_bytes=stride)
    neighbour = link.connect()
    seen: set[int] = set()

    def repeat(source: object, datagram: bytes) -> bool:
        index = wire.DATA_HEADER.unpack_from(datagram.ljust(64))[6]
        if source != A or datagram[0] != wire.DATA_BYTE or index in seen:
            return True
        seen.add(index)
        link.put(source, B, datagram)
        if index % 2:
            link.put(source, B, altered(datagram))
        return False

    link.on_datagram = repeat
    body = link.random.randbytes(300_000)
    neighbour.send(BodyKind.CHUNK, b"", body, "x")
    link.run(lambda: bool(link.uppers[A].settled))
    assert link.uppers[B].bodies == [body]
    assert link.cores[B].counters()["damaged_segments"] == 0


def test_a_body_that_its_sender_seals_wrongly_is_refused() -> None:
    """All digests agree and the tag never does: no question without end, nothing delivered."""
    link = Link()
    neighbour = link.connect()
    assert neighbour.sender.transfers._ring is not None
    other = Link(2).connect()
    assert other.sender.transfers._ring is not None
    neighbour.sender.transfers._ring.send.body_streams = (
        other.sender.transfers._ring.send.body_streams
    )
    neighbour.send(BodyKind.CHUNK, b"", bytes(100_000), "x")
    link.run(lambda: bool(link.uppers[A].settled))
    assert link.uppers[A].settled == [("x", Settlement.REFUSED, Reason.DIGEST_MISMATCH)]
    assert not link.uppers[B].bodies and link.cores[B].stats()["held_bytes"] == 0


def test_questions_for_digests_are_answered_at_a_bounded_rate() -> None:
    """A neighbour that asks for ever costs no more than one that asks 200 times a second."""
    link = Link()
    neighbour = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    neighbour.send(BodyKind.CHUNK, b"", bytes(1 << 20), "x")
    link.pump()
    question = [wire.DigestsWantedFrame(0, 0).to_bytes()]
    for _ in range(50):
        link.receive(A, B, [theirs._envelope.control(question)])
    assert link.cores[A].dropped["digests_rate"] == 49
