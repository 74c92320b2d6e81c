"""One bit of an IP packet's payload flipped, as a link with a weak checksum would pass it on.

UDP over IPv4 loses its checksum with it (0: none), so the datagram reaches the application: what is
tested is our own check. TCP keeps its checksum, so the kernel drops the segment: what TCP promises.
Source: RFC 768, RFC 791.
"""

from __future__ import annotations

_UDP, _TCP = 17, 6
_UDP_HEADER_BYTES = 8
_SHORTEST_HEADER_BYTES = 20
_FRAGMENT_OFFSET = 0x1FFF


def flip_bit(packet: bytes, chosen: float) -> bytes:
    """Return `packet` with one bit of its payload flipped; unchanged when it has no payload.

    Args:
        chosen: 0 to 1 (excluded), which of the bits.
    """
    if len(packet) < _SHORTEST_HEADER_BYTES or packet[0] >> 4 != 4:
        return packet
    start = (packet[0] & 15) * 4
    protocol = packet[9]
    is_first = not int.from_bytes(packet[6:8], "big") & _FRAGMENT_OFFSET
    transport = start
    if is_first and protocol == _UDP:
        start += _UDP_HEADER_BYTES
    elif is_first and protocol == _TCP and len(packet) > start + 12:
        start += (packet[start + 12] >> 4) * 4
    if start >= len(packet):
        return packet
    bit = int(chosen * (len(packet) - start) * 8)
    altered = bytearray(packet)
    altered[start + bit // 8] ^= 1 << bit % 8
    if is_first and protocol == _UDP:
        altered[transport + 6 : transport + 8] = b"\0\0"
    return bytes(altered)
