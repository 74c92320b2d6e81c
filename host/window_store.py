"""The duplicate window on disk, so that a restarted receiver still knows what it took.

An append-only file: one record per chunk taken, written in one `write` per loop turn, before the
source is told. A kill of the process loses nothing that was reported; a power cut may lose the last
seconds (no fsync: a flush per batch would cost more than the chunks). When the file has grown well
past what the window needs, it is rewritten as pages of 256 ids and renamed into place.
A damaged or torn record ends the reading; what stands before it counts.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from packetcloud.host.duplicates import DuplicateWindow, TakenPage
from packetcloud.host.errors import HostError

_MAGIC = b"packetcloud window 1\n"
_BODY = struct.Struct(">20sQd32s")
"""source, first id, keep until (wall clock, s since 1970), bits (bit i = first id + i)."""
_CRC = struct.Struct(">I")
RECORD_BYTES = _BODY.size + _CRC.size
COMPACT_AFTER_BYTES = 16 << 20
"""About 230 000 chunks of growth since the last rewrite; reading that back takes a second."""


class WindowStore:
    """The file behind one `DuplicateWindow`. `wall_clock` is `time.time`; tests pass their own."""

    def __init__(self, path: Path, wall_clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._wall_clock = wall_clock
        self._descriptor = -1
        self._grown_bytes = 0

    def load(self, window: DuplicateWindow, now: float) -> int:
        """Put the stored chunks into `window`, rewrite the file, return how many records counted.

        Raises:
            HostError: the file cannot be read or written, or is something else.
        """
        try:
            data = self._path.read_bytes() if self._path.exists() else _MAGIC
        except OSError as error:
            raise HostError(f"cannot read state file {self._path}: {error.strerror}") from error
        if not data.startswith(_MAGIC) and data:
            raise HostError(f"{self._path} is not a duplicate window; choose another state file")
        count = 0
        wall_s = self._wall_clock()
        for source, first_id, keep_until_s, bits in _records(data[len(_MAGIC) :]):
            if keep_until_s > wall_s:
                taken = TakenPage(source, first_id, bits, keep_until_s - wall_s)
                window.restore(taken, now)
                count += 1
        self.compact(window, now)
        return count

    def append(self, entries: Iterable[tuple[bytes, int, float]]) -> None:
        """Write (source, chunk id, seconds to remember) for chunks just taken.

        Raises:
            OSError: the disk is full, or worse.
        """
        wall_s = self._wall_clock()
        data = b"".join(
            _record(source, chunk_id & ~0xFF, wall_s + keep_s, 1 << (chunk_id & 0xFF))
            for source, chunk_id, keep_s in entries
        )
        os.write(self._descriptor, data)
        self._grown_bytes += len(data)

    @property
    def wants_compaction(self) -> bool:
        return self._grown_bytes > COMPACT_AFTER_BYTES

    def compact(self, window: DuplicateWindow, now: float) -> None:
        """Rewrite the file with what `window` holds now.

        Raises:
            HostError: the folder cannot be written; the old file is left as it was.
        """
        wall_s = self._wall_clock()
        pages = window.taken_pages(now)
        records = [
            _record(page.source, page.first_id, wall_s + page.keep_s, page.taken) for page in pages
        ]
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            temporary.write_bytes(_MAGIC + b"".join(records))
            temporary.replace(self._path)
            self.close()
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"cannot write state file {self._path}: {error.strerror}") from error
        self._grown_bytes = 0

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _record(source: bytes, first_id: int, keep_until_s: float, bits: int) -> bytes:
    body = _BODY.pack(source, first_id, keep_until_s, bits.to_bytes(32, "little"))
    return body + _CRC.pack(zlib.crc32(body))


def _records(data: bytes) -> Iterable[tuple[bytes, int, float, int]]:
    for offset in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        body = data[offset : offset + _BODY.size]
        (crc,) = _CRC.unpack_from(data, offset + _BODY.size)
        if crc != zlib.crc32(body):
            return
        source, first_id, keep_until_s, bits = _BODY.unpack(body)
        if first_id & 0xFF or keep_until_s != keep_until_s:
            return
        yield source, first_id, keep_until_s, int.from_bytes(bits, "little")
