"""Writes pcapng: section, one interface, packets with comments. Returns bytes, does no I/O.

    section("packetcloud") + interface("r1", LINK_RAW) + packet(data, 60, time_ns, comment="taken")

Times are nanoseconds since 1970. `capture` reads it. Source: IETF draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from packetcloud.chunk.capture import MAX_BLOCK_BYTES, read_options
from packetcloud.chunk.errors import CaptureError

LINK_RAW = 101
"""Packets begin with an IP header, of version 4 or 6."""
MAX_COMMENT_BYTES = 2048

_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_STATISTICS = 5
_ENHANCED_PACKET = 6
_BYTE_ORDER = 0x1A2B3C4D
_LENGTH_UNKNOWN = -1
_NANOSECONDS = bytes([9])
_COMMENT = 1
_NAME = 2
_FLAGS = 2
_APPLICATION = 4
_LOST_COUNT = 4
_ALL_LOST_COUNT = 5
_TIME_RESOLUTION = 9


class Direction(IntEnum):
    """Which way a packet went, as pcapng's flags say it."""

    UNKNOWN = 0
    INBOUND = 1
    OUTBOUND = 2


def section(application: str) -> bytes:
    """Return the header of a section; whatever follows it belongs to it."""
    body = struct.pack(">IHHq", _BYTE_ORDER, 1, 0, _LENGTH_UNKNOWN)
    return _block(_SECTION, body, [(_APPLICATION, application.encode())])


def interface(name: str, link_type: int) -> bytes:
    """Return the description of the one interface that all packets are of."""
    options = [(_NAME, name.encode()), (_TIME_RESOLUTION, _NANOSECONDS)]
    return _block(_INTERFACE, struct.pack(">HHI", link_type, 0, 0), options)


def packet(
    data: bytes,
    wire_bytes: int,
    time_ns: int,
    *,
    direction: Direction = Direction.UNKNOWN,
    comment: str = "",
    lost_count: int = 0,
) -> bytes:
    """Return one packet.

    Args:
        data: its first bytes, or all.
        wire_bytes: how many it has.
        comment: for people and programs; cut after `MAX_COMMENT_BYTES`.
        lost_count: packets that there was no room for since the one before.
    """
    head = struct.pack(
        ">IIIII", 0, time_ns >> 32 & 0xFFFF_FFFF, time_ns & 0xFFFF_FFFF, len(data), wire_bytes
    )
    options = []
    if comment:
        text = comment.encode("utf-8", "replace")[:MAX_COMMENT_BYTES]
        options.append((_COMMENT, text.decode("utf-8", "ignore").encode()))
    if direction:
        options.append((_FLAGS, struct.pack(">I", direction)))
    if lost_count:
        options.append((_LOST_COUNT, struct.pack(">Q", lost_count)))
    return _block(_ENHANCED_PACKET, head + _padded(data), options)


def statistics(time_ns: int, lost_count: int) -> bytes:
    """Return what is said at the end: how many packets there was no room for in all."""
    head = struct.pack(">III", 0, time_ns >> 32 & 0xFFFF_FFFF, time_ns & 0xFFFF_FFFF)
    return _block(_STATISTICS, head, [(_ALL_LOST_COUNT, struct.pack(">Q", lost_count))])


class BlockCounter:
    """Cuts a stream into whole blocks, so that a file never ends in the middle of one."""

    def __init__(self) -> None:
        self.packets_count = 0
        self.commented_count = 0
        """Packets with a comment: of a chunk in several packets the first."""
        self.lost_count = 0
        """Packets that whoever captured had no room for."""
        self._rest = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Return the blocks that are complete now; keeps at most one that is not.

        Raises:
            CaptureError: it is no pcapng in network order, or a block is larger than any may be.
        """
        self._rest += data
        at = 0
        while len(self._rest) - at >= 12:
            kind, size = struct.unpack_from(">II", self._rest, at)
            if size % 4 or not 12 <= size <= MAX_BLOCK_BYTES:
                raise CaptureError(f"a block of {size} bytes in the stream; it is no capture")
            if len(self._rest) - at < size:
                break
            self._count(kind, bytes(self._rest[at + 8 : at + size - 4]))
            at += size
        whole = bytes(self._rest[:at])
        del self._rest[:at]
        return whole

    def _count(self, kind: int, body: bytes) -> None:
        if kind == _ENHANCED_PACKET and len(body) >= 20:
            self.packets_count += 1
            size = int.from_bytes(body[12:16], "big")
            options = dict(read_options(body, ">", 20 + size + -size % 4))
            self.commented_count += _COMMENT in options
            self.lost_count += int.from_bytes(options.get(_LOST_COUNT, b""), "big")
        elif kind == _STATISTICS:
            options = dict(read_options(body, ">", 12))
            all_lost = int.from_bytes(options.get(_ALL_LOST_COUNT, b""), "big")
            self.lost_count = max(self.lost_count, all_lost)


def _block(kind: int, body: bytes, options: list[tuple[int, bytes]]) -> bytes:
    parts = [body]
    for code, value in options:
        parts += [struct.pack(">HH", code, len(value)), _padded(value)]
    if options:
        parts.append(bytes(4))
    content = b"".join(parts)
    size = struct.pack(">I", len(content) + 12)
    return struct.pack(">I", kind) + size + content + size


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
