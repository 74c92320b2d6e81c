"""Slots of the cloudlet's table: who may attach, who serves, what waits while one is held."""

from __future__ import annotations

import pytest

from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.messages import Outcome, VerdictCode
from packetcloud.chunk.names import GUID
from packetcloud.chunk.reasons import Reason
from packetcloud.router.cloudlet_pool import CloudletService
from packetcloud.router.cloudlet_table import ServiceEntry
from packetcloud.router.settings import FailPolicy, SpoolSettings
from tests.unit.router.cloudlet_tables import (
    DRAINING,
    HELD,
    Controller,
    cloudlet_network,
    entry,
    vi,
    with_table,
)
from tests.unit.router.router_fakes import (
    A,
    B,
    FakeDisk,
    FakeNeighbour,
    FakeNetwork,
    S,
    T,
    chunk,
    guid,
    reason_of,
    service,
)
from tests.unit.router.service_visits import only, reported


def pool_of(net: FakeNetwork) -> CloudletService:
    found = net.core.dispatch.services[S.value]
    assert isinstance(found, CloudletService)
    return found


def send(source: FakeNeighbour, *numbers: int, to: GUID = B) -> None:
    for number in numbers:
        assert source.chunk(chunk(A, to, services=(S,), chunk_id=number)) is None


def work(vi: FakeNeighbour) -> list[int]:
    """Let a VI finish its tasks; return the chunk ids in the order of the tasks."""
    done = []
    while vi.unsettled:
        task = vi.unsettled[0]
        vi.settle(task)
        done.append(task.header.chunk_id.value)
        vi.verdict(task)
    return done


def arrived(host: FakeNeighbour) -> list[int]:
    return [sent.header.chunk_id.value for sent in host.accept_all()]


def slot_of(net: FakeNetwork, source: FakeNeighbour, to: GUID) -> int:
    """Return the slot of a flow, by sending a chunk along it; its destination is attached then."""
    host = net.host(to)
    send(source, 999, to=to)
    (one,) = [vi for vi in pool_of(net).vis if vi.tasks]
    slot = next(iter(one.tasks.values())).flow.hash % len(pool_of(net).slots)
    assert isinstance(one.neighbour, FakeNeighbour)
    work(one.neighbour)
    assert arrived(host) == [999]
    host.go_down()
    return slot


def test_only_listed_instances_may_attach() -> None:
    """Refused with a reason, at the handshake and after it."""
    net, _ = cloudlet_network(entry(vi(7)))
    assert net.core.admit(GUID(S.value), Role.SERVICE, 7) is None
    refusal = net.core.admit(GUID(S.value), Role.SERVICE, 8)
    assert refusal == "instance 8 of service s is not in the cloudlet's table"
    assert net.vi(S, 8).closed_because == refusal
    assert net.vi(S, 7).closed_because is None


def test_services_of_config_and_table_serve_beside_each_other() -> None:
    """A SID or a name of the config is not the table's."""
    net = FakeNetwork(with_table(services=(service(T),)))
    why_not = net.core.service_table.why_not_in_table
    assert why_not(T, "other") is not None
    assert why_not(S, "t") is not None
    Controller(net).put(entry(vi(1), priority=5))
    a, b, own, listed = net.host(A), net.host(B), net.vi(T), net.vi(S, 1)
    assert a.chunk(chunk(services=(S, T), chunk_id=1)) is None
    assert work(listed) == work(own) == [1]
    assert arrived(b) == [1]
    net.check_idle()


@pytest.mark.parametrize("keeps_flows", [False, True])
def test_held_slot_keeps_its_chunks_and_the_other_goes_on(keeps_flows: bool) -> None:
    """The held VI finishes what it has; nobody else gets the chunks of its slot."""
    net, controller = cloudlet_network(entry(vi(1), vi(2, slot=1), keeps_flows=keeps_flows))
    a = net.host(A)
    vis = [net.vi(S, 1), net.vi(S, 2)]
    slot = slot_of(net, a, B)
    elsewhere = next(to for to in map(guid, "defghijk") if slot_of(net, a, to) != slot)
    b, _other = net.host(B), net.host(elsewhere)
    held, free = vis[slot], vis[1 - slot]
    send(a, 1)
    states = [vi(1, HELD), vi(2, slot=1)] if slot == 0 else [vi(1), vi(2, HELD, slot=1)]
    controller.put(entry(*states, keeps_flows=keeps_flows))
    send(a, 2, 3)
    send(a, 4, to=elsewhere)
    assert work(held) == [1]
    assert work(free) == [4]
    assert (pool_of(net).waiting_count, len(pool_of(net).waiting)) == (2, 0)
    controller.put(entry(vi(1), vi(2, slot=1), keeps_flows=keeps_flows))
    assert work(held) == [2, 3]
    assert arrived(b) == [1, 2, 3]


def test_twin_takes_the_slot_with_what_waits_in_one_update() -> None:
    """Old and twin held, then the old one out and the twin in: every chunk once, in order."""
    net, controller = cloudlet_network(entry(vi(1)))
    a, b, old = net.host(A), net.host(B), net.vi(S, 1)
    send(a, 1, 2)
    controller.put(entry(vi(1), vi(2, HELD)))
    twin = net.vi(S, 2)
    send(a, 3)
    controller.put(entry(vi(1, HELD), vi(2, HELD)))
    send(a, 4, 5)
    assert work(old) == [1, 2, 3]
    send(a, 6)
    assert not twin.unsettled
    controller.put(entry(vi(2)))
    send(a, 7)
    assert old.closed_because is not None
    net.end_turn()
    assert work(twin) == [4, 5, 6, 7]
    assert arrived(b) == [1, 2, 3, 4, 5, 6, 7]
    net.check_idle()


def test_rolled_back_hold_goes_on_with_the_old_one() -> None:
    """A migration that fails before the cut-over leaves everything as it was."""
    net, controller = cloudlet_network(entry(vi(1)))
    a, b, old = net.host(A), net.host(B), net.vi(S, 1)
    controller.put(entry(vi(1, HELD), vi(2, HELD)))
    twin = net.vi(S, 2)
    send(a, 1, 2)
    controller.put(entry(vi(1)))
    net.end_turn()
    assert twin.closed_because is not None
    assert work(old) == [1, 2]
    assert arrived(b) == [1, 2]
    net.check_idle()


def test_draining_one_finishes_and_its_slot_goes_to_others_at_once() -> None:
    """Scaling down: nothing waits for it, and the grace time begins when it was the last."""
    net, controller = cloudlet_network(entry(vi(1), grace_s=2.0))
    a, b, one = net.host(A), net.host(B), net.vi(S, 1)
    send(a, 1)
    controller.put(entry(vi(1, DRAINING), vi(2, slot=1), grace_s=2.0))
    two = net.vi(S, 2)
    send(a, 2)
    assert (work(one), work(two)) == ([1], [2])
    controller.put(entry(vi(1, DRAINING), vi(2, DRAINING, slot=1), grace_s=2.0))
    send(a, 3)
    assert net.sums["held"] == 3  # two on their way out
    assert arrived(b) == [1, 2]
    net.pass_time(2.1)
    assert reported(a)[:2] == (Outcome.REFUSED, Reason.SERVICE_FAILED)
    net.check_idle()


def test_tasks_of_a_slot_are_with_one_vi_at_a_time() -> None:
    """A twin that is to serve before the old one has finished waits for that."""
    net, controller = cloudlet_network(entry(vi(1)))
    a, b, old = net.host(A), net.host(B), net.vi(S, 1)
    send(a, 1)
    controller.put(entry(vi(1, HELD), vi(2)))
    twin = net.vi(S, 2)
    send(a, 2)
    assert not twin.unsettled
    assert work(old) == [1]
    assert work(twin) == [2]
    assert arrived(b) == [1, 2]
    net.check_idle()


def test_old_one_that_is_taken_out_at_work_gives_its_tasks_to_the_twin_first() -> None:
    """What it had goes again, before what waited; its own verdicts come too late."""
    net, controller = cloudlet_network(entry(vi(1)))
    a, b, old = net.host(A), net.host(B), net.vi(S, 1)
    send(a, 1, 2)
    old.settle(old.unsettled[0])
    controller.put(entry(vi(1, HELD), vi(2, HELD)))
    twin = net.vi(S, 2)
    send(a, 3)
    controller.put(entry(vi(2)))
    send(a, 4)
    assert not twin.unsettled, "the session of the old one has not ended yet"
    net.end_turn()
    assert work(twin) == [1, 2, 3, 4]
    assert arrived(b) == [1, 2, 3, 4]
    net.check_idle()


def test_held_one_that_crashes_leaves_its_tasks_to_its_slot() -> None:
    """They wait for whoever serves there next, not for a VI of another slot."""
    net, controller = cloudlet_network(entry(vi(1)))
    a, b, old = net.host(A), net.host(B), net.vi(S, 1)
    send(a, 1, 2)
    controller.put(entry(vi(1, HELD), vi(2, HELD)))
    twin = net.vi(S, 2)
    old.go_down()
    send(a, 3)
    assert not twin.unsettled
    controller.put(entry(vi(2)))
    assert work(twin) == [1, 2, 3]
    assert arrived(b) == [1, 2, 3]
    net.check_idle()


def test_failed_verdict_of_a_held_one_waits_for_the_next_owner() -> None:
    """The fail policy does not end a chunk that nobody else could try."""
    net, controller = cloudlet_network(entry(vi(1)))
    a, b, old = net.host(A), net.host(B), net.vi(S, 1)
    send(a, 1, 2)
    controller.put(entry(vi(1, HELD), vi(2, HELD)))
    first, second = old.accept_all()
    old.verdict(first, VerdictCode.FAILED, detail=b"boom")
    old.verdict(second)
    twin = net.vi(S, 2)
    controller.put(entry(vi(2)))
    net.end_turn()
    assert work(twin) == [1]
    assert sorted(arrived(b)) == [1, 2]
    net.check_idle()


def test_chunk_of_a_held_slot_waits_as_long_as_its_lifetime() -> None:
    """A hold is bounded by each chunk's own time, and no longer."""
    net, controller = cloudlet_network(entry(vi(1, HELD)))
    a = net.host(A)
    net.host(B)
    net.vi(S, 1)
    assert a.chunk(chunk(services=(S,), lifetime_ms=1000)) is None
    net.pass_time(0.9)
    assert net.sums["held"] == 1
    net.pass_time(0.2)
    assert reported(a)[:2] == (Outcome.EXPIRED, Reason.DEADLINE_PASSED)
    assert pool_of(net).waiting_bytes == 0
    controller.put(entry(vi(1)))
    net.check_idle()


def test_nobody_attached_in_a_held_slot_follows_the_policy_after_the_grace_time() -> None:
    """As for any service: chunks wait for a VI to come back so long and no longer."""
    net, _ = cloudlet_network(entry(vi(1, HELD), grace_s=2.0))
    a, _b, old = net.host(A), net.host(B), net.vi(S, 1)
    send(a, 1)
    old.go_down()
    net.pass_time(1.9)
    assert net.sums["held"] == 1
    net.pass_time(0.2)
    assert reported(a)[:2] == (Outcome.REFUSED, Reason.SERVICE_FAILED)
    net.check_idle()


def test_slot_that_is_held_when_the_grace_time_is_over_holds_nothing() -> None:
    """A fail-open service that has had no VI for so long is skipped at once, held or not."""
    held = entry(vi(1, HELD), grace_s=2.0, fail_policy=FailPolicy.OPEN)
    net, _ = cloudlet_network(held)
    a, b = net.host(A), net.host(B)
    net.pass_time(2.1)
    send(a, 1)
    assert arrived(b) == [1]
    net.check_idle()


def test_draining_one_that_attaches_does_not_end_the_grace_time() -> None:
    """Nobody waits for a VI that gets no tasks; one that serves again is waited for."""
    net, controller = cloudlet_network(entry(vi(1), grace_s=2.0))
    a, b = net.host(A), net.host(B)
    send(a, 1)
    controller.put(entry(vi(1, DRAINING), grace_s=2.0))
    one = net.vi(S, 1)
    net.pass_time(1.0)
    controller.put(entry(vi(1), grace_s=2.0))
    net.pass_time(1.5)
    assert work(one) == [1]
    assert arrived(b) == [1]
    controller.put(entry(vi(1, DRAINING), grace_s=2.0))
    send(a, 2)
    net.pass_time(2.1)
    assert reported(a)[:2] == (Outcome.REFUSED, Reason.SERVICE_FAILED)
    net.check_idle()


def test_service_that_is_taken_out_ends_by_its_policy() -> None:
    """Its VIs are sent away, its chunks go on or are refused, its SID is unknown."""
    net, controller = cloudlet_network(entry(vi(1), fail_policy=FailPolicy.OPEN))
    a, b, old = net.host(A), net.host(B), net.vi(S, 1)
    send(a, 1)
    controller.put(S)
    net.end_turn()
    net.pass_time(0.1)
    assert old.closed_because is not None
    assert arrived(b) == [1]
    assert reason_of(a.chunk(chunk(services=(S,)))) is Reason.UNKNOWN_SID
    assert S.value not in net.core.dispatch.services
    net.check_idle()


def test_service_comes_back_while_its_old_vis_leave() -> None:
    """Taken out and put in again: the new VI serves, with a grace time until it is there."""
    net, controller = cloudlet_network(entry(vi(1)))
    a, b, _old = net.host(A), net.host(B), net.vi(S, 1)
    controller.put(S)
    controller.put(entry(vi(2)))
    net.end_turn()
    send(a, 1)
    net.pass_time(1.0)
    assert work(net.vi(S, 2)) == [1]
    assert arrived(b) == [1]
    net.check_idle()


def test_vi_that_attaches_again_has_its_slot_and_its_old_tasks_first() -> None:
    """A session that the hop has not ended yet keeps the slot until it has."""
    net, _ = cloudlet_network(entry(vi(1)))
    a, b, before = net.host(A), net.host(B), net.vi(S, 1)
    send(a, 1, 2)
    after = net.vi(S, 1)
    send(a, 3)
    assert not after.unsettled
    net.end_turn()
    assert before.closed_because is not None
    assert work(after) == [1, 2, 3]
    assert arrived(b) == [1, 2, 3]
    net.check_idle()


def test_slots_change_in_number_and_no_chunk_is_left_behind() -> None:
    """Scaling: what waits follows its flow to whoever has the slot now."""
    net, controller = cloudlet_network(entry(vi(1, HELD)))
    a, b = net.host(A), net.host(B)
    one = net.vi(S, 1)
    send(a, *range(1, 6))
    controller.put(entry(vi(1), vi(2, slot=1)))
    two = net.vi(S, 2)
    done = work(one) + work(two)
    assert done == [1, 2, 3, 4, 5]
    assert arrived(b) == [1, 2, 3, 4, 5]
    net.check_idle()


def test_service_with_vis_of_its_own_is_not_taken_over() -> None:
    """What is attached without a list is stopped by whoever runs it, not by a table."""
    template = service(T)
    net = FakeNetwork(with_table(unlisted_services=template))
    stranger = net.vi(S)
    why = net.core.service_table.why_not_in_table(S, "s")
    assert why is not None and why[0] == "still_here"
    stranger.go_down()
    assert net.core.service_table.why_not_in_table(S, "s") is None


def test_cached_flows_are_forgotten_only_when_services_or_priorities_change() -> None:
    """A migration costs no flow a new decision."""
    net, controller = cloudlet_network(entry(vi(1)))
    a, _b, old = net.host(A), net.host(B), net.vi(S, 1)
    send(a, 1)
    work(old)
    misses = net.core.door.flow_misses_count
    controller.put(entry(vi(1, HELD), vi(2, HELD)))
    controller.put(entry(vi(1)))
    send(a, 2)
    assert net.core.door.flow_misses_count == misses
    controller.put(entry(vi(1), priority=3))
    send(a, 3)
    assert net.core.door.flow_misses_count == misses + 1


def test_account_of_each_vi() -> None:
    """What went to it, what came from it, and how long it took lately."""
    net, _ = cloudlet_network(entry(vi(1)))
    a, _b, one = net.host(A), net.host(B), net.vi(S, 1)
    data = chunk(services=(S,))
    assert a.chunk(data) is None
    task = only(one.accept_all())
    net.pass_time(0.010)
    one.verdict(task, VerdictCode.UPDATE, b"other")
    (state,) = pool_of(net).cloudlet_vis
    assert (state.traffic.to_chunks, state.traffic.to_bytes) == (1, len(data))
    assert state.traffic.from_chunks == 1 and state.traffic.from_bytes > 5
    assert state.verdicts[VerdictCode.UPDATE] == 1
    recent = state.recent.recent(net.now)
    assert recent.count == 1
    assert 0.0095 < recent.quantile_ns(0.5) / 1e9 < 0.0105
    net.pass_time(30.0)
    assert state.recent.recent(net.now).count == 0


def test_found_chunks_go_to_the_slot_that_their_flow_had() -> None:
    """After a kill of the router, too, a flow belongs to one VI; what is held stays so."""
    disk = FakeDisk()
    spool = SpoolSettings(reserve_bytes=4096, is_durable=True)
    destinations = [guid(letter) for letter in "defghijk"]
    listed = (vi(1), vi(2, slot=1))

    def start(*items: ServiceEntry) -> tuple[FakeNetwork, Controller]:
        net = FakeNetwork(with_table(spool=spool), disk=disk)
        controller = Controller(net)
        controller.put(*items)
        return net, controller

    def destinations_of(one: FakeNeighbour) -> set[GUID]:
        return {sent.header.destination for sent in one.unsettled}

    net, controller = start(entry(*listed))
    a, one, two = net.host(A), net.vi(S, 1), net.vi(S, 2)
    for destination in destinations:
        net.host(destination)
        a.chunk(chunk(A, destination, services=(S,)))
    net.disk_turns()
    before = destinations_of(one), destinations_of(two)
    assert all(before) and before[0] | before[1] == set(destinations)

    net, controller = start(entry(vi(1, HELD), vi(2, slot=1)))
    hosts = [net.host(destination) for destination in destinations]
    one, two = net.vi(S, 1), net.vi(S, 2)
    net.disk_turns()
    assert (destinations_of(one), destinations_of(two)) == (set(), before[1])
    assert pool_of(net).waiting_count == len(before[0])
    controller.put(entry(*listed))
    assert (destinations_of(one), destinations_of(two)) == before
    work(one)
    work(two)
    net.disk_turns()
    assert [arrived(host) for host in hosts] == [[7]] * len(hosts)
    net.disk_turns()
    net.check_idle()
