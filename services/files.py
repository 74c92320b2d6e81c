"""Files that only their owner may read, replaced in one step; what tells a file that changed."""

from __future__ import annotations

import os
from pathlib import Path

Stamp = tuple[int, int, int, int] | None
"""What tells a file from what it was before, its mode included; None: it is not there."""


def stamp_of(path: Path) -> Stamp:
    """Return what changes when the file, its content or who may read it does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


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
