"""`service test`: a service on files or made-up data, without a network."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.messages import VerdictCode
from packetcloud.services.catalogue import FoundService
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.testing import ProcessResult, ServiceHarness

MAX_REASONS = 16
"""Different drop reasons and failures that a trial tells apart."""


class GeneratedKind(StrEnum):
    """Made-up payloads."""

    TEXT = "text"
    """Log lines; zstandard level 1 leaves about a tenth."""
    RANDOM = "random"
    ZEROS = "zeros"
    MIXED = "mixed"
    """Half text, half random."""


@dataclass(slots=True)
class TrialReport:
    """What a trial saw. Times are those inside `process`."""

    service: str
    direction: str = ""
    chunks_count: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    processing_ns: list[int] = field(default_factory=list)
    output_buffers: int = 0

    def add(self, payload: memoryview, result: ProcessResult) -> None:
        self.chunks_count += 1
        self.input_bytes += len(payload)
        self.output_bytes += output_of(payload, result)
        self.verdicts[result.code.name.lower()] += 1
        if result.reason:
            known = result.reason in self.reasons or len(self.reasons) < MAX_REASONS
            self.reasons[result.reason if known else "(others)"] += 1
        self.processing_ns.append(result.processing_ns)

    @property
    def ratio(self) -> float:
        """Output per input bytes."""
        return self.output_bytes / self.input_bytes if self.input_bytes else 1.0

    def percentile_ms(self, share: float) -> float:
        """Return the processing time that `share` of the chunks did not exceed."""
        if not self.processing_ns:
            return 0.0
        ordered = sorted(self.processing_ns)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6

    @property
    def throughput_mib_s(self) -> float:
        total_ns = sum(self.processing_ns)
        return self.input_bytes / (1 << 20) / (total_ns / 1e9) if total_ns else 0.0

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return {
            "service": self.service,
            "setting": self.direction,
            "chunks": self.chunks_count,
            "input_bytes": self.input_bytes,
            "output_bytes": self.output_bytes,
            "ratio": round(self.ratio, 6),
            "verdicts": dict(self.verdicts),
            "reasons": dict(self.reasons),
            "processing_ms_p50": round(self.percentile_ms(0.5), 4),
            "processing_ms_p99": round(self.percentile_ms(0.99), 4),
            "processing_ms_max": round(self.percentile_ms(1.0), 4),
            "throughput_mib_s": round(self.throughput_mib_s, 1),
            "output_buffers": self.output_buffers,
        }


@dataclass(frozen=True, slots=True)
class PairReport:
    """A trial of two settings that undo each other."""

    first: TrialReport
    second: TrialReport
    differing_count: int
    """Chunks that did not come back as they went in."""


def output_of(payload: memoryview, result: ProcessResult) -> int:
    """Return how many payload bytes would leave the router for this chunk."""
    match result.code:
        case VerdictCode.UPDATE:
            return len(result.payload)
        case VerdictCode.EMIT:
            kept = len(payload) if result.keep and not result.updates else len(result.payload)
            return kept + sum(len(chunk.payload) for chunk in result.emitted)
        case VerdictCode.FORWARD | VerdictCode.REDIRECT:
            return len(payload)
        case _:
            return 0


def file_payloads(path: Path, chunk_bytes: int) -> Iterator[memoryview]:
    """Yield the content of a file in pieces of `chunk_bytes`; an empty file is one empty chunk."""
    with path.open("rb") as stream:
        piece = stream.read(chunk_bytes)
        yield memoryview(piece)
        while piece := stream.read(chunk_bytes):
            yield memoryview(piece)


def generated_payloads(
    kind: GeneratedKind, count: int, chunk_bytes: int, seed: int
) -> Iterator[memoryview]:
    """Yield `count` payloads of `chunk_bytes`; the same for the same seed."""
    source = random.Random(seed)
    for number in range(count):
        actual = kind
        if kind is GeneratedKind.MIXED:
            actual = GeneratedKind.RANDOM if number % 2 else GeneratedKind.TEXT
        match actual:
            case GeneratedKind.ZEROS:
                yield memoryview(bytes(chunk_bytes))
            case GeneratedKind.RANDOM:
                yield memoryview(source.randbytes(chunk_bytes))
            case _:
                yield memoryview(_text(source, chunk_bytes))


def run_trial(
    found: FoundService, settings: Mapping[str, str], payloads: Iterable[memoryview]
) -> TrialReport:
    """Let a service process every payload and report what it did.

    Raises:
        ServiceConfigError: the service cannot start with these settings.
    """
    report = TrialReport(found.manifest.service.name)
    with ServiceHarness(found, settings) as harness:
        for payload in payloads:
            report.add(payload, harness.process(payload))
        report.output_buffers = harness.output_buffers
    return report


def run_pair(
    found: FoundService, settings: Mapping[str, str], payloads: Iterable[memoryview]
) -> PairReport:
    """Pass every payload through both settings of the manifest's `[pair]` and compare.

    Raises:
        ServiceConfigError: the manifest has no `[pair]`, or the service cannot start.
    """
    name = found.manifest.service.name
    pair = found.manifest.pair
    if pair is None:
        raise ServiceConfigError(f"service {name} has no [pair] in its manifest")
    there, back = (str(value) for value in pair.values)
    first, second = TrialReport(name, there), TrialReport(name, back)
    differing = 0
    with (
        ServiceHarness(found, {**settings, pair.parameter: there}) as ahead,
        ServiceHarness(found, {**settings, pair.parameter: back}) as behind,
    ):
        for number, payload in enumerate(payloads, 1):
            went = ahead.process(payload, chunk_id=number)
            first.add(payload, went)
            between = payload if went.code is VerdictCode.FORWARD else memoryview(went.payload)
            if went.code not in (VerdictCode.FORWARD, VerdictCode.UPDATE):
                differing += 1
                continue
            kind = PayloadType.DATA if went.payload_type is None else went.payload_type
            came = behind.process(between, chunk_id=number, payload_type=kind)
            second.add(between, came)
            restored = between if came.code is VerdictCode.FORWARD else came.payload
            is_passed = came.code in (VerdictCode.FORWARD, VerdictCode.UPDATE)
            arrived = kind if came.payload_type is None else came.payload_type
            is_same = restored == payload and arrived == PayloadType.DATA
            differing += not (is_passed and is_same)
        first.output_buffers, second.output_buffers = ahead.output_buffers, behind.output_buffers
    return PairReport(first, second, differing)


def _text(source: random.Random, count: int) -> bytes:
    lines = []
    length = 0
    while length < count:
        line = (
            f"{source.randrange(10**6):06d} GET /item/{source.randrange(5000)} 200 "
            f"{source.randrange(100)} ms\n"
        ).encode()
        lines.append(line)
        length += len(line)
    return b"".join(lines)[:count]
