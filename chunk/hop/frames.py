"""Frames of CONTROL datagrams: encode and decode. No state, no I/O.

Source: docs/protocol/hop.md, "CONTROL".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.hop.datagrams import (
    CONTROL_BYTE,
    CONTROL_HEADER,
    CONTROL_HEADER_BYTES,
    MAX_CONTROL_BYTES,
    MAX_DATAGRAM_BYTES,
    MIN_DATAGRAM_BYTES,
    TRANSFER_WINDOW_COUNT,
)

MAX_PARTIALS_COUNT = 16
MAX_BITMAP_BYTES = 400
"""Bitmap bytes of one partial transfer in one ACK: 3200 segments, 4.6 MB of body."""


class FrameType(IntEnum):
    """Frames of a CONTROL datagram."""

    ACK = 1
    REFUSED = 2
    FORGET = 3
    PROBE = 4
    BLOCKED = 5
    CLOSE = 6
    DIGESTS_WANTED = 7
    DIGESTS = 8
    DAMAGED = 9
    BUSY = 10
    REKEY = 11
    PATH_CHALLENGE = 12
    PATH_RESPONSE = 13
    STRIDE = 14
    PADDING = 15
    WHOLE = 16


_FRAME = struct.Struct(">BBH")
_ACK = struct.Struct(">IIQQIIBBH")
_PARTIAL = struct.Struct(">IIH")
_REFUSED = struct.Struct(">IHH")
_FORGET = struct.Struct(">II")
_DIGESTS = struct.Struct(">II")
_DAMAGED = struct.Struct(">IIIH")
_WHOLE = struct.Struct(">IHH")
_REKEY = struct.Struct(">IB3s32s")
_STRIDE = struct.Struct(">BBHI")
_BUSY = 1
_MORE = 2
FRAME_HEAD_BYTES = _FRAME.size
ACK_FIXED_BYTES = _ACK.size
PARTIAL_FIXED_BYTES = _PARTIAL.size
MAX_ENTRIES_COUNT = 64
"""Entries in one REFUSED or FORGET frame."""
MAX_CLOSE_BYTES = 256
PATH_TOKEN_BYTES = 8
DIGEST_BYTES = 8
MAX_DIGESTS_COUNT = 140
"""Digests in one DIGESTS frame: as many as one datagram holds."""
NOT_NOW = 0
"""In a REFUSED entry instead of a Reason: the body's flow has no credit. It is no answer to the
layer above: the body goes again, as another transfer, when its flow is no longer BUSY."""
GIVEN_BACK = 0xFFFF
"""Also no answer to the layer above: the sender wanted it back, to send it in other datagrams."""
MAX_BUSY_COUNT = 64
"""Labels in one BUSY frame, so that it always fits beside an ACK. Of more flows, the first label is
0: a sender leaves those that it parked and that are not listed parked, and tries them by timer."""
MAX_WHOLE_COUNT = 16
"""Ranges in one WHOLE frame, ascending and disjoint, within one window of transfers. What is left
out may be sent once more in vain."""


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


@dataclass(frozen=True, slots=True)
class DigestsWantedFrame:
    """A transfer is whole and its tag is wrong: the receiver asks for digests of its segments."""

    transfer: int
    first: int
    """Segment from which on they are wanted."""

    def to_bytes(self) -> bytes:
        return _frame(FrameType.DIGESTS_WANTED, _DIGESTS.pack(self.transfer, self.first))


@dataclass(frozen=True, slots=True)
class DigestsFrame:
    """Keyed digests of consecutive segments of a transfer, as they were sealed: 8 bytes each."""

    transfer: int
    first: int
    digests: bytes

    def to_bytes(self) -> bytes:
        head = _DIGESTS.pack(self.transfer, self.first)
        return _frame(FrameType.DIGESTS, head + self.digests)


@dataclass(frozen=True, slots=True)
class DamagedFrame:
    """Segments that arrived altered and are missing again.

    Only what was last sent at or before `burst` is meant: what left later may be right.
    """

    transfer: int
    burst: int
    base: int
    bitmap: bytes
    """bit i = segment base + i was altered."""

    def to_bytes(self) -> bytes:
        head = _DAMAGED.pack(self.transfer, self.burst, self.base, len(self.bitmap))
        return _frame(FrameType.DAMAGED, head + self.bitmap)


class RekeyStep(IntEnum):
    """Who says a REKEY."""

    OFFER = 1
    ANSWER = 2


@dataclass(frozen=True, slots=True)
class RekeyFrame:
    """One side of a fresh X25519 exchange, for the keys of `epoch`."""

    epoch: int
    step: RekeyStep
    share: bytes

    def to_bytes(self) -> bytes:
        return _frame(FrameType.REKEY, _REKEY.pack(self.epoch, self.step, bytes(3), self.share))


@dataclass(frozen=True, slots=True)
class PathChallengeFrame:
    """Say this token back: then I know that you hear me where this goes to."""

    token: bytes

    def to_bytes(self) -> bytes:
        return _frame(FrameType.PATH_CHALLENGE, self.token)


@dataclass(frozen=True, slots=True)
class PathResponseFrame:
    """The token of a PATH_CHALLENGE."""

    token: bytes

    def to_bytes(self) -> bytes:
        return _frame(FrameType.PATH_RESPONSE, self.token)


class StrideStep(IntEnum):
    """What a STRIDE says."""

    PROBE = 1
    """This datagram has `stride_bytes`: say so if it arrives."""
    ARRIVED = 2
    CHANGE = 3
    """My full datagrams have `stride_bytes` from now on; give back what is not whole."""
    CHANGED = 4


@dataclass(frozen=True, slots=True)
class StrideFrame:
    """How large a datagram the path takes, and how large full ones are from now on."""

    step: StrideStep
    stride_bytes: int
    burst: int = 0
    """CHANGE: a number that no burst has, and no other change, behind all bursts of the old size.
    CHANGED: that of the change."""
    entries: tuple[tuple[int, int], ...] = ()
    """CHANGE: transfers wanted back, if they are not whole: (transfer, body bytes) each."""

    def to_bytes(self) -> bytes:
        head = _STRIDE.pack(self.step, 0, self.stride_bytes, self.burst)
        entries = b"".join(_FORGET.pack(*entry) for entry in self.entries)
        return _frame(FrameType.STRIDE, head + entries)


@dataclass(frozen=True, slots=True)
class PaddingFrame:
    """Says nothing; makes a datagram as long as it must be."""

    value_bytes: int

    def to_bytes(self) -> bytes:
        return _frame(FrameType.PADDING, bytes(self.value_bytes))


@dataclass(frozen=True, slots=True)
class BusyFrame:
    """Flows that may not start a body now; with an ACK, all of them. An ACK without it: none."""

    flows: tuple[int, ...]
    """Labels; a leading 0 says that there are more than those."""

    def to_bytes(self) -> bytes:
        return _frame(FrameType.BUSY, struct.pack(f">{len(self.flows)}H", *self.flows))


@dataclass(frozen=True, slots=True)
class WholeFrame:
    """Transfers that are here whole and wait for the layer above: nothing of them is lost."""

    entries: tuple[tuple[int, int], ...]
    """(first transfer, count) each."""

    def to_bytes(self) -> bytes:
        value = b"".join(_WHOLE.pack(first, count, 0) for first, count in self.entries)
        return _frame(FrameType.WHOLE, value)


Frame = (
    AckFrame
    | RefusedFrame
    | ForgetFrame
    | ProbeFrame
    | BlockedFrame
    | CloseFrame
    | DigestsWantedFrame
    | DigestsFrame
    | DamagedFrame
    | BusyFrame
    | RekeyFrame
    | PathChallengeFrame
    | PathResponseFrame
    | StrideFrame
    | PaddingFrame
    | WholeFrame
)


def encode_control(session: int, counter: int, frames: Sequence[bytes]) -> bytes:
    """Encode an open CONTROL datagram from encoded frames.

    Raises:
        LocalMisuseError: longer than 1200 bytes.
    """
    datagram = CONTROL_HEADER.pack(CONTROL_BYTE, 0, 0, session, counter) + b"".join(frames)
    if len(datagram) > MAX_CONTROL_BYTES:
        raise LocalMisuseError(f"control datagram of {len(datagram)} bytes")
    return datagram


def decode_control(datagram: bytes) -> Iterator[Frame]:
    """Decode the frames of an open CONTROL datagram, whose first byte was looked at before.

    Raises:
        ProtocolError: and nothing else, whatever the bytes are.
    """
    if len(datagram) > MAX_CONTROL_BYTES:
        raise ProtocolError("long_control", f"{len(datagram)} bytes")
    if len(datagram) < CONTROL_HEADER_BYTES:
        raise ProtocolError("short_control", f"{len(datagram)} bytes")
    if datagram[1:4] != b"\0\0\0":
        raise ProtocolError("reserved_bits")
    yield from decode_frames(datagram[CONTROL_HEADER_BYTES:])


def decode_frames(data: bytes) -> Iterator[Frame]:
    """Decode the frames that a CONTROL datagram carries.

    Raises:
        ProtocolError: and nothing else, whatever the bytes are.
    """
    offset = 0
    while offset < len(data):
        if len(data) - offset < _FRAME.size:
            raise ProtocolError("bad_frame", "cut off in its head")
        kind, flags, length = _FRAME.unpack_from(data, offset)
        offset += _FRAME.size
        value = data[offset : offset + length]
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
        case FrameType.DIGESTS_WANTED:
            if len(value) != _DIGESTS.size:
                raise ProtocolError("bad_frame", "DIGESTS_WANTED length")
            transfer, first = _DIGESTS.unpack(value)
            return DigestsWantedFrame(transfer, first)
        case FrameType.DIGESTS:
            digests = value[_DIGESTS.size :]
            most = MAX_DIGESTS_COUNT * DIGEST_BYTES
            if not digests or len(digests) % DIGEST_BYTES or len(digests) > most:
                raise ProtocolError("bad_frame", "DIGESTS length")
            transfer, first = _DIGESTS.unpack_from(value)
            return DigestsFrame(transfer, first, digests)
        case FrameType.DAMAGED:
            if len(value) <= _DAMAGED.size:
                raise ProtocolError("bad_frame", "DAMAGED cut off")
            transfer, burst, base, length = _DAMAGED.unpack_from(value)
            bitmap = value[_DAMAGED.size :]
            if len(bitmap) != length or length > MAX_BITMAP_BYTES:
                raise ProtocolError("bad_frame", "DAMAGED bitmap")
            return DamagedFrame(transfer, burst, base, bitmap)
        case FrameType.REKEY:
            if len(value) != _REKEY.size:
                raise ProtocolError("bad_frame", "REKEY length")
            epoch, step, zero, share = _REKEY.unpack(value)
            if step not in list(RekeyStep) or any(zero):
                raise ProtocolError("bad_frame", "REKEY step or reserved bits")
            return RekeyFrame(epoch, RekeyStep(step), share)
        case FrameType.PATH_CHALLENGE | FrameType.PATH_RESPONSE:
            if len(value) != PATH_TOKEN_BYTES:
                raise ProtocolError("bad_frame", "PATH_CHALLENGE or PATH_RESPONSE length")
            if kind == FrameType.PATH_CHALLENGE:
                return PathChallengeFrame(value)
            return PathResponseFrame(value)
        case FrameType.STRIDE:
            return _decode_stride(value)
        case FrameType.PADDING:
            if any(value):
                raise ProtocolError("bad_frame", "PADDING that is not zero")
            return PaddingFrame(len(value))
        case FrameType.BUSY:
            if not value or len(value) % 2 or len(value) > 2 * MAX_BUSY_COUNT:
                raise ProtocolError("bad_frame", "BUSY length")
            return BusyFrame(struct.unpack(f">{len(value) // 2}H", value))
        case FrameType.WHOLE:
            if not value or len(value) % _WHOLE.size or len(value) > _WHOLE.size * MAX_WHOLE_COUNT:
                raise ProtocolError("bad_frame", "WHOLE length")
            ranges = list(_WHOLE.iter_unpack(value))
            end = 0
            for first, count, zero in ranges:
                # From the first range on: numbers wrap.
                start = (first - ranges[0][0]) & 0xFFFF_FFFF
                if zero or not count or start < end or start + count > TRANSFER_WINDOW_COUNT:
                    raise ProtocolError("bad_frame", "WHOLE range")
                end = start + count
            return WholeFrame(tuple((first, count) for first, count, _ in ranges))
        case _:
            raise ProtocolError("unknown_frame", f"type {kind}")


def _decode_stride(value: bytes) -> StrideFrame:
    size = len(value) - _STRIDE.size
    if size < 0 or size % _FORGET.size or size > _FORGET.size * MAX_ENTRIES_COUNT:
        raise ProtocolError("bad_frame", "STRIDE length")
    step, zero, stride_bytes, burst = _STRIDE.unpack_from(value)
    if step not in list(StrideStep) or zero:
        raise ProtocolError("bad_frame", "STRIDE step or reserved bits")
    may_have_burst = step in (StrideStep.CHANGE, StrideStep.CHANGED)
    if (size and step != StrideStep.CHANGE) or (burst and not may_have_burst):
        raise ProtocolError("bad_frame", "STRIDE with more than its step has")
    if not MIN_DATAGRAM_BYTES <= stride_bytes <= MAX_DATAGRAM_BYTES:
        raise ProtocolError("bad_frame", f"STRIDE of {stride_bytes} bytes")
    entries = tuple(_FORGET.iter_unpack(value[_STRIDE.size :]))
    return StrideFrame(StrideStep(step), stride_bytes, burst, entries)


def _frame(kind: FrameType, value: bytes) -> bytes:
    return _FRAME.pack(kind, 0, len(value)) + value
