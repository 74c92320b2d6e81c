"""The keyed hash under which names stand in a segment.

An entry stands under 80 bits of a hash of the names that it is about, not under the names: that
makes an entry of 16 bytes whatever it names. The hash is multiply-shift over vectors
(Dietzfelbinger 1996): `sum(multiplier[field] * name[field]) mod 2^256 >> 176`, each name a number
of at most 161 bits, each multiplier 256 random bits. For two different vectors the hash is the same
with a probability of 2^-80 over the multipliers, so a chunk meets a rule that is not about it with
one of 2^-56 where there are ten million.

Names are hashes of keys that anybody may make as many of as they like; whoever knew the multipliers
could grind names that crowd one place of a table, or that pass for another's. So they come from a
secret of the keeper's, which it draws once for each router and never tells. The bound above holds
for names chosen without it. `hash()` is keyed too, but differently in each process; BLAKE2 and
SipHash would be bound to nobody's choice at all, and take three times as long to call.
Source: docs/decisions/0012.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.names import GUID_BYTES

SECRET_BYTES = 32
HASH_BITS = 80
WORD_BITS = 256
SHIFT = WORD_BITS - HASH_BITS
HASH_MASK = (1 << HASH_BITS) - 1
NOWHERE = bytes(GUID_BYTES) + b"\x01"
"""Stands for the neighbour of a chunk that was made here: 21 bytes, as no neighbour has."""
MAX_PAYLOAD_TYPE = 0xFFFF


class Field(IntEnum):
    """What all chunks of a flow have in common."""

    SOURCE = 0
    DESTINATION = 1
    SID = 2
    PAYLOAD_TYPE = 3
    INGRESS = 4


MEMBER = len(Field)
"""Index of the multiplier for the number of a set, beside those of fields."""
ENDS = 1 << Field.SOURCE | 1 << Field.DESTINATION
"""The fields that are exchanged in an answer, as a mask."""


def multipliers(secret: bytes) -> tuple[int, ...]:
    """Return those of the five fields and of sets.

    Raises:
        LocalMisuseError: the secret has not 32 bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise LocalMisuseError(f"the secret of a table has {SECRET_BYTES} bytes, not {len(secret)}")
    size = WORD_BITS // 8
    return tuple(
        int.from_bytes(hashlib.blake2b(bytes([index]), key=secret, digest_size=size).digest())
        for index in range(MEMBER + 1)
    )


def set_number(secret: bytes, field: Field, values: frozenset[bytes] | frozenset[int]) -> int:
    """Return the number under which the members of a set are entered: 64 bits, of its content."""
    content = b"set" + bytes([field]) + b"".join(sorted(name_of(field, one) for one in values))
    return int.from_bytes(hashlib.blake2b(content, key=secret, digest_size=8).digest())


def name_of(field: Field, value: bytes | int) -> bytes:
    """Return what is hashed for a value of a field.

    Raises:
        LocalMisuseError: no chunk can carry that value.
    """
    if isinstance(value, int):
        if not 0 <= value <= MAX_PAYLOAD_TYPE:
            raise LocalMisuseError(f"payload type {value}: 0 to {MAX_PAYLOAD_TYPE}")
        return value.to_bytes(2, "little")
    if not value and field is Field.INGRESS:
        return NOWHERE
    if len(value) != GUID_BYTES:
        raise LocalMisuseError(f"{field.name.lower()}: a name has {GUID_BYTES} bytes: {value!r}")
    return value
