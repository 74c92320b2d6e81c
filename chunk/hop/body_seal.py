"""Sealing of whole bodies: one cipher call for each, whatever number of datagrams it takes.

The tag stands behind the ciphertext. It proves the content, its kind, its flow and its length, and
by the nonce, which is the transfer's number, that this is the body that the sender meant to be
this transfer.

Source: docs/protocol/hop.md, "Sealing"; docs/decisions/0009.
"""

from __future__ import annotations

import struct

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import GCM

from packetcloud.chunk.hop.buffers import BufferPool, ByteArray, RowBuffer, Store, gather
from packetcloud.chunk.hop.datagrams import TAG_BYTES, Buffer
from packetcloud.chunk.hop.keys import DirectionKeys
from packetcloud.chunk.hop.suites import NONCE_BYTES

_ASSOCIATED = struct.Struct(">BHI")
"""kind, flow, bytes of the sealed body."""


def seal_body(
    keys: DirectionKeys,
    transfer: int,
    kind: int,
    flow: int,
    prefix: bytes,
    payload: Buffer,
    pool: BufferPool,
) -> ByteArray:
    """Return prefix ‖ payload sealed, in a buffer of the pool that may be longer."""
    begun, plain_bytes = len(prefix), len(prefix) + len(payload)
    size = plain_bytes + TAG_BYTES
    sealed = pool.take_flat(size)
    associated = _ASSOCIATED.pack(kind, flow, size)
    source: Buffer = payload
    if prefix and keys.body_stream is not None:
        # Prefix and payload one after the other: joining them first would cost a copy.
        stream = Cipher(keys.body_stream, GCM(_nonce(transfer))).encryptor()
        stream.authenticate_additional_data(associated)
        room = sealed.data
        room[:begun] = stream.update(prefix)
        stream.update_into(payload, room[begun:plain_bytes])
        stream.finalize()
        room[plain_bytes:size] = stream.tag
        return sealed
    if prefix:
        sealed[:begun] = np.frombuffer(prefix, np.uint8)
        sealed[begun:plain_bytes] = np.frombuffer(payload, np.uint8)
        source = sealed.data[:plain_bytes]
    keys.body.encrypt_into(_nonce(transfer), source, associated, sealed.data[:size])
    return sealed


def open_body(
    keys: DirectionKeys,
    transfer: int,
    kind: int,
    flow: int,
    size: int,
    store: Store,
    pool: BufferPool,
) -> ByteArray | None:
    """Return the body of `size` sealed bytes in `store`, in a buffer of the pool.

    None when something of it was altered; `store` holds it unchanged in any case.
    """
    plain = pool.take_flat(size)
    if isinstance(store, RowBuffer):
        gather(store, size, plain)
        sealed = plain.data[:size]
    else:
        sealed = store.memory[:size]
    associated = _ASSOCIATED.pack(kind, flow, size)
    try:
        keys.body.decrypt_into(_nonce(transfer), sealed, associated, plain.data[: size - TAG_BYTES])
    except InvalidTag:
        pool.give_flat(plain)
        return None
    return plain


def open_small_body(
    keys: DirectionKeys, transfer: int, kind: int, flow: int, sealed: memoryview
) -> bytes | None:
    """Return a body that came in one piece; None when something of it was altered."""
    associated = _ASSOCIATED.pack(kind, flow, len(sealed))
    try:
        return keys.body.decrypt(_nonce(transfer), bytes(sealed), associated)
    except InvalidTag:
        return None


def _nonce(transfer: int) -> bytes:
    return transfer.to_bytes(NONCE_BYTES, "big")
