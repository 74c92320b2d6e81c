"""The law of every decoder of the chunk room, for any bytes whatever.

A value or exactly ProtocolError; what was accepted encodes to the same bytes again, so nobody can
alter a chunk without changing what it says; the input is never written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import (
    FIXED_BYTES,
    MAX_HEADER_BYTES,
    ChunkHeader,
    DeliveryMode,
    DigestAlgorithm,
    PayloadDigest,
    ServiceParameters,
    ServiceSequence,
    SourceSignature,
    UnknownExtension,
    decode_chunk,
    decode_header,
)
from packetcloud.chunk.messages import (
    MAX_DETAIL_BYTES,
    TASK_BYTES,
    DeliveryReport,
    Outcome,
    TaskHeader,
    VerdictCode,
    VerdictHeader,
    decode_reports,
    encode_reports,
)
from packetcloud.chunk.names import GUID, NA, SID, SID_SEQUENCE, SID_ZERO, ChunkId
from tests.vectors import chunk_v1

u8, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 32, 64))
guids = st.binary(min_size=20, max_size=20).map(GUID)
sids = st.binary(min_size=20, max_size=20).map(SID)
service_sids = sids.filter(lambda sid: sid not in (SID_ZERO, SID_SEQUENCE))


@st.composite
def sequences(draw: st.DrawFn) -> ServiceSequence:
    members = draw(st.lists(service_sids, min_size=1, max_size=16))
    return ServiceSequence(tuple(members), draw(st.integers(0, len(members))))


parameters = st.builds(ServiceParameters, sids, st.binary(max_size=60))
unknowns = st.builds(UnknownExtension, st.integers(8, 255), st.binary(max_size=60))


@st.composite
def headers(draw: st.DrawFn) -> ChunkHeader:
    """Any header that fits 1024 bytes."""
    sequence = draw(st.none() | sequences())
    return ChunkHeader(
        source=draw(guids),
        destination=draw(guids),
        chunk_id=ChunkId(draw(u64)),
        payload_bytes=draw(u32),
        sid=SID_SEQUENCE if sequence else draw(sids.filter(lambda sid: sid != SID_SEQUENCE)),
        source_na=NA(draw(u32)),
        destination_na=NA(draw(u32)),
        hop_limit=draw(u8),
        delivery_mode=draw(st.sampled_from(DeliveryMode)),
        payload_type=draw(u8),
        sequence=sequence,
        lifetime_ms=draw(st.none() | u32),
        wants_report=draw(st.booleans()),
        wants_trace=draw(st.booleans()),
        digest=draw(
            st.none()
            | st.builds(
                PayloadDigest,
                st.sampled_from(DigestAlgorithm),
                st.binary(min_size=32, max_size=32),
            )
        ),
        signature=draw(
            st.none()
            | st.builds(
                SourceSignature,
                st.binary(min_size=32, max_size=32),
                st.binary(min_size=64, max_size=64),
            )
        ),
        parameters=tuple(draw(st.lists(parameters, max_size=2))),
        unknown=tuple(
            sorted(draw(st.lists(unknowns, max_size=2)), key=lambda extension: extension.type)
        ),
    )


@st.composite
def verdicts(draw: st.DrawFn) -> VerdictHeader:
    code = draw(st.sampled_from(VerdictCode))
    low, high = (24, 24) if code is VerdictCode.REDIRECT else (0, MAX_DETAIL_BYTES)
    return VerdictHeader(
        draw(u64),
        code,
        draw(u64),
        draw(st.binary(min_size=low, max_size=high)),
        draw(u32),
        draw(st.booleans()),
    )


details = st.text(max_size=200).filter(
    lambda text: len(text.encode("utf-8", "replace")) <= MAX_DETAIL_BYTES and text.isprintable()
)
reports = st.builds(
    DeliveryReport, st.builds(ChunkId, u64), st.sampled_from(Outcome), u8, details
) | st.builds(
    DeliveryReport,
    st.builds(ChunkId, u64),
    st.sampled_from([Outcome.REFUSED, Outcome.EXPIRED]),
    u8,
    details,
    st.just(True),
)


@given(headers())
def test_headers_round_trip(header: ChunkHeader) -> None:
    """decode(encode(x)) == x."""
    wire = header.to_bytes()
    assert FIXED_BYTES <= len(wire) <= MAX_HEADER_BYTES
    assert decode_header(wire) == header


@given(st.builds(TaskHeader, u64, u32))
def test_tasks_round_trip(task: TaskHeader) -> None:
    """decode(encode(x)) == x."""
    assert TaskHeader.from_bytes(task.to_bytes()) == task


@given(verdicts())
def test_verdicts_round_trip(verdict: VerdictHeader) -> None:
    """decode(encode(x)) == x."""
    assert VerdictHeader.from_bytes(verdict.to_bytes()) == verdict


@given(st.lists(reports, max_size=20))
def test_reports_round_trip(entries: list[DeliveryReport]) -> None:
    """decode(encode(x)) == x."""
    assert decode_reports(encode_reports(entries)) == entries


def _header_again(data: bytes) -> tuple[bytes, bytes]:
    header_bytes = int.from_bytes(data[2:4], "big")
    return decode_header(data).to_bytes(), data[:header_bytes]


def _chunk_again(data: bytes) -> tuple[bytes, bytes]:
    header, payload = decode_chunk(data)
    return header.to_bytes() + payload, data


def _task_again(data: bytes) -> tuple[bytes, bytes]:
    return TaskHeader.from_bytes(data).to_bytes(), data[:TASK_BYTES]


def _verdict_again(data: bytes) -> tuple[bytes, bytes]:
    verdict = VerdictHeader.from_bytes(data)
    if verdict.code is VerdictCode.REDIRECT:
        assert len(verdict.redirect_target) == 2
    return verdict.to_bytes(), data[: verdict.encoded_bytes]


def _reports_again(data: bytes) -> tuple[bytes, bytes]:
    return encode_reports(decode_reports(data)), data


Again = Callable[[bytes], tuple[bytes, bytes]]
"""Decodes, and returns what that encodes to and the part of the input that it came from."""
AGAIN: dict[str, Again] = {
    "header": _header_again,
    "chunk": _chunk_again,
    "task": _task_again,
    "verdict": _verdict_again,
    "reports": _reports_again,
}
SECTIONS = {"headers": "header", "tasks": "task", "verdicts": "verdict", "reports": "reports"}


def check_law(kind: str, data: bytes) -> bool:
    """Decode `data` as `kind` and check the law; tell whether it was accepted."""
    buffer = bytearray(data)
    try:
        chunk_v1.DECODERS[kind](memoryview(buffer))
        accepted = True
    except ProtocolError as error:
        accepted = False
        assert error.reason.isidentifier() and error.reason.islower()
    assert buffer == data, "the decoder wrote into its input"
    if accepted:
        encoded, consumed = AGAIN[kind](data)
        assert encoded == consumed
    return accepted


kinds = pytest.mark.parametrize("kind", AGAIN)


@kinds
@given(data=st.binary(max_size=2048))
def test_any_bytes(kind: str, data: bytes) -> None:
    """Random bytes."""
    check_law(kind, data)


@kinds
@given(data=st.data())
def test_mutated_vectors(kind: str, data: st.DataObject) -> None:
    """Good bytes with a few changed, cut out, doubled or put in."""
    wire = bytearray(data.draw(st.sampled_from(_vectors(kind))))
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.integers(0, max(len(wire) - 1, 0)))
        length = data.draw(st.integers(0, 8))
        match data.draw(st.sampled_from(["overwrite", "cut", "double", "insert"])):
            case "overwrite":
                wire[offset : offset + length] = data.draw(
                    st.binary(min_size=length, max_size=length)
                )
            case "cut":
                del wire[offset : offset + length]
            case "double":
                wire[offset:offset] = wire[offset : offset + length]
            case _:
                wire[offset:offset] = data.draw(st.binary(max_size=8))
    check_law(kind, bytes(wire))


@given(extensions=st.lists(st.tuples(u8, st.sampled_from([0, 0x80, 1]), st.binary(max_size=40))))
def test_any_extensions(extensions: list[tuple[int, int, bytes]]) -> None:
    """Well-formed extensions of any type, flags and value behind a good fixed part."""
    tail = b"".join(
        bytes([kind, flags]) + len(value).to_bytes(2, "big") + value
        for kind, flags, value in sorted(extensions)
    )
    wire = bytearray(_vectors("header")[0][:FIXED_BYTES] + tail)
    wire[2:4] = min(len(wire), 0xFFFF).to_bytes(2, "big")
    check_law("header", bytes(wire))


@kinds
def test_every_truncation_and_every_bit_flip(kind: str) -> None:
    """Exhaustive: each good vector cut at each length, and with each single bit turned over."""
    accepted = 0
    for wire in _vectors(kind):
        for length in range(len(wire)):
            cut_off = check_law(kind, wire[:length])
            assert not (cut_off and kind in ("header", "chunk", "verdict", "task"))
        for index in range(len(wire)):
            for bit in range(8):
                flipped = bytearray(wire)
                flipped[index] ^= 1 << bit
                accepted += check_law(kind, bytes(flipped))
    assert accepted, "no flipped bit was accepted: the loop did not reach the values"


@kinds
def test_every_length_field_at_its_ends(kind: str) -> None:
    """Exhaustive: each 16-bit word of each vector set to 0, 1, one less, one more, the largest."""
    for wire in _vectors(kind):
        for index in range(len(wire) - 1):
            word = int.from_bytes(wire[index : index + 2], "big")
            for value in {0, 1, max(word - 1, 0), min(word + 1, 0xFFFF), 0xFFFF}:
                changed = wire[:index] + value.to_bytes(2, "big") + wire[index + 2 :]
                check_law(kind, changed)


def _vectors(kind: str) -> list[bytes]:
    """Return the good bytes of a kind; of a chunk: each header that states no large payload."""
    if kind == "chunk":
        wires = []
        for vector in _SECTIONS["headers"]:
            size = vector["fields"]["payload_bytes"]
            if size < 100:
                wires.append(bytes.fromhex(vector["bytes"]) + bytes(size))
        return wires
    section = next(name for name, found in SECTIONS.items() if found == kind)
    return [bytes.fromhex(vector["bytes"]) for vector in _SECTIONS[section] if vector["bytes"]]


_SECTIONS: dict[str, list[dict[str, Any]]] = {
    name: value for name, value in chunk_v1.FILE.load().items() if isinstance(value, list)
}
