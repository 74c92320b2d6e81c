"""Real LXD: the contract of all nodes, and what only a real server can show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from packetcloud.cloudlet.containers import ImageFiles
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
