"""What VIs of the cloudlet's table may say: restrictions, output budgets, allowed destinations."""

from __future__ import annotations

from typing import Any

import pytest

from packetcloud.chunk.hop.api import Settlement
from packetcloud.chunk.messages import Outcome, VerdictCode
from packetcloud.chunk.names import GUID, NA
from packetcloud.chunk.reasons import Reason
from packetcloud.router.cloudlet_pool import CloudletVI
from packetcloud.router.cloudlet_table import OutputBudget, ViState
from packetcloud.router.conduct_account import (
    MAX_EVIDENCE_COUNT,
    MAX_SAVED_BYTES,
    MAX_SAVED_CHUNKS,
    OUTPUT_ALLOWANCE_BYTES,
    ConductAccount,
    Violation,
)
from packetcloud.router.settings import FailPolicy
from tests.unit.router.cloudlet_tables import (
    DRAINING,
    HELD,
    RESTRICTED,
    SERVING,
    cloudlet_network,
    entry,
    vi,
)
from tests.unit.router.router_fakes import (
    ROUTER_NA,
    A,
    B,
    C,
    FakeNeighbour,
    FakeNetwork,
    S,
    T,
    chunk,
    guid,
)
from tests.unit.router.service_visits import emitted, only, reported, task_of

D = guid("d")


def state_of(net: FakeNetwork) -> CloudletVI:
    assert net.core.cloudlet is not None
    found = net.core.cloudlet.find(S, 1)
    assert found is not None
    return found


def redirect(one: FakeNeighbour, to: bytes, na: int = 0) -> None:
    one.verdict(task_of(one), VerdictCode.REDIRECT, detail=to + na.to_bytes(4, "big"))


@pytest.mark.parametrize("kind", [Violation.EMIT, Violation.REDIRECT])
def test_restricted_vi_neither_emits_nor_redirects(kind: Violation) -> None:
    """A verdict that does so in place of the chunk counts as failed, with the reason, and is
    counted by its kind."""
    net, controller = cloudlet_network(entry(vi(1, RESTRICTED)))
    a, b, c, one = net.host(A), net.host(B), net.host(C), net.vi(S, 1)
    assert a.chunk(chunk(services=(S,))) is None
    if kind is Violation.EMIT:
        one.verdict(task_of(one), VerdictCode.EMIT, emitted(), emit_count=1)
    else:
        redirect(one, C.value)
    _, reason, detail = reported(a)
    assert reason is Reason.SERVICE_FAILED
    assert "not allowed: a restricted VI" in detail
    assert not b.unsettled and not c.unsettled
    assert state_of(net).account.violations == {kind: 1}
    assert state_of(net).verdicts[VerdictCode[kind.name]] == 1
    assert state_of(net).service.violations == {kind: 1}
    controller.put(entry(vi(1)))
    assert a.chunk(chunk(services=(S,))) is None
    redirect(one, C.value)
    assert len(c.accept_all()) == 1
    a.accept_all()
    net.check_idle()


@pytest.mark.parametrize("is_restricted", [False, True])
@pytest.mark.parametrize(
    "verdict",
    [{"keep": True}, {"keep": True, "updates": True, "payload_type": 17}, {"again": True}],
    ids=["keep", "update", "drop"],
)
def test_what_a_restricted_vi_sends_beside_a_chunk_is_left_out(
    verdict: dict[str, Any], is_restricted: bool
) -> None:
    """Its verdict on the chunk counts: a decompressor that is restricted goes on restoring."""
    net, _ = cloudlet_network(entry(vi(1, RESTRICTED if is_restricted else SERVING)))
    a, b, c, one = net.host(A), net.host(B), net.host(C), net.vi(S, 1)
    assert a.chunk(chunk(services=(S,))) is None
    made = emitted() + (b"new" if "updates" in verdict else b"")
    one.verdict(task_of(one), VerdictCode.EMIT, made, detail=b"later", emit_count=1, **verdict)
    assert len(c.accept_all()) == (not is_restricted)
    if "again" in verdict:
        assert reported(a) == (Outcome.REFUSED, Reason.SEND_AGAIN, "later")
    else:
        went = only(b.accept_all())
        expected = (b"new", 17) if "updates" in verdict else (b"payload", 0)
        assert (went.payload, went.header.payload_type) == expected
    assert not state_of(net).account.violations
    assert state_of(net).service.left_out_count == is_restricted
    assert state_of(net).service.emitted_count == (not is_restricted)
    net.check_idle()


@pytest.mark.parametrize("over", [0, 1])
def test_its_budget_holds_without_what_was_left_out(over: int) -> None:
    """The new payload alone is weighed."""
    net, _ = cloudlet_network(entry(vi(1, RESTRICTED), ratio=1.5))
    a, b, c, one = net.host(A), net.host(B), net.host(C), net.vi(S, 1)
    assert a.chunk(chunk(payload=bytes(1000), services=(S,))) is None
    made = emitted(payload=bytes(5000)) + bytes(1500 + OUTPUT_ALLOWANCE_BYTES + over)
    one.verdict(task_of(one), VerdictCode.EMIT, made, emit_count=1, keep=True, updates=True)
    assert len(b.accept_all()) == 1 - over and not c.unsettled
    assert state_of(net).account.violations == ({Violation.OUTPUT: 1} if over else {})


@pytest.mark.parametrize("is_restricted", [False, True])
@pytest.mark.parametrize("state", [HELD, DRAINING])
def test_a_restriction_holds_for_what_a_vi_finishes(state: ViState, is_restricted: bool) -> None:
    """Held for a migration or drained, it may redirect what it has only if it is not restricted."""
    net, controller = cloudlet_network(entry(vi(1, RESTRICTED if is_restricted else SERVING)))
    a, c, one = net.host(A), net.host(C), net.vi(S, 1)
    assert a.chunk(chunk(services=(S,))) is None
    controller.put(entry(vi(1, state, is_restricted=is_restricted)))
    redirect(one, C.value)
    assert len(c.unsettled) == (0 if is_restricted else 1)
    expected = {Violation.REDIRECT: 1} if is_restricted else {}
    assert state_of(net).account.violations == expected


@pytest.mark.parametrize("over", [0, 1])
def test_restricted_vi_has_a_budget_for_what_it_makes_of_a_chunk(over: int) -> None:
    """At the budget it passes, one byte over it counts as failed."""
    net, _ = cloudlet_network(entry(vi(1, RESTRICTED), ratio=1.5))
    a, b, one = net.host(A), net.host(B), net.vi(S, 1)
    assert a.chunk(chunk(payload=bytes(1000), services=(S,))) is None
    size = 1500 + OUTPUT_ALLOWANCE_BYTES + over
    one.verdict(task_of(one), VerdictCode.UPDATE, bytes(size))
    if over:
        assert "allowed: 2524" in reported(a)[2]
        assert state_of(net).account.violations == {Violation.OUTPUT: 1}
    else:
        assert len(only(b.accept_all()).payload) == size
        assert not state_of(net).account.violations
    net.check_idle()


def test_vi_that_is_not_restricted_has_no_budget() -> None:
    """A service that decompresses may make much more than it got."""
    net, _ = cloudlet_network(entry(vi(1), ratio=1.0))
    a, b, one = net.host(A), net.host(B), net.vi(S, 1)
    assert a.chunk(chunk(services=(S,))) is None
    one.verdict(task_of(one), VerdictCode.UPDATE, bytes(100_000))
    assert len(only(b.accept_all()).payload) == 100_000


def test_violation_goes_to_another_vi() -> None:
    """One VI that misbehaves costs its service's chunks nothing."""
    net, _ = cloudlet_network(entry(vi(1, RESTRICTED), vi(2, slot=1)))
    a, b = net.host(A), net.host(B)
    vis = {1: net.vi(S, 1), 2: net.vi(S, 2)}
    for number in range(2):
        assert a.chunk(chunk(services=(S,), chunk_id=number)) is None
        if vis[1].unsettled:
            redirect(vis[1], C.value)
        vis[2].verdict(task_of(vis[2]))
    assert len(b.accept_all()) == 2
    net.check_idle()


def test_violation_of_a_fail_open_service_skips_it() -> None:
    """As any other failure."""
    net, _ = cloudlet_network(entry(vi(1, RESTRICTED), fail_policy=FailPolicy.OPEN))
    a, b, one = net.host(A), net.host(B), net.vi(S, 1)
    assert a.chunk(chunk(services=(S,))) is None
    redirect(one, C.value)
    assert only(b.accept_all()).header.sid.is_zero
    net.check_idle()


@pytest.mark.parametrize(
    ("to", "na", "is_allowed"),
    [
        (B, 0, True),  # by its GUID
        (C, 0, False),
        (D, 0, True),  # by where the name table has it
        (guid("x"), 2, True),  # by its NA: the neighbour router's
        (guid("x"), 3, False),  # behind the same router, and not listed
        (C, 2, False),  # attached here, whatever it says
        (guid("y"), 0, False),  # nobody knows where that is
    ],
)
def test_destinations_of_redirects(to: GUID, na: int, is_allowed: bool) -> None:
    """What counts is where the chunk would go, not what the VI writes."""
    allowed = entry(vi(1), guids=(B,), nas=(NA(2),))
    net, _ = cloudlet_network(allowed, names={D: NA(2)})
    a, out = net.host(A), [net.host(B), net.host(C), net.router()]
    one = net.vi(S, 1)
    assert a.chunk(chunk(services=(S,))) is None
    redirect(one, to.value, na)
    assert sum(len(host.accept_all()) for host in out) == is_allowed
    assert state_of(net).account.violations == ({} if is_allowed else {Violation.DESTINATION: 1})
    if not is_allowed:
        assert "may not send to" in reported(a)[2]
    net.check_idle()


@pytest.mark.parametrize(
    ("made", "is_allowed"),
    [
        ([emitted(B)], True),
        ([emitted(B), emitted(C)], False),
        ([emitted(B, sid=T)], False),  # by way of a service
    ],
)
def test_destinations_of_emitted_chunks(made: list[bytes], is_allowed: bool) -> None:
    """Each of them, and each service on its way; one that strays stops all."""
    net, _ = cloudlet_network(entry(vi(1), guids=(B,)), entry(vi(5), sid=T))
    a, b, c, one = net.host(A), net.host(B), net.host(C), net.vi(S, 1)
    net.vi(T, 5)
    assert a.chunk(chunk(services=(S,))) is None
    task = task_of(one)
    one.verdict(task, VerdictCode.EMIT, b"".join(made), emit_count=len(made), keep=False)
    assert len(b.accept_all()) == is_allowed
    assert not c.unsettled
    assert state_of(net).account.violations == ({} if is_allowed else {Violation.DESTINATION: 1})


@pytest.mark.parametrize("state", [SERVING, RESTRICTED])
def test_a_chunk_astray_beside_another_counts(state: ViState) -> None:
    """Restricted or not, and its own chunk is not what its verdict says."""
    net, _ = cloudlet_network(entry(vi(1, state), guids=(B,)))
    a, b, c, one = net.host(A), net.host(B), net.host(C), net.vi(S, 1)
    assert a.chunk(chunk(services=(S,))) is None
    one.verdict(task_of(one), VerdictCode.EMIT, emitted(C), emit_count=1, keep=True)
    assert reported(a)[1] is Reason.SERVICE_FAILED
    assert not b.unsettled and not c.unsettled
    assert state_of(net).account.violations == {Violation.DESTINATION: 1}
    assert state_of(net).service.left_out_count == 0


def test_services_of_this_cloudlet_are_where_the_router_is() -> None:
    """With the router's own NA listed, chunks may go to its services and hosts."""
    net, _ = cloudlet_network(entry(vi(1), guids=(), nas=(ROUTER_NA,)), entry(vi(5), sid=T))
    a, b, one, two = net.host(A), net.host(B), net.vi(S, 1), net.vi(T, 5)
    assert a.chunk(chunk(services=(S,))) is None
    one.verdict(task_of(one), VerdictCode.EMIT, emitted(B, sid=T), emit_count=1)
    two.verdict(task_of(two))
    assert len(b.accept_all()) == 1
    assert not state_of(net).account.violations
    net.check_idle()


def test_malformed_emission_is_no_violation() -> None:
    """It fails as it always does."""
    net, _ = cloudlet_network(entry(vi(1), guids=(B,)))
    a, _b, one = net.host(A), net.host(B), net.vi(S, 1)
    assert a.chunk(chunk(services=(S,))) is None
    one.verdict(task_of(one), VerdictCode.EMIT, b"?" * 40, emit_count=1)
    assert not state_of(net).account.violations
    assert net.core.dispatch.bad_verdicts_count == 1
    assert reported(a)[1] is Reason.SERVICE_FAILED
    net.check_idle()


def test_verdict_before_its_task_is_settled_is_checked_as_any_other() -> None:
    """Overtaking changes nothing: the first one counts, a second one is refused."""
    net, _ = cloudlet_network(entry(vi(1, RESTRICTED)))
    a, _b, one = net.host(A), net.host(B), net.vi(S, 1)
    assert a.chunk(chunk(services=(S,))) is None
    task = one.unsettled[0]
    target = C.value + bytes(4)
    assert one.verdict(task, VerdictCode.REDIRECT, detail=target) is None
    assert one.verdict(task, VerdictCode.REDIRECT, detail=target) is not None
    assert state_of(net).account.violations == {Violation.REDIRECT: 1, Violation.SURPLUS: 1}
    one.settle(task, Settlement.ACCEPTED)
    assert reported(a)[1] is Reason.SERVICE_FAILED
    net.check_idle()


@pytest.mark.parametrize("lies_count", [0, 1, 3])
def test_more_verdicts_than_tasks_are_violations(lies_count: int) -> None:
    """On a task of another VI, or once more: they have no effect, and are counted."""
    net, _ = cloudlet_network(entry(vi(1)), entry(vi(5), sid=T))
    a, b, one, other = net.host(A), net.host(B), net.vi(S, 1), net.vi(T, 5)
    assert a.chunk(chunk(services=(S,))) is None
    assert a.chunk(chunk(services=(T,))) is None
    one.verdict(task_of(one))
    assert not state_of(net).account.violations
    theirs = other.unsettled[0]
    for _ in range(lies_count):
        one.verdict(theirs, VerdictCode.DROP)
    assert state_of(net).account.violations == (
        {Violation.SURPLUS: lies_count} if lies_count else {}
    )
    assert state_of(net).service.violations == state_of(net).account.violations
    other.verdict(task_of(other))
    assert len(b.accept_all()) == 2
    a.accept_all()
    net.check_idle()


def test_late_verdict_is_no_violation() -> None:
    """Nothing follows from it in any case."""
    net, _ = cloudlet_network(entry(vi(1, RESTRICTED)))
    a, b, one = net.host(A), net.host(B), net.vi(S, 1)
    assert a.chunk(chunk(services=(S,))) is None
    task = task_of(one)
    net.pass_time(state_of(net).service.deadline_s + 0.1)
    assert reported(a)[1] is Reason.SERVICE_FAILED
    one.verdict(task, VerdictCode.REDIRECT, detail=C.value + bytes(4))
    assert state_of(net).answered_count == 1
    assert not state_of(net).account.violations
    assert not b.unsettled
    net.check_idle()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (VerdictCode.UPDATE, Violation.PAYLOAD),
        (VerdictCode.REDIRECT, Violation.VERDICT),
        (VerdictCode.EMIT, Violation.VERDICT),
        (VerdictCode.FORWARD, None),
        (VerdictCode.DROP, None),
        (VerdictCode.FAILED, None),
    ],
)
def test_verdicts_that_a_service_did_not_declare(code: VerdictCode, kind: Violation | None) -> None:
    """A service that watches and drops changes no payload, sends nothing elsewhere, makes nothing;
    to fail is nobody's declaration."""
    declared = frozenset({VerdictCode.FORWARD, VerdictCode.DROP})
    net, _ = cloudlet_network(entry(vi(1), verdicts=declared))
    a, b, c, one = net.host(A), net.host(B), net.host(C), net.vi(S, 1)
    assert a.chunk(chunk(services=(S,))) is None
    task = task_of(one)
    if code is VerdictCode.REDIRECT:
        one.verdict(task, code, detail=C.value + bytes(4))
    elif code is VerdictCode.EMIT:
        one.verdict(task, code, emitted(), emit_count=1, keep=True)
    else:
        one.verdict(task, code, b"another" if code is VerdictCode.UPDATE else b"")
    assert state_of(net).account.violations == ({} if kind is None else {kind: 1})
    if kind is not None:
        assert "did not declare" in (text := reported(a)[2]) or "changes no payload" in text
        assert not b.unsettled and not c.unsettled
        (evidence,) = state_of(net).account.evidence
        assert (evidence.kind, evidence.source, evidence.chunk_id.value) == (kind, A, 7)


@pytest.mark.parametrize("over", [0, 1])
def test_the_budget_of_bytes(over: int) -> None:
    """Of one that is not restricted, too; what it saved with a chunk it may spend on the next."""
    net, _ = cloudlet_network(entry(vi(1), budget=OutputBudget(bytes_ratio=2.0)))
    a, b, one = net.host(A), net.host(B), net.vi(S, 1)
    for number in (1, 2):
        assert a.chunk(chunk(payload=bytes(1000), services=(S,), chunk_id=number)) is None
        saved = 1000 + OUTPUT_ALLOWANCE_BYTES if number == 2 else 0
        if number == 1:
            one.verdict(task_of(one))
        else:
            size = saved + 2000 + OUTPUT_ALLOWANCE_BYTES + over
            one.verdict(task_of(one), VerdictCode.UPDATE, bytes(size))
    assert len(b.accept_all()) == 2 - over
    assert state_of(net).account.violations == ({Violation.BUDGET: 1} if over else {})
    if over:
        assert "over its budget" in reported(a)[2]


@pytest.mark.parametrize("over", [0, 1])
def test_the_budget_of_chunks(over: int) -> None:
    """Those that it makes count, and the one that it keeps."""
    net, _ = cloudlet_network(entry(vi(1), budget=OutputBudget(chunks_ratio=3.0)))
    a, b, c, one = net.host(A), net.host(B), net.host(C), net.vi(S, 1)
    assert a.chunk(chunk(services=(S,))) is None
    made = [emitted(chunk_id=number) for number in range(2 + over)]
    one.verdict(task_of(one), VerdictCode.EMIT, b"".join(made), emit_count=len(made), keep=True)
    assert len(b.accept_all()) == 1 - over
    assert len(c.accept_all()) == (0 if over else 2)
    assert state_of(net).account.violations == ({Violation.BUDGET: 1} if over else {})


def test_what_is_saved_is_bounded() -> None:
    """A VI that drops for a year floods nobody afterwards."""
    account = ConductAccount()
    budget = OutputBudget(bytes_ratio=1000.0, chunks_ratio=100.0)
    for _ in range(100):
        assert account.spend(budget, 1 << 20, 0, 0) is None
    assert (account.saved_bytes, account.saved_chunks) == (MAX_SAVED_BYTES, MAX_SAVED_CHUNKS)
    most = MAX_SAVED_BYTES + OUTPUT_ALLOWANCE_BYTES
    assert "allowed: " in str(account.spend(budget, 0, most + 1, 1))
    assert "allowed: " in str(account.spend(budget, 0, 0, MAX_SAVED_CHUNKS + 101))
    assert account.spend(budget, 0, most, MAX_SAVED_CHUNKS + 100) is None
    assert (account.saved_bytes, account.saved_chunks) == (0, 0)


def test_evidence_is_of_the_last_violations() -> None:
    """Counts are of all; of chunks so many are named."""
    net, _ = cloudlet_network(entry(vi(1, RESTRICTED)))
    a, one = net.host(A), net.vi(S, 1)
    net.host(B)
    for number in range(1, MAX_EVIDENCE_COUNT + 2):
        assert a.chunk(chunk(services=(S,), chunk_id=number)) is None
        redirect(one, C.value)
    account = state_of(net).account
    assert account.violations == {Violation.REDIRECT: MAX_EVIDENCE_COUNT + 1}
    assert [one.chunk_id.value for one in account.evidence] == list(
        range(2, MAX_EVIDENCE_COUNT + 2)
    )


def test_who_attaches_anew_keeps_its_record() -> None:
    """Also its credit; a VI that the table does not list any more has neither."""
    net, controller = cloudlet_network(
        entry(vi(1, RESTRICTED), budget=OutputBudget(bytes_ratio=1.0))
    )
    a, one = net.host(A), net.vi(S, 1)
    net.host(B)
    assert a.chunk(chunk(services=(S,))) is None
    redirect(one, C.value)
    before = state_of(net).account
    one.go_down()
    net.vi(S, 1)
    assert state_of(net).account is before
    assert before.violations == {Violation.REDIRECT: 1}
    controller.put(entry(vi(2)))
    controller.put(entry(vi(1, owner_epoch=9)))
    net.vi(S, 1)
    assert state_of(net).account is not before


def test_who_updates_besides_emitting_declared_both() -> None:
    """The new payload behind emitted chunks is an update like any other."""
    for declared in (
        {VerdictCode.EMIT},
        {VerdictCode.UPDATE},
        {VerdictCode.EMIT, VerdictCode.UPDATE},
    ):
        net, _ = cloudlet_network(entry(vi(1), verdicts=frozenset(declared)))
        a, b, c, one = net.host(A), net.host(B), net.host(C), net.vi(S, 1)
        assert a.chunk(chunk(services=(S,))) is None
        made = emitted() + b"another"
        task = task_of(one)
        one.verdict(task, VerdictCode.EMIT, made, emit_count=1, keep=True, updates=True)
        assert len(b.accept_all()) == len(c.accept_all()) == (len(declared) == 2)


@pytest.mark.parametrize("over", [0, 1])
def test_the_budget_of_an_update_that_emits(over: int) -> None:
    """What it made counts, the payload that it replaced does not."""
    net, _ = cloudlet_network(entry(vi(1), budget=OutputBudget(bytes_ratio=1.0)))
    a, b, c, one = net.host(A), net.host(B), net.host(C), net.vi(S, 1)
    assert a.chunk(chunk(payload=bytes(5000), services=(S,))) is None
    made = emitted()
    made += bytes(5000 + OUTPUT_ALLOWANCE_BYTES - len(made) + over)
    one.verdict(task_of(one), VerdictCode.EMIT, made, emit_count=1, keep=True, updates=True)
    assert len(b.accept_all()) == len(c.accept_all()) == 1 - over
    assert state_of(net).account.violations == ({Violation.BUDGET: 1} if over else {})
