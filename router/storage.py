"""What a chunk log needs of a disk: files by name in one folder, appended to and never changed.

Synchronous, and called from one thread only (the disk worker's, and the main one's before that
starts). A simulated disk can stand in: what was appended and not synced may be gone, or torn, after
a power cut; what was written survives a kill of the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from packetcloud.chunk.hop.api import Buffer

MAX_PIECES_COUNT = 512
"""Buffers of one `writev`; the kernel takes 1024."""
MAX_OPEN_COUNT = 32
"""Files that stay open: a spool may have a hundred thousand, and a process 1024 descriptors."""


class Storage(Protocol):
    """One folder. Every call may raise OSError."""

    def names(self) -> list[str]: ...

    def append(self, name: str, pieces: Sequence[Buffer]) -> None:
        """Write at the end of a file, which is made if it is not there.

        Raises:
            OSError: full, or worse; a part of it may have been written.
        """

    def sync(self, name: str) -> None:
        """Return when what was appended to the file, and its name, survive a power cut."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return up to `size` bytes, fewer at the end of the file."""

    def size(self, name: str) -> int: ...

    def replace(self, name: str, data: bytes) -> None:
        """Put a whole file in place of another, synced: a reader sees the old or the new one."""

    def delete(self, name: str) -> None:
        """Take a file away, if it is there; synced."""


class FolderStorage:
    """A folder of this machine, made if it is not there, and ours alone while it is open.

    Raises:
        OSError: it cannot be used, or another process does.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._open: dict[str, int] = {}
        """Descriptors, the longest unused one first."""
        self._unsynced: set[str] = set()
        self._unsynced_names: set[str] = set()
        self._directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._directory)
            raise BlockingIOError(errno.EAGAIN, "another process uses it") from None

    def names(self) -> list[str]:
        return sorted(path.name for path in self._folder.iterdir())

    def append(self, name: str, pieces: Sequence[Buffer]) -> None:
        if name not in self._open and not (self._folder / name).exists():
            self._unsynced_names.add(name)
        descriptor = self._descriptor(name, os.O_CREAT)
        self._unsynced.add(name)
        for first in range(0, len(pieces), MAX_PIECES_COUNT):
            some = pieces[first : first + MAX_PIECES_COUNT]
            wanted = sum(map(len, some))
            written = os.writev(descriptor, some)
            while written < wanted:  # a full disk takes a part and then says so
                written += os.write(descriptor, b"".join(some)[written:])

    def sync(self, name: str) -> None:
        os.fsync(self._descriptor(name))
        self._unsynced.discard(name)
        if name in self._unsynced_names:
            os.fsync(self._directory)
            self._unsynced_names.discard(name)

    def read(self, name: str, offset: int, size: int) -> bytes:
        descriptor = self._descriptor(name)
        found = b""
        while len(found) < size:
            more = os.pread(descriptor, size - len(found), offset + len(found))
            if not more:
                break
            found += more
        return found

    def size(self, name: str) -> int:
        return (self._folder / name).stat().st_size

    def replace(self, name: str, data: bytes) -> None:
        temporary = self._folder / f".{name}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        finally:
            os.close(descriptor)
        self._close(name)
        temporary.replace(self._folder / name)
        self._unsynced.discard(name)
        os.fsync(self._directory)

    def delete(self, name: str) -> None:
        self._close(name)
        (self._folder / name).unlink(missing_ok=True)
        self._unsynced_names.discard(name)
        self._unsynced.discard(name)
        os.fsync(self._directory)

    def close(self) -> None:
        """Close every file."""
        for name in list(self._open):
            self._close(name)
        os.close(self._directory)

    def _descriptor(self, name: str, flags: int = 0) -> int:
        descriptor = self._open.pop(name, None)
        if descriptor is None:
            if len(self._open) >= MAX_OPEN_COUNT:
                # One that was written to stays if it can: the kernel may tell only those who had
                # it open then that it lost something.
                synced = (other for other in self._open if other not in self._unsynced)
                self._close(next(synced, next(iter(self._open))))
            flags |= os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(self._folder / name, flags, 0o600)
        self._open[name] = descriptor
        return descriptor

    def _close(self, name: str) -> None:
        descriptor = self._open.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)
