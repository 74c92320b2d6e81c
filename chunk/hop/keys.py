"""Keys of a session: from a fresh X25519 exchange and what both sides said, by HKDF.

Each direction has keys of its own for each purpose, so no number that is used as a nonce ever meets
the same key twice: counters of datagrams meet the control key, transfer numbers the body key.

Source: docs/protocol/hop.md, "Keys"; RFC 5869, RFC 7748.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop.datagrams import TAG_BYTES
from packetcloud.chunk.hop.header_check import KEY_BYTES as CHECK_KEY_BYTES
from packetcloud.chunk.hop.header_check import HeaderCheck
from packetcloud.chunk.hop.suites import KEY_BYTES, Suite, make_aead, make_streams

_LABEL = b"packetcloud hop 2 "
EPOCHS = 16
"""Key epochs that a header can tell apart."""
KEPT_EPOCHS = 4
"""Key epochs whose transfers may be open at once; the next one waits for the oldest to settle."""


class Exchange:
    """Our half of one X25519 exchange: used once, for one session or one rekeying."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._key = X25519PrivateKey.from_private_bytes(random_bytes(32))
        self.share = self._key.public_key().public_bytes_raw()

    def shared_secret(self, their_share: bytes) -> bytes:
        """Return what both sides now know.

        Raises:
            ProtocolError: their share forces a secret that everybody knows (all zero).
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(their_share))
        except ValueError:
            raise ProtocolError("bad_share", "of low order") from None


def extract(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract (RFC 5869)."""
    return hmac.digest(salt, secret, "sha256")


def expand_key(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand (RFC 5869) under one of our labels."""
    return HKDFExpand(SHA256(), size, _LABEL + label).derive(secret)


class DirectionKeys:
    """What protects one direction during one epoch."""

    __slots__ = ("body", "body_streams", "check", "control", "digest_key", "epoch")

    def __init__(self, suite: Suite, secret: bytes, direction: bytes, epoch: int) -> None:
        size = 3 * KEY_BYTES + CHECK_KEY_BYTES
        material = expand_key(secret, direction, size)
        self.epoch = epoch
        self.control = make_aead(suite, material[:KEY_BYTES])
        self.body = make_aead(suite, material[KEY_BYTES : 2 * KEY_BYTES])
        self.body_streams = make_streams(suite, material[KEY_BYTES : 2 * KEY_BYTES])
        self.digest_key = material[2 * KEY_BYTES : 3 * KEY_BYTES]
        self.check = HeaderCheck(material[3 * KEY_BYTES :])


class KeyRing:
    """The keys of both directions of a sealed session.

    Args:
        secret: of the first epoch: `extract(transcript, shared secret)`.
    """

    def __init__(self, suite: Suite, secret: bytes, *, is_client: bool) -> None:
        self.suite = suite
        self.is_client = is_client
        self._chain = secret
        self._labels = (b"to server", b"to client") if is_client else (b"to client", b"to server")
        self.send = DirectionKeys(suite, secret, self._labels[0], 0)
        receive = DirectionKeys(suite, secret, self._labels[1], 0)
        self._receive: dict[int, DirectionKeys] = {0: receive}
        self._next_send: DirectionKeys | None = None
        """What to send with as soon as the neighbour shows that it has the keys too."""
        self.newest = receive
        """The latest keys that the neighbour may send with."""

    def receive_keys(self, epoch: int) -> DirectionKeys:
        """Return the keys of a header's epoch (mod 16). Raises: ProtocolError."""
        keys = self._receive.get(epoch)
        if keys is None:
            raise ProtocolError("unknown_epoch", str(epoch))
        return keys

    def install(self, shared: bytes, *, send_now: bool) -> None:
        """Take up the keys of the next epoch, which follow from a fresh exchange and all before.

        Args:
            send_now: the neighbour has them already; else wait for `note_used`.
        """
        epoch = self.newest.epoch + 1
        self._chain = extract(self._chain, shared)
        self.newest = DirectionKeys(self.suite, self._chain, self._labels[1], epoch)
        self._receive[epoch % EPOCHS] = self.newest
        # The neighbour has settled all that it sealed with those, or would not have gone on.
        self._receive.pop((epoch - KEPT_EPOCHS) % EPOCHS, None)
        self._next_send = DirectionKeys(self.suite, self._chain, self._labels[0], epoch)
        if send_now:
            self._switch()

    def note_used(self, keys: DirectionKeys) -> None:
        """The neighbour sent something with `keys` that proved itself."""
        if self._next_send is not None and keys is self.newest:
            self._switch()

    def _switch(self) -> None:
        assert self._next_send is not None
        self.send, self._next_send = self._next_send, None

    def retire_before(self, keys: DirectionKeys) -> None:
        """Forget what is older than `keys`: nothing that it protected can still come."""
        for number, old in list(self._receive.items()):
            if old.epoch < keys.epoch:
                del self._receive[number]

    @property
    def receive_epochs(self) -> list[int]:
        """Epochs whose datagrams are taken in."""
        return sorted(keys.epoch for keys in self._receive.values())


class KeyRetirement:
    """Forgets the keys of earlier epochs once nothing that was sealed with them can come.

    Transfers are numbered and sealed in one order, so once all below the first one of an epoch are
    settled nothing sealed with older keys is left.
    """

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._epoch, self._first_transfer = 0, 0
        self.keys: DirectionKeys | None = None
        """The neighbour's newest keys, while older ones may still be needed."""

    def note_sealed(self, keys: DirectionKeys, transfer: int, settled_below: int) -> None:
        """Remember from which transfer on the neighbour uses its newest keys."""
        if keys.epoch != self._epoch:
            if keys.epoch < self._epoch:
                return
            self._epoch, self._first_transfer, self.keys = keys.epoch, transfer, keys
        self._first_transfer = min(self._first_transfer, transfer)
        self.note_settled(settled_below)

    def note_settled(self, below: int) -> None:
        """All transfers below `below` are settled."""
        if self.keys is not None and below >= self._first_transfer:
            self._ring.retire_before(self.keys)
            self.keys = None


def confirm_tag(secret: bytes, signature: bytes) -> bytes:
    """Return the tag that shows, before any signature is looked at, that both made one secret."""
    key = expand_key(secret, b"confirm", KEY_BYTES)
    return hashlib.blake2b(signature, key=key, digest_size=TAG_BYTES).digest()
