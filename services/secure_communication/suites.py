"""The two cipher suites, over whole payloads, from a given buffer into a given buffer.

    head (8 bytes): "SC", version 1, suite number, key id (4 bytes)
    aes-128-cbc:  head | IV 16       | ciphertext, PKCS#7 padded
    aes-256-gcm:  head | nonce 12    | ciphertext | tag 16

AES-128-CBC has no integrity: who alters the ciphertext alters the plaintext unnoticed, and whoever
may send altered chunks and learn whether they were dropped can decrypt by trial (padding oracle).
It is here because the paper measures it. AES-256-GCM detects every alteration; its additional data
is head, source GUID and chunk id, so a payload cannot be moved to another chunk either. Nonces are
random: change the key before 2 ** 32 chunks (NIST SP 800-38D, section 8.3).
"""

from __future__ import annotations

import os
import struct
from typing import Protocol

from Crypto.Cipher import AES
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_HEAD = struct.Struct(">2sBBI")
HEAD_BYTES = _HEAD.size
_MAGIC = b"SC"
_VERSION = 1
_BLOCK_BYTES = 16
_NONCE_BYTES = 12
_TAG_BYTES = 16


class DamagedPayloadError(Exception):
    """A payload cannot be decrypted; the text is the reason that its source is told."""


class Suite(Protocol):
    """A cipher over whole payloads. Keys have `key_bytes` bytes."""

    name: str
    number: int
    key_bytes: int

    def encrypted_bytes(self, payload_bytes: int) -> int:
        """Return how much room `encrypt` needs, a block more than the result at most."""

    def encrypt(
        self, key_id: int, key: bytes, payload: memoryview, bound: bytes, output: memoryview
    ) -> int:
        """Write the encrypted payload into `output` and return its length. `bound`: bytes that the
        other side must state too, where the suite can check it."""

    def decrypt(self, key: bytes, payload: memoryview, bound: bytes, output: memoryview) -> int:
        """Write the decrypted payload (head included in `payload`) and return its length; `output`
        has the size of `payload`.

        Raises:
            DamagedPayloadError: what is in `output` then must not be used.
        """


class AesCbc:
    """AES-128-CBC by PyCryptodome: confidentiality only, see above."""

    name = "aes-128-cbc"
    number = 1
    key_bytes = 16

    def encrypted_bytes(self, payload_bytes: int) -> int:
        return HEAD_BYTES + _BLOCK_BYTES + (payload_bytes // _BLOCK_BYTES + 1) * _BLOCK_BYTES

    def encrypt(
        self, key_id: int, key: bytes, payload: memoryview, bound: bytes, output: memoryview
    ) -> int:
        iv = os.urandom(_BLOCK_BYTES)
        cipher = AES.new(key, AES.MODE_CBC, iv)
        start = HEAD_BYTES + _BLOCK_BYTES
        output[:start] = encode_head(self.number, key_id) + iv
        whole = len(payload) // _BLOCK_BYTES * _BLOCK_BYTES
        end = start + whole
        if whole:
            cipher.encrypt(payload[:whole], output=output[start:end])
        rest = bytes(payload[whole:])
        missing = _BLOCK_BYTES - len(rest)
        output[end : end + _BLOCK_BYTES] = cipher.encrypt(rest + bytes([missing]) * missing)
        return end + _BLOCK_BYTES

    def decrypt(self, key: bytes, payload: memoryview, bound: bytes, output: memoryview) -> int:
        start = HEAD_BYTES + _BLOCK_BYTES
        length = len(payload) - start
        if length < _BLOCK_BYTES or length % _BLOCK_BYTES:
            raise DamagedPayloadError("damaged ciphertext")
        cipher = AES.new(key, AES.MODE_CBC, bytes(payload[HEAD_BYTES:start]))
        cipher.decrypt(payload[start:], output=output[:length])
        missing = output[length - 1]
        padding = output[length - missing : length]
        if not 1 <= missing <= _BLOCK_BYTES or bytes(padding) != bytes([missing]) * missing:
            raise DamagedPayloadError("damaged ciphertext")
        return length - missing


class AesGcm:
    """AES-256-GCM by OpenSSL: confidentiality and integrity."""

    name = "aes-256-gcm"
    number = 2
    key_bytes = 32

    def encrypted_bytes(self, payload_bytes: int) -> int:
        return HEAD_BYTES + _NONCE_BYTES + payload_bytes + _TAG_BYTES

    def encrypt(
        self, key_id: int, key: bytes, payload: memoryview, bound: bytes, output: memoryview
    ) -> int:
        head = encode_head(self.number, key_id)
        nonce = os.urandom(_NONCE_BYTES)
        cipher = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
        cipher.authenticate_additional_data(head + bound)
        start = HEAD_BYTES + _NONCE_BYTES
        end = start + len(payload)
        output[:start] = head + nonce
        # `update_into` wants room for a block more than it writes: the tag's.
        cipher.update_into(payload, output[start : end + _TAG_BYTES])
        cipher.finalize()
        output[end : end + _TAG_BYTES] = cipher.tag
        return end + _TAG_BYTES

    def decrypt(self, key: bytes, payload: memoryview, bound: bytes, output: memoryview) -> int:
        start = HEAD_BYTES + _NONCE_BYTES
        end = len(payload) - _TAG_BYTES
        if end < start:
            raise DamagedPayloadError("authentication failed")
        nonce, tag = bytes(payload[HEAD_BYTES:start]), bytes(payload[end:])
        cipher = Cipher(algorithms.AES(key), modes.GCM(nonce, tag)).decryptor()
        cipher.authenticate_additional_data(bytes(payload[:HEAD_BYTES]) + bound)
        cipher.update_into(payload[start:end], output)
        try:
            cipher.finalize()
        except InvalidTag:
            raise DamagedPayloadError("authentication failed") from None
        return end - start


SUITES: dict[str, Suite] = {suite.name: suite for suite in (AesGcm(), AesCbc())}


def encode_head(suite: int, key_id: int) -> bytes:
    """Return the 8 bytes that stand before every encrypted payload."""
    return _HEAD.pack(_MAGIC, _VERSION, suite, key_id)


def decode_head(payload: memoryview) -> tuple[int, int]:
    """Return suite number and key id of an encrypted payload.

    Raises:
        DamagedPayloadError: it was not encrypted by this service, or by a version unknown here.
    """
    if len(payload) < HEAD_BYTES:
        raise DamagedPayloadError("not encrypted")
    magic, version, suite, key_id = _HEAD.unpack_from(payload)
    if magic != _MAGIC or version != _VERSION:
        raise DamagedPayloadError("not encrypted")
    return suite, key_id
