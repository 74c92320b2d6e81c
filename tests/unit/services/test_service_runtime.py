"""The runtime's shell on a fake hop node and a clock: attach, process, drain."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.hop.api import Refusal
from packetcloud.chunk.messages import BodyKind, VerdictCode
from packetcloud.chunk.reasons import Reason
from packetcloud.services import execution
from packetcloud.services.execution import (
    CoroutineExecution,
    InlineExecution,
    Outcome,
    ProcessCalls,
    ThreadExecution,
)
from packetcloud.services.launch import ExecutionMode, LaunchSpec
from packetcloud.services.runtime import DRAIN_TIMEOUT_S, ServiceRuntime
from packetcloud.services.sdk import ChunkContext, NetworkService, ServiceChunk, Verdict
from packetcloud.services.tasks import Task
from packetcloud.services.testing import HeldBody
from tests.unit.services.service_fakes import (
    ROUTER,
    SERVICE_SID,
    FakeNeighbour,
    FakeNode,
    FakeReactor,
    FunctionService,
    make_queue,
    task_body,
)


class Bench:
    """A runtime with everything around it."""

    def __init__(self, service: NetworkService, **spec: Any) -> None:
        values: dict[str, Any] = {
            "name": "tested",
            "version": "1.0.0",
            "entry_point": "x:X",
            "key_file": "/k",
            "router_host": "router.example",
            "router_port": 4700,
        }
        self.reactor = FakeReactor()
        self.changes = 0
        self.runtime = ServiceRuntime(
            self.reactor,
            LaunchSpec(**(values | spec)),
            service,
            SERVICE_SID,
            self._make_node,
            random_bytes=lambda count: b"\x80" + bytes(count - 1),
            on_change=self._changed,
        )

    def _make_node(self, upper: Any) -> FakeNode:
        self.node = FakeNode(upper)
        return self.node

    def _changed(self) -> None:
        self.changes += 1

    def attached(self) -> FakeNeighbour:
        self.runtime.start()
        return self.node.attach()

    def turn(self) -> None:
        """Let what is due now run."""
        self.reactor.advance(0)


def upper(chunk: ServiceChunk, context: ChunkContext) -> Verdict:
    return Verdict.update(bytes(chunk.payload).upper())


def test_it_attaches_to_the_router_that_it_was_given() -> None:
    """The name is resolved, the expected GUID handed on, the status says attached."""
    bench = Bench(FunctionService(upper), router_guid=ROUTER.hex)
    bench.runtime.start()
    ((address, expected, _),) = bench.node.connects
    assert address == ("192.0.2.1", 4700)
    assert expected == ROUTER
    assert bench.runtime.status()["attachment"] == "connecting"
    bench.node.attach()
    assert bench.runtime.status()["attachment"] == "attached"
    assert bench.changes == 1


def test_a_task_is_processed_and_its_verdict_sent() -> None:
    """Body in, verdict out, buffers given back when the router has it."""
    bench = Bench(FunctionService(upper))
    router = bench.attached()
    body = task_body(b"hello", task_id=7)
    assert bench.node.give(router, body) is None
    bench.turn()
    ((head, payload, _),) = router.sent
    assert (head.task_id, head.code, bytes(payload)) == (7, VerdictCode.UPDATE, b"HELLO")
    assert head.processing_ns > 0
    assert body.is_released
    bench.node.settle(router)
    assert bench.runtime.tasks.is_idle
    assert bench.runtime.status()["answered"] == {"update": 1}


def test_the_first_verdict_is_told_at_once_and_no_later_one() -> None:
    """Who looks at the start of a service need not wait for its next status."""
    bench = Bench(FunctionService(upper))
    router = bench.attached()
    before = bench.changes
    for task_id in (1, 2):
        assert bench.node.give(router, task_body(b"x", task_id=task_id)) is None
        bench.turn()
        assert bench.changes == before + 1
        assert bench.runtime.status()["answered"] == {"update": task_id}


def test_anything_but_a_task_is_refused() -> None:
    """A service takes no plain chunks."""
    bench = Bench(FunctionService(upper))
    router = bench.attached()
    got = bench.runtime.body_received(router, BodyKind.CHUNK, task_body())
    assert got == Refusal(Reason.UNSUPPORTED)
    cut = HeldBody(task_body().contiguous()[:20])
    assert bench.node.give(router, cut) == Refusal(Reason.MALFORMED)


@pytest.mark.parametrize("error", [ValueError("bad luck"), MemoryError(), SystemExit(3)])
def test_whatever_process_raises_becomes_a_failed_verdict(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """The router gets the text; the log gets the traceback once, not once per chunk."""

    def fail(chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        raise error

    bench = Bench(FunctionService(fail))
    router = bench.attached()
    for number in range(3):
        bench.node.give(router, task_body(task_id=number))
    bench.turn()
    assert [head.code for head, _, _ in router.sent] == [VerdictCode.FAILED] * 3
    assert type(error).__name__.encode() in router.sent[0][0].detail
    assert len([r for r in caplog.records if "process failed" in r.message]) == 1


def test_a_result_that_is_no_verdict_is_a_failure() -> None:
    """A forgotten `return`, for one."""
    bench = Bench(FunctionService(lambda chunk, context: None))
    router = bench.attached()
    bench.node.give(router, task_body())
    bench.turn()
    assert router.sent[0][0].detail == b"TypeError: process returned NoneType, no Verdict"


def test_a_task_that_waited_past_its_deadline_is_not_processed() -> None:
    """It is answered FAILED, and `process` never sees it."""
    service = FunctionService(upper)
    bench = Bench(service)
    router = bench.attached()
    bench.node.give(router, task_body(deadline_ms=100))
    bench.reactor.rightNow += 0.2
    bench.turn()
    assert service.calls == ["start"]
    assert router.sent[0][0].code is VerdictCode.FAILED
    assert bench.runtime.status()["expired"] == 1


def test_many_small_tasks_leave_the_reactor_its_turn() -> None:
    """After 2 ms of processing the rest waits for the next turn, so that the hop is heard."""
    service = FunctionService(upper)
    bench = Bench(service)
    router = bench.attached()

    def slow(chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        bench.reactor.rightNow += execution.SLICE_S / 2
        return Verdict.forward()

    service.function = slow
    for number in range(5):
        bench.node.give(router, task_body(task_id=number))
    (call,) = [call for call in bench.reactor.getDelayedCalls() if call.getTime() <= 0]
    run_slice = call.func
    call.cancel()
    run_slice()
    assert len(router.sent) == 2
    bench.turn()
    assert len(router.sent) == 5


def test_it_attaches_again_when_the_router_was_gone() -> None:
    """Failures are logged when they change, tried again with growing delays, and end well."""
    bench = Bench(FunctionService(upper))
    bench.runtime.start()
    bench.node.connects[-1][2].errback(PacketCloudError("nobody there"))
    assert bench.runtime.status()["connect_error"] == "nobody there"
    assert len(bench.node.connects) == 1
    bench.reactor.advance(0.2)
    assert len(bench.node.connects) == 2
    router = bench.node.attach()
    assert bench.runtime.status()["connect_error"] == ""
    bench.reactor.advance(60)
    bench.node.lose(router)
    bench.turn()
    assert len(bench.node.connects) == 3


def test_tasks_of_a_lost_router_are_not_processed() -> None:
    """It gave them to another VI already."""
    service = FunctionService(upper)
    bench = Bench(service)
    router = bench.attached()
    body = task_body()
    bench.node.give(router, body)
    bench.node.lose(router)
    bench.turn()
    assert service.calls == ["start"]
    assert body.is_released
    assert bench.runtime.status()["abandoned"] == 1


def test_stopping_finishes_the_tasks_in_hand() -> None:
    """SIGTERM: new tasks are refused, waiting ones processed, verdicts settled, then the end."""
    service = FunctionService(upper)
    bench = Bench(service)
    router = bench.attached()
    bench.node.give(router, task_body())
    stopped = ensureDeferred(bench.runtime.stop())
    assert bench.node.give(router, task_body()) == Refusal(Reason.SHUTTING_DOWN)
    bench.turn()
    assert len(router.sent) == 1
    assert not bench.node.is_closed
    bench.node.settle(router)
    assert stopped.called
    assert bench.node.is_closed
    assert service.calls == ["start", "process", "stop"]
    assert bench.reactor.getDelayedCalls() == []


def test_stopping_does_not_wait_for_ever() -> None:
    """A router that never settles a verdict holds nobody up for longer than 5 s."""
    bench = Bench(FunctionService(upper))
    router = bench.attached()
    bench.node.give(router, task_body())
    bench.turn()
    stopped = ensureDeferred(bench.runtime.stop())
    bench.reactor.advance(DRAIN_TIMEOUT_S - 0.1)
    assert not stopped.called
    bench.reactor.advance(0.2)
    assert stopped.called


def test_stopping_while_the_router_is_away_ends_at_once() -> None:
    """The timer of the next attempt goes too."""
    bench = Bench(FunctionService(upper))
    bench.runtime.start()
    bench.node.connects[-1][2].errback(PacketCloudError("nobody there"))
    assert ensureDeferred(bench.runtime.stop()).called
    assert bench.reactor.getDelayedCalls() == []


def test_state_is_imported_at_the_start_and_exported_at_the_end(tmp_path: Path) -> None:
    """A successor goes on where its predecessor stopped; the file is its owner's alone."""
    path = tmp_path / "state"
    first = FunctionService(upper)
    bench = Bench(first, state_file=str(path))
    bench.attached()
    first.state = b"counted 42"
    ensureDeferred(bench.runtime.stop())
    assert path.stat().st_mode & 0o777 == 0o600
    second = FunctionService(upper)
    Bench(second, state_file=str(path)).attached()
    assert second.state == b"counted 42"


def test_a_slow_service_moves_into_a_worker_thread(caplog: pytest.LogCaptureFixture) -> None:
    """One chunk over a second: from then on the hop's keepalives no longer wait for `process`."""
    bench = Bench(FunctionService(upper))
    router = bench.attached()
    bench.node.give(router, task_body())
    bench.turn()
    assert bench.runtime.status()["execution"] == "inline"
    bench.runtime._conclude(_taken(bench, router), Verdict.forward(), execution.SLOW_PROCESS_NS + 1)
    assert bench.runtime.status()["execution"] == "thread"
    assert any("worker thread" in record.message for record in caplog.records)
    ensureDeferred(bench.runtime.stop())


def test_an_inline_service_stays_where_its_manifest_says() -> None:
    """`execution = "inline"` is not second-guessed."""
    bench = Bench(FunctionService(upper), execution=ExecutionMode.INLINE)
    router = bench.attached()
    bench.node.give(router, task_body())
    bench.runtime._conclude(_taken(bench, router), Verdict.forward(), execution.SLOW_PROCESS_NS + 1)
    assert bench.runtime.status()["execution"] == "inline"


def _taken(bench: Bench, router: FakeNeighbour) -> Task:
    bench.node.give(router, task_body())
    task = bench.runtime._take()
    assert task is not None
    return task


# Where `process` runs


def outcomes_of(
    make: Callable[[Callable[[], Task | None], Callable[[Task, Outcome, int], None]], Any],
    count: int,
) -> list[Outcome]:
    """Run `count` tasks through an execution until all are concluded."""
    queue, _ = make_queue()
    for number in range(count):
        queue.admit(task_body(task_id=number), FakeNeighbour(), 0.0)
    outcomes: list[Outcome] = []

    def take() -> Task | None:
        task = queue.take(0.0)
        assert task is None or isinstance(task, Task)
        return task

    def conclude(task: Task, outcome: Outcome, elapsed_ns: int) -> None:
        outcomes.append(outcome)
        queue.settle(queue.conclude(task, outcome, elapsed_ns))

    make(take, conclude)
    assert queue.is_idle
    return outcomes


def test_a_worker_thread_runs_one_task_after_the_other() -> None:
    """Off the reactor's thread, in order, each outcome given back on it."""
    threads: set[int] = set()

    def note(chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        threads.add(threading.get_ident())
        return Verdict.drop(str(chunk.header.chunk_id.value))

    class Reactor(Clock):
        def __init__(self) -> None:
            super().__init__()
            self.arrived = threading.Semaphore(0)
            self.calls: list[tuple[Any, tuple[object, ...]]] = []

        def callFromThread(self, call: Callable[..., None], *args: object) -> None:
            self.calls.append((call, args))
            self.arrived.release()

    reactor = Reactor()

    def make(take: Any, conclude: Any) -> None:
        calls = ProcessCalls(FunctionService(note), logging.getLogger("test"))
        thread = ThreadExecution(reactor, calls, take, conclude)
        thread.wake()
        for _ in range(5):
            assert reactor.arrived.acquire(timeout=10)
            call, args = reactor.calls.pop(0)
            call(*args)
        thread.stop()

    outcomes = outcomes_of(make, 5)
    assert [outcome.detail for outcome in outcomes if isinstance(outcome, Verdict)] == [
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
    ]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_coroutines_run_side_by_side_up_to_their_limit() -> None:
    """`async def process` may await; no more than `concurrency` are in progress."""

    class Waiting(NetworkService):
        in_progress = most = 0

        async def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
            self.in_progress += 1
            self.most = max(self.most, self.in_progress)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.in_progress -= 1
            if chunk.header.chunk_id.value == 4:
                raise ValueError("four")
            return Verdict.forward()

    service = Waiting()

    def make(take: Any, conclude: Any) -> None:
        async def main() -> None:
            calls = ProcessCalls(service, logging.getLogger("test"))
            running = CoroutineExecution(calls, take, conclude, 3)
            running.wake()
            while running._running:
                await asyncio.sleep(0)

        asyncio.run(main())

    outcomes = outcomes_of(make, 7)
    assert len(outcomes) == 7
    assert outcomes.count("ValueError: four") == 1
    assert service.most == 3


def test_a_stopped_execution_takes_nothing_more() -> None:
    """After `stop` a wake changes nothing."""
    reactor = FakeReactor()
    calls = ProcessCalls(FunctionService(upper), logging.getLogger("test"))

    def take() -> Task | None:
        raise AssertionError("taken after stop")

    inline = InlineExecution(reactor, calls, take, lambda *_: None, lambda: None)
    inline.wake()
    inline.stop()
    reactor.advance(0)
    inline.wake()
    assert reactor.getDelayedCalls() == []


def test_kinds_of_failure_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service can raise ever new kinds; what we remember of them does not grow."""
    monkeypatch.setattr(execution, "MAX_FAILURE_KINDS", 3)

    def fail(chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        raise type(f"Kind{chunk.header.chunk_id.value}", (Exception,), {})()

    calls = ProcessCalls(FunctionService(fail), logging.getLogger("test.quiet"))

    def make(take: Any, conclude: Any) -> None:
        while (task := take()) is not None:
            conclude(task, *calls.run(task))

    outcomes_of(make, 10)
    assert len(calls.failures) == 4
    assert calls.failures[("other", "")] == 7


class _Remembering(FunctionService):
    """A service whose state is a word."""

    def __init__(self) -> None:
        super().__init__(lambda chunk: Verdict.forward())
        self.word = b"first"

    def export_state(self) -> bytes:
        return self.word

    def import_state(self, state: bytes) -> None:
        self.word = state


def test_a_state_is_exported_between_chunks_and_the_service_serves_on() -> None:
    """Exporting ends nothing: a migration may be undone."""
    service = _Remembering()
    bench = Bench(service)
    bench.attached()
    exported = ensureDeferred(bench.runtime.export_state())
    assert exported.result == b"first"
    assert not bench.runtime.tasks.is_draining
    bench.runtime.import_state(b"second")
    assert service.word == b"second"


def test_a_verdict_on_its_way_does_not_hold_up_an_export() -> None:
    """The router says when it has every verdict; chunks do not wait until the VI hears of it."""
    service = _Remembering()
    bench = Bench(service)
    router = bench.attached()
    bench.node.give(router, task_body())
    bench.turn()
    assert bench.runtime.tasks.unsettled_count == 1
    exported = ensureDeferred(bench.runtime.export_state())
    assert exported.result == b"first"
