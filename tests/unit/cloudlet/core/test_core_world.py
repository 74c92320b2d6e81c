"""The core against a world that loses commands, crashes the controller and takes nodes away."""

from __future__ import annotations

import random

import pytest

from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.conduct import Measure
from packetcloud.cloudlet.core.instances import ViState
from packetcloud.cloudlet.core.stages import Stage
from packetcloud.cloudlet.core.values import Resources, RestartPolicy
from tests.unit.cloudlet.core.world import (
    LARGE,
    NODE,
    Container,
    Faults,
    World,
    settings,
    with_standbys,
)


def _vis(world: World, service: str) -> list[int]:
    return [
        vi.number for vi in world.core.saved.vis.values() if vi.service == service and vi.counts
    ]


def _first(world: World, service: str) -> tuple[int, Container]:
    """Return the number of a service's first VI, and its container."""
    number = _vis(world, service)[0]
    container = world.container(number)
    assert container is not None
    return number, container


def test_declared_services_run_and_the_router_knows_them() -> None:
    """Each service gets the VIs that it should have, and nothing else is there."""
    world = World(1)
    world.run(10)
    assert world.end_wrongs() == []
    assert all(count > 50 for count in world.processed.values())


def test_a_launch_is_over_with_its_first_chunk() -> None:
    """Every stage is noted once, at the time when it was reached first."""
    world = World(1)
    world.run(10)
    vi = world.core.saved.vis[_vis(world, "alpha")[0]]
    assert vi.launch is not None
    assert Stage.FIRST_CHUNK not in vi.launch.took_s
    status = {"attachment": "attached", "answered": {"update": 1}}
    world.tell(saw.ViStatus(vi.number, status), world.life)
    took_s = dict(vi.launch.took_s)
    assert set(took_s) == set(Stage)
    assert took_s[Stage.FIRST_CHUNK] == max(took_s.values()) == world.now - vi.launch.began_at
    world.run(10)
    assert vi.launch.took_s == took_s


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


@pytest.mark.parametrize("seed", range(5))
def test_a_held_vi_without_a_session_has_not_finished_its_tasks(seed: int) -> None:
    """To the router it is idle: what it had is in line again. Its state would hold that too."""
    world = World(seed)
    world.run(10)
    number, container = _first(world, "alpha")
    operation = world.wish(lambda n: saw.MigrateWished(n, number))
    for _ in range(1000):
        world.run(0.01)
        if world.state_of(container) == "held" and container.in_hand:
            break
    assert container.in_hand, "it was held while it had a task"
    world.restart_router()
    world.run(20)
    assert world.ended[operation] == (True, "")
    assert not world.forgotten
    assert world.end_wrongs() == []


def test_a_vi_that_stays_without_a_session_stays_where_it_is() -> None:
    """Its migration is undone within the limit, and says what it waited for."""
    world = World(9)
    world.run(10)
    number, container = _first(world, "alpha")
    operation = world.wish(lambda n: saw.MigrateWished(n, number))
    for _ in range(1000):
        world.run(0.01)
        if world.state_of(container) == "held" and container.in_hand:
            break
    container.is_attached = False  # and it does not notice
    world.run(15)
    is_done, text = world.ended[operation]
    assert not is_done
    assert "chunks waited 10 s" in text and "not attached to the router" in text
    assert world.core.saved.vis[number].state is ViState.RUNNING


def test_a_draining_vi_without_a_session_has_not_finished_its_tasks() -> None:
    """It is removed when it has a session again and nothing to do, not while it is at work."""
    world = World(10)
    world.run(10)
    number, container = _first(world, "beta")
    while not container.in_hand:
        world.run(0.01)
    world.detach(container, away_s=5.0)
    operation = world.wish(lambda n: saw.StopWished(n, number, True))
    gone_at = attached_at = None
    for _ in range(1000):
        world.run(0.01)
        if container.is_attached and attached_at is None:
            attached_at = world.now
        if not container.is_running and gone_at is None:
            gone_at = world.now
    assert world.ended[operation] == (True, "")
    assert attached_at is not None and gone_at is not None and attached_at < gone_at
    assert world.end_wrongs() == []


@pytest.mark.parametrize(("in_hand_s", "restarts"), [(10.0, 0), (10.1, 1)])
def test_a_vi_that_holds_a_task_for_long_is_killed(in_hand_s: float, restarts: int) -> None:
    """Though it says that it is well: for longer than `hang_s`."""
    world = World(1)
    world.run(10)
    vi = world.core.saved.vis[_vis(world, "alpha")[0]]
    status = {"attachment": "attached", "longest_in_hand_s": in_hand_s}
    world.tell(saw.ViStatus(vi.number, status), world.life)
    assert vi.restarts == restarts
    world.run(30)
    assert vi.state is ViState.RUNNING
    assert world.end_wrongs() == []


def test_a_vi_that_says_nothing_for_long_is_killed() -> None:
    """Its container runs, its link is there, and it does not beat: for as long as `hang_s`."""
    world = World(1)
    world.run(10)
    vi = world.core.saved.vis[_vis(world, "alpha")[0]]
    container = world.container(vi.number)
    assert container is not None
    container.boots += 1  # what was to come of it before does not come
    hang_s = world.settings.services["alpha"].hang_s
    world.run(hang_s - 2)
    assert vi.restarts == 0
    world.run(30)
    assert vi.restarts == 1
    assert vi.state is ViState.RUNNING
    assert world.end_wrongs() == []


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


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("n1", "no room for it: node n1 is evacuated, or does not answer"),
        (None, "no room for it: no node but n2 answers and takes VIs"),
    ],
)
def test_a_vi_that_can_go_nowhere_says_why(to: str | None, words: str) -> None:
    """Its own node is none to move to, and may have all the room there is."""
    world = World(3)
    world.run(10)
    world.wish(lambda n: saw.EvacuateWished(n, "n1"))
    world.run(40)
    number = _vis(world, "beta")[0]
    operation = world.wish(lambda n: saw.MigrateWished(n, number, to))
    is_done, text = world.ended[operation]
    assert not is_done and text.startswith(words)


def test_the_vis_of_a_lost_node_start_elsewhere_and_are_removed_when_it_is_back() -> None:
    """A node that does not answer for `node_lost_s` is given up; nothing of it serves later."""
    world = World(4)
    world.run(10)
    world.silence("n1")
    world.run(30)
    assert all(vi.node == "n2" for vi in world.core.saved.vis.values() if vi.counts)
    world.answer_again(*world.nodes)
    world.run(30)
    assert world.nodes["n1"] == {}
    assert world.end_wrongs() == []


def test_vis_that_run_stay_where_only_lxd_is_away() -> None:
    """They say that they are alive: nothing is lost, and nothing is done when it is back."""
    world = World(4)
    world.run(10)
    before = {vi.number: vi.node for vi in world.core.saved.vis.values()}
    world.silent.add("n1")
    world.run(60)
    assert world.core.inventory.nodes["n1"].is_lost
    world.answer_again("n1")
    world.run(10)
    assert {vi.number: vi.node for vi in world.core.saved.vis.values()} == before
    assert not any(vi.restarts for vi in world.core.saved.vis.values())
    assert world.end_wrongs() == [] and not world.forgotten


def test_a_vi_that_ends_while_lxd_is_away_starts_elsewhere() -> None:
    """Nobody can start it again there."""
    world = World(4)
    world.run(10)
    world.silent.add("n1")
    world.run(30)
    (container,) = [one for one in world.nodes["n1"].values() if one.service == "alpha"]
    world.end(container)
    world.run(30)
    vis = [vi for vi in world.core.saved.vis.values() if vi.service == "alpha" and vi.counts]
    assert [vi.node for vi in vis] == ["n2", "n2"]
    world.answer_again("n1")
    world.run(20)
    assert container.number not in world.nodes["n1"]
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


def test_what_others_use_of_a_node_is_not_given_to_vis() -> None:
    """By measurement, though nobody reserved it: memory that is gone would be taken from VIs."""
    world = World(3)
    world.run(10)
    world.used_by_others = Resources(0.0, NODE.memory_bytes - (LARGE.memory_bytes - 1), 0)
    world.run(5)
    for wish in (
        world.wish(lambda n: saw.LaunchWished(n, "alpha", "large")),
        world.wish(lambda n: saw.LaunchWished(n, "alpha", "large", "n1")),
    ):
        is_done, text = world.ended[wish]
        assert not is_done and text.startswith("no room for it: n1: not enough memory")
    small = world.wish(lambda n: saw.LaunchWished(n, "alpha"))
    world.run(10)
    assert world.ended[small] == (True, "")
    assert world.end_wrongs() == []


def test_a_vi_in_quarantine_does_not_grow() -> None:
    """Nobody waits for what happens only when an operator starts it again."""
    world = World(9)
    world.run(10)
    number, container = _first(world, "beta")
    container.violations = ("its profiles are others",)
    world.run(5)
    operation = world.wish(lambda n: saw.ResizeWished(n, number, "large"))
    is_done, text = world.ended[operation]
    assert not is_done and text.startswith(f"VI {number} is in quarantine (its container is not")
    assert text.endswith(f"first: packetcloud vi restart {number}")


def test_a_resize_ends_when_its_vi_is_stopped_for_good() -> None:
    """Asked for while the VI was being killed, which then turned out to be once too often."""
    world = World(9)
    world.run(10)
    number, _ = _first(world, "beta")
    vi = world.core.saved.vis[number]
    vi.crashes.extend([world.now] * (RestartPolicy().quarantine_crashes - 1))
    world.tell(saw.ViFailed(number, "it ended", is_config=False), world.life)
    assert vi.state is ViState.FAILING
    operation = world.wish(lambda n: saw.ResizeWished(n, number, "large"))
    world.run(5)
    assert vi.state is ViState.QUARANTINED
    assert world.ended[operation] == (False, "in quarantine: it ended")
    world.wish(lambda n: saw.RestartWished(n, number))
    world.run(10)
    assert (vi.state, vi.vi_type) == (ViState.RUNNING, "small")
    assert world.end_wrongs() == []


def test_a_resize_outlives_the_controller() -> None:
    """What was asked for is done, also when the node did it and nobody heard of it."""
    for delay_s in (0.0, 0.6):
        world = World(9)
        world.run(10)
        number = _vis(world, "beta")[0]
        operation = world.wish(lambda n, v=number: saw.ResizeWished(n, v, "large"))
        world.faults = Faults(unanswered=1.0)
        world.run(delay_s)
        world.crash()
        world.faults = Faults()
        world.run(20)
        assert world.ended[operation] == (True, "")
        assert world.core.saved.vis[number].vi_type == "large"
        assert world.end_wrongs() == []


def test_a_resize_that_its_node_does_not_answer_is_repeated() -> None:
    """Signs of life of the VI put it off no longer; a VI that falls silent meanwhile is noticed."""
    world = World(10)
    world.run(10)
    number, container = _first(world, "beta")
    operation = world.wish(lambda n: saw.ResizeWished(n, number, "large"))
    world.faults = Faults(unanswered=1.0)
    world.run(3)
    world.faults = Faults()
    world.run(3)
    assert world.ended[operation] == (True, "")
    world.wish(lambda n: saw.ResizeWished(n, number, "small"))
    world.faults = Faults(lost=1.0)
    container.boots += 1  # it says nothing from now on
    world.run(15)
    world.faults = Faults()
    world.run(20)
    assert world.core.saved.vis[number].restarts == 1
    assert world.end_wrongs() == []


def test_a_container_that_is_not_as_it_must_be_is_stopped_for_good() -> None:
    """It is not started again, and the reason is kept."""
    world = World(6)
    world.run(10)
    number, container = _first(world, "beta")
    container.violations = ("security.privileged = true",)
    world.run(10)
    vi = world.core.saved.vis[number]
    assert vi.state is ViState.QUARANTINED and "security.privileged" in vi.why
    assert not container.is_running
    assert ["stopped: its container" in one.text for one in vi.record] == [True]
    assert world.core.conduct.measures == {("beta", Measure.POLICY): 1}
    world.crash()
    world.run(10)
    vi = world.core.saved.vis[number]
    assert vi.state is ViState.QUARANTINED and len(vi.record) == 1
    operation = world.wish(lambda n: saw.RestartWished(n, number))
    world.run(10)
    assert world.ended[operation] == (True, "")
    assert container.violations == (), "it was put right before it was started"
    assert world.end_wrongs() == []


def test_a_container_that_somebody_changed_is_put_right_while_it_runs() -> None:
    """Its limits are what they were, it was not started again, and what was found is kept."""
    world = World(9)
    world.run(10)
    number, container = _first(world, "alpha")
    container.differences = ("limits.memory is '9GiB', wanted '256MiB'",)
    container.vi_type = "large"
    world.run(10)
    vi = world.core.saved.vis[number]
    assert (container.differences, container.vi_type) == ((), "small")
    assert (vi.state, vi.restarts, container.boots) == (ViState.RUNNING, 0, 1)
    assert [one.text for one in vi.record] == [
        "put right: limits.memory is '9GiB', wanted '256MiB'"
    ]
    assert len([note for note in world.notes if "limits.memory is '9GiB'" in note]) == 1
    assert world.core.conduct.measures == {("alpha", Measure.RESTORED): 1}
    assert world.end_wrongs() == []


def test_what_cannot_be_put_right_while_it_runs_is_stopped_for_it() -> None:
    """It serves again afterwards, with one restart."""
    world = World(10)
    world.run(10)
    number, container = _first(world, "beta")
    container.is_stubborn = True
    container.differences = ("limits.memory is '9GiB', wanted '256MiB'",)
    world.run(20)
    vi = world.core.saved.vis[number]
    assert (container.differences, vi.state, vi.restarts) == ((), ViState.RUNNING, 1)
    assert any("cannot be put right: in use" in note for note in world.notes)
    assert world.end_wrongs() == []


def test_a_vi_that_is_being_resized_or_was_just_touched_is_not_judged_by_what_was_before() -> None:
    """What was seen before the last change of a container says nothing about it."""
    world = World(11)
    world.run(10)
    number = _vis(world, "beta")[0]
    vi = world.core.saved.vis[number]
    container = world.container(number)
    assert container is not None
    world.wish(lambda n: saw.ResizeWished(n, number, "large"))
    asked_at = world.now
    world.run(3)
    assert vi.vi_type == "large"
    old = saw.ContainerSeen(number, vi.instance, True, (), ("limits.memory is another",))
    world.core.inventory.nodes[vi.node].asked_at = 0.0
    world.tell(saw.NodeSeen(vi.node, asked_at, NODE, NODE, (old,)), world.life)
    assert not vi.is_astray and vi.record == ()


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
    number, container = _first(world, "beta")
    world.refused_starts_count = 2
    world.end(container)
    world.run(20)
    assert world.core.saved.vis[number].state is ViState.RUNNING
    assert world.core.saved.vis[number].restarts == 1
    assert len([note for note in world.notes if "cannot start: busy" in note]) == 2
    assert world.end_wrongs() == []


@pytest.mark.parametrize("seed", range(48))
def test_whatever_fails_there_is_one_owner_no_orphan_and_no_lost_state(seed: int) -> None:
    """Crashes of the controller between any two commands, lost commands, unanswered ones."""
    faults = Faults(0.05, 0.05, 0.03)
    # Every other world has standbys, and images that change.
    world = World(seed, with_standbys() if seed % 2 else settings(), faults)
    chance = random.Random(seed)
    for _ in range(25):
        world.run(chance.uniform(0.1, 4.0))
        vis = list(world.core.saved.vis)
        number = chance.choice(vis) if vis else 0
        match chance.randrange(11 if seed % 2 else 10):
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
            case 9:
                changed = world.container(number)
                if changed is not None:
                    changed.differences = ("limits.memory is another",)
                    changed.is_stubborn = chance.random() < 0.3
                    if changed.is_stubborn:
                        world.forget(changed)  # it is stopped to be put right
            case 8:
                name = chance.choice(list(world.nodes))
                if chance.random() < 0.5:
                    if name in world.silent:
                        world.answer_again(name)
                    elif chance.random() < 0.3:
                        world.silent.add(name)
                    else:
                        world.silence(name)
                else:
                    world.wish(lambda n, v=name: saw.EvacuateWished(n, v, chance.random() < 0.7))
            case 10:
                world.new_image(chance.choice(["alpha", "beta"]))
    world.faults = Faults()
    world.answer_again(*world.nodes)
    world.run(5)  # a controller that crashed is there again: it hears what is wished
    for name in world.nodes:
        world.wish(lambda n, v=name: saw.EvacuateWished(n, v, True))
    world.run(120)
    for number, vi in list(world.core.saved.vis.items()):
        if vi.state is ViState.QUARANTINED:
            world.wish(lambda n, v=number: saw.RestartWished(n, v))
    world.run(120)
    assert world.end_wrongs() == []
