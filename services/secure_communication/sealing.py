"""Sealed payloads: XAES-256-GCM, bound to the chunk that they are the payload of.

    head (8 bytes): "SC", version 3, suite 3, key id (4 bytes)
    nonce 24 | ciphertext of: payload, trailer (14 bytes) | tag 16

Additional data: head, source GUID, chunk id, destination GUID. So a payload cannot be moved to
another chunk, source or destination. The trailer (`freshness`) says of which payload type the chunk
was, when it was sealed, and its lifetime then; it is secret, too. In format 2 it was the payload
type alone (1 byte). Each nonce has a key of its own, derived from its first half: 2 ** 80 chunks
under one key, by any number of VIs, are as safe as 2 ** 32 with plain AES-GCM (NIST SP 800-38D,
section 8.3).

Source: C2SP, XAES-256-GCM (https://c2sp.org/XAES-256-GCM); docs/reference/secure-communication.md.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from packetcloud.chunk.header import ChunkHeader
from packetcloud.services.secure_communication.freshness import TRAILER_BYTES
from packetcloud.services.secure_communication.keys import ServiceKey
from packetcloud.services.secure_communication.suites import (
    HEAD_BYTES,
    DamagedPayloadError,
    encode_head,
)

VERSION = 3
UNTIMED_VERSION = 2
"""What was sealed before payloads had a time."""
SUITE_NUMBER = 3
USE = "xaes-256-gcm"
NONCE_BYTES = 24
TAG_BYTES = 16
_HALF_BYTES = 12
UNTIMED_TRAILER_BYTES = 1
SEALED_EXTRA_BYTES = HEAD_BYTES + NONCE_BYTES + TRAILER_BYTES + TAG_BYTES
"""By so much a sealed payload is longer than what is in it."""


class SealingKey:
    """Seals and opens payloads under one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        # ECB keeps nothing from one call to the next, so one context serves for good.
        self._blocks = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        doubled = int.from_bytes(self._blocks.update(bytes(16)), "big") << 1
        if doubled >> 128:
            doubled = (doubled & ((1 << 128) - 1)) ^ 0x87
        self._mask = doubled << 128 | doubled

    @classmethod
    def of(cls, key: ServiceKey) -> SealingKey:
        """Return the one that a service key is used as."""
        return cls(key.derive(USE, 32))

    def seal(
        self,
        key_id: int,
        payload: memoryview,
        trailer: bytes,
        bound: bytes,
        output: memoryview,
        version: int = VERSION,
    ) -> int:
        """Write the sealed payload into `output`, which has room for it, and return its length."""
        head = encode_head(version, SUITE_NUMBER, key_id)
        nonce = os.urandom(NONCE_BYTES)
        cipher = Cipher(algorithms.AES(self._key_of(nonce)), modes.GCM(nonce[_HALF_BYTES:]))
        encryptor = cipher.encryptor()
        encryptor.authenticate_additional_data(head + bound)
        start = HEAD_BYTES + NONCE_BYTES
        end = start + len(payload)
        output[:start] = head + nonce
        # `update_into` wants room for a block more than it writes: trailer and tag give it.
        encryptor.update_into(payload, output[start : end + len(trailer) + TAG_BYTES])
        last = encryptor.update(trailer) + encryptor.finalize() + encryptor.tag
        output[end : end + len(last)] = last
        return end + len(last)

    def open(
        self, sealed: memoryview, trailer_bytes: int, bound: bytes, output: memoryview
    ) -> tuple[int, bytes]:
        """Write what is in `sealed`, head included, into `output` of the same size.

        Returns: its length and its trailer.

        Raises:
            DamagedPayloadError: what is in `output` then must not be used.
        """
        start = HEAD_BYTES + NONCE_BYTES
        end = len(sealed) - TAG_BYTES - trailer_bytes
        if end < start:
            raise DamagedPayloadError("authentication failed")
        nonce, tag = bytes(sealed[HEAD_BYTES:start]), bytes(sealed[end + trailer_bytes :])
        cipher = Cipher(algorithms.AES(self._key_of(nonce)), modes.GCM(nonce[_HALF_BYTES:], tag))
        decryptor = cipher.decryptor()
        decryptor.authenticate_additional_data(bytes(sealed[:HEAD_BYTES]) + bound)
        decryptor.update_into(sealed[start:end], output)
        trailer = decryptor.update(bytes(sealed[end : end + trailer_bytes]))
        try:
            decryptor.finalize()
        except InvalidTag:
            raise DamagedPayloadError("authentication failed") from None
        return end - start, trailer

    def _key_of(self, nonce: bytes) -> bytes:
        """Return the key for nonces that begin like this one."""
        half = nonce[:_HALF_BYTES]
        blocks = b"\x00\x01X\x00" + half + b"\x00\x02X\x00" + half
        return self._blocks.update((int.from_bytes(blocks, "big") ^ self._mask).to_bytes(32, "big"))


def bound_to(header: ChunkHeader) -> bytes:
    """Return what a sealed payload is bound to: no custodian may change any of it on the way."""
    return header.source.value + header.chunk_id.to_bytes() + header.destination.value
