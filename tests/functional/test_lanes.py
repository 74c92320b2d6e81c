"""Memory shared between a router and services of its machine: real sockets, one process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.hop.api import HopConfig, Role, Settlement
from packetcloud.chunk.hop.lane import LANE_BYTES
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from tests.functional.test_hop_udp import run, wait_for
from tests.unit.chunk.hop.hop_link import Upper

MEBIBYTE = 1 << 20
SIZES = [1, 1000, 8 << 10, 70_000, MEBIBYTE, MEBIBYTE + 2000] * 3
LOOPBACK = ("127.0.0.0/8",)


@pytest.fixture
def lanes() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="lanes-", dir="/tmp") as folder:
        yield Path(folder, "own", "lanes")


class Pair:
    """A router and a service that is attached to it."""

    def __init__(self, reactor: Any, lanes: Path | None, **config: Any) -> None:
        self.reactor = reactor
        self.at_router, self.at_service = Upper(), Upper()
        settings = HopConfig(**config)
        identity = Identity.generate()
        self.router = HopNode(
            reactor, identity, Role.ROUTER, settings, self.at_router, lanes=lanes
        )
        self.service = HopNode(
            reactor, Identity.generate(), Role.SERVICE, settings, self.at_service, lanes=lanes
        )

    async def attach(self) -> None:
        address = self.router.listen("127.0.0.1", 0)
        self.service.listen("127.0.0.1", 0)
        self.to_router: Any = await self.service.connect(address, self.router.guid)
        await wait_for(self.reactor, lambda: bool(self.router.neighbours))
        (self.to_service,) = self.router.neighbours

    async def share(self) -> None:
        """Attach, and wait until both sides lend."""
        await self.attach()
        sessions: Any = (self.to_router, self.to_service)
        await wait_for(
            self.reactor, lambda: all(s.sender.departures.lane is not None for s in sessions)
        )

    async def close(self) -> None:
        await self.service.close()
        await self.router.close()

    def lent(self) -> tuple[int, int]:
        """Bodies that the router and the service lent."""
        return self.router.stats()["lent_bodies"], self.service.stats()["lent_bodies"]


def bodies() -> list[bytes]:
    return [os.urandom(size) for size in SIZES]


async def exchange(pair: Pair) -> None:
    """Send bodies of all sizes both ways; each arrives once and as it was."""
    there, back = bodies(), bodies()
    for number, body in enumerate(there):
        pair.to_service.send(BodyKind.TASK, body[:1], body[1:], number)
    for number, body in enumerate(back):
        pair.to_router.send(BodyKind.VERDICT, body[:1], body[1:], number)
    await wait_for(
        pair.reactor,
        lambda: (
            len(pair.at_router.settled) == len(there) and len(pair.at_service.settled) == len(back)
        ),
    )
    assert sorted(pair.at_service.bodies) == sorted(there)
    assert sorted(pair.at_router.bodies) == sorted(back)
    for upper in (pair.at_router, pair.at_service):
        assert {settlement for _, settlement, _ in upper.settled} == {Settlement.ACCEPTED}


@pytest.mark.parametrize("links", [LOOPBACK, ()], ids=["open", "sealed"])
def test_bodies_go_through_shared_memory(lanes: Path, links: tuple[str, ...]) -> None:
    """Those that are worth it, both ways, in open and in sealed sessions; all of it comes free."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, lanes, private_links=links)
        await pair.share()
        await exchange(pair)
        assert min(pair.lent()) > 0
        for session in (pair.to_router, pair.to_service):
            assert session.sender.departures.lane.free_bytes == LANE_BYTES
            assert session.sender.queued_bytes == 0
        await pair.close()

    run(test)


def test_without_a_door_bodies_go_in_datagrams(lanes: Path) -> None:
    """Where router and service do not meet, nothing is lent and nothing is lost."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, None)
        pair.service._lanes = lanes
        await pair.attach()
        await exchange(pair)
        assert pair.lent() == (0, 0)
        await pair.close()

    run(test)
