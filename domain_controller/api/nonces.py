"""Nonces of requests that changed nothing, so that none of them is answered twice.

Those of requests that change something are rows of the database, written with the change; these lie
in memory, of each process its own.
"""

from __future__ import annotations

from collections import Counter, deque

MAX_NONCES_COUNT = 100_000
"""About 30 MB. Requests that are valid for a minute may come a thousand times a second."""
MAX_NONCES_OF_ONE_COUNT = MAX_NONCES_COUNT // 2
"""Of one caller: whoever asks without end keeps out itself, and not all others."""


class RecentNonces:
    """The nonces of a while, each until its request is too old anyway."""

    def __init__(
        self, most: int = MAX_NONCES_COUNT, most_of_one: int = MAX_NONCES_OF_ONE_COUNT
    ) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._until_ms: dict[tuple[str, str], int] = {}
        self._order: deque[tuple[tuple[str, str], str]] = deque()
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._until_ms)

    def has_room(self, now_ms: int, caller: str = "") -> bool:
        """Tell whether one more of a caller's can be remembered."""
        self._forget(now_ms)
        return len(self._until_ms) < self._most and self._counts[caller] < self._most_of_one

    def take(self, key_id: str, nonce: str, expires_ms: int, caller: str = "") -> bool:
        """Remember a nonce; False: it was here before. Ask `has_room` first."""
        name = (key_id, nonce)
        if name in self._until_ms:
            return False
        self._until_ms[name] = expires_ms
        self._order.append((name, caller))
        self._counts[caller] += 1
        return True

    def _forget(self, now_ms: int) -> None:
        """Drop the oldest that are over; one that ends late keeps those after it longer."""
        while self._order and self._until_ms[self._order[0][0]] <= now_ms:
            name, caller = self._order.popleft()
            del self._until_ms[name]
            self._counts[caller] -= 1
            if not self._counts[caller]:
                del self._counts[caller]
