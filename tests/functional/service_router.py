"""The router's side of a service, for tests: gives tasks and takes verdicts over a real hop."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.hop.api import HopConfig, Neighbour, Refusal, Role, Settlement
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind, TaskHeader, VerdictHeader
from packetcloud.chunk.names import GUID, SID, ChunkId

SOURCE = GUID(b"\xa1" * 20)
DESTINATION = GUID(b"\xb2" * 20)


class TaskRouter:
    """Admits services, gives them tasks one by one or many at once, and keeps their verdicts."""

    def __init__(self, reactor: Any) -> None:
        self.identity = Identity.generate()
        self.services: list[Neighbour] = []
        self.verdicts: dict[int, tuple[VerdictHeader, bytes]] = {}
        self.refused: dict[int, int] = {}
        self.attached_count = 0
        self.on_change: list[Deferred[None]] = []
        self._reactor = reactor
        self._task_id = 0
        self._node = HopNode(reactor, self.identity, Role.ROUTER, HopConfig(), self)

    def start(self, port: int = 0) -> str:
        host, port = self._node.listen("127.0.0.1", port)
        return f"{host}:{port}"

    async def stop(self) -> None:
        await self._node.close()

    def give(self, payload: bytes, *, deadline_ms: int = 5000, sid: SID | None = None) -> int:
        """Send one task to the service that attached last; return its id."""
        self._task_id += 1
        service = self.services[-1]
        header = ChunkHeader(
            SOURCE,
            DESTINATION,
            ChunkId(self._task_id),
            len(payload),
            sid=sid or SID(service.guid.value),
        )
        prefix = TaskHeader(self._task_id, deadline_ms).to_bytes() + header.to_bytes()
        service.send(BodyKind.TASK, prefix, payload, self._task_id)
        return self._task_id

    async def until(self, condition: Any, timeout_s: float = 20.0) -> None:
        """Wait until `condition()` holds, looking whenever something happened here."""
        deadline = self._reactor.seconds() + timeout_s
        while not condition():
            left = deadline - self._reactor.seconds()
            assert left > 0, "the condition did not come true in time"
            waiter: Deferred[None] = Deferred()
            self.on_change.append(waiter)
            timer = self._reactor.callLater(min(left, 0.2), self._changed)
            await waiter
            if timer.active():
                timer.cancel()

    async def verdict(self, payload: bytes, **options: Any) -> tuple[VerdictHeader, bytes]:
        """Give one task and return its verdict."""
        task_id = self.give(payload, **options)
        await self.until(lambda: task_id in self.verdicts)
        return self.verdicts[task_id]

    # HopReceiver

    def neighbour_up(self, neighbour: Neighbour) -> None:
        self.services.append(neighbour)
        self.attached_count += 1
        self._changed()

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        self.services = [item for item in self.services if item is not neighbour]
        self._changed()

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Any) -> Refusal | None:
        assert kind is BodyKind.VERDICT
        data = bytes(body.contiguous())
        body.release()
        header = VerdictHeader.from_bytes(data)
        assert header.task_id not in self.verdicts, "two verdicts for one task"
        self.verdicts[header.task_id] = (header, data[header.encoded_bytes :])
        self._changed()
        return None

    def body_settled(
        self, neighbour: Neighbour, token: Any, settlement: Settlement, reason: int
    ) -> None:
        if settlement is Settlement.REFUSED:
            self.refused[token] = reason
            self._changed()

    def _changed(self) -> None:
        waiting, self.on_change = self.on_change, []
        for waiter in waiting:
            waiter.callback(None)
