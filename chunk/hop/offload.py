"""What the kernel does for UDP: segmentation on send, coalescing on receive.

Both are found out by trying, once per process; a kernel without them gets plain datagrams.

Source: udp(7), UDP_SEGMENT since Linux 4.18, UDP_GRO since 5.0; design, section 5.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_PROBE = 3
IP_RECVERR = 11
IPV6_RECVERR = 25
IP_MTU = 14
IPV6_MTU = 24
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32
_IPV4_UDP_BYTES = 28
_IPV6_UDP_BYTES = 48
FALLBACK_DATAGRAM_BYTES = 1200


@dataclass(frozen=True, slots=True)
class Offload:
    """What this kernel offers."""

    segmentation: bool
    coalescing: bool


@cache
def probe_offload() -> Offload:
    """Find out by sending a train of two datagrams to ourselves."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        coalescing = enable_coalescing(receiver)
        try:
            ancillary = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", 100))]
            sender.sendmsg([bytes(200)], ancillary, 0, receiver.getsockname())
        except OSError:
            return Offload(False, coalescing)
        return Offload(True, coalescing)


def enable_coalescing(sock: socket.socket) -> bool:
    """Ask for UDP_GRO on `sock`; tell whether the kernel has it."""
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True


@cache
def probe_fast_aes() -> bool:
    """Tell whether this CPU has instructions for AES."""
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return False
    return any(
        line.lower().startswith(("flags", "features")) and "aes" in line.split() for line in lines
    )


def disable_coalescing(sock: socket.socket) -> None:
    """Give UDP_GRO up on `sock`: every datagram comes alone again."""
    with contextlib.suppress(OSError):
        sock.setsockopt(SOL_UDP, UDP_GRO, 0)


def enlarge_buffers(sock: socket.socket, wanted_bytes: int) -> int:
    """Make the kernel's buffers of `sock` as large as allowed; return the receive buffer's size.

    With CAP_NET_ADMIN the system's limit does not apply.
    """
    for forced, plain in (
        (SO_RCVBUFFORCE, socket.SO_RCVBUF),
        (SO_SNDBUFFORCE, socket.SO_SNDBUF),
    ):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, wanted_bytes)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, plain, wanted_bytes)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def ignore_path_mtu(sock: socket.socket) -> None:
    """Send whole or not at all, whatever ICMP says of the path: it may be forged, and the hop
    protocol finds out by itself what arrives."""
    with contextlib.suppress(OSError):
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)


def enable_errors(sock: socket.socket) -> None:
    """Have ICMP errors reported on `sock`, with the address they are about."""
    with contextlib.suppress(OSError):
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def route_datagram_bytes(address: Any) -> int:
    """Return the largest UDP payload that the route to `address` takes in one frame."""
    is_v6 = ":" in address[0]
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            if is_v6:
                mtu = probe.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
            else:
                mtu = probe.getsockopt(socket.IPPROTO_IP, IP_MTU)
    except OSError:
        return FALLBACK_DATAGRAM_BYTES
    return min(int(mtu), 65_535) - (_IPV6_UDP_BYTES if is_v6 else _IPV4_UDP_BYTES)
