"""Standbys, and what a VI may have until it is ready, in the core's world."""

from __future__ import annotations

import dataclasses

import pytest

from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.allotment import WAITING_SIZE
from packetcloud.cloudlet.core.instances import Role, Vi, ViState
from packetcloud.cloudlet.core.stages import Stage
from packetcloud.cloudlet.core.values import Allotment, Resources
from tests.unit.cloudlet.core.world import (
    GIB,
    READS,
    SMALL,
    Container,
    World,
    settings,
    with_standbys,
)

OWN = Allotment(SMALL.cpus, SMALL.memory_bytes, READS["small"])
"""What a small VI has that runs."""


def _settled(seed: int = 1, **changes: object) -> World:
    world = World(seed, with_standbys(**changes))
    world.run(20)
    assert world.end_wrongs() == []
    return world


def _standby(world: World, service: str) -> Vi:
    (vi,) = [
        vi
        for vi in world.core.saved.vis.values()
        if vi.service == service and vi.role is Role.STANDBY and not vi.is_leaving
    ]
    return vi


def _owners(world: World, service: str) -> list[Vi]:
    return [vi for vi in world.core.saved.vis.values() if vi.service == service and vi.counts]


def _container(world: World, vi: Vi) -> Container:
    container = world.container(vi.number)
    assert container is not None
    return container


def test_a_standby_waits_unknown_to_the_router_with_less_reserved() -> None:
    """Its service has its VIs besides, and its node keeps less free."""
    world = _settled()
    vi = _standby(world, "alpha")
    assert vi.state is ViState.WAITING
    assert not world.is_listed(_container(world, vi))
    reserved = world.core.inventory.reserved(vi.node)
    others = [one for one in world.core.saved.vis.values() if one.node == vi.node and one.counts]
    waiting = [one for one in world.core.saved.vis.values() if one.node == vi.node]
    assert reserved.cpus == pytest.approx(
        len(others) * SMALL.cpus + (len(waiting) - len(others)) * WAITING_SIZE.cpus
    )


def test_standbys_come_after_the_vis_that_somebody_needs() -> None:
    """No standby is made before the services have what they should, so that none is late for it."""
    world = World(1, with_standbys())
    while not all(_owners(world, name) for name in ("alpha", "beta")):
        world.run(0.01)
    while any(vi.state is not ViState.RUNNING for vi in world.core.saved.vis.values()):
        vis = world.core.saved.vis.values()
        if any(vi.role is Role.STANDBY for vi in vis):
            break
        world.run(0.01)
    assert all(vi.state is ViState.RUNNING for vi in world.core.saved.vis.values() if vi.counts)
    assert any(vi.role is Role.STANDBY for vi in world.core.saved.vis.values())


def test_a_launch_takes_the_standby_and_another_one_follows() -> None:
    """The VI is the standby, launched once and without another start; then a new one waits."""
    world = _settled()
    standby = _standby(world, "alpha")
    container = _container(world, standby)
    operation = world.wish(lambda n: saw.LaunchWished(n, "alpha", "large"))
    world.run(1.5)
    assert world.ended[operation] == (True, "")
    assert standby in _owners(world, "alpha") and standby.vi_type == "large"
    assert (container.boots, container.is_launched) == (1, True)
    assert standby.launch is not None
    assert Stage.STARTED not in standby.launch.took_s
    assert list(standby.launch.took_s) == [Stage.LAUNCHED, Stage.READY, Stage.ATTACHED]
    world.run(20)
    assert _standby(world, "alpha") is not standby
    assert world.end_wrongs() == []


def test_a_launch_with_its_service_comes_after_the_limits_of_its_type() -> None:
    """With those of a standby it would start slowly, or not have the memory."""
    world = _settled()
    standby = _standby(world, "alpha")
    container = _container(world, standby)
    world.wish(lambda n: saw.LaunchWished(n, "alpha"))
    while not container.is_launched:
        limits = container.limits
        world.run(0.01)
    assert limits.memory_bytes == SMALL.memory_bytes
    assert limits.cpus >= SMALL.cpus


def test_a_standby_takes_the_place_of_a_vi_that_crashed() -> None:
    """In its slot, at once; one that crashes again soon waits out its delay."""
    world = _settled()
    standby, crashed = _standby(world, "alpha"), _owners(world, "alpha")[0]
    slot, epoch = crashed.slot, crashed.owner_epoch
    world.end(_container(world, crashed))
    world.run(5)
    assert (standby.role, standby.slot, standby.owner_epoch) == (Role.OWNER, slot, epoch + 1)
    assert standby.restarts == 1
    world.run(20)
    assert world.container(crashed.number) is None
    assert world.end_wrongs() == []
    another = _standby(world, "alpha")
    world.end(_container(world, standby))
    world.run(20)
    assert another.role is Role.STANDBY and standby.restarts == 2
    assert world.end_wrongs() == []


def test_the_twin_of_a_migration_is_the_standby_of_the_other_node() -> None:
    world = _settled()
    standby = _standby(world, "alpha")
    moved = next(vi for vi in _owners(world, "alpha") if vi.node != standby.node)
    operation = world.wish(lambda n: saw.MigrateWished(n, moved.number))
    world.run(5)
    assert world.ended[operation] == (True, "")
    assert (standby.role, standby.slot) == (Role.OWNER, moved.slot)
    world.run(20)
    assert world.end_wrongs() == []


def test_a_standby_of_an_old_image_is_replaced() -> None:
    """And none of it is launched; VIs that run keep theirs."""
    world = _settled()
    old, owners = _standby(world, "alpha"), _owners(world, "alpha")
    world.new_image("alpha")
    world.wish(lambda n: saw.LaunchWished(n, "alpha"))
    world.run(30)
    assert old.number not in world.core.saved.vis
    new = _standby(world, "alpha")
    assert new.image == world.settings.services["alpha"].image != old.image
    assert all(vi in _owners(world, "alpha") for vi in owners)
    assert world.end_wrongs() == []


def test_a_standby_on_a_node_that_is_silent_is_not_used() -> None:
    """When the node is lost another one waits elsewhere; when it is back the old one is removed."""
    world = _settled()
    standby = _standby(world, "beta")
    world.silence(standby.node)
    world.run(3)
    world.wish(lambda n: saw.LaunchWished(n, "beta"))
    world.run(30)
    assert standby.role is Role.RETIRED
    assert _standby(world, "beta").node != standby.node
    world.answer_again(*world.nodes)
    world.run(40)
    assert world.container(standby.number) is None
    assert world.end_wrongs() == []


def test_a_controller_that_starts_again_adopts_its_standbys() -> None:
    """They are neither started again nor launched."""
    world = _settled()
    before = {name: _standby(world, name).number for name in ("alpha", "beta")}
    world.crash()
    world.run(20)
    assert {name: _standby(world, name).number for name in before} == before
    assert all(world.container(number).boots == 1 for number in before.values())  # type: ignore[union-attr]
    assert world.end_wrongs() == []


def test_a_vi_that_needs_the_room_of_a_standby_gets_it() -> None:
    """What waits is never in the way of what serves."""
    node = Resources(3.05, 8 * GIB, 100 * GIB)
    world = World(1, with_standbys(nodes=("n1",), isp_share=0.0), capacity=node)
    world.run(20)
    assert len(world.waiting("alpha")) + len(world.waiting("beta")) == 0  # 0.05 are left
    world = World(
        1,
        with_standbys(nodes=("n1",), isp_share=0.0),
        capacity=Resources(4.0, node.memory_bytes, node.disk_bytes),
    )
    world.run(20)
    assert world.end_wrongs() == []
    _standby(world, "beta")
    operation = world.wish(lambda n: saw.LaunchWished(n, "beta"))
    world.run(20)
    assert world.ended[operation] == (True, "")
    assert [vi for vi in world.core.saved.vis.values() if vi.role is Role.STANDBY] == []
    assert world.core.inventory.room("n1").for_all.cpus == pytest.approx(0.0)


def test_a_vi_that_grows_gets_the_room_of_a_standby() -> None:
    """Nobody has to move for it, and who need not go stays."""
    node = Resources(4.15, 8 * GIB, 100 * GIB)
    world = World(1, with_standbys(nodes=("n1",), isp_share=0.0), capacity=node)
    world.run(20)
    standbys = {_standby(world, name).number for name in ("alpha", "beta")}
    owners = _owners(world, "alpha")
    operation = world.wish(lambda n: saw.ResizeWished(n, owners[0].number, "large"))
    world.run(20)
    assert world.ended[operation] == (True, "")
    assert _owners(world, "alpha") == owners
    (left,) = [vi for vi in world.core.saved.vis.values() if vi.role is Role.STANDBY]
    assert left.number == min(standbys)
    assert world.core.inventory.room("n1").for_all.cpus == pytest.approx(0.05)


def test_the_isps_standbys_do_not_make_room_in_the_share_of_others() -> None:
    """Of a node with enough for all, only a third party's standby goes when that share is full."""
    node = Resources(8.0, 8 * GIB, 100 * GIB)
    world = World(1, with_standbys(nodes=("n1",), isp_share=0.74), capacity=node)
    world.run(20)
    kept, gone = _standby(world, "alpha"), _standby(world, "beta")
    operation = world.wish(lambda n: saw.LaunchWished(n, "beta"))
    world.run(20)
    assert world.ended[operation] == (True, "")
    assert kept.role is Role.STANDBY and not kept.is_draining
    assert gone.role is Role.OWNER
    assert [vi.service for vi in world.core.saved.vis.values() if vi.role is Role.STANDBY] == [
        "alpha"
    ]


def test_an_evacuated_node_keeps_no_standby() -> None:
    world = _settled()
    operation = world.wish(lambda n: saw.EvacuateWished(n, "n1"))
    world.run(40)
    assert world.ended[operation] == (True, "")
    assert world.nodes["n1"] == {}
    assert world.end_wrongs() == []


def test_a_standby_has_no_size_and_does_not_move() -> None:
    """Wishes that make no sense for it say so; to stop it makes another one wait."""
    world = _settled()
    number = _standby(world, "alpha").number
    resize = world.wish(lambda n: saw.ResizeWished(n, number, "large"))
    migrate = world.wish(lambda n: saw.MigrateWished(n, number))
    assert world.ended[resize] == (
        False,
        f"VI {number} waits for a service; it has no size of its own",
    )
    assert not world.ended[migrate][0]
    restart = world.wish(lambda n: saw.RestartWished(n, number))
    text = f"VI {number} waits for a service; there is nothing to start again"
    assert world.ended[restart] == (False, text)
    stop = world.wish(lambda n: saw.StopWished(n, number, False))
    world.run(20)
    assert world.ended[stop] == (True, "")
    assert _standby(world, "alpha").number != number
    assert world.end_wrongs() == []


def test_a_vi_borrows_processors_until_it_is_ready() -> None:
    """As many as the settings say, and never below its type; it reads fast meanwhile."""
    world = World(1, settings(boot_cpus=1.5))
    seen: dict[int, list[Allotment]] = {}
    first, own = Allotment(1.5, SMALL.memory_bytes, 1000), OWN
    for _ in range(2000):
        for containers in world.nodes.values():
            for one in containers.values():
                seen.setdefault(one.number, []).append(one.limits)
        world.run(0.005)
    for number, limits in seen.items():
        assert (limits[0], limits[-1], set(limits)) == (first, own, {first, own}), number
    assert world.end_wrongs() == []
    assert all(world.core.inventory.boosted_cpus(name) == 0 for name in world.nodes)


def test_a_vi_borrows_no_more_than_nobody_has_reserved() -> None:
    """The first gets all that it may, the next what is left, the third nothing."""
    node = Resources(3.4, 8 * GIB, 100 * GIB)
    world = World(1, settings(nodes=("n1",), boot_cpus=2.0, isp_share=0.0), capacity=node)
    most: dict[int, float] = {}
    for _ in range(2000):
        for one in world.nodes["n1"].values():
            most[one.number] = max(most.get(one.number, 0.0), one.limits.cpus)
        world.run(0.005)
    assert most == pytest.approx({1: 2.0, 2: 1.4, 3: 1.0})
    assert world.end_wrongs() == []


def test_a_vi_borrows_nothing_where_that_is_off() -> None:
    """It has the limits of its type from the beginning."""
    world = World(1, settings(boot_cpus=0.0))
    seen: set[Allotment] = set()
    for _ in range(1000):
        for containers in world.nodes.values():
            seen |= {one.limits for one in containers.values()}
        world.run(0.01)
    assert seen == {OWN}


def test_a_restart_borrows_too() -> None:
    """The limits are raised before the container starts, and taken back when the VI is ready."""
    world = World(1, settings(boot_cpus=1.5))
    world.run(10)
    vi = _owners(world, "alpha")[0]
    container = _container(world, vi)
    world.end(container)
    started_with: list[float] = []
    for _ in range(1000):
        if container.is_running and container.boots == 2:
            started_with.append(container.limits.cpus)
        world.run(0.01)
    assert started_with[0] == 1.5 and started_with[-1] == SMALL.cpus
    assert world.end_wrongs() == []


@pytest.mark.parametrize("after_s", [part / 8 for part in range(1, 41)])
def test_what_was_borrowed_is_given_back_after_a_crash(after_s: float) -> None:
    """Whenever the controller ends: nothing is lent for ever, and nothing that it does not know."""
    world = World(1, with_standbys(boot_cpus=1.5))
    world.run(after_s)
    world.crash()
    world.run(30)
    assert world.end_wrongs() == []
    assert [world.borrowed_cpus(name) for name in world.nodes] == [0, 0]
    assert [world.core.inventory.boosted_cpus(name) for name in world.nodes] == [0, 0]


def test_what_a_silent_node_was_to_take_back_is_not_lent_again() -> None:
    """Until it says that the VI has its own limits, the VI has those of its start."""
    world = World(1, settings(nodes=("n1",), boot_cpus=2.0, isp_share=0.0))
    while not any(one.is_launched for one in world.nodes["n1"].values()):
        world.run(0.01)
    world.silent.add("n1")
    world.run(1)
    borrowed = world.borrowed_cpus("n1")
    assert borrowed > 0 and world.core.inventory.boosted_cpus("n1") >= borrowed
    assert world.wrong == []
    world.answer_again(*world.nodes)
    world.run(30)
    assert world.core.inventory.boosted_cpus("n1") == 0
    assert world.end_wrongs() == []


def test_a_vi_whose_limits_cannot_be_set_can_be_killed_and_removed() -> None:
    """What the node refuses again and again does not stand in the way of its end."""
    for ends_by_itself in (True, False):
        world = World(1, settings(boot_cpus=1.5))
        while not world.core.saved.vis or not world.container(1):
            world.run(0.01)
        vi = world.core.saved.vis[1]
        container = _container(world, vi)
        container.is_fixed = True
        world.run(10)
        assert world.core.inventory.boosted_cpus(vi.node) == 0.5
        assert vi.state is ViState.RUNNING and "cannot be set" in vi.why
        if ends_by_itself:
            world.end(container)
            world.run(5)
            container.is_fixed = False
            world.run(30)
            assert (vi.state, container.boots) == (ViState.RUNNING, 2)
            assert world.end_wrongs() == []
        else:
            operation = world.wish(lambda n, v=vi.number: saw.StopWished(n, v, False))
            world.run(10)
            assert world.ended[operation] == (True, "")
            assert world.container(vi.number) is None


@pytest.mark.parametrize("change", [{"cpus": 0.05}, {"memory_bytes": GIB}, {"read_mib_s": 1000}])
def test_limits_that_somebody_changed_are_put_right(change: dict[str, int]) -> None:
    world = _settled()
    for vi in (_owners(world, "alpha")[0], _standby(world, "beta")):
        container = _container(world, vi)
        container.limits = dataclasses.replace(container.limits, **change)
    world.run(10)
    assert world.end_wrongs() == []
    assert len([note for note in world.notes if "put right" in note]) == 2
    assert all(vi.restarts == 0 for vi in world.core.saved.vis.values())


def test_vis_get_the_limits_of_a_type_that_changed() -> None:
    """After a reload, without a restart."""
    world = _settled()
    grown = dataclasses.replace(SMALL, cpus=1.25)
    types = dict(world.settings.vi_types) | {"small": grown}
    reads = READS | {"small": 80}
    world.settings = dataclasses.replace(world.settings, vi_types=types, reads_mib_s=reads)
    world.tell(saw.Configured(world.settings), world.life)
    world.run(10)
    for vi in _owners(world, "alpha"):
        assert _container(world, vi).limits == Allotment(1.25, SMALL.memory_bytes, 80)
    assert world.end_wrongs() == []
