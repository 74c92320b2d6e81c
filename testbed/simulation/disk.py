"""A disk that forgets on a power cut what was not synced, and tears what was being written.

What a killed process wrote stays: the page cache survives it. A power cut keeps a random first
part of the appends that no sync followed, the last of them perhaps cut in the middle, and of a
replaced file the old or the new content. While a disk is full or damaged, writing raises.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Sequence
from pathlib import Path

from packetcloud.chunk.disk import AppendFile
from packetcloud.chunk.hop.api import Buffer


class _File:
    """A file: what a power cut keeps of it, and what was written since."""

    def __init__(self, data: bytes = b"") -> None:
        self.synced = data
        self.before: bytes | None = None
        """What stood here before an unsynced replacement; a power cut may bring it back."""
        self.appended: list[bytes] = []

    @property
    def data(self) -> bytes:
        return self.synced + b"".join(self.appended)

    def sync(self) -> None:
        self.synced = self.data
        self.before = None
        self.appended.clear()


class SimulatedDisk:
    """A `chunk.disk.Disk`. `rng` decides what a power cut keeps."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._files: dict[Path, _File] = {}
        self.appends_count = 0
        self.syncs_count = 0
        self.forgotten_bytes = 0
        self.error = 0
        """While it is not 0, folders take nothing: ENOSPC in mid-write, EIO at a sync."""
        self.errors_count = 0

    def fail(self) -> None:
        """Raise the error of now."""
        self.errors_count += 1
        raise OSError(self.error, os.strerror(self.error))

    def read(self, path: Path) -> bytes | None:
        file = self._files.get(path)
        return None if file is None else file.data

    def replace(self, path: Path, data: bytes) -> None:
        old = self._files.get(path)
        new = self._files[path] = _File(data)
        new.before = b"" if old is None else old.synced

    def open_append(self, path: Path) -> AppendFile:
        return _OpenFile(self, self._files[path])

    def names(self, folder: Path) -> list[str]:
        """Return the names of the files in a folder."""
        return sorted(path.name for path in self._files if path.parent == folder)

    def make(self, path: Path) -> AppendFile:
        """Open a file to append to it; it is made if it is not there."""
        self._files.setdefault(path, _File())
        return self.open_append(path)

    def delete(self, path: Path) -> None:
        """Take a file away for good."""
        self._files.pop(path, None)

    def copy(self) -> SimulatedDisk:
        """Return a disk with the same files, to look at."""
        other = SimulatedDisk(self._rng)
        other._files = {path: _File(file.data) for path, file in self._files.items()}
        return other

    def cut_power(self) -> None:
        """Forget what was not synced."""
        for file in self._files.values():
            if file.before is not None and self._rng.random() < 0.5:
                self.forgotten_bytes += len(file.data)
                file.synced = file.before
            elif file.appended:
                kept = file.appended[: self._rng.randrange(len(file.appended) + 1)]
                if kept and self._rng.random() < 0.3:
                    kept[-1] = kept[-1][: self._rng.randrange(len(kept[-1]))]
                self.forgotten_bytes += sum(map(len, file.appended)) - sum(map(len, kept))
                file.synced += b"".join(kept)
            file.before = None
            file.appended.clear()


class _OpenFile:
    def __init__(self, disk: SimulatedDisk, file: _File) -> None:
        self._disk = disk
        self._file = file

    def append(self, data: bytes) -> None:
        self._disk.appends_count += 1
        self._file.appended.append(data)

    def sync(self) -> None:
        self._disk.syncs_count += 1
        self._file.sync()

    def close(self) -> None:
        """Closing syncs nothing."""


class SimulatedFolder:
    """A folder of a simulated disk, as `router.storage.Storage`."""

    def __init__(self, disk: SimulatedDisk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder

    def names(self) -> list[str]:
        return self._disk.names(self._folder)

    def append(self, name: str, pieces: Sequence[Buffer]) -> None:
        data = b"".join(pieces)
        file = self._disk.make(self._folder / name)
        if self._disk.error == errno.ENOSPC:
            file.append(data[: len(data) // 2])
            self._disk.fail()
        file.append(data)

    def sync(self, name: str) -> None:
        if self._disk.error == errno.EIO:
            self._disk.fail()
        self._disk.open_append(self._folder / name).sync()

    def read(self, name: str, offset: int, size: int) -> bytes:
        return (self._disk.read(self._folder / name) or b"")[offset : offset + size]

    def size(self, name: str) -> int:
        return len(self._disk.read(self._folder / name) or b"")

    def replace(self, name: str, data: bytes) -> None:
        if self._disk.error:
            self._disk.fail()
        self._disk.replace(self._folder / name, data)
        self.sync(name)

    def delete(self, name: str) -> None:
        self._disk.delete(self._folder / name)
