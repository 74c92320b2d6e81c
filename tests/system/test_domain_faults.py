"""Faults below a whole controller: a process that is asked over signed HTTP, all the while.

Whatever happens to its disk, its database or itself: what a client was told is kept, and stored
once; errors are problems that say when to ask again; it goes on without an operator.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from packetcloud.testbed.bench.domain_clients import Client, Trouble
from packetcloud.testbed.bench.domain_place import RACE, RACE_PLACES, DomainPlace, now_ms
from packetcloud.testbed.bench.domain_races import judge_races, make_clients
from packetcloud.testbed.bench.failover import Load, judge_failover, stored_wishes
from packetcloud.testbed.private_postgresql import PrivatePostgresql, quick_parent
from packetcloud.testbed.processes import Child, Children
from tests.system.domain_databases import sqlite_url
from tests.system.test_domain_disks import Disk, disk
from tests.system.test_domain_writer import until

__all__ = ["disk"]
HOUR_MS = 3600 * 1000
CLIENTS_COUNT = 8
SOME = 3 * CLIENTS_COUNT
STALL_S = 5.0
SEED = 23
STEPS = ("written", "committed", "answered")
"""Before and after the commit, and when answers are on their way."""
pytestmark = pytest.mark.timeout(240)
needs_disk = pytest.mark.needs("mkfs.ext4", "mount", "umount")


class World:
    """A controller, and clients that ask it until there is an answer."""

    def __init__(self, url: str, folder: Path, children: Children) -> None:
        self.place = DomainPlace(url, folder)
        self._children = children
        self._starts_count = 0
        self._addresses: list[tuple[str, int]] = []
        self.clients = make_clients(self.place, self._addresses)[:CLIENTS_COUNT]
        self.child = self.start()
        self.load = Load(self.clients)

    def start(self, step: str = "", count: int = 0) -> Child:
        """Start a controller in the place of the one before; with a step it dies there."""
        self._starts_count += 1
        name = f"controller-{self._starts_count}"
        if step:
            program = (sys.executable, "-m", "tests.system.killed_domain_controller")
            started = self.place.start(
                self._children, name, lambda config: (*program, str(config), step, str(count))
            )
        else:
            started = self.place.start(self._children, name)
        self._addresses[:] = [started.address]
        self.child = started.child
        return started.child

    @property
    def told_count(self) -> int:
        return sum(len(client.journal) for client in self.clients)

    @property
    def troubles(self) -> list[Trouble]:
        return [one for client in self.clients for one in client.troubles]

    def goes_on(self) -> None:
        """Wait until clients get answers, each of them some."""
        goal = self.told_count + SOME
        until(lambda: self.told_count >= goal or not self.load.is_alive())

    def judge(self) -> None:
        """End, and compare what clients were told with what is stored."""
        self.load.end()
        assert self.child.stop() == 0
        told = [one for client in self.clients for one in client.journal]
        assert judge_failover(told, stored_wishes(self.place.url)) == (0, 0)
        for one in self.troubles:
            assert (one.status, one.kind) in ((503, "busy"), (503, "outcome-unknown")), one
            assert one.retry_after is not None and 1 <= int(one.retry_after) <= 60


@contextmanager
def world_on(url: str, folder: Path) -> Iterator[World]:
    with Children() as children:
        yield World(url, folder, children)


@pytest.mark.root
@needs_disk
def test_a_full_disk(disk: Disk, tmp_path: Path) -> None:
    """Who asks is told that it is full; there is room again, and it goes on."""
    with world_on(sqlite_url(disk.mounted), tmp_path / "controller") as world:
        world.goes_on()
        with disk.full(left_bytes=64 << 10):
            until(lambda: any("disk is full" in one.body for one in world.troubles))
        world.goes_on()
        world.judge()


@pytest.mark.root
@needs_disk
def test_a_power_cut(disk: Disk, tmp_path: Path) -> None:
    """What is on the disk after it is what clients were told before it; the next one goes on."""
    with world_on(sqlite_url(disk.mounted), tmp_path / "controller") as world:
        world.goes_on()
        disk.cut()
        world.child.signal(signal.SIGKILL)
        world.child.stop()
        disk.mount_again()
        world.start()
        world.goes_on()
        world.judge()


def test_a_database_that_is_restarted_and_stalled(tmp_path: Path) -> None:
    """PostgreSQL crashes and is away until clients are told so; later it stops for 5 s."""
    with (
        PrivatePostgresql(quick_parent()) as server,
        world_on(server.make_database(), tmp_path) as world,
    ):
        world.goes_on()
        server.kill()
        until(lambda: len(world.troubles) >= CLIENTS_COUNT)  # each waits as long as it may
        server.start()
        world.goes_on()
        server.pause()
        try:
            stopped_s = time.monotonic()
            before = world.told_count
            until(lambda: time.monotonic() > stopped_s + STALL_S)
            assert world.told_count <= before + CLIENTS_COUNT, "somebody was answered meanwhile"
        finally:
            server.go_on()
        world.goes_on()
        world.judge()


def test_kills_at_each_step(tmp_path: Path) -> None:
    """SIGKILL before the commit of requests, after it, and with their answers on their way."""
    chance = random.Random(SEED)
    with world_on(sqlite_url(tmp_path), tmp_path / "controller") as world:
        world.goes_on()
        world.child.signal(signal.SIGKILL)
        world.child.stop()
        for step in STEPS:
            dying = world.start(step, chance.randint(5, 20))
            until(lambda dying=dying: not dying.is_running)  # type: ignore[misc]
            assert dying.stop() == -signal.SIGKILL
        world.start()
        world.goes_on()
        world.judge()


def test_one_of_two_controllers_is_killed_in_a_race(
    postgresql: PrivatePostgresql, tmp_path: Path
) -> None:
    """64 clients at two controllers want 50 places, three times; one is killed within the second
    race. As many are accepted as there are, each key has one answer, and each is stored once."""
    place = DomainPlace(postgresql.make_database(), tmp_path)
    with Children() as children:
        running = [place.start(children, name) for name in "ab"]
        clients = make_clients(place, [one.address for one in running])
        begin_ms = now_ms() + HOUR_MS
        races = threading.Thread(target=lambda: asyncio.run(_races(clients, begin_ms)))
        races.start()
        until(lambda: sum(len(one.journal) for one in clients) > 3 * len(clients))
        running[1].child.signal(signal.SIGKILL)
        races.join()
        told = [one for client in clients for one in client.journal]
        found = judge_races(told, RACE_PLACES)
        assert found.is_right and found.rounds == 3, found
        assert {one.tries_count for one in told} > {1}, "nobody asked the one that was killed"
        assert judge_failover(told, stored_wishes(place.url)) == (0, 0)


async def _races(clients: Sequence[Client], begin_ms: int) -> None:
    """Have each of them ask twice in each race, for the answer to be the same."""
    for number in range(3):
        start_ms = begin_ms + number * HOUR_MS

        async def go(client: Client, number: int = number, start_ms: int = start_ms) -> None:
            for _ in range(2):
                await client.reserve(f"race-{number:08}", start_ms, start_ms + HOUR_MS, RACE)

        await asyncio.gather(*map(go, clients))
    for client in clients:
        client.hang_up()
