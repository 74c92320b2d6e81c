"""The runtime's core: what is admitted, what a verdict becomes, what is given back when."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from packetcloud.chunk.header import (
    FIXED_BYTES,
    MAX_HEADER_BYTES,
    ServiceParameters,
    decode_header,
)
from packetcloud.chunk.messages import TASK_BYTES, VerdictCode, VerdictHeader
from packetcloud.chunk.names import GUID, GUID_ZERO, NA, SID, SID_SEQUENCE
from packetcloud.chunk.reasons import Reason
from packetcloud.services import tasks
from packetcloud.services.errors import ServiceMisuseError
from packetcloud.services.sdk import EmittedChunk, Verdict
from packetcloud.services.tasks import Answer, Task, TaskQueue
from packetcloud.services.testing import HeldBody
from tests.unit.services.service_fakes import (
    DESTINATION,
    SERVICE_SID,
    SOURCE,
    FakeNeighbour,
    make_queue,
    task_body,
)


def taken(queue: TaskQueue, body: HeldBody, now: float = 0.0) -> Task:
    """Admit a body and take its task."""
    assert queue.admit(body, FakeNeighbour(), now) is None
    task = queue.take(now)
    assert isinstance(task, Task)
    return task


def head_of(answer: Answer) -> VerdictHeader:
    return VerdictHeader.from_bytes(answer.prefix)


def test_a_service_sees_header_payload_and_its_own_parameters() -> None:
    """Parameters for other SIDs are not shown, and the payload cannot be written to."""
    queue, _ = make_queue()
    parameters = (
        ServiceParameters(SID(b"\x01" * 20), b"not yours"),
        ServiceParameters(SERVICE_SID, b"yours"),
    )
    task = taken(queue, task_body(b"some bytes", parameters=parameters))
    assert task.chunk is not None
    assert bytes(task.chunk.payload) == b"some bytes"
    assert task.chunk.payload.readonly
    assert (task.chunk.header.source, task.chunk.header.destination) == (SOURCE, DESTINATION)
    assert task.context.chunk_parameters == b"yours"


@pytest.mark.parametrize("cut", [0, 1, TASK_BYTES, TASK_BYTES + FIXED_BYTES - 1, -1])
def test_a_cut_task_is_refused_as_malformed(cut: int) -> None:
    """A body that ends too early is the router's fault, counted, and stays the hop's to release."""
    queue, _ = make_queue()
    data = bytes(task_body(b"payload").contiguous())
    body = HeldBody(data[:cut])
    assert queue.admit(body, FakeNeighbour(), 0.0) is Reason.MALFORMED
    assert queue.refused[Reason.MALFORMED] == 1
    assert not body.is_released
    assert queue.waiting_count == queue.taken_count == 0


def test_a_task_with_bytes_behind_its_payload_is_refused() -> None:
    """Trailing bytes would otherwise reach the service as payload."""
    queue, _ = make_queue()
    body = HeldBody(bytes(task_body().contiguous()) + b"x")
    assert queue.admit(body, FakeNeighbour(), 0.0) is Reason.MALFORMED


def test_a_payload_at_the_limit_is_taken_and_one_byte_more_is_refused() -> None:
    """The largest payload is what a verdict can carry back."""
    queue, _ = make_queue(largest_bytes=5000)
    assert queue.admit(task_body(bytes(5000)), FakeNeighbour(), 0.0) is None
    assert queue.admit(task_body(bytes(5001)), FakeNeighbour(), 0.0) is Reason.PAYLOAD_TOO_LARGE


def test_waiting_tasks_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap the next task is refused, below it taken."""
    monkeypatch.setattr(tasks, "MAX_WAITING_COUNT", 3)
    queue, _ = make_queue()
    reasons = [queue.admit(task_body(task_id=n), FakeNeighbour(), 0.0) for n in range(4)]
    assert reasons == [None, None, None, Reason.STORE_FULL]


def test_a_draining_service_takes_no_task() -> None:
    """The router hears at once that another VI must do it."""
    queue, _ = make_queue()
    queue.is_draining = True
    assert queue.admit(task_body(), FakeNeighbour(), 0.0) is Reason.SHUTTING_DOWN


@pytest.mark.parametrize(("now", "starts"), [(0.999, True), (1.0, False), (5.0, False)])
def test_a_task_past_its_deadline_is_not_started(now: float, starts: bool) -> None:
    """Its router gave it to another VI: it is answered FAILED and never processed."""
    queue, _ = make_queue()
    body = task_body(deadline_ms=1000)
    queue.admit(body, FakeNeighbour(), 0.0)
    got = queue.take(now)
    assert isinstance(got, Task) is starts
    if isinstance(got, Answer):
        assert head_of(got).code is VerdictCode.FAILED
        assert b"deadline" in head_of(got).detail
        assert queue.expired_count == 1
        assert body.is_released


def test_a_full_window_of_unsettled_verdicts_stops_new_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A router that takes no verdicts cannot make a VI's memory grow."""
    monkeypatch.setattr(tasks, "MAX_UNSETTLED_BYTES", 10)
    queue, _ = make_queue()
    answers = []
    for number in range(3):
        queue.admit(task_body(task_id=number), FakeNeighbour(), 0.0)
    for _ in range(2):
        task = queue.take(0.0)
        assert isinstance(task, Task)
        answers.append(queue.conclude(task, Verdict.update(b"123456"), 0))
    assert queue.take(0.0) is None
    queue.settle(answers[0])
    assert isinstance(queue.take(0.0), Task)


def test_forward_and_drop_carry_no_payload_and_release_the_body_at_once() -> None:
    """Only what the verdict needs is held until it is settled."""
    queue, _ = make_queue()
    for verdict, code, detail in (
        (Verdict.forward(), VerdictCode.FORWARD, b""),
        (Verdict.drop("not today"), VerdictCode.DROP, b"not today"),
        (
            Verdict.redirect(DESTINATION, NA(7)),
            VerdictCode.REDIRECT,
            DESTINATION.value + NA(7).to_bytes(),
        ),
    ):
        body = task_body()
        answer = queue.conclude(taken(queue, body), verdict, 55)
        head = head_of(answer)
        assert (head.code, head.detail, head.processing_ns) == (code, detail, 55)
        assert answer.payload == b""
        assert body.is_released


def test_an_update_from_the_pool_releases_the_body_and_keeps_the_buffer() -> None:
    """The buffer comes back at settlement, and the next task gets the same one."""
    queue, pool = make_queue()
    body = task_body(b"abc")
    task = taken(queue, body)
    output = task.context.output_buffer(5000)
    output[:3] = b"xyz"
    answer = queue.conclude(task, Verdict.update(output[:3]), 0)
    assert bytes(answer.payload) == b"xyz"
    assert body.is_released
    assert pool.idle_bytes == 0
    queue.settle(answer)
    assert pool.idle_bytes == 8192
    again = taken(queue, task_body(b"abc"))
    again.context.output_buffer(5000)
    assert pool.allocated_count == 1


def test_an_update_that_is_part_of_the_input_holds_the_body_until_settled() -> None:
    """The hop would otherwise re-use the bytes while the verdict is on its way."""
    queue, _ = make_queue()
    body = task_body(b"head|rest")
    task = taken(queue, body)
    assert task.chunk is not None
    answer = queue.conclude(task, Verdict.update(task.chunk.payload[5:]), 0)
    assert not body.is_released
    assert bytes(answer.payload) == b"rest"
    queue.settle(answer)
    assert body.is_released


def test_memory_of_unknown_origin_holds_body_and_buffers() -> None:
    """A numpy array over the input is not recognised as such, so everything is held."""
    queue, pool = make_queue()
    body = task_body(b"12345678")
    task = taken(queue, body)
    assert task.chunk is not None
    task.context.output_buffer(10)
    array = np.frombuffer(task.chunk.payload, np.uint8)[2:]
    answer = queue.conclude(task, Verdict.update(memoryview(array)), 0)
    assert not body.is_released
    assert pool.idle_bytes == 0
    queue.settle(answer)
    assert body.is_released
    assert pool.idle_bytes == 4096


def test_a_kept_payload_cannot_be_read_after_the_task() -> None:
    """A service that stores `chunk.payload` gets an error, not bytes of another chunk."""
    queue, _ = make_queue()
    task = taken(queue, task_body())
    assert task.chunk is not None
    kept = task.chunk.payload
    lent = task.context.output_buffer(8)
    queue.settle(queue.conclude(task, Verdict.forward(), 0))
    for view in (kept, lent):
        with pytest.raises(ValueError, match="released"):
            bytes(view)


@pytest.mark.parametrize(("extra", "code"), [(0, VerdictCode.UPDATE), (1, VerdictCode.FAILED)])
def test_the_expansion_limit(extra: int, code: VerdictCode) -> None:
    """Output up to ratio x input + 1024 bytes passes; a byte more is a failure that says so."""
    queue, _ = make_queue(ratio=3.0)
    task = taken(queue, task_body(bytes(100)))
    answer = queue.conclude(task, Verdict.update(bytes(300 + 1024 + extra)), 0)
    assert head_of(answer).code is code
    if code is VerdictCode.FAILED:
        assert b"max_expansion_ratio" in head_of(answer).detail
        assert answer.payload == b""


def test_no_ratio_allows_more_than_the_payload_limit() -> None:
    """What the router could not forward is not sent to it."""
    queue, _ = make_queue(ratio=1000.0, largest_bytes=5000)
    task = taken(queue, task_body(bytes(100)))
    answer = queue.conclude(task, Verdict.update(bytes(5001)), 0)
    assert head_of(answer).code is VerdictCode.FAILED


def test_emitted_chunks_name_no_source() -> None:
    """The SDK offers no way to name it: zero travels, and the router stamps it."""
    assert "source" not in {field.name for field in dataclasses.fields(EmittedChunk)}
    queue, _ = make_queue()
    task = taken(queue, task_body(bytes(100)))
    chunks = [
        EmittedChunk(DESTINATION, b"one", services=(SERVICE_SID,)),
        EmittedChunk(DESTINATION, b"", services=(SERVICE_SID, SERVICE_SID), lifetime_ms=9),
    ]
    answer = queue.conclude(task, Verdict.emit(chunks, keep=True), 0)
    head = head_of(answer)
    assert (head.code, head.emit_count, head.keep) == (VerdictCode.EMIT, 2, True)
    first = decode_header(answer.payload)
    start = len(first.to_bytes())
    assert bytes(answer.payload[start : start + 3]) == b"one"
    second = decode_header(memoryview(answer.payload)[start + 3 :])
    assert (first.source, second.source) == (GUID_ZERO, GUID_ZERO)
    assert first.sid == SERVICE_SID
    assert second.sid == SID_SEQUENCE
    assert second.lifetime_ms == 9
    assert first.chunk_id != second.chunk_id
    queue.settle(answer)


def test_an_update_may_send_other_chunks_as_well() -> None:
    """They stand before the new payload; all of it together keeps within the ratio."""
    queue, _ = make_queue()
    chunk = EmittedChunk(DESTINATION, b"one")
    task = taken(queue, task_body(bytes(100)))
    answer = queue.conclude(task, Verdict.update(b"new", emitted=[chunk]), 0)
    head = head_of(answer)
    assert (head.code, head.emit_count, head.keep, head.updates) == (
        VerdictCode.EMIT,
        1,
        True,
        True,
    )
    header = decode_header(answer.payload)
    assert bytes(answer.payload[len(header.to_bytes()) :]) == b"onenew"
    queue.settle(answer)
    too_much = Verdict.update(bytes(2000), emitted=[chunk])
    answer = queue.conclude(taken(queue, task_body(b"")), too_much, 0)
    assert head_of(answer).code is VerdictCode.FAILED


def test_a_chunk_may_be_dropped_for_now() -> None:
    """With other chunks or without; only then may a drop send any."""
    queue, _ = make_queue()
    chunk = EmittedChunk(DESTINATION, b"one")
    for chunks, code in (([], VerdictCode.DROP), ([chunk], VerdictCode.EMIT)):
        task = taken(queue, task_body(bytes(100)))
        answer = queue.conclude(task, Verdict.drop("why", again=True, emitted=chunks), 0)
        head = head_of(answer)
        assert (head.code, head.keep, head.again, head.detail) == (code, False, True, b"why")
        queue.settle(answer)
    with pytest.raises(ServiceMisuseError, match="again=True"):
        Verdict.drop("why", emitted=[chunk])


@pytest.mark.parametrize("count", [0, tasks.MAX_EMIT_COUNT + 1])
def test_emitting_none_or_too_many_is_a_failure(count: int) -> None:
    """An EMIT has 1 to 1024 chunks."""
    queue, _ = make_queue()
    task = taken(queue, task_body(bytes(100)))
    answer = queue.conclude(task, Verdict.emit([EmittedChunk(DESTINATION, b"")] * count), 0)
    assert head_of(answer).code is VerdictCode.FAILED


def test_emitted_headers_that_fit_no_field_are_a_failure() -> None:
    """A mistake of the service becomes its failure, not a crash of the runtime."""
    queue, _ = make_queue()
    task = taken(queue, task_body(bytes(100)))
    chunk = EmittedChunk(DESTINATION, b"", payload_type=1000)
    assert head_of(queue.conclude(task, Verdict.emit([chunk]), 0)).code is VerdictCode.FAILED


def test_a_failure_text_is_cut_between_characters() -> None:
    """At most 512 bytes of UTF-8 travel, and they are whole characters."""
    queue, _ = make_queue()
    answer = queue.conclude(taken(queue, task_body()), "ä" * 400, 0)
    assert head_of(answer).detail.decode() == "ä" * 256
    assert head_of(queue.conclude(taken(queue, task_body()), Verdict.drop("x€" * 300), 0)).detail


def test_tasks_of_a_lost_router_are_forgotten() -> None:
    """It gives them to another VI: they are released, counted, and never processed."""
    queue, _ = make_queue()
    lost, other = FakeNeighbour(), FakeNeighbour()
    bodies = [task_body(task_id=n) for n in range(3)]
    for body, owner in zip(bodies, (lost, other, lost), strict=True):
        queue.admit(body, owner, 0.0)
    queue.abandon(lost)
    assert [body.is_released for body in bodies] == [True, False, True]
    assert (queue.abandoned_count, queue.waiting_count) == (2, 1)


def test_a_discarded_task_gives_everything_back() -> None:
    """The router went away while the service worked on it."""
    queue, pool = make_queue()
    body = task_body()
    task = taken(queue, body)
    task.context.output_buffer(100)
    queue.discard(task)
    assert body.is_released
    assert pool.idle_bytes == 4096
    assert queue.is_idle


def test_every_task_is_accounted_for() -> None:
    """taken = answered + abandoned + waiting + in hand, at every step."""
    queue, _ = make_queue()

    def holds() -> bool:
        answered = sum(queue.answered.values())
        rest = queue.abandoned_count + queue.waiting_count + queue.in_hand_count
        return queue.taken_count == answered + rest

    router = FakeNeighbour()
    for number in range(6):
        queue.admit(task_body(task_id=number, deadline_ms=number * 1000), router, 0.0)
        assert holds()
    for step, now in enumerate((0.5, 0.5, 0.5, 0.6)):
        got = queue.take(now)
        assert holds()
        if isinstance(got, Task):
            assert queue.longest_in_hand_s(now + 1) >= 1
            if step == 1:
                queue.discard(got)
            else:
                queue.conclude(got, Verdict.forward(), 10)
        assert holds()
    queue.abandon(router)
    assert holds()
    assert queue.processing_ns == 20


def test_how_long_the_next_task_has_waited() -> None:
    """From when it came until it is taken; what is in hand does not wait."""
    queue, _ = make_queue()
    assert queue.longest_waiting_s(5.0) == 0
    queue.admit(task_body(task_id=1), FakeNeighbour(), 1.0)
    queue.admit(task_body(task_id=2), FakeNeighbour(), 1.25)
    assert queue.longest_waiting_s(1.5) == 0.5
    queue.take(1.5)
    assert queue.longest_waiting_s(1.5) == 0.25
    queue.take(1.5)
    assert queue.longest_waiting_s(9.0) == 0


def test_the_head_that_is_copied_covers_every_header() -> None:
    """A header of the largest size is decoded from the copied part alone."""
    queue, _ = make_queue()
    room = MAX_HEADER_BYTES - FIXED_BYTES - 4 - 20
    parameters = (ServiceParameters(SERVICE_SID, bytes(room)),)
    task = taken(queue, task_body(b"behind", parameters=parameters))
    assert task.chunk is not None
    assert bytes(task.chunk.payload) == b"behind"
    assert len(task.context.chunk_parameters) == room


def test_a_redirect_to_an_unbound_address_is_resolved_by_the_router() -> None:
    """Without an NA the router looks the GUID up."""
    verdict = Verdict.redirect(GUID(b"\x09" * 20))
    assert verdict.detail == b"\x09" * 20 + bytes(4)
