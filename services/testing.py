"""A harness for an author's own tests: a service without router, network or event loop.

    with ServiceHarness("manifest.toml", {"level": "3"}) as harness:
        result = harness.process(b"some payload")
        assert result.code is VerdictCode.UPDATE

The chunk passes the same core as in a VI: task bytes are decoded, limits apply, an exception
becomes a failure, and the verdict is decoded from its wire form.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from packetcloud.chunk.header import (
    DEFAULT_MAX_PAYLOAD_BYTES,
    ChunkHeader,
    PayloadType,
    ServiceParameters,
    decode_header,
)
from packetcloud.chunk.hop.api import Buffer, FoundT, Refusal, Role
from packetcloud.chunk.messages import BodyKind, TaskHeader, VerdictCode, VerdictHeader
from packetcloud.chunk.names import GUID, NA, SID, ChunkId
from packetcloud.services.buffers import BufferPool
from packetcloud.services.catalogue import FoundService, find_service
from packetcloud.services.errors import ServiceMisuseError
from packetcloud.services.execution import ProcessCalls
from packetcloud.services.loading import load_service
from packetcloud.services.sdk import NetworkService, ServiceContext
from packetcloud.services.tasks import PAYLOAD_HEADROOM_BYTES, Answer, TaskQueue

HARNESS_SID = SID.from_hex("5e" * 20)
HARNESS_SOURCE = GUID.from_hex("a1" * 20)
HARNESS_DESTINATION = GUID.from_hex("b2" * 20)
_DEADLINE_MS = 60_000


class HeldBody:
    """A received body in memory (`hop.api.Body`)."""

    flow = 0

    def __init__(self, data: Buffer) -> None:
        self._data = bytearray(data)
        self.is_released = False

    def __len__(self) -> int:
        return len(self._data)

    def head(self, count: int) -> bytes:
        return bytes(self._data[:count])

    def patch(self, offset: int, data: bytes) -> None:
        self._data[offset : offset + len(data)] = data

    def contiguous(self) -> memoryview:
        return memoryview(self._data)

    def look(self, at: Callable[[memoryview], FoundT]) -> FoundT:
        return at(self.contiguous())

    def release(self) -> None:
        self.is_released = True


class _NoRouter:
    """Stands for the router that gave a task; nothing is sent to it."""

    guid = GUID.from_hex("00" * 19 + "01")
    role = Role.ROUTER
    instance = 0
    is_up = True
    address = ("", 0)
    queued_bytes = 0

    def send(
        self,
        kind: BodyKind,
        prefix: bytes,
        payload: Buffer,
        token: object,
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None: ...
    def send_body(
        self,
        kind: BodyKind,
        body: object,
        token: object,
        prefix: bytes = b"",
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None: ...
    def is_busy(self, flow: int) -> bool:
        return False

    def decide(self, body: object, refusal: Refusal | None = None) -> None: ...
    def cancel(self, token: object) -> None: ...
    def close(self, reason: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class EmittedResult:
    """One chunk of an EMIT verdict, as the router will read it."""

    header: ChunkHeader
    payload: bytes


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """A verdict as the router will read it; `payload` is a copy."""

    code: VerdictCode
    payload: bytes
    reason: str
    """Of a DROP, or what went wrong (FAILED)."""
    processing_ns: int
    redirect: tuple[GUID, NA] | None = None
    emitted: tuple[EmittedResult, ...] = ()
    keep: bool = False
    payload_type: int | None = None
    """Of an UPDATE that changes it."""
    updates: bool = False
    """EMIT: `payload` is the new one of the chunk that is kept."""
    again: bool = False
    """It was dropped, and its source may send it again."""


class ServiceHarness:
    """A started service; a context manager that stops it.

    Args:
        service: name of a bundled service, a manifest's file or folder, or what `find_service`
            returned.
        settings: parameters as `--set` takes them, in text.
        max_payload_bytes: as the router would be configured.
        sid: under which the service is attached.

    Raises:
        ServiceConfigError: the manifest, a parameter or `start` is at fault.
    """

    def __init__(
        self,
        service: str | Path | FoundService,
        settings: Mapping[str, str] | None = None,
        *,
        max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES,
        sid: SID = HARNESS_SID,
    ) -> None:
        found = service if isinstance(service, FoundService) else find_service(str(service))
        manifest = found.manifest
        log = logging.getLogger(f"packetcloud.service.{manifest.service.name}")
        self.service: NetworkService = load_service(manifest.service.entry_point, found.search_path)
        self._sid = sid
        self._context = ServiceContext(sid, manifest.resolve(settings or {}), log)
        self._pool = BufferPool(max_payload_bytes + PAYLOAD_HEADROOM_BYTES)
        self._tasks = TaskQueue(
            self._context,
            self._pool,
            manifest.behaviour.max_expansion_ratio,
            lambda: int.from_bytes(os.urandom(8), "big"),
        )
        self._calls = ProcessCalls(self.service, log)
        self._router = _NoRouter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._chunk_number = 0

    def __enter__(self) -> Self:
        self.service.start(self._context)
        return self

    def __exit__(self, *_: object) -> None:
        self.service.stop()
        if self._loop is not None:
            self._loop.close()

    @property
    def output_buffers(self) -> int:
        """Output buffers allocated so far; stands still for a service that uses them rightly."""
        return self._pool.allocated_count

    def process(
        self,
        payload: Buffer,
        *,
        source: GUID = HARNESS_SOURCE,
        destination: GUID = HARNESS_DESTINATION,
        chunk_id: int | None = None,
        parameters: bytes = b"",
        payload_type: int = PayloadType.DATA,
        wants_report: bool = False,
        lifetime_ms: int | None = None,
    ) -> ProcessResult:
        """Let the service process one chunk and return its verdict.

        Without a chunk id, ids count up from 1.

        Raises:
            ServiceMisuseError: the runtime would not even accept such a chunk.
        """
        header = ChunkHeader(
            source=source,
            destination=destination,
            chunk_id=ChunkId(self._chunk_number + 1 if chunk_id is None else chunk_id),
            payload_bytes=len(payload),
            sid=self._sid,
            parameters=(ServiceParameters(self._sid, parameters),) if parameters else (),
            payload_type=payload_type,
            wants_report=wants_report,
            lifetime_ms=lifetime_ms,
        )
        return self.process_chunk(header, payload)

    def process_chunk(self, header: ChunkHeader, payload: Buffer) -> ProcessResult:
        """Let the service process a chunk with this header; `process` makes one.

        Raises:
            ServiceMisuseError: the runtime would not even accept such a chunk.
        """
        self._chunk_number += 1
        task_header = TaskHeader(self._chunk_number, _DEADLINE_MS).to_bytes()
        body = HeldBody(b"".join((task_header, header.to_bytes(), payload)))
        refusal = self._tasks.admit(body, self._router, 0.0)
        if refusal is not None:
            raise ServiceMisuseError(f"the runtime refuses this chunk: {refusal.word}")
        task = self._tasks.take(0.0)
        assert task is not None and not isinstance(task, Answer)
        if inspect.iscoroutinefunction(self.service.process):
            running = self._calls.run_coroutine(task)
            outcome, elapsed_ns = self._event_loop().run_until_complete(running)
        else:
            outcome, elapsed_ns = self._calls.run(task)
        answer = self._tasks.conclude(task, outcome, elapsed_ns)
        result = _read(answer)
        self._tasks.settle(answer)
        return result

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop


def _read(answer: Answer) -> ProcessResult:
    """Decode a verdict from its wire form."""
    header = VerdictHeader.from_bytes(answer.prefix)
    payload = bytes(answer.payload)
    says_why = header.again or header.code in (VerdictCode.DROP, VerdictCode.FAILED)
    is_redirect = header.code is VerdictCode.REDIRECT
    emitted: tuple[EmittedResult, ...] = ()
    if header.code is VerdictCode.EMIT:
        emitted, payload = _split(payload, header.emit_count)
    return ProcessResult(
        header.code,
        payload,
        header.detail.decode() if says_why else "",
        header.processing_ns,
        header.redirect_target if is_redirect else None,
        emitted,
        header.keep,
        header.payload_type,
        header.updates,
        header.again,
    )


def _split(data: bytes, count: int) -> tuple[tuple[EmittedResult, ...], bytes]:
    """Return the emitted chunks and what follows them: the new payload of the chunk."""
    results = []
    offset = 0
    for _ in range(count):
        header = decode_header(memoryview(data)[offset:])
        start = offset + len(header.to_bytes())
        offset = start + header.payload_bytes
        results.append(EmittedResult(header, data[start:offset]))
    return tuple(results), data[offset:]
