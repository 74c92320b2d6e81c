"""The head of a payload that passed the optimizer: raw or zstandard, and the original size.

    "WO", version 1, form (0 raw, 1 zstandard), original bytes (4), compressed bytes (4)

A raw payload has the original behind its head. A compressed one may be followed by zeros: they
keep it from falling below original / max_ratio, so that a megabyte of zeros passes a receiver that
refuses bombs. All limits are checked against the head, before anything is allocated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

_HEAD = struct.Struct(">2sBBII")
HEAD_BYTES = _HEAD.size
_MAGIC = b"WO"
_VERSION = 1


class Form(IntEnum):
    """What follows the head."""

    RAW = 0
    ZSTANDARD = 1


class DamagedFrameError(Exception):
    """A framed payload cannot be restored; the text is the reason that its source is told."""


@dataclass(frozen=True, slots=True)
class FrameHead:
    """The head of one framed payload."""

    form: Form
    original_bytes: int
    stored_bytes: int

    def to_bytes(self) -> bytes:
        return _HEAD.pack(_MAGIC, _VERSION, self.form, self.original_bytes, self.stored_bytes)


def decode_frame(payload: memoryview) -> FrameHead | None:
    """Return the head of a framed payload; None if the payload never passed compress.

    Raises:
        DamagedFrameError: it has our mark, but its head does not fit what follows.
    """
    if len(payload) < HEAD_BYTES:
        return None
    magic, version, form, original_bytes, stored_bytes = _HEAD.unpack_from(payload)
    if magic != _MAGIC or version != _VERSION or form not in (Form.RAW, Form.ZSTANDARD):
        return None
    if HEAD_BYTES + stored_bytes > len(payload):
        raise DamagedFrameError("compressed payload is cut off")
    if form == Form.RAW and not original_bytes == stored_bytes == len(payload) - HEAD_BYTES:
        raise DamagedFrameError("raw payload of another length")
    return FrameHead(Form(form), original_bytes, stored_bytes)


def padded_bytes(original_bytes: int, stored_bytes: int, max_ratio: int) -> int:
    """Return how long a framed payload must be to stay within `max_ratio`, head included."""
    return max(HEAD_BYTES + stored_bytes, -(-original_bytes // max_ratio))
