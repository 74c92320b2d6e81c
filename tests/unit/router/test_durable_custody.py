"""Durable custody beside services, full disks and absent hosts: what was acknowledged arrives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from packetcloud.chunk.messages import Outcome, VerdictCode
from packetcloud.chunk.names import GUID, NA, SID_ZERO
from packetcloud.chunk.reasons import Reason
from packetcloud.router import waiting
from packetcloud.router.disk_jobs import Read
from packetcloud.router.planner import FlowPlanner
from packetcloud.router.settings import RouterSettings
from tests.unit.router.router_fakes import (
    A,
    B,
    C,
    FakeDisk,
    FakeNetwork,
    S,
    chunk,
    guid,
    reports_in,
)
from tests.unit.router.spooling import KIB, accept_with_disk, ids, payload, send, spooled


@pytest.mark.parametrize("redirected", [False, True])
def test_a_spilled_chunk_keeps_what_its_service_wrote_into_the_header(redirected: bool) -> None:
    """The record is the chunk as it came; what comes back from it is the payload alone."""
    net = FakeNetwork(spooled(durable=True, memory_bytes=4 * KIB))
    a, vi = net.host(A), net.vi(S)
    target = C if redirected else B
    net.host(target).go_down()
    send(a, range(20), services=(S,))
    net.disk_turns()
    for task in vi.accept_all():
        if redirected:
            vi.verdict(task, VerdictCode.REDIRECT, detail=C.value + NA(1).to_bytes())
        else:
            vi.verdict(task, VerdictCode.FORWARD)
    net.disk_turns()
    assert net.core.spool.spilled_count > 10
    taken = accept_with_disk(net, net.host(target))
    assert ids(taken) == list(range(20))
    assert {sent.header.destination for sent in taken} == {target}
    assert {sent.header.sid for sent in taken} == {SID_ZERO}
    assert [sent.payload for sent in taken] == [payload(n) for n in range(20)]
    net.disk_turns()
    net.check_idle()


@pytest.mark.parametrize("is_disk_full", [False, True])
def test_what_has_a_record_is_not_refused_for_want_of_room(is_disk_full: bool) -> None:
    """A host goes away while nothing more can be written: what was acknowledged waits for it."""
    disk = FakeDisk()
    max_bytes = 256 * KIB if is_disk_full else 43_000
    given = spooled(durable=True, memory_bytes=32 * KIB, max_bytes=max_bytes)
    net = FakeNetwork(given, disk=disk)
    a, b = net.host(A), net.host(B)
    send(a, range(38))
    net.disk_turns()
    assert a.decisions == [None] * 38
    if is_disk_full:
        disk.storage.limit_bytes = disk.storage.used_bytes
        send(a, range(100, 101))
        net.disk_turns()
        assert net.core.spool.error
    b.go_down()
    assert not net.core.book.refused
    assert net.core.forwarder.waiting.memory_bytes <= 32 * KIB
    assert ids(accept_with_disk(net, net.host(B))) == list(range(38))
    net.disk_turns()
    net.check_idle()


def made(number: int, *, to: GUID = B, size: int = 3 * KIB) -> bytes:
    return chunk(
        source=GUID(bytes(20)), destination=to, payload=payload(number, size), chunk_id=number
    )


@pytest.mark.parametrize("fault", ["flow_full", "disk_full", "disk_fails"])
def test_an_emission_that_cannot_be_stored_costs_nothing(fault: str) -> None:
    """None of it is sent, the chunk that it was made of stays until somebody is told of its end."""
    disk = FakeDisk()
    max_flow_bytes = 8 * KIB if fault == "flow_full" else 128 * KIB
    given = spooled(durable=True, max_flow_bytes=max_flow_bytes)
    net = FakeNetwork(given, disk=disk)
    a, vi = net.host(A), net.vi(S)
    b = net.host(B)
    send(a, range(1, 2), services=(S,), to=C, destination_na=NA(2))
    net.disk_turns()
    [task] = vi.accept_all()
    if fault == "disk_full":
        disk.storage.limit_bytes = disk.storage.used_bytes + 4000
    vi.verdict(task, VerdictCode.EMIT, b"".join(map(made, (8, 9, 10))), emit_count=3)
    if fault == "disk_fails":
        disk.storage.failing = True
    assert net.sums["held"] == 1 and not b.unsettled
    jobs = list(disk.jobs)
    net.disk_turns()
    assert jobs and not b.unsettled, "all or none"
    assert net.core.book.pending_bytes == 0
    assert net.core.book.replaced_count == 0
    assert net.core.book.refused[Reason.STORE_FULL] == 1
    disk.storage.failing, disk.storage.limit_bytes = False, None
    net.pass_time(1.5)
    net.disk_turns()
    net.end_turn()
    [report] = [report for sent in a.accept_all() for report in reports_in(sent)]
    assert (report.chunk_id.value, report.outcome) == (1, Outcome.REFUSED)
    assert net.core.spool.used_bytes == 0
    net.check_idle()


@pytest.mark.parametrize("how", ["updated", "kept", "again"])
@pytest.mark.parametrize("fault", ["disk_full", "disk_fails"])
def test_what_is_sent_beside_a_chunk_needs_room_of_its_own(fault: str, how: str) -> None:
    """Without it the chunk goes its way all the same: updated, as it is, or dropped for now."""
    disk = FakeDisk()
    net = FakeNetwork(spooled(durable=True), disk=disk)
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    net.host(C)
    send(a, range(1, 2), services=(S,))
    net.disk_turns()
    [task] = vi.accept_all()
    beside = made(9, to=C)
    if fault == "disk_full":
        disk.storage.limit_bytes = disk.storage.used_bytes
    if how == "again":
        vi.verdict(task, VerdictCode.EMIT, beside, detail=b"later", emit_count=1, again=True)
    else:
        updates = how == "updated"
        more = {"emit_count": 1, "keep": True, "updates": updates}
        vi.verdict(task, VerdictCode.EMIT, beside + b"new" * updates, **more)
    if fault == "disk_fails":
        disk.storage.failing = True
    net.disk_turns()
    disk.storage.failing, disk.storage.limit_bytes = False, None
    net.pass_time(1.5)
    net.disk_turns()
    net.end_turn()
    service = net.core.dispatch.services[S.value]
    assert (service.left_out_count, service.emitted_count) == (1, 0)
    assert not net.core.book.refused
    if how == "again":
        assert net.core.book.dropped == {service.name: 1}
    else:
        [went] = b.accept_all()
        assert went.payload == (b"new" if how == "updated" else payload(1))
    accept_with_disk(net, a)
    net.disk_turns()
    net.check_idle()


def test_another_vi_may_store_what_the_first_could_not() -> None:
    """It is a failed attempt: the next VI gets the chunk."""
    disk = FakeDisk()
    net = FakeNetwork(spooled(durable=True), disk=disk)
    a, vis, b = net.host(A), [net.vi(S), net.vi(S)], net.host(B)
    send(a, range(1, 2), services=(S,))
    net.disk_turns()
    [first] = [vi for vi in vis if vi.unsettled]
    [second] = [vi for vi in vis if vi is not first]
    [task] = first.accept_all()
    first.verdict(task, VerdictCode.EMIT, made(9), emit_count=1)
    disk.storage.failing = True
    net.disk_turns()
    disk.storage.failing = False
    net.pass_time(1.5)
    net.disk_turns()
    [task] = second.accept_all()
    second.verdict(task, VerdictCode.EMIT, made(9), emit_count=1)
    assert net.sums["replaced"] == 0
    assert ids(accept_with_disk(net, b)) == [9]
    assert net.sums["replaced"] == 1
    net.disk_turns()
    net.check_idle()


def test_a_chunk_that_ends_while_its_emission_is_written_takes_that_along() -> None:
    """What would be sent on after its source was told of its end is not sent."""
    disk = FakeDisk()
    net = FakeNetwork(spooled(durable=True), disk=disk)
    a, vi, b = net.host(A), net.vi(S), net.host(B)
    send(a, range(1, 2), services=(S,), lifetime_ms=2000)
    net.disk_turns()
    [task] = vi.accept_all()
    vi.verdict(task, VerdictCode.EMIT, made(9), emit_count=1, keep=True)
    net.pass_time(3.0)
    net.disk_turns()
    assert net.core.book.expired[Reason.DEADLINE_PASSED] == 1
    assert not b.unsettled and net.core.book.pending_bytes == 0
    net.end_turn()
    a.accept_all()
    assert disk.log.live_bytes == 0
    net.check_idle()


def test_a_chunk_of_an_earlier_process_is_never_said_to_have_failed_for_certain() -> None:
    """It may have been delivered before the kill: its source hears *indeterminate*."""
    disk = FakeDisk()
    net = FakeNetwork(spooled(durable=True), disk=disk)
    a, b = net.host(A), net.host(B)
    send(a, range(1, 2))
    net.disk_turns()
    assert ids(b.accept_all()) == [1]
    net = FakeNetwork(spooled(durable=True), disk=disk)  # killed before the disk heard of it
    a = net.host(A)
    net.pass_time(70.0)
    net.disk_turns()
    net.end_turn()
    [report] = [report for sent in a.accept_all() for report in reports_in(sent)]
    assert (report.outcome, report.reason) == (Outcome.REFUSED, Reason.OUTCOME_UNKNOWN)


@pytest.mark.parametrize("durable", [False, True])
def test_a_report_of_failure_waits_until_the_chunk_cannot_come_back(durable: bool) -> None:
    """At whatever moment the power is cut: who was told of a failure for certain stays right."""
    for seed in range(20):
        disk = FakeDisk(seed)
        given = spooled(durable=durable, memory_bytes=0)
        net = FakeNetwork(given, disk=disk)
        a, b = net.host(A), net.host(B)
        b.go_down()
        send(a, range(1, 6), lifetime_ms=2000)
        net.disk_turns()
        assert net.core.spool.count == 5
        net.pass_time(3.0)
        net.end_turn()
        assert not a.unsettled and not net.core.reports.is_idle, "the disk was not told yet"
        net.disk_turns()
        net.end_turn()
        told = [report for sent in a.accept_all() for report in reports_in(sent)]
        assert [report.outcome for report in told] == [Outcome.EXPIRED] * 5
        assert net.core.reports.is_idle
        disk.storage.cut_power()
        disk.wall_ms -= 3000  # so that they would go on if they were found
        assert FakeNetwork(given, disk=disk).sums["restored"] == 0


def test_a_failure_is_reported_as_indeterminate_when_the_disk_does_not_forget() -> None:
    """The record may be found after a restart, so nobody is told that it will not be."""
    disk = FakeDisk()
    net = FakeNetwork(spooled(durable=True), disk=disk)
    a, b = net.host(A), net.host(B)
    b.go_down()
    send(a, range(1, 2), lifetime_ms=2000)
    net.disk_turns()
    net.pass_time(3.0)
    disk.storage.failing = True
    net.disk_turns()
    net.end_turn()
    [report] = [report for sent in a.accept_all() for report in reports_in(sent)]
    assert (report.outcome, report.reason) == (Outcome.EXPIRED, Reason.OUTCOME_UNKNOWN)
    assert report.detail.startswith(Reason.DEADLINE_PASSED.word)


def memory_of(net: FakeNetwork) -> int:
    """Chunks in memory, and those that the disk was asked for."""
    book = net.core.book
    asked = [net.core.spool.entry(job.number) for job in net.disk.jobs if isinstance(job, Read)]
    asked_bytes = sum(entry.size_bytes for entry in asked if entry is not None)
    return book.held_bytes - book.spilled_bytes + asked_bytes


def test_what_comes_back_from_disk_keeps_to_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many flows come back at once: their bytes stay within `store_bytes`, and all arrive."""
    monkeypatch.setattr(waiting, "LINE_WINDOW_BYTES", 8 * KIB)
    monkeypatch.setattr(waiting, "LOAD_AHEAD_BYTES", 4 * KIB)
    given = spooled(memory_bytes=32 * KIB, max_bytes=1024 * KIB, max_flow_bytes=256 * KIB)
    store_bytes = 64 * KIB
    net = FakeNetwork(replace(given, store_bytes=store_bytes))
    a, q = net.host(A), net.router()
    q.go_down()
    flows = [guid(chr(48 + number)) for number in range(30)]
    count = 0
    for _ in range(10):
        for to in flows:
            assert send(a, range(count, count + 1), to=to, destination_na=NA(2)) == [None]
            count += 1
            net.disk_turns()
    q = net.router()
    taken: list[int] = []
    for _ in range(20 * count):
        net.disk_turns()
        assert memory_of(net) <= store_bytes
        if q.unsettled:
            taken += ids(q.unsettled[:1])
            q.settle(q.unsettled[0])
        else:
            net.pass_time(0.1)
        if len(taken) == count:
            break
    assert sorted(taken) == list(range(count))
    for flow in range(30):
        assert [n for n in taken if n % 30 == flow] == list(range(flow, count, 30)), "in order"
    net.disk_turns()
    net.check_idle()


def test_a_full_store_does_not_keep_out_what_comes_back() -> None:
    """It has an eighth of its own; without that a chunk at a time."""
    net = FakeNetwork(replace(spooled(), store_bytes=64 * KIB))
    a, b, c = net.host(A), net.host(B), net.host(C)
    b.go_down()
    send(a, range(40))
    net.disk_turns()
    number = 100
    while send(a, range(number, number + 1), to=C) == [None]:
        number += 1
    b = net.host(B)
    net.disk_turns()
    assert memory_of(net) <= 64 * KIB * 9 // 8
    assert ids(accept_with_disk(net, b)) == list(range(40))
    c.accept_all()
    net.disk_turns()
    net.check_idle()


def restarted(disk: FakeDisk, given: RouterSettings, absent: int, here: int) -> FakeNetwork:
    """A router that finds chunks for C, and then for B."""
    net = FakeNetwork(given, disk=disk)
    a = net.host(A)
    net.host(B).go_down()
    net.host(C).go_down()
    for number in range(absent + here):
        assert send(a, range(number, number + 1), to=C if number < absent else B) != [None]
        if number % 16 == 15:
            net.disk_turns()
    net.disk_turns()
    return FakeNetwork(given, disk=disk)


def test_a_restart_plans_once_for_each_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks for somebody who is away cost nothing while those beside them start."""
    given = spooled(durable=True, max_bytes=1024 * KIB, max_flow_bytes=512 * KIB)
    net = restarted(FakeDisk(), replace(given, detached_hold_bytes=1024 * KIB), 100, 100)
    plans = 0
    plan = FlowPlanner.plan

    def counted(*args: Any, **names: Any) -> Any:
        nonlocal plans
        plans += 1
        return plan(*args, **names)

    monkeypatch.setattr(FlowPlanner, "plan", counted)
    assert net.core.restorer.next_try_at == float("inf")
    b = net.host(B)
    taken: list[int] = []
    while len(taken) < 100:
        taken += ids(accept_with_disk(net, b))
        net.pass_time(0.1)
    assert taken == list(range(100, 200))
    assert net.core.restorer.count == 100
    assert plans <= 2
    c = net.host(C)
    while net.core.book.held_count:
        accept_with_disk(net, c)
        net.pass_time(0.1)
    assert plans <= 4
    net.disk_turns()
    net.check_idle()


def test_found_chunks_whose_wait_is_over_come_back_within_the_store() -> None:
    """Their host is listed and stays away: they go to its line, a little at a time."""
    given = spooled(durable=True, max_bytes=1024 * KIB, max_flow_bytes=1024 * KIB)
    given = replace(given, names={B: NA(1)}, detached_hold_bytes=16 * KIB)
    net = restarted(FakeDisk(), replace(given, store_bytes=256 * KIB), 0, 200)
    net.core.configure(replace(given, store_bytes=64 * KIB), net.now)
    net.pass_time(31.0)
    for _ in range(300):
        assert memory_of(net) <= 64 * KIB
        net.disk.turn(net.core, net.now)
        net.pass_time(0.1)
        if not net.core.restorer.count:
            break
    assert not net.core.restorer.count
    assert ids(accept_with_disk(net, net.host(B))) == list(range(200))
    net.disk_turns()
    net.check_idle()
