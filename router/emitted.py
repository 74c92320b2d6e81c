"""The chunks that a service makes: taken out of an EMIT verdict, and given a header of this router.

Source: design, section 6, step 5.
"""

from __future__ import annotations

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import MAX_HEADER_BYTES, REPORT_TYPES, ChunkHeader, decode_header
from packetcloud.chunk.names import GUID, NA, SID

MAX_EMIT_COUNT = 1024
"""Chunks of one EMIT verdict, as in the SDK; more is a failed verdict."""

Emitted = tuple[ChunkHeader, bytes]
"""A chunk that a service made: its decoded header and its payload."""


def split_emitted(
    data: memoryview, count: int, *, updates: bool = False
) -> tuple[list[Emitted], bytes]:
    """Take the chunks out of the payload of an EMIT verdict and, with `updates`, what follows them:
    the new payload of the chunk that the service had. All are copies, each made once.

    Raises:
        ProtocolError: as `emitted_headers`.
    """
    emitted: list[Emitted] = []
    end = 0
    for header, end in emitted_headers(data, count, updates=updates):
        emitted.append((header, bytes(data[end - header.payload_bytes : end])))
    return emitted, bytes(data[end:])


def emitted_headers(
    data: memoryview, count: int, *, updates: bool = False
) -> list[tuple[ChunkHeader, int]]:
    """Return the header of each chunk in the payload of an EMIT verdict, and where the chunk ends.

    Raises:
        ProtocolError: cut off, bytes left over, a delivery report, or a source other than zero,
            which is the router's to fill in.
    """
    if not 1 <= count <= MAX_EMIT_COUNT:
        raise ProtocolError("bad_emit", f"{count} chunks, allowed 1..{MAX_EMIT_COUNT}")
    headers: list[tuple[ChunkHeader, int]] = []
    offset = 0
    for _ in range(count):
        header = decode_header(data[offset : offset + MAX_HEADER_BYTES])
        header_bytes = int.from_bytes(data[offset + 2 : offset + 4], "big")
        offset += header_bytes + header.payload_bytes
        if header.payload_type in REPORT_TYPES:
            raise ProtocolError("bad_emit", "a delivery report, which is no service's to make")
        if not header.source.is_zero:
            raise ProtocolError("bad_emit", "a source other than zero")
        if offset > len(data):
            raise ProtocolError("bad_emit", "cut off")
        headers.append((header, offset))
    if offset != len(data) and not updates:
        raise ProtocolError("bad_emit", f"{len(data) - offset} bytes left over")
    return headers


def header_from_router(made: ChunkHeader, sid: SID, na: NA, hop_limit: int) -> ChunkHeader:
    """Return the header under which an emitted chunk leaves: what is the router's to say, it says.

    Args:
        sid: the service that emitted it: its source from here on.
        hop_limit: of the chunk that the service had; what it makes gets no more.
    """
    return ChunkHeader(
        source=GUID(sid.value),
        destination=made.destination,
        chunk_id=made.chunk_id,
        payload_bytes=made.payload_bytes,
        sid=made.sid,
        source_na=na,
        destination_na=made.destination_na,
        hop_limit=min(made.hop_limit, hop_limit),
        payload_type=made.payload_type,
        sequence=made.sequence,
        lifetime_ms=made.lifetime_ms,
        parameters=made.parameters,
    )
