"""Core of the runtime: tasks in, verdicts out, with every limit between them.

    admit(body) -> waiting -> take() -> the service's process -> conclude() -> Answer -> close()

Nothing here knows a socket, a thread or the time: `now` comes in. Source: design, section 6.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.header import (
    MAX_HEADER_BYTES,
    ChunkHeader,
    ServiceSequence,
    decode_header,
)
from packetcloud.chunk.hop.api import Body, Buffer, Neighbour
from packetcloud.chunk.messages import TASK_BYTES, TaskHeader, VerdictCode, VerdictHeader
from packetcloud.chunk.names import GUID_ZERO, SID_SEQUENCE, SID_ZERO, ChunkId
from packetcloud.chunk.reasons import Reason
from packetcloud.services.buffers import BufferPool
from packetcloud.services.errors import ServiceMisuseError
from packetcloud.services.sdk import (
    ChunkContext,
    EmittedChunk,
    ServiceChunk,
    ServiceContext,
    Verdict,
    cut_text,
)

PAYLOAD_HEADROOM_BYTES = 1008
"""What services together may add to a largest payload: 2048 bytes of a hop's room above 1 MiB,
less a largest chunk header (1024) and a task header (16)."""
EXPANSION_ALLOWANCE_BYTES = 1024
"""Allowed on top of `max_expansion_ratio`, so that heads and padding fit a tiny chunk."""
MAX_WAITING_COUNT = 16384
"""Tasks waiting for `process`. The hop's credit bounds their bytes; this bounds the objects that
small chunks make (about 2 KiB each)."""
MAX_UNSETTLED_BYTES = 16 << 20
"""Verdict payloads that the router has not taken; from here on no further task is started."""
MAX_EMIT_COUNT = 1024
"""Chunks of one EMIT verdict; each costs the router a header to decode."""
MAX_DROP_KINDS = 16
"""Reasons of drops that are told apart; a service can make up any number of them."""
_OTHER = "other"
_KIND_CHARS = 64


@dataclass(slots=True)
class Task:
    """One chunk that the router wants a verdict on."""

    task_id: int
    admitted_at: float
    expires_at: float
    header: ChunkHeader
    body: Body
    payload_offset: int
    owner: Neighbour
    context: ChunkContext
    chunk: ServiceChunk | None = None
    """Set when the task is taken."""


class Answer:
    """An encoded verdict, and what must stay untouched until the router has it."""

    __slots__ = ("_body", "_context", "code", "flow", "payload", "payload_bytes", "prefix")

    def __init__(
        self,
        code: VerdictCode,
        prefix: bytes,
        payload: Buffer,
        flow: int,
        context: ChunkContext | None,
        body: Body | None,
    ) -> None:
        self.code = code
        self.flow = flow
        """The label of the task: where the chunk goes, its verdict must not hold up others."""
        self.prefix = prefix
        self.payload = payload
        self.payload_bytes = len(payload)
        self._context = context
        self._body = body

    def release(self) -> None:
        """Give buffers back: the verdict is settled, or there is nobody to send it to."""
        self.payload = b""
        if self._context is not None:
            self._context.close()
            self._context = None
        if self._body is not None:
            self._body.release()
            self._body = None


class TaskQueue:
    """The tasks of one service.

    At every moment: taken = answered + abandoned + waiting + in hand.

    Args:
        service: the context that `start` got.
        pool: where output buffers come from; its largest size bounds every verdict.
        max_expansion_ratio: the manifest's.
        next_chunk_id: 64-bit numbers, not guessable, for chunks that the service emits.
    """

    def __init__(
        self,
        service: ServiceContext,
        pool: BufferPool,
        max_expansion_ratio: float,
        next_chunk_id: Callable[[], int],
    ) -> None:
        self.is_draining = False
        self.taken_count = 0
        self.abandoned_count = 0
        """Tasks whose router went away; it gives them to another VI."""
        self.expired_count = 0
        self.answered: Counter[VerdictCode] = Counter()
        self.drops: Counter[str] = Counter()
        """Chunks that the service dropped, by what stands before the first colon of its reason."""
        self.refused: Counter[Reason] = Counter()
        self.processing_ns = 0
        self.unsettled_bytes = 0
        self.held_up_count = 0
        """How often a task had to wait for the router to take verdicts."""
        self.unsettled_count = 0
        self._in_hand: dict[int, float] = {}
        self._service = service
        self._pool = pool
        self._ratio = max_expansion_ratio
        self._next_chunk_id = next_chunk_id
        self._waiting: deque[Task] = deque()

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @property
    def in_hand_count(self) -> int:
        return len(self._in_hand)

    @property
    def is_idle(self) -> bool:
        """True when no task waits, none is in hand and every verdict is settled."""
        return not self._waiting and not self._in_hand and not self.unsettled_count

    @property
    def is_at_rest(self) -> bool:
        """True when no task waits and none is in hand; verdicts may still be under way."""
        return not self._waiting and not self._in_hand

    def longest_in_hand_s(self, now: float) -> float:
        """Return for how long the service has had the task that it has had longest."""
        return now - min(self._in_hand.values(), default=now)

    def longest_waiting_s(self, now: float) -> float:
        """Return for how long the task that is due next has waited for the service."""
        return now - self._waiting[0].admitted_at if self._waiting else 0.0

    def admit(self, body: Body, owner: Neighbour, now: float) -> Reason | None:
        """Take custody of a task body, or return why not; refused bodies stay the caller's.

        Only the header is copied; the payload stays where the hop put it.
        """
        reason = self._reason_to_refuse(body, owner, now)
        if reason is not None:
            self.refused[reason] += 1
        return reason

    def take(self, now: float) -> Task | Answer | None:
        """Return the next task to process; an Answer if its deadline passed; None if none is due.

        A task past its deadline is never started: its router has given it to somebody else.
        """
        if not self._waiting:
            return None
        if self.unsettled_bytes >= MAX_UNSETTLED_BYTES:
            self.held_up_count += 1
            return None
        task = self._waiting.popleft()
        self._in_hand[id(task)] = now
        if now >= task.expires_at:
            self.expired_count += 1
            return self.conclude(task, "deadline passed before it was started", 0)
        payload = task.body.contiguous()[task.payload_offset :].toreadonly()
        task.chunk = ServiceChunk(task.header, payload)
        return task

    def conclude(self, task: Task, outcome: Verdict | str, processing_ns: int) -> Answer:
        """Encode what `process` decided; a text is a failure. Ends the task.

        A verdict that breaks a limit becomes a failure that says so.
        """
        del self._in_hand[id(task)]
        self.processing_ns += processing_ns
        if isinstance(outcome, Verdict):
            try:
                answer = self._encode(task, outcome, processing_ns)
            except (ServiceMisuseError, LocalMisuseError) as error:
                answer = self._failure(task, f"{type(error).__name__}: {error}", processing_ns)
        else:
            answer = self._failure(task, outcome, processing_ns)
        self.answered[answer.code] += 1
        if answer.code is VerdictCode.DROP and isinstance(outcome, Verdict):
            self._count_drop(outcome.detail.decode("utf-8", "replace"))
        self.unsettled_bytes += answer.payload_bytes
        self.unsettled_count += 1
        return answer

    def settle(self, answer: Answer) -> None:
        """The router has the verdict, or is gone: give the answer's buffers back."""
        self.unsettled_bytes -= answer.payload_bytes
        self.unsettled_count -= 1
        answer.release()

    def abandon(self, owner: Neighbour) -> None:
        """Forget the waiting tasks of a router that went away."""
        kept: deque[Task] = deque()
        for task in self._waiting:
            if task.owner is owner:
                self.abandoned_count += 1
                task.body.release()
            else:
                kept.append(task)
        self._waiting = kept

    def discard(self, task: Task) -> None:
        """End a task in hand whose router went away while it was processed."""
        del self._in_hand[id(task)]
        self.abandoned_count += 1
        task.context.close()
        task.body.release()

    def _reason_to_refuse(self, body: Body, owner: Neighbour, now: float) -> Reason | None:
        if self.is_draining:
            return Reason.SHUTTING_DOWN
        if len(self._waiting) >= MAX_WAITING_COUNT:
            return Reason.STORE_FULL
        head = body.head(TASK_BYTES + MAX_HEADER_BYTES)
        try:
            task_header = TaskHeader.from_bytes(head)
            header = decode_header(memoryview(head)[TASK_BYTES:])
        except ProtocolError:
            return Reason.MALFORMED
        payload_offset = TASK_BYTES + int.from_bytes(head[TASK_BYTES + 2 : TASK_BYTES + 4], "big")
        if len(body) - payload_offset != header.payload_bytes:
            return Reason.MALFORMED
        if header.payload_bytes > self._pool.largest_bytes:
            return Reason.PAYLOAD_TOO_LARGE
        sid = self._service.sid
        own = next((item.data for item in header.parameters if item.sid == sid), b"")
        self.taken_count += 1
        self._waiting.append(
            Task(
                task_header.task_id,
                now,
                now + task_header.deadline_ms / 1000,
                header,
                body,
                payload_offset,
                owner,
                ChunkContext(self._service, self._pool, own),
            )
        )
        return None

    def _count_drop(self, reason: str) -> None:
        kind = reason.partition(":")[0][:_KIND_CHARS]
        if kind not in self.drops and len(self.drops) >= MAX_DROP_KINDS:
            kind = _OTHER
        self.drops[kind] += 1

    def _encode(self, task: Task, verdict: Verdict, processing_ns: int) -> Answer:
        payload: Buffer = verdict.payload
        if verdict.code is VerdictCode.EMIT:
            payload = self._encode_emitted(task, verdict.emitted, payload)
        else:
            self._check_expansion(task, len(payload))
        prefix = VerdictHeader(
            task.task_id,
            verdict.code,
            processing_ns,
            verdict.detail,
            len(verdict.emitted),
            verdict.keep,
            verdict.payload_type,
            verdict.updates,
            verdict.again,
        ).to_bytes()
        return self._answer(task, verdict.code, prefix, payload)

    def _failure(self, task: Task, text: str, processing_ns: int) -> Answer:
        header = VerdictHeader(task.task_id, VerdictCode.FAILED, processing_ns, cut_text(text))
        return self._answer(task, VerdictCode.FAILED, header.to_bytes(), b"")

    def _answer(self, task: Task, code: VerdictCode, prefix: bytes, payload: Buffer) -> Answer:
        """Release at once what the verdict does not carry."""
        carries_memory = not isinstance(payload, bytes)
        lends_output = carries_memory and task.context.owns(payload)
        answer = Answer(
            code,
            prefix,
            payload,
            task.body.flow,
            # Memory that is not ours to recognise may lie in either place: hold both.
            task.context if carries_memory else None,
            task.body if carries_memory and not lends_output else None,
        )
        if not carries_memory:
            task.context.close()
        if not carries_memory or lends_output:
            if task.chunk is not None:
                # BufferError: the service wrapped the payload (numpy) and still holds it.
                with suppress(BufferError):
                    task.chunk.payload.release()
            task.body.release()
        return answer

    def _check_expansion(self, task: Task, output_bytes: int) -> None:
        allowed = int(task.header.payload_bytes * self._ratio) + EXPANSION_ALLOWANCE_BYTES
        allowed = min(allowed, self._pool.largest_bytes)
        if output_bytes > allowed:
            raise ServiceMisuseError(
                f"output of {output_bytes} bytes for {task.header.payload_bytes}; "
                f"allowed by max_expansion_ratio and the payload limit: {allowed}"
            )

    def _encode_emitted(
        self, task: Task, chunks: tuple[EmittedChunk, ...], update: Buffer
    ) -> Buffer:
        """Return the chunks one after the other, then the new payload of the one that is kept."""
        if not 1 <= len(chunks) <= MAX_EMIT_COUNT:
            raise ServiceMisuseError(f"{len(chunks)} emitted chunks; allowed 1..{MAX_EMIT_COUNT}")
        self._check_expansion(task, len(update) + sum(len(chunk.payload) for chunk in chunks))
        headers = [self._emitted_header(chunk) for chunk in chunks]
        total = sum(len(h) + len(c.payload) for h, c in zip(headers, chunks, strict=True))
        output = task.context.output_buffer(total + len(update))
        offset = 0
        for header, chunk in zip(headers, chunks, strict=True):
            for part in (header, chunk.payload):
                output[offset : offset + len(part)] = part
                offset += len(part)
        output[offset:] = update
        return output

    def _emitted_header(self, chunk: EmittedChunk) -> bytes:
        sid, sequence = SID_ZERO, None
        if len(chunk.services) == 1:
            sid = chunk.services[0]
        elif chunk.services:
            sid, sequence = SID_SEQUENCE, ServiceSequence(chunk.services)
        return ChunkHeader(
            source=GUID_ZERO,  # the router stamps the source, and refuses any other value here
            destination=chunk.destination,
            destination_na=chunk.destination_na,
            chunk_id=ChunkId(self._next_chunk_id()),
            payload_bytes=len(chunk.payload),
            sid=sid,
            sequence=sequence,
            payload_type=chunk.payload_type,
            lifetime_ms=chunk.lifetime_ms,
        ).to_bytes()
