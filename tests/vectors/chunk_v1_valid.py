"""Values of chunk format 1 by name: each field and extension at least once, and at its ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from packetcloud.chunk.header import (
    FIXED_BYTES,
    MAX_HEADER_BYTES,
    ChunkHeader,
    DeliveryMode,
    DigestAlgorithm,
    PayloadDigest,
    PayloadType,
    ServiceParameters,
    ServiceSequence,
    SourceSignature,
    UnknownExtension,
)
from packetcloud.chunk.messages import (
    MAX_DETAIL_BYTES,
    DeliveryReport,
    Outcome,
    TaskHeader,
    VerdictCode,
    VerdictHeader,
    encode_reports,
)
from packetcloud.chunk.names import GUID, NA, SID, SID_SEQUENCE, ChunkId
from packetcloud.chunk.reasons import Reason
from tests.vectors.fields import Fields

SOURCE = GUID(bytes(range(0x10, 0x24)))
DESTINATION = GUID(bytes(range(0x30, 0x44)))
SIDS = tuple(SID(bytes([0xA0 + number]) * 20) for number in range(16))


def good_headers() -> dict[str, ChunkHeader]:
    """Return every header vector by name: each field and each extension at least once."""
    sid = SIDS[0]
    digest = bytes(range(32))
    signature = SourceSignature(bytes(range(32)), bytes(range(64, 128)))
    parameters = ServiceParameters(SIDS[1], b"level=3")
    two = (SIDS[0], SIDS[1])
    return {
        "plain": make_header(),
        "every fixed field": make_header(
            chunk_id=ChunkId(0x0102_0304_0506_0708),
            payload_bytes=0x0011_2233,
            sid=sid,
            source_na=NA(0xC0A8_0101),
            destination_na=NA(0xC0A8_0202),
            hop_limit=7,
            delivery_mode=DeliveryMode.ANYCAST,
            payload_type=PayloadType.FILE,
        ),
        "largest fixed fields": make_header(
            chunk_id=ChunkId(2**64 - 1),
            payload_bytes=2**32 - 1,
            source_na=NA(2**32 - 1),
            destination_na=NA(2**32 - 1),
            hop_limit=255,
            delivery_mode=DeliveryMode.MULTIHOMING,
            payload_type=255,
        ),
        "hop limit zero": make_header(hop_limit=0),
        "multicast": make_header(delivery_mode=DeliveryMode.MULTICAST),
        "sid": make_header(sid=sid),
        "sequence at 0": sequence_header(ServiceSequence(two, 0)),
        "sequence at 1": sequence_header(ServiceSequence(two, 1)),
        "sequence at its end": sequence_header(ServiceSequence(two, 2)),
        "sequence of one": sequence_header(ServiceSequence((sid,))),
        "sequence of 16": sequence_header(ServiceSequence(SIDS, 15)),
        "sequence visits a service twice": sequence_header(ServiceSequence((sid, SIDS[1], sid))),
        "lifetime": make_header(lifetime_ms=60_000),
        "lifetime zero": make_header(lifetime_ms=0),
        "lifetime largest": make_header(lifetime_ms=2**32 - 1),
        "report request": make_header(wants_report=True),
        "trace request": make_header(wants_trace=True),
        "digest sha-256": make_header(digest=PayloadDigest(DigestAlgorithm.SHA256, digest)),
        "digest blake2b": make_header(digest=PayloadDigest(DigestAlgorithm.BLAKE2B_256, digest)),
        "signature": make_header(signature=signature),
        "parameters": make_header(parameters=(parameters,)),
        "parameters without data": make_header(parameters=(ServiceParameters(sid, b""),)),
        "parameters of two services": make_header(
            parameters=(ServiceParameters(sid, b"\x00\xff"), parameters)
        ),
        "unknown extensions": make_header(
            unknown=(
                UnknownExtension(8, b""),
                UnknownExtension(200, b"one"),
                UnknownExtension(200, b"two"),
                UnknownExtension(255, b"\x00"),
            )
        ),
        "every extension": sequence_header(
            ServiceSequence(two, 1),
            payload_bytes=5,
            lifetime_ms=1500,
            wants_report=True,
            wants_trace=True,
            digest=PayloadDigest(DigestAlgorithm.SHA256, digest),
            signature=signature,
            parameters=(parameters,),
            unknown=(UnknownExtension(8, b"new"),),
        ),
        "largest header": make_header(
            unknown=(UnknownExtension(9, bytes(MAX_HEADER_BYTES - FIXED_BYTES - 4)),)
        ),
        "report chunk": make_header(
            payload_type=PayloadType.REPORT,
            payload_bytes=len(encode_reports(good_reports()["all outcomes"])),
            lifetime_ms=60_000,
        ),
    }


def good_tasks() -> dict[str, TaskHeader]:
    return {
        "task": TaskHeader(0x0102_0304_0506_0708, 30_000),
        "largest task": TaskHeader(2**64 - 1, 2**32 - 1),
        "smallest task": TaskHeader(0, 0),
    }


def good_verdicts() -> dict[str, VerdictHeader]:
    """Return a verdict of each code, and each field at its ends."""
    return {
        "forward": VerdictHeader(1, VerdictCode.FORWARD, 1_234_567),
        "update": VerdictHeader(2, VerdictCode.UPDATE, 2_000_000_000),
        "update, another payload type": VerdictHeader(
            2, VerdictCode.UPDATE, 7, payload_type=PayloadType.SEALED
        ),
        "update, largest payload type": VerdictHeader(2, VerdictCode.UPDATE, 7, payload_type=255),
        "drop": VerdictHeader(3, VerdictCode.DROP, 10, b"no such key"),
        "drop without a word": VerdictHeader(3, VerdictCode.DROP, 10),
        "redirect": VerdictHeader.redirect(4, 99, DESTINATION, NA(7)),
        "redirect, late binding": VerdictHeader.redirect(4, 99, DESTINATION, NA(0)),
        "emit instead": VerdictHeader(5, VerdictCode.EMIT, 5, emit_count=3),
        "emit as well": VerdictHeader(6, VerdictCode.EMIT, 5, emit_count=1, keep=True),
        "update and emit": VerdictHeader(
            6, VerdictCode.EMIT, 5, emit_count=1, keep=True, updates=True
        ),
        "update and emit, another payload type": VerdictHeader(
            6, VerdictCode.EMIT, 5, emit_count=2**24 - 1, keep=True, payload_type=255, updates=True
        ),
        "drop for now": VerdictHeader(3, VerdictCode.DROP, 10, b"not yet", again=True),
        "emit, and drop for now": VerdictHeader(
            3, VerdictCode.EMIT, 10, b"not yet", emit_count=2, again=True
        ),
        "failed": VerdictHeader(7, VerdictCode.FAILED, 0, b"ValueError: odd"),
        "longest detail": VerdictHeader(8, VerdictCode.FAILED, 0, b"x" * MAX_DETAIL_BYTES),
        "largest fields": VerdictHeader(
            2**64 - 1, VerdictCode.EMIT, 2**64 - 1, emit_count=2**32 - 1, keep=True
        ),
    }


def good_reports() -> dict[str, list[DeliveryReport]]:
    """Return report payloads: none, each outcome, the longest detail."""
    refused = DeliveryReport(ChunkId(2), Outcome.REFUSED, Reason.UNKNOWN_SID, "no VI of a0a0a0a0")
    return {
        "no entry": [],
        "delivered": [DeliveryReport(ChunkId(1), Outcome.DELIVERED)],
        "all outcomes": [
            DeliveryReport(ChunkId(1), Outcome.DELIVERED),
            refused,
            DeliveryReport(ChunkId(2**64 - 1), Outcome.EXPIRED, Reason.DEADLINE_PASSED),
        ],
        "failures at second hand": [
            replace(refused, is_second_hand=True),
            DeliveryReport(ChunkId(5), Outcome.EXPIRED, Reason.DEADLINE_PASSED, "", True),
        ],
        "detail beyond ASCII": [
            DeliveryReport(
                ChunkId(3), Outcome.REFUSED, Reason.RECEIVER_REFUSED, "kein Platz, größer"
            )
        ],
        "longest detail": [
            DeliveryReport(ChunkId(4), Outcome.REFUSED, 255, "y" * MAX_DETAIL_BYTES)
        ],
    }


def make_header(**fields: Any) -> ChunkHeader:
    values: Fields = {
        "source": SOURCE,
        "destination": DESTINATION,
        "chunk_id": ChunkId(1),
        "payload_bytes": 0,
    }
    return ChunkHeader(**values | fields)


def sequence_header(sequence: ServiceSequence, **fields: Any) -> ChunkHeader:
    return make_header(sid=SID_SEQUENCE, sequence=sequence, **fields)
