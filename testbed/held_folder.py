"""A folder that one process at a time uses, by a locked file in it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from packetcloud.testbed.errors import TestbedError


@contextlib.contextmanager
def hold_folder(folder: Path, lock_name: str, in_use: str) -> Iterator[None]:
    """Hold a folder for ourselves, which is made if it is not there.

    Args:
        in_use: what is said where another process holds it.

    Raises:
        TestbedError: another process holds it, or it cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / lock_name).open("w")
    except OSError as error:
        raise TestbedError(f"cannot use {folder}: {error.strerror}") from None
    with lock:
        if not lock_file(lock):
            raise TestbedError(in_use)
        yield


def lock_file(lock: IO[str]) -> bool:
    """Lock an open file until it is closed; False: another process has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
