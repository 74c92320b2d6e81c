"""Files that only their owner may read, replaced in one step; files that are looked at again."""

from __future__ import annotations

import os
from pathlib import Path

Stamp = tuple[int, int, int, int, int] | None
"""What tells a file from what it was before, its mode included; None: it is not there."""
_NEVER: Stamp = (0, 0, 0, 0, 0)
"""No file has the inode 0."""


class WatchedFile:
    """A file that is read again when it changes: tells when, and which failure is news.

    Args:
        is_read: its content is known as it is now; else the first look finds something new.
        is_steady: a version counts when two looks saw it: somebody may be writing it.
    """

    def __init__(self, path: Path, *, is_read: bool = True, is_steady: bool = False) -> None:
        self.path = path
        self._is_steady = is_steady
        self._seen: Stamp = _NEVER
        self._done = stamp_of(path) if is_read else _NEVER
        """The version that was taken, or refused for good."""
        self._told: tuple[Stamp, str] | None = None

    def is_to_be_read(self) -> bool:
        """Look at the file; tell whether it is another than the one that was taken."""
        before, self._seen = self._seen, stamp_of(self.path)
        return self._seen != self._done and (not self._is_steady or self._seen == before)

    def taken(self) -> None:
        """What the last look saw is in use."""
        self._done, self._told = self._seen, None

    def failed(self, problem: str, *, is_for_good: bool = False) -> bool:
        """Note that what the last look saw is not in use; tell whether nobody was told of that.

        Args:
            is_for_good: the file has to change first. Otherwise it is tried again at the next look:
                it may be that too many files were open just now.
        """
        if is_for_good:
            self._done = self._seen
        news = self._seen, problem
        is_news, self._told = news != self._told, news
        return is_news


def stamp_of(path: Path) -> Stamp:
    """Return what changes when the file, its content or who may read it does."""
    try:
        status = path.stat()
    except OSError:
        return None
    times = status.st_mtime_ns, status.st_ctime_ns  # which may stand still for some milliseconds
    return status.st_ino, *times, status.st_size, status.st_mode


def write_private_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data`, mode 0600; a reader sees the old content or the new, never a part.

    Args:
        durable: survive a power cut; status that a restart makes again does without.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
