"""`Endpoint`: what an application sends and receives chunks with.

The shell around `endpoint_core`: it keeps one session with the router alive, moves bodies between
the hop node and the core, and turns results into promises. Everything runs on the reactor's thread.
Source: docs/reference/host.md; design, section 7 for the rooms' rules.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.header import (
    DeliveryMode,
    PayloadDigest,
    PayloadType,
    ServiceParameters,
)
from packetcloud.chunk.hop.api import (
    Body,
    Buffer,
    HopConfig,
    Neighbour,
    Refusal,
    Role,
    Settlement,
)
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID, NA, NA_UNBOUND, SID
from packetcloud.host.delivery import ChunksCallback, Delivery
from packetcloud.host.endpoint_core import (
    DEFAULT_LIFETIME_S,
    Command,
    EndpointCore,
    EndpointLimits,
    HandReport,
    RememberTaken,
)
from packetcloud.host.errors import EndpointClosedError, HostError, RouterUnreachableError
from packetcloud.host.header_template import SendOptions
from packetcloud.host.promise import Promise
from packetcloud.host.reactor import DelayedCall, Reactor
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendResult
from packetcloud.host.router_link import NodeFactory, RouterLink, admit_nobody, udp_node
from packetcloud.host.send import CancelAtHop, HandToHop, Resolve, Send, SendState
from packetcloud.host.stream import ChunkStream
from packetcloud.host.surroundings import Surroundings
from packetcloud.host.window_store import WindowStore

CLOSE_DRAIN_S = 1.0
"""How long `close()` waits for the router to take the last delivery reports."""
CLOSE_FLUSH_S = 1.0
"""For a program whose last words count: what `close` gives the router to take them."""
_log = Logger(namespace="packetcloud.host")


class Endpoint:
    """One GUID's place in the network: associated with a router, sending and receiving chunks.

    Make one with `open`. Methods that take time return a `Promise`, which both asyncio and Twisted
    coroutines can await.
    """

    def __init__(
        self,
        reactor: Reactor,
        router: tuple[str, int],
        identity: Identity,
        *,
        router_guid: GUID | None = None,
        limits: EndpointLimits | None = None,
        hop_config: HopConfig | None = None,
        state_file: Path | None = None,
        node_factory: NodeFactory | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.guid = identity.guid
        self.router = router
        self._reactor = reactor
        self._router_guid = router_guid
        self._limits = limits
        self._hop_config = hop_config or HopConfig()
        self._node_factory = node_factory or udp_node
        self._surroundings = around = surroundings or Surroundings()
        self._store: WindowStore | None = None
        if state_file is not None:
            self._store = WindowStore(state_file, around.disk)
        core_limits = limits or EndpointLimits()
        if self._store is not None:
            core_limits = _remembering(core_limits)
        self._core = EndpointCore(self.guid, around.random_u64, core_limits)
        self._node = self._node_factory(
            reactor, identity, Role.HOST, self._hop_config, self, admit_nobody
        )
        self._link = RouterLink(
            reactor,
            self._node,
            router,
            router_guid,
            self._link_up,
            self._link_down,
            around.random_share,
        )
        self._children: list[Endpoint] = []
        self._delivery = Delivery(reactor, self._pump)
        self._room_waiters: dict[int | None, deque[Promise[None]]] = {}
        """Who waits for room, by flow; None: for any."""
        self._closing_step: tuple[Callable[[], bool], Promise[None]] | None = None
        """What `close` waits for, and who is told."""
        self._timer: DelayedCall | None = None
        self._timer_due_s = 0.0
        self._pump_call: DelayedCall | None = None
        self._is_closing = False
        self._is_pumping = False
        self._counters: Counter[str] = Counter()

    @classmethod
    def open(
        cls,
        reactor: Reactor,
        router: tuple[str, int],
        identity: Identity,
        *,
        router_guid: GUID | None = None,
        limits: EndpointLimits | None = None,
        hop_config: HopConfig | None = None,
        state_file: Path | None = None,
        node_factory: NodeFactory | None = None,
        surroundings: Surroundings | None = None,
    ) -> Promise[Endpoint]:
        """Connect to `router` (host, port) and associate under the identity's GUID.

        `router_guid`: accept only this router; None accepts whoever answers there. `state_file`:
        keep the duplicate window there, so that a restart does not deliver a chunk a second time.

        Raises (when awaited):
            RouterUnreachableError: nobody answered, or not a router, or it refused us.
            HostError: the state file cannot be used.
        """
        endpoint = cls(
            reactor,
            router,
            identity,
            router_guid=router_guid,
            limits=limits,
            hop_config=hop_config,
            state_file=state_file,
            node_factory=node_factory,
            surroundings=surroundings,
        )
        return Promise.from_coroutine(endpoint._open())

    def attach(self, identity: Identity) -> Promise[Endpoint]:
        """Associate another GUID with the same router: an endpoint of its own, closed with this."""
        if self._is_closing:
            raise EndpointClosedError("the endpoint is closed")
        return Promise.from_coroutine(self._attach(identity))

    @property
    def is_connected(self) -> bool:
        """Whether the session with the router is up now. Sends are taken also while it is not."""
        return self._link.neighbour is not None

    # sending

    def send(
        self,
        destination: GUID,
        payload: Buffer,
        *,
        sid: SID | None = None,
        services: Sequence[SID] = (),
        lifetime_s: float = DEFAULT_LIFETIME_S,
        report: bool = True,
        parameters: Sequence[ServiceParameters] = (),
        payload_type: int = PayloadType.DATA,
        payload_prefix: bytes = b"",
        destination_na: NA = NA_UNBOUND,
        delivery_mode: DeliveryMode = DeliveryMode.UNICAST,
        digest: PayloadDigest | None = None,
        trace: bool = False,
    ) -> Promise[SendResult]:
        """Send `payload_prefix` ‖ `payload`; the promise is kept when it is known how it ended.

        `payload` is not copied: it must not change until then. With `report`, that is when the
        destination took it or somebody gave it up; without, when the router has custody.
        Cancelling the promise gives the chunk up. Between sends, await `writable(destination)`.

        Raises (at once):
            LocalMisuseError: zero destination, reserved SID, both `sid` and `services`, header over
                its limit, lifetime not positive.
            SendQueueFullError: too many sends wait; nothing was sent.
            EndpointClosedError: after `close`.
        """
        if sid is not None and services:
            raise LocalMisuseError("give either sid or services, not both")
        options = SendOptions(
            destination=destination,
            services=_services(sid, services),
            payload_type=payload_type,
            wants_report=report,
            wants_trace=trace,
            destination_na=destination_na,
            delivery_mode=delivery_mode,
            parameters=tuple(parameters),
            digest=digest,
        )
        return self.send_with(
            options, payload, payload_prefix=payload_prefix, lifetime_s=lifetime_s
        )

    def send_with(
        self,
        options: SendOptions,
        payload: Buffer,
        *,
        payload_prefix: bytes = b"",
        lifetime_s: float = DEFAULT_LIFETIME_S,
    ) -> Promise[SendResult]:
        """The same as `send` for callers that keep their options: faster for many small chunks."""
        if self._is_closing:
            raise EndpointClosedError("the endpoint is closed")
        promise = _SendPromise(self._cancel_send)
        promise.send = self._core.send(
            options,
            payload,
            self._reactor.seconds(),
            payload_prefix=payload_prefix,
            lifetime_s=lifetime_s,
            context=promise,
        )
        self._pump_soon()
        return promise

    def writable(
        self,
        destination: GUID | None = None,
        *,
        sid: SID | None = None,
        services: Sequence[SID] = (),
    ) -> Promise[None]:
        """Return a promise that is kept when a full chunk would go to the router at once.

        Args:
            destination: with `sid` or `services`, where the chunk would go: what waits and is bound
                for others does not count. None: no send of this endpoint waits.
        """
        flow = None
        if destination is not None:
            options = SendOptions(destination=destination, services=_services(sid, services))
            flow = self._core.flow_of(options)
        if self._core.sends.has_room(flow):
            return Promise.of(None)
        waiter: Promise[None] = Promise()
        self._room_waiters.setdefault(flow, deque()).append(waiter)
        return waiter

    # receiving

    def on_chunks(self, callback: ChunksCallback, payload_type: int | None = None) -> None:
        """Call `callback` with the chunks of each loop turn; the fast way to receive.

        `payload_type`: only such chunks; None takes those that no other callback takes.
        The callback releases each chunk when it has read it, then or later.
        """
        self._delivery.on_chunks(callback, payload_type)

    def receive(self, payload_type: int | None = None) -> ChunkStream:
        """Return an async iterator over arriving chunks: `async for chunk in endpoint.receive()`.

        A chunk counts as taken when it is released or the next one is asked for.
        """
        return self._delivery.stream(payload_type)

    # the rest

    def stats(self) -> dict[str, float | int]:
        """Return all counters and gauges of this endpoint and its hop node."""
        hop = {f"hop_{name}": value for name, value in self._node.stats().items()}
        own = {
            **self._counters,
            **self._delivery.counters,
            **self._link.counters,
            "is_connected": int(self.is_connected),
        }
        return {**self._core.stats(), **own, **hop}

    def close(self, drain_s: float = CLOSE_DRAIN_S, flush_s: float = 0.0) -> Promise[None]:
        """Give up what is outstanding, hand over the last reports, and leave the router.

        Outstanding sends end as refused(cancelled). Harmless when repeated.

        Args:
            drain_s: how long to wait for the router to take the reports.
            flush_s: how long to wait before that for it to take what was sent.
        """
        if self._is_closing:
            return Promise.of(None)
        self._is_closing = True
        return Promise.from_coroutine(self._close(drain_s, flush_s))

    # HopReceiver

    def neighbour_up(self, neighbour: Neighbour) -> None:
        self._link.neighbour_up(neighbour)

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        self._link.neighbour_down(neighbour, reason)

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Body) -> Refusal | None:
        now = self._reactor.seconds()
        outcome = self._core.body_arrived(kind, body, self._answered, now)
        if isinstance(outcome, Refusal):
            return outcome
        if outcome is not None:
            self._delivery.put(outcome)
        else:
            self._pump_soon()
        return None

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        if isinstance(token, Send) and neighbour is not self._link.neighbour:
            return  # of a session that was replaced: it counted as lost then
        self._core.settled(token, settlement, reason, self._reactor.seconds())
        self._pump_soon()

    # inside

    async def _open(self) -> Endpoint:
        if self._store is not None:
            count = self._store.load(self._core.window, self._reactor.seconds())
            _log.debug("{count} records of the duplicate window read", count=count)
        try:
            await self._link.open()
        except RouterUnreachableError:
            await self.close(0.0)
            raise
        return self

    async def _attach(self, identity: Identity) -> Endpoint:
        child = await Endpoint.open(
            self._reactor,
            self.router,
            identity,
            router_guid=self._router_guid,
            limits=self._limits,
            hop_config=self._hop_config,
            node_factory=self._node_factory,
            surroundings=self._surroundings,
        )
        self._children.append(child)
        return child

    async def _close(self, drain_s: float, flush_s: float) -> None:
        for child in self._children:
            await child.close(drain_s, flush_s)
        self._delivery.deliver()
        if flush_s > 0:
            self._pump()
            await self._wait_until(self._is_flushed, flush_s)
        self._core.sends.abandon_all(self._reactor.seconds())
        self._pump()
        await self._wait_until(self._is_drained, drain_s)
        self._delivery.finish()
        for call in (self._timer, self._pump_call):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._pump_call = None
        await self._link.close()
        if self._store is not None:
            self._store.close()

    def _link_up(self) -> None:
        self._core.link_up(self._reactor.seconds())
        self._pump()

    def _link_down(self) -> None:
        self._core.link_down(self._reactor.seconds())
        self._pump()

    async def _wait_until(self, is_done: Callable[[], bool], limit_s: float) -> None:
        """Wait for what `_pump` brings about, while there is a router to do it with."""
        if is_done() or limit_s <= 0:
            return
        waiter: Promise[None] = Promise()
        self._closing_step = is_done, waiter
        limit = self._reactor.callLater(limit_s, self._step_over)
        await waiter
        if limit.active():
            limit.cancel()

    def _step_over(self) -> None:
        if self._closing_step is not None:
            (_, waiter), self._closing_step = self._closing_step, None
            waiter.callback(None)

    def _is_flushed(self) -> bool:
        return self._link.neighbour is None or not self._core.sends.unhanded_count

    def _is_drained(self) -> bool:
        return self._link.neighbour is None or not self._core.reports_pending_count

    def _cancel_send(self, promise: Deferred[Any]) -> None:
        assert isinstance(promise, _SendPromise), "whose canceller this is"
        self._core.sends.abandon(promise.send, self._reactor.seconds())
        self._pump()

    def _answered(self, chunk: ReceivedChunk, words: str | None) -> None:
        self._core.answered(chunk, words, self._reactor.seconds())
        self._pump_soon()

    def _pump_soon(self) -> None:
        if self._pump_call is None:
            self._pump_call = self._reactor.callLater(0, self._pump)

    def _pump(self) -> None:
        """Carry out what the core wants until it wants nothing, then set the one timer."""
        call, self._pump_call = self._pump_call, None
        if call is not None and call.active():
            call.cancel()
        if self._is_pumping:
            return  # called back by what we carry out: the loop below goes on with it
        core, reactor = self._core, self._reactor
        self._is_pumping = True
        try:
            while commands := core.take_commands(reactor.seconds()):
                for command in commands:
                    self._carry_out(command)
        finally:
            self._is_pumping = False
        for flow in list(self._room_waiters):
            self._tell_room(flow)
        if self._closing_step is not None and self._closing_step[0]():
            self._step_over()
        self._set_timer()

    def _tell_room(self, flow: int | None) -> None:
        waiters = self._room_waiters[flow]
        while waiters and self._core.sends.has_room(flow):
            waiters.popleft().callback(None)
        if not waiters:
            self._room_waiters.pop(flow, None)

    def _carry_out(self, command: Command) -> None:
        neighbour = self._link.neighbour
        match command:
            case Resolve(send, result):
                promise, send.context = send.context, None
                assert isinstance(promise, Promise)
                if not promise.called:  # called already: cancelled while the hop still had it
                    promise.callback(result)
            case HandToHop(send, prefix):
                is_wanted = send.state is not SendState.RELEASING
                if neighbour is not None and neighbour.is_up and is_wanted:
                    flow = send.template.flow
                    neighbour.send(BodyKind.CHUNK, prefix, send.payload, send, flow=flow)
                elif send.in_flight:
                    now = self._reactor.seconds()
                    self._core.settled(send, Settlement.CANCELLED, 0, now)
            case CancelAtHop(send):
                if neighbour is not None and send.in_flight:
                    neighbour.cancel(send)
            case HandReport(batch, prefix, payload):
                if neighbour is not None and neighbour.is_up:
                    neighbour.send(BodyKind.CHUNK, prefix, payload, batch)
                else:
                    now = self._reactor.seconds()
                    self._core.settled(batch, Settlement.CANCELLED, 0, now)
            case RememberTaken(entries):
                self._remember(entries)

    def _remember(self, entries: tuple[tuple[bytes, int, float], ...]) -> None:
        assert self._store is not None, "remember_taken is set only with a store"
        try:
            self._store.append(entries)
            if self._store.wants_compaction:
                self._store.compact(self._core.window, self._reactor.seconds())
        except (OSError, HostError) as error:
            self._counters["state_write_failures_total"] += 1
            _log.error("the duplicate window was not stored: {error}", error=str(error))

    def _set_timer(self) -> None:
        due_s = self._core.next_timeout()
        timer = self._timer
        if timer is not None and timer.active():
            if due_s is not None and self._timer_due_s <= due_s:
                return  # it fires early and is set again then: cheaper than moving it each time
            timer.cancel()
        self._timer = None
        if due_s is not None and not self._is_closing:
            self._timer_due_s = due_s
            delay_s = max(0.0, due_s - self._reactor.seconds())
            self._timer = self._reactor.callLater(delay_s, self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        self._core.handle_timeout(self._reactor.seconds())
        self._pump()


class _SendPromise(Promise[SendResult]):
    """Knows the chunk whose result it is."""

    send: Send


def _remembering(limits: EndpointLimits) -> EndpointLimits:
    return EndpointLimits(limits.sends, limits.max_unanswered_count, remember_taken=True)


def _services(sid: SID | None, services: Sequence[SID]) -> tuple[SID, ...]:
    return (sid,) if sid is not None and not sid.is_zero else tuple(services)
