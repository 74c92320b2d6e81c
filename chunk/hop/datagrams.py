"""Datagrams of the hop protocol: types, layouts and sizes. No state, no I/O.

Every datagram starts with version and type, and from byte 4 on with the 64-bit session id that its
*receiver* chose. Network order throughout. Bitmaps are LSB first; 1 = received.

Source: docs/protocol/hop.md; reference of the ancestor: MobilityFirst's CSYN/ACK bitmap/CACK.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np

Buffer = bytes | bytearray | memoryview

HOP_VERSION = 2
MIN_DATAGRAM_BYTES = 1200
"""Every path carries this much (RFC 9000, section 14); also the length a HELLO is padded to."""
MAX_DATAGRAM_BYTES = 65_507
"""Largest UDP payload over IPv4."""

TAG_BYTES = 16
"""What sealing adds to a body, a CONTROL or a BUNDLE datagram."""
MAX_WIRE_BODY_BYTES = (1 << 26) - 1
"""Body bytes of a transfer as its header can say them, tag included; 65 536 segments hold as
much."""
MAX_BODY_BYTES = MAX_WIRE_BODY_BYTES - TAG_BYTES
MAX_FLOW = 0xFFFF

_TRAIN_BYTES = 65_000
"""One segmentation-offload call takes at most 65 507 bytes of payload."""
_TRAIN_ROWS = 64
"""UDP_MAX_SEGMENTS of kernels before 6.9."""


def train_rows(stride: int) -> int:
    """Return how many datagrams of `stride` bytes one system call takes."""
    return max(1, min(_TRAIN_ROWS, _TRAIN_BYTES // stride))


class DatagramType(IntEnum):
    """Low four bits of the first byte; the high four are the version."""

    DATA = 1
    BUNDLE = 2
    CONTROL = 3
    HELLO = 4
    RETRY = 5
    WELCOME = 6
    CONFIRM = 7
    REJECT = 8


def type_byte(kind: DatagramType) -> int:
    return HOP_VERSION << 4 | kind


DATA_BYTE = type_byte(DatagramType.DATA)
BUNDLE_BYTE = type_byte(DatagramType.BUNDLE)
CONTROL_BYTE = type_byte(DatagramType.CONTROL)

PREFIX = struct.Struct(">BBHQ")
"""First 12 bytes of every datagram: version and type, kind and epoch, flow or zero, session id."""

DATA_HEADER = struct.Struct(">BBHQIIIII")
"""version and type, body kind and key epoch, flow, session id, transfer, body bytes, segment index,
burst, check."""
DATA_HEADER_BYTES = DATA_HEADER.size
DATA_HEADER_WORDS = DATA_HEADER_BYTES // 4
assert DATA_HEADER_BYTES == 32
DATA_DTYPE = np.dtype(
    [
        ("type", "u1"),
        ("kind", "u1"),
        ("flow", ">u2"),
        ("session", ">u8"),
        ("transfer", ">u4"),
        ("body_bytes", ">u4"),
        ("index", ">u4"),
        ("burst", ">u4"),
        ("check", ">u4"),
    ]
)
"""The same header as a numpy type, to read and write the headers of a whole train at once."""

SEALED = 1
"""Low four bits of the second byte of CONTROL and BUNDLE: 1 = sealed, 0 = open."""
CONTROL_HEADER = struct.Struct(">BBHQQ")
"""version and type, sealed and key epoch, zero, session id, counter."""
CONTROL_HEADER_BYTES = CONTROL_HEADER.size
BUNDLE_HEADER = struct.Struct(">BBHQQIHH")
"""version and type, sealed and key epoch, zero, session id, counter, burst, record count, zero."""
BUNDLE_HEADER_BYTES = BUNDLE_HEADER.size
RECORD = struct.Struct(">IHBBH")
"""transfer, bytes that follow, body kind, form, flow; the body follows, or where it lies."""
RECORD_BYTES = RECORD.size
FORM_WHOLE, FORM_LENT = 0, 1
"""What follows a record: the body; a `REFERENCE`."""
REFERENCE = struct.Struct(">II")
"""Where a body begins in the lane, and its bytes."""

MAX_CONTROL_BYTES = MIN_DATAGRAM_BYTES
MAX_FRAMES_BYTES = MAX_CONTROL_BYTES - CONTROL_HEADER_BYTES - TAG_BYTES
"""Bytes of frames in one CONTROL datagram, whether it is sealed or not."""
TRANSFER_WINDOW_COUNT = 4096
"""A sender starts no transfer this far beyond the oldest unsettled one: bounds the bitmap."""


def expand(low: int, reference: int) -> int:
    """Return the number whose low 32 bits are `low` and that lies nearest to `reference`."""
    return reference + ((low - reference + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
