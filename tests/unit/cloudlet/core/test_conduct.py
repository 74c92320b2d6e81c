"""What becomes of VIs that do what they must not: restricted for a while, then stopped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.conduct import MAX_RESTRICTION_S, Measure
from packetcloud.cloudlet.core.instances import (
    MAX_CHARGE_CHARS,
    MAX_CHARGES_COUNT,
    Role,
    Vi,
    ViState,
)
from packetcloud.cloudlet.core.rows import from_rows, to_rows
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.cloudlet.core.values import ConductPolicy, ServiceWish
from packetcloud.router.cloudlet_schemas import ServiceItem
from tests.unit.cloudlet.core.world import EPOCH_S, SID, World, settings

POLICY = ConductPolicy(
    restrict_violations=10,
    stop_violations=100,
    window_s=60.0,
    restrict_s=20.0,
    max_restrictions=2,
)


def placed(seed: int, standbys: int = 0) -> tuple[World, Vi]:
    """A world with a tenant's VI under POLICY, and with so many standbys for it."""
    services = {
        "alpha": ServiceWish("alpha", SID["alpha"], "small", 1, 2, has_state=True, conduct=POLICY),
        "beta": ServiceWish(
            *("beta", SID["beta"], "small", 1, 3, standbys, "image-1"),
            owner="tenant",
            conduct=POLICY,
        ),
    }
    world = World(seed, settings(services=services))
    world.run(10)
    return world, vi_of(world, "beta")


def vi_of(world: World, service: str) -> Vi:
    vis = world.core.saved.vis.values()
    (vi,) = [one for one in vis if one.service == service and one.counts]
    return vi


def offend(world: World, vi: Vi, count: int) -> None:
    world.violations[vi.instance] = world.violations.get(vi.instance, 0) + count
    world.run(2)


def state_at_router(world: World, vi: Vi) -> str:
    listed = {one["instance"]: str(one["state"]) for one in world.listed(vi.service)}
    return listed.get(vi.instance, "none")


@pytest.mark.parametrize("count", [9, 10])
def test_who_violates_often_enough_is_restricted_for_a_while(count: int) -> None:
    """At the number of the policy, not one before; the router has it at once, and its end."""
    world, vi = placed(1)
    offend(world, vi, count)
    assert vi.is_restricted == (count == 10)
    assert state_at_router(world, vi) == ("restricted" if count == 10 else "serving")
    if not vi.is_restricted:
        return
    (charge,) = vi.record
    assert charge.text == (
        "restricted for 20 s (1 of 2): 10 violations; output 10; "
        f"last: chunk 10 of {'c' * 40}: too much"
    )
    assert EPOCH_S < charge.at_s < EPOCH_S + world.now
    assert any(charge.text in note for note in world.notes)
    world.run(21)
    assert not vi.is_restricted and vi.why == ""
    assert state_at_router(world, vi) == "serving"
    assert [one.text for one in vi.record][1:] == ["its restriction is over"]
    assert world.core.conduct.measures == {
        ("beta", Measure.RESTRICTED): 1,
        ("beta", Measure.RELEASED): 1,
    }
    assert world.end_wrongs() == []


def test_punishment_grows() -> None:
    """The second restriction lasts twice as long; who would be restricted a third time is stopped,
    and its container stays for whoever wants to look at it."""
    world, vi = placed(2)
    offend(world, vi, 10)
    world.run(21)
    assert not vi.is_restricted
    offend(world, vi, 10)
    world.run(30)
    assert vi.is_restricted, "40 s this time"
    world.run(20)
    assert not vi.is_restricted
    offend(world, vi, 10)
    world.run(5)
    assert vi.state is ViState.QUARANTINED
    assert vi.why == "10 violations, after 2 restrictions"
    container = world.container(vi.number)
    assert container is not None and not container.is_running
    assert state_at_router(world, vi) == "none"
    assert vi.record[-1].text.startswith("stopped: 10 violations, after 2 restrictions; output 30")
    world.crash()
    world.run(10)
    vi = vi_of(world, "beta")
    assert vi.state is ViState.QUARANTINED and len(vi.record) == 5
    assert vi.violations == {"output": 30}, "the router forgot them when it was stopped"
    assert [one.chunk_id for one in vi.evidence] == [10, 20, 30]


def test_who_goes_on_while_restricted_is_stopped() -> None:
    world, vi = placed(3)
    offend(world, vi, 10)
    offend(world, vi, 89)
    assert vi.is_restricted and vi.state is ViState.RUNNING
    offend(world, vi, 1)
    world.run(3)
    assert vi.state is ViState.QUARANTINED and vi.why == "100 violations within 60 s"
    assert world.core.conduct.measures["beta", Measure.CONDUCT] == 1


@pytest.mark.parametrize("count", [4, 6, 9])
def test_a_router_that_forgets_what_it_counted_lets_nobody_off(count: int) -> None:
    """Fewer, as many or more than it had counted before: all that it tells after its restart are
    new, and the evidence of before stays."""
    world, vi = placed(9)
    offend(world, vi, 6)
    assert not vi.is_restricted
    world.restart_router()
    offend(world, vi, count)
    world.run(5)
    assert vi.is_restricted
    assert vi.why.endswith(f"{6 + count} violations")
    assert vi.violations == {"output": 6 + count}
    assert {one.chunk_id for one in vi.evidence} == {6, count}
    world.restart_router()
    world.run(3)
    assert vi.is_restricted and state_at_router(world, vi) == "restricted"
    assert vi.violations == {"output": 6 + count} and vi.restrictions == 1
    world.crash()
    world.run(3)
    again = vi_of(world, "beta")
    assert (again.violations, again.evidence) == (vi.violations, vi.evidence)
    assert again.is_restricted and again.restrictions == 1


def test_what_an_earlier_version_had_counted_is_not_counted_again() -> None:
    """Its database does not say which life of the router that was."""
    world, vi = placed(10)
    offend(world, vi, 9)
    rows = to_rows(world.core.saved)
    row = rows["vi"][str(vi.number)]
    del row["counted"], row["counted_boot"]
    old = from_rows(rows).vis[vi.number]
    seen = saw.ViAtRouter(True, 0, {"output": 9})
    assert world.core.conduct.judge(old, seen, world.router_boot, POLICY, world.now) == []
    assert old.violations == {"output": 9} and not old.offences


def test_who_was_stopped_is_not_let_off_when_its_restriction_would_end() -> None:
    """What it was stopped for stays, also for the next controller."""
    world, vi = placed(8)
    offend(world, vi, 10)
    offend(world, vi, 90)
    world.run(3)
    assert vi.state is ViState.QUARANTINED
    for _ in range(2):
        world.run(25)
        vi = vi_of(world, "beta")
        assert (vi.why, vi.is_restricted) == ("100 violations within 60 s", True)
        assert [one.text.split(" ")[0] for one in vi.record] == ["restricted", "stopped:"]
        world.crash()


@pytest.mark.parametrize("way", ["evacuated", "lost", "standby"])
def test_who_was_stopped_does_not_start_on_another_node(way: str) -> None:
    """Its place there is kept for when an operator lets it start, also if a standby were ready."""
    world, vi = placed(9, standbys=int(way == "standby"))
    offend(world, vi, 100)
    world.run(POLICY.window_s + 10)
    assert vi.state is ViState.QUARANTINED
    if way == "lost":
        world.silence(vi.node)
    else:
        world.wish(lambda n: saw.EvacuateWished(n, vi.node))
    world.run(30)
    moved = vi_of(world, "beta")
    assert moved.node != vi.node
    assert (moved.state, moved.why) == (ViState.QUARANTINED, "100 violations within 60 s")
    assert world.container(moved.number) is None
    operation = world.wish(lambda n: saw.RestartWished(n, moved.number))
    world.run(20)
    assert world.ended[operation] == (True, "")


def test_who_is_stopped_while_it_moves_does_not_arrive() -> None:
    """Its twin, which would have a clean container, goes."""
    world, vi = placed(10)
    operation = world.wish(lambda n: saw.MigrateWished(n, vi.number))
    assert len(world.core.saved.vis) == 3
    offend(world, vi, 100)
    world.run(20)
    assert world.ended[operation] == (False, "the VI was stopped: 100 violations within 60 s")
    assert vi_of(world, "beta") is vi and vi.state is ViState.QUARANTINED
    assert len(world.core.saved.vis) == 2


def run_until(world: World, is_so: Callable[[], bool]) -> None:
    for _ in range(2000):
        if is_so():
            return
        world.run(0.01)
    raise AssertionError("not within 20 s")


def is_bound(world: World, vi: Vi) -> bool:
    """Tell whether the router, by its own reading of its table, holds a VI to a restriction."""
    listed = ServiceItem.model_validate(world.table[SID[vi.service]] | {"name": vi.service})
    return any(one.instance == vi.instance and one.is_bound for one in listed.to_entry().vis)


def test_a_restriction_holds_while_a_vi_is_held_and_where_it_moves() -> None:
    """What it has left to finish could be sent anywhere otherwise."""
    world, vi = placed(13)
    offend(world, vi, 10)
    world.wish(lambda n: saw.MigrateWished(n, vi.number))
    run_until(world, lambda: state_at_router(world, vi) == "held")
    assert is_bound(world, vi)
    world.run(5)
    moved = vi_of(world, "beta")
    assert moved.number != vi.number and is_bound(world, moved)
    world.run(20)
    assert not is_bound(world, moved) and world.end_wrongs() == []


def test_a_draining_vi_is_judged_and_stays_restricted() -> None:
    """Its time as one that finishes its tasks is no time for misuse; stopped, it is gone."""
    world, vi = placed(14)
    container = world.container(vi.number)
    assert container is not None
    world.detach(container, away_s=8.0)  # it cannot be idle before
    operation = world.wish(lambda n: saw.StopWished(n, vi.number, True))
    run_until(world, lambda: state_at_router(world, vi) == "draining")
    assert not is_bound(world, vi)
    offend(world, vi, 10)
    assert vi.is_restricted and state_at_router(world, vi) == "draining" and is_bound(world, vi)
    offend(world, vi, 90)
    assert not container.is_running or vi.is_leaving
    world.run(10)
    assert world.ended[operation] == (True, "") and world.container(vi.number) is None
    assert world.core.conduct.measures["beta", Measure.CONDUCT] == 1
    assert world.end_wrongs() == []


def test_a_twin_answers_for_what_it_does() -> None:
    """What it did before it was the owner is added to the charges of its predecessor."""
    world, vi = placed(15)
    offend(world, vi, 10)
    world.wish(lambda n: saw.MigrateWished(n, vi.number))
    (twin,) = [one for one in world.core.saved.vis.values() if one.role is Role.TWIN]
    world.violations[twin.instance] = 10
    run_until(world, lambda: twin.is_restricted)
    assert twin.role is Role.TWIN and twin.restrictions == 1
    world.run(6)
    assert vi_of(world, "beta") is twin
    assert (twin.restrictions, len(twin.record)) == (2, 2) and is_bound(world, twin)
    assert world.end_wrongs() == []


def test_who_is_stopped_as_a_twin_leaves_its_charges_behind() -> None:
    """The migration is undone, the old one serves on, and has it on its record."""
    world, vi = placed(16)
    operation = world.wish(lambda n: saw.MigrateWished(n, vi.number))
    (twin,) = [one for one in world.core.saved.vis.values() if one.role is Role.TWIN]
    run_until(world, lambda: twin.state is ViState.BOOTING)
    world.violations[twin.instance] = 100
    world.run(10)
    is_done, text = world.ended[operation]
    assert not is_done and "its twin failed: 100 violations within 60 s" in text
    assert vi_of(world, "beta") is vi and vi.state is ViState.RUNNING
    assert [one.text.split(" ")[0] for one in vi.record] == ["stopped:"]
    assert not world.forgotten and world.end_wrongs() == []


def test_who_was_condemned_is_not_started_by_the_next_controller() -> None:
    """Also when this one ends before the node said that it killed it."""
    world, vi = placed(11)
    world.violations[vi.instance] = 100
    for _ in range(2000):
        world.run(0.001)
        if vi.state is ViState.FAILING:
            break
    assert vi.state is ViState.FAILING, "it is being killed"
    world.crash()
    world.run(20)
    assert vi_of(world, "beta").state is ViState.QUARANTINED


def test_a_restriction_outlives_the_controller_and_ends_in_time() -> None:
    """What was counted before is not counted again by the next one."""
    world, vi = placed(4)
    offend(world, vi, 10)
    until_s = vi.restricted_until_s
    for _ in range(3):
        world.crash()
        world.run(5)
    vi = vi_of(world, "beta")
    assert vi.is_restricted and vi.restricted_until_s == until_s
    assert (vi.restrictions, len(vi.record)) == (1, 1)
    world.run(until_s - EPOCH_S - world.now + 3)
    assert not vi.is_restricted
    world.run(30)
    assert (vi.restrictions, vi.state) == (1, ViState.RUNNING)


def test_an_operator_may_pardon() -> None:
    """Nothing is held against it, and its record stays."""
    world, vi = placed(5)
    offend(world, vi, 100)
    world.run(3)
    assert vi.state is ViState.QUARANTINED
    operation = world.wish(lambda n: saw.RestartWished(n, vi.number))
    world.run(10)
    assert world.ended[operation] == (True, "")
    assert (vi.state, vi.restrictions, vi.is_restricted) == (ViState.RUNNING, 0, False)
    assert vi.record[-1].text == "started again by an operator, who drops all charges"
    offend(world, vi, 9)
    assert not vi.is_restricted
    assert world.end_wrongs() == []


def test_charges_go_along_when_a_vi_moves_or_its_node_is_lost() -> None:
    """Nobody gets rid of them by another instance."""
    world, vi = placed(6)
    offend(world, vi, 10)
    world.wish(lambda n: saw.MigrateWished(n, vi.number))
    world.run(8)
    moved = vi_of(world, "beta")
    assert moved.number != vi.number
    assert (moved.is_restricted, moved.restrictions, moved.record) == (True, 1, vi.record)
    assert state_at_router(world, moved) == "restricted"
    world.silence(moved.node)
    world.run(15)
    again = vi_of(world, "beta")
    assert again.number != moved.number and again.restrictions == 1
    assert again.record[0] == vi.record[0]


def test_charges_outlast_a_lost_node_that_nobody_can_leave() -> None:
    """Its VI stays where it is until there is room, or the node is back; that is told once."""
    services = {"beta": ServiceWish("beta", SID["beta"], "small", 1, 1, conduct=POLICY)}
    world = World(12, settings(services=services, nodes=("n1",)))
    world.run(10)
    vi = vi_of(world, "beta")
    offend(world, vi, 10)
    world.silence("n1")
    world.run(40)
    assert vi_of(world, "beta") is vi
    assert len([note for note in world.notes if "cannot leave n1: no node but n1" in note]) == 1
    world.answer_again("n1")
    world.run(10)
    assert (vi.state, vi.restrictions, len(vi.record)) == (ViState.RUNNING, 1, 2)
    assert len(world.nodes["n1"]) == 1


def test_what_is_kept_of_a_vi_is_bounded() -> None:
    """The newest charges, each cut."""
    vi = Vi(1, "beta", "small", "n1", 7, "t", 16)
    for number in range(MAX_CHARGES_COUNT + 1):
        vi.charge(f"{number}" + "x" * MAX_CHARGE_CHARS, float(number))
    assert [one.at_s for one in vi.record] == list(range(1, MAX_CHARGES_COUNT + 1))
    assert all(len(one.text) <= MAX_CHARGE_CHARS + 3 for one in vi.record)


def test_no_restriction_lasts_longer_than_a_day() -> None:
    world, vi = placed(7)
    vi.restrictions = 1
    world.core.conduct.judge(
        vi,
        saw.ViAtRouter(True, 0, {"output": 10}),
        world.router_boot,
        ConductPolicy(restrict_s=80_000.0, max_restrictions=5),
        world.now,
    )
    assert vi.restriction_ends_at - world.now == MAX_RESTRICTION_S


def test_rows_of_an_earlier_version_are_read() -> None:
    """A database that knows nothing of records and restrictions."""
    saved = Saved()
    saved.vis[1] = Vi(1, "beta", "small", "n1", 7, "t", 16)
    rows = to_rows(saved)
    later = ("record", "restrictions", "restricted_until_s", "violations", "evidence")
    for name in (*later, "counted", "counted_boot"):
        del rows["vi"]["1"][name]
    assert from_rows(rows).vis[1] == saved.vis[1]
