"""The chunks of a capture file, put together from the segments of open sessions.

Source: docs/protocol/hop.md; docs/how-to/capture-chunks.md.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import ChunkHeader, decode_header
from packetcloud.chunk.messages import TASK_BYTES
from packetcloud.chunk.names import GUID
from packetcloud.chunk.open_frames import Place
from packetcloud.chunk.pcap import Sighting

MAX_UNFINISHED_BYTES = 128 << 20
"""Of bodies whose end has not been seen; beyond it the oldest counts as cut off."""

_Key = tuple[Place, int | None, int]


@dataclass(frozen=True, slots=True)
class CapturedChunk:
    """One chunk as the capture has it."""

    packet: int
    """Number of the packet that it begins in."""
    time_ns: int | None
    header: ChunkHeader
    payload: bytes
    """All of it, or its first bytes."""
    comment: str = ""
    """What a router that captured says about it."""
    is_task: bool = False
    """As it was given to a VI."""

    @property
    def is_whole(self) -> bool:
        return len(self.payload) == self.header.payload_bytes

    @property
    def neighbour(self) -> GUID | None:
        """Who a router got it from, as its comment says."""
        found = re.search(r"; from=(?:host|router) ([0-9a-f]{40})(?:;|$)", self.comment)
        return GUID.from_hex(found[1]) if found is not None else None

    @property
    def point(self) -> str:
        """Where a router captured it: the first word of its comment; empty for other captures."""
        return self.comment.split(";", 1)[0].split(" ", 1)[0]


@dataclass(slots=True)
class _Unfinished:
    first: Sighting
    is_task: bool
    body_bytes: int
    parts: dict[int, bytes] = field(default_factory=dict)
    held_bytes: int = 0


def captured_chunks(sightings: Iterable[Sighting]) -> Iterator[CapturedChunk]:
    """Yield each chunk, and each chunk of a task, when its last segment was seen or cut off.

    Segments whose beginning was not captured, and sealed ones, are left out.
    """
    unfinished: OrderedDict[_Key, _Unfinished] = OrderedDict()
    held_bytes = 0
    for sighting in sightings:
        for body in sighting.datagram.bodies:
            if body.kind not in ("chunk", "task") or "sealed" in body.fields:
                continue
            key = (sighting.source, sighting.datagram.session, body.transfer)
            if body.segment == 0 and body.header is not None:
                began = _Unfinished(sighting, body.kind == "task", body.body_bytes)
                before = unfinished.pop(key, None)
                held_bytes -= before.held_bytes if before is not None else 0
                unfinished[key] = began
            found = unfinished.get(key)
            if found is None or body.segment in found.parts:
                continue
            found.parts[body.segment] = body.content
            found.held_bytes += len(body.content)
            held_bytes += len(body.content)
            if found.held_bytes == found.body_bytes or sighting.is_cut:
                del unfinished[key]
                held_bytes -= found.held_bytes
                yield from _joined(found)
            while held_bytes > MAX_UNFINISHED_BYTES:
                _, oldest = unfinished.popitem(last=False)
                held_bytes -= oldest.held_bytes
                yield from _joined(oldest)
    for left in unfinished.values():
        yield from _joined(left)


def _joined(found: _Unfinished) -> Iterator[CapturedChunk]:
    """Yield the chunk with its bytes up to the first that is missing."""
    content = bytearray()
    size = len(found.parts[0])
    for index in range(len(found.parts)):
        part = found.parts.get(index)
        if part is None:
            break
        content += part
        if len(part) < size:
            break
    del content[: TASK_BYTES if found.is_task else 0]
    try:
        header = decode_header(content)
    except ProtocolError:
        return
    header_bytes = int.from_bytes(content[2:4], "big")
    payload = bytes(content[header_bytes : header_bytes + header.payload_bytes])
    first = found.first
    yield CapturedChunk(first.packet, first.time_ns, header, payload, first.comment, found.is_task)
