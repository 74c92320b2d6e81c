"""L12: no key and nonce seal two things, and nothing that was opened once is opened again.

The ciphers of every session of a run are watched together, so that what a restart might repeat is
seen as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from packetcloud.chunk.hop import keys
from packetcloud.chunk.hop.suites import Suite

MOST_BREACHES_COUNT = 8


class CipherWatch:
    """What was sealed and opened so far."""

    def __init__(self) -> None:
        self.breaches: list[str] = []
        self.sealed_count = 0
        self._sealed: set[tuple[bytes, bytes]] = set()
        self._opened: set[tuple[bytes, bytes]] = set()

    def sealed(self, key: bytes, nonce: bytes) -> None:
        """Something is sealed."""
        self.sealed_count += 1
        self._note(self._sealed, key, nonce, "sealed two things with one key and nonce")

    def opened(self, key: bytes, nonce: bytes) -> None:
        """Something was opened and proved to be what was sealed."""
        self._note(self._opened, key, nonce, "opened the same thing twice: a replay was accepted")

    def _note(self, known: set[tuple[bytes, bytes]], key: bytes, nonce: bytes, what: str) -> None:
        pair = key, nonce
        if pair in known and len(self.breaches) < MOST_BREACHES_COUNT:
            self.breaches.append(f"{what} (nonce {nonce.hex()})")
        known.add(pair)


class _WatchedCipher:
    """A cipher under one key that says what it does."""

    def __init__(self, cipher: Any, key: bytes, watch: CipherWatch) -> None:
        self._cipher = cipher
        self._key = key
        self._watch = watch

    def encrypt(self, nonce: bytes, data: Any, associated: Any) -> bytes:
        self._watch.sealed(self._key, nonce)
        sealed: bytes = self._cipher.encrypt(nonce, data, associated)
        return sealed

    def encrypt_into(self, nonce: bytes, data: Any, associated: Any, into: Any) -> Any:
        self._watch.sealed(self._key, nonce)
        return self._cipher.encrypt_into(nonce, data, associated, into)

    def decrypt(self, nonce: bytes, data: Any, associated: Any) -> bytes:
        plain: bytes = self._cipher.decrypt(nonce, data, associated)
        self._watch.opened(self._key, nonce)
        return plain

    def decrypt_into(self, nonce: bytes, data: Any, associated: Any, into: Any) -> Any:
        answer = self._cipher.decrypt_into(nonce, data, associated, into)
        self._watch.opened(self._key, nonce)
        return answer


@contextmanager
def watching_ciphers(watch: CipherWatch) -> Iterator[None]:
    """Have every cipher that a session makes report to `watch`."""
    module: Any = keys
    original = module.make_aead

    def make_watched(suite: Suite, key: bytes) -> Any:
        return _WatchedCipher(original(suite, key), key, watch)

    module.make_aead = make_watched
    try:
        yield
    finally:
        module.make_aead = original
