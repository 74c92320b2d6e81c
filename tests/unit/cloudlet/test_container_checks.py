"""What a look at containers finds, and when it looks at one anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from packetcloud.cloudlet.container_checks import (
    LABEL_CLOUDLET,
    LABEL_INSTANCE,
    WISH_FIELDS,
    ContainerChecks,
)
from packetcloud.cloudlet.container_config import build
from packetcloud.cloudlet.containers import ContainerFacts, ContainerState, ContainerWish
from packetcloud.cloudlet.core.events import ContainerSeen
from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.errors import NodeRefusedError
from tests.unit.cloudlet.wishes import LIMITS, SITE, as_live, wish

WISH = wish(labels={LABEL_CLOUDLET: "c1", LABEL_INSTANCE: "7"})


class World:
    """One VI, its container, and how often somebody asked what it should be."""

    def __init__(self) -> None:
        self.revision = 1
        self.vi = Vi(1, "s", "small", "n1", 7, "token", 9)
        self.wish: ContainerWish | None = WISH
        live = as_live(build(WISH, SITE))
        self.container = ContainerFacts(
            "vi-1", ContainerState.RUNNING, WISH.image, dict(WISH.labels), live
        )
        self.asked_count = 0
        self.checks = ContainerChecks("c1", {1: self.vi}, self, self._wish_of)

    def number_of(self, container_name: str) -> int | None:
        return int(container_name.removeprefix("vi-"))

    def _wish_of(self, vi: Vi) -> ContainerWish:
        self.asked_count += 1
        if self.wish is None:
            raise NodeRefusedError("it is no longer declared")
        return self.wish

    def look(self) -> ContainerSeen:
        (seen,) = self.checks.look("n1", SITE, [copied(self.container)])
        return seen

    def change(self, **changes: Any) -> None:
        live = dataclasses.replace(self.container.live, **changes)
        self.container = dataclasses.replace(self.container, live=live)


def copied(container: ContainerFacts) -> ContainerFacts:
    """Return another object that says the same, as each answer of LXD does."""
    live = container.live
    devices = {name: dict(device) for name, device in live.devices.items()}
    return dataclasses.replace(
        container, live=dataclasses.replace(live, config=dict(live.config), devices=devices)
    )


def _raise_memory(world: World) -> None:
    world.change(config={**world.container.live.config, "limits.memory": "999MiB"})


def _nest(world: World) -> None:
    world.change(config={**world.container.live.config, "security.nesting": "true"})


def _add_device(world: World) -> None:
    world.change(devices={**world.container.live.devices, "gpu": {"type": "gpu"}})


def _add_profile(world: World) -> None:
    world.change(profiles=("default",))


def _be_given_more(world: World) -> None:
    world.vi.allotted = dataclasses.replace(world.vi.allotted, cpus=2.0)
    world.wish = dataclasses.replace(WISH, limits=dataclasses.replace(LIMITS, vcpu=2.0))


def _read_config(world: World) -> None:
    world.revision += 1
    world.wish = dataclasses.replace(WISH, limits=dataclasses.replace(LIMITS, disk_mib=512))


@pytest.mark.parametrize(
    "change", [_raise_memory, _nest, _add_device, _add_profile, _be_given_more, _read_config]
)
def test_a_change_is_seen_at_the_next_look(change: Callable[[World], None]) -> None:
    """Whoever makes it: another hand in the container, or we in what is wanted of it."""
    world = World()
    assert (world.look().violations, world.look().differences) == ((), ())
    change(world)
    seen = world.look()
    assert seen.violations or seen.differences
    assert world.look() == seen


def test_what_nobody_changed_is_judged_once() -> None:
    """Looking at it again asks for nothing; its end does not hide what comes under its name."""
    world = World()
    first = world.look()
    assert [world.look() for _ in range(3)] == [first] * 3
    assert world.asked_count == 1
    world.container = dataclasses.replace(world.container, state=ContainerState.STOPPED)
    assert not world.look().is_running
    assert world.checks.look("n1", SITE, []) == ()
    asked_count = world.asked_count
    world.look()
    assert world.asked_count == asked_count + 1


def test_a_container_of_another_cloudlet_is_not_judged() -> None:
    """One that has the name of a VI of this node is, also when somebody takes its labels away."""
    world = World()
    first = world.look()
    world.container = dataclasses.replace(world.container, labels={LABEL_CLOUDLET: "c2"})
    assert world.look() == dataclasses.replace(first, instance=-1)
    assert world.checks.look("n2", SITE, [world.container]) == ()
    stranger = dataclasses.replace(world.container, name="vi-2")
    assert world.checks.look("n1", SITE, [stranger]) == ()


def test_ids_that_another_container_comes_to_share_are_seen() -> None:
    """What is wrong with one may come from a change of the other alone."""
    world = World()

    def with_ids(container: ContainerFacts, first: int) -> ContainerFacts:
        ids = f'[{{"Isuid":true,"Hostid":{first},"Nsid":0,"Maprange":65536}}]'
        config = {**container.live.config, "volatile.idmap.next": ids}
        return dataclasses.replace(
            container, live=dataclasses.replace(container.live, config=config)
        )

    one = with_ids(world.container, 1 << 20)
    other = dataclasses.replace(one, name="vi-2")
    apart = with_ids(other, 1 << 21)
    assert [seen.violations for seen in world.checks.look("n1", SITE, [one, apart])] == [(), ()]
    together = world.checks.look("n1", SITE, [one, other])
    assert all("it shares ids" in seen.violations[0] for seen in together)


def test_of_a_vi_whose_service_is_gone_nothing_is_wished() -> None:
    world = World()
    world.wish = None
    assert world.look().differences == ()


def test_what_decides_on_a_container_is_known() -> None:
    """The wish for a VI's container depends on nothing else of the VI than is compared."""
    from packetcloud.cloudlet.launches import ConfiguredLaunches

    names = set()
    for function in (
        ConfiguredLaunches.wish,
        ConfiguredLaunches._image_of,
        ConfiguredLaunches.control_address,
    ):
        names |= set(function.__code__.co_names)
    fields = {one.name for one in dataclasses.fields(Vi)} & names
    assert fields and fields <= set(WISH_FIELDS)
