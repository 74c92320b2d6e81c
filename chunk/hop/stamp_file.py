"""The file that stamps are kept in: read at the start, written at most once a second.

Written whole beside itself, synced, and put in its place. A file that cannot be read is an error,
one that cannot be written a line in the log: the node goes on, with its memory only, and tries
again each second.

Source: docs/protocol/hop.md, "Replay".
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.hop.stamps import Stamps

SAVE_PAUSE_S = 1.0
"""After a restart of a whole network a thousand neighbours come at once."""

_log = logging.getLogger(__name__)


class StampFileError(PacketCloudError):
    """The file of stamps is damaged or cannot be read; the text names it. Remove it to begin anew:
    recorded HELLOs are then answered once more, and lead nowhere."""


class StampFile:
    """Loads and saves the stamps of one node."""

    def __init__(self, reactor: Any, path: Path) -> None:
        self._reactor = reactor
        self.path = path
        self._call: Any = None
        self._stamps: Stamps | None = None
        self._has_failed = False
        """The last try to write: one line in the log tells of all until one succeeds."""

    def read(self) -> bytes | None:
        """Return what was saved, None if there is no file. Raises: StampFileError."""
        try:
            return self.path.read_bytes() if self.path.exists() else None
        except OSError as error:
            raise StampFileError(f"cannot read {self.path}: {error.strerror}") from error

    def keep(self, stamps: Stamps) -> None:
        """Save `stamps` from now on, whenever they have changed."""
        self._stamps = stamps
        self._call = self._reactor.callLater(SAVE_PAUSE_S, self._look)

    def close(self) -> None:
        """Save a last time."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._save()

    def _look(self) -> None:
        self._save()
        self._call = self._reactor.callLater(SAVE_PAUSE_S, self._look)

    def _save(self) -> None:
        stamps = self._stamps
        if stamps is None or not stamps.is_changed:
            return
        try:
            _replace_synced(self.path, stamps.to_bytes())
        except OSError as error:
            if not self._has_failed:
                _log.warning("hop: cannot write %s: %s", self.path, error.strerror or error)
            self._has_failed = True
            return
        stamps.is_changed = self._has_failed = False


def _replace_synced(path: Path, data: bytes) -> None:
    """Put `data` in the place of the file; it survives a power cut from here on."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
