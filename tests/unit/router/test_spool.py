"""Waiting chunks on disk, custody that waits for the disk, and what a restart takes up."""

from __future__ import annotations

import random

import pytest

from packetcloud.chunk.hop.api import Deferral, Settlement
from packetcloud.chunk.messages import Outcome, VerdictCode
from packetcloud.chunk.names import NA
from packetcloud.chunk.reasons import Reason
from packetcloud.router import waiting
from packetcloud.router.custody import Phase
from tests.unit.router.router_fakes import (
    A,
    B,
    C,
    FakeDisk,
    FakeNeighbour,
    FakeNetwork,
    S,
    chunk,
    reason_of,
    reports_in,
    settings,
)
from tests.unit.router.spooling import KIB, accept_with_disk, ids, label_of, payload, send, spooled


def test_what_waits_for_an_absent_host_goes_to_disk_and_comes_back_in_order() -> None:
    """Memory keeps `memory_bytes` of it; every byte is as it was sent."""
    net = FakeNetwork(spooled())
    a, b = net.host(A), net.host(B)
    b.go_down()
    for number in range(60):
        assert send(a, range(number, number + 1)) == [None]
        net.disk_turns()
    book, spool = net.core.book, net.core.spool
    assert book.held_bytes - book.spilled_bytes <= 10 * KIB
    assert spool.count > 40 and spool.used_bytes > 40 * KIB
    assert all(body.is_released for body in net.bodies), "the hop has its credit back"
    b = net.host(B)
    taken = accept_with_disk(net, b)
    assert ids(taken) == list(range(60))
    assert [sent.payload for sent in taken] == [payload(n) for n in range(60)]
    assert spool.restored_count > 40
    net.disk_turns()
    assert (spool.count, spool.used_bytes, net.disk.log.live_bytes) == (0, 0, 0)
    net.check_idle()


def test_a_flow_that_is_busy_waits_here_and_another_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A little stays in the session; the rest stands in line, on disk when it is much."""
    monkeypatch.setattr(waiting, "BUSY_WINDOW_BYTES", 1)
    net = FakeNetwork(spooled())
    a, b = net.host(A), net.host(B)
    q = net.router()
    assert send(a, range(1)) == [None]
    b.busy.add(label_of(net))
    send(a, range(1, 30))
    net.disk_turns()
    assert ids(b.unsettled) == [0]
    send(a, range(100, 110), to=C, destination_na=NA(2))
    assert ids(q.accept_all()) == list(range(100, 110))
    b.busy.clear()
    assert ids(accept_with_disk(net, b)) == list(range(30))
    net.check_idle()


def test_the_oldest_of_the_largest_flow_is_spilled_first() -> None:
    """The flow with the most in memory gives way, from its front."""
    net = FakeNetwork(spooled())
    a, b, c = net.host(A), net.host(B), net.host(C)
    b.go_down()
    c.go_down()
    send(a, range(2), to=C)
    send(a, range(10, 20), to=B)
    net.disk_turns()
    entries = list(net.core.book.wheel)
    spilled = [entry.chunk_id.value for entry in entries if entry.is_spilled]
    assert spilled and spilled == list(range(10, 10 + len(spilled)))


def test_a_full_spool_refuses_at_the_door_and_takes_again() -> None:
    """`store_full` before custody; when chunks left, admission recovers."""
    net = FakeNetwork(spooled(max_bytes=20 * KIB, max_flow_bytes=20 * KIB))
    a, b = net.host(A), net.host(B)
    b.go_down()
    answers = []
    for number in range(60):
        answers += send(a, range(number, number + 1))
        net.disk_turns()
    refused = [answer for answer in answers if answer is not None]
    assert refused and {reason_of(answer) for answer in refused} == {Reason.STORE_FULL}
    taken_count = answers.count(None)
    assert net.core.spool.used_bytes <= 20 * KIB
    b = net.host(B)
    assert ids(accept_with_disk(net, b)) == list(range(taken_count))
    b.go_down()
    assert send(a, range(99, 100)) == [None]


def test_a_flow_whose_share_is_used_up_stays_in_the_hop() -> None:
    """No refusal: its bodies keep the credit of whoever sends them, which then says BUSY."""
    net = FakeNetwork(spooled(max_flow_bytes=10 * KIB))
    a, b = net.host(A), net.host(B)
    b.go_down()
    for number in range(50):
        assert send(a, range(number, number + 1)) == [None]
        net.disk_turns()
    assert sum(not body.is_released for body in net.bodies) > 10
    b = net.host(B)
    assert ids(accept_with_disk(net, b)) == list(range(50))
    net.check_idle()


@pytest.mark.parametrize("durable", [False, True])
def test_a_failing_disk_costs_nothing_that_was_taken(durable: bool) -> None:
    """An I/O error: what is in memory stays there, new custody is refused where it has to be
    durable, and once a second the disk is asked again."""
    net = FakeNetwork(spooled(durable=durable))
    a, b = net.host(A), net.host(B)
    send(a, range(3))
    net.disk_turns()
    b.accept_all()
    net.disk_turns()
    b.go_down()
    net.disk.storage.failing = True
    answers = []
    for number in range(10, 30):
        answers += send(a, range(number, number + 1))
        net.disk_turns()
    assert net.core.spool.error == "Input/output error"
    if durable:
        assert a.decisions.count(None) == 3
        assert {reason_of(one) for one in a.decisions if one} == {Reason.STORE_FULL}
        assert {reason_of(one) for one in answers[1:]} == {Reason.STORE_FULL}
    else:
        assert answers.count(None) >= 14
    net.disk.storage.failing = False
    net.pass_time(1.5)
    net.disk_turns()
    assert not net.core.spool.error
    b = net.host(B)
    send(a, range(50, 53))
    taken = ids(accept_with_disk(net, b))
    assert taken[-3:] == [50, 51, 52]
    net.check_idle()


def test_a_damaged_record_is_never_delivered() -> None:
    """Its chunk is given up, its source told, the others arrive."""
    net = FakeNetwork(spooled())
    a, b = net.host(A), net.host(B)
    b.go_down()
    send(a, range(30))
    net.disk_turns()
    [name] = [name for name in net.disk.storage.files if name.startswith("chunks-")]
    net.disk.storage.files[name][700] ^= 4
    b = net.host(B)
    taken = accept_with_disk(net, b)
    assert ids(taken) == list(range(1, 30))
    assert all(sent.payload == payload(sent.header.chunk_id.value) for sent in taken)
    assert net.core.forwarder.waiting.damaged_count == 1
    net.end_turn()
    [report] = reports_in(a.accept_all()[0])
    assert (report.chunk_id.value, report.outcome) == (0, Outcome.REFUSED)
    assert report.reason == Reason.INTERNAL_ERROR


def test_a_chunk_on_disk_expires_in_time() -> None:
    """Its deadline does not care where its bytes are."""
    net = FakeNetwork(spooled())
    a, b = net.host(A), net.host(B)
    b.go_down()
    send(a, range(30), lifetime_ms=5000)
    net.disk_turns()
    net.pass_time(5.2)
    net.disk_turns()
    assert net.core.book.expired[Reason.DEADLINE_PASSED] == 30
    assert net.core.spool.count == 0
    net.check_idle()


def test_durable_custody_is_taken_when_the_disk_has_it() -> None:
    """Until then the neighbour is told nothing, and nothing is forwarded."""
    net = FakeNetwork(spooled(durable=True))
    a, b = net.host(A), net.host(B)
    assert send(a, range(5)) == [Deferral.PENDING] * 5
    assert a.decisions == [] and b.unsettled == [] and net.sums["taken_in"] == 0
    syncs = net.disk.storage.syncs_count
    net.disk_turns()
    assert a.decisions == [None] * 5
    assert net.disk.storage.syncs_count == syncs + 1
    assert ids(b.accept_all()) == list(range(5))
    net.disk_turns()
    assert net.disk.log.live_bytes == 0
    net.check_idle()


@pytest.mark.parametrize("seed", range(30))
def test_power_cuts_lose_nothing_that_was_acknowledged(seed: int) -> None:
    """At any moment: what the router acknowledged and had not handed on, the next one hands on."""
    rng = random.Random(seed)
    disk = FakeDisk(seed)
    acknowledged: set[int] = set()
    delivered: list[int] = []
    number = 0
    given = spooled(durable=True, max_bytes=1 << 20, max_flow_bytes=1 << 20)
    for _ in range(5):
        net = FakeNetwork(given, disk=disk)
        a = net.host(A)
        b: FakeNeighbour | None = None
        pending: list[int] = []
        for _ in range(rng.randint(5, 60)):
            what = rng.random()
            if what < 0.5:
                if send(a, range(number, number + 1)) == [Deferral.PENDING]:
                    pending.append(number)
                number += 1
            elif what < 0.75:
                known = len(a.decisions)
                net.disk.turn(net.core, net.now)
                for decision in a.decisions[known:]:
                    first = pending.pop(0)
                    if decision is None:
                        acknowledged.add(first)
            elif what < 0.85 and b is None:
                b = net.host(B)
            elif what < 0.9 and b is not None:
                b.go_down()
                b = None
            elif b is not None and b.unsettled:
                sent = b.unsettled[0]
                delivered.append(sent.header.chunk_id.value)
                assert sent.payload == payload(delivered[-1])
                b.settle(sent)
        disk.jobs.clear()  # what was queued dies with the process
        if rng.random() < 0.6:
            disk.storage.cut_power()
    net = FakeNetwork(given, disk=disk)
    b = net.host(B)
    for _ in range(50):
        taken = accept_with_disk(net, b)
        assert all(sent.payload == payload(sent.header.chunk_id.value) for sent in taken)
        delivered += ids(taken)
        net.pass_time(0.2)
    assert acknowledged <= set(delivered)
    net.disk_turns()
    net.check_idle()
    assert disk.log.live_bytes == 0


def test_a_restart_waits_for_hosts_and_services_to_come_back() -> None:
    """A chunk for a service that is not attached yet, and one for a host: each goes its way."""
    disk = FakeDisk()
    net = FakeNetwork(spooled(durable=True), disk=disk)
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    a.chunk(chunk(payload=b"plain", chunk_id=1))
    a.chunk(chunk(payload=b"served", chunk_id=2, services=(S,)))
    net.disk_turns()
    assert len(b.unsettled) == len(vi.unsettled) == 1
    net = FakeNetwork(spooled(durable=True), disk=disk)
    assert net.sums["restored"] == 2 and net.sums["held"] == 2
    net.pass_time(1.0)
    b, vi = net.host(B), net.vi(S)
    net.disk_turns()
    [task] = vi.accept_all()
    assert task.payload == b"served"
    vi.verdict(task, VerdictCode.UPDATE, b"done")
    assert sorted(sent.payload for sent in accept_with_disk(net, b)) == [b"done", b"plain"]
    net.disk_turns()
    assert disk.log.live_bytes == 0
    net.check_idle()


def test_a_restart_gives_up_what_nobody_comes_for_and_what_is_over() -> None:
    """The deadline runs on by the wall clock while no process runs; the source is told."""
    disk = FakeDisk()
    net = FakeNetwork(spooled(durable=True), disk=disk)
    a, _ = net.host(A), net.host(B)
    a.chunk(chunk(payload=b"short", chunk_id=1, lifetime_ms=4000))
    a.chunk(chunk(payload=b"long", chunk_id=2, lifetime_ms=500_000))
    net.disk_turns()
    disk.wall_ms += 10_000
    net = FakeNetwork(spooled(durable=True), disk=disk)
    a = net.host(A)
    net.pass_time(0.2)
    assert net.core.book.expired[Reason.DEADLINE_PASSED] == 1
    net.pass_time(31.0)
    net.disk_turns()
    assert net.core.book.refused[Reason.UNRESOLVABLE_GUID] == 1
    net.end_turn()
    told = {r.chunk_id.value: r.outcome for s in a.accept_all() for r in reports_in(s)}
    assert told == {1: Outcome.EXPIRED, 2: Outcome.REFUSED}
    net.disk_turns()
    assert disk.log.live_bytes == 0


@pytest.mark.parametrize("step_s", [-86_400, 3600])
def test_a_stepped_clock_keeps_nothing_for_ever(step_s: int) -> None:
    """Set back, a chunk is held `hold_limit_s` at the most; set forward, it may expire early."""
    disk = FakeDisk()
    net = FakeNetwork(spooled(durable=True), disk=disk)
    a, _ = net.host(A), net.host(B)
    a.chunk(chunk(chunk_id=1, lifetime_ms=60_000))
    net.disk_turns()
    disk.wall_ms += step_s * 1000
    net = FakeNetwork(spooled(durable=True), disk=disk)
    entries = list(net.core.book.wheel)
    assert all(entry.expires_at <= net.now + 120.0 for entry in entries)
    net.pass_time(121.0)
    net.disk_turns()
    net.check_idle()


def test_what_a_service_emits_outlives_the_chunk_that_it_was_made_of() -> None:
    """Its record is there before that of the original goes."""
    disk = FakeDisk()
    net = FakeNetwork(spooled(durable=True), disk=disk)
    a, vi = net.host(A), net.vi(S)
    net.host(B).go_down()
    a.chunk(chunk(payload=b"original", chunk_id=1, services=(S,)))
    net.disk_turns()
    [task] = vi.accept_all()
    made = chunk(source=type(A)(bytes(20)), payload=b"made", chunk_id=9)
    vi.verdict(task, VerdictCode.EMIT, made, emit_count=1)
    net.disk_turns()
    net = FakeNetwork(spooled(durable=True), disk=disk)
    b = net.host(B)
    assert [sent.payload for sent in accept_with_disk(net, b)] == [b"made"]
    net.check_idle()


@pytest.mark.parametrize("reason", [Reason.STORE_FULL, Reason.SHUTTING_DOWN])
def test_a_chunk_that_the_next_custodian_has_no_room_for_is_offered_again(reason: Reason) -> None:
    """It keeps its place in its flow, and goes when there is room; the source hears nothing."""
    net = FakeNetwork(settings())
    a, q = net.host(A), net.router()
    for number in (1, 2, 3):
        a.chunk(chunk(destination=C, destination_na=NA(2), chunk_id=number))
    q.settle(q.unsettled[0], Settlement.REFUSED, int(reason))
    a.chunk(chunk(destination=C, destination_na=NA(2), chunk_id=4))
    assert ids(q.accept_all()) == [2, 3]
    net.pass_time(0.35)
    q.settle(q.unsettled[0], Settlement.REFUSED, int(reason))
    net.pass_time(0.3)
    assert not q.unsettled, "twice as long the second time"
    net.pass_time(0.35)
    assert ids(q.accept_all()) == [1, 4]
    net.end_turn()
    assert not a.unsettled
    net.check_idle()


def test_a_chunk_to_be_offered_again_waits_on_when_its_next_hop_goes_away() -> None:
    """Its turn comes between the end of the session and the news of it: that is no long wait."""
    net = FakeNetwork(settings())
    a, q = net.host(A), net.router()
    a.chunk(chunk(destination=C, destination_na=NA(2), chunk_id=1))
    q.settle(q.unsettled[0], Settlement.REFUSED, int(Reason.STORE_FULL))
    q.is_up = False
    net.pass_time(0.35)
    assert net.sums["held"] == 1
    q.go_down()
    net.pass_time(net.settings.detached_hold_s - 1)
    assert ids(net.router().accept_all()) == [1]
    net.check_idle()


def test_a_chunk_refused_by_a_session_that_ends_waits_as_long_as_any() -> None:
    """The refusal is the last that is heard of it: no time to offer it again cuts the wait."""
    net = FakeNetwork(settings())
    a, q = net.host(A), net.router()
    a.chunk(chunk(destination=C, destination_na=NA(2), chunk_id=1))
    q.is_up = False
    q.settle(q.unsettled[0], Settlement.REFUSED, int(Reason.SHUTTING_DOWN))
    net.pass_time(net.settings.detached_hold_s - 1)
    assert net.sums["held"] == 1
    net.pass_time(2)
    assert net.sums["held"] == 0
    net.end_turn()
    [report] = reports_in(a.accept_all()[0])
    assert report.outcome is Outcome.EXPIRED
    net.check_idle()


def test_a_chunk_that_is_never_taken_ends_at_its_deadline() -> None:
    """The next custodian stays full: expired, and the source is told."""
    net = FakeNetwork(settings())
    a, q = net.host(A), net.router()
    a.chunk(chunk(destination=C, destination_na=NA(2), chunk_id=1, lifetime_ms=5000))
    for _ in range(60):
        if q.unsettled:
            q.settle(q.unsettled[0], Settlement.REFUSED, int(Reason.STORE_FULL))
        net.pass_time(0.1)
    net.end_turn()
    [sent] = a.accept_all()
    [report] = reports_in(sent)
    assert report.outcome is Outcome.EXPIRED
    net.check_idle()


def test_a_drain_leaves_what_is_stored_for_the_next_process() -> None:
    """Durable custody outlives a stop in good order too."""
    disk = FakeDisk()
    net = FakeNetwork(spooled(durable=True), disk=disk)
    a = net.host(A)
    net.host(B).go_down()
    send(a, range(5))
    net.disk_turns()
    net.core.start_draining()
    net.core.give_up_all()
    net.disk_turns()
    assert {entry.phase for entry in net.core.book.wheel} == {Phase.HELD}
    net = FakeNetwork(spooled(durable=True), disk=disk)
    assert ids(accept_with_disk(net, net.host(B))) == list(range(5))
