"""Headers, verdicts and reports as JSON values and back, the form they have in the vector files."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import IntEnum
from typing import Any

from packetcloud.chunk.header import (
    ChunkHeader,
    DeliveryMode,
    DigestAlgorithm,
    PayloadDigest,
    ServiceParameters,
    ServiceSequence,
    SourceSignature,
    UnknownExtension,
)
from packetcloud.chunk.hop import wire
from packetcloud.chunk.messages import (
    DeliveryReport,
    Outcome,
    TaskHeader,
    VerdictCode,
    VerdictHeader,
)
from packetcloud.chunk.names import GUID, NA, SID, ChunkId

Fields = dict[str, Any]


def header_fields(header: ChunkHeader) -> Fields:
    """Return a header as JSON values: names and bytes in hex, absent extensions left out."""
    fields: Fields = {
        "hop_limit": header.hop_limit,
        "delivery_mode": int(header.delivery_mode),
        "payload_type": int(header.payload_type),
        "chunk_id": header.chunk_id.value,
        "payload_bytes": header.payload_bytes,
        "source": header.source.hex,
        "source_na": header.source_na.value,
        "destination": header.destination.hex,
        "destination_na": header.destination_na.value,
        "sid": header.sid.hex,
    }
    if header.sequence is not None:
        sids = [sid.hex for sid in header.sequence.sids]
        fields["sequence"] = {"cursor": header.sequence.cursor, "sids": sids}
    if header.lifetime_ms is not None:
        fields["lifetime_ms"] = header.lifetime_ms
    if header.wants_report:
        fields["wants_report"] = True
    if header.wants_trace:
        fields["wants_trace"] = True
    if header.digest is not None:
        digest = header.digest
        fields["digest"] = {"algorithm": int(digest.algorithm), "digest": digest.digest.hex()}
    if header.signature is not None:
        fields["signature"] = {
            "public_key": header.signature.public_key.hex(),
            "signature": header.signature.signature.hex(),
        }
    if header.parameters:
        fields["parameters"] = [
            {"sid": entry.sid.hex, "data": entry.data.hex()} for entry in header.parameters
        ]
    if header.unknown:
        fields["unknown"] = [
            {"type": entry.type, "data": entry.data.hex()} for entry in header.unknown
        ]
    return fields


def header_from_fields(fields: Fields) -> ChunkHeader:
    """Make the header that the JSON values describe."""
    values = dict(fields)
    for name, kind in (("source", GUID), ("destination", GUID), ("sid", SID)):
        values[name] = kind.from_hex(values[name])
    for name in ("source_na", "destination_na"):
        values[name] = NA(values[name])
    values["chunk_id"] = ChunkId(values["chunk_id"])
    values["delivery_mode"] = DeliveryMode(values["delivery_mode"])
    if sequence := values.get("sequence"):
        sids = tuple(SID.from_hex(text) for text in sequence["sids"])
        values["sequence"] = ServiceSequence(sids, sequence["cursor"])
    if digest := values.get("digest"):
        algorithm = DigestAlgorithm(digest["algorithm"])
        values["digest"] = PayloadDigest(algorithm, bytes.fromhex(digest["digest"]))
    if signature := values.get("signature"):
        values["signature"] = SourceSignature(
            bytes.fromhex(signature["public_key"]), bytes.fromhex(signature["signature"])
        )
    values["parameters"] = tuple(
        ServiceParameters(SID.from_hex(entry["sid"]), bytes.fromhex(entry["data"]))
        for entry in values.get("parameters", ())
    )
    values["unknown"] = tuple(
        UnknownExtension(entry["type"], bytes.fromhex(entry["data"]))
        for entry in values.get("unknown", ())
    )
    return ChunkHeader(**values)


def task_fields(task: TaskHeader) -> Fields:
    return {"task_id": task.task_id, "deadline_ms": task.deadline_ms}


def verdict_fields(verdict: VerdictHeader) -> Fields:
    fields = {
        "task_id": verdict.task_id,
        "code": int(verdict.code),
        "processing_ns": verdict.processing_ns,
        "detail": verdict.detail.hex(),
        "emit_count": verdict.emit_count,
        "keep": verdict.keep,
    }
    for flag in ("updates", "again"):
        if getattr(verdict, flag):
            fields[flag] = True
    if verdict.payload_type is not None:
        fields["payload_type"] = verdict.payload_type
    return fields


def verdict_from_fields(fields: Fields) -> VerdictHeader:
    values = dict(fields, code=VerdictCode(fields["code"]), detail=bytes.fromhex(fields["detail"]))
    return VerdictHeader(**values)


def report_fields(report: DeliveryReport) -> Fields:
    return {
        "chunk_id": report.chunk_id.value,
        "outcome": int(report.outcome),
        "reason": int(report.reason),
        "detail": report.detail,
        "second_hand": report.is_second_hand,
    }


def report_from_fields(fields: Fields) -> DeliveryReport:
    return DeliveryReport(
        ChunkId(fields["chunk_id"]),
        Outcome(fields["outcome"]),
        fields["reason"],
        fields["detail"],
        fields["second_hand"],
    )


def plain_fields(value: Any) -> Any:
    """Return a value of the hop protocol as JSON values: bytes in hex, a frame with its `frame`."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [plain_fields(member) for member in value]
    if isinstance(value, GUID):
        return value.hex
    if isinstance(value, IntEnum):
        return int(value)
    if not is_dataclass(value):
        return value
    found = {entry.name: plain_fields(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, wire.Frame):
        found = {"frame": type(value).__name__.removesuffix("Frame").lower()} | found
    return found
