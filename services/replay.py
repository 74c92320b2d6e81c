"""`chunk replay`: chunks of a capture through a service, without a network."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from packetcloud.chunk.captured import CapturedChunk
from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.messages import VerdictCode
from packetcloud.services.catalogue import FoundService
from packetcloud.services.errors import ServiceMisuseError
from packetcloud.services.testing import HARNESS_SID, ProcessResult, ServiceHarness
from packetcloud.services.trial import output_of


@dataclass(frozen=True, slots=True)
class ReplayedChunk:
    """A chunk of the capture and what the service decided; its payloads are gone."""

    packet: int
    """Number of the packet that it begins in."""
    time_ns: int | None
    header: ChunkHeader
    code: VerdictCode
    what: str
    """Why it was dropped or failed, or where it goes."""
    output_bytes: int
    """Payload bytes that would leave the router for it."""
    processing_ns: int

    @classmethod
    def of(cls, chunk: CapturedChunk, result: ProcessResult) -> Self:
        what = result.reason
        if result.redirect is not None:
            what = f"to {result.redirect[0].hex}"
        elif result.emitted:
            what = f"{len(result.emitted)} chunks {'as well' if result.keep else 'instead'}"
        output_bytes = output_of(memoryview(chunk.payload), result)
        return cls(
            chunk.packet,
            chunk.time_ns,
            chunk.header,
            result.code,
            what,
            output_bytes,
            result.processing_ns,
        )

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {
            "packet": self.packet,
            "time_ns": self.time_ns,
            "chunk_id": str(self.header.chunk_id),
            "source": self.header.source.hex,
            "destination": self.header.destination.hex,
            "payload_bytes": self.header.payload_bytes,
            "verdict": self.code.name.lower(),
            "what": self.what,
            "output_bytes": self.output_bytes,
            "processing_ms": round(self.processing_ns / 1e6, 4),
        }


@dataclass(slots=True)
class ReplayReport:
    """What a service made of a capture."""

    service: str
    chunks: list[ReplayedChunk] = field(default_factory=list)
    cut_off_count: int = 0
    """Chunks that the capture has only the beginning of; skipped."""
    refused: Counter[str] = field(default_factory=Counter)
    """Chunks that the runtime would not take, by why; skipped."""

    @property
    def failed_count(self) -> int:
        return sum(one.code is VerdictCode.FAILED for one in self.chunks)

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return {
            "service": self.service,
            "chunks": [one.to_dict() for one in self.chunks],
            "skipped": {"cut_off": self.cut_off_count, "refused": dict(self.refused)},
            "verdicts": dict(Counter(one.code.name.lower() for one in self.chunks)),
        }


def run_replay(
    found: FoundService,
    settings: Mapping[str, str],
    chunks: Iterable[CapturedChunk],
    *,
    speed: float | None = None,
    limit: int | None = None,
) -> ReplayReport:
    """Let a service process the chunks of a capture in their order.

    The service is attached under the SID that the first chunk asks for, so that parameters for it
    reach it.

    Args:
        speed: 1 for the pace of the capture; None: one after the other.
        limit: how many at the most, those that are skipped not counted.

    Raises:
        ServiceConfigError: the service cannot start with these settings.
        CaptureError: the capture is damaged.
    """
    report = ReplayReport(found.manifest.service.name)
    source = iter(chunks)
    first = next(source, None)
    if first is None:
        return report
    sid = first.header.next_sid or HARNESS_SID
    pace = _Pace(speed)
    with ServiceHarness(found, settings, sid=sid) as harness:
        for chunk in itertools.chain([first], source):
            if len(report.chunks) == limit:
                break
            if not chunk.is_whole:
                report.cut_off_count += 1
                continue
            pace.wait_for(chunk)
            try:
                result = harness.process_chunk(chunk.header, chunk.payload)
            except ServiceMisuseError as error:
                report.refused[str(error)] += 1
                continue
            report.chunks.append(ReplayedChunk.of(chunk, result))
    return report


class _Pace:
    """Waits until it is a chunk's turn."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._began: tuple[float, int] | None = None
        """When the first chunk was given, by the clock and by the capture."""

    def wait_for(self, chunk: CapturedChunk) -> None:
        if self._speed is None or chunk.time_ns is None:
            return
        now = time.monotonic()
        if self._began is None:
            self._began = (now, chunk.time_ns)
        began_at, began_ns = self._began
        due = began_at + (chunk.time_ns - began_ns) / 1e9 / self._speed
        time.sleep(max(0.0, due - now))
