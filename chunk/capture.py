"""Capture files: the packets of a pcap or pcapng file, one after the other.

Our own reader, because scapy's takes a damaged or cut-off file for a shorter one and says nothing.
Nothing is believed: lengths are capped before anything is read, whatever the file says.

Source: IETF drafts draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from packetcloud.chunk.errors import CaptureError

MAX_PACKET_BYTES = 1 << 18
"""The largest snapshot length of libpcap, 256 KiB."""
MAX_BLOCK_BYTES = 1 << 24
"""Longest pcapng block that is read, 16 MiB: a packet and any comment on it."""
MAX_INTERFACES_COUNT = 4096

_PCAP_MAGICS = {
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}
"""First bytes of a pcap file: byte order, and nanoseconds of a unit of its second time field."""
_LINK_TYPE_MASK = 0x0FFF_FFFF
"""The upper bits of pcap's link type tell the length of a frame check sequence."""

_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_SIMPLE_PACKET = 3
_ENHANCED_PACKET = 6
_BYTE_ORDERS = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
_OPTION_COMMENT = 1
_OPTION_LOST_COUNT = 4
_OPTION_TIME_RESOLUTION = 9
_OPTION_TIME_OFFSET = 14


@dataclass(frozen=True, slots=True)
class CapturedPacket:
    """One packet of a capture file."""

    number: int
    """From 1, as other tools count."""
    time_ns: int | None
    """Since 1970; None where the file does not say."""
    link_type: int
    data: bytes
    wire_bytes: int
    """Length of the packet on the wire; `data` is shorter if the capture cut it off."""
    comment: str = ""
    """What the capture says about it."""
    lost_count: int = 0
    """Packets that whoever captured had no room for, between the one before and this one."""


def read_packets(stream: IO[bytes], name: str) -> Iterator[CapturedPacket]:
    """Yield the packets of a capture file; `name` is what errors call it.

    Raises:
        CaptureError: it is no capture file, or damaged; the packets before the damage were yielded.
    """
    reader = _Reader(stream, name)
    magic = reader.take(4)
    if magic in _PCAP_MAGICS:
        yield from _read_pcap(reader, *_PCAP_MAGICS[magic])
    elif magic == _SECTION.to_bytes(4, "big"):
        yield from _read_pcapng(reader)
    elif magic[:2] == b"\x1f\x8b":
        raise CaptureError(f"{name} is compressed; unpack it first: gunzip {name}")
    elif not magic:
        raise CaptureError(f"{name} is empty, not a pcap or pcapng file")
    else:
        raise CaptureError(f"{name} is neither a pcap nor a pcapng file")


class _Reader:
    """Reads exact lengths and knows how to complain."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self.name = name
        self.packets_count = 0

    def take(self, size: int) -> bytes:
        """Return up to `size` bytes; fewer only at the end of the file."""
        parts = []
        while size:
            part = self._stream.read(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def take_all(self, size: int, what: str) -> bytes:
        data = self.take(size)
        if len(data) != size:
            raise self.error(f"ends in the middle of {what}")
        return data

    def packet(
        self,
        time_ns: int | None,
        link_type: int,
        data: bytes,
        wire_bytes: int,
        comment: str = "",
        lost_count: int = 0,
    ) -> CapturedPacket:
        self.packets_count += 1
        return CapturedPacket(
            self.packets_count, time_ns, link_type, data, wire_bytes, comment, lost_count
        )

    def error(self, text: str) -> CaptureError:
        return CaptureError(f"{self.name}, after packet {self.packets_count}: {text}")


def _read_pcap(reader: _Reader, order: str, unit_ns: int) -> Iterator[CapturedPacket]:
    header = reader.take_all(20, "its header")
    link_type = struct.unpack(f"{order}I", header[16:])[0] & _LINK_TYPE_MASK
    record = struct.Struct(f"{order}IIII")
    while head := reader.take(record.size):
        if len(head) != record.size:
            raise reader.error("ends in the middle of a packet's header")
        seconds, units, size, wire_bytes = record.unpack(head)
        if size > MAX_PACKET_BYTES:
            raise reader.error(
                f"a packet of {size} bytes, at most {MAX_PACKET_BYTES}; it is damaged"
            )
        data = reader.take_all(size, "a packet")
        time_ns = seconds * 1_000_000_000 + units * unit_ns
        yield reader.packet(time_ns, link_type, data, wire_bytes)


# --- pcapng ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    snap_bytes: int
    units_per_s: int
    offset_s: int

    def time_ns(self, units: int) -> int:
        return self.offset_s * 1_000_000_000 + units * 1_000_000_000 // self.units_per_s


def _read_pcapng(reader: _Reader) -> Iterator[CapturedPacket]:
    order = _begin_section(reader)
    interfaces: list[_Interface] = []
    while head := reader.take(8):
        if len(head) != 8:
            raise reader.error("ends in the middle of a block's header")
        kind, size = struct.unpack(f"{order}II", head)
        if kind == _SECTION:  # its length may be in the other byte order
            order = _begin_section(reader, head[4:])
            interfaces = []
            continue
        block = _block_body(reader, order, size, 8)
        if kind == _INTERFACE:
            if len(interfaces) == MAX_INTERFACES_COUNT:
                raise reader.error(f"over {MAX_INTERFACES_COUNT} interfaces")
            interfaces.append(_interface(reader, order, block))
        elif kind == _ENHANCED_PACKET:
            yield _enhanced_packet(reader, order, block, interfaces)
        elif kind == _SIMPLE_PACKET:
            yield _simple_packet(reader, order, block, interfaces)


def _begin_section(reader: _Reader, size_bytes: bytes | None = None) -> str:
    """Read a section header behind its type (and length); return the section's byte order."""
    if size_bytes is None:
        size_bytes = reader.take_all(4, "a section header")
    order = _BYTE_ORDERS.get(reader.take_all(4, "a section header"))
    if order is None:
        raise reader.error("a section header without its byte-order mark; it is damaged")
    block = _block_body(reader, order, struct.unpack(f"{order}I", size_bytes)[0], 12)
    if len(block) < 4 or struct.unpack_from(f"{order}H", block)[0] != 1:
        raise reader.error("a pcapng section of an unknown version")
    return order


def _block_body(reader: _Reader, order: str, size: int, taken: int) -> bytes:
    """Read the rest of a block of `size` bytes, of which `taken` were read; check its end."""
    if not taken + 4 <= size <= MAX_BLOCK_BYTES or size % 4:
        raise reader.error(f"a block of {size} bytes; it is damaged")
    block = reader.take_all(size - taken, "a block")
    if struct.unpack(f"{order}I", block[-4:])[0] != size:
        raise reader.error("the two lengths of a block differ; it is damaged")
    return block[:-4]


def _interface(reader: _Reader, order: str, block: bytes) -> _Interface:
    if len(block) < 8:
        raise reader.error("an interface description is cut off")
    link_type, _, snap_bytes = struct.unpack_from(f"{order}HHI", block)
    units_per_s, offset_s = 1_000_000, 0
    for code, value in read_options(block, order, 8):
        if code == _OPTION_TIME_RESOLUTION and len(value) == 1:
            base, exponent = (2 if value[0] & 0x80 else 10), value[0] & 0x7F
            units_per_s = base**exponent
        elif code == _OPTION_TIME_OFFSET and len(value) == 8:
            offset_s = struct.unpack(f"{order}q", value)[0]
    return _Interface(link_type, snap_bytes, units_per_s, offset_s)


def _enhanced_packet(
    reader: _Reader, order: str, block: bytes, interfaces: list[_Interface]
) -> CapturedPacket:
    if len(block) < 20:
        raise reader.error("a packet block is cut off")
    index, high, low, size, wire_bytes = struct.unpack_from(f"{order}IIIII", block)
    data = block[20 : 20 + size]
    if index >= len(interfaces) or len(data) != size:
        raise reader.error("a packet block contradicts itself; it is damaged")
    interface = interfaces[index]
    time_ns = interface.time_ns(high << 32 | low)
    comments, lost_count = [], 0
    for code, value in read_options(block, order, 20 + size + -size % 4):
        if code == _OPTION_COMMENT:
            comments.append(value.decode("utf-8", "replace"))
        elif code == _OPTION_LOST_COUNT and len(value) == 8:
            lost_count = struct.unpack(f"{order}Q", value)[0]
    comment = "\n".join(comments)
    return reader.packet(time_ns, interface.link_type, data, wire_bytes, comment, lost_count)


def _simple_packet(
    reader: _Reader, order: str, block: bytes, interfaces: list[_Interface]
) -> CapturedPacket:
    if len(block) < 4 or not interfaces:
        raise reader.error("a simple packet block without interface or length; it is damaged")
    wire_bytes = struct.unpack_from(f"{order}I", block)[0]
    size = min(wire_bytes, interfaces[0].snap_bytes or wire_bytes)
    data = block[4 : 4 + size]
    if len(data) != size:
        raise reader.error("a simple packet block is cut off; it is damaged")
    return reader.packet(None, interfaces[0].link_type, data, wire_bytes)


def read_options(block: bytes, order: str, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield code and value of each option behind `at`; a damaged one ends the list."""
    while len(block) - at >= 4:
        code, size = struct.unpack_from(f"{order}HH", block, at)
        value = block[at + 4 : at + 4 + size]
        if not code or len(value) != size:
            return
        yield code, value
        at += 4 + size + -size % 4
