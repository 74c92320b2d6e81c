"""L12: no key and nonce seal two things, and nothing that was opened once is opened again.

The ciphers of every session of a run are watched together, so that what a restart might repeat is
seen as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
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


class _WatchedStreams:
    """What takes a body in pieces, under one key, and says what it does."""

    def __init__(self, streams: Any, key: bytes, watch: CipherWatch) -> None:
        self._streams = streams
        self._key = key
        self._watch = watch

    def sealing(self, nonce: bytes, associated: bytes) -> Any:
        self._watch.sealed(self._key, nonce)
        return self._streams.sealing(nonce, associated)

    def opening(self, nonce: bytes, associated: bytes) -> Any:
        stream = self._streams.opening(nonce, associated)
        return _WatchedOpening(stream, functools.partial(self._watch.opened, self._key, nonce))


class _WatchedOpening:
    """A body that is opened in pieces, and says so when it proved to be what was sealed."""

    def __init__(self, stream: Any, say: Callable[[], None]) -> None:
        self._stream = stream
        self._say = say
        self.update_into = stream.update_into

    def finalize_with_tag(self, tag: bytes) -> bytes:
        last: bytes = self._stream.finalize_with_tag(tag)
        self._say()
        return last


@contextmanager
def watching_ciphers(watch: CipherWatch) -> Iterator[None]:
    """Have every cipher that a session makes report to `watch`."""
    module: Any = keys
    make_aead, make_streams = module.make_aead, module.make_streams

    def make_watched_aead(suite: Suite, key: bytes) -> Any:
        return _WatchedCipher(make_aead(suite, key), key, watch)

    def make_watched_streams(suite: Suite, key: bytes) -> Any:
        streams = make_streams(suite, key)
        return _WatchedStreams(streams, key, watch) if streams is not None else None

    module.make_aead, module.make_streams = make_watched_aead, make_watched_streams
    try:
        yield
    finally:
        module.make_aead, module.make_streams = make_aead, make_streams
