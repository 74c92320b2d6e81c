"""Real LXD for tests: one private server for a module, bridges of its own, a tiny image."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from packetcloud.cloudlet.containers import ImageFiles, NodeAdapter
from packetcloud.cloudlet.lxd.address import LxdAddress, UnixSocket
from packetcloud.cloudlet.lxd.discovery import open_nodes
from packetcloud.cloudlet.policy import DATA_MTU, NodeSite
from packetcloud.testbed.lxd_daemon import POOL, LxdDaemon
from packetcloud.testbed.tiny_image import make_tiny_image
from tests.node_contract import Place

needs_lxd = [
    pytest.mark.root,
    pytest.mark.needs("lxd", "btrfs", "nft", "ip"),
    pytest.mark.timeout(300),
    # One after the other: several LXD servers at once make each other late, and share the image.
    pytest.mark.xdist_group("lxd"),
]
_number = itertools.count(1)


@dataclass(frozen=True)
class Bridges:
    """Bridges of this process's own."""

    data: str
    control: str
    egress: str

    def site(self, *, has_disk_quota: bool = True) -> NodeSite:
        return NodeSite(POOL, self.data, self.control, has_disk_quota, egress_bridge=self.egress)


@contextmanager
def bridges() -> Iterator[Bridges]:
    tag = f"{os.getpid() % 100_000}{next(_number)}"
    made = Bridges(f"pct{tag}d", f"pct{tag}c", f"pct{tag}e")
    try:
        for name, mtu in ((made.data, DATA_MTU), (made.control, 1500), (made.egress, 1500)):
            _ip("link", "add", name, "type", "bridge")
            _ip("link", "set", name, "mtu", str(mtu), "up")
        yield made
    finally:
        for name in (made.data, made.control, made.egress):
            subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)


def place_at(
    address: LxdAddress, site: NodeSite, image: ImageFiles, *, member: str | None = None
) -> Place:
    """Return the place of a node for the contract."""

    async def open_node() -> NodeAdapter:
        nodes = await open_nodes(address, site)
        (chosen,) = [node for node in nodes if member in (None, node.name)]
        for node in nodes:
            if node is not chosen:
                await node.close()
        return chosen

    return Place(open_node, site, image, f"t{os.getpid()}-{next(_number)}")


def opener(address: LxdAddress, site: NodeSite) -> Callable[[], Awaitable[list[NodeAdapter]]]:
    return lambda: open_nodes(address, site)


@contextmanager
def private_lxd(folder: Path) -> Iterator[tuple[LxdDaemon, Bridges, ImageFiles]]:
    with bridges() as made, LxdDaemon() as daemon:
        yield daemon, made, make_tiny_image(folder)


def socket_of(daemon: LxdDaemon) -> UnixSocket:
    return UnixSocket(daemon.socket)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
