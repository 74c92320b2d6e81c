"""Capture files made in memory."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from packetcloud.chunk.capture import CapturedPacket, read_packets

ETHERNET = 1
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
"""With both addresses given: scapy would ask the network for what is missing."""
HERE, THERE = ("192.0.2.1", 5000), ("192.0.2.2", 4700)


def frame(
    payload: bytes, source: tuple[str, int] = HERE, destination: tuple[str, int] = THERE
) -> bytes:
    """An Ethernet frame with a UDP datagram."""
    network = IP(src=source[0], dst=destination[0])
    transport = UDP(sport=source[1], dport=destination[1])
    return bytes(ETHER / network / transport / Raw(payload))


def pcap(
    frames: Sequence[bytes],
    order: str = "<",
    *,
    nano: bool = False,
    link_type: int = ETHERNET,
    snap_bytes: int = 262_144,
) -> bytes:
    """A pcap file; packet n was captured n seconds and n units after 1970."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    parts = [struct.pack(f"{order}IHHIIII", magic, 2, 4, 0, 0, snap_bytes, link_type)]
    for number, data in enumerate(frames, 1):
        kept = data[:snap_bytes]
        parts.append(struct.pack(f"{order}IIII", number, number, len(kept), len(data)) + kept)
    return b"".join(parts)


def block(order: str, kind: int, body: bytes) -> bytes:
    """A pcapng block, padded."""
    body += bytes(-len(body) % 4)
    size = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + size + body + size


def section(order: str = "<") -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str = "<", link_type: int = ETHERNET, options: bytes = b"") -> bytes:
    return block(order, 1, struct.pack(f"{order}HHI", link_type, 0, 0) + options)


def enhanced(data: bytes, units: int, order: str = "<", index: int = 0) -> bytes:
    head = struct.pack(
        f"{order}IIIII", index, units >> 32, units & 0xFFFFFFFF, len(data), len(data)
    )
    return block(order, 6, head + data)


def pcapng(frames: Sequence[bytes], order: str = "<") -> bytes:
    """A pcapng file; packet n was captured n microseconds after 1970."""
    packets = [enhanced(data, number, order) for number, data in enumerate(frames, 1)]
    return section(order) + interface(order) + b"".join(packets)


def read(data: bytes) -> Iterator[CapturedPacket]:
    return read_packets(io.BytesIO(data), "test.pcap")
