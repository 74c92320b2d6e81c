"""The chunk header: every field and extension, its caps, its helpers, our own mistakes."""

from __future__ import annotations

import tracemalloc
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from packetcloud.chunk import header as header_module
from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.header import (
    DESTINATION_NA_OFFSET,
    FIXED_BYTES,
    HOP_LIMIT_OFFSET,
    MAX_HEADER_BYTES,
    MAX_SEQUENCE_COUNT,
    PAYLOAD_BYTES_OFFSET,
    SID_OFFSET,
    SOURCE_NA_OFFSET,
    ChunkHeader,
    DeliveryMode,
    DigestAlgorithm,
    ExtensionType,
    PayloadDigest,
    ServiceParameters,
    ServiceSequence,
    SourceSignature,
    UnknownExtension,
    decode_chunk,
    decode_header,
    extension_value_offset,
)
from packetcloud.chunk.names import NA, SID, SID_SEQUENCE, SID_ZERO, ChunkId
from tests.vectors.chunk_v1_valid import SIDS, good_headers, make_header, sequence_header

EVERYTHING = good_headers()["every extension"]


def test_the_defaults_are_plain_delivery() -> None:
    """A header of names, id and length alone: unicast data, hop limit 32, no service, 88 bytes."""
    header = make_header()
    assert (header.hop_limit, header.delivery_mode, header.payload_type) == (32, 0, 0)
    assert header.sid == SID_ZERO and header.next_sid is None
    assert len(header.to_bytes()) == FIXED_BYTES == 88


def test_a_header_is_frozen() -> None:
    """Whoever changes a header makes a new one; another room's copy stays as it was."""
    for entry in fields(ChunkHeader):
        with pytest.raises(FrozenInstanceError):
            setattr(EVERYTHING, entry.name, None)


@pytest.mark.parametrize("data", [bytes, bytearray, memoryview])
def test_any_buffer_decodes(data: type) -> None:
    """bytes, bytearray and memoryview give the same header; what follows it is not looked at."""
    wire = EVERYTHING.to_bytes()
    assert decode_header(data(wire)) == EVERYTHING
    assert decode_header(data(wire + b"payload")) == EVERYTHING


def test_the_input_is_not_kept_and_not_written() -> None:
    """The buffer may be reused at once: the header keeps copies; the decoder wrote nothing."""
    wire = EVERYTHING.to_bytes()
    buffer = bytearray(wire)
    header = decode_header(memoryview(buffer))
    assert buffer == wire
    buffer[:] = b"\xff" * len(buffer)
    assert header == EVERYTHING
    buffer.clear()  # raises BufferError if a view of it were still held


def test_a_length_field_allocates_nothing() -> None:
    """A header that claims more than there is costs no more than the error about it."""
    wire = bytearray(make_header(payload_bytes=2**32 - 1).to_bytes() + b"\x08\x00\xff\xff")
    wire[2:4] = (FIXED_BYTES + 4).to_bytes(2, "big")
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="cut off"):
            decode_header(wire)
        assert tracemalloc.get_traced_memory()[1] < 16_384
    finally:
        tracemalloc.stop()


def test_offsets_point_at_their_fields() -> None:
    """A custodian rewrites these in place; each offset is where the decoder reads the field."""
    wire = bytearray(make_header().to_bytes())
    wire[HOP_LIMIT_OFFSET] = 9
    wire[PAYLOAD_BYTES_OFFSET : PAYLOAD_BYTES_OFFSET + 4] = (77).to_bytes(4, "big")
    wire[SOURCE_NA_OFFSET : SOURCE_NA_OFFSET + 4] = NA(5).to_bytes()
    wire[DESTINATION_NA_OFFSET : DESTINATION_NA_OFFSET + 4] = NA(6).to_bytes()
    wire[SID_OFFSET : SID_OFFSET + 20] = SIDS[0].value
    assert decode_header(wire) == make_header(
        hop_limit=9, payload_bytes=77, source_na=NA(5), destination_na=NA(6), sid=SIDS[0]
    )


def test_extension_values_are_rewritten_in_place() -> None:
    """Cursor and lifetime change without changing the header's length."""
    wire = bytearray(EVERYTHING.to_bytes())
    cursor = extension_value_offset(wire, ExtensionType.SERVICE_SEQUENCE)
    lifetime = extension_value_offset(wire, ExtensionType.LIFETIME)
    assert cursor is not None and lifetime is not None
    wire[cursor] = 2
    wire[lifetime : lifetime + 4] = (900).to_bytes(4, "big")
    assert EVERYTHING.sequence is not None
    moved = ServiceSequence(EVERYTHING.sequence.sids, 2)
    assert decode_header(wire) == replace(EVERYTHING, sequence=moved, lifetime_ms=900)


@pytest.mark.parametrize("kind", list(ExtensionType))
def test_extension_value_offset_of_an_absent_one(kind: ExtensionType) -> None:
    """None for what the header does not have, also when a payload that looks like it follows."""
    assert extension_value_offset(make_header().to_bytes(), kind) is None
    assert extension_value_offset(EVERYTHING.to_bytes(), kind) is not None
    lookalike = bytes([kind, 0, 0, 0])
    assert extension_value_offset(make_header().to_bytes() + lookalike, kind) is None


def test_a_sequence_is_1_to_16_sids() -> None:
    """0 and 17 are refused, 1 and 16 are not."""
    assert len(ServiceSequence(SIDS[:1]).sids) == 1
    assert len(ServiceSequence(SIDS).sids) == MAX_SEQUENCE_COUNT
    for sids in ((), (*SIDS, SID(b"x" * 20))):
        with pytest.raises(ProtocolError, match="bad_sequence"):
            ServiceSequence(sids)


@pytest.mark.parametrize("cursor", [-1, 3])
def test_a_cursor_stays_inside_its_sequence(cursor: int) -> None:
    """0..count is allowed: count means that every service ran."""
    with pytest.raises(ProtocolError, match="bad_sequence"):
        ServiceSequence(SIDS[:2], cursor)


@pytest.mark.parametrize("sid", [SID_ZERO, SID_SEQUENCE])
def test_reserved_sids_are_no_services(sid: SID) -> None:
    """Neither "plain" nor "many" can be a member of a sequence."""
    with pytest.raises(ProtocolError, match="reserved SID"):
        ServiceSequence((SIDS[0], sid))


def test_the_cursor_names_the_next_service() -> None:
    """`current` follows the cursor and ends with None."""
    visited = [ServiceSequence(SIDS[:2], cursor).current for cursor in range(3)]
    assert visited == [SIDS[0], SIDS[1], None]


def test_after_its_service_a_chunk_is_plain() -> None:
    """The SID is cleared, so that no later router runs the service again."""
    header = make_header(sid=SIDS[0])
    assert header.next_sid == SIDS[0]
    done = header.after_service(SIDS[0])
    assert done == make_header() and done.next_sid is None


def test_after_each_service_the_cursor_moves_on() -> None:
    """A sequence visits its services in order, each once, and then asks for none."""
    header = sequence_header(ServiceSequence((SIDS[0], SIDS[1], SIDS[0])))
    visited = []
    while (sid := header.next_sid) is not None:
        visited.append(sid)
        header = header.after_service(sid)
    assert visited == [SIDS[0], SIDS[1], SIDS[0]]
    assert header.sid == SID_SEQUENCE
    assert header.sequence is not None and header.sequence.cursor == 3
    assert decode_header(header.to_bytes()) == header


def test_another_service_changes_nothing() -> None:
    """A service that is not next neither clears the SID nor moves the cursor."""
    for header in (make_header(), make_header(sid=SIDS[0]), EVERYTHING):
        assert header.after_service(SIDS[5]) == header
    ended = sequence_header(ServiceSequence(SIDS[:1], 1))
    assert ended.after_service(SIDS[0]) == ended


def test_the_largest_header_has_1024_bytes() -> None:
    """1024 encode, 1025 are our own mistake."""
    room = MAX_HEADER_BYTES - FIXED_BYTES - 4
    fits = make_header(unknown=(UnknownExtension(8, bytes(room)),))
    assert len(fits.to_bytes()) == MAX_HEADER_BYTES
    assert decode_header(fits.to_bytes()) == fits
    for length in (room + 1, 65_535, 65_536):
        with pytest.raises(LocalMisuseError):
            make_header(unknown=(UnknownExtension(8, bytes(length)),)).to_bytes()
    with pytest.raises(LocalMisuseError):
        make_header(parameters=(ServiceParameters(SIDS[0], bytes(70_000)),)).to_bytes()


@pytest.mark.parametrize(
    "wrong",
    [
        {"hop_limit": 256},
        {"hop_limit": -1},
        {"payload_type": 256},
        {"payload_bytes": 2**32},
        {"payload_bytes": -1},
        {"delivery_mode": 3},
        {"lifetime_ms": 2**32},
        {"lifetime_ms": -1},
        {"sid": SID_SEQUENCE},
        {"sequence": ServiceSequence(SIDS[:1])},
        {"sequence": ServiceSequence(SIDS[:1]), "sid": SIDS[0]},
        {"unknown": (UnknownExtension(0, b""),)},
        {"unknown": (UnknownExtension(7, b""),)},
        {"unknown": (UnknownExtension(256, b""),)},
        {"unknown": (UnknownExtension(10, b""), UnknownExtension(9, b""))},
    ],
    ids=str,
)
def test_what_no_peer_would_accept_is_not_encoded(wrong: dict[str, object]) -> None:
    """A value out of its field's range is a LocalMisuseError; nothing is cut off in silence."""
    with pytest.raises(LocalMisuseError):
        make_header(**wrong).to_bytes()


@pytest.mark.parametrize("mode", list(DeliveryMode))
def test_delivery_modes_are_mobilityfirsts(mode: DeliveryMode) -> None:
    """0 unicast, 1 multicast, 2 anycast, 4 multihoming; each comes back as its enum member."""
    decoded = decode_header(make_header(delivery_mode=mode).to_bytes())
    assert decoded.delivery_mode is mode
    assert [int(value) for value in DeliveryMode] == [0, 1, 2, 4]


def test_fixed_lengths_of_digest_and_signature() -> None:
    """A digest has 32 bytes, a key 32, a signature 64."""
    for length in (31, 33):
        with pytest.raises(ProtocolError, match="bad_digest"):
            PayloadDigest(DigestAlgorithm.SHA256, bytes(length))
        with pytest.raises(ProtocolError, match="bad_signature"):
            SourceSignature(bytes(length), bytes(64))
    for length in (63, 65):
        with pytest.raises(ProtocolError, match="bad_signature"):
            SourceSignature(bytes(32), bytes(length))


def test_every_extension_type_is_in_the_vectors() -> None:
    """A new extension does not get in without a vector."""
    wires = [header.to_bytes() for header in good_headers().values()]
    for kind in ExtensionType:
        assert any(extension_value_offset(wire, kind) is not None for wire in wires), kind


def test_a_whole_chunk_is_header_and_payload() -> None:
    """The payload comes as a view of the caller's buffer: no copy of up to a MiB."""
    buffer = bytearray(make_header(payload_bytes=3, wants_report=True).to_bytes() + b"abc")
    header, payload = decode_chunk(buffer)
    assert header == make_header(payload_bytes=3, wants_report=True)
    assert bytes(payload) == b"abc"
    payload[0:1] = b"A"
    assert buffer.endswith(b"Abc")


@pytest.mark.parametrize("name", good_headers())
def test_the_payload_begins_where_the_header_ends(name: str) -> None:
    """Also behind headers so long that their length takes both of its bytes."""
    header = replace(good_headers()[name], payload_bytes=3)
    decoded, payload = decode_chunk(header.to_bytes() + b"abc")
    assert (decoded, bytes(payload)) == (header, b"abc")


@pytest.mark.parametrize("payload", [b"", b"ab", b"abcd"])
def test_a_chunk_has_the_payload_it_states(payload: bytes) -> None:
    """Fewer or more bytes than the header says are refused."""
    with pytest.raises(ProtocolError, match="bad_payload_length"):
        decode_chunk(make_header(payload_bytes=3).to_bytes() + payload)


def test_chunk_ids_keep_64_bits() -> None:
    """The largest id survives."""
    header = make_header(chunk_id=ChunkId(2**64 - 1))
    assert decode_header(header.to_bytes()).chunk_id.value == 2**64 - 1


def test_the_layout_has_no_gap() -> None:
    """The struct of the fixed part is what the offsets and the documents say: 88 bytes."""
    assert header_module.FIXED.size == FIXED_BYTES == SID_OFFSET + 20
