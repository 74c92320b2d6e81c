"""A neighbour whose address changes: nothing is lost, nobody else can take its place."""

from __future__ import annotations

from typing import Any

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Settlement
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import OPEN, A, B, Link

MOVED = ("192.0.2.77", 5555)
STRANGER = ("198.51.100.66", 6666)


class MovingLink(Link):
    """Whatever goes to an address where nobody is gets lost."""

    def put(self, source: Any, address: Any, datagram: bytes) -> None:
        if address in self.cores:
            super().put(source, address, datagram)

    def deliver(self) -> None:
        self.in_flight = [entry for entry in self.in_flight if entry[3] in self.cores]
        super().deliver()

    def move(self, old: Any, new: Any) -> None:
        """The node at `old` is at `new` from now on; what it sent before is still on its way."""
        self.cores[new] = self.cores.pop(old)
        self.uppers[new] = self.uppers.pop(old)


def sides(link: Link, there: Any) -> tuple[Session, Session]:
    (ours,), (theirs,) = link.cores[there].sessions.values(), link.cores[B].sessions.values()
    return ours, theirs


@pytest.mark.parametrize("loss", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_a_host_moves_with_transfers_under_way_in_both_directions(seed: int, loss: float) -> None:
    """The same session goes on, each body arrives once, none is settled LOST."""
    link = MovingLink(seed, loss=loss)
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    for number in range(8):
        ours.send(BodyKind.CHUNK, b"", bytes([number]) * 200_000, number)
        theirs.send(BodyKind.CHUNK, b"", bytes([100 + number]) * 200_000, number)
    began = link.now
    link.run(lambda: link.now > began + 0.05)
    link.move(A, MOVED)
    link.run(lambda: len(link.uppers[MOVED].settled) == 8 and len(link.uppers[B].settled) == 8, 60)
    for at, first in ((B, 0), (MOVED, 100)):
        assert sorted(body[0] for body in link.uppers[at].bodies) == [*range(first, first + 8)]
        assert {how for _, how, _ in link.uppers[at].settled} == {Settlement.ACCEPTED}
    assert sides(link, MOVED) == (ours, theirs)
    assert theirs.peer_address == MOVED and theirs.moves == 1
    assert not link.uppers[MOVED].down and not link.uppers[B].down


def test_a_host_that_only_listens_is_found_after_it_moved() -> None:
    """Its keep-alive shows the new address; what waited for it then arrives."""
    link = MovingLink()
    link.connect()
    (theirs,) = link.cores[B].sessions.values()
    link.move(A, MOVED)
    theirs.send(BodyKind.CHUNK, b"", bytes(50_000), "x")
    link.run(lambda: bool(link.uppers[B].settled), 10)
    assert link.uppers[B].settled == [("x", Settlement.ACCEPTED, 0)]


def test_data_from_an_unproven_address_is_dropped_and_counted() -> None:
    """Only the frames of CONTROL count before the address is proven."""
    link = MovingLink()
    ours = link.connect()
    sent: list[bytes] = []
    link.on_datagram = lambda source, datagram: bool(sent.append(datagram))
    ours.send(BodyKind.CHUNK, b"", bytes(5000), "x")
    ours.send(BodyKind.CHUNK, b"", b"small", "y")
    link.pump()
    for datagram in sent:
        if datagram[0] in (wire.DATA_BYTE, wire.BUNDLE_BYTE):
            link.receive(B, MOVED, [datagram])
    assert link.cores[B].dropped["wrong_address"] == len(sent) >= 4
    assert not link.uppers[B].bodies


def test_a_stranger_who_sends_a_datagram_on_gets_one_short_question_and_nothing_else() -> None:
    """He cannot answer it, so the session stays where it is; a second copy says nothing at all."""
    link = MovingLink()
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    probe = ours._envelope.control([ours.sender.flight.probe(link.now)])
    for number in range(3):
        link.receive(B, STRANGER, [probe])
        said = [
            (address, bytes(buffers[0]))
            for address, buffers, _ in link.cores[B].datagrams_to_send(link.now)
        ]
        to_him = [datagram for address, datagram in said if address == STRANGER]
        assert len(to_him) == (number == 0)
        assert all(len(datagram) <= len(probe) for datagram in to_him)
    assert theirs.peer_address == A and link.cores[B].dropped["replayed"] == 2


def test_a_token_said_back_from_elsewhere_proves_nothing() -> None:
    """Each address needs its own."""
    link = MovingLink()
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    link.receive(B, STRANGER, [ours._envelope.control([ours.sender.flight.probe(link.now)])])
    ((_, (challenge,), _),) = [
        one for one in link.cores[B].datagrams_to_send(link.now) if one[0] == STRANGER
    ]
    (frame, *_) = wire.decode_frames(ours._envelope.open_control(bytes(challenge)))
    assert isinstance(frame, wire.PathChallengeFrame)
    answer = wire.PathResponseFrame(frame.token).to_bytes()
    link.receive(B, MOVED, [ours._envelope.control([answer])])
    assert theirs.peer_address == A
    link.receive(B, A, [ours._envelope.control([answer])])
    assert theirs.peer_address == A and not theirs.moves


def test_an_older_datagram_moves_nothing() -> None:
    """What was overtaken may have left before the last move."""
    link = MovingLink()
    ours = link.connect()
    older = ours._envelope.control([ours.sender.flight.probe(link.now)])
    newer = ours._envelope.control([ours.sender.flight.probe(link.now)])
    link.receive(B, A, [newer])
    link.receive(B, MOVED, [older])
    assert MOVED not in [to for to, _, _ in link.cores[B].datagrams_to_send(link.now)]


def test_an_open_session_does_not_move() -> None:
    """Nothing would prove who it is."""
    link = MovingLink(config=OPEN)
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    link.receive(B, MOVED, [ours._envelope.control([ours.sender.flight.probe(link.now)])])
    assert link.cores[B].dropped["wrong_address"] == 1
    assert MOVED not in [to for to, _, _ in link.cores[B].datagrams_to_send(link.now)]
    assert theirs.peer_address == A
