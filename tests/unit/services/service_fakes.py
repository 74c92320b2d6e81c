"""Doubles of what a service runtime stands on: a router's session, a hop node, a reactor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from packetcloud.chunk.header import ChunkHeader, ServiceParameters
from packetcloud.chunk.hop.api import Buffer, HopReceiver, Neighbour, Refusal, Role, Settlement
from packetcloud.chunk.messages import BodyKind, TaskHeader, VerdictHeader
from packetcloud.chunk.names import GUID, SID, ChunkId
from packetcloud.services.buffers import BufferPool
from packetcloud.services.parameters import Parameters
from packetcloud.services.sdk import (
    ChunkContext,
    NetworkService,
    ServiceChunk,
    ServiceContext,
    Verdict,
)
from packetcloud.services.tasks import TaskQueue
from packetcloud.services.testing import HeldBody

SERVICE_SID = SID(b"\x5e" * 20)
SOURCE = GUID(b"\xa1" * 20)
DESTINATION = GUID(b"\xb2" * 20)
ROUTER = GUID(b"\xc3" * 20)


class FakeNeighbour:
    """A router's session; sent verdicts stay unsettled until the test settles them."""

    def __init__(self) -> None:
        self.guid = ROUTER
        self.role = Role.ROUTER
        self.is_up = True
        self.address = ("192.0.2.1", 4700)
        self.queued_bytes = 0
        self.sent: list[tuple[VerdictHeader, Buffer, object]] = []

    def send(
        self,
        kind: BodyKind,
        prefix: bytes,
        payload: Buffer,
        token: object,
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        assert kind is BodyKind.VERDICT
        self.sent.append((VerdictHeader.from_bytes(prefix), payload, token))

    def send_body(
        self,
        kind: BodyKind,
        body: Any,
        token: object,
        prefix: bytes = b"",
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        raise AssertionError("a service sends verdicts only")

    def is_busy(self, flow: int) -> bool:
        return False

    def decide(self, body: Any, refusal: Refusal | None = None) -> None:
        raise AssertionError("custody is never pending here")

    def cancel(self, token: object) -> None:
        raise AssertionError("a service cancels nothing")

    def close(self, reason: str = "") -> None:
        self.is_up = False


class FakeNode:
    """A hop node whose sessions the test brings up and down."""

    def __init__(self, upper: HopReceiver) -> None:
        self.upper = upper
        self.listening: tuple[str, int] | None = None
        self.connects: list[tuple[tuple[str, int], GUID | None, Deferred[Neighbour]]] = []
        self.is_closed = False
        self.answers_soon = False

    def listen(self, host: str, port: int) -> object:
        self.listening = (host, port)
        return self.listening

    def send_now(self) -> None:
        """What is sent here is sent at once."""

    def connect(self, address: tuple[str, int], expected: GUID | None) -> Deferred[Neighbour]:
        result: Deferred[Neighbour] = Deferred()
        self.connects.append((address, expected, result))
        return result

    def close(self) -> Deferred[None]:
        self.is_closed = True
        return succeed(None)

    # What the test does

    def attach(self) -> FakeNeighbour:
        """Let the last connect succeed."""
        neighbour = FakeNeighbour()
        self.upper.neighbour_up(neighbour)
        self.connects[-1][2].callback(neighbour)
        return neighbour

    def give(self, neighbour: FakeNeighbour, body: HeldBody) -> Any:
        return self.upper.body_received(neighbour, BodyKind.TASK, body)

    def settle(self, neighbour: FakeNeighbour, index: int = -1) -> None:
        token = neighbour.sent[index][2]
        self.upper.body_settled(neighbour, token, Settlement.ACCEPTED, 0)

    def lose(self, neighbour: FakeNeighbour) -> None:
        neighbour.is_up = False
        for _, _, token in neighbour.sent:
            self.upper.body_settled(neighbour, token, Settlement.LOST, 0)
        neighbour.sent.clear()
        self.upper.neighbour_down(neighbour, "test")


class FakeReactor(Clock):
    """Twisted's clock, and what else a runtime asks of a reactor."""

    def resolve(self, name: str) -> Deferred[str]:
        return succeed("192.0.2.1" if name == "router.example" else name)

    def callFromThread(self, call: Callable[..., None], *args: object) -> None:
        self.callLater(0, call, *args)


class FunctionService(NetworkService):
    """A service whose `process` is a function; remembers its life."""

    def __init__(self, function: Callable[[ServiceChunk, ChunkContext], Any]) -> None:
        self.function = function
        self.calls: list[str] = []
        self.state = b""

    def start(self, context: ServiceContext) -> None:
        self.calls.append("start")

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        self.calls.append("process")
        verdict: Verdict = self.function(chunk, context)
        return verdict

    def stop(self) -> None:
        self.calls.append("stop")

    def export_state(self) -> bytes:
        return self.state

    def import_state(self, state: bytes) -> None:
        self.state = state


def task_body(
    payload: bytes = b"payload",
    *,
    task_id: int = 1,
    deadline_ms: int = 1000,
    parameters: tuple[ServiceParameters, ...] = (),
) -> HeldBody:
    """Return the body of a task as a router sends it."""
    header = ChunkHeader(
        SOURCE,
        DESTINATION,
        ChunkId(task_id),
        len(payload),
        sid=SERVICE_SID,
        parameters=parameters,
    )
    return HeldBody(TaskHeader(task_id, deadline_ms).to_bytes() + header.to_bytes() + payload)


def make_queue(
    *, ratio: float = 2.0, largest_bytes: int = (1 << 20) + 1008
) -> tuple[TaskQueue, BufferPool]:
    """Return a task queue for a service without parameters, and its pool."""
    pool = BufferPool(largest_bytes)
    context = ServiceContext(SERVICE_SID, Parameters({}), logging.getLogger("test.service"))
    numbers = iter(range(100, 1_000_000))
    return TaskQueue(context, pool, ratio, lambda: next(numbers)), pool
