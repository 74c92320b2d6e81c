"""Datagrams of the hop protocol: layouts, encode and decode. No state, no I/O.

Every datagram starts with version and type, and from byte 4 on with the 64-bit session id that its
*receiver* chose. Network order throughout. Bitmaps are LSB first; 1 = received.

Source: docs/protocol/hop.md; reference of the ancestor: MobilityFirst's CSYN/ACK bitmap/CACK.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError

Buffer = bytes | bytearray | memoryview

HOP_VERSION = 1
MIN_DATAGRAM_BYTES = 1200
"""Every path carries this much (RFC 9000, section 14); also the length a HELLO is padded to."""
MAX_DATAGRAM_BYTES = 65_507
"""Largest UDP payload over IPv4."""


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
"""First 12 bytes of every datagram: version and type, kind, reserved (zero), session id."""

DATA_HEADER = struct.Struct(">BBHQIIII")
"""version and type, body kind, reserved, session id, transfer, body bytes, segment index, burst."""
DATA_HEADER_BYTES = DATA_HEADER.size
assert DATA_HEADER_BYTES == 28
DATA_DTYPE = np.dtype(
    [
        ("type", "u1"),
        ("kind", "u1"),
        ("reserved", ">u2"),
        ("session", ">u8"),
        ("transfer", ">u4"),
        ("body_bytes", ">u4"),
        ("index", ">u4"),
        ("burst", ">u4"),
    ]
)
"""The same header as a numpy type, to read and write the headers of a whole train at once."""

BUNDLE_HEADER = struct.Struct(">BBHQIHH")
"""version and type, reserved, reserved, session id, burst, record count, reserved."""
BUNDLE_HEADER_BYTES = BUNDLE_HEADER.size
RECORD = struct.Struct(">IHBB")
"""transfer, body bytes, body kind, reserved; the body follows."""
RECORD_BYTES = RECORD.size

MAX_CONTROL_BYTES = MIN_DATAGRAM_BYTES
TRANSFER_WINDOW_COUNT = 4096
"""A sender starts no transfer this far beyond the oldest unsettled one: bounds the bitmap."""
MAX_PARTIALS_COUNT = 16
MAX_BITMAP_BYTES = 400
"""Bitmap bytes of one partial transfer in one ACK: 3200 segments, 4.6 MB of body."""


def expand(low: int, reference: int) -> int:
    """Return the number whose low 32 bits are `low` and that lies nearest to `reference`."""
    return reference + ((low - reference + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000


# --- control frames -------------------------------------------------------------------------------


class FrameType(IntEnum):
    """Frames of a CONTROL datagram."""

    ACK = 1
    REFUSED = 2
    FORGET = 3
    PROBE = 4
    BLOCKED = 5
    CLOSE = 6


_FRAME = struct.Struct(">BBH")
_ACK = struct.Struct(">IIQQIIBBH")
_PARTIAL = struct.Struct(">IIH")
_REFUSED = struct.Struct(">IHH")
_FORGET = struct.Struct(">II")
_BUSY = 1
_MORE = 2
FRAME_HEAD_BYTES = _FRAME.size
ACK_FIXED_BYTES = _ACK.size
PARTIAL_FIXED_BYTES = _PARTIAL.size
MAX_ENTRIES_COUNT = 64
"""Entries in one REFUSED or FORGET frame."""
MAX_CLOSE_BYTES = 256


@dataclass(frozen=True, slots=True)
class Partial:
    """A transfer that is not whole: all below `base` is here; `bitmap` bit i = segment base + i."""

    transfer: int
    base: int
    bitmap: bytes


@dataclass(frozen=True, slots=True)
class AckFrame:
    """What a receiver has. Transfer and burst numbers are the low 32 bits."""

    largest_burst: int
    delay_us: int
    received_bytes: int
    """Datagram bytes of this session that arrived, duplicates included, since it began."""
    credit_limit_bytes: int
    """The sender may start transfers while the sum of their bodies stays at or below this."""
    window_bytes: int
    """Bytes in flight that the receiver's socket buffer can take."""
    done_below: int
    """Every transfer below this is settled here."""
    done_bitmap: bytes = b""
    """bit i = transfer done_below + i is settled."""
    partials: tuple[Partial, ...] = ()
    busy: bool = False
    """The receiver is out of credit: wait for the next ACK, do not retry."""
    more: bool = False
    """There are further partial transfers, all of them after the last one listed."""

    def to_bytes(self) -> bytes:
        parts = [
            _ACK.pack(
                self.largest_burst,
                self.delay_us,
                self.received_bytes,
                self.credit_limit_bytes,
                self.window_bytes,
                self.done_below,
                (_BUSY if self.busy else 0) | (_MORE if self.more else 0),
                len(self.partials),
                len(self.done_bitmap),
            ),
            self.done_bitmap,
        ]
        for partial in self.partials:
            parts.append(_PARTIAL.pack(partial.transfer, partial.base, len(partial.bitmap)))
            parts.append(partial.bitmap)
        return _frame(FrameType.ACK, b"".join(parts))

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        if len(value) < _ACK.size:
            raise ProtocolError("bad_frame", "ACK cut off")
        (burst, delay, received, credit, window, below, flags, count, bitmap_bytes) = (
            _ACK.unpack_from(value)
        )
        if flags & ~(_BUSY | _MORE) or bitmap_bytes > TRANSFER_WINDOW_COUNT // 8:
            raise ProtocolError("bad_frame", "ACK flags or bitmap length")
        offset = _ACK.size + bitmap_bytes
        bitmap = value[_ACK.size : offset]
        if len(bitmap) != bitmap_bytes:
            raise ProtocolError("bad_frame", "ACK bitmap cut off")
        if not count:
            if offset != len(value):
                raise ProtocolError("bad_frame", "ACK with trailing bytes")
            return cls(
                burst, delay, received, credit, window, below, bitmap, (),
                bool(flags & _BUSY), bool(flags & _MORE),
            )  # fmt: skip
        if count > MAX_PARTIALS_COUNT:
            raise ProtocolError("bad_frame", f"ACK with {count} partial transfers")
        partials = []
        for _ in range(count):
            if len(value) - offset < _PARTIAL.size:
                raise ProtocolError("bad_frame", "ACK partial cut off")
            transfer, base, length = _PARTIAL.unpack_from(value, offset)
            offset += _PARTIAL.size
            bits = value[offset : offset + length]
            offset += length
            if len(bits) != length or length > MAX_BITMAP_BYTES:
                raise ProtocolError("bad_frame", "ACK partial bitmap")
            partials.append(Partial(transfer, base, bits))
        if offset != len(value):
            raise ProtocolError("bad_frame", "ACK with trailing bytes")
        return cls(
            burst, delay, received, credit, window, below, bitmap, tuple(partials),
            bool(flags & _BUSY), bool(flags & _MORE),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RefusedFrame:
    """Transfers that arrived whole and are refused: (transfer, Reason number) each."""

    entries: tuple[tuple[int, int], ...]

    def to_bytes(self) -> bytes:
        body = b"".join(_REFUSED.pack(transfer, reason, 0) for transfer, reason in self.entries)
        return _frame(FrameType.REFUSED, body)


@dataclass(frozen=True, slots=True)
class ForgetFrame:
    """Transfers that their sender has settled or given up: (transfer, body bytes) each."""

    entries: tuple[tuple[int, int], ...]

    def to_bytes(self) -> bytes:
        return _frame(FrameType.FORGET, b"".join(_FORGET.pack(*entry) for entry in self.entries))


@dataclass(frozen=True, slots=True)
class ProbeFrame:
    """Asks for an ACK at once; counts as burst number `burst`."""

    burst: int

    def to_bytes(self) -> bytes:
        return _frame(FrameType.PROBE, self.burst.to_bytes(4, "big"))


@dataclass(frozen=True, slots=True)
class BlockedFrame:
    """The sender has `wanted_bytes` to start and no credit; asks for an ACK."""

    wanted_bytes: int

    def to_bytes(self) -> bytes:
        return _frame(FrameType.BLOCKED, self.wanted_bytes.to_bytes(4, "big"))


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """The session ends; `reason` is for people."""

    reason: str

    def to_bytes(self) -> bytes:
        return _frame(FrameType.CLOSE, self.reason.encode()[:MAX_CLOSE_BYTES])


Frame = AckFrame | RefusedFrame | ForgetFrame | ProbeFrame | BlockedFrame | CloseFrame


def encode_control(session: int, frames: list[bytes]) -> bytes:
    """Encode a CONTROL datagram from encoded frames.

    Raises:
        LocalMisuseError: longer than 1200 bytes.
    """
    datagram = PREFIX.pack(CONTROL_BYTE, 0, 0, session) + b"".join(frames)
    if len(datagram) > MAX_CONTROL_BYTES:
        raise LocalMisuseError(f"control datagram of {len(datagram)} bytes")
    return datagram


def decode_control(datagram: bytes) -> Iterator[Frame]:
    """Decode the frames of a CONTROL datagram, whose first 12 bytes were looked at before.

    Raises:
        ProtocolError: and nothing else, whatever the bytes are.
    """
    if len(datagram) > MAX_CONTROL_BYTES:
        raise ProtocolError("long_control", f"{len(datagram)} bytes")
    if datagram[1:4] != b"\0\0\0":
        raise ProtocolError("reserved_bits")
    offset = PREFIX.size
    while offset < len(datagram):
        if len(datagram) - offset < _FRAME.size:
            raise ProtocolError("bad_frame", "cut off in its head")
        kind, flags, length = _FRAME.unpack_from(datagram, offset)
        offset += _FRAME.size
        value = datagram[offset : offset + length]
        if len(value) != length or flags:
            raise ProtocolError("bad_frame", f"type {kind}, {length} bytes, flags {flags:#04x}")
        offset += length
        yield _decode_frame(kind, value)


def _decode_frame(kind: int, value: bytes) -> Frame:
    match kind:
        case FrameType.ACK:
            return AckFrame.from_bytes(value)
        case FrameType.REFUSED:
            if len(value) % _REFUSED.size or len(value) > _REFUSED.size * MAX_ENTRIES_COUNT:
                raise ProtocolError("bad_frame", "REFUSED length")
            rows = list(_REFUSED.iter_unpack(value))
            if any(row[2] for row in rows):
                raise ProtocolError("reserved_bits")
            return RefusedFrame(tuple((row[0], row[1]) for row in rows))
        case FrameType.FORGET:
            if len(value) % _FORGET.size or len(value) > _FORGET.size * MAX_ENTRIES_COUNT:
                raise ProtocolError("bad_frame", "FORGET length")
            return ForgetFrame(tuple(_FORGET.iter_unpack(value)))
        case FrameType.PROBE | FrameType.BLOCKED:
            if len(value) != 4:
                raise ProtocolError("bad_frame", "PROBE or BLOCKED length")
            number = int.from_bytes(value, "big")
            return ProbeFrame(number) if kind == FrameType.PROBE else BlockedFrame(number)
        case FrameType.CLOSE:
            if len(value) > MAX_CLOSE_BYTES:
                raise ProtocolError("bad_frame", "CLOSE length")
            return CloseFrame(value.decode("utf-8", "replace"))
        case _:
            raise ProtocolError("unknown_frame", f"type {kind}")


def _frame(kind: FrameType, value: bytes) -> bytes:
    return _FRAME.pack(kind, 0, len(value)) + value


# --- handshake ------------------------------------------------------------------------------------

_PARAMETERS = struct.Struct(">BBHIIQI")
_HELLO_FIXED = PREFIX.size + 32 + 32 + _PARAMETERS.size + 1
MAX_COOKIE_BYTES = 32
MAX_REJECT_BYTES = 256
SUITE_ED25519 = 1


@dataclass(frozen=True, slots=True)
class Parameters:
    """What one side of a session states about itself; covered by its signature."""

    role: int
    max_datagram_bytes: int
    max_body_bytes: int
    window_bytes: int
    credit_bytes: int
    instance: int = 0
    """Which of several bearers of one key this is: a new session of an instance replaces its old
    one."""
    suite: int = SUITE_ED25519

    def to_bytes(self) -> bytes:
        return _PARAMETERS.pack(
            self.suite,
            self.role,
            self.max_datagram_bytes,
            self.max_body_bytes,
            self.window_bytes,
            self.credit_bytes,
            self.instance,
        )

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        suite, role, datagram, body, window, credit, instance = _PARAMETERS.unpack(value)
        if suite != SUITE_ED25519:
            raise ProtocolError("unknown_suite", str(suite))
        if role not in (1, 2, 3):
            raise ProtocolError("bad_role", str(role))
        if not MIN_DATAGRAM_BYTES <= datagram <= MAX_DATAGRAM_BYTES:
            raise ProtocolError("bad_parameters", f"max_datagram_bytes {datagram}")
        if not body >= 1 or not window or not credit:
            raise ProtocolError("bad_parameters", "a zero limit")
        return cls(role, datagram, body, window, credit, instance, suite)


@dataclass(frozen=True, slots=True)
class Hello:
    """First message: who I am and what I can take. Padded to 1200 bytes, so no answer amplifies."""

    session: int
    """The session id that the answers must carry."""
    public_key: bytes
    share: bytes
    """32 unpredictable bytes; a later version carries an X25519 public key here."""
    parameters: Parameters
    cookie: bytes = b""

    def to_bytes(self) -> bytes:
        body = (
            PREFIX.pack(type_byte(DatagramType.HELLO), 0, 0, self.session)
            + self.public_key
            + self.share
            + self.parameters.to_bytes()
            + bytes([len(self.cookie)])
            + self.cookie
        )
        return body.ljust(MIN_DATAGRAM_BYTES, b"\0")

    @classmethod
    def from_bytes(cls, datagram: bytes) -> Self:
        """Decode a HELLO. Raises: ProtocolError, and nothing else."""
        if len(datagram) != MIN_DATAGRAM_BYTES:
            raise ProtocolError("bad_hello", f"{len(datagram)} bytes, not {MIN_DATAGRAM_BYTES}")
        session = _handshake_prefix(datagram)
        parameters = Parameters.from_bytes(datagram[76 : 76 + _PARAMETERS.size])
        cookie_bytes = datagram[_HELLO_FIXED - 1]
        cookie = datagram[_HELLO_FIXED : _HELLO_FIXED + cookie_bytes]
        if cookie_bytes > MAX_COOKIE_BYTES or any(datagram[_HELLO_FIXED + cookie_bytes :]):
            raise ProtocolError("bad_hello", "cookie or padding")
        return cls(session, datagram[12:44], datagram[44:76], parameters, cookie)


@dataclass(frozen=True, slots=True)
class Retry:
    """Under load: say HELLO again with this cookie, which proves your address."""

    session: int
    cookie: bytes

    def to_bytes(self) -> bytes:
        head = PREFIX.pack(type_byte(DatagramType.RETRY), 0, 0, self.session)
        return head + bytes([len(self.cookie)]) + self.cookie

    @classmethod
    def from_bytes(cls, datagram: bytes) -> Self:
        session = _handshake_prefix(datagram)
        cookie = datagram[PREFIX.size + 1 :]
        if len(datagram) <= PREFIX.size or datagram[PREFIX.size] != len(cookie):
            raise ProtocolError("bad_retry")
        if not 1 <= len(cookie) <= MAX_COOKIE_BYTES:
            raise ProtocolError("bad_retry")
        return cls(session, cookie)


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answer to a HELLO: who I am, the session id you must use, my signature over both."""

    session: int
    own_session: int
    public_key: bytes
    share: bytes
    parameters: Parameters
    signature: bytes = b""

    def unsigned_bytes(self) -> bytes:
        return (
            PREFIX.pack(type_byte(DatagramType.WELCOME), 0, 0, self.session)
            + self.own_session.to_bytes(8, "big")
            + self.public_key
            + self.share
            + self.parameters.to_bytes()
        )

    def to_bytes(self) -> bytes:
        return self.unsigned_bytes() + self.signature

    @classmethod
    def from_bytes(cls, datagram: bytes) -> Self:
        expected = PREFIX.size + 8 + 64 + _PARAMETERS.size + 64
        if len(datagram) != expected:
            raise ProtocolError("bad_welcome", f"{len(datagram)} bytes, not {expected}")
        session = _handshake_prefix(datagram)
        return cls(
            session,
            int.from_bytes(datagram[12:20], "big"),
            datagram[20:52],
            datagram[52:84],
            Parameters.from_bytes(datagram[84 : 84 + _PARAMETERS.size]),
            datagram[-64:],
        )


@dataclass(frozen=True, slots=True)
class Confirm:
    """Last message: my signature over HELLO and WELCOME."""

    session: int
    signature: bytes

    def to_bytes(self) -> bytes:
        return PREFIX.pack(type_byte(DatagramType.CONFIRM), 0, 0, self.session) + self.signature

    @classmethod
    def from_bytes(cls, datagram: bytes) -> Self:
        if len(datagram) != PREFIX.size + 64:
            raise ProtocolError("bad_confirm", f"{len(datagram)} bytes")
        return cls(_handshake_prefix(datagram), datagram[PREFIX.size :])


@dataclass(frozen=True, slots=True)
class Reject:
    """The answer to a CONFIRM that is not admitted; `reason` is for people."""

    session: int
    reason: str

    def to_bytes(self) -> bytes:
        head = PREFIX.pack(type_byte(DatagramType.REJECT), 0, 0, self.session)
        return head + self.reason.encode()[:MAX_REJECT_BYTES]

    @classmethod
    def from_bytes(cls, datagram: bytes) -> Self:
        if len(datagram) > PREFIX.size + MAX_REJECT_BYTES:
            raise ProtocolError("bad_reject")
        session = _handshake_prefix(datagram)
        return cls(session, datagram[PREFIX.size :].decode("utf-8", "replace"))


def _handshake_prefix(datagram: bytes) -> int:
    if len(datagram) < PREFIX.size:
        raise ProtocolError("short_datagram", f"{len(datagram)} bytes")
    _, kind, reserved, session = PREFIX.unpack_from(datagram)
    if kind or reserved:
        raise ProtocolError("reserved_bits")
    return int(session)
