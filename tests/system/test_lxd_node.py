"""Real LXD: the contract of all nodes, and what only a real server can show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from packetcloud.cloudlet.containers import ImageFiles
from packetcloud.testbed.capabilities import find_capabilities
from packetcloud.testbed.lxd_daemon import LxdDaemon
from tests.node_contract import NodeContract, Place
from tests.system.lxd_places import Bridges, needs_lxd, place_at, private_lxd, socket_of

pytestmark = needs_lxd

World = tuple[LxdDaemon, Bridges, ImageFiles]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with private_lxd(tmp_path_factory.mktemp("lxd")) as made:
        yield made


class TestLxdNode(NodeContract):
    @pytest.fixture
    def place(self, world: World) -> Iterator[Place]:
        daemon, bridges, image = world
        yield place_at(socket_of(daemon), bridges.site(), image)


def test_protections_are_those_of_this_kernel(world: World) -> None:
    """What LXD warns of as a server is heard, although all else is asked about our project."""
    daemon, bridges, image = world

    async def describe() -> dict[str, bool]:
        node = await place_at(socket_of(daemon), bridges.site(), image).open_node()
        try:
            facts = await node.describe()
        finally:
            await node.close()
        return {one.name: one.is_active for one in facts.protections}

    found = asyncio.run(describe())
    assert found["AppArmor"] == find_capabilities().has_apparmor
    assert found["limit of memory"]
