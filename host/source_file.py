"""The file that is sent: read at any place, hashed once from front to back. Used in worker threads.

Read into reused buffers, not mapped: a mapped file that somebody shortens kills the process
(SIGBUS), and page faults would stop the reactor; the copy out of the page cache costs a tenth of
the hashing.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from packetcloud.host.errors import TransferError
from packetcloud.host.file_format import FILE_KEY_BYTES

_KEY_DOMAIN = b"packetcloud file key v1\x00"
HASH_STEP_BYTES = 64 << 20
"""Hashed per job when a part is skipped: 35 ms of work, then others have their turn."""
_READ_BYTES = 1 << 20


class SourceFile:
    """An open regular file of a size that must not change.

    Raises (on opening):
        TransferError: missing, unreadable, or not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hashed_bytes = 0
        self._sha256 = hashlib.sha256()
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise TransferError(f"cannot read {path}: {error.strerror}") from error
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            kind = "a folder; pack it first" if stat.S_ISDIR(status.st_mode) else "not a file"
            raise TransferError(f"cannot send {path}: it is {kind}")
        self.size_bytes = status.st_size
        self._mtime_ns = status.st_mtime_ns
        self._scratch = bytearray(_READ_BYTES)

    def key(self, name: str) -> bytes:
        """Return what names this content without reading it: from name, size and change time.

        A content that changed under the same time is found out by the digest at the end.
        """
        text = f"{name}\x00{self.size_bytes}\x00{self._mtime_ns}".encode("utf-8", "surrogateescape")
        return hashlib.sha256(_KEY_DOMAIN + text).digest()[:FILE_KEY_BYTES]

    def read(self, start: int, view: memoryview) -> None:
        """Fill `view` from `start` on; hash it too when everything before was hashed.

        Raises:
            TransferError: the file became shorter, or the disk fails.
        """
        self._fill(start, view)
        if start == self.hashed_bytes:
            self._sha256.update(view)
            self.hashed_bytes += len(view)

    def hash_towards(self, limit: int) -> None:
        """Hash up to `limit`, but at most `HASH_STEP_BYTES` now. Raises: as `read`."""
        limit = min(limit, self.hashed_bytes + HASH_STEP_BYTES)
        while self.hashed_bytes < limit:
            length = min(_READ_BYTES, limit - self.hashed_bytes)
            self.read(self.hashed_bytes, memoryview(self._scratch)[:length])

    def digest(self) -> bytes:
        """Return the SHA-256 of the whole, once all is hashed.

        Raises:
            TransferError: the file was changed since it was opened.
        """
        status = os.fstat(self._descriptor)
        if (status.st_size, status.st_mtime_ns) != (self.size_bytes, self._mtime_ns):
            raise TransferError(f"{self.path} was changed while it was sent; send it again")
        assert self.hashed_bytes == self.size_bytes, "hash_towards comes first"
        return self._sha256.digest()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _fill(self, start: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._descriptor, [view[done:]], start + done)
            except OSError as error:
                raise TransferError(f"cannot read {self.path}: {error.strerror}") from error
            if not count:
                raise TransferError(f"{self.path} became shorter while it was sent; send it again")
            done += count
