"""Bodies between two neighbours: whole, once, and each with one end, on good and on bad links."""

from __future__ import annotations

import random
from typing import Any

import pytest

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import (
    MAX_PREFIX_BYTES,
    HopConfig,
    Refusal,
    Settlement,
)
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason
from tests.unit.chunk.hop.hop_link import OPEN, A, B, Link


def bodies_of(link: Link, sizes: list[int]) -> list[bytes]:
    return [link.random.randbytes(size) for size in sizes]


SIZES = [
    1, 20, 1400, 1418, 1424, 1425, 1433, 1434, 1440, 1441, 2864, 2865, 2880, 2881, 10_000, 64_000,
    300_000, 1_048_576,
]  # fmt: skip
"""Also those that just fill a bundle, one segment and two, of datagrams of 1472 bytes."""


@pytest.mark.parametrize("suite", wire.Suite)
@pytest.mark.parametrize("datagram_bytes", [1200, 1472, 9000, 65_507])
def test_bodies_of_every_size_arrive_once_and_intact(
    datagram_bytes: int, suite: wire.Suite
) -> None:
    """On a clean link every body arrives once, unchanged, and is settled as accepted."""
    link = Link(
        datagram_bytes=datagram_bytes,
        config=OPEN if suite is wire.Suite.OPEN else None,
        has_fast_aes=suite is wire.Suite.AES_256_GCM,
    )
    neighbour = link.connect()
    assert neighbour.suite is suite
    bodies = bodies_of(link, SIZES * 2)
    for number, body in enumerate(bodies):
        cut = min(number % 90, len(body))
        neighbour.send(BodyKind.CHUNK, body[:cut], body[cut:], number)
    link.run_until_settled(len(bodies))
    assert sorted(link.uppers[B].bodies) == sorted(bodies)
    assert {s for _, s, _ in link.uppers[A].settled} == {Settlement.ACCEPTED}
    assert neighbour.sender.retransmitted_segments == 0
    assert neighbour.queued_bytes == 0 and neighbour.sender.in_flight_bytes == 0
    assert link.cores[B].stats()["held_bytes"] == 0
    assert not link.cores[A].dropped and not link.cores[B].dropped


@pytest.mark.parametrize("seed", range(16))
def test_bodies_survive_loss_repetition_and_reordering(seed: int) -> None:
    """Up to 30 % loss, 10 % repeats and reordering: every body once, intact, none missing."""
    chooser = random.Random(seed)
    link = Link(
        seed,
        loss=chooser.choice([0.0, 0.02, 0.1, 0.3]),
        duplication=chooser.choice([0.0, 0.1]),
        jitter_s=chooser.choice([0.0, 0.004, 0.02]),
        datagram_bytes=chooser.choice([1200, 1472, 1472, 20_000, 65_507]),
        config=OPEN if chooser.random() < 0.3 else None,
    )
    neighbour = link.connect()
    bodies = bodies_of(link, [chooser.choice(SIZES[:-1]) for _ in range(60)])
    for number, body in enumerate(bodies):
        neighbour.send(BodyKind.CHUNK, b"", body, number)
    link.run_until_settled(len(bodies), 300)
    assert sorted(link.uppers[B].bodies) == sorted(bodies)
    assert sorted(t for t, _, _ in link.uppers[A].settled) == list(range(len(bodies)))
    assert {s for _, s, _ in link.uppers[A].settled} == {Settlement.ACCEPTED}


def test_a_received_body_goes_on_in_place() -> None:
    """A body that came in rows and is sent on without a prefix is not copied and stays intact."""
    link = Link(loss=0.05, seed=5, config=OPEN)
    neighbour = link.connect()
    link.uppers[B].keeps = True
    body = link.random.randbytes(500_000)
    neighbour.send(BodyKind.CHUNK, b"", body, "out")
    link.run(lambda: bool(link.uppers[B].keep))
    held = link.uppers[B].keep[0]
    assert held.rows is not None
    held.patch(3, b"xyz")
    link.uppers[B].up[0].send_body(BodyKind.CHUNK, held, "back")
    assert held.rows is not None
    link.run(lambda: bool(link.uppers[B].settled), 120)
    assert link.uppers[A].bodies == [body[:3] + b"xyz" + body[6:]]
    held.release()


def test_a_refusal_reaches_the_sender_with_its_reason_even_when_answers_get_lost() -> None:
    """A refused body is settled REFUSED with the receiver's reason; the rest is not held up."""
    link = Link(7, loss=0.3)
    neighbour = link.connect()
    link.uppers[B].answer = lambda data: (
        Refusal(Reason.UNKNOWN_SID) if data.startswith(b"no") else None
    )
    for number in range(40):
        word = b"no" if number % 3 == 0 else b"ok"
        neighbour.send(BodyKind.CHUNK, b"", word + bytes(number * 300), number)
    link.run_until_settled(40, 120)
    for token, settlement, reason in link.uppers[A].settled:
        refused = token in range(0, 40, 3)
        assert settlement is (Settlement.REFUSED if refused else Settlement.ACCEPTED)
        assert reason == (Reason.UNKNOWN_SID if refused else 0)
    assert len(link.uppers[B].bodies) == 26


def test_a_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    """A body larger than the neighbour takes costs nothing on the wire."""
    link = Link(config=HopConfig(max_body_bytes=1000))
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", bytes(1001), "big")
    neighbour.send(BodyKind.CHUNK, b"", bytes(1000), "fits")
    link.run_until_settled(2)
    assert link.uppers[A].settled[0] == ("big", Settlement.REFUSED, Reason.PAYLOAD_TOO_LARGE)
    assert link.uppers[A].settled[1] == ("fits", Settlement.ACCEPTED, 0)


@pytest.mark.parametrize("config", [None, OPEN])
@pytest.mark.parametrize("size", [50, 50_000])
@pytest.mark.parametrize(
    ("kind", "prefix_bytes", "flow"),
    [
        (BodyKind.CHUNK, 0, wire.MAX_FLOW + 1),
        (BodyKind.CHUNK, 0, -1),
        (BodyKind.CHUNK, MAX_PREFIX_BYTES + 1, 0),
        (0, 0, 0),
        (16, 0, 0),
    ],
)
def test_a_body_that_cannot_travel_costs_whoever_sends_it_and_no_other(
    config: HopConfig | None, size: int, kind: Any, prefix_bytes: int, flow: int
) -> None:
    """It is refused when it is handed over; the session and others at the caps go on."""
    link = Link(config=config)
    session = link.connect()
    session.send(BodyKind.CHUNK, b"", bytes(50_000), "innocent")
    with pytest.raises(LocalMisuseError):
        session.send(kind, bytes(prefix_bytes), bytes(size), "wrong", flow=flow)
    session.send(
        BodyKind.VERDICT, bytes(MAX_PREFIX_BYTES), bytes(size), "largest", flow=wire.MAX_FLOW
    )
    link.run_until_settled(2)
    assert {how for _, how, _ in link.uppers[A].settled} == {Settlement.ACCEPTED}
    assert session.is_up and not link.cores[A].dropped


def test_cancel_settles_at_once_and_the_rest_goes_on() -> None:
    """A cancelled body is settled CANCELLED, and bodies after it still arrive."""
    link = Link()
    neighbour = link.connect()
    for number in range(6):
        neighbour.send(BodyKind.CHUNK, b"", bytes([number]) * 200_000, number)
    link.pump()
    neighbour.cancel(0)
    neighbour.cancel(3)
    link.run_until_settled(6)
    cancelled = {t for t, s, _ in link.uppers[A].settled if s is Settlement.CANCELLED}
    assert cancelled == {0, 3}
    assert {body[0] for body in link.uppers[B].bodies} == {1, 2, 4, 5}


@pytest.mark.parametrize("size", [100, 2_500])
def test_cancel_of_what_was_sent_whole_is_no_certain_no(size: int) -> None:
    """The neighbour may have it all in its socket: CANCELLED, "it has it not", would be a lie."""
    link = Link()
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", bytes(size), 7)
    list(link.cores[A].datagrams_to_send(link.now))
    neighbour.cancel(7)
    assert link.uppers[A].settled == [(7, Settlement.LOST, 0)]


@pytest.mark.parametrize("body_bytes", [300, 30_000, 1 << 20])
def test_a_lost_word_about_a_cancelled_body_is_said_again(body_bytes: int) -> None:
    """Else its place in the window is taken for ever, and after 4096 more bodies nothing moves."""
    link = Link()
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", bytes(body_bytes), "given up")
    lost: list[bytes] = []

    def is_lost(source: Any, datagram: bytes) -> bool:
        if source == A:
            lost.append(datagram)
        return source != A

    link.on_datagram = is_lost
    link.pump()
    neighbour.cancel("given up")
    link.pump()
    assert lost
    link.on_datagram = lambda source, datagram: True
    for number in range(5000):
        neighbour.send(BodyKind.CHUNK, b"", b"x" * 50, number)
    link.run(lambda: len(link.uppers[B].bodies) == 5000)
    link.run(lambda: not neighbour.sender.transfers.forgotten)
    receiver = next(iter(link.cores[B].sessions.values())).receiver
    assert receiver.credit.held_bytes == 0


def test_a_fault_above_at_a_settlement_costs_no_other_settlement() -> None:
    """Each body is told of once, whatever the layer above makes of the first."""
    link = Link()
    neighbour = link.connect()

    def fails(token: object) -> None:
        if token == 0:
            raise RuntimeError("a fault of the layer above")

    link.uppers[A].on_settled = fails
    for number in range(3):
        neighbour.send(BodyKind.CHUNK, b"", bytes(50_000), number)
    link.run_until_settled(3)
    assert sorted(str(token) for token, _, _ in link.uppers[A].settled) == ["0", "1", "2"]
    assert link.cores[A].dropped["internal_error"] == 1
