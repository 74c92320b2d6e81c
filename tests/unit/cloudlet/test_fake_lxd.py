"""The fake node: the contract of all nodes, and the faults that it plays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from dataclasses import replace

import pytest

from packetcloud.cloudlet.containers import ContainerState, ImageFiles, NodeAdapter
from packetcloud.cloudlet.errors import NodeUnreachableError, NoRoomError
from packetcloud.testbed.fake_lxd import MIB, FakeContainer, FakeNode
from tests.node_contract import LIMITS, NodeContract, Place
from tests.unit.cloudlet.wishes import IMAGE, SITE, WISH, wish

IMAGE_FILES = ImageFiles(IMAGE, "nothing", ())


class TestFakeNode(NodeContract):
    @pytest.fixture
    def place(self) -> Iterator[Place]:
        site = replace(SITE, egress_bridge="pc-egress")

        async def open_node() -> NodeAdapter:
            return FakeNode("fake", site)

        yield Place(open_node, site, IMAGE_FILES, "vi")


def _node() -> FakeNode:
    return FakeNode("fake", SITE, images={IMAGE})


def _run(coroutine: Awaitable[None]) -> None:
    async def whole() -> None:
        await coroutine

    asyncio.run(whole())


def test_a_lost_answer_leaves_the_thing_done() -> None:
    """The caller knows nothing; asked again, the node is content."""

    async def body() -> None:
        node = _node()
        node.lose_answer("create")
        with pytest.raises(NodeUnreachableError):
            await node.create(WISH)
        assert list(node.found) == [WISH.name]
        await node.create(WISH)

    _run(body())


def test_a_failure_leaves_nothing_done() -> None:
    async def body() -> None:
        node = _node()
        node.fail_next("create", NoRoomError("full"), after=1)
        await node.create(wish(name="first"))
        with pytest.raises(NoRoomError, match="full"):
            await node.create(WISH)
        assert list(node.found) == ["first"]
        await node.create(WISH)

    _run(body())


def test_a_daemon_that_restarts_loses_answers_not_containers() -> None:
    """A call in progress over the restart ends with an unknown outcome; VIs go on."""

    async def body() -> None:
        node = _node()

        async def sleep(delay_s: float) -> None:
            if delay_s:
                node.restart()

        node.sleep = sleep
        await node.create(WISH)
        node.delays_s = {"start": 1.0}
        with pytest.raises(NodeUnreachableError, match="restarted during start"):
            await node.start(WISH.name)
        assert node.found[WISH.name].state is ContainerState.RUNNING
        node.go_down()
        with pytest.raises(NodeUnreachableError):
            await node.containers()
        node.come_back()
        assert [facts.state for facts in await node.containers()] == [ContainerState.RUNNING]

    _run(body())


def test_a_machine_without_power_takes_its_containers_along() -> None:
    async def body() -> None:
        node = _node()
        started: list[FakeContainer] = []
        node.on_start = started.append
        await node.create(WISH)
        await node.start(WISH.name)
        await node.start(WISH.name)
        assert [container.wish for container in started] == [WISH]
        node.lose_power()
        node.come_back()
        assert [facts.state for facts in await node.containers()] == [ContainerState.STOPPED]

    _run(body())


def test_a_full_node_has_no_room() -> None:
    """Disk is taken by what was promised; memory cannot shrink below what is used."""

    async def body() -> None:
        node = _node()
        node.disk_bytes = (WISH.limits.disk_mib + 1) * MIB
        await node.create(WISH)
        with pytest.raises(NoRoomError):
            await node.create(wish(name="vi-2"))
        await node.start(WISH.name)
        container = node.found[WISH.name]
        container.usage = container.usage.__class__(0.0, 200 * MIB, 200 * MIB, 0, 1, {})
        with pytest.raises(NoRoomError):
            await node.resize(WISH.name, LIMITS)

    _run(body())
