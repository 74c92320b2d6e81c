"""Digests of frames and of feedback: HMAC-SHA-256, cut to 128 bits.

With a key file they are authentic: who does not have the key can neither have bytes remembered nor
read any by referring to them. Without one the key is a constant: a digest still tells every
accidental change, and who cannot see the traffic still has to guess the 64 bits of a history's id.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path

from packetcloud.services.sdk import Buffer
from packetcloud.services.secure_communication.key_ring import KeyRing
from packetcloud.services.secure_communication.keys import ServiceKey
from packetcloud.services.wan_optimizer.framing import DIGEST_BYTES

_PUBLIC_KEY = b"packetcloud wan-optimizer without a key file v1"
_USE = "wan-optimizer digests"
_KEY_BYTES = 32


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

    def is_right(self, key_id: int, pieces: Iterable[Buffer], digest: bytes) -> bool:
        """Tell whether `digest` is that of `pieces`."""
        found = self.digest(key_id, pieces)
        return found is not None and hmac.compare_digest(found, digest)

    def _key(self, key_id: int) -> bytes | None:
        if self._ring is None:
            return _PUBLIC_KEY if key_id == 0 else None
        return self._ring.get(key_id, *self._times)


def _derive(key: ServiceKey) -> bytes:
    return key.derive(_USE, _KEY_BYTES)
