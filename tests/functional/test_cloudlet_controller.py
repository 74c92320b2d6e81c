"""The controller with fake nodes, a router's table and VIs that call: what operators rely on."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from pathlib import Path

import pytest

from packetcloud.cloudlet import alarm, links
from packetcloud.cloudlet.config import resources_of
from packetcloud.cloudlet.containers import ContainerState, ImageFiles
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.instances import ViState
from packetcloud.cloudlet.core.stages import Stage
from packetcloud.cloudlet.errors import (
    CloudletConfigError,
    CloudletError,
    NodeRefusedError,
    NoRoomError,
)
from packetcloud.cloudlet.store import Store
from tests.functional.cloudlet_place import CONFIG, Killed, Place, fast, placed, run

__all__ = ["fast"]
pytestmark = pytest.mark.usefixtures("fast")


def test_services_get_their_vis(tmp_path: Path) -> None:
    """On both nodes, each with its own addresses, and serving at the router."""

    async def body(place: Place) -> None:
        assert {vi.node for vi in place.vis()} == {"n1", "n2"}
        addresses = {vi.address for vi in place.controller.core.saved.vis.values()}
        assert len(addresses) == 3
        assert all(node.images for node in place.nodes.values())

    run(tmp_path, body)


def test_a_node_has_the_images_before_a_vi_needs_them(tmp_path: Path) -> None:
    """Each is imported when its node is first seen, also where no VI runs, and once; what the node
    refused is tried again."""

    async def whole() -> None:
        async with placed(tmp_path) as place:
            place.images["plain"] = ImageFiles("cd" * 32, "another", ())
            place.nodes["n2"].fail_next("import_image", NodeRefusedError("not today"))
            nobody = CONFIG.replace("replicas_min = 2", "replicas_min = 0")
            place.declare(nobody.replace('owner = "tenant"', 'owner = "tenant"\nreplicas_min = 0'))
            await place.start()
            await place.until(lambda: all(len(node.images) == 2 for node in place.nodes.values()))
            assert place.controller.core.saved.vis == {}
            await place.until(lambda: _count(place, "describe") > 6)
            assert _count(place, "import_image") == 5

    asyncio.run(whole())


def _count(place: Place, step: str) -> int:
    return sum(one == step for node in place.nodes.values() for one, _ in node.calls)


def test_a_launch_shows_when_it_got_how_far(tmp_path: Path) -> None:
    """Each stage of its last launch in order; nothing of one by an earlier controller."""

    async def body(place: Place) -> None:
        vi = place.vis()[0]
        assert vi.launch is not None
        first = vi.launch
        order = [Stage.CREATED, Stage.STARTED, Stage.LAUNCHED, Stage.READY, Stage.ATTACHED]
        took = [first.took_s[stage] for stage in order]
        assert took == sorted(took) and took[0] >= 0
        assert first.took_s[Stage.CALLED] <= first.took_s[Stage.LAUNCHED]
        place.crash(place.agent(vi))
        await place.until(lambda: vi.restarts == 1)
        await place.settle()
        assert vi.launch is not first
        assert Stage.CREATED not in vi.launch.took_s and Stage.READY in vi.launch.took_s
        await place.restart()
        await place.settle()
        assert all(one.launch is None for one in place.vis())

    run(tmp_path, body)


def test_a_vi_that_crashes_starts_again(tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        vi = place.vis()[0]
        place.crash(place.agent(vi))
        await place.until(lambda: vi.restarts == 1)
        await place.settle()
        assert place.agent(vi).boot == 2

    run(tmp_path, body)


def test_a_vi_that_crashes_again_and_again_is_left_alone(tmp_path: Path) -> None:
    """In quarantine, with the reason, until an operator lets it start."""

    async def body(place: Place) -> None:
        (vi,) = place.vis("plain")
        for _ in range(3):
            place.crash(place.agent(vi))
            await place.until(lambda: vi.state is not ViState.RUNNING)
            await place.until(lambda: vi.state is ViState.RUNNING)
        place.crash(place.agent(vi))
        await place.until(lambda: vi.state is ViState.QUARANTINED)
        assert vi.why == "its container stopped"
        assert place.router.vis(place.sid("plain")) == {}
        assert await place.wish(lambda n: saw.RestartWished(n, vi.number)) == (True, "")
        await place.settle()

    run(tmp_path, body)


def test_a_new_controller_adopts_what_runs(tmp_path: Path) -> None:
    """No VI is started, launched or held again, and chunks go on meanwhile."""

    async def body(place: Place) -> None:
        agents = {agent.name: agent for agent in place.agents}
        before = sum(place.processed.values())
        await place.kill()
        await place.until(lambda: sum(place.processed.values()) > before + 20)
        await place.start()
        await place.settle()
        assert {agent.name: agent for agent in place.agents} == agents
        assert all(agent.launches_count == 1 for agent in agents.values())
        assert place.controller.core.table.epoch == 2

    run(tmp_path, body)


WITH_STANDBYS = CONFIG.replace("replicas_max = 4\n", "replicas_max = 4\nstandbys = 1\n")


def test_a_launch_is_a_standby_that_waits(tmp_path: Path) -> None:
    """Its container is started once, and has the limits of its type before it is launched; the
    next controller finds the new one waiting."""

    async def whole() -> None:
        async with placed(tmp_path) as place:
            place.declare(WITH_STANDBYS)
            await place.start()
            await place.settle()
            (standby,) = place.standbys()
            agent = place.agent(standby)
            assert agent.launches_count == 0
            assert await place.wish(lambda n: saw.LaunchWished(n, "counts")) == (True, "")
            assert standby in place.vis()
            assert (agent.launches_count, agent.container.starts_count) == (1, 1)
            assert agent.limits_at_launch is not None
            assert (
                agent.limits_at_launch.memory_mib
                == place.config.catalogue.get("small").limits.memory_mib
            )
            await place.settle()
            (waiting,) = place.standbys()
            await place.restart()
            await place.settle()
            assert [vi.number for vi in place.standbys()] == [waiting.number]
            assert place.agent(waiting).container.starts_count == 1

    asyncio.run(whole())


def test_standbys_of_an_old_image_are_replaced_after_a_reload(tmp_path: Path) -> None:
    async def whole() -> None:
        async with placed(tmp_path) as place:
            place.declare(WITH_STANDBYS)
            await place.start()
            await place.settle()
            (old,) = place.standbys()
            place.images["counts"] = ImageFiles("cd" * 32, "another", ())
            place.controller.configure(place.config.settings(("n1", "n2"), place.images))
            await place.until(lambda: old not in place.standbys() and not place.unsettled())
            (new,) = place.standbys()
            assert place.agent(new).container.wish.image == "cd" * 32
            assert all(place.agent(vi).container.wish.image == "ab" * 32 for vi in place.vis())

    asyncio.run(whole())


def test_a_vi_that_crashed_is_replaced_by_a_standby(tmp_path: Path) -> None:
    async def whole() -> None:
        async with placed(tmp_path) as place:
            place.declare(WITH_STANDBYS)
            await place.start()
            await place.settle()
            (standby,), crashed = place.standbys(), place.vis()[0]
            place.crash(place.agent(crashed))
            await place.until(lambda: standby.state is ViState.RUNNING)
            assert (standby.slot, standby.restarts) == (crashed.slot, 1)
            await place.settle()
            assert crashed not in place.vis()

    asyncio.run(whole())


def test_a_vi_moves_with_its_state(tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        vi = place.vis()[0]
        done = await place.wish(lambda n: saw.MigrateWished(n, vi.number))
        assert done == (True, "")
        await place.settle()
        moved = next(one for one in place.vis() if one.slot == vi.slot)
        assert moved.node != vi.node
        assert moved.owner_epoch == 2

    run(tmp_path, body)


@pytest.mark.parametrize("what", ["export", "import"])
def test_a_migration_that_fails_is_undone(tmp_path: Path, what: str) -> None:
    """The old one serves on with what it knows, and nothing is left of the twin."""

    async def body(place: Place) -> None:
        vi = place.vis()[0]
        if what == "export":
            place.agent(vi).refuses["export"] = 1
        else:
            started = place.nodes["n2" if vi.node == "n1" else "n1"]
            on_start = started.on_start
            assert on_start is not None

            def start(container: object) -> None:
                on_start(container)  # type: ignore[arg-type]
                place.agents[-1].refuses["import"] = 1

            started.on_start = start
        is_done, text = await place.wish(lambda n: saw.MigrateWished(n, vi.number))
        assert not is_done
        assert ("not now" if what == "export" else "cannot read it") in text
        await place.settle()
        assert vi in place.vis()

    run(tmp_path, body)


def test_a_migration_waits_for_the_last_task(tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        vi = place.vis()[0]
        place.router.tasks[vi.instance] = 1
        operation = place.controller.wish(lambda n: saw.MigrateWished(n, vi.number))
        held = place.router.vis(place.sid("counts"))
        await place.until(
            lambda: (
                len(place.vis()) == 3
                and not place.router.vis(place.sid("counts"))[vi.instance].state.serves
            )
        )
        assert vi.instance in held
        assert await place.controller.ended(operation, 0.1) is None
        place.router.tasks.clear()
        place.router.change()
        result = await place.controller.ended(operation, 30)
        assert result is not None and result.is_done
        await place.settle()

    run(tmp_path, body)


def test_a_vi_is_resized_while_it_runs(tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        vi = place.vis()[0]
        agent = place.agent(vi)
        names = list(place.config.catalogue.types)
        larger = names[names.index(vi.vi_type) + 1]
        done = await place.wish(lambda n: saw.ResizeWished(n, vi.number, larger))
        assert done == (True, "")
        assert agent.container.limits == place.config.catalogue.get(larger).limits
        await place.settle()
        assert place.agent(vi) is agent

    run(tmp_path, body)


def test_a_resize_that_the_node_refuses_says_why(tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        vi = place.vis()[0]
        place.nodes[vi.node].fail_next("resize", NoRoomError("it uses more than this"))
        names = [name for name in place.config.catalogue.types if name != vi.vi_type]
        done = await place.wish(lambda n: saw.ResizeWished(n, vi.number, names[0]))
        assert done == (False, "it uses more than this")
        await place.settle()

    run(tmp_path, body)


def test_an_evacuated_node_has_no_vi(tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        assert await place.wish(lambda n: saw.EvacuateWished(n, "n1")) == (True, "")
        await place.settle()
        assert place.nodes["n1"].found == {}
        await place.restart()
        await place.settle()
        assert place.nodes["n1"].found == {}, "also after a restart of the controller"
        assert await place.wish(lambda n: saw.EvacuateWished(n, "n1", True)) == (True, "")

    run(tmp_path, body)


def test_the_vis_of_a_lost_node_start_elsewhere(tmp_path: Path) -> None:
    """And when it comes back, what was there is removed."""

    async def body(place: Place) -> None:
        lost = place.nodes["n1"]
        for agent in place.agents:
            if agent.node is lost:
                slot = place.router.vis(place.sid(agent.service))[agent.instance].slot
                place.lost_states.add((agent.service, slot))
        lost.lose_power()
        node = place.controller.core.inventory.nodes["n1"]
        assert node.capacity is not None and node.capacity.io_per_s == 1000, (
            "as its config declares"
        )
        await place.until(lambda: place.controller.core.inventory.nodes["n1"].is_lost)
        await place.until(
            lambda: all(
                vi.node == "n2" or vi.is_leaving for vi in place.controller.core.saved.vis.values()
            )
        )
        lost.come_back()
        await place.settle()
        assert lost.found == {}

    run(tmp_path, body)


def test_the_router_may_be_away(tmp_path: Path) -> None:
    """VIs start all the same, and are listed as soon as it answers."""

    async def whole() -> None:
        async with placed(tmp_path) as place:
            place.router.is_up = False
            await place.start()
            await place.until(
                lambda: (
                    len(place.vis()) == 2 and all(vi.state is ViState.RUNNING for vi in place.vis())
                )
            )
            place.router.is_up = True
            await place.settle()

    asyncio.run(whole())


def test_a_router_that_forgot_its_table_gets_it_again(tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        place.router.table = dataclasses.replace(place.router.table, epoch=0, services={})
        place.router.boot_id = "boot-2"
        await place.settle()

    run(tmp_path, body)


def test_one_of_two_controllers_ends_and_touches_nothing(tmp_path: Path) -> None:
    """Who lost its database, or is a copy, does not remove the containers of the other."""
    (tmp_path / "one").mkdir()

    async def body(place: Place) -> None:
        await place.restart()
        await place.settle()
        containers = {name: set(node.found) for name, node in place.nodes.items()}
        await place.kill()
        database = place.config.state_folder
        database.rename(database.with_name("moved"))
        await place.start()
        await place.until(lambda: place.ends)
        assert "another controller is in charge of the router: epoch 2" in place.ends[0]
        for name, node in place.nodes.items():
            assert containers[name] <= set(node.found)
            assert all(node.found[one].state is ContainerState.RUNNING for one in containers[name])

    run(tmp_path / "one", body)


def test_a_controller_without_its_database_takes_over_when_told_to(tmp_path: Path) -> None:
    """It removes what it does not know, and begins anew."""

    async def body(place: Place) -> None:
        await place.restart()
        await place.settle()
        await place.kill()
        database = place.config.state_folder
        database.rename(database.with_name("moved"))
        for slot in range(4):
            place.lost_states.add(("counts", slot))
        await place.start(epoch=place.router.table.epoch)
        await place.settle()
        assert place.controller.core.table.epoch == 3

    run(tmp_path, body)


def test_a_full_disk_ends_the_controller_and_nothing_else(tmp_path: Path) -> None:
    """What cannot be written down is not begun; the next controller goes on."""

    async def body(place: Place) -> None:
        await place.kill()
        await place.start(lambda folder: Killed(folder, 1, is_saved=False))
        await place.until(lambda: place.ends)
        with pytest.raises(CloudletError, match="about to end"):
            place.controller.wish(lambda n: saw.RestartWished(n, place.vis()[0].number))
        before = sum(place.processed.values())
        await place.until(lambda: sum(place.processed.values()) > before + 20)
        await place.restart()
        await place.settle()

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("security.privileged", "true", "security.privileged is 'true'"),
        (
            "volatile.idmap.next",
            '[{"Isuid": true, "Isgid": false, "Hostid": 0, "Nsid": 0, "Maprange": 65536}]',
            "its ids from 0 are the host's",
        ),
    ],
)
def test_a_container_that_was_tampered_with_is_stopped(
    tmp_path: Path, key: str, value: str, why: str
) -> None:
    async def body(place: Place) -> None:
        (vi,) = place.vis("plain")
        container = place.agent(vi).container
        config = {**container.live.config, key: value}
        container.live = dataclasses.replace(container.live, config=config)
        await place.until(lambda: vi.state is ViState.QUARANTINED)
        assert why in vi.why
        assert container.state is ContainerState.STOPPED

    run(tmp_path, body)


def test_a_service_without_an_image_says_so(tmp_path: Path) -> None:
    async def whole() -> None:
        async with placed(tmp_path) as place:
            del place.images["plain"]
            await place.start()
            await place.until(
                lambda: any(vi.state is ViState.QUARANTINED for vi in place.vis("plain"))
            )
            (vi,) = place.vis("plain")
            assert "service plain: no image" in vi.why

    asyncio.run(whole())


@pytest.mark.parametrize("put_off_s", [0.5, 0.0], ids=["as it is", "judged at once"])
def test_a_controller_that_stood_still_takes_no_vi_for_hung(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put_off_s: float
) -> None:
    """A minute passes for it as one moment; the control shows what it would do without a pause."""
    monkeypatch.setattr(alarm, "CATCH_UP_S", put_off_s)
    monkeypatch.setattr(links, "MAX_REPORTS_PER_S_COUNT", 10_000)  # none waits to be heard
    if not put_off_s:
        monkeypatch.setattr(alarm, "MUCH_TOO_LATE_S", math.inf)

    async def body(place: Place) -> None:
        loop = asyncio.get_running_loop()
        clock = loop.time
        for agent in place.agents:
            agent.is_mute = True  # nothing that it says is read while the controller stands still
        await asyncio.sleep(0.05)  # what it had said is read before
        monkeypatch.setattr(loop, "time", lambda: clock() + 60.0)
        for agent in place.agents:
            loop.call_at(clock() + 60.1, setattr, agent, "is_mute", False)
        if put_off_s:
            await place.until(lambda: place.controller.alarm.put_off_count > 0)
            await place.until(lambda: not any(agent.is_mute for agent in place.agents))
            await place.settle()
            assert [vi.restarts for vi in place.vis()] == [0, 0]
        else:
            await place.until(lambda: all(vi.restarts for vi in place.vis()))

    run(tmp_path, body)


def test_a_node_that_refuses_gets_asked_again(tmp_path: Path) -> None:
    """Failures before and lost answers behind each step of a launch."""

    async def whole() -> None:
        async with placed(tmp_path) as place:
            for node in place.nodes.values():
                node.fail_next("create", NodeRefusedError("not today"))
                node.lose_answer("create", after=1)
                node.lose_answer("start")
            await place.start()
            await place.settle()

    asyncio.run(whole())


def test_a_type_that_vis_have_cannot_go(tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        settings = place.controller.core.settings
        fewer = dataclasses.replace(settings, vi_types={})
        with pytest.raises(CloudletConfigError, match=r"VI 1, 2, 3 has the type 'small'"):
            place.controller.configure(fewer)
        place.controller.configure(settings)
        await place.settle()

    run(tmp_path, body)


SCENARIO = ("launch", "resize", "migrate", "stop")


async def _scenario(place: Place) -> None:
    """Launch one VI more, resize, move and stop one; each wish once, whatever becomes of it."""
    numbers = [vi.number for vi in place.vis()]
    wishes = (
        lambda n: saw.LaunchWished(n, "counts"),
        lambda n: saw.ResizeWished(n, numbers[0], "medium"),
        lambda n: saw.MigrateWished(n, numbers[0]),
        lambda n: saw.StopWished(n, numbers[1], False),
    )
    for make in wishes:
        if place.ends:
            return
        try:
            number = place.controller.wish(make)
        except CloudletError:
            return
        await place.until(
            lambda number=number: place.ends or number not in place.controller.core.saved.operations  # type: ignore[misc]
        )


PARTS_COUNT = 3
"""Each kill takes seconds on a busy machine, and there are dozens: a test has one in so many."""


@pytest.mark.parametrize("part", range(1, PARTS_COUNT + 1))
@pytest.mark.parametrize("config", [CONFIG, WITH_STANDBYS], ids=["without", "with standbys"])
@pytest.mark.parametrize("is_saved", [True, False], ids=["after the save", "before the save"])
def test_killed_at_each_save_nothing_is_lost_doubled_or_left(
    tmp_path: Path, is_saved: bool, config: str, part: int
) -> None:
    """The n-th save is the last thing a controller does, n = 1, 2, ... until none is the last: the
    next controller brings everything to one owner for each slot, with its state and its limits,
    and no orphan."""

    async def one(folder: Path, at: int) -> bool:
        folder.mkdir()
        async with placed(folder) as place:
            place.declare(config)
            await place.start()
            await place.settle()
            await place.kill()
            stores: list[Killed] = []

            def make(path: Path) -> Store:
                stores.append(Killed(path, at, is_saved=is_saved))
                return stores[0]

            await place.start(make)
            await place.until(lambda: place.ends or not place.unsettled())
            if not place.ends:
                await _scenario(place)
            if not stores[0].was_killed:
                await place.settle()
                return False
            await place.until(lambda: place.ends)
            await place.restart()
            await place.settle()
            return True

    at = part
    while asyncio.run(one(tmp_path / str(at), at)):
        at += PARTS_COUNT
    assert at > 15, "the scenario has more saves than that"


def test_what_somebody_changes_in_a_container_is_put_right(tmp_path: Path) -> None:
    """Limits, addresses, labels and environment: as they were made, while the VI runs on. Also of
    one whose label of its cloudlet was taken away, so that nobody should see the rest."""

    async def body(place: Place) -> None:
        vi = place.vis()[0]
        container = place.agent(vi).container
        made = container.live
        changed = {"limits.memory": "9216MiB", "environment.PACKETCLOUD_TOKEN": "mine"}
        nic = {**made.devices["eth0"], "ipv4.address": "10.210.0.77"}
        config = {**made.config, **changed}
        del config["user.packetcloud.cloudlet"]
        container.live = dataclasses.replace(
            made, config=config, devices={**made.devices, "eth0": nic}
        )
        await place.until(lambda: container.live == made)
        await place.settle()
        assert vi.restarts == 0 and container.starts_count == 1
        (charge,) = vi.record
        assert "limits.memory is '9216MiB', wanted" in charge.text
        assert "environment.PACKETCLOUD_TOKEN is not what it was" in charge.text
        assert "device eth0: ipv4.address is '10.210.0.77', wanted" in charge.text
        assert vi.token not in charge.text
        await place.restart()
        await place.settle()
        assert place.controller.core.saved.vis[vi.number].record == (charge,)

    run(tmp_path, body)


def test_a_container_that_breaks_the_policy_is_stopped_and_put_right_before_it_starts(
    tmp_path: Path,
) -> None:
    """In quarantine, with the reason on its record, until an operator lets it start."""

    async def body(place: Place) -> None:
        (vi,) = place.vis("plain")
        container = place.agent(vi).container
        made = container.live
        tricks = {"security.nesting": "true", "raw.lxc": "lxc.apparmor.profile=unconfined"}
        container.live = dataclasses.replace(made, config={**made.config, **tricks})
        await place.until(lambda: vi.state is ViState.QUARANTINED)
        assert container.state is ContainerState.STOPPED
        assert "security.nesting is 'true'" in vi.why
        assert [charge.text for charge in vi.record] == [f"stopped: {vi.why}"]
        assert await place.wish(lambda n: saw.RestartWished(n, vi.number)) == (True, "")
        assert container.live == made
        await place.settle()

    run(tmp_path, body)


def test_another_size_of_a_type_is_given_to_who_has_it(tmp_path: Path) -> None:
    """The catalogue is read again: VIs that run get the limits that their type has now."""

    async def body(place: Place) -> None:
        vi = place.vis()[0]
        container = place.agent(vi).container
        launches = place.launches
        limits = dataclasses.replace(launches.limits(vi.vi_type), memory_mib=300)
        launches.limits = lambda vi_type: limits  # type: ignore[method-assign]
        settings = place.controller.core.settings
        types = {**settings.vi_types, vi.vi_type: resources_of(limits)}
        place.controller.configure(dataclasses.replace(settings, vi_types=types))
        await place.until(lambda: container.live.config["limits.memory"] == "300MiB")
        await place.settle()
        assert vi.restarts == 0

    run(tmp_path, body)
