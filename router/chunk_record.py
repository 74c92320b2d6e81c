"""One record of a chunk on disk: a head, names, and the chunk as it lies in custody.

The content has a checksum, so that damage in it costs one record. The head has a tag that only who
has the folder's `key` can make: behind a damaged head the next one is looked for by its magic,
among bytes that hosts chose, and theirs must not pass for ours.
Source: docs/decisions/0010.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass

MAGIC = b"\xf1PCchnk2"
_HEAD = struct.Struct(">8sQQQIHHI")
"""magic, id, taken in and expires (wall clock, ms since 1970), content bytes, bytes of names before
the content, flags, checksum of names and content; the tag of all that follows."""
_CRC = struct.Struct(">I")
CHECKSUM_BYTES = _CRC.size
TAG_BYTES = 8
"""Keyed BLAKE2b. Each guess needs a torn head in front of it: 2^64 of them are out of reach."""
HEAD_BYTES = _HEAD.size + TAG_BYTES
NUMBERS_COUNT = 1 << 63
"""Ids are below it, so that one that was found never leaves those after it without any."""
REMOVAL = struct.Struct(">QI")
"""Id of a record that is done with, and the checksum of that."""
_NAME_BYTES = 20
_ORIGINATED = 1
_HAS_INGRESS = 2
"""The first of the names is the neighbour that the chunk came from, the rest services that ran."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is told of a chunk beside its bytes."""

    number: int
    taken_ms: int
    """Wall clock, ms since 1970."""
    expires_ms: int
    is_originated: bool = False
    executed: tuple[bytes, ...] = ()
    """SIDs of services that ran in its visit before, or had a part in making it."""
    ingress: bytes = b""
    """GUID of the neighbour that it came from; empty: it was made here."""


@dataclass(frozen=True, slots=True)
class Found:
    """A record that an earlier process left."""

    record: Record
    head: bytes
    """The first bytes of the chunk, its whole header among them."""
    size_bytes: int
    """Of the chunk."""


@dataclass(slots=True)
class Place:
    """Where a record lies."""

    segment: str
    offset: int
    record: Record
    names_bytes: int
    content_bytes: int

    @property
    def size(self) -> int:
        return HEAD_BYTES + self.names_bytes + self.content_bytes


def encode_head(key: bytes, record: Record, size: int, names_bytes: int, crc: int) -> bytes:
    """Return the head of a record whose names and content have the checksum `crc`."""
    head = _HEAD.pack(
        MAGIC,
        record.number,
        record.taken_ms,
        record.expires_ms,
        size,
        names_bytes,
        _ORIGINATED * record.is_originated | _HAS_INGRESS * bool(record.ingress),
        crc,
    )
    return head + _tag(key, head)


def place_at(key: bytes, name: str, data: bytes, at: int) -> Place | None:
    """Return the record whose head is at `at`; None when it is no right head."""
    if len(data) - at < HEAD_BYTES:
        return None
    head = data[at : at + _HEAD.size]
    if not head.startswith(MAGIC) or _tag(key, head) != data[at + _HEAD.size : at + HEAD_BYTES]:
        return None
    _, number, taken_ms, expires_ms, size, names_bytes, flags, _ = _HEAD.unpack(head)
    if number >= NUMBERS_COUNT:
        return None
    start = at + HEAD_BYTES
    text = data[start : start + names_bytes]
    names = [text[first : first + _NAME_BYTES] for first in range(0, len(text), _NAME_BYTES)]
    ingress = names.pop(0) if flags & _HAS_INGRESS and names else b""
    is_originated = bool(flags & _ORIGINATED)
    record = Record(number, taken_ms, expires_ms, is_originated, tuple(names), ingress)
    return Place(name, at, record, names_bytes, size)


def is_right(data: bytes, at: int, place: Place) -> bool:
    """Tell whether all bytes behind the head match its checksum."""
    crc = _HEAD.unpack_from(data, at)[-1]
    start = at + HEAD_BYTES
    content = memoryview(data)[start : at + place.size]
    return len(content) == place.size - HEAD_BYTES and zlib.crc32(content) == crc


def checksum(data: bytes) -> bytes:
    """Return the four bytes that stand behind what is not to be read altered."""
    return _CRC.pack(zlib.crc32(data))


def encode_removal(number: int) -> bytes:
    """Return what notes that a record is done with."""
    data = number.to_bytes(8, "big")
    return data + checksum(data)


def _tag(key: bytes, head: bytes) -> bytes:
    return hashlib.blake2b(head, digest_size=TAG_BYTES, key=key).digest()
