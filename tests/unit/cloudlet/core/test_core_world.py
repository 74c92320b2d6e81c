"""The core against a world that loses commands, crashes the controller and takes nodes away."""

from __future__ import annotations

import random

import pytest

from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.instances import ViState
from tests.unit.cloudlet.core.world import Faults, World


def _vis(world: World, service: str) -> list[int]:
    return [
        vi.number for vi in world.core.saved.vis.values() if vi.service == service and vi.counts
    ]


def test_declared_services_run_and_the_router_knows_them() -> None:
    """Each service gets the VIs that it should have, and nothing else is there."""
    world = World(1)
    world.run(10)
    assert world.end_wrongs() == []
    assert all(count > 50 for count in world.processed.values())


def test_a_migration_carries_the_state_and_removes_the_old_one() -> None:
    """The twin knows every task that its predecessor had, in the same slot."""
    world = World(2)
    world.run(10)
    number = _vis(world, "alpha")[0]
    node = world.core.saved.vis[number].node
    operation = world.wish(lambda n: saw.MigrateWished(n, number))
    world.run(10)
    assert world.ended[operation] == (True, "")
    assert world.container(number) is None
    assert {vi.node for vi in world.core.saved.vis.values() if vi.number > number} != {node}
    assert world.end_wrongs() == []
    assert not world.forgotten - {("alpha", 0), ("alpha", 1)}


def test_an_evacuated_node_gets_empty_and_stays_so() -> None:
    """Every VI moves with its state; later ones do not come."""
    world = World(3)
    world.run(10)
    operation = world.wish(lambda n: saw.EvacuateWished(n, "n1"))
    world.run(40)
    assert world.ended[operation] == (True, "")
    world.wish(lambda n: saw.LaunchWished(n, "beta"))
    world.run(10)
    assert world.nodes["n1"] == {}
    assert world.end_wrongs() == []


def test_the_vis_of_a_lost_node_start_elsewhere_and_are_removed_when_it_is_back() -> None:
    """A node that does not answer for `node_lost_s` is given up; nothing of it serves later."""
    world = World(4)
    world.run(10)
    world.silence("n1")
    world.run(30)
    assert all(vi.node == "n2" for vi in world.core.saved.vis.values() if vi.counts)
    world.silent.clear()
    world.run(30)
    assert world.nodes["n1"] == {}
    assert world.end_wrongs() == []


def test_a_vi_that_cannot_grow_where_it_is_makes_a_neighbour_move() -> None:
    """A scaling conflict moves a VI that is small but large enough (paper, section 3.2)."""
    world = World(5)
    world.run(10)
    for _ in range(2):
        world.wish(lambda n: saw.LaunchWished(n, "alpha", "large", "n1"))
        world.wish(lambda n: saw.LaunchWished(n, "beta", "large", "n1"))
    world.run(10)
    number = next(n for n in _vis(world, "alpha") if world.core.saved.vis[n].vi_type == "small")
    operation = world.wish(lambda n: saw.ResizeWished(n, number, "large"))
    world.run(20)
    assert world.ended[operation] == (True, "")
    assert world.end_wrongs() == []


def test_a_container_that_is_not_as_it_must_be_is_stopped_for_good() -> None:
    """It is not started again, and the reason is kept."""
    world = World(6)
    world.run(10)
    number = _vis(world, "beta")[0]
    container = world.container(number)
    assert container is not None
    container.violations = ("security.privileged = true",)
    world.run(10)
    vi = world.core.saved.vis[number]
    assert vi.state is ViState.QUARANTINED and "security.privileged" in vi.why
    assert not container.is_running


def test_a_vi_that_keeps_crashing_ends_in_quarantine() -> None:
    """After so many crashes within the window it is left alone, and the others go on."""
    world = World(7)
    world.run(10)
    number = _vis(world, "beta")[0]
    for _ in range(200):
        container = world.container(number)
        if container is not None and container.is_running:
            world.end(container)
        world.run(1)
        if world.core.saved.vis[number].state is ViState.QUARANTINED:
            break
    assert world.core.saved.vis[number].state is ViState.QUARANTINED
    operation = world.wish(lambda n: saw.RestartWished(n, number))
    world.run(10)
    assert world.ended[operation] == (True, "")


def test_a_start_that_the_node_refuses_is_no_restart_and_is_told() -> None:
    """A node may be busy with the end of what crashed: the VI began again once, not three times."""
    world = World(8)
    world.run(10)
    number = _vis(world, "beta")[0]
    container = world.container(number)
    assert container is not None
    world.refused_starts_count = 2
    world.end(container)
    world.run(20)
    assert world.core.saved.vis[number].state is ViState.RUNNING
    assert world.core.saved.vis[number].restarts == 1
    assert len([note for note in world.notes if "cannot start: busy" in note]) == 2
    assert world.end_wrongs() == []


@pytest.mark.parametrize("seed", range(200))
def test_whatever_fails_there_is_one_owner_no_orphan_and_no_lost_state(seed: int) -> None:
    """Crashes of the controller between any two commands, lost commands, unanswered ones."""
    world = World(seed, faults=Faults(0.05, 0.05, 0.03))
    chance = random.Random(seed)
    for _ in range(25):
        world.run(chance.uniform(0.1, 4.0))
        vis = list(world.core.saved.vis)
        number = chance.choice(vis) if vis else 0
        match chance.randrange(9):
            case 0 | 1 | 2:
                world.wish(lambda n, v=number: saw.MigrateWished(n, v))
            case 3:
                world.wish(
                    lambda n, v=number: saw.ResizeWished(n, v, chance.choice(["small", "large"]))
                )
            case 4:
                world.wish(lambda n: saw.LaunchWished(n, chance.choice(["alpha", "beta"])))
            case 5:
                stopped = world.container(number)
                if stopped is not None:
                    world.forget(stopped)  # its slot is another's from now on
                world.wish(lambda n, v=number: saw.StopWished(n, v, chance.random() < 0.5))
            case 6:
                world.crash()
            case 7:
                world.restart_router()
            case 8:
                name = chance.choice(list(world.nodes))
                if chance.random() < 0.5:
                    if name in world.silent:
                        world.silent.discard(name)
                    else:
                        world.silence(name)
                else:
                    world.wish(lambda n, v=name: saw.EvacuateWished(n, v, chance.random() < 0.7))
    world.faults = Faults()
    world.silent.clear()
    for name in world.nodes:
        world.wish(lambda n, v=name: saw.EvacuateWished(n, v, True))
    world.run(120)
    for number, vi in list(world.core.saved.vis.items()):
        if vi.state is ViState.QUARANTINED:
            world.wish(lambda n, v=number: saw.RestartWished(n, v))
    world.run(120)
    assert world.end_wrongs() == []
