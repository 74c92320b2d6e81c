"""Paths that take less than their ends promise: found out, gone round, and tried again later."""

from __future__ import annotations

from typing import Any

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Settlement
from packetcloud.chunk.hop.path_mtu import RETRY_AFTER_S, TRIES_COUNT
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import OPEN, A, B, Link

SIZES = [1, 500, 1100, 1146, 1147, 1400, 1418, 1424, 2864, 20_000, 300_000]


class NarrowLink(Link):
    """Datagrams over `limit_bytes` vanish, in the directions that begin at `narrow`."""

    limit_bytes = 1_000_000
    narrow: tuple[Any, ...] = (A, B)
    vanished = 0

    def put(self, source: Any, address: Any, datagram: bytes) -> None:
        if len(datagram) > self.limit_bytes and source in self.narrow:
            self.vanished += 1
        else:
            super().put(source, address, datagram)


def settled_well(link: Link, address: Any, count: int) -> bool:
    return [how for _, how, _ in link.uppers[address].settled] == [Settlement.ACCEPTED] * count


@pytest.mark.parametrize("datagram_bytes", [1201, 1472, 9000, 65_507])
def test_a_path_that_takes_it_all_is_proven_at_once(datagram_bytes: int) -> None:
    """One probe each way, and nothing more of it for an hour."""
    link = NarrowLink(datagram_bytes=datagram_bytes)
    ours = link.connect()
    probes: list[int] = []

    def watch(source: Any, datagram: bytes) -> bool:
        if datagram[0] == wire.CONTROL_BYTE and len(datagram) > wire.MAX_CONTROL_BYTES:
            probes.append(len(datagram))
        return True

    link.on_datagram = watch
    link.pass_time(3600 * 0.9)
    assert len(probes) <= 2 and set(probes) <= {datagram_bytes}
    assert ours.sender.stride == datagram_bytes
    assert not link.cores[A].dropped and not link.cores[B].dropped


@pytest.mark.parametrize("limit_bytes", [1200, 1300, 1471])
@pytest.mark.parametrize("narrow", [(A,), (B,), (A, B)])
@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_narrow_path_is_gone_round(
    limit_bytes: int, narrow: tuple[Any, ...], loss: float
) -> None:
    """Within 5 s bodies of all sizes arrive, once each, and none is settled LOST."""
    link = NarrowLink(3, loss=loss)
    link.limit_bytes, link.narrow = limit_bytes, narrow
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    bodies = [link.random.randbytes(size) for size in SIZES]
    began = link.now
    for number, body in enumerate(bodies):
        ours.send(BodyKind.CHUNK, b"", body, number)
        theirs.send(BodyKind.CHUNK, b"", body, number)
    count = len(bodies)
    link.run(
        lambda: len(link.uppers[A].settled) == count and len(link.uppers[B].settled) == count, 30
    )
    assert settled_well(link, A, count) and settled_well(link, B, count)
    assert sorted(link.uppers[A].bodies) == sorted(link.uppers[B].bodies) == sorted(bodies)
    if not loss:
        assert link.now - began < 5
    assert (ours.sender.stride == 1200) == (A in narrow)
    assert (theirs.sender.stride == 1200) == (B in narrow)
    link.run(lambda: not any(core.stats()["held_bytes"] for core in link.cores.values()), 5)


def test_a_path_that_becomes_narrow_amid_transfers_is_gone_round() -> None:
    """Within 5 s of the change; what was whole stays, the rest comes in other datagrams."""
    link = NarrowLink(datagram_bytes=9000)
    ours = link.connect()
    for number in range(20):
        ours.send(BodyKind.CHUNK, b"", bytes([number]) * 400_000, number)
    link.run(lambda: len(link.uppers[A].settled) >= 5)
    link.limit_bytes = 1400
    began = link.now
    link.run_until_settled(20, 30)
    assert settled_well(link, A, 20)
    assert sorted(body[0] for body in link.uppers[B].bodies) == list(range(20))
    assert link.now - began < 5 and link.vanished
    assert ours.counters()["mtu_fallbacks"] == 1


def test_a_path_that_becomes_wide_again_is_used_after_ten_minutes() -> None:
    """Without a pause that the layer above would notice."""
    link = NarrowLink()
    link.limit_bytes = 1300
    ours = link.connect()
    ours.send(BodyKind.CHUNK, b"", bytes(50_000), "x")
    link.run(lambda: bool(link.uppers[A].settled))
    assert ours.sender.stride == 1200
    link.pass_time(RETRY_AFTER_S + 10)
    assert ours.sender.stride == 1200
    link.limit_bytes = 1_000_000
    for number in range(5):
        ours.send(BodyKind.CHUNK, b"", bytes(50_000), number)
    link.pass_time(RETRY_AFTER_S + 10)
    assert ours.sender.stride == 1472
    ours.send(BodyKind.CHUNK, b"", bytes(50_000), "y")
    link.run_until_settled(7)
    assert settled_well(link, A, 7)


def test_silence_in_both_directions_says_nothing_about_sizes() -> None:
    """An outage is no black hole: the size stays what it was."""
    link = NarrowLink()
    ours = link.connect()
    link.pass_time(1)
    link.on_datagram = lambda source, datagram: False
    ours.send(BodyKind.CHUNK, b"", bytes(50_000), "x")
    link.pass_time(10)
    link.on_datagram = lambda source, datagram: True
    link.run(lambda: bool(link.uppers[A].settled), 20)
    assert settled_well(link, A, 1)
    assert ours.sender.stride == 1472 and not ours.counters()["mtu_fallbacks"]


def test_a_healthy_path_with_loss_keeps_its_size() -> None:
    """Several probes are asked for before one is believed to be too large."""
    kept = 0
    for seed in range(20):
        link = NarrowLink(seed, loss=0.1)
        ours = link.connect()
        ours.send(BodyKind.CHUNK, b"", bytes(300_000), "x")
        link.run_until_settled(1)
        link.pass_time(5)
        kept += ours.sender.stride == 1472
    assert kept >= 19 and TRIES_COUNT == 5


@pytest.mark.parametrize("overtaken", [A, B])
def test_a_change_of_size_that_was_overtaken_by_the_next_one_is_not_believed(
    overtaken: Any,
) -> None:
    """Nor is the answer to it: both sides agree on the size, and bodies arrive."""
    link = NarrowLink()
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    assert ours._negotiation is not None
    link.pass_time(1)
    late: list[bytes] = []

    def hold_back(source: Any, datagram: bytes) -> bool:
        if source == overtaken and datagram[0] == wire.CONTROL_BYTE:
            late.append(datagram)
        return source != overtaken

    def change(size: int, seconds: float) -> None:
        assert ours._negotiation is not None
        ours._negotiation._mtu.stride_bytes = size
        link.cores[A]._active[ours] = None
        link.pass_time(seconds)

    link.on_datagram = hold_back
    change(1200, 0.02)
    assert late
    link.on_datagram = lambda source, datagram: True
    change(1472, 0.5)
    assert ours.sender.stride == theirs.receiver.incoming.stride == 1472
    if overtaken == B:
        # The neighbour does not hear of a third change, and what it said of the first comes now.
        link.on_datagram = lambda source, datagram: source != A
        change(1200, 0.02)
    for datagram in late:
        link.receive(B if overtaken == A else A, overtaken, [datagram])
    link.pump()
    link.on_datagram = lambda source, datagram: True
    ours.send(BodyKind.CHUNK, b"", link.random.randbytes(100_000), "x")
    link.run(lambda: bool(link.uppers[A].settled), 10)
    assert settled_well(link, A, 1)
    assert ours.sender.stride == theirs.receiver.incoming.stride


def test_a_number_of_a_change_stands_for_one_size() -> None:
    """The same change may come twice; another one with its number is dropped."""
    link = NarrowLink()
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    for stride in (1300, 1300, 1400):
        frame = wire.StrideFrame(wire.StrideStep.CHANGE, stride, 50).to_bytes()
        link.receive(B, A, [ours._envelope.control([frame])])
    assert theirs.receiver.incoming.stride == 1300
    assert link.cores[B].dropped == {"bad_stride": 1}


def test_nobody_makes_datagrams_smaller_than_every_path_carries() -> None:
    """Neither below 1200 bytes nor above what was agreed; an open session has none of it."""
    link = Link()
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    with pytest.raises(Exception, match="STRIDE of 1199"):
        list(wire.decode_frames(wire.StrideFrame(wire.StrideStep.CHANGE, 1199, 1).to_bytes()))
    for stride in (1473, 65_507):
        frame = wire.StrideFrame(wire.StrideStep.CHANGE, stride, 1).to_bytes()
        link.receive(B, A, [ours._envelope.control([frame])])
    assert link.cores[B].dropped["bad_stride"] == 2 and theirs.receiver.incoming.stride == 1472
    open_link = Link(config=OPEN)
    session = open_link.connect()
    frame = wire.StrideFrame(wire.StrideStep.CHANGE, 1200, 1).to_bytes()
    open_link.receive(B, A, [session._envelope.control([frame])])
    assert open_link.cores[B].dropped["unexpected_stride"] == 1


def test_a_control_datagram_beyond_1200_bytes_is_a_probe_or_nothing() -> None:
    """Else a neighbour could have long lists looked at."""
    link = Link()
    ours = link.connect()
    long = wire.PaddingFrame(1300).to_bytes()
    assert ours.sender.transfers._ring is not None
    ours._envelope._counter += 1
    header = wire.CONTROL_HEADER.pack(
        wire.CONTROL_BYTE, wire.SEALED, 0, ours.remote_id, ours._envelope._counter
    )
    nonce = ours._envelope._counter.to_bytes(12, "big")
    sealed = header + ours.sender.transfers._ring.send.control.encrypt(nonce, long, header)
    link.receive(B, A, [sealed])
    assert link.cores[B].dropped == {"long_control": 1}
    link.receive(B, A, [ours._envelope.probe(1472)])
    assert link.cores[B].dropped == {"long_control": 1}
