"""A body as the IP packets that would carry it in the open: what a capture of chunks is made of.

So every tool that reads hop datagrams reads such a capture too: `pcap`, the scapy layers, tcpdump.
A large body is cut into segments of `SEGMENT_BYTES`. UDP checksums are left out (zero).

Source: docs/protocol/hop.md, "DATA"; RFC 791, 8200 and 768.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from packetcloud.chunk.hop import wire
from packetcloud.chunk.messages import BodyKind

Place = tuple[str, int]
"""An address and a UDP port."""

SEGMENT_BYTES = 64_000
"""Of one body in one packet: the largest round number that IPv4 can carry."""
_UDP = struct.Struct(">HHHH")
_HOPS = 64
_PROTOCOL_UDP = 17


@dataclass(frozen=True, slots=True)
class OpenBody:
    """The first bytes of a body, or all of them, and between whom it went."""

    source: Place
    destination: Place
    session: int
    transfer: int
    kind: BodyKind
    content: bytes
    body_bytes: int
    """How many it has; `content` may have fewer."""
    flow: int = 0

    def frames(self) -> Iterator[tuple[bytes, int]]:
        """Yield the packets that have any of `content`, each with its length on the wire."""
        for index, start in enumerate(range(0, max(len(self.content), 1), SEGMENT_BYTES)):
            kept = self.content[start : start + SEGMENT_BYTES]
            header = wire.DATA_HEADER.pack(
                wire.DATA_BYTE,
                self.kind,
                self.flow,
                self.session,
                self.transfer & 0xFFFF_FFFF,
                self.body_bytes,
                index,
                0,
                0,
            )
            here_bytes = min(self.body_bytes - start, SEGMENT_BYTES)
            head = _network_head(self.source, self.destination, len(header) + here_bytes)
            yield head + header + kept, len(head) + len(header) + here_bytes


def _network_head(source: Place, destination: Place, payload_bytes: int) -> bytes:
    """Return IP and UDP header; the destination's kind of address decides which IP."""
    udp_bytes = _UDP.size + payload_bytes
    udp = _UDP.pack(source[1], destination[1], udp_bytes, 0)
    there = ipaddress.ip_address(destination[0])
    here = ipaddress.ip_address(source[0])
    if here.version == there.version == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + udp_bytes, 0, 0x4000, _HOPS, _PROTOCOL_UDP, 0)
        head += here.packed + there.packed
        return head[:10] + struct.pack(">H", _checksum(head)) + head[12:] + udp
    head = struct.pack(">IHBB", 6 << 28, udp_bytes, _PROTOCOL_UDP, _HOPS)
    return head + _packed_v6(here) + _packed_v6(there) + udp


def _packed_v6(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    if isinstance(address, ipaddress.IPv6Address):
        return address.packed
    return bytes(10) + b"\xff\xff" + address.packed


def _checksum(head: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(head) // 2}H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
