"""The file of a segment: written once, whole or not at all, and refused if damaged.

Version 1, little-endian: a head of 64 bytes (magic with the version, checksum of what follows up
to the parts, how many parts, the secret of the hash), 40 bytes for each part (kind, flags,
checksum, homes, offset, bytes), then the parts, each at a multiple of 64. Checksums are CRC-32:
against disks, not against people; whoever may write the folder may write rules.

It is read into anonymous memory rather than mapped: large pages save a miss of the TLB for each
question, no page of it is ever fetched from disk while chunks wait, and a file that is altered
later changes nothing. Reading lets the interpreter run on. Source: docs/decisions/0012.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from packetcloud.router.errors import SegmentError
from packetcloud.router.rules.segment_hash import SECRET_BYTES

MAGIC = b"PCRULES\x01"
ALIGNMENT = 64
MAX_PARTS_COUNT = 64
_HEAD = struct.Struct(f"<8sII{SECRET_BYTES}s16x")
_PART = struct.Struct("<BBBxIQQQ8x")
_PIECE_BYTES = 16 << 20
_LARGE_PAGE_BYTES = 2 << 20


class Kind(IntEnum):
    """What a part holds."""

    TUPLE = 1
    """Slots of the rules that name the fields of `mask`."""
    MEMBERS = 2
    """Slots of the members of sets."""
    RUNS = 3
    LONG_RUNS = 4
    """Where those of many rules begin, the longest first."""
    POLICIES = 5
    PATTERNS = 6
    """Pattern ids of the policies."""


_FORMS = {
    Kind.TUPLE: "Q",
    Kind.MEMBERS: "Q",
    Kind.RUNS: "I",
    Kind.LONG_RUNS: "I",
    Kind.POLICIES: "B",
    Kind.PATTERNS: "I",
}
_NEEDED = {Kind.RUNS, Kind.LONG_RUNS, Kind.POLICIES, Kind.PATTERNS}


@dataclass(frozen=True, slots=True)
class Part:
    """One part; `data` is writable by nobody once it is in a file."""

    kind: Kind
    data: Any
    """A contiguous buffer."""
    mask: int = 0
    has_both: bool = False
    """Some rule of the tuple holds for the answers too."""
    homes: int = 0


class Memory:
    """The bytes of a segment, in memory of their own or those of the file itself."""

    def __init__(self, pages: mmap.mmap) -> None:
        self._map = pages
        self._whole = memoryview(pages)
        self._views: list[memoryview] = []

    @classmethod
    def of_its_own(cls, byte_count: int) -> Memory:
        """Return empty memory, of large pages if it is large."""
        pages = mmap.mmap(-1, byte_count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if byte_count >= _LARGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
            pages.madvise(mmap.MADV_HUGEPAGE)
        return cls(pages)

    @classmethod
    def of_file(cls, path: Path) -> Memory:
        """Return the file: its pages are read when they are looked at."""
        with path.open("rb") as file:
            return cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def view(self, offset: int, byte_count: int, form: str) -> memoryview:
        """Return a part as numbers of a `struct` form."""
        view = self._whole[offset : offset + byte_count]
        cast = view.cast(form)  # type: ignore[call-overload]  # mypy wants a literal form
        self._views += [view, cast]
        return cast  # type: ignore[no-any-return]  # as above

    def fill(self, path: Path) -> None:
        """Read the file into it, a piece at a time; others run meanwhile."""
        with path.open("rb", buffering=0) as file:
            at = 0
            while at < len(self._whole):
                got = file.readinto(self._whole[at : at + _PIECE_BYTES])
                if not got:
                    raise _damaged(path, f"it ends after {at} bytes")
                at += got

    def crc(self, offset: int, byte_count: int) -> int:
        """Return the checksum of a part."""
        crc = 0
        for at in range(offset, offset + byte_count, _PIECE_BYTES):
            end = min(at + _PIECE_BYTES, offset + byte_count)
            crc = zlib.crc32(self._whole[at:end], crc)
        return crc

    def close(self) -> None:
        """Give the memory back: takes milliseconds for a large one, and lets others run."""
        for view in reversed(self._views):
            view.release()
        self._views.clear()
        self._whole.release()
        self._map.close()


def write_parts(path: Path, secret: bytes, parts: Sequence[Part]) -> None:
    """Write a file that is whole and on the disk when this returns.

    Raises:
        OSError: the folder cannot be written; no file of that name is left behind that was not
            there before.
    """
    offset = _aligned(_HEAD.size + _PART.size * len(parts))
    directory = b""
    for part in parts:
        data = memoryview(part.data).cast("B")
        directory += _PART.pack(
            part.kind, part.mask, part.has_both, zlib.crc32(data), part.homes, offset, len(data)
        )
        offset = _aligned(offset + len(data))
    crc = zlib.crc32(directory, zlib.crc32(secret))
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as file:
            file.write(_HEAD.pack(MAGIC, crc, len(parts), secret) + directory)
            for part in parts:
                file.write(bytes(-file.tell() % ALIGNMENT))
                file.write(memoryview(part.data).cast("B"))
            file.write(bytes(-file.tell() % ALIGNMENT))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def read_parts(path: Path, *, as_it_lies: bool = False) -> tuple[Memory, bytes, list[Part]]:
    """Read a file into memory and check it; return memory, secret and parts (views of numbers).

    May run in a thread: it holds the interpreter for microseconds at a time.

    Args:
        as_it_lies: look at the file where it is and check its directory only.

    Raises:
        OSError: it cannot be read.
        SegmentError: it is damaged, or not of this version.
    """
    byte_count = path.stat().st_size
    if byte_count < _HEAD.size:
        raise _damaged(path, f"it has {byte_count} bytes")
    memory = Memory.of_file(path) if as_it_lies else Memory.of_its_own(byte_count)
    try:
        if not as_it_lies:
            memory.fill(path)
        secret, parts = _checked(path, memory, byte_count, with_parts=not as_it_lies)
    except BaseException:  # a signal too: nobody else knows of the mapping yet
        memory.close()
        raise
    return memory, secret, parts


def _checked(
    path: Path, memory: Memory, byte_count: int, *, with_parts: bool
) -> tuple[bytes, list[Part]]:
    magic, crc, count, secret = _HEAD.unpack(memory.view(0, _HEAD.size, "B"))
    if magic != MAGIC:
        raise SegmentError(
            f"{path}: no table of rules of version {MAGIC[-1]} (it begins with {magic.hex()})"
        )
    size = _PART.size * count
    if count > MAX_PARTS_COUNT or _HEAD.size + size > byte_count:
        raise _damaged(path, f"{count} parts")
    directory = memory.view(_HEAD.size, size, "B")
    if zlib.crc32(directory, zlib.crc32(secret)) != crc:
        raise _damaged(path, "checksum of the directory")
    parts = []
    for kind, mask, has_both, part_crc, homes, offset, length in _PART.iter_unpack(directory):
        if kind not in _FORMS or offset + length > byte_count:
            raise _damaged(path, f"a part of kind {kind}, {length} bytes at {offset}")
        if with_parts and memory.crc(offset, length) != part_crc:
            raise _damaged(path, f"checksum of the part at {offset}")
        data = memory.view(offset, length, _FORMS[Kind(kind)])
        parts.append(Part(Kind(kind), data, mask, bool(has_both), homes))
    if _NEEDED - {part.kind for part in parts}:
        raise _damaged(path, "a part is missing")
    return secret, parts


def _damaged(path: Path, what: str) -> SegmentError:
    return SegmentError(f"{path}: a damaged table of rules: {what}")


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
