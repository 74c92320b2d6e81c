"""VIs that fail, answer late, die or are missing: another one, then the service's policy."""

from __future__ import annotations

import pytest

from packetcloud.chunk.messages import Outcome, VerdictCode
from packetcloud.chunk.names import SID_ZERO
from packetcloud.chunk.reasons import Reason
from packetcloud.router.settings import FailPolicy
from tests.unit.router.router_fakes import (
    ROUTER_NA,
    A,
    B,
    FakeNetwork,
    S,
    chunk,
    reason_of,
    service,
    settings,
)
from tests.unit.router.service_visits import only, reported, task_of


@pytest.mark.parametrize("policy", list(FailPolicy))
def test_failure_goes_to_another_vi_and_then_by_the_policy(policy: FailPolicy) -> None:
    """Every attached VI gets one try; then fail-open skips the service, fail-closed refuses."""
    net = FakeNetwork(settings(service(S, fail_policy=policy)))
    a, b = net.host(A), net.host(B)
    vis = [net.vi(S), net.vi(S)]
    assert a.chunk(chunk(services=(S,))) is None
    for _ in vis:
        vi = only([one for one in vis if one.unsettled])
        vi.verdict(task_of(vi), VerdictCode.FAILED, detail=b"boom")
    assert all(len(vi.accepted) == 1 for vi in vis)
    if policy is FailPolicy.OPEN:
        assert only(b.accept_all()).data == chunk(source_na=ROUTER_NA)
    else:
        outcome, reason, detail = reported(a)
        assert (outcome, reason) == (Outcome.REFUSED, Reason.SERVICE_FAILED)
        assert "boom" in detail
    net.check_idle()


def test_missed_deadline_gives_the_chunk_to_another_vi_and_ignores_the_late_verdict() -> None:
    """A late verdict changes nothing: the chunk is processed once in effect."""
    net = FakeNetwork(settings(service(S, deadline_ms=500)))
    a, b = net.host(A), net.host(B)
    vis = [net.vi(S), net.vi(S)]
    assert a.chunk(chunk(services=(S,))) is None
    slow, fast = sorted(vis, key=lambda vi: -len(vi.unsettled))
    late = task_of(slow)
    assert late.task.deadline_ms == 500
    net.pass_time(0.6)
    task = task_of(fast)
    assert task.task.task_id != late.task.task_id
    fast.verdict(task, VerdictCode.UPDATE, b"fast")
    slow.verdict(late, VerdictCode.UPDATE, b"slow")
    assert only(b.accept_all()).payload == b"fast"
    state = net.core.dispatch.services[S.value]
    assert (state.missed_count, state.late_count, state.retried_count) == (1, 1, 1)
    net.check_idle()


def test_missed_deadline_before_the_vi_took_the_task_cancels_it() -> None:
    """A VI whose hop does not even take the task loses it to another one."""
    net = FakeNetwork(settings(service(S, deadline_ms=500)))
    a, b = net.host(A), net.host(B)
    vis = [net.vi(S), net.vi(S)]
    assert a.chunk(chunk(services=(S,))) is None
    stuck, other = sorted(vis, key=lambda vi: -len(vi.unsettled))
    net.pass_time(0.6)
    assert not stuck.unsettled
    other.verdict(task_of(other))
    b.accept_all()
    net.check_idle()


def test_vi_that_missed_a_deadline_is_second_choice_until_it_answers() -> None:
    """A hung VI costs one deadline and not one for every chunk of its flows."""
    net = FakeNetwork(settings(service(S, deadline_ms=500)))
    a, _ = net.host(A), net.host(B)
    vis = [net.vi(S), net.vi(S)]
    assert a.chunk(chunk(services=(S,))) is None
    hung, good = sorted(vis, key=lambda vi: -len(vi.unsettled))
    late = task_of(hung)
    net.pass_time(0.6)
    good.verdict(task_of(good))
    assert a.chunk(chunk(services=(S,))) is None
    good.verdict(task_of(good))
    assert not hung.unsettled
    # Its late answer alone does not say that it keeps up again; a chunk of its own does.
    hung.verdict(late)
    good.go_down()
    assert a.chunk(chunk(services=(S,))) is None
    hung.verdict(task_of(hung))


def test_crash_of_a_vi_gives_its_tasks_to_the_next_one_in_order() -> None:
    """Accepted, on the way or waiting: after a crash every chunk is processed, oldest first."""
    net = FakeNetwork(settings(service(S), vi_window_count=4))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    for number in range(6):
        assert a.chunk(chunk(chunk_id=number, services=(S,))) is None
    vi.settle(vi.unsettled[0])
    vi.settle(vi.unsettled[0])
    assert len(vi.unsettled) == 2, "the window holds four"
    vi.go_down()
    twin = net.vi(S)
    seen = []
    while twin.unsettled:
        task = twin.unsettled[0]
        twin.settle(task)
        seen.append(task.header.chunk_id.value)
        twin.verdict(task)
    assert seen == list(range(6))
    assert len(b.accept_all()) == 6
    net.check_idle()


def test_no_vi_within_the_grace_time_follows_the_policy() -> None:
    """Chunks wait while a VI may come back, and no longer."""
    net = FakeNetwork(settings(service(S, grace_s=2.0)))
    a, _, vi = net.host(A), net.host(B), net.vi(S)
    vi.go_down()
    assert a.chunk(chunk(services=(S,))) is None
    net.pass_time(1.9)
    assert net.sums["held"] == 1
    net.pass_time(0.2)
    assert reported(a)[:2] == (Outcome.REFUSED, Reason.SERVICE_FAILED)
    assert reason_of(a.chunk(chunk(services=(S,)))) is Reason.SERVICE_FAILED, "now at the door"
    net.check_idle()


def test_fail_open_service_without_vi_is_skipped_after_the_grace_time() -> None:
    """A chunk that goes on without the service has its SID cleared all the same."""
    net = FakeNetwork(settings(service(S, grace_s=2.0, fail_policy=FailPolicy.OPEN)))
    a, b = net.host(A), net.host(B)
    assert a.chunk(chunk(services=(S,))) is None
    net.pass_time(2.1)
    assert only(b.accept_all()).header.sid == SID_ZERO
    assert a.chunk(chunk(services=(S,))) is None
    assert only(b.accept_all()).header.sid == SID_ZERO
    net.check_idle()


def test_chunk_that_kills_every_vi_is_given_up() -> None:
    """Only the oldest task of a dead VI is suspect; after the cap the others are safe from it."""
    net = FakeNetwork(settings(service(S, max_attempts=3)))
    a, b = net.host(A), net.host(B)
    vi = net.vi(S)
    assert a.chunk(chunk(chunk_id=666, services=(S,))) is None
    assert a.chunk(chunk(chunk_id=7, services=(S,))) is None
    for _ in range(3):
        assert vi.accept_all()[0].header.chunk_id.value == 666
        vi.go_down()
        vi = net.vi(S)
    assert reported(a)[1] is Reason.SERVICE_FAILED
    vi.verdict(task_of(vi))
    assert only(b.accept_all()).header.chunk_id.value == 7
    net.check_idle()
