"""Services of a router and their VIs: windows, flows, sizes, lifetimes, coming and going."""

from __future__ import annotations

from dataclasses import replace

import pytest

from packetcloud.chunk.hop.api import Role, Settlement
from packetcloud.chunk.messages import Outcome
from packetcloud.chunk.names import GUID
from packetcloud.chunk.reasons import Reason
from tests.unit.router.router_fakes import (
    A,
    B,
    FakeNeighbour,
    FakeNetwork,
    S,
    T,
    chunk,
    reason_of,
    service,
    settings,
    sid,
)
from tests.unit.router.service_visits import only, reported, task_of


def test_window_of_a_vi_in_bytes_and_count() -> None:
    """A VI never has more than its window; the rest waits for whichever VI is free first."""
    size = len(chunk(services=(S,)))
    net = FakeNetwork(settings(service(S), vi_window_bytes=2 * size))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    for _ in range(5):
        assert a.chunk(chunk(services=(S,))) is None
    assert len(vi.unsettled) == 2
    second = net.vi(S)
    assert len(second.unsettled) == 2
    second.verdict(second.accept_all()[0])
    assert len(second.unsettled) == 1
    for one in (vi, second):
        for task in one.accept_all() + one.accepted:
            one.verdict(task)
    b.accept_all()
    net.check_idle()


def test_flow_keeps_to_one_vi_and_returns_to_its_slot() -> None:
    """Replicas: one flow, one VI; after a restart the flow is back where it was."""
    net = FakeNetwork(settings(service(S)))
    a, _ = net.host(A), net.host(B)
    vis = [net.vi(S), net.vi(S), net.vi(S)]

    def serving() -> FakeNeighbour:
        assert a.chunk(chunk(services=(S,))) is None
        vi: FakeNeighbour = only([one for one in vis if one.unsettled])
        vi.verdict(task_of(vi))
        return vi

    first = serving()
    assert all(serving() is first for _ in range(5))
    first.go_down()
    place = vis.index(first)
    vis[place] = net.attach(GUID(S.value), Role.SERVICE)
    assert serving() is vis[place]


def test_draining_vi_gets_no_more_tasks_and_its_refused_ones_move() -> None:
    """A VI that shuts down finishes what it took; what it refuses goes to another."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    assert a.chunk(chunk(services=(S,), chunk_id=1)) is None
    first = task_of(vi)
    assert a.chunk(chunk(services=(S,), chunk_id=2)) is None
    vi.settle(vi.unsettled[0], Settlement.REFUSED, Reason.SHUTTING_DOWN)
    assert a.chunk(chunk(services=(S,), chunk_id=3)) is None
    assert not vi.unsettled
    vi.verdict(first)
    vi.go_down()
    twin = net.vi(S)
    for task in twin.accept_all():
        twin.verdict(task)
    assert [sent.header.chunk_id.value for sent in b.accept_all()] == [1, 2, 3]
    net.check_idle()


def test_task_that_is_too_large_for_the_service_is_refused_with_that_reason() -> None:
    """The source hears that its payload was too large, not only that a service failed."""
    net = FakeNetwork(settings(service(S)))
    a, _, vi = net.host(A), net.host(B), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    vi.settle(vi.unsettled[0], Settlement.REFUSED, Reason.PAYLOAD_TOO_LARGE)
    assert reported(a)[1] is Reason.PAYLOAD_TOO_LARGE
    net.check_idle()


@pytest.mark.parametrize("where", ["waiting", "on the way", "with the VI"])
def test_lifetime_that_ends_during_a_service_expires_the_chunk(where: str) -> None:
    """A chunk that is too old expires wherever it is, and a verdict on it is late."""
    net = FakeNetwork(settings(service(S)))
    a, b = net.host(A), net.host(B)
    vi = net.vi(S) if where != "waiting" else None
    assert a.chunk(chunk(services=(S,), lifetime_ms=1000)) is None
    task = task_of(vi) if vi is not None and where == "with the VI" else None
    net.pass_time(1.2)
    assert reported(a)[:2] == (Outcome.EXPIRED, Reason.DEADLINE_PASSED)
    if task is not None and vi is not None:
        assert vi.verdict(task) is None
    assert not b.unsettled
    net.check_idle()


def test_unlisted_service_is_served_while_it_is_attached() -> None:
    """Policy `accept`: an unlisted service exists as long as a VI does, and the grace time."""
    template = service(sid("0"), grace_s=1.0)
    net = FakeNetwork(settings(unlisted_services=template))
    a, b = net.host(A), net.host(B)
    assert reason_of(a.chunk(chunk(services=(S,)))) is Reason.UNKNOWN_SID
    vi = net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    vi.verdict(task_of(vi))
    assert len(b.accept_all()) == 1
    vi.go_down()
    assert a.chunk(chunk(services=(S,))) is None
    net.pass_time(1.1)
    assert reported(a)[1] is Reason.SERVICE_FAILED
    assert reason_of(a.chunk(chunk(services=(S,)))) is Reason.UNKNOWN_SID
    assert not net.core.dispatch.services


def test_unlisted_service_and_replicas_over_the_cap_are_not_admitted() -> None:
    """Admission says why, and a session that got through anyway is closed."""
    net = FakeNetwork(settings(service(S, max_replicas=1)))
    net.vi(S)
    assert "1 VIs" in (net.core.admit(GUID(S.value), Role.SERVICE) or "")
    assert "not configured" in (net.core.admit(GUID(T.value), Role.SERVICE) or "")
    assert net.vi(S).closed_because is not None


def test_reconfiguring_removes_a_service_and_its_waiting_chunks_end() -> None:
    """A service that is no longer configured loses its VIs; nothing waits for it for ever."""
    before = settings(service(S), service(T))
    net = FakeNetwork(before)
    a, _, vi = net.host(A), net.host(B), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    net.core.configure(replace(before, services=(service(T),)), net.now)
    net.end_turn()
    net.pass_time(0.1)
    assert vi.closed_because is not None
    assert reported(a)[1] is Reason.SERVICE_FAILED
    assert reason_of(a.chunk(chunk(services=(S,)))) is Reason.UNKNOWN_SID
    net.check_idle()


def test_delay_penalty_is_measured_from_the_start_of_forwarding_to_the_verdict() -> None:
    """Penalty = processing + delivery; a VI that claims more than passed is not believed."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    for claimed_ns in (4_000_000, 10**12):
        assert a.chunk(chunk(services=(S,))) is None
        task = task_of(vi)
        net.pass_time(0.010)
        vi.verdict(task, processing_ns=claimed_ns)
        b.accept_all()
    state = net.core.dispatch.services[S.value]
    assert state.penalty.count == 2
    assert state.penalty.sum_ns == pytest.approx(20_000_000, rel=1e-3)
    assert state.processing.sum_ns == pytest.approx(14_000_000, rel=1e-3)
    assert state.delivery.sum_ns == pytest.approx(6_000_000, rel=1e-3)
    assert state.penalty.quantile_ns(0.5) == pytest.approx(10_000_000, rel=0.05)


def test_what_a_chunk_waits_for_room_is_part_of_its_delay_penalty() -> None:
    """Its turn has come when it is in custody: that its VI has no room yet is buffering."""
    size = len(chunk(services=(S,)))
    net = FakeNetwork(settings(service(S), vi_window_bytes=size))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    for _ in range(2):
        assert a.chunk(chunk(services=(S,))) is None
    for _ in range(2):
        task = task_of(vi)
        net.pass_time(0.010)
        vi.verdict(task, processing_ns=4_000_000)
    assert len(b.accept_all()) == 2
    state = net.core.dispatch.services[S.value]
    assert state.penalty.sum_ns == pytest.approx(30_000_000, rel=1e-3)
    assert state.wait.sum_ns == pytest.approx(10_000_000, rel=1e-3)
    assert state.delivery.sum_ns == pytest.approx(22_000_000, rel=1e-3)
    assert (state.penalty.count, state.wait.count) == (2, 2)
