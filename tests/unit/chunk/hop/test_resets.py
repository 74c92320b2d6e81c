"""Who lost its sessions says so; who only claims it is not believed."""

from __future__ import annotations

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import (
    HopConfig,
    Role,
    Settlement,
)
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.resets import RESET_DOMAIN, RESETS_PER_S, signed_bytes
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import A, B, Link


def test_a_restarted_neighbour_ends_the_old_session_at_the_first_datagram() -> None:
    """Who lost its sessions says so, and the other side need not wait for the idle time-out."""
    link = Link()
    neighbour = link.connect()
    link.cores[B] = link.core(B, Role.ROUTER, identity=link.cores[B].identity)
    neighbour.send(BodyKind.CHUNK, b"", bytes(100), "x")
    began = link.now
    link.run(lambda: bool(link.uppers[A].down))
    assert link.uppers[A].down == ["the neighbour was restarted"]
    assert link.uppers[A].settled == [("x", Settlement.LOST, 0)]
    assert link.now - began < 0.1


def test_a_forged_reset_ends_nothing() -> None:
    """A REJECT with a guessed id, from another address or without the signature is dropped."""
    link = Link()
    neighbour = link.connect()
    signer = link.cores[B].identity
    signature = signer.sign(RESET_DOMAIN, signed_bytes(neighbour.remote_id, 0))
    right = wire.Reject(neighbour.remote_id, signature).to_bytes()
    wrong = wire.Reject(neighbour.remote_id ^ 2, signature).to_bytes()
    forged = wire.Reject(neighbour.remote_id, bytes(64)).to_bytes()
    link.receive(A, ("198.51.100.1", 4000), [right])
    link.receive(A, B, [wrong])
    link.receive(A, B, [forged])
    assert neighbour.is_up and not link.uppers[A].down
    assert link.cores[A].dropped == {"unknown_session": 2, "bad_signature": 1}
    link.receive(A, B, [right])
    assert link.uppers[A].down == ["the neighbour was restarted"]


def test_what_a_replica_does_not_know_ends_no_session_of_another() -> None:
    """Two bearers of one key: a reset asked of one, with the session id of the other, is dropped
    by whoever has that session; one of the bearer that it is with ends it."""
    link = Link()
    neighbour = link.connect()

    def bearer(instance: int) -> HopCore:
        config = HopConfig(instance=instance)
        return link.core(B, Role.ROUTER, config, identity=link.cores[B].identity)

    def reset_of(core: HopCore) -> bytes:
        asked = Envelope(neighbour.remote_id, None).control([wire.PaddingFrame(60).to_bytes()])
        core.landing()[0][: len(asked)] = asked
        core.receive_train(len(asked), len(asked), ("203.0.113.9", 9), link.now)
        [(_, [reset], _)] = core.datagrams_to_send(link.now)
        return bytes(reset)

    link.receive(A, B, [reset_of(bearer(7))])
    assert neighbour.is_up and not link.uppers[A].down
    assert link.cores[A].dropped["bad_signature"] == 1
    link.receive(A, B, [reset_of(bearer(0))])
    assert link.uppers[A].down == ["the neighbour was restarted"]


def test_resets_are_few_and_never_answer_resets() -> None:
    """A flood of datagrams for unknown sessions draws at most 1000 short answers at once."""
    link = Link()
    core = link.cores[B]
    for number in range(2 * RESETS_PER_S):
        control = Envelope(number + 1, None).control([wire.ProbeFrame(1).to_bytes()])
        address = (f"198.{number % 250}.100.{number % 200}", 9)
        link.receive(B, address, [control])
        link.receive(B, address, [wire.Reject(number + 1, bytes(64)).to_bytes()])
    answers = list(core.datagrams_to_send(link.now))
    assert len(answers) == RESETS_PER_S
    assert all(len(buffers[0]) == wire.REJECT_BYTES <= len(control) for _, buffers, _ in answers)
