"""The few things that durable state needs of a disk, and the real one.

State that must survive a restart goes through here, so that the simulated network can put a disk
underneath that forgets what was not synced. Source: docs/reference/simulate.md, "The disk".
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol


class AppendFile(Protocol):
    """A file that grows at its end."""

    def append(self, data: bytes) -> None:
        """Write at the end. A kill of the process does not undo it, a power cut may.

        Raises:
            OSError: the disk is full, or worse. Nothing of it was written, unless the disk does not
                let that be undone either.
        """

    def sync(self) -> None:
        """Return when everything appended so far survives a power cut."""

    def close(self) -> None: ...


class Disk(Protocol):
    """Where durable state lies."""

    def read(self, path: Path) -> bytes | None:
        """Return the whole file, None if there is none.

        Raises:
            OSError: it cannot be read.
        """

    def replace(self, path: Path, data: bytes) -> None:
        """Put `data` in the place of the file: a reader sees the old file or the new one, whole.

        Without a sync of its own: after a power cut it may be either.

        Raises:
            OSError: the folder cannot be written; the old file is left as it was.
        """

    def open_append(self, path: Path) -> AppendFile:
        """Open an existing file to append to it.

        Raises:
            OSError: it cannot be opened.
        """


class LocalFile:
    """An `AppendFile` of this machine."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def append(self, data: bytes) -> None:
        before = os.fstat(self._descriptor).st_size
        left = memoryview(data)
        try:
            while left:  # a full disk takes a part and then says so
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)
            raise

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class LocalDisk:
    """This machine's file system."""

    def read(self, path: Path) -> bytes | None:
        return path.read_bytes() if path.exists() else None

    def replace(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(data)
        temporary.replace(path)

    def open_append(self, path: Path) -> AppendFile:
        return LocalFile(path)
