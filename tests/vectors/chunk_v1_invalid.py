"""Bytes that chunk format 1 refuses, each made by hand from a good vector, and the reason."""

from __future__ import annotations

from packetcloud.chunk.header import (
    FIXED_BYTES,
    MAX_HEADER_BYTES,
    SID_OFFSET,
    ExtensionType,
    ServiceSequence,
)
from packetcloud.chunk.messages import (
    MAX_DETAIL_BYTES,
    TASK_BYTES,
    VERDICT_BYTES,
    DeliveryReport,
    Outcome,
    encode_reports,
)
from packetcloud.chunk.names import SID_SEQUENCE, ChunkId
from tests.vectors.chunk_v1_valid import (
    SIDS,
    good_reports,
    good_tasks,
    good_verdicts,
    make_header,
    sequence_header,
)

BadBytes = dict[str, tuple[bytes, str]]
"""Name -> the bytes and the reason with which they must be refused."""


def bad_bytes() -> dict[str, BadBytes]:
    """Return, for each decoder of `chunk_v1.DECODERS`, what it must refuse."""
    return {
        "header": _bad_headers(),
        "chunk": _bad_chunks(),
        "task": _bad_tasks(),
        "verdict": _bad_verdicts(),
        "reports": _bad_reports(),
    }


def _bad_headers() -> BadBytes:
    plain = make_header().to_bytes()
    sequence = sequence_header(ServiceSequence((SIDS[0], SIDS[1]))).to_bytes()
    first_sid = FIXED_BYTES + 4 + 2
    zero, reserved = bytes(20), b"\xff" * 20
    fixed: BadBytes = {
        "empty": (b"", "short_header"),
        "one byte short of the fixed part": (plain[:-1], "short_header"),
        "version 0": (put(plain, 0, b"\x00"), "bad_version"),
        "version 2": (put(plain, 0, b"\x02"), "bad_version"),
        "header length 0": (put(plain, 2, b"\x00\x00"), "bad_header_length"),
        "header length 87": (put(plain, 2, b"\x00\x57"), "bad_header_length"),
        "header length beyond the data": (put(plain, 2, b"\x00\x59"), "bad_header_length"),
        "header length 1025": (_long_header(MAX_HEADER_BYTES + 1), "bad_header_length"),
        "delivery mode 3": (put(plain, 4, b"\x03"), "bad_delivery_mode"),
        "delivery mode 5": (put(plain, 4, b"\x05"), "bad_delivery_mode"),
        "reserved, high byte": (put(plain, 6, b"\x80"), "reserved_bits"),
        "reserved, low byte": (put(plain, 7, b"\x01"), "reserved_bits"),
        "reserved SID without a sequence": (put(plain, SID_OFFSET, reserved), "bad_sequence"),
        "sequence without the reserved SID": (put(sequence, SID_OFFSET, zero), "bad_sequence"),
        "sequence with an ordinary SID": (
            put(sequence, SID_OFFSET, SIDS[0].value),
            "bad_sequence",
        ),
        "cursor beyond the sequence": (put(sequence, first_sid - 2, b"\x03"), "bad_sequence"),
        "count smaller than the SIDs": (put(sequence, first_sid - 1, b"\x01"), "bad_sequence"),
        "count larger than the SIDs": (put(sequence, first_sid - 1, b"\x03"), "bad_sequence"),
        "zero SID in a sequence": (put(sequence, first_sid, zero), "bad_sequence"),
        "reserved SID in a sequence": (put(sequence, first_sid, reserved), "bad_sequence"),
    }
    names = b"".join(bytes([0xA0 + number]) * 20 for number in range(17))
    extended = {
        "head cut off": (b"\x03\x00\x00", "bad_extension"),
        "value cut off": (b"\x08\x00\x00\x02\x00", "bad_extension"),
        "type 0": (_tlv(0), "bad_extension"),
        "type 0, critical": (_tlv(0, flags=0x80), "bad_extension"),
        "unknown and critical": (_tlv(8, flags=0x80), "unknown_critical_extension"),
        "unknown with a reserved flag": (_tlv(8, flags=0x01), "bad_extension"),
        "known with a reserved flag": (_tlv(3, flags=0x40), "bad_extension"),
        "known, marked critical": (_tlv(3, flags=0x80), "bad_extension"),
        "parameters, marked critical": (_tlv(7, bytes(20), 0x80), "bad_extension"),
        "sequence not marked critical": (_tlv(1, b"\x00\x01" + SIDS[0].value), "bad_extension"),
        "empty sequence": (_tlv(1, b"\x00\x00", 0x80), "bad_sequence"),
        "sequence without a count": (_tlv(1, b"\x00", 0x80), "bad_sequence"),
        "sequence of 17": (_tlv(1, b"\x00\x11" + names, 0x80), "bad_sequence"),
        "twice the same": (_tlv(3) + _tlv(3), "bad_extension"),
        "out of order": (_tlv(4) + _tlv(3), "bad_extension"),
        "unknown before known": (_tlv(8) + _tlv(7, bytes(20)), "bad_extension"),
        "lifetime of 3 bytes": (_tlv(2, bytes(3)), "bad_extension"),
        "lifetime of 5 bytes": (_tlv(2, bytes(5)), "bad_extension"),
        "report request with a value": (_tlv(3, b"\x01"), "bad_extension"),
        "trace request with a value": (_tlv(4, b"\x01"), "bad_extension"),
        "digest of 31 bytes": (_tlv(5, b"\x01" + bytes(31)), "bad_extension"),
        "digest of 33 bytes": (_tlv(5, b"\x01" + bytes(33)), "bad_extension"),
        "empty digest": (_tlv(5), "bad_extension"),
        "digest algorithm 0": (_tlv(5, b"\x00" + bytes(32)), "bad_digest"),
        "digest algorithm 3": (_tlv(5, b"\x03" + bytes(32)), "bad_digest"),
        "signature of 95 bytes": (_tlv(6, bytes(95)), "bad_extension"),
        "signature of 97 bytes": (_tlv(6, bytes(97)), "bad_extension"),
        "parameters of 19 bytes": (_tlv(7, bytes(19)), "bad_extension"),
    }
    return fixed | {name: (_extended(tlv), reason) for name, (tlv, reason) in extended.items()}


def _bad_chunks() -> BadBytes:
    head = make_header(payload_bytes=3).to_bytes()
    return {
        "payload cut off": (head + b"ab", "bad_payload_length"),
        "payload missing": (head, "bad_payload_length"),
        "bytes after the payload": (head + b"abcd", "bad_payload_length"),
        "cut off inside the header": (head[:40], "short_header"),
    }


def _bad_tasks() -> BadBytes:
    task = good_tasks()["task"].to_bytes()
    return {
        "empty": (b"", "short_task"),
        "one byte short": (task[: TASK_BYTES - 1], "short_task"),
        "reserved bits": (put(task, 15, b"\x01"), "reserved_bits"),
    }


def _bad_verdicts() -> BadBytes:
    forward = good_verdicts()["forward"].to_bytes()
    drop = good_verdicts()["drop"].to_bytes()
    emit = good_verdicts()["emit instead"].to_bytes()
    redirect = good_verdicts()["redirect"].to_bytes()
    retyped = good_verdicts()["update, largest payload type"].to_bytes()
    too_long = put(drop, 10, (MAX_DETAIL_BYTES + 1).to_bytes(2, "big")) + bytes(600)
    return {
        "empty": (b"", "short_verdict"),
        "one byte short": (forward[: VERDICT_BYTES - 1], "short_verdict"),
        "code 0": (put(forward, 8, b"\x00"), "bad_verdict"),
        "code 7": (put(forward, 8, b"\x07"), "bad_verdict"),
        "reserved flag": (put(forward, 9, b"\x10"), "reserved_bits"),
        "payload type of a forward": (put(forward, 9, b"\x02"), "bad_verdict"),
        "payload type over a byte": (put(retyped, 22, b"\x01"), "bad_verdict"),
        "payload type of an emit that updates nothing": (put(emit, 9, b"\x03"), "bad_verdict"),
        "a forward that updates": (put(forward, 9, b"\x04"), "reserved_bits"),
        "updates what is not kept": (put(emit, 9, b"\x04"), "reserved_bits"),
        "kept, and again": (put(emit, 9, b"\x09"), "reserved_bits"),
        "a forward again": (put(forward, 9, b"\x08"), "reserved_bits"),
        "detail cut off": (drop[:-1], "bad_verdict"),
        "detail of 513 bytes": (too_long, "bad_verdict"),
        "redirect without NA": (
            put(redirect, 10, b"\x00\x14")[: VERDICT_BYTES + 20],
            "bad_verdict",
        ),
        "redirect to nowhere": (put(forward, 8, b"\x04"), "bad_verdict"),
    }


def _bad_reports() -> BadBytes:
    entry = encode_reports(good_reports()["delivered"])
    told = encode_reports([DeliveryReport(ChunkId(1), Outcome.REFUSED, 1, "ab")])
    long_detail = put(entry, 10, (MAX_DETAIL_BYTES + 1).to_bytes(2, "big")) + bytes(513)
    return {
        "cut off": (entry[:-1], "bad_report"),
        "second entry cut off": (entry + entry[:5], "bad_report"),
        "outcome 0": (put(entry, 8, b"\x00"), "bad_report"),
        "outcome 4": (put(entry, 8, b"\x04"), "bad_report"),
        "delivered at second hand": (put(entry, 8, b"\x81"), "bad_report"),
        "unknown flag of an outcome": (put(entry, 8, b"\x42"), "bad_report"),
        "detail cut off": (told[:-1], "bad_report"),
        "detail of 513 bytes": (long_detail, "bad_report"),
        "detail that is not UTF-8": (told[:-1] + b"\xff", "bad_report"),
    }


def put(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def _tlv(kind: int, value: bytes = b"", flags: int = 0) -> bytes:
    return bytes([kind, flags]) + len(value).to_bytes(2, "big") + value


def _extended(extensions: bytes) -> bytes:
    """A plain header with `extensions` behind it, and the reserved SID if one is a sequence."""
    data = put(make_header().to_bytes(), 2, (FIXED_BYTES + len(extensions)).to_bytes(2, "big"))
    if extensions[0] == ExtensionType.SERVICE_SEQUENCE:
        data = put(data, SID_OFFSET, SID_SEQUENCE.value)
    return data + extensions


def _long_header(header_bytes: int) -> bytes:
    data = _extended(_tlv(9, bytes(header_bytes - FIXED_BYTES - 4)))
    assert len(data) == header_bytes
    return data
