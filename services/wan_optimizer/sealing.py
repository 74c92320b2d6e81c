"""Digests of frames and of feedback: HMAC-SHA-256, cut to 128 bits.

With a key file they are authentic: who does not have the key can neither have bytes remembered nor
read any by referring to them, nor have anything looked up or told. Without one the key is a
constant: a digest still tells every accidental change, and who cannot see the traffic still has to
guess the 64 bits of a history's id to have anything restored of it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path

from packetcloud.chunk.header import ChunkHeader
from packetcloud.services.sdk import Buffer
from packetcloud.services.secure_communication.key_ring import KeyRing
from packetcloud.services.secure_communication.keys import ServiceKey
from packetcloud.services.wan_optimizer.framing import (
    DIGEST_BYTES,
    SEAL_BYTES,
    DamagedFrameError,
    Flag,
    Frame,
    FrameHead,
)

_PUBLIC_KEY = b"packetcloud wan-optimizer without a key file v1"
_USE = "wan-optimizer digests"
_KEY_BYTES = 32
_HEADS_ONLY = b"WS"
"""Begins what the seal of a head is over; a digest is over what begins with a version, or "WF"."""


def bound_of(header: ChunkHeader) -> bytes:
    """Return what ties a frame to its chunk: nobody has it restored under another name."""
    return header.source.value + header.chunk_id.to_bytes()


class UnknownKeyError(DamagedFrameError):
    """A frame is under a key that is not here: it may come yet, so the chunk is not given up."""

    def __init__(self, key_id: int) -> None:
        super().__init__(f"unknown key {key_id:08x}")


class Seals:
    """The keys that both directions share, or the public one.

    Args:
        key_file: as for `secure-communication`; None for no key.
        now: of a monotonic clock.
        wall_s: seconds since 1970, by which keys come into use.

    Raises:
        ServiceConfigError: the file cannot be used.
    """

    def __init__(self, key_file: Path | None, now: float = 0.0, wall_s: float = 0.0) -> None:
        self._times = now, wall_s
        self._ring = None if key_file is None else KeyRing(key_file, _derive, now, wall_s)

    @property
    def has_key_file(self) -> bool:
        return self._ring is not None

    @property
    def key_id(self) -> int | None:
        """The id of the key to use; 0 for the public one, None: the time of none has come."""
        if self._ring is None:
            return 0
        in_use = self._ring.in_use
        return None if in_use is None else in_use[0]

    def refresh(self, now: float, wall_s: float) -> None:
        """Look whether the key file changed, or another key came into use."""
        self._times = now, wall_s
        if self._ring is not None:
            self._ring.refresh(now, wall_s)

    def sealed_head(self, head: FrameHead, bound: bytes, original: Buffer) -> bytes:
        """Return a head with its digest and, if it refers to anything, its seal.

        Args:
            bound: see `bound_of`.
        """
        encoded = head.to_bytes()
        digest = self.digest(head.key_id, (encoded, bound, original))
        assert digest is not None, "our own key"
        digest = digest[: head.digest_bytes]
        if not head.refers:
            return encoded + digest
        seal = self.digest(head.key_id, (_HEADS_ONLY, encoded, bound, digest))
        assert seal is not None, "the same key"
        return encoded + digest + seal[:SEAL_BYTES]

    def check_head(self, frame: Frame, bound: bytes) -> None:
        """See that a head may be gone by, before anything is looked up or restored for it.

        Raises:
            UnknownKeyError: it is under a key that is not here.
            DamagedFrameError: it is under none, or not what compress wrote.
        """
        head = frame.head
        if not self.has_key(head.key_id):
            if head.flags & Flag.KEYED:
                raise UnknownKeyError(head.key_id)
            raise DamagedFrameError("made without a key, and here is a key_file")
        sealed = (_HEADS_ONLY, frame.encoded_head, bound, frame.digest)
        if head.refers and not self.is_right(head.key_id, sealed, frame.seal):
            raise DamagedFrameError("wrong seal")

    def check_original(self, frame: Frame, bound: bytes, original: Buffer) -> None:
        """See that what was restored is what compress had.

        Raises:
            DamagedFrameError: it is not.
        """
        pieces = (frame.encoded_head, bound, original)
        if not self.is_right(frame.head.key_id, pieces, frame.digest):
            raise DamagedFrameError("wrong digest")

    def has_key(self, key_id: int) -> bool:
        """Tell whether this side has the key of that id."""
        return self._key(key_id) is not None

    def digest(self, key_id: int, pieces: Iterable[Buffer]) -> bytes | None:
        """Return the digest of `pieces`, one after the other; None: there is no such key here."""
        key = self._key(key_id)
        if key is None:
            return None
        keyed = hmac.new(key, digestmod="sha256")
        for piece in pieces:
            keyed.update(piece)
        return keyed.digest()[:DIGEST_BYTES]

    def is_right(self, key_id: int, pieces: Iterable[Buffer], digest: Buffer) -> bool:
        """Tell whether `digest` is that of `pieces`, or begins it."""
        found = self.digest(key_id, pieces)
        return found is not None and hmac.compare_digest(found[: len(digest)], digest)

    def _key(self, key_id: int) -> bytes | None:
        if self._ring is None:
            return _PUBLIC_KEY if key_id == 0 else None
        return self._ring.get(key_id, *self._times)


def _derive(key: ServiceKey) -> bytes:
    return key.derive(_USE, _KEY_BYTES)
