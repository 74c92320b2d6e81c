"""Fillers of the caps of a service's runtime. Source: services/caps.py."""

from __future__ import annotations

import itertools
import logging
import os
from typing import Any

from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.reasons import Reason
from packetcloud.services.buffers import DEFAULT_KEPT_BYTES, BufferPool
from packetcloud.services.execution import MAX_FAILURE_KINDS, ProcessCalls
from packetcloud.services.isolation import MAX_REPORT_BYTES, _Child, _Readable
from packetcloud.services.sdk import EmittedChunk, Verdict
from packetcloud.services.tasks import (
    MAX_DROP_KINDS,
    MAX_EMIT_COUNT,
    MAX_UNSETTLED_BYTES,
    MAX_WAITING_COUNT,
    Answer,
    Task,
    TaskQueue,
)
from packetcloud.services.wan_optimizer.anchors import find_anchors
from packetcloud.services.wan_optimizer.framing import Extent
from packetcloud.services.wan_optimizer.kept import KeptBlocks
from packetcloud.services.wan_optimizer.sent import MAX_PARTITIONS, SentBlocks
from tests.unit.caps.filled import Filled, fills
from tests.unit.services.service_fakes import (
    DESTINATION,
    FakeNeighbour,
    FunctionService,
    make_queue,
    task_body,
)

MIB = 1 << 20


def admit(queue: TaskQueue, number: int, owner: FakeNeighbour, **options: Any) -> Reason | None:
    body = task_body(task_id=number, deadline_ms=60_000, **options)
    return queue.admit(body, owner, 0.0)


@fills("services", "tasks that wait")
def waiting() -> Filled:
    """A router gives tasks and the service is busy."""
    queue, _ = make_queue()
    greedy, other = FakeNeighbour(), FakeNeighbour()

    def press(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            admit(queue, number, greedy)
        return queue.waiting_count, queue.refused[Reason.STORE_FULL]

    at_cap, counted = press(0, MAX_WAITING_COUNT)
    beyond, counted_beyond = press(MAX_WAITING_COUNT, MAX_WAITING_COUNT + 50)
    queue.abandon(greedy)
    goes_on = admit(queue, 1, other) is None
    queue.abandon(other)
    left = queue.waiting_count
    return Filled(MAX_WAITING_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("services", "bytes of verdicts that the router has not taken")
def unsettled() -> Filled:
    """The router takes no verdict."""
    queue, _ = make_queue()
    router = FakeNeighbour()
    answers: list[Answer] = []
    for number in range(40):
        assert admit(queue, number, router, payload=bytes(MIB)) is None

    def work() -> tuple[int, int]:
        while isinstance(task := queue.take(0.0), Task):
            output = task.context.output_buffer(MIB)
            answers.append(queue.conclude(task, Verdict.update(output), 0))
            if queue.unsettled_bytes == MAX_UNSETTLED_BYTES and not queue.held_up_count:
                break
        return queue.unsettled_bytes, queue.held_up_count

    at_cap, counted = work()
    beyond, counted_beyond = work()
    goes_on = admit(queue, 99, FakeNeighbour()) is None  # what comes in is still taken
    while queue.waiting_count or answers:
        while answers:
            queue.settle(answers.pop())
        work()
    left = queue.unsettled_bytes + queue.in_hand_count
    return Filled(MAX_UNSETTLED_BYTES, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("services", "chunks of one EMIT verdict")
def emitted() -> Filled:
    """A service emits more and more chunks at once."""
    queue, _ = make_queue()
    router = FakeNeighbour()

    def emit(count: int) -> tuple[int, int]:
        assert admit(queue, 1, router, payload=bytes(MIB)) is None
        task = queue.take(0.0)
        assert isinstance(task, Task)
        chunks = tuple(EmittedChunk(DESTINATION, b"x") for _ in range(count))
        answer = queue.conclude(task, Verdict.emit(chunks), 0)
        went_out = count if answer.code is VerdictCode.EMIT else 0
        queue.settle(answer)
        return went_out, queue.answered[VerdictCode.FAILED]

    at_cap, counted = emit(MAX_EMIT_COUNT)
    beyond, counted_beyond = emit(MAX_EMIT_COUNT + 1)
    goes_on = emit(1)[0] == 1
    left = queue.unsettled_bytes + queue.in_hand_count + queue.waiting_count
    return Filled(MAX_EMIT_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("services", "idle output buffers")
def idle_buffers() -> Filled:
    """Many verdicts are taken at once."""
    pool = BufferPool(MIB)

    def use(count: int) -> tuple[int, int]:
        for buffer in [pool.take(MIB) for _ in range(count)]:
            pool.give_back(buffer)
        return pool.idle_bytes, pool.freed_count

    at_cap, counted = use(DEFAULT_KEPT_BYTES // MIB)
    beyond, counted_beyond = use(DEFAULT_KEPT_BYTES // MIB + 10)
    goes_on = len(pool.take(10)) >= 10
    return Filled(DEFAULT_KEPT_BYTES, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("services", "kinds of failure told apart")
def failure_kinds() -> Filled:
    """A service makes up exceptions."""

    def process(chunk: Any, context: Any) -> Verdict:
        raise type(f"Error{chunk}", (Exception,), {})

    log = logging.getLogger("test.caps")
    log.disabled = True
    calls = ProcessCalls(FunctionService(process), log)

    def fail(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            task = Task.__new__(Task)
            task.chunk, task.context = number, None  # type: ignore[assignment]  # unread
            outcome, _ = calls.run(task)
            assert isinstance(outcome, str)
        other = calls.failures.get(("other", ""), 0)
        return len(calls.failures) - bool(other), other

    at_cap, counted = fail(0, MAX_FAILURE_KINDS)
    beyond, counted_beyond = fail(MAX_FAILURE_KINDS, MAX_FAILURE_KINDS + 50)
    goes_on = fail(0, 1) == (beyond, counted_beyond)
    return Filled(MAX_FAILURE_KINDS, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("services", "reasons of drops told apart")
def drop_reasons() -> Filled:
    """A service gives another reason for each chunk."""
    queue, _ = make_queue()
    router = FakeNeighbour()

    def drop(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            assert admit(queue, number, router) is None
            task = queue.take(0.0)
            assert isinstance(task, Task)
            queue.settle(queue.conclude(task, Verdict.drop(f"reason {number}: {number}"), 0))
        other = queue.drops["other"]
        return len(+queue.drops) - bool(other), other

    at_cap, counted = drop(0, MAX_DROP_KINDS)
    beyond, counted_beyond = drop(MAX_DROP_KINDS, MAX_DROP_KINDS + 50)
    drop(0, 1)
    goes_on = queue.drops["reason 0"] == 2
    left = queue.waiting_count + queue.in_hand_count
    return Filled(MAX_DROP_KINDS, at_cap, counted, beyond, counted_beyond, goes_on, left)


_CACHE_BYTES = 1 << 20
"""What `cache_mib` allows here."""
_BLOCK_BYTES = 64 << 10


@fills("services", "earlier payloads that a WAN optimizer keeps to restore others")
def kept_blocks() -> Filled:
    """Somebody has more and more remembered, in a history of his own."""
    kept = KeptBlocks(_CACHE_BYTES)
    count = _CACHE_BYTES // _BLOCK_BYTES

    def keep(first: int, end: int, history: bytes = b"greedy") -> tuple[int, int]:
        kept.restored(history, 0)
        for number in range(first, end):
            kept.keep(history, number, bytes(_BLOCK_BYTES))
        return kept.held_bytes, kept.forgotten_count

    at_cap, counted = keep(0, count)
    beyond, counted_beyond = keep(count, count + 50)
    keep(0, 1, b"other")
    goes_on = len(kept.text(b"other", (Extent(0, 0, 10),))) == 10
    for history in (b"greedy", b"other"):
        kept.forget(history, [Extent(number, 0, 1) for number in range(count + 50)])
    left = kept.held_bytes
    return Filled(_CACHE_BYTES, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("services", "earlier payloads that a WAN optimizer refers to")
def sent_blocks() -> Filled:
    """A source sends more and more that is like nothing before."""
    ids = itertools.count()
    sent = SentBlocks(_CACHE_BYTES, lambda: b"%8d" % next(ids))
    count = _CACHE_BYTES // _BLOCK_BYTES

    def send(amount: int, partition: bytes = b"greedy") -> tuple[int, int]:
        history = sent.history_of(partition)
        for _ in range(amount):
            sent.keep(history, bytes(_BLOCK_BYTES), find_anchors(b""))
        return sent.held_bytes, sent.forgotten_count

    at_cap, counted = send(count)
    beyond, counted_beyond = send(50)
    send(1, b"other")
    goes_on = len(sent.history_of(b"other").blocks) == 1
    for number in range(MAX_PARTITIONS):
        sent.history_of(b"%d" % number)
    left = sent.held_bytes
    return Filled(_CACHE_BYTES, at_cap, counted, beyond, counted_beyond, goes_on, left)


class _Reactor:
    """Watches nothing."""

    def addReader(self, reader: object) -> None:
        pass

    def removeReader(self, reader: object) -> None:
        pass


@fills("services", "report of a VI to its supervisor")
def reports() -> Filled:
    """A service writes into the pipe of its reports, without an end of line and without end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    heard: list[dict[str, Any]] = []

    class Watcher:
        def reported(self, message: dict[str, Any]) -> None:
            heard.append(message)

        def exited(self, cause: object) -> None:
            raise AssertionError("nothing ended")

    child = _Child.__new__(_Child)
    child._reports = _Readable(_Reactor(), reading, "reports", child._read_reports)
    child._unread = bytearray()
    child.reports_dropped_count = 0
    child._watcher = Watcher()

    def write(data: bytes) -> tuple[int, int]:
        for start in range(0, len(data), 8192):
            os.write(writing, data[start : start + 8192])
            child._read_reports()
        return len(child._unread), child.reports_dropped_count

    at_cap, counted = write(b"x" * MAX_REPORT_BYTES)
    largest = 0
    for _ in range(100):
        largest = max(largest, write(b"x" * 8192)[0])
    counted_beyond = child.reports_dropped_count
    write(b'\n{"kind": "status"}\n')
    goes_on = heard == [{"kind": "status"}]
    os.close(writing)
    child._read_reports()
    assert not child._reports.is_open
    os.close(reading)
    left = len(child._unread)
    return Filled(MAX_REPORT_BYTES, at_cap, counted, largest, counted_beyond, goes_on, left)
