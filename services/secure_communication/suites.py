"""Format 1 of encrypted payloads: AES-128-CBC, which the paper measures; AES-256-GCM, read only.

    head (8 bytes): "SC", version, suite number, key id (4 bytes)
    aes-128-cbc:  head | IV 16       | ciphertext, PKCS#7 padded
    aes-256-gcm:  head | nonce 12    | ciphertext | tag 16

AES-128-CBC has no integrity: who alters the ciphertext alters the plaintext unnoticed, and whoever
may send altered chunks and learn whether they were dropped can decrypt by trial (padding oracle).
It is here because the paper measures it. What AES-256-GCM wrote before format 2 (`sealing`) is
bound to its source and chunk id, and may be sent on to another destination.
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
OLDER_VERSION = 1
_BLOCK_BYTES = 16
_NONCE_BYTES = 12
_TAG_BYTES = 16
NOT_ENCRYPTED = "not encrypted"


class DamagedPayloadError(Exception):
    """A payload cannot be decrypted; the text is the reason that its source is told."""


class Suite(Protocol):
    """A cipher over whole payloads. Keys have `key_bytes` bytes."""

    name: str
    number: int
    key_bytes: int

    def encrypted_bytes(self, payload_bytes: int) -> int:
        """Return how much room `encrypt` needs: that of its result, and of a block to work in."""

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
    """AES-128-CBC by PyCryptodome, as the paper's figures need it: confidentiality only."""

    name = "aes-128-cbc"
    number = 1
    key_bytes = 16

    def encrypted_bytes(self, payload_bytes: int) -> int:
        padded = (payload_bytes // _BLOCK_BYTES + 1) * _BLOCK_BYTES
        return HEAD_BYTES + _BLOCK_BYTES + padded + _BLOCK_BYTES

    def encrypt(
        self, key_id: int, key: bytes, payload: memoryview, bound: bytes, output: memoryview
    ) -> int:
        iv = os.urandom(_BLOCK_BYTES)
        start = HEAD_BYTES + _BLOCK_BYTES
        output[:start] = encode_head(OLDER_VERSION, self.number, key_id) + iv
        whole = len(payload) // _BLOCK_BYTES * _BLOCK_BYTES
        rest = bytes(payload[whole:])
        missing = _BLOCK_BYTES - len(rest)
        last = rest + bytes([missing]) * missing
        self._encrypt_blocks(key, iv, payload[:whole], last, output[start:])
        return start + whole + _BLOCK_BYTES

    def decrypt(self, key: bytes, payload: memoryview, bound: bytes, output: memoryview) -> int:
        start = HEAD_BYTES + _BLOCK_BYTES
        length = len(payload) - start
        if length < _BLOCK_BYTES or length % _BLOCK_BYTES:
            raise DamagedPayloadError("damaged ciphertext")
        iv = bytes(payload[HEAD_BYTES:start])
        self._decrypt_blocks(key, iv, payload[start:], output)
        missing = output[length - 1]
        padding = output[length - missing : length]
        if not 1 <= missing <= _BLOCK_BYTES or bytes(padding) != bytes([missing]) * missing:
            raise DamagedPayloadError("damaged ciphertext")
        return length - missing

    def _encrypt_blocks(
        self, key: bytes, iv: bytes, whole: memoryview, last: bytes, output: memoryview
    ) -> None:
        """Encrypt whole blocks and the padded last one; `output` has room for a block more."""
        cipher = AES.new(key, AES.MODE_CBC, iv)
        end = len(whole)
        if end:
            cipher.encrypt(whole, output=output[:end])
        output[end : end + _BLOCK_BYTES] = cipher.encrypt(last)

    def _decrypt_blocks(
        self, key: bytes, iv: bytes, blocks: memoryview, output: memoryview
    ) -> None:
        """Decrypt whole blocks; `output` has room for a block more."""
        AES.new(key, AES.MODE_CBC, iv).decrypt(blocks, output=output[: len(blocks)])


class AesCbcByOpenSsl(AesCbc):
    """The same on the wire by OpenSSL, which decrypts several blocks at once.

    Measured per MiB, interleaved: encrypt 0.8 ms (PyCryptodome 1.3), decrypt 0.10 ms (1.3).
    """

    def _encrypt_blocks(
        self, key: bytes, iv: bytes, whole: memoryview, last: bytes, output: memoryview
    ) -> None:
        cipher = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
        end = cipher.update_into(whole, output)
        output[end : end + _BLOCK_BYTES] = cipher.update(last)

    def _decrypt_blocks(
        self, key: bytes, iv: bytes, blocks: memoryview, output: memoryview
    ) -> None:
        Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor().update_into(blocks, output)


class OlderGcm:
    """AES-256-GCM as format 1 has it: what was encrypted so can be read, nothing is."""

    name = "aes-256-gcm"
    number = 2
    key_bytes = 32

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


def find_cbc(library: str) -> Suite:
    """Return AES-128-CBC by `openssl` or `pycryptodome`."""
    return AesCbcByOpenSsl() if library == "openssl" else AesCbc()


def encode_head(version: int, suite: int, key_id: int) -> bytes:
    """Return the 8 bytes that stand before every encrypted payload."""
    return _HEAD.pack(_MAGIC, version, suite, key_id)


def decode_head(payload: memoryview) -> tuple[int, int, int]:
    """Return version, suite number and key id of an encrypted payload.

    Raises:
        DamagedPayloadError: it was not encrypted by this service.
    """
    if len(payload) < HEAD_BYTES:
        raise DamagedPayloadError(NOT_ENCRYPTED)
    magic, version, suite, key_id = _HEAD.unpack_from(payload)
    if magic != _MAGIC:
        raise DamagedPayloadError(NOT_ENCRYPTED)
    return version, suite, key_id
