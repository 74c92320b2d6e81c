"""A whole router daemon with hosts and VIs around it, on loopback sockets in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, ensureDeferred

from packetcloud.chunk.header import ChunkHeader, PayloadType, ServiceSequence, decode_header
from packetcloud.chunk.hop.api import Body, HopConfig, Neighbour, Refusal, Role, Settlement
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity, create_identity_file
from packetcloud.chunk.messages import (
    TASK_BYTES,
    BodyKind,
    DeliveryReport,
    TaskHeader,
    VerdictCode,
    VerdictHeader,
    decode_reports,
)
from packetcloud.chunk.names import GUID, SID, SID_SEQUENCE, SID_ZERO, ChunkId
from packetcloud.chunk.reasons import Reason
from packetcloud.router.config import RouterConfig
from packetcloud.router.daemon import RouterDaemon
from packetcloud.router.state import format_address

LIMIT_S = 60.0


def run(test: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on a reactor of its own."""
    loop = asyncio.new_event_loop()
    try:
        reactor = AsyncioSelectorReactor(loop)

        async def main() -> None:
            # Begun inside the loop: the management API makes its task on the running one.
            deferred: Deferred[None] = ensureDeferred(test(reactor))
            await asyncio.wait_for(deferred.asFuture(loop), LIMIT_S)

        loop.run_until_complete(main())
    finally:
        loop.close()


class Host:
    """An end host: a hop node that keeps what arrives."""

    role = Role.HOST

    def __init__(self, reactor: Any, identity: Identity | None = None) -> None:
        self.identity = identity or Identity.generate()
        self.node = HopNode(reactor, self.identity, self.role, HopConfig(), self)
        self.received: list[tuple[ChunkHeader, bytes]] = []
        self.reports: list[DeliveryReport] = []
        self.settled: dict[int, tuple[Settlement, int]] = {}
        """By chunk id: what the router said at its door."""
        self.router: Neighbour | None = None
        self._next_id = 1

    @property
    def guid(self) -> GUID:
        return self.identity.guid

    async def attach(self, address: tuple[str, int]) -> None:
        self.node.listen("127.0.0.1", 0)
        self.router = await self.node.connect(address)

    def send(self, to: GUID, payload: bytes = b"payload", *services: SID, **changes: Any) -> int:
        """Send a chunk that wants a report; return its id."""
        assert self.router is not None
        number, self._next_id = self._next_id, self._next_id + 1
        values: dict[str, Any] = {
            "source": self.guid,
            "destination": to,
            "chunk_id": ChunkId(number),
            "payload_bytes": len(payload),
            "sid": services[0] if len(services) == 1 else SID_SEQUENCE if services else SID_ZERO,
            "sequence": ServiceSequence(services) if len(services) > 1 else None,
            "lifetime_ms": 30_000,
            "wants_report": True,
        }
        header = ChunkHeader(**(values | changes))
        self.router.send(BodyKind.CHUNK, header.to_bytes(), payload, number)
        return number

    def has(self, count: int) -> bool:
        """Tell whether so many chunks have come."""
        return len(self.received) >= count

    def ids(self) -> list[int]:
        return [header.chunk_id.value for header, _ in self.received]

    def told(self, number: int) -> Reason | None:
        """What this host knows of its chunk's end: the door's refusal, or a report's reason."""
        settlement, reason = self.settled.get(number, (None, 0))
        if settlement is Settlement.REFUSED:
            return Reason(reason)
        return next((Reason(r.reason) for r in self.reports if r.chunk_id.value == number), None)

    def neighbour_up(self, neighbour: Neighbour) -> None:
        self.router = neighbour

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        if self.router is neighbour:
            self.router = None

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Body) -> Refusal | None:
        data = bytes(body.contiguous())
        header = decode_header(data)
        payload = data[int.from_bytes(data[2:4], "big") :]
        if header.payload_type == PayloadType.REPORT:
            self.reports += decode_reports(payload)
        else:
            self.received.append((header, payload))
        body.release()
        return None

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        assert isinstance(token, int)
        self.settled[token] = (settlement, reason)


class FakeVi(Host):
    """A VI that appends `mark` to every payload, or keeps its tasks while `is_hung`."""

    role = Role.SERVICE

    def __init__(
        self, reactor: Any, identity: Identity, mark: bytes = b"", instance: int = 0
    ) -> None:
        super().__init__(reactor, identity)
        self.node = HopNode(reactor, identity, self.role, HopConfig(instance=instance), self)
        self.mark = mark
        self.is_hung = False
        self.tasks: list[tuple[int, bytes]] = []
        """Task id and payload of every task, answered or not."""

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Body) -> Refusal | None:
        assert kind is BodyKind.TASK
        data = bytes(body.contiguous())
        body.release()
        task = TaskHeader.from_bytes(data)
        header_bytes = int.from_bytes(data[TASK_BYTES + 2 : TASK_BYTES + 4], "big")
        payload = data[TASK_BYTES + header_bytes :]
        self.tasks.append((task.task_id, payload))
        if not self.is_hung:
            self.answer(task.task_id, payload)
        return None

    def answer(self, task_id: int, payload: bytes) -> None:
        assert self.router is not None
        code = VerdictCode.UPDATE if self.mark else VerdictCode.FORWARD
        header = VerdictHeader(task_id, code, 1000).to_bytes()
        self.router.send(BodyKind.VERDICT, header, payload + self.mark if self.mark else b"", 0)


class Network:
    """Routers and what is attached to them; `close` checks that every sum holds."""

    def __init__(self, reactor: Any, folder: Path) -> None:
        self.reactor = reactor
        self.folder = folder
        self.routers: list[RouterDaemon] = []
        self.ends: list[Host] = []

    def key(self, name: str) -> Identity:
        return create_identity_file(self.folder / f"{name}.key")

    def config(self, name: str, text: str = "", na: int = 1, router: str = "") -> Path:
        """Write the config of a router whose key file exists."""
        path = self.folder / f"{name}.toml"
        path.write_text(
            f'[router]\nname = "{name}"\nkey_file = "{name}.key"\nna = {na}\n'
            f'listen = "127.0.0.1:0"\ncontrol_listen = "127.0.0.1:0"\n{router}\n{text}\n'
        )
        return path

    def start(self, path: Path) -> RouterDaemon:
        daemon = RouterDaemon(self.reactor, RouterConfig.load(path))
        daemon.startService()
        self.routers.append(daemon)
        return daemon

    def router(self, text: str = '[services]\nunlisted = "accept"', **more: Any) -> RouterDaemon:
        """Start a router with a new key."""
        name = f"r{len(self.routers) + 1}"
        self.key(name)
        return self.start(self.config(name, text, **more))

    async def host(self, router: RouterDaemon, identity: Identity | None = None) -> Host:
        return await self._attach(Host(self.reactor, identity), router)

    async def vi(
        self, router: RouterDaemon, identity: Identity, mark: bytes = b"", instance: int = 0
    ) -> FakeVi:
        vi = FakeVi(self.reactor, identity, mark, instance)
        await self._attach(vi, router)
        return vi

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when the condition holds; fail after 20 s."""
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, "condition did not come true"
            pause: Deferred[None] = Deferred()
            self.reactor.callLater(0.005, pause.callback, None)
            await pause

    async def close(self) -> None:
        for daemon in self.routers:
            assert daemon.core.book.conservation()["balance"] == 0
        for end in self.ends:
            await end.node.close()
        for daemon in self.routers:
            await daemon.stopService()

    async def _attach(self, end: Host, router: RouterDaemon) -> Host:
        assert router.hop.address is not None
        await end.attach(router.hop.address)
        self.ends.append(end)
        return end


class ManagementClient:
    """Asks the management API of a router in this process."""

    def __init__(self, router: RouterDaemon) -> None:
        self._url = f"http://{format_address(router.management.address)}"

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.begin(method, path, **more)

    def begin(self, method: str, path: str, **more: Any) -> Deferred[httpx.Response]:
        """Ask, and let the answer come when it will."""

        async def request() -> httpx.Response:
            async with httpx.AsyncClient(base_url=self._url, timeout=30) as client:
                return await client.request(method, path, **more)

        return Deferred.fromFuture(asyncio.ensure_future(request()))


def kill(end: Host) -> None:
    """End a node as SIGKILL would: its socket is gone, nobody hears a farewell."""
    end.node.abandon()
