"""Both ends of the cloudlet's table, joined by the router's API: nothing between them is made up.

The controller's end is its `RouterTable` and `RouterClient`, the router's its `TableService` on a
core and a folder; bodies pass as the bytes that they would be on a wire.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from packetcloud.chunk.names import SID
from packetcloud.cloudlet.core import commands as do
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.core.table import Entry, RouterTable, entry_of
from packetcloud.cloudlet.core.values import ServiceWish
from packetcloud.cloudlet.router_client import RouterClient
from packetcloud.router.cloudlet_api import add_table_paths
from packetcloud.router.cloudlet_schemas import ServiceItem
from packetcloud.router.settings import RouterSettings
from packetcloud.router.table_service import TableService
from tests.unit.router.cloudlet_tables import with_table
from tests.unit.router.router_fakes import FakeNetwork

TOKEN = "t" * 32
FULL = {
    "priority": 7,
    "fail_policy": "open",
    "deadline_ms": 4321,
    "grace_s": 3.5,
    "max_attempts": 7,
    "keeps_flows": True,
    "rules_from": "anyone",
    "max_output_ratio": 3.0,
    "allowed_destinations": ["c" * 40, 12],
    "verdicts": ["forward", "drop"],
    "output_bytes_ratio": 4.0,
    "output_chunks_ratio": 2.5,
    "inspection": {"one_in": 10, "snap_bytes": 32, "keep_mib": 2},
}
"""Every key of a service besides its names and VIs that a controller writes."""


def sid_of(number: int) -> str:
    return f"{number:040x}"


def wish(number: int, name: str = "", **entry: Any) -> ServiceWish:
    """A service whose SID is `number`."""
    named = {"name": name or f"service-{number}", **entry}
    return ServiceWish(named["name"], sid_of(number), "small", router_entry=named)


def vi(instance: int, slot: int = 0, owner_epoch: int = 1, **changes: Any) -> Vi:
    values = {"slot": slot, "owner_epoch": owner_epoch} | changes
    return Vi(instance, "any", "small", "n1", instance, "token", instance, **values)


def entry(number: int, *vis: Vi, held: tuple[int, ...] = (), **changes: Any) -> Entry:
    return entry_of(wish(number, **changes), vis, frozenset(held))


class Ends:
    """One controller and one router.

    Attributes:
        notes: what the controller says to people.
        stepped_down: why it ended; empty: it did not.
        bodies: what went to the router.
    """

    def __init__(self, folder: Path, settings: RouterSettings | None = None) -> None:
        self.folder = folder
        self.settings = settings or with_table()
        self.now = 1000.0
        self.notes: list[str] = []
        self.stepped_down = ""
        self.bodies: list[bytes] = []
        self.loses_next_answer = False
        self._boots = 0
        self.start_router()
        self.start_controller(epoch=1, version=0)

    # The router

    def start_router(self) -> None:
        """Begin a life of the router with what is in its folder."""
        self._boots += 1
        self.net = FakeNetwork(self.settings)
        self.service = TableService(
            self.folder,
            self.net.core,
            lambda: self.net.now,
            lambda: None,
            lambda services: None,
            TOKEN,
            f"boot-{self._boots}",
        )
        self.service.open()
        app = FastAPI()
        add_table_paths(app, lambda: self.service)
        self._app = httpx.ASGITransport(app=app)

    def restart_router(self, *, loses_its_folder: bool = False) -> None:
        self.service.close()
        if loses_its_folder:
            for path in self.folder.iterdir():
                path.unlink()
        self.start_router()

    def configure_router(self, settings: RouterSettings) -> None:
        self.net.core.configure(settings, self.net.now)

    def close(self) -> None:
        self.service.close()

    @property
    def in_force(self) -> dict[str, dict[str, Any]]:
        """What the router goes by, as the schema of the API has it, by SID."""
        cloudlet = self.net.core.cloudlet
        assert cloudlet is not None
        return {
            one.sid.hex: ServiceItem.of(one).model_dump(mode="json")
            for one in cloudlet.table.services.values()
        }

    def attach(self, number: int, instance: int) -> Any:
        return self.net.vi(SID.from_hex(sid_of(number)), instance)

    # The controller

    def start_controller(self, epoch: int, version: int, name: str = "c1") -> None:
        """Begin a life of the controller with what its database says."""
        self.table = RouterTable(epoch, version)
        self.client = self.another_client(name)
        self.stepped_down = ""

    def another_client(self, name: str = "c1", token: str | None = TOKEN) -> RouterClient:
        return RouterClient("http://router", name, token, _Way(self))

    async def want(self, *entries: Entry) -> None:
        """Have the controller want exactly these, and do all that follows."""
        wanted = {str(one["sid"]): one for one in entries}
        await self._follow(self.table.want(wanted, self.now))

    async def look(self) -> saw.RouterSeen | saw.RouterSilent:
        """Have the controller look what the router has, and do all that follows."""
        seen = await self.client.look()
        if isinstance(seen, saw.RouterSeen):
            await self._follow(self.table.seen(seen, self.now))
        return seen

    async def pass_time(self, seconds: float) -> None:
        """Let time pass for the controller."""
        self.now += seconds
        await self._follow(self.table.due(self.now))

    async def _follow(self, commands: list[do.Command]) -> None:
        for _ in range(10):
            if not commands or self.stepped_down:
                return
            following: list[do.Command] = []
            for command in commands:
                match command:
                    case do.PushTable():
                        event = await self.client.push(command)
                        if isinstance(event, saw.TableAnswered):
                            following += self.table.answered(event, self.now)
                        else:
                            self.notes.append(event.text)
                            following += self.table.unanswered(event, self.now)
                    case do.Note(text):
                        self.notes.append(text)
                    case do.StepDown(text):
                        self.stepped_down = text
                    case _:
                        raise AssertionError(f"a table says {command}")
            commands = following
        raise AssertionError("ten updates one after the other: the two ends do not agree")

    async def settle(self) -> None:
        """Look until nothing follows from it."""
        for _ in range(5):
            before = len(self.bodies)
            await self.look()
            if len(self.bodies) == before:
                return
        raise AssertionError("the two ends do not come to rest")


class _Way(httpx.AsyncBaseTransport):
    """The way to the router's API, on which an answer can get lost."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        ends = self._ends
        body = await request.aread()
        if body:
            ends.bodies.append(body)
        response = await ends._app.handle_async_request(
            httpx.Request(request.method, request.url, headers=request.headers, content=body)
        )
        if ends.loses_next_answer:
            ends.loses_next_answer = False
            raise httpx.ReadTimeout("no answer")
        return response
