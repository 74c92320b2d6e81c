"""A router's table behind the router's own API and rules, without a router: VIs are what tests say.

Updates are decoded, checked and put in force by the router's code; only tasks and attachments are
made up.
"""

from __future__ import annotations

import asyncio

import httpx
from fastapi import FastAPI

from packetcloud.chunk.names import SID
from packetcloud.cloudlet.router_client import RouterClient
from packetcloud.router.cloudlet_api import add_table_paths
from packetcloud.router.cloudlet_schemas import (
    EvidenceReport,
    IdleAnswer,
    ServiceReport,
    TableRefusal,
    TableReport,
    Update,
    UpdateAnswer,
    ViReport,
)
from packetcloud.router.cloudlet_table import CloudletTable, Refusal, ServiceEntry, ViEntry, ViState
from packetcloud.router.errors import TableUnavailableError
from packetcloud.router.schemas import Durations

_NO_DURATIONS = Durations(count=0, sum_s=0.0, p50_s=0.0, p99_s=0.0)


class CloudletRouter:
    """What a controller sees of a router."""

    def __init__(self) -> None:
        self.table = CloudletTable()
        self.boot_id = "boot-1"
        self.is_up = True
        self.token = "t" * 32
        self.tasks: dict[int, int] = {}
        """By instance."""
        self.detached: set[int] = set()
        """Instances that have no session."""
        self.waiting = 0
        self.violations: dict[int, int] = {}
        self.refused: dict[str, Refusal] = {}
        """By SID: items that are not taken."""
        self.history: list[CloudletTable] = []
        """Every version that was in force."""
        self._changed = asyncio.Event()
        app = FastAPI()
        add_table_paths(app, lambda: self)
        self._transport = httpx.ASGITransport(app=app)

    def client(self, controller: str = "c1") -> RouterClient:
        transport = _Switch(self, self._transport)
        return RouterClient("http://router", controller, self.token, transport)

    def change(self) -> None:
        """Let those who wait look again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def vis(self, sid: str) -> dict[int, ViEntry]:
        """Return the VIs of a service, by instance."""
        entry = self.table.services.get(SID.from_hex(sid).value)
        return {vi.instance: vi for vi in entry.vis} if entry is not None else {}

    async def until(self, condition: object) -> None:
        """Wait until something makes it true."""
        assert callable(condition)
        async with asyncio.timeout(30):
            while not condition():
                await self._changed.wait()

    # TableAccess

    def authorise(self, authorization: str | None) -> None:
        if authorization != f"Bearer {self.token}":
            raise TableUnavailableError(401, "a token, please")

    async def put(self, update: Update) -> UpdateAnswer:
        def why_not(sid: SID, name: str) -> Refusal | None:
            return self.refused.get(sid.hex)

        self.table = self.table.apply(update.to_update(), why_not)
        self.history.append(self.table)
        self.change()
        return UpdateAnswer.of(self.table)

    def report(self) -> TableReport:
        return TableReport(
            boot_id=self.boot_id,
            controller=self.table.controller,
            epoch=self.table.epoch,
            version=self.table.version,
            problem="",
            services=[self._service(entry) for entry in self.table.services.values()],
        )

    async def idle(self, sid: SID, instance: int, timeout_s: float) -> IdleAnswer:
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    answer = self._idle(sid, instance)
                    if answer.idle or answer.state is not ViState.HELD:
                        return answer
                    await self._changed.wait()
        except TimeoutError:
            return self._idle(sid, instance)

    def refusal(self, reason: str, detail: str) -> TableRefusal:
        table = self.table
        return TableRefusal(
            reason=reason,
            detail=detail,
            controller=table.controller,
            epoch=table.epoch,
            version=table.version,
        )

    def _idle(self, sid: SID, instance: int) -> IdleAnswer:
        vi = self.vis(sid.hex).get(instance)
        if vi is None:
            raise TableUnavailableError(404, "the table does not list it")
        tasks = self._tasks_of(instance)
        return IdleAnswer(
            idle=not vi.state.serves and not tasks,
            attached=instance not in self.detached,
            state=vi.state,
            tasks=tasks,
            tasks_bytes=0,
            boot_id=self.boot_id,
            epoch=self.table.epoch,
            version=self.table.version,
        )

    def _tasks_of(self, instance: int) -> int:
        return 0 if instance in self.detached else self.tasks.get(instance, 0)

    def _service(self, entry: ServiceEntry) -> ServiceReport:
        return ServiceReport(
            sid=entry.sid.hex,
            name=entry.settings.name,
            priority=entry.settings.priority,
            waiting=self.waiting,
            waiting_bytes=0,
            oldest_waiting_s=2.5 if self.waiting else None,
            held_slots=[],
            verdicts={},
            violations={},
            delay_penalty=_NO_DURATIONS,
            vis=[self._vi(vi) for vi in entry.vis],
        )

    def _vi(self, vi: ViEntry) -> ViReport:
        count = self.violations.get(vi.instance, 0)
        return ViReport(
            instance=vi.instance,
            owner_epoch=vi.owner_epoch,
            slot=vi.slot,
            state=vi.state,
            attached=vi.instance not in self.detached,
            number=None if vi.instance in self.detached else 1,
            tasks=self._tasks_of(vi.instance),
            tasks_bytes=0,
            waiting=0,
            waiting_bytes=0,
            to_chunks=0,
            to_bytes=0,
            from_chunks=0,
            from_bytes=0,
            verdicts={},
            violations={"output": count} if count else {},
            evidence=[
                EvidenceReport(
                    kind="output", source="c" * 40, chunk_id=count, ago_s=0.5, text="too much"
                )
            ][: min(count, 1)],
            delay_penalty=_NO_DURATIONS,
        )


class _Switch(httpx.AsyncBaseTransport):
    """The way to a router that may be off."""

    def __init__(self, router: CloudletRouter, inner: httpx.AsyncBaseTransport) -> None:
        self._router = router
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self._router.is_up:
            raise httpx.ConnectError("nobody listens")
        return await self._inner.handle_async_request(request)
