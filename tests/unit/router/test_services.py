"""Chunks through services: order, verdicts, VIs that fail, policies, sequences, emission."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import pytest

from packetcloud.chunk.header import (
    DigestAlgorithm,
    PayloadDigest,
    ServiceSequence,
    SourceSignature,
)
from packetcloud.chunk.hop.api import Role, Settlement
from packetcloud.chunk.messages import BodyKind, Outcome, VerdictCode
from packetcloud.chunk.names import GUID, GUID_ZERO, NA, SID, SID_ZERO, ChunkId
from packetcloud.chunk.reasons import Reason
from packetcloud.router.settings import FailPolicy
from tests.unit.router.plain_table import PlainTable, visiting
from tests.unit.router.router_fakes import (
    ROUTER_NA,
    A,
    B,
    C,
    FakeNeighbour,
    FakeNetwork,
    S,
    Sent,
    T,
    U,
    chunk,
    guid,
    reason_of,
    reports_in,
    service,
    settings,
    sid,
)

ItemT = TypeVar("ItemT")


def only(items: list[ItemT]) -> ItemT:
    assert len(items) == 1
    return items[0]


def task_of(vi: FakeNeighbour) -> Sent:
    """Let the VI accept its one waiting task."""
    return only(vi.accept_all())


def reported(source: FakeNeighbour) -> tuple[Outcome, Reason, str]:
    source.network.end_turn()
    report = only(reports_in(only(source.accept_all())))
    return report.outcome, Reason(report.reason), report.detail


def test_forward_verdict_sends_the_original_on_with_its_sid_cleared() -> None:
    """The payload never travels back; after the service, no later router runs it again."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    task = task_of(vi)
    assert task.kind is BodyKind.TASK and task.header.sid == S
    assert task.header.source_na == ROUTER_NA
    assert not b.unsettled, "nothing leaves before the verdict"
    vi.verdict(task)
    assert only(b.accept_all()).data == chunk(source_na=ROUTER_NA)
    net.check_idle()


def test_update_verdict_replaces_payload_and_drops_digest_and_signature() -> None:
    """A new payload, its length, and nothing in the header that would now be a lie."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    digest = PayloadDigest(DigestAlgorithm.SHA256, b"d" * 32)
    signature = SourceSignature(b"k" * 32, b"s" * 64)
    for payload in (b"longer than the original", b""):
        assert a.chunk(chunk(services=(S,), digest=digest, signature=signature)) is None
        vi.verdict(task_of(vi), VerdictCode.UPDATE, payload)
        assert only(b.accept_all()).data == chunk(payload=payload, source_na=ROUTER_NA)
    net.check_idle()


def test_verdict_body_is_released_only_when_its_bytes_have_left() -> None:
    """The updated payload lies in the verdict's buffer until the next custodian has it."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    vi.verdict(task_of(vi), VerdictCode.UPDATE, b"new")
    assert [body.is_released for body in net.bodies] == [False, False]
    b.accept_all()
    net.check_idle()


def test_sequence_runs_in_order_and_the_cursor_moves() -> None:
    """Each service sees what the one before made; the cursor counts what has run."""
    net = FakeNetwork(settings(service(S), service(T), service(U)))
    a, b = net.host(A), net.host(B)
    vis = {name: net.vi(name) for name in (S, T, U)}
    digest = PayloadDigest(DigestAlgorithm.SHA256, b"d" * 32)
    assert a.chunk(chunk(payload=b"0", services=(T, S, U), digest=digest)) is None
    for cursor, name in enumerate((T, S, U)):
        task = task_of(vis[name])
        assert task.payload == str(cursor).encode()
        assert task.header.sequence == ServiceSequence((T, S, U), cursor)
        vis[name].verdict(task, VerdictCode.UPDATE, str(cursor + 1).encode())
    sent = only(b.accept_all())
    assert sent.payload == b"3"
    assert sent.header.sequence == ServiceSequence((T, S, U), 3)
    assert sent.header.digest is None
    net.check_idle()


def test_rest_of_a_sequence_goes_to_the_router_that_has_it() -> None:
    """What is not here is looked up in the name table; the destination NA stays as it is."""
    net = FakeNetwork(settings(service(S), names={GUID(T.value): NA(3)}))
    a, vi, q = net.host(A), net.vi(S), net.router()
    assert a.chunk(chunk(services=(S, T))) is None
    vi.verdict(task_of(vi))
    header = only(q.accept_all()).header
    assert header.next_sid == T
    assert (header.destination_na, header.hop_limit) == (NA(0), 31)
    net.check_idle()


def test_sequence_that_ran_elsewhere_is_not_run_again() -> None:
    """A chunk whose cursor is at the end is a plain chunk."""
    net = FakeNetwork(settings(service(S), service(T)))
    q, b, vi = net.router(), net.host(B), net.vi(S)
    done = ServiceSequence((S, T), 2)
    assert q.chunk(chunk(services=(S, T), sequence=done)) is None
    assert only(b.accept_all()).header.sequence == done
    assert not vi.unsettled


def test_one_service_twice_in_a_visit_is_refused() -> None:
    """At most once per visit: what cannot be done as asked is refused, not half done."""
    net = FakeNetwork(settings(service(S), service(T)))
    a, _ = net.host(A), net.host(B)
    net.vi(S)
    assert reason_of(a.chunk(chunk(services=(S, T, S)))) is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("priorities", "order"),
    [
        ({S: 0, T: 10, U: 5}, (T, U, S)),
        ({S: 20, T: 10, U: 5}, (S, T, U)),
        ({S: 7, T: 10, U: 5}, (T, S, U)),
    ],
)
def test_priority_orders_asked_for_and_transparent_services(
    priorities: dict[SID, int], order: tuple[SID, ...]
) -> None:
    """The unexecuted service of highest priority is next, whoever wanted it, each once."""
    net = FakeNetwork(settings(*(service(name, priority=p) for name, p in priorities.items())))
    net.core.install_rules(PlainTable(visiting(T, U)))
    a, b = net.host(A), net.host(B)
    vis = {name: net.vi(name) for name in priorities}
    assert a.chunk(chunk(services=(S,))) is None
    for name in order:
        vis[name].verdict(task_of(vis[name]))
    assert only(b.accept_all()).header.sid == SID_ZERO
    net.check_idle()


def test_service_that_is_both_asked_for_and_transparent_runs_once() -> None:
    """Having run as a transparent service counts as having run."""
    net = FakeNetwork(settings(service(S, priority=1), service(T, priority=9)))
    net.core.install_rules(PlainTable(visiting(T)))
    a, b, s, t = net.host(A), net.host(B), net.vi(S), net.vi(T)
    assert a.chunk(chunk(services=(S, T))) is None
    t.verdict(task_of(t))
    s.verdict(task_of(s))
    header = only(b.accept_all()).header
    assert header.sequence == ServiceSequence((S, T), 2)
    assert not t.unsettled


def test_drop_verdict_ends_everything_and_tells_the_source_why() -> None:
    """Nothing further runs after a drop, and the service's own word reaches the source."""
    net = FakeNetwork(settings(service(S), service(T)))
    a, _, vi, other = net.host(A), net.host(B), net.vi(S), net.vi(T)
    assert a.chunk(chunk(services=(S, T))) is None
    vi.verdict(task_of(vi), VerdictCode.DROP, detail=b"looks bad")
    assert reported(a) == (Outcome.REFUSED, Reason.DROPPED_BY_SERVICE, "looks bad")
    assert net.sums["dropped"] == 1 and not other.unsettled
    net.check_idle()


def test_redirect_verdict_changes_the_destination() -> None:
    """A load balancer's chunk goes where it says, though its first destination is unknown."""
    net = FakeNetwork(settings(service(S)))
    a, c, vi = net.host(A), net.host(C), net.vi(S)
    for _ in range(2):
        assert a.chunk(chunk(destination=guid("v"), services=(S,))) is None
        vi.verdict(task_of(vi), VerdictCode.REDIRECT, detail=C.value + NA(0).to_bytes())
        assert only(c.accept_all()).header.destination == C
    net.check_idle()


def test_redirect_to_nowhere_is_a_refusal_told_to_the_source() -> None:
    """An unknown new destination is refused as an unknown first one would be."""
    net = FakeNetwork(settings(service(S)))
    a, _, vi = net.host(A), net.host(B), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    vi.verdict(task_of(vi), VerdictCode.REDIRECT, detail=guid("x").value + NA(0).to_bytes())
    assert reported(a)[:2] == (Outcome.REFUSED, Reason.UNRESOLVABLE_GUID)
    net.check_idle()


def emitted(
    destination: GUID = C,
    payload: bytes = b"made",
    source: GUID = GUID_ZERO,
    sid: SID = SID_ZERO,
    chunk_id: int = 99,
) -> bytes:
    return chunk(
        source,
        destination,
        payload,
        () if sid.is_zero else (sid,),
        chunk_id,
        wants_report=False,
    )


@pytest.mark.parametrize("keep", [True, False])
def test_emitted_chunks_carry_the_service_as_source(keep: bool) -> None:
    """A service sends under its own name, beside the chunk or in its place."""
    net = FakeNetwork(settings(service(S)))
    a, b, c, vi = net.host(A), net.host(B), net.host(C), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    made = emitted() + emitted(payload=b"more", chunk_id=100)
    vi.verdict(task_of(vi), VerdictCode.EMIT, made, emit_count=2, keep=keep)
    taken = c.accept_all()
    assert [sent.payload for sent in taken] == [b"made", b"more"]
    for sent in taken:
        assert sent.header.source == GUID(S.value)
        assert sent.header.source_na == ROUTER_NA
    assert len(b.accept_all()) == keep
    assert net.sums["replaced"] == (not keep)
    net.end_turn()
    if not keep:
        assert only(reports_in(only(a.accept_all()))).outcome is Outcome.DELIVERED
    net.check_idle()


def test_emitted_chunk_visits_other_services_but_never_its_maker() -> None:
    """What a service emits may ask for others; asking for itself would go round for ever."""
    net = FakeNetwork(settings(service(S), service(T)))
    a, _, c, s, t = net.host(A), net.host(B), net.host(C), net.vi(S), net.vi(T)
    assert a.chunk(chunk(services=(S,))) is None
    s.verdict(task_of(s), VerdictCode.EMIT, emitted(sid=T), emit_count=1)
    t.verdict(task_of(t), VerdictCode.EMIT, emitted(sid=S), emit_count=1)
    assert net.core.book.refused == {Reason.UNSUPPORTED: 1}
    assert not s.unsettled and not c.unsettled
    net.check_idle()


@pytest.mark.parametrize(
    ("payload", "count"),
    [
        (emitted(source=A), 1),
        (emitted(), 2),
        (emitted() + b"!", 1),
        (emitted()[:-1], 1),
        (b"", 1),
        (emitted(), 0),
        (b"", 1025),
    ],
)
def test_bad_emission_is_a_failed_verdict(payload: bytes, count: int) -> None:
    """A forged source or a broken encoding makes no chunk; the fail policy decides the rest."""
    net = FakeNetwork(settings(service(S)))
    a, _, vi = net.host(A), net.host(B), net.vi(S)
    net.host(C)
    assert a.chunk(chunk(services=(S,))) is None
    vi.verdict(task_of(vi), VerdictCode.EMIT, payload, emit_count=count)
    assert reported(a)[:2] == (Outcome.REFUSED, Reason.SERVICE_FAILED)
    assert net.sums["delivered"] == 1, "the report only"
    net.check_idle()


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


def test_verdict_that_overtakes_its_settlement_counts() -> None:
    """Order on the wire is not promised: the verdict waits for the hop to let go of the bytes."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    for settlement in (Settlement.ACCEPTED, Settlement.LOST):
        assert a.chunk(chunk(services=(S,))) is None
        task = only(vi.unsettled)
        assert vi.verdict(task) is None
        assert reason_of(vi.verdict(task)) is Reason.MALFORMED, "a second verdict on one task"
        assert not b.unsettled
        vi.settle(task, settlement)
        assert len(b.accept_all()) == 1
    vi.go_down()
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


def test_malformed_verdict_is_refused_and_the_task_runs_into_its_deadline() -> None:
    """Bytes that are no verdict change nothing."""
    net = FakeNetwork(settings(service(S, deadline_ms=500)))
    a, _, vi = net.host(A), net.host(B), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    vi.accept_all()
    assert reason_of(vi.body(BodyKind.VERDICT, b"nonsense")) is Reason.MALFORMED
    assert reason_of(vi.body(BodyKind.CHUNK, chunk())) is Reason.NOT_AUTHORISED
    net.pass_time(0.6)
    assert reported(a)[1] is Reason.SERVICE_FAILED
    net.check_idle()


def test_one_vi_cannot_answer_for_another() -> None:
    """A verdict counts only from the VI that has the task."""
    net = FakeNetwork(settings(service(S), service(T)))
    a, b, vi, other = net.host(A), net.host(B), net.vi(S), net.vi(T)
    assert a.chunk(chunk(services=(S,))) is None
    task = task_of(vi)
    assert other.verdict(task, VerdictCode.UPDATE, b"forged") is None
    assert not b.unsettled
    vi.verdict(task)
    assert only(b.accept_all()).payload == b"payload"
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


def test_two_services_crossed_in_opposite_order_do_not_starve_each_other() -> None:
    """An updated payload that waits for the next VI is out of the buffer of the one before."""
    net = FakeNetwork(settings(service(S), service(T), vi_window_count=1))
    a, b, s, t = net.host(A), net.host(B), net.vi(S), net.vi(T)
    assert a.chunk(chunk(services=(T,), chunk_id=1)) is None
    assert a.chunk(chunk(services=(S, T), chunk_id=2)) is None
    s.verdict(task_of(s), VerdictCode.UPDATE, b"updated")
    assert net.bodies[-1].is_released, "the verdict's credit went back to the VI of S"
    t.verdict(task_of(t))
    task = task_of(t)
    assert task.payload == b"updated"
    t.verdict(task)
    assert len(b.accept_all()) == 2
    assert ChunkId(2) in [sent.header.chunk_id for sent in b.accepted]
    net.check_idle()
