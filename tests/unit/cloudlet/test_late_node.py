"""A node that was away when the controller started is under the same contract once it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from packetcloud.cloudlet.containers import NodeAdapter
from packetcloud.cloudlet.errors import NodeUnreachableError
from packetcloud.cloudlet.late_node import LateNode
from packetcloud.testbed.fake_lxd import FakeNode
from tests.node_contract import NodeContract, Place
from tests.unit.cloudlet.test_fake_lxd import IMAGE_FILES
from tests.unit.cloudlet.wishes import SITE


class TestLateNode(NodeContract):
    @pytest.fixture
    def place(self) -> Iterator[Place]:
        async def open_node() -> NodeAdapter:
            async def open_late() -> NodeAdapter:
                return FakeNode("fake", SITE)

            return LateNode("fake", open_late)

        yield Place(open_node, SITE, IMAGE_FILES, "vi")


def test_it_is_unreachable_until_it_answers_and_is_opened_once() -> None:
    """Also when many ask at the same time."""
    opened: list[FakeNode] = []
    is_away = True

    async def open_node() -> NodeAdapter:
        await asyncio.sleep(0)
        if is_away:
            raise NodeUnreachableError("nobody listens")
        opened.append(FakeNode("n1", SITE))
        return opened[-1]

    async def body() -> None:
        nonlocal is_away
        node = LateNode("n1", open_node)
        for _ in range(2):
            with pytest.raises(NodeUnreachableError, match="nobody listens"):
                await node.describe()
        is_away = False
        await asyncio.gather(*(node.describe() for _ in range(5)))
        assert len(opened) == 1
        await node.close()
        with pytest.raises(NodeUnreachableError):
            await node.describe()

    asyncio.run(body())
