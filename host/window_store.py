"""The duplicate window on disk, so that a restarted receiver still knows what it took.

An append-only file: one record per chunk taken, written in one `write` per loop turn, before the
source is told. A kill of the process loses nothing that was reported; a power cut may lose the last
seconds (no fsync: a flush per batch would cost more than the chunks). When the file has grown well
past what the window needs, it is rewritten as pages of 256 ids and renamed into place.
A damaged or torn record is passed over; those before and behind it count. What a full disk did not
take is written with the next rewrite, which comes as soon as the disk takes something again.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from packetcloud.chunk.disk import AppendFile, Disk, LocalDisk
from packetcloud.host.duplicates import DuplicateWindow, TakenPage, retention_s
from packetcloud.host.errors import HostError

_MAGIC = b"packetcloud window 2\n"
_OLD_MAGIC = b"packetcloud window 1\n"
"""Its records said by the wall clock until when they matter."""
_BODY = struct.Struct(">20sQd32s")
"""source, first id, how long to keep it (s), bits (bit i = first id + i)."""
_CRC = struct.Struct(">I")
RECORD_BYTES = _BODY.size + _CRC.size
COMPACT_AFTER_BYTES = 16 << 20
"""About 230 000 chunks of growth since the last rewrite; reading that back takes a second."""


class WindowStore:
    """The file behind one `DuplicateWindow`.

    No clock outlives a process and can be trusted: the wall clock steps, and a record that it made
    look old would let a chunk in twice. So what is read counts from the reading, in full.
    """

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self._path = path
        self._disk = disk or LocalDisk()
        self._file: AppendFile | None = None
        self._grown_bytes = 0
        self._is_behind = False
        """Something that the window holds is not in the file."""

    def load(self, window: DuplicateWindow, now: float) -> int:
        """Put the stored chunks into `window`, rewrite the file, return how many records counted.

        Raises:
            HostError: the file cannot be read or written, or is something else.
        """
        try:
            found = self._disk.read(self._path)
        except OSError as error:
            raise HostError(f"cannot read state file {self._path}: {error.strerror}") from error
        data = _MAGIC if found is None else found
        is_old = data.startswith(_OLD_MAGIC)
        if not data.startswith(_MAGIC) and not is_old and data:
            raise HostError(f"{self._path} is not a duplicate window; choose another state file")
        count = 0
        for source, first_id, keep_s, bits in _records(data[len(_MAGIC) :]):
            if keep_s > 0:
                keep_s = retention_s(None) if is_old else keep_s
                window.restore(TakenPage(source, first_id, bits, keep_s), now)
                count += 1
        self.compact(window, now)
        return count

    def append(self, entries: Iterable[tuple[bytes, int, float]]) -> None:
        """Write (source, chunk id, seconds to remember) for chunks just taken.

        Raises:
            OSError: the disk is full, or worse.
        """
        data = b"".join(
            _record(source, chunk_id & ~0xFF, keep_s, 1 << (chunk_id & 0xFF))
            for source, chunk_id, keep_s in entries
        )
        assert self._file is not None, "load comes before append"
        try:
            self._file.append(data)
        except OSError:
            self._is_behind = True
            raise
        self._grown_bytes += len(data)

    @property
    def wants_compaction(self) -> bool:
        return self._is_behind or self._grown_bytes > COMPACT_AFTER_BYTES

    def compact(self, window: DuplicateWindow, now: float) -> None:
        """Rewrite the file with what `window` holds now.

        Raises:
            HostError: the folder cannot be written; the old file is left as it was.
        """
        pages = window.taken_pages(now)
        records = [_record(page.source, page.first_id, page.keep_s, page.taken) for page in pages]
        try:
            self._disk.replace(self._path, _MAGIC + b"".join(records))
            self.close()
            self._file = self._disk.open_append(self._path)
        except OSError as error:
            raise HostError(f"cannot write state file {self._path}: {error.strerror}") from error
        self._grown_bytes = 0
        self._is_behind = False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _record(source: bytes, first_id: int, keep_s: float, bits: int) -> bytes:
    body = _BODY.pack(source, first_id, keep_s, bits.to_bytes(32, "little"))
    return body + _CRC.pack(zlib.crc32(body))


def _records(data: bytes) -> Iterable[tuple[bytes, int, float, int]]:
    offset = 0
    while offset + RECORD_BYTES <= len(data):
        body = data[offset : offset + _BODY.size]
        source, first_id, keep_s, bits = _BODY.unpack(body)
        (crc,) = _CRC.unpack_from(data, offset + _BODY.size)
        if first_id & 0xFF or keep_s != keep_s or crc != zlib.crc32(body):
            offset += 1  # a torn one may have any length
            continue
        yield source, first_id, keep_s, int.from_bytes(bits, "little")
        offset += RECORD_BYTES
