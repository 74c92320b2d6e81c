"""What an endpoint takes from the machine it runs on, so that a simulated one can stand in."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from packetcloud.chunk.disk import Disk, LocalDisk


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A source of randomness and a disk; the defaults are the real ones."""

    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    """Unpredictable bytes: where chunk ids begin, and how long a lost router is waited for."""
    disk: Disk = field(default_factory=LocalDisk)

    def random_u64(self) -> int:
        """Return 64 unpredictable bits."""
        return int.from_bytes(self.random_bytes(8), "big")

    def random_share(self) -> float:
        """Return a number in [0, 1)."""
        return int.from_bytes(self.random_bytes(4), "big") / (1 << 32)
