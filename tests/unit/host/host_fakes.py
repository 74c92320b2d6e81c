"""An in-memory network for the endpoint: hop nodes without sockets and a router that can misbehave.

One seed drives every fault; the clock is Twisted's `task.Clock`. Verbs: `lose`, `refuse`, `break_`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.header import ChunkHeader, PayloadType, decode_header
from packetcloud.chunk.hop.api import HopConfig, Refusal, Role, Settlement
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind, DeliveryReport, Outcome, encode_reports
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.chunk.reasons import Reason
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.promise import Promise

ROUTER_ADDRESS = ("127.0.0.1", 4700)


class FakeBody:
    """A received body whose release is checked."""

    flow = 0

    def __init__(self, data: bytes) -> None:
        self._data: bytearray | None = bytearray(data)
        self._size = len(data)

    def __len__(self) -> int:
        return self._size

    def head(self, count: int) -> bytes:
        assert self._data is not None, "read after release"
        return bytes(self._data[:count])

    def patch(self, offset: int, data: bytes) -> None:
        assert self._data is not None
        self._data[offset : offset + len(data)] = data

    def contiguous(self) -> memoryview:
        assert self._data is not None, "read after release"
        return memoryview(self._data)

    def look(self, at: Callable[[memoryview], Any]) -> Any:
        return at(self.contiguous())

    def release(self) -> None:
        self._data = None


@dataclass
class Faults:
    """Probabilities per chunk, and delays in seconds."""

    lose: float = 0.0
    """The router takes custody and forgets the chunk: the sender's own retry must heal it."""
    duplicate: float = 0.0
    settle_lost: float = 0.0
    """The hop says LOST; half of these chunks go on all the same."""
    refuse: float = 0.0
    """With STORE_FULL, which the source retries."""
    break_session: float = 0.0
    """The session ends while the chunk is under way."""
    delay_s: tuple[float, float] = (0.001, 0.02)


@dataclass(eq=False)
class FakeNeighbour:
    """A host's side of its session with the fake router."""

    node: FakeNode
    router: FakeRouter
    guid: GUID
    role: Role
    is_up: bool = True
    pending: dict[int, object] = field(default_factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        return self.router.address

    @property
    def queued_bytes(self) -> int:
        return 0

    def send(
        self,
        kind: BodyKind,
        prefix: bytes,
        payload: Any,
        token: object,
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        assert self.is_up, "sent on a session that ended"
        assert id(token) not in self.pending, "one token, two bodies"
        self.pending[id(token)] = token
        self.router.from_host(self, kind, bytes(prefix) + bytes(payload), token)

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
        self.send(kind, prefix, body.contiguous(), token)

    def is_busy(self, flow: int) -> bool:
        return False

    def decide(self, body: Any, refusal: Refusal | None = None) -> None:
        raise AssertionError("custody is never pending here")

    def cancel(self, token: object) -> None:
        self.settle(token, Settlement.CANCELLED)

    def settle(self, token: object, settlement: Settlement, reason: int = 0) -> bool:
        if self.pending.pop(id(token), None) is None:
            return False
        self.node.receiver.body_settled(self, token, settlement, reason)
        return True

    def close(self, reason: str = "") -> None:
        if self.is_up:
            self.is_up = False
            for token in list(self.pending.values()):
                self.settle(token, Settlement.LOST)
            self.router.detach(self)
            self.node.receiver.neighbour_down(self, reason)


class FakeNode:
    """What `HopNode` is to an endpoint; connects to a `FakeRouter` by its address."""

    def __init__(
        self,
        world: World,
        identity: Identity,
        receiver: Any,
    ) -> None:
        self.world = world
        self.identity = identity
        self.receiver = receiver
        self.neighbour: FakeNeighbour | None = None
        self.is_closed = False

    def listen(self, host: str, port: int) -> tuple[str, int]:
        return host, 1

    async def connect(self, address: tuple[str, int], expected: GUID | None) -> FakeNeighbour:
        waited: Deferred[None] = Deferred()
        self.world.clock.callLater(0.01, waited.callback, None)
        await waited
        router = self.world.router
        if self.is_closed or address != router.address or not router.is_running:
            raise PacketCloudError("no answer")
        if expected is not None and expected != router.guid:
            raise PacketCloudError(f"it is {router.guid.short}")
        self.neighbour = FakeNeighbour(self, router, router.guid, router.role)
        router.attach(self.identity.guid, self.neighbour)
        self.receiver.neighbour_up(self.neighbour)
        return self.neighbour

    async def close(self) -> None:
        self.is_closed = True
        if self.neighbour is not None:
            self.neighbour.close("node closed")

    def stats(self) -> dict[str, float | int]:
        return {"fake": 1}


class FakeRouter:
    """Forwards chunks by destination GUID among attached hosts, with faults."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self.clock = clock
        self.rng = rng
        self.guid = Identity(b"\x05" * 32).guid
        self.role = Role.ROUTER
        self.address = ROUTER_ADDRESS
        self.faults = Faults()
        self.is_running = True
        self.hosts: dict[GUID, FakeNeighbour] = {}
        self.seen: list[ChunkHeader] = []
        self.refuse_with: Callable[[ChunkHeader], int] | None = None
        self.change_payload: Callable[[ChunkHeader, bytes], bytes] | None = None
        self.drop_data: Callable[[ChunkHeader], bool] | None = None

    def attach(self, guid: GUID, neighbour: FakeNeighbour) -> None:
        old = self.hosts.get(guid)
        self.hosts[guid] = neighbour
        if old is not None and old.is_up:
            old.close("replaced")

    def detach(self, neighbour: FakeNeighbour) -> None:
        for guid, known in list(self.hosts.items()):
            if known is neighbour:
                del self.hosts[guid]

    def stop(self) -> None:
        """Go away without a word; whatever it held is gone."""
        self.is_running = False
        for neighbour in list(self.hosts.values()):
            neighbour.close("no answer")

    def from_host(
        self, neighbour: FakeNeighbour, kind: BodyKind, data: bytes, token: object
    ) -> None:
        delay_s = self.rng.uniform(*self.faults.delay_s)
        self.clock.callLater(delay_s, self._arrived, neighbour, data, token)

    def _arrived(self, neighbour: FakeNeighbour, data: bytes, token: object) -> None:
        if not neighbour.is_up or id(token) not in neighbour.pending:
            return
        header = decode_header(data)
        self.seen.append(header)
        faults, rng = self.faults, self.rng
        if self.refuse_with is not None and (reason := self.refuse_with(header)):
            neighbour.settle(token, Settlement.REFUSED, reason)
            return
        if rng.random() < faults.refuse:
            neighbour.settle(token, Settlement.REFUSED, Reason.STORE_FULL)
            return
        if rng.random() < faults.break_session:
            if rng.random() < 0.5:
                self._forward(header, data)
            neighbour.close("broken")
            return
        if rng.random() < faults.settle_lost:
            if rng.random() < 0.5:
                self._forward(header, data)
            neighbour.settle(token, Settlement.LOST)
            return
        neighbour.settle(token, Settlement.ACCEPTED)
        if self.drop_data is not None and self.drop_data(header):
            return
        if rng.random() >= faults.lose:
            self._forward(header, data)
        if rng.random() < faults.duplicate:
            self._forward(header, data)

    def _forward(self, header: ChunkHeader, data: bytes) -> None:
        delay_s = self.rng.uniform(*self.faults.delay_s)
        self.clock.callLater(delay_s, self._deliver, header, data)

    def _deliver(self, header: ChunkHeader, data: bytes) -> None:
        if not self.is_running:
            return
        host = self.hosts.get(header.destination)
        if host is None:
            self.report(header, Outcome.REFUSED, Reason.UNRESOLVABLE_GUID, "not attached here")
            return
        if self.change_payload is not None and header.payload_type != PayloadType.REPORT:
            header_bytes = int.from_bytes(data[2:4], "big")
            payload = self.change_payload(header, data[header_bytes:])
            data = data[:16] + len(payload).to_bytes(4, "big") + data[20:header_bytes] + payload
        body = FakeBody(data)
        refusal = host.node.receiver.body_received(host, BodyKind.CHUNK, body)
        if isinstance(refusal, Refusal):
            self.report(header, Outcome.REFUSED, refusal.reason, "by the destination")

    def report(self, header: ChunkHeader, outcome: Outcome, reason: int, detail: str) -> None:
        """Tell the source of `header` how its chunk ended, as a custodian does."""
        host = self.hosts.get(header.source)
        if host is None or not header.wants_report:
            return
        payload = encode_reports([DeliveryReport(header.chunk_id, outcome, reason, detail)])
        report = ChunkHeader(
            source=self.guid,
            destination=header.source,
            chunk_id=ChunkId(self.rng.getrandbits(64)),
            payload_bytes=len(payload),
            payload_type=PayloadType.REPORT,
        )
        body = FakeBody(report.to_bytes() + payload)
        host.node.receiver.body_received(host, BodyKind.CHUNK, body)


class World:
    """A clock, a router and as many endpoints as a test wants."""

    def __init__(self, seed: int = 1) -> None:
        self.clock = WorldClock()
        self.rng = random.Random(seed)
        self.router = FakeRouter(self.clock, self.rng)
        self.nodes: list[FakeNode] = []

    def factory(
        self,
        reactor: Any,
        identity: Identity,
        role: Role,
        config: HopConfig,
        receiver: Any,
        admit: Any,
    ) -> FakeNode:
        node = FakeNode(self, identity, receiver)
        self.nodes.append(node)
        return node

    def endpoint(self, number: int, **options: Any) -> Endpoint:
        """Open an endpoint with a fixed key and wait until it is connected."""
        promise = self.open(number, **options)
        return self.run(promise)

    def open(self, number: int, **options: Any) -> Promise[Endpoint]:
        identity = identity_of(number)
        options.setdefault("node_factory", self.factory)
        return Endpoint.open(self.clock, ROUTER_ADDRESS, identity, **options)  # type: ignore[arg-type]  # a fake

    def run(self, promise: Deferred[Any], limit_s: float = 300.0) -> Any:
        """Move the clock until `promise` is kept, and return its value."""
        results: list[Any] = []
        promise.addBoth(results.append)
        self.until(lambda: bool(results), limit_s)
        value = results[0]
        if hasattr(value, "raiseException"):
            value.raiseException()
        return value

    def until(self, condition: Callable[[], bool], limit_s: float = 300.0) -> None:
        """Move the clock from event to event until `condition` holds."""
        end_s = self.clock.seconds() + limit_s
        while not condition():
            calls = self.clock.getDelayedCalls()
            assert calls, "nothing will ever happen any more"
            next_s = min(call.getTime() for call in calls)
            assert next_s <= end_s, f"condition not met within {limit_s} s"
            self.clock.advance(max(0.0, next_s - self.clock.seconds()))

    def advance(self, seconds: float) -> None:
        """Move the clock on by `seconds`, event by event."""
        end_s = self.clock.seconds() + seconds
        while True:
            calls = [call.getTime() for call in self.clock.getDelayedCalls()]
            if not calls or min(calls) > end_s:
                break
            self.clock.advance(max(0.0, min(calls) - self.clock.seconds()))
        self.clock.advance(max(0.0, end_s - self.clock.seconds()))


class WorldClock(Clock):
    """The clock with the rest of what an endpoint asks of a reactor; threads run at once."""

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)

    def getThreadPool(self) -> InlinePool:
        return InlinePool()


class InlinePool:
    """A thread pool without threads."""

    def callInThreadWithCallback(
        self, done: Callable[[bool, Any], None], function: Callable[..., Any], *args: Any
    ) -> None:
        try:
            result = function(*args)
        except Exception as error:  # told to `done`, as a thread pool does
            from twisted.python.failure import Failure

            done(False, Failure(error))
        else:
            done(True, result)


def identity_of(number: int) -> Identity:
    """Return the fixed identity number `number` of the tests."""
    return Identity(bytes([number]) * 32)
