"""The keys that a running service uses: those of its file, as it is now.

The file is looked at once a second, and at once when a chunk bears a key that is not known here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.files import WatchedFile
from packetcloud.services.secure_communication.keys import (
    ServiceKey,
    key_in_use,
    load_key_file,
)

LOOK_INTERVAL_S = 1.0
MISS_INTERVAL_S = 0.05
"""The same for chunks under unknown keys: whoever sends many of them costs 20 looks a second."""

KeyT = TypeVar("KeyT")
_log = logging.getLogger("packetcloud.service.keys")


class KeyRing(Generic[KeyT]):
    """What `make` makes of each key of one file.

    Args:
        now: of a monotonic clock.
        wall_s: seconds since 1970, by which keys come into use.

    Raises:
        ServiceConfigError: the file cannot be used at the start. Later, a damaged file is logged
            once, the keys read before stay in use, and it is tried again.
    """

    def __init__(
        self, path: Path, make: Callable[[ServiceKey], KeyT], now: float, wall_s: float
    ) -> None:
        self._file = WatchedFile(path)
        self._make = make
        self._made: dict[int, KeyT] = {}
        self._looked_at = now
        self._load()
        self._in_use_id: int | None = None
        self._choose(wall_s)

    @property
    def in_use(self) -> tuple[int, KeyT] | None:
        """Id and key to encrypt with; None: the time of none has come."""
        key_id = self._in_use_id
        return None if key_id is None else (key_id, self._made[key_id])

    def get(self, key_id: int, now: float, wall_s: float) -> KeyT | None:
        """Return the key of that id, None if this side does not have it."""
        found = self._made.get(key_id)
        if found is None and self.refresh(now, wall_s, MISS_INTERVAL_S):
            found = self._made.get(key_id)
        return found

    def refresh(self, now: float, wall_s: float, interval_s: float = LOOK_INTERVAL_S) -> bool:
        """Look at the file and at the time, unless that was done just now; True: it was done."""
        if now < self._looked_at + interval_s:
            return False
        self._looked_at = now
        if self._file.is_to_be_read():
            try:
                self._load()
                self._file.taken()
            except ServiceConfigError as error:
                if self._file.failed(str(error)):
                    _log.error("keys read before stay in use: %s", error)
        self._choose(wall_s)
        return True

    def _load(self) -> None:
        self._keys = load_key_file(self._file.path)
        self._made = {
            key.key_id: self._made.get(key.key_id) or self._make(key) for key in self._keys
        }

    def _choose(self, wall_s: float) -> None:
        key = key_in_use(self._keys, wall_s)
        key_id = None if key is None else key.key_id
        if key_id != self._in_use_id:
            self._in_use_id = key_id
            word = "none" if key_id is None else f"{key_id:08x}"
            _log.info("key in use from now on: %s, of %d", word, len(self._keys))
