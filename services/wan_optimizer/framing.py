"""The head of a compressed payload: what follows it, and what that was made with.

    version 3 (1), flags (1), payload type (1), extents (1), original bytes (4), stored bytes (4)
      0x02      id of a trained dictionary (4)
      0x04      history (8), frame number (4), block number (4)
      0x20      key id (4)
    extents, each 64 bits: block number (22), offset (21), bytes (21)
    digest (16 with 0x04 or 0x20, else 4), with extents also a seal of the head (8)

What is stored may be followed by zeros: they keep a payload from falling below original /
max_ratio. All limits are checked against the head, before anything is allocated. There is no mark:
the chunk's payload type is *compressed*, and no other payload is taken for a frame.
Source: docs/reference/wan-optimizer.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag
from typing import Self

from packetcloud.chunk.header import REPORT_TYPES

VERSION = 3
_HEAD = struct.Struct(">BBBBII")
HEAD_BYTES = _HEAD.size
_WORD = struct.Struct(">I")
_HISTORY = struct.Struct(">8sII")
_EXTENT = struct.Struct(">Q")
_OFFSET_BITS = 21
HISTORY_ID_BYTES = 8
DIGEST_BYTES = 16
CHECK_BYTES = 4
"""Of the digest where there is neither a history nor a key: it tells accidents only."""
SEAL_BYTES = 8
"""A head that refers to a cache proves itself before it is looked up; who guesses has to send each
guess."""
MAX_FRAME_NUMBER = (1 << 32) - 1
MAX_BLOCK_NUMBER = (1 << 22) - 1
"""After that many blocks compress begins another history."""
MAX_BLOCK_BYTES = (1 << 20) + 128
"""A larger payload, by what other services added, leaves no room for the head of a history."""
MAX_EXTENTS = 64
"""Pieces of history that one frame may refer to: 512 bytes of head, and as many look-ups."""
MAX_REFERRED_BYTES = 2 << 20
"""All pieces of one frame together: twice a largest payload."""
MAX_HEAD_BYTES = (
    HEAD_BYTES
    + 2 * _WORD.size
    + _HISTORY.size
    + MAX_EXTENTS * _EXTENT.size
    + DIGEST_BYTES
    + SEAL_BYTES
)


class Flag(IntFlag):
    """What a head says."""

    ZSTANDARD = 0x01
    """What is stored is compressed."""
    DICTIONARY = 0x02
    """With a trained dictionary."""
    HISTORY = 0x04
    """The frame belongs to a history."""
    REMEMBER = 0x08
    """The original is to be kept under its block number."""
    ASK = 0x10
    """Compress wants to be told what is kept."""
    KEYED = 0x20
    """Digest and seal are made with a key of the key file."""


_ALL_FLAGS = int(
    Flag.ZSTANDARD | Flag.DICTIONARY | Flag.HISTORY | Flag.REMEMBER | Flag.ASK | Flag.KEYED
)


class DamagedFrameError(Exception):
    """A compressed payload cannot be restored; the text is the reason that its source is told."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A piece of a block of the same history."""

    block: int
    offset: int
    count_bytes: int

    def to_bytes(self) -> bytes:
        number = self.block << 2 * _OFFSET_BITS | self.offset << _OFFSET_BITS | self.count_bytes
        return _EXTENT.pack(number)

    @classmethod
    def from_bytes(cls, data: memoryview, at: int) -> Self:
        (number,) = _EXTENT.unpack_from(data, at)
        mask = (1 << _OFFSET_BITS) - 1
        return cls(number >> 2 * _OFFSET_BITS, number >> _OFFSET_BITS & mask, number & mask)


@dataclass(frozen=True, slots=True)
class HistoryPart:
    """What a frame says about its history."""

    history: bytes
    """8 bytes: chosen at random by compress whenever it begins a history."""
    frame: int
    """Counts the frames of the history."""
    block: int
    """Counts those to be remembered; of this frame, if it is one of them."""
    extents: tuple[Extent, ...] = ()


@dataclass(frozen=True, slots=True)
class FrameHead:
    """A head without digest and seal."""

    flags: Flag
    payload_type: int
    """Of the original."""
    original_bytes: int
    stored_bytes: int
    dictionary_id: int = 0
    key_id: int = 0
    part: HistoryPart | None = None

    @property
    def is_raw(self) -> bool:
        return not self.flags & Flag.ZSTANDARD

    @property
    def refers(self) -> bool:
        """Tell whether it needs what was sent before."""
        return self.part is not None and bool(self.part.extents)

    @property
    def digest_bytes(self) -> int:
        return DIGEST_BYTES if self.flags & (Flag.HISTORY | Flag.KEYED) else CHECK_BYTES

    @property
    def encoded_bytes(self) -> int:
        """The length of what `to_bytes` returns."""
        count = HEAD_BYTES
        if self.flags & Flag.DICTIONARY:
            count += _WORD.size
        if self.flags & Flag.KEYED:
            count += _WORD.size
        if self.part is not None:
            count += _HISTORY.size + len(self.part.extents) * _EXTENT.size
        return count

    @property
    def sealed_bytes(self) -> int:
        """The same with digest and seal: where what is stored begins."""
        return self.encoded_bytes + self.digest_bytes + (SEAL_BYTES if self.refers else 0)

    def to_bytes(self) -> bytes:
        extents = () if self.part is None else self.part.extents
        pieces = [
            _HEAD.pack(
                VERSION,
                self.flags,
                self.payload_type,
                len(extents),
                self.original_bytes,
                self.stored_bytes,
            )
        ]
        if self.flags & Flag.DICTIONARY:
            pieces.append(_WORD.pack(self.dictionary_id))
        if self.part is not None:
            part = self.part
            pieces.append(_HISTORY.pack(part.history, part.frame, part.block))
        if self.flags & Flag.KEYED:
            pieces.append(_WORD.pack(self.key_id))
        pieces += [extent.to_bytes() for extent in extents]
        return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class Frame:
    """A compressed payload, taken apart."""

    head: FrameHead
    encoded_head: memoryview
    """As `FrameHead.to_bytes` wrote it."""
    digest: memoryview
    seal: memoryview
    """Empty if the head refers to nothing."""
    stored: memoryview


def decode_frame(payload: memoryview) -> Frame:
    """Take a compressed payload apart.

    Raises:
        DamagedFrameError: its head says nothing sensible, or does not fit what follows.
    """
    if len(payload) < HEAD_BYTES:
        raise DamagedFrameError("head is cut off")
    version, flags, payload_type, count, original_bytes, stored_bytes = _HEAD.unpack_from(payload)
    if version != VERSION:
        raise DamagedFrameError(f"version {version}, known is {VERSION}")
    if flags & ~_ALL_FLAGS:
        raise DamagedFrameError(f"flags {flags:#04x}")
    if payload_type in REPORT_TYPES:
        raise DamagedFrameError("a delivery report, which is never compressed")
    try:
        head = _decode_rest(
            payload, Flag(flags), (payload_type, original_bytes, stored_bytes), count
        )
    except struct.error:
        raise DamagedFrameError("head is cut off") from None
    start, middle = head.encoded_bytes, head.encoded_bytes + head.digest_bytes
    stored = payload[head.sealed_bytes :]
    room = len(payload) - head.sealed_bytes
    if stored_bytes > room:
        raise DamagedFrameError("compressed payload is cut off")
    if head.is_raw and not original_bytes == stored_bytes == room:
        raise DamagedFrameError("raw payload of another length")
    return Frame(
        head,
        payload[:start],
        payload[start:middle],
        payload[middle : head.sealed_bytes],
        stored[:stored_bytes],
    )


def padded_bytes(original_bytes: int, framed_bytes: int, max_ratio: int) -> int:
    """Return how long a framed payload must be to stay within `max_ratio`, head included."""
    return max(framed_bytes, -(-original_bytes // max_ratio))


def _decode_rest(
    payload: memoryview, flags: Flag, sizes: tuple[int, int, int], count: int
) -> FrameHead:
    """Read what follows the fixed part; `sizes`: what that says of type and lengths."""
    is_compressed = bool(flags & Flag.ZSTANDARD)
    if (
        (flags & Flag.DICTIONARY and (not is_compressed or flags & Flag.HISTORY))
        or (flags & (Flag.REMEMBER | Flag.ASK) and not flags & Flag.HISTORY)
        or (count and not (is_compressed and flags & Flag.HISTORY))
    ):
        raise DamagedFrameError("flags that contradict each other")
    if count > MAX_EXTENTS:
        raise DamagedFrameError(f"{count} extents, allowed {MAX_EXTENTS}")
    at = HEAD_BYTES
    dictionary_id, key_id, part = 0, 0, None
    if flags & Flag.DICTIONARY:
        (dictionary_id,) = _WORD.unpack_from(payload, at)
        at += _WORD.size
    history: tuple[bytes, int, int] | None = None
    if flags & Flag.HISTORY:
        history = _HISTORY.unpack_from(payload, at)
        at += _HISTORY.size
    if flags & Flag.KEYED:
        (key_id,) = _WORD.unpack_from(payload, at)
        at += _WORD.size
    if history is not None:
        part = HistoryPart(*history, _decode_extents(payload, at, count))
    return FrameHead(flags, *sizes, dictionary_id, key_id, part)


def _decode_extents(payload: memoryview, at: int, count: int) -> tuple[Extent, ...]:
    extents = tuple(Extent.from_bytes(payload, at + n * _EXTENT.size) for n in range(count))
    referred_bytes = sum(extent.count_bytes for extent in extents)
    if referred_bytes > MAX_REFERRED_BYTES:
        raise DamagedFrameError(
            f"decompression bomb: refers to {referred_bytes} bytes, allowed {MAX_REFERRED_BYTES}"
        )
    return extents
