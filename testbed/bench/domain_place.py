"""A domain of an experiment: its database, its tenants' keys, and controllers as processes.

Controllers are those that operators run (`packetcloud domain run`); what an operator would have
told them is written into their database before. Cloudlets are reports: nobody answers offers.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from packetcloud.chunk.identity import Identity
from packetcloud.domain_controller.core.cloudlets import Cloudlet, CloudletReport, NodeReport
from packetcloud.domain_controller.core.money import Currency
from packetcloud.domain_controller.core.prices import Price, PriceList
from packetcloud.domain_controller.core.principals import Key, Principal, Role
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import DAY_MS, HOUR_MS
from packetcloud.domain_controller.state import catalogue, registry, reports
from packetcloud.domain_controller.state.booking import World
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.writer import Writer
from packetcloud.testbed.bench.domain_clients import Address
from packetcloud.testbed.private_postgresql import PrivatePostgresql
from packetcloud.testbed.processes import Child, Children, packetcloud_command

DATABASES = ("sqlite", "postgresql")
TENANTS_COUNT = 64
CLOUDLETS_COUNT = 8
NODES_COUNT = 10
RACE_PLACES = 50
RACE = "race"
"""The cloudlet that has as many places as are raced for."""
START_WITHIN_S = 60.0
SMALL = ViType("small", Resources(1000, 1 << 30, 1 << 30))
VI_HOUR = Price(4000, HOUR_MS)
CHUNK = Price(3, 1000)
BYTE = Price(5, 1 << 20)
_ROOM = SMALL.resources.times(1000)
NODES = tuple(NodeReport(f"n{number}", _ROOM, available=_ROOM) for number in range(NODES_COUNT))
_CONFIG = """\
[domain]
name = "bench"
database = "{database}"
[api]
listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
[[operator]]
name = "noc"
public_key = "{public_key}"
"""


def _run(config: Path) -> Sequence[str]:
    return packetcloud_command("--format", "json", "--quiet", "domain", "run", config)


@dataclass(frozen=True, slots=True)
class Controller:
    """A running controller."""

    child: Child
    address: Address


class DomainPlace:
    """A domain whose database is filled.

    Args:
        url: of an empty database.
        folder: for files of its controllers.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.tenants = [Identity.generate() for _ in range(TENANTS_COUNT)]
        self._operator = Identity.generate()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        fill(url, bench_world(CLOUDLETS_COUNT, has_race=True), self.tenants)

    def start(
        self, children: Children, name: str, program: Callable[[Path], Sequence[str]] = _run
    ) -> Controller:
        """Start a controller; return once it listens.

        Args:
            program: returns the command for a config file.

        Raises:
            ChildError: it did not start.
        """
        config = self._folder / f"{name}.toml"
        key = self._operator.public_key.hex()
        config.write_text(_CONFIG.format(database=self.url, public_key=key))
        child = children.start(name, program(config))
        parts = urlsplit(child.wait_document(START_WITHIN_S)["api"])
        assert parts.hostname is not None and parts.port is not None
        return Controller(child, (parts.hostname, parts.port))


@dataclass(frozen=True, slots=True)
class EmptyDatabases:
    """Makes databases of one kind, each for one experiment.

    Args:
        server: where `kind` is "postgresql".
    """

    kind: str
    folder: Path
    server: PrivatePostgresql | None = None

    def make(self) -> str:
        """Return the URL of a new database."""
        if self.server is not None:
            return self.server.make_database()
        folder = self.folder / secrets.token_hex(4)
        folder.mkdir(parents=True)
        return f"sqlite:///{folder.absolute()}/domain.sqlite3"


def fill(url: str, world: World, tenants: Sequence[Identity] = ()) -> None:
    """Write everything that a controller knows of a world into its database."""
    database = Database(url)
    writer = Writer(database, now_ms)
    try:
        writer.do_blocking(partial(_fill, world, tenants))
        some = list(world.reports.values())
        for start in range(0, len(some), reports.MAX_WRITTEN_COUNT):
            part = some[start : start + reports.MAX_WRITTEN_COUNT]
            writer.do_blocking(partial(_write_reports, part))
    finally:
        writer.close()
        database.close()


def bench_world(
    cloudlets_count: int, nodes: tuple[NodeReport, ...] = NODES, *, has_race: bool = False
) -> World:
    """Return cloudlets with room for everything that is asked, and a price list."""
    names = [f"c{number}" for number in range(cloudlets_count)]
    later_ms = now_ms() + DAY_MS  # so that no report is too old for an offer meanwhile
    known = {name: CloudletReport(name, 1, later_ms, nodes) for name in names}
    if has_race:
        room = SMALL.resources.times(RACE_PLACES)
        known[RACE] = CloudletReport(RACE, 1, later_ms, (NodeReport("n0", room, available=room),))
    return World(
        {SMALL.name: SMALL},
        PriceList("bench", 1, Currency("EUR"), {1: VI_HOUR}, CHUNK, BYTE),
        {name: Cloudlet(name, "bench") for name in known},
        known,
    )


def tenant_name(number: int) -> str:
    """Return the name of a tenant by its number."""
    return f"t{number}"


def now_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _fill(world: World, tenants: Sequence[Identity], transaction: Transaction) -> None:
    for vi_type in world.types.values():
        registry.put_vi_type(transaction, vi_type)
    catalogue.put_price_list(transaction, world.prices, transaction.now_ms)
    for cloudlet in world.cloudlets.values():
        registry.add_cloudlet(transaction, cloudlet)
    for number in range(TENANTS_COUNT):
        registry.add_principal(transaction, Principal(tenant_name(number), Role.TENANT))
    until_ms = transaction.now_ms + DAY_MS
    for number, one in enumerate(tenants):
        name = tenant_name(number)
        key = Key(one.guid.hex, name, one.public_key, transaction.now_ms, until_ms)
        registry.add_key(transaction, key)


def _write_reports(some: list[CloudletReport], transaction: Transaction) -> None:
    reports.write(transaction, some)
