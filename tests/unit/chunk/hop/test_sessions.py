"""How a session begins, goes on without traffic, and ends."""

from __future__ import annotations

import pytest

from packetcloud.chunk.hop.api import (
    HopConfig,
    Role,
    Settlement,
)
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import A, B, Link, Upper


def test_handshakes_get_through_thirty_percent_loss() -> None:
    """50 of 50 handshakes succeed at 30 % loss each way (the QUIC interop runner's case)."""
    for seed in range(50):
        link = Link(seed, loss=0.3)
        assert link.connect().is_up


def test_an_idle_session_stays_up_by_keepalives() -> None:
    """Nobody sends anything for a minute: the session is still there, on both sides."""
    link = Link(config=HopConfig(idle_timeout_s=4, keepalive_s=1))
    neighbour = link.connect()
    link.pass_time(55)
    assert neighbour.is_up and not link.uppers[A].down and not link.uppers[B].down


def test_a_session_that_idles_for_hours_still_carries_a_body() -> None:
    """Only keep-alives for three hours, then a chunk in each direction."""
    link = Link(config=HopConfig())
    there = link.connect()
    (back,) = link.uppers[B].up
    link.pass_time(3 * 3600)
    there.send(BodyKind.CHUNK, b"", bytes(100_000), 1)
    back.send(BodyKind.CHUNK, b"", bytes(100_000), 2)
    link.run(lambda: bool(link.uppers[A].bodies and link.uppers[B].bodies))
    assert not any(core.dropped["internal_error"] for core in link.cores.values())


def test_a_silent_neighbour_is_down_and_its_bodies_are_settled_lost() -> None:
    """After the idle time-out the layer above learns of every unsettled body, then of the end."""
    link = Link(config=HopConfig(idle_timeout_s=4, keepalive_s=1))
    neighbour = link.connect()
    link.on_datagram = lambda source, datagram: False
    neighbour.send(BodyKind.CHUNK, b"", bytes(5000), "x")
    link.run(lambda: bool(link.uppers[A].down), 30)
    assert link.uppers[A].settled == [("x", Settlement.LOST, 0)]
    assert link.uppers[A].down == ["no answer"]


def test_close_tells_the_other_side() -> None:
    """A closed session ends on both sides at once, with the reason."""
    link = Link()
    neighbour = link.connect()
    neighbour.close("moving house")
    link.run(lambda: bool(link.uppers[B].down))
    assert link.uppers[B].down == ["moving house"]
    assert link.uppers[A].down == ["moving house"]


def test_a_new_session_of_the_same_instance_replaces_the_old_one() -> None:
    """A restarted neighbour takes its predecessor's place at once."""
    link = Link()
    link.connect()
    link.run(lambda: not link.in_flight)  # the new process would know nothing of it
    link.cores[A] = link.core(A, Role.HOST, identity=link.cores[A].identity)
    link.connect()
    link.run(lambda: bool(link.uppers[B].down))
    assert link.uppers[B].down == ["replaced by a new session"]
    assert len(link.cores[B].sessions) == 1


def test_a_second_process_with_the_same_key_takes_the_place_and_the_first_is_told() -> None:
    """It would else believe that its neighbour was restarted, and come back at once."""
    link = Link()
    link.connect()
    elsewhere = ("192.0.2.3", 4000)
    link.uppers[elsewhere] = Upper()
    link.cores[elsewhere] = link.core(elsewhere, Role.HOST, identity=link.cores[A].identity)
    link.cores[elsewhere].connect(B, None, lambda _: None, link.now)
    link.run(lambda: bool(link.uppers[A].down))
    assert link.uppers[A].down == ["another process attached with the same key"]
    assert len(link.cores[B].sessions) == 1


def test_a_fault_of_ours_while_sending_ends_one_session_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The neighbour whose session is broken is told, the others go on."""
    link = Link()
    neighbour = link.connect()

    def fault(now: float) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(neighbour.sender.departures, "next_burst", fault)
    neighbour.send(BodyKind.CHUNK, b"", bytes(50_000), 1)
    link.run(lambda: bool(link.uppers[B].down))
    assert link.uppers[A].settled == [(1, Settlement.LOST, 0)]
    assert link.uppers[A].down == link.uppers[B].down == ["internal error"]
    again = link.connect()
    again.send(BodyKind.CHUNK, b"", bytes(50_000), 2)
    link.run(lambda: len(link.uppers[B].bodies) == 1)


def test_a_body_released_after_its_session_is_over_leaves_nothing_to_do() -> None:
    """The layer above may keep a body for long; the node does not turn for one that is gone."""
    link = Link(config=HopConfig(credit_bytes=100_000))
    upper = link.uppers[B]
    upper.keeps = True
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", bytes(90_000), "x")
    link.run(lambda: bool(upper.keep))
    neighbour.close("over")
    link.run(lambda: bool(upper.down))
    core = link.cores[B]
    list(core.datagrams_to_send(link.now))
    assert not core.has_more
    for body in upper.keep:
        body.release()
    assert not core.has_more
    for _ in range(3):
        list(core.datagrams_to_send(link.now))
    assert not core.has_more and core.pool.held_bytes == 0


def test_what_was_counted_outlives_its_session() -> None:
    """A counter never falls: whoever takes its rate would see a jump at every new session."""
    link = Link()
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", bytes(50_000), 1)
    link.run(lambda: bool(link.uppers[B].bodies))
    assert link.cores[B].stats()["received_bodies"] == 1
    neighbour.close("over")
    link.run(lambda: bool(link.uppers[B].down))
    assert link.cores[B].stats()["received_bodies"] == 1
