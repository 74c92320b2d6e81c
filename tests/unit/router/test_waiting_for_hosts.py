"""Chunks whose next hop is away: how long they wait, how many, and which session they take."""

from __future__ import annotations

import pytest

from packetcloud.chunk.messages import Outcome
from packetcloud.chunk.names import NA
from packetcloud.chunk.reasons import Reason
from tests.unit.router.router_fakes import (
    ROUTER_NA,
    A,
    B,
    C,
    FakeNetwork,
    chunk,
    reason_of,
    reports_in,
    settings,
)


def test_lifetime_is_less_by_the_time_held() -> None:
    """What is left of the life is what the next custodian gets."""
    net = FakeNetwork(settings())
    a, b = net.host(A), net.host(B)
    b.go_down()
    assert a.chunk(chunk(lifetime_ms=60_000)) is None
    net.pass_time(12.0)
    assert net.host(B).accept_all()[0].header.lifetime_ms == 48_000


def test_host_back_in_time_gets_what_was_held_in_order() -> None:
    """Chunks for a host that is briefly away wait for it; their senders get the credit back."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    b.go_down()
    for number in range(10):
        assert a.chunk(chunk(chunk_id=number)) is None
    assert net.sums["held"] == 10
    assert all(body.is_released for body in net.bodies)
    taken = net.host(B).accept_all()
    assert [sent.header.chunk_id.value for sent in taken] == list(range(10))
    assert all(sent.payload == b"payload" for sent in taken)
    net.check_idle()


@pytest.mark.parametrize(
    ("lifetime_ms", "wait_s", "reason"),
    [(5_000, 5.1, Reason.DEADLINE_PASSED), (60_000, 30.1, Reason.NEIGHBOUR_LOST)],
)
def test_wait_for_a_host_ends_with_lifetime_or_hold_limit(
    lifetime_ms: int, wait_s: float, reason: Reason
) -> None:
    """Whichever ends first ends the wait, and the source is told."""
    net = FakeNetwork(settings(detached_hold_s=30.0))
    a, b = net.host(A), net.host(B)
    b.go_down()
    assert a.chunk(chunk(lifetime_ms=lifetime_ms)) is None
    net.pass_time(wait_s - 0.2)
    assert net.sums["held"] == 1
    net.pass_time(0.2)
    assert net.sums["expired"] == 1
    net.end_turn()
    (report,) = reports_in(a.accept_all()[0])
    assert (report.outcome, report.reason) == (Outcome.EXPIRED, reason)
    net.check_idle()


def test_host_away_for_longer_is_no_longer_known() -> None:
    """A host gone for longer than the hold limit is as unresolvable as one never seen."""
    net = FakeNetwork(settings(detached_hold_s=30.0))
    a, b = net.host(A), net.host(B)
    b.go_down()
    net.pass_time(31.0)
    assert reason_of(a.chunk(chunk())) is Reason.UNRESOLVABLE_GUID


def test_host_of_the_static_table_is_waited_for_before_it_was_ever_here() -> None:
    """A name bound to this router's own NA is known: it may attach any moment."""
    net = FakeNetwork(settings(names={B: ROUTER_NA}))
    a = net.host(A)
    assert a.chunk(chunk()) is None
    assert len(net.host(B).accept_all()) == 1


def test_what_waits_for_one_host_is_capped() -> None:
    """An absent host cannot fill the store: beyond its cap, chunks for it are refused."""
    size = len(chunk())
    net = FakeNetwork(settings(detached_hold_bytes=3 * size))
    a, b = net.host(A), net.host(B)
    net.host(C)
    b.go_down()
    for _ in range(3):
        assert a.chunk(chunk()) is None
    assert reason_of(a.chunk(chunk())) is Reason.STORE_FULL
    assert a.chunk(chunk(destination=C)) is None


def test_chunk_lost_with_its_session_goes_again_to_the_next_one() -> None:
    """Nobody knows whether the lost session's host had the chunk: it gets it (again)."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    assert a.chunk(chunk()) is None
    b.go_down()
    assert net.sums["held"] == 1
    assert len(net.host(B).accept_all()) == 1
    net.check_idle()


def test_session_that_is_closing_is_not_used() -> None:
    """Between the end of a session and the news of it, chunks wait instead of failing."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    assert a.chunk(chunk()) is None
    b.is_up = False
    assert a.chunk(chunk()) is None
    b.go_down()
    assert len(net.host(B).accept_all()) == 2
    net.check_idle()


def test_newer_session_of_a_host_replaces_the_older() -> None:
    """After a restart that the router has not noticed, the new session gets everything."""
    net = FakeNetwork()
    a, old = net.host(A), net.host(B)
    assert a.chunk(chunk(chunk_id=1)) is None
    new = net.host(B)
    assert old.closed_because is not None
    assert a.chunk(chunk(chunk_id=2)) is None
    net.end_turn()
    assert {sent.header.chunk_id.value for sent in new.accept_all()} == {1, 2}
    assert a.chunk(chunk(chunk_id=3)) is None
    assert len(new.accept_all()) == 1
    net.check_idle()


def test_neighbour_router_that_is_away_is_waited_for() -> None:
    """Chunks for a configured router wait for its session, also before the first one."""
    net = FakeNetwork(settings(names={C: NA(2)}))
    a = net.host(A)
    assert a.chunk(chunk(destination=C, hop_limit=9)) is None
    q = net.router()
    q.go_down()
    assert net.sums["held"] == 1
    (sent,) = net.router().accept_all()
    assert sent.header.hop_limit == 8, "a second try is still one hop"
    net.check_idle()
