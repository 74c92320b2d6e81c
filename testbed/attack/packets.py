"""IPv4 and UDP by hand: datagrams that say they come from anybody. Needs root.

Source: RFC 791, RFC 768. The UDP checksum is zero, which IPv4 allows; the kernel makes that of IP.
"""

from __future__ import annotations

import socket
import struct

_IP = struct.Struct(">BBHHHBBH4s4s")
_UDP = struct.Struct(">HHHH")
HEADERS_BYTES = _IP.size + _UDP.size
_VERSION_AND_LENGTH = 0x45
_HOP_LIMIT = 64

Address = tuple[str, int]


def open_raw_socket() -> socket.socket:
    """Return a socket that takes whole IPv4 packets. Raises: OSError, not root."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    return sock


def encode_packet(source: Address, target: Address, datagram: bytes) -> bytes:
    """Return the packet that carries `datagram` from `source` to `target`."""
    udp_bytes = _UDP.size + len(datagram)
    ip = _IP.pack(
        _VERSION_AND_LENGTH, 0, _IP.size + udp_bytes, 0, 0, _HOP_LIMIT, socket.IPPROTO_UDP, 0,
        socket.inet_aton(source[0]), socket.inet_aton(target[0]),
    )  # fmt: skip
    return ip + _UDP.pack(source[1], target[1], udp_bytes, 0) + datagram


def decode_packet(packet: bytes) -> tuple[int, int, int]:
    """Return source port, target port and payload bytes of a UDP packet, its IP header included."""
    start = (packet[0] & 15) * 4
    source_port, target_port, udp_bytes, _ = _UDP.unpack_from(packet, start)
    return source_port, target_port, udp_bytes - _UDP.size
