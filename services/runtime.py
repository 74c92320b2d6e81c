"""Shell: one service on one hop node, attached to one router.

Bodies in, verdicts out, one timer for the next attempt to attach; what a task or an attachment
needs is decided in `tasks` and `attachment`. Reactor, node and randomness are arguments.
"""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred, ensureDeferred

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.hop.api import Body, HopReceiver, Neighbour, Refusal, Settlement
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID, SID
from packetcloud.chunk.reasons import Reason
from packetcloud.services.attachment import Attachment, Command, Connect, RetryAt
from packetcloud.services.buffers import BufferPool
from packetcloud.services.errors import ServiceConfigError, ServiceMisuseError
from packetcloud.services.execution import (
    SLOW_PROCESS_NS,
    CoroutineExecution,
    Execution,
    InlineExecution,
    Outcome,
    ProcessCalls,
    ThreadExecution,
)
from packetcloud.services.files import write_private_file
from packetcloud.services.launch import ExecutionMode, LaunchSpec
from packetcloud.services.parameters import Parameters
from packetcloud.services.sdk import NetworkService, ServiceContext
from packetcloud.services.tasks import PAYLOAD_HEADROOM_BYTES, Answer, Task, TaskQueue

DRAIN_TIMEOUT_S = 5.0
"""An orderly end waits so long for tasks in hand and for their verdicts to be settled."""
QUICK_PROCESS_NS = 2_000_000
"""Whoever is done so soon may acknowledge a task with its verdict: an ACK may take 5 ms."""
MAX_STATE_BYTES = 64 << 20
"""Largest state that is imported from a file."""


class HopNodeLike(Protocol):
    """What is needed of `chunk.hop.udp.HopNode`."""

    def listen(self, host: str, port: int) -> object: ...
    def connect(self, address: tuple[str, int], expected: GUID | None) -> Awaitable[Neighbour]: ...
    def send_now(self) -> None: ...

    answers_soon: bool

    def close(self) -> Awaitable[object]: ...


MakeNode = Callable[[HopReceiver], HopNodeLike]


class ServiceRuntime:
    """Runs `service` for the router that `spec` names, until `stop`.

    Args:
        reactor: Twisted's, with a monotonic clock.
        make_node: makes the hop node that calls this object back.
        random_bytes: the system's random source, or a seeded one in tests.
        on_change: called when the service is attached or detached, and at its first verdict.
        nanoseconds: what `process` is timed with.
    """

    def __init__(
        self,
        reactor: Any,
        spec: LaunchSpec,
        service: NetworkService,
        sid: SID,
        make_node: MakeNode,
        random_bytes: Callable[[int], bytes] = os.urandom,
        on_change: Callable[[], None] = lambda: None,
        nanoseconds: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._reactor = reactor
        self._spec = spec
        self._service = service
        self._random_bytes = random_bytes
        self._on_change = on_change
        self._log = logging.getLogger(f"packetcloud.service.{spec.name}")
        self._context = ServiceContext(sid, Parameters(spec.parameters), self._log, spec.listen)
        self._pool = BufferPool(spec.max_payload_bytes + PAYLOAD_HEADROOM_BYTES)
        self.tasks = TaskQueue(
            self._context, self._pool, spec.max_expansion_ratio, self._random_chunk_id
        )
        self.attachment = Attachment()
        self._calls = ProcessCalls(service, self._log, nanoseconds)
        self._execution = self._first_execution()
        self._neighbour: Neighbour | None = None
        self._has_answered = False
        self._retry: Any = None
        self._idle_waiter: Deferred[None] | None = None
        self._last_connect_error = ""
        self._busy_mark = (reactor.seconds(), 0)
        """When the status was asked for last, and the processing time until then."""
        self._node = make_node(self)

    def start(self) -> None:
        """Start the service, bind the hop node, and begin to attach.

        Raises:
            ServiceConfigError: the service refuses its configuration.
        """
        self._service.start(self._context)
        self._import_state()
        host = self._spec.router_host
        self._node.listen("::" if ":" in host else "0.0.0.0", 0)
        self._follow(self.attachment.start())

    async def stop(self) -> None:
        """Finish the tasks in hand, send their verdicts, stop the service, close the node."""
        self.tasks.is_draining = True
        self._cancel_retry()
        await self._until_idle()
        self.attachment.close()
        self._execution.stop()
        try:
            self._service.stop()
            self._export_state()
        finally:
            await self._node.close()

    async def export_state(self) -> bytes:
        """Return the service's state as it is between two chunks; it goes on serving afterwards.

        Who wants nothing lost sees to it first that no task comes: the router holds them, and says
        when it has every verdict. That we have not heard of it yet is nothing to wait for.

        Raises:
            ServiceMisuseError: tasks in hand did not end in time, or the state is too large.
        """
        if not self.tasks.is_at_rest:
            await self._until_idle()
        if not self.tasks.is_at_rest:
            raise ServiceMisuseError(
                f"{self.tasks.in_hand_count} tasks in hand did not end within {DRAIN_TIMEOUT_S:g} s"
            )
        state = self._service.export_state()
        if len(state) > MAX_STATE_BYTES:
            raise ServiceMisuseError(
                f"its state has {len(state)} bytes; allowed: {MAX_STATE_BYTES}"
            )
        return state

    def import_state(self, state: bytes) -> None:
        """Give the service the state of a predecessor; before its first chunk."""
        self._service.import_state(state)

    def status(self) -> dict[str, Any]:
        """Return what `service list` and the supervisor show, as JSON values."""
        now = self._reactor.seconds()
        tasks = self.tasks
        return {
            "attachment": self.attachment.state.value,
            "attached_count": self.attachment.attached_count,
            "connect_error": self._last_connect_error,
            "taken": tasks.taken_count,
            "answered": {code.name.lower(): count for code, count in tasks.answered.items()},
            "dropped": dict(tasks.drops),
            "refused": {reason.word: count for reason, count in tasks.refused.items()},
            "abandoned": tasks.abandoned_count,
            "expired": tasks.expired_count,
            "waiting": tasks.waiting_count,
            "longest_waiting_s": round(tasks.longest_waiting_s(now), 3),
            "in_hand": tasks.in_hand_count,
            "longest_in_hand_s": round(tasks.longest_in_hand_s(now), 3),
            "processing_s": tasks.processing_ns / 1e9,
            "busy_share": self._busy_share(now),
            "output_buffers": self._pool.allocated_count,
            "execution": type(self._execution).__name__.removesuffix("Execution").lower(),
        }

    # HopReceiver

    def neighbour_up(self, neighbour: Neighbour) -> None:
        # Inbound neighbours are not admitted, so this is the router that we asked for.
        self._neighbour = neighbour
        self._last_connect_error = ""
        self._follow(self.attachment.connected(self._reactor.seconds()))
        self._log.info("attached to router %s at %s:%d", neighbour.guid.short, *neighbour.address)
        self._on_change()

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        if neighbour is not self._neighbour:
            return
        self._neighbour = None
        self.tasks.abandon(neighbour)
        if self.tasks.is_draining:
            self._log.info("detached from router %s", neighbour.guid.short)
        else:
            self._log.warning("router %s is gone: %s", neighbour.guid.short, reason)
        self._follow(self.attachment.lost(self._reactor.seconds(), self._random()))
        self._on_change()
        self._check_idle()

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Body) -> Refusal | None:
        if kind is not BodyKind.TASK:
            return Refusal(Reason.UNSUPPORTED)
        reason = self.tasks.admit(body, neighbour, self._reactor.seconds())
        if reason is not None:
            return Refusal(reason)
        self._execution.wake()
        return None

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        if isinstance(token, Answer):
            self.tasks.settle(token)
            if self.tasks.waiting_count:  # a full window of verdicts may have held them up
                self._execution.wake()
            self._check_idle()

    # Tasks

    def _take(self) -> Task | None:
        """Return the next task to run, answering on the way those whose deadline passed."""
        while True:
            taken = self.tasks.take(self._reactor.seconds())
            if not isinstance(taken, Answer):
                return taken
            self._send(self._neighbour, taken)

    def _conclude(self, task: Task, outcome: Outcome, elapsed_ns: int) -> None:
        self._node.answers_soon = elapsed_ns < QUICK_PROCESS_NS
        if task.owner is not self._neighbour:
            self.tasks.discard(task)
            self._check_idle()
        else:
            self._send(task.owner, self.tasks.conclude(task, outcome, elapsed_ns))
            if not self._has_answered:
                self._has_answered = True
                self._on_change()
        if elapsed_ns > SLOW_PROCESS_NS:
            self._move_to_worker(elapsed_ns)

    def _send(self, neighbour: Neighbour | None, answer: Answer) -> None:
        if neighbour is None or not neighbour.is_up:
            self.tasks.settle(answer)
        else:
            neighbour.send(
                BodyKind.VERDICT, answer.prefix, answer.payload, answer, flow=answer.flow
            )

    def _first_execution(self) -> Execution:
        if inspect.iscoroutinefunction(self._service.process):
            return CoroutineExecution(
                self._calls, self._take, self._conclude, self._spec.concurrency
            )
        if self._spec.execution == ExecutionMode.THREAD:
            return ThreadExecution(self._reactor, self._calls, self._take, self._conclude)
        # The node is made last, and calls nobody before it listens.
        return InlineExecution(
            self._reactor, self._calls, self._take, self._conclude, lambda: self._node.send_now()
        )

    def _move_to_worker(self, elapsed_ns: int) -> None:
        is_inline = isinstance(self._execution, InlineExecution)
        if not is_inline or self._spec.execution != ExecutionMode.AUTO:
            return
        self._log.warning(
            "one chunk took %.1f s: from now on `process` runs in a worker thread, so that the "
            "router hears from us meanwhile",
            elapsed_ns / 1e9,
        )
        self._execution.stop()
        self._execution = ThreadExecution(self._reactor, self._calls, self._take, self._conclude)
        self._execution.wake()

    def _busy_share(self, now: float) -> float:
        """Return the share of the time since the last status that went into `process`."""
        (then, before_ns), self._busy_mark = self._busy_mark, (now, self.tasks.processing_ns)
        spent_s = (self.tasks.processing_ns - before_ns) / 1e9
        return round(min(1.0, spent_s / (now - then)), 3) if now > then else 0.0

    async def _until_idle(self) -> None:
        """Wait until no task is in hand and no verdict under way, but not for ever."""
        if self.tasks.is_idle:
            return
        self._idle_waiter = Deferred()
        timer = self._reactor.callLater(DRAIN_TIMEOUT_S, self._drained)
        await self._idle_waiter
        if timer.active():
            timer.cancel()

    def _check_idle(self) -> None:
        if self._idle_waiter is not None and self.tasks.is_idle:
            self._drained()

    def _drained(self) -> None:
        waiter, self._idle_waiter = self._idle_waiter, None
        if waiter is not None:
            waiter.callback(None)

    # Attachment

    def _follow(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Connect():
                    ensureDeferred(self._connect())
                case RetryAt(time_s):
                    delay = max(0.0, time_s - self._reactor.seconds())
                    self._retry = self._reactor.callLater(delay, self._retry_due)

    def _retry_due(self) -> None:
        self._retry = None
        self._follow(self.attachment.retry_due())

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def _connect(self) -> None:
        spec = self._spec
        expected = GUID.from_hex(spec.router_guid) if spec.router_guid else None
        try:
            host = spec.router_host
            if ":" not in host:  # Twisted's resolver knows IPv4 addresses and names only
                host = await self._reactor.resolve(host)
            await self._node.connect((host, spec.router_port), expected)
        except (PacketCloudError, OSError) as error:
            if str(error) != self._last_connect_error:
                self._last_connect_error = str(error)
                self._log.warning(
                    "cannot attach to %s:%d, trying again: %s",
                    spec.router_host,
                    spec.router_port,
                    error,
                )
            self._follow(self.attachment.failed(self._reactor.seconds(), self._random()))
            self._on_change()

    # State

    def _import_state(self) -> None:
        path = Path(self._spec.state_file) if self._spec.state_file else None
        if path is None or not path.exists():
            return
        if path.stat().st_size > MAX_STATE_BYTES:
            raise ServiceConfigError(f"state file {path} is over {MAX_STATE_BYTES} bytes")
        self._service.import_state(path.read_bytes())

    def _export_state(self) -> None:
        if not self._spec.state_file:
            return
        write_private_file(Path(self._spec.state_file), self._service.export_state())

    def _random(self) -> float:
        return int.from_bytes(self._random_bytes(4), "big") / (1 << 32)

    def _random_chunk_id(self) -> int:
        return int.from_bytes(self._random_bytes(8), "big")
