"""A body that the layer above has not decided on yet: neither sent again nor given up."""

from __future__ import annotations

from typing import Any

import pytest

from packetcloud.chunk.hop.api import Deferral, Neighbour, Refusal, Settlement
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason
from tests.unit.chunk.hop.hop_link import A, B, Link, Upper


class Undecided(Upper):
    """Decides about nothing by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[Neighbour, Any]] = []

    def body_received(
        self, neighbour: Neighbour, kind: BodyKind, body: Any
    ) -> Refusal | Deferral | None:
        self.pending.append((neighbour, body))
        return Deferral.PENDING


def undecided(**network: Any) -> tuple[Link, Session, Undecided]:
    link = Link(**network)
    upper = Undecided()
    link.put_above(B, upper)
    return link, link.connect(), upper


@pytest.mark.parametrize("size", [500, 300_000])
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_pending_custody_is_neither_sent_again_nor_given_up(size: int, loss: float) -> None:
    """For twenty seconds nothing is settled and nothing is repeated; then each ends as decided."""
    link, session, upper = undecided(seed=3, loss=loss)
    for number in range(20):
        session.send(BodyKind.CHUNK, b"", bytes([number]) * size, number + 1000)
    link.run(lambda: len(upper.pending) == 20)
    link.pass_time(1.0)
    again = session.sender.retransmitted_segments
    link.pass_time(20.0)
    assert link.uppers[A].settled == [] and session.is_up
    assert session.sender.retransmitted_segments == again
    for neighbour, body in upper.pending:
        is_odd = body.head(1)[0] % 2
        neighbour.decide(body, Refusal(Reason.STORE_FULL) if is_odd else None)
        if not is_odd:
            body.release()
    link.run_until_settled(20)
    for token, how, reason in link.uppers[A].settled:
        assert isinstance(token, int)
        expected = (Settlement.REFUSED, 11) if token % 2 else (Settlement.ACCEPTED, 0)
        assert (how, reason) == expected
    receiver = next(iter(link.cores[B].sessions.values())).receiver
    assert receiver.credit.held_bytes == 0


def test_a_lost_word_of_custody_is_asked_for() -> None:
    """The ACK that says "taken" is lost while nothing else is on its way."""
    link, session, upper = undecided()
    session.send(BodyKind.CHUNK, b"", bytes(5000), "x")
    link.run(lambda: bool(upper.pending))
    link.pass_time(1.0)
    lost = 0

    def lose(source: Any, datagram: bytes) -> bool:
        nonlocal lost
        lost += source == B and lost < 2
        return not (source == B and lost < 2)

    link.on_datagram = lose
    [(neighbour, body)] = upper.pending
    neighbour.decide(body)
    body.release()
    began = link.now
    link.run(lambda: bool(link.uppers[A].settled))
    assert link.now - began < 2.5


def test_a_body_given_up_while_it_is_pending_is_settled_once() -> None:
    """The sender cancels; a later decision changes nothing and frees the memory."""
    link, session, upper = undecided()
    session.send(BodyKind.CHUNK, b"", bytes(50_000), token := object())
    link.run(lambda: bool(upper.pending))
    session.cancel(token)
    link.pass_time(0.5)
    receiver = next(iter(link.cores[B].sessions.values())).receiver
    assert receiver.credit.held_bytes >= 50_000
    [(neighbour, body)] = upper.pending
    neighbour.decide(body, Refusal(Reason.STORE_FULL))
    link.pass_time(0.5)
    assert [how for _, how, _ in link.uppers[A].settled] == [Settlement.LOST]
    assert receiver.credit.held_bytes == 0 and not session.sender.transfers.forgotten


def test_a_decision_after_the_session_has_ended_frees_the_memory() -> None:
    """The sender was told LOST; the layer above may keep the body or not."""
    link, session, upper = undecided()
    session.send(BodyKind.CHUNK, b"", bytes(50_000), "x")
    link.run(lambda: bool(upper.pending))
    session.close("over")
    link.run(lambda: bool(upper.down))
    [(neighbour, body)] = upper.pending
    neighbour.decide(body, Refusal(Reason.STORE_FULL))
    assert link.cores[B].pool.held_bytes == 0
