"""A storage that forgets on a power cut what was not synced, can be full, and can be damaged."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence

from packetcloud.chunk.hop.api import Buffer


class ForgetfulStorage:
    """In memory. `limit_bytes`: the size of the disk; `failing`: every write is an I/O error."""

    def __init__(self, seed: int = 1) -> None:
        self.files: dict[str, bytearray] = {}
        self.synced: dict[str, int] = {}
        self.limit_bytes: int | None = None
        self.failing = False
        self.syncs_count = 0
        self._rng = random.Random(seed)

    def names(self) -> list[str]:
        return sorted(self.files)

    def append(self, name: str, pieces: Sequence[Buffer]) -> None:
        if self.failing:
            raise OSError(errno.EIO, "Input/output error")
        data = b"".join(pieces)
        room = len(data) if self.limit_bytes is None else self.limit_bytes - self.used_bytes
        self.files.setdefault(name, bytearray()).extend(data[: max(0, room)])
        if room < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def sync(self, name: str) -> None:
        if self.failing:
            raise OSError(errno.EIO, "Input/output error")
        self.syncs_count += 1
        self.synced[name] = len(self.files[name])

    def read(self, name: str, offset: int, size: int) -> bytes:
        return bytes(self.files[name][offset : offset + size])

    def size(self, name: str) -> int:
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return len(self.files[name])

    def replace(self, name: str, data: bytes) -> None:
        if self.failing:
            raise OSError(errno.EIO, "Input/output error")
        more = len(data)
        if self.limit_bytes is not None and self.used_bytes + more > self.limit_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.files[name] = bytearray(data)
        self.synced[name] = len(data)

    def delete(self, name: str) -> None:
        self.files.pop(name, None)
        self.synced.pop(name, None)

    @property
    def used_bytes(self) -> int:
        return sum(map(len, self.files.values()))

    def cut_power(self) -> None:
        """Keep what was synced, and a random part of what was not."""
        for name, data in list(self.files.items()):
            synced = self.synced.get(name, 0)
            del data[synced + self._rng.randint(0, len(data) - synced) :]
            if not data and name not in self.synced:
                del self.files[name]
            else:
                self.synced[name] = len(data)
