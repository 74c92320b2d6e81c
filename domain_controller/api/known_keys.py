"""Whose keys signed lately, so that not every request asks the database.

What this controller changes counts at once; what another one on the same database changes, after
`KNOWN_MS` at most.

Source: docs/reference/domain-requests.md, "Signed".
"""

from __future__ import annotations

import threading

from packetcloud.domain_controller.api.gate import Signer

KNOWN_MS = 1000
"""On PostgreSQL, which other controllers write too."""
KNOWN_ALONE_MS = 60_000
"""On SQLite, which no other process writes while this one runs."""
MAX_KNOWN_COUNT = 4096
"""Keys, about 1 KiB each. With more all are forgotten, and asked for again."""

MAX_REFRESHED_COUNT = 500
"""Keys of one reading."""


class KnownKeys:
    """Signers by key id, each for a while. Used by several threads."""

    def __init__(self, known_ms: int) -> None:
        self._known_ms = known_ms
        self._known: dict[str, tuple[Signer, int, int]] = {}
        """With the times from when and until when it is."""
        self._turn = 0
        self._next_ms = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def to_refresh(self, now_ms: int) -> list[str]:
        """Return the keys of which half of the time is over, once; empty: it is not time yet.

        Who asks for them all at once in time saves each of them from being asked for alone.
        """
        with self._lock:
            if now_ms < self._next_ms:
                return []
            self._next_ms = now_ms + self._known_ms // 2
            old_ms = now_ms - self._known_ms // 2
            found = [key_id for key_id, (_, from_ms, _) in self._known.items() if from_ms <= old_ms]
            return found[:MAX_REFRESHED_COUNT]

    @property
    def turn(self) -> int:
        """How often all was forgotten: to be read before the database is asked."""
        return self._turn

    def get(self, key_id: str, now_ms: int) -> Signer | None:
        """Return whose key it is; None: the database has to be asked."""
        signer, from_ms, until_ms = self._known.get(key_id, (None, 0, 0))
        # A clock that was set back makes nobody known for longer.
        return signer if from_ms <= now_ms < until_ms else None

    def put(self, key_id: str, signer: Signer, now_ms: int, ends_ms: int, turn: int) -> None:
        """Know what the database said, but for what was forgotten since it was asked.

        Args:
            ends_ms: when the key does.
        """
        with self._lock:
            if turn != self._turn:
                return
            if len(self._known) >= MAX_KNOWN_COUNT and key_id not in self._known:
                self._known.clear()
            self._known[key_id] = (signer, now_ms, min(now_ms + self._known_ms, ends_ms))

    def drop(self, key_id: str) -> None:
        """Know nothing of a key."""
        with self._lock:
            self._known.pop(key_id, None)

    def forget(self) -> None:
        """Know nothing: keys or principals were changed."""
        with self._lock:
            self._turn += 1
            self._known.clear()
