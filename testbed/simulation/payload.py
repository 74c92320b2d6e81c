"""Payloads that say which operation they belong to, and what services make of them."""

from __future__ import annotations

import hashlib
import random
import struct

MAGIC = b"sim op: "
_OP = struct.Struct(">8sQ")
OP_BYTES = _OP.size


def make_payload(op: int, size: int, seed: str) -> bytes:
    """Return `size` bytes, at least `OP_BYTES`, that no other operation has."""
    body = random.Random(f"{seed}/payload/{op}").randbytes(max(0, size - OP_BYTES))
    return _OP.pack(MAGIC, op) + body


def op_of(payload: bytes | memoryview) -> int | None:
    """Return the operation that a payload begins with, None if it is none of ours."""
    if len(payload) < OP_BYTES or payload[:8] != MAGIC:
        return None
    return int(_OP.unpack_from(payload)[1])


def digest_of(payload: bytes | memoryview) -> str:
    """Return 16 hex digits."""
    return hashlib.blake2b(payload, digest_size=8).hexdigest()
