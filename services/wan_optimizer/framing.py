"""The heads that payloads begin with behind the optimizer: what follows, and what it is made of.

    version 1:  "WO", 1, form (0 raw, 1 zstandard), original bytes (4), stored bytes (4)
    version 2:  "WO", 2, flags (1), original bytes (4), stored bytes (4)
      0x02      id of a trained dictionary (4)
      0x04      key id (4), history (8), frame number (4), block number (4), digest (16),
                extents (1), and as often 64 bits: block number (22), offset (21), bytes (21)

What is stored may be followed by zeros: they keep a payload from falling below original /
max_ratio. All limits are checked against the head, before anything is allocated.
Source: docs/reference/wan-optimizer.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Self

_HEAD = struct.Struct(">2sBBII")
HEAD_BYTES = _HEAD.size
_MAGIC = b"WO"
_DICTIONARY = struct.Struct(">I")
_HISTORY = struct.Struct(">I8sII16sB")
_EXTENT = struct.Struct(">Q")
_OFFSET_BITS = 21
HISTORY_ID_BYTES = 8
DIGEST_BYTES = 16
DIGEST_OFFSET = HEAD_BYTES + 20
"""Of the digest in the head of a frame of a history."""
MAX_FRAME_NUMBER = (1 << 32) - 1
MAX_BLOCK_NUMBER = (1 << 22) - 1
"""After that many blocks compress begins another history."""
MAX_BLOCK_BYTES = (1 << 20) + 128
"""A larger payload, by what other services added, leaves no room for the head of a history."""
MAX_EXTENTS = 64
"""Pieces of history that one frame may refer to: 512 bytes of head, and as many look-ups."""
MAX_REFERRED_BYTES = 2 << 20
"""All pieces of one frame together: twice a largest payload."""
MAX_HEAD_BYTES = HEAD_BYTES + _DICTIONARY.size + _HISTORY.size + MAX_EXTENTS * _EXTENT.size


class Form(IntEnum):
    """What follows a head of version 1."""

    RAW = 0
    ZSTANDARD = 1


class Flag(IntFlag):
    """What a head of version 2 says."""

    ZSTANDARD = 0x01
    """What is stored is compressed."""
    DICTIONARY = 0x02
    """With a trained dictionary."""
    HISTORY = 0x04
    """The frame belongs to a history, and carries the digest of the original."""
    REMEMBER = 0x08
    """The original is to be kept under its block number."""
    ASK = 0x10
    """Compress wants to be told what is kept."""


_ALL_FLAGS = int(Flag.ZSTANDARD | Flag.DICTIONARY | Flag.HISTORY | Flag.REMEMBER | Flag.ASK)


class DamagedFrameError(Exception):
    """A framed payload cannot be restored; the text is the reason that its source is told."""


@dataclass(frozen=True, slots=True)
class FrameHead:
    """A head of version 1."""

    form: Form
    original_bytes: int
    stored_bytes: int

    @property
    def is_raw(self) -> bool:
        return self.form is Form.RAW

    @property
    def encoded_bytes(self) -> int:
        return HEAD_BYTES

    def to_bytes(self) -> bytes:
        return _HEAD.pack(_MAGIC, 1, self.form, self.original_bytes, self.stored_bytes)


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

    key_id: int
    history: bytes
    """8 bytes: chosen at random by compress whenever it begins a history."""
    frame: int
    """Counts the frames of the history."""
    block: int
    """Counts those to be remembered; of this frame, if it is one of them."""
    digest: bytes
    """16 bytes, of head and original; see `sealing`."""
    extents: tuple[Extent, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedHead:
    """A head of version 2: what is stored was made with something that both sides know."""

    flags: Flag
    original_bytes: int
    stored_bytes: int
    dictionary_id: int = 0
    part: HistoryPart | None = None

    @property
    def is_raw(self) -> bool:
        return not self.flags & Flag.ZSTANDARD

    @property
    def encoded_bytes(self) -> int:
        count = HEAD_BYTES
        if self.flags & Flag.DICTIONARY:
            count += _DICTIONARY.size
        if self.part is not None:
            count += _HISTORY.size + len(self.part.extents) * _EXTENT.size
        return count

    def to_bytes(self) -> bytes:
        pieces = [_HEAD.pack(_MAGIC, 2, self.flags, self.original_bytes, self.stored_bytes)]
        if self.flags & Flag.DICTIONARY:
            pieces.append(_DICTIONARY.pack(self.dictionary_id))
        if (part := self.part) is not None:
            pieces.append(
                _HISTORY.pack(
                    part.key_id,
                    part.history,
                    part.frame,
                    part.block,
                    part.digest,
                    len(part.extents),
                )
            )
            pieces += [extent.to_bytes() for extent in part.extents]
        return b"".join(pieces)


def decode_frame(payload: memoryview) -> FrameHead | SharedHead | None:
    """Return the head of a framed payload; None if the payload never passed compress.

    Raises:
        DamagedFrameError: it has our mark, but its head does not fit what follows.
    """
    if len(payload) < HEAD_BYTES:
        return None
    magic, version, form, original_bytes, stored_bytes = _HEAD.unpack_from(payload)
    head: FrameHead | SharedHead
    if magic != _MAGIC:
        return None
    if version == 1 and form in (Form.RAW, Form.ZSTANDARD):
        head = FrameHead(Form(form), original_bytes, stored_bytes)
    elif version == 2 and not form & ~_ALL_FLAGS:
        head = _decode_shared(payload, Flag(form), original_bytes, stored_bytes)
    else:
        return None
    room = len(payload) - head.encoded_bytes
    if stored_bytes > room:
        raise DamagedFrameError("compressed payload is cut off")
    if head.is_raw and not original_bytes == stored_bytes == room:
        raise DamagedFrameError("raw payload of another length")
    return head


def padded_bytes(original_bytes: int, framed_bytes: int, max_ratio: int) -> int:
    """Return how long a framed payload must be to stay within `max_ratio`, head included."""
    return max(framed_bytes, -(-original_bytes // max_ratio))


def _decode_shared(
    payload: memoryview, flags: Flag, original_bytes: int, stored_bytes: int
) -> SharedHead:
    offset = HEAD_BYTES
    dictionary_id, part = 0, None
    is_compressed = bool(flags & Flag.ZSTANDARD)
    try:
        if flags & Flag.DICTIONARY:
            if not is_compressed or flags & Flag.HISTORY:
                raise DamagedFrameError("flags that contradict each other")
            (dictionary_id,) = _DICTIONARY.unpack_from(payload, offset)
        if flags & Flag.HISTORY:
            key_id, history, frame, block, digest, count = _HISTORY.unpack_from(payload, offset)
            extents = _decode_extents(payload, offset + _HISTORY.size, count, is_compressed)
            part = HistoryPart(key_id, history, frame, block, digest, extents)
        elif flags & (Flag.REMEMBER | Flag.ASK):
            raise DamagedFrameError("flags that contradict each other")
    except struct.error:
        raise DamagedFrameError("head is cut off") from None
    return SharedHead(flags, original_bytes, stored_bytes, dictionary_id, part)


def _decode_extents(
    payload: memoryview, offset: int, count: int, is_compressed: bool
) -> tuple[Extent, ...]:
    if count > MAX_EXTENTS:
        raise DamagedFrameError(f"{count} extents, allowed {MAX_EXTENTS}")
    if count and not is_compressed:
        raise DamagedFrameError("flags that contradict each other")
    extents = tuple(Extent.from_bytes(payload, offset + n * _EXTENT.size) for n in range(count))
    referred_bytes = sum(extent.count_bytes for extent in extents)
    if referred_bytes > MAX_REFERRED_BYTES:
        raise DamagedFrameError(
            f"decompression bomb: refers to {referred_bytes} bytes, allowed {MAX_REFERRED_BYTES}"
        )
    return extents
