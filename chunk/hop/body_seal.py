"""Sealing of whole bodies: a few cipher calls for each, whatever number of datagrams it takes.

The tag stands behind the ciphertext. It proves the content, its kind, its flow and its length, and
by the nonce, which is the transfer's number, that this is the body that the sender meant to be
this transfer.

Source: docs/protocol/hop.md, "Sealing"; docs/decisions/0009.
"""

from __future__ import annotations

import struct

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import AEADEncryptionContext

from packetcloud.chunk.hop.buffers import BufferPool, ByteArray, RowBuffer, Store, gather
from packetcloud.chunk.hop.datagrams import TAG_BYTES, Buffer
from packetcloud.chunk.hop.keys import DirectionKeys
from packetcloud.chunk.hop.suites import NONCE_BYTES

_ASSOCIATED = struct.Struct(">BHI")
"""kind, flow, bytes of the sealed body."""
Terms = tuple[bytes, bytes]
"""The nonce that a body is sealed with, and what its tag proves beside the content."""


def terms_of(transfer: int, kind: int, flow: int, size: int) -> Terms:
    """Return the terms of a body that takes `size` bytes when it is sealed."""
    return transfer.to_bytes(NONCE_BYTES, "big"), _ASSOCIATED.pack(kind, flow, size)


class BodySeal:
    """Seals prefix ‖ payload as it is sent: what was just sealed is still in the cache then.

    Suites whose cipher only takes a body in one piece seal all of it at once.
    """

    __slots__ = ("_done_bytes", "_payload", "_plain_bytes", "_prefix", "_stream", "sealed", "size")

    def __init__(
        self,
        keys: DirectionKeys,
        terms: Terms,
        prefix: bytes,
        payload: Buffer,
        pool: BufferPool,
    ) -> None:
        self._plain_bytes = plain_bytes = len(prefix) + len(payload)
        self.size = size = plain_bytes + TAG_BYTES
        self.sealed = sealed = pool.take_flat(size)
        """The sealed body, in a buffer of the pool that may be longer."""
        self._prefix, self._payload = prefix, memoryview(payload)
        self._done_bytes = 0
        nonce, associated = terms
        self._stream: AEADEncryptionContext | None = None
        if keys.body_streams is not None:
            self._stream = keys.body_streams.sealing(nonce, associated)
            return
        sealed[: len(prefix)] = np.frombuffer(prefix, np.uint8)
        sealed[len(prefix) : plain_bytes] = np.frombuffer(payload, np.uint8)
        keys.body.encrypt_into(nonce, sealed.data[:plain_bytes], associated, sealed.data[:size])
        self._done_bytes = size

    def seal_to(self, end_bytes: int) -> None:
        """See to it that the first `end_bytes` of `sealed` hold what is to be sent."""
        done, stream = self._done_bytes, self._stream
        if end_bytes <= done or stream is None:
            return
        begun, plain_bytes = len(self._prefix), self._plain_bytes
        room = self.sealed.data
        if not done and begun:
            room[:begun] = stream.update(self._prefix)
            done = begun
        end = min(end_bytes, plain_bytes)
        if end > done:
            stream.update_into(self._payload[done - begun : end - begun], room[done:end])
            done = end
        if end_bytes > plain_bytes:
            stream.finalize()
            room[plain_bytes : self.size] = stream.tag
            done = self.size
        self._done_bytes = done


class BodyOpening:
    """Opens a body as its segments arrive, one after the other, while they are in the cache.

    Nothing of it is handed over before the tag at its end was found right.
    """

    __slots__ = ("_done_bytes", "_plain_bytes", "_pool", "_size", "_stream", "plain", "rows")

    def __init__(self, keys: DirectionKeys, terms: Terms, size: int, pool: BufferPool) -> None:
        assert keys.body_streams is not None, "the cipher takes a body in pieces"
        self._pool = pool
        self._size, self._plain_bytes = size, size - TAG_BYTES
        self._done_bytes = 0
        self.rows = 0
        """Segments that were opened."""
        self.plain = pool.take_flat(size)
        self._stream = keys.body_streams.opening(*terms)

    def take(self, store: Store, rows: int, end_bytes: int) -> None:
        """Open what `store` has of the body up to segment `rows`, which ends at `end_bytes`."""
        if rows <= self.rows:
            return
        room = self.plain.data
        done, end = self._done_bytes, min(end_bytes, self._plain_bytes)
        if isinstance(store, RowBuffer):
            gather(store, end_bytes, self.plain, self.rows)
            source = room[done:end]
        else:
            room[end:end_bytes] = store.memory[end:end_bytes]
            source = store.memory[done:end]
        self.rows = rows
        if end > done:
            self._stream.update_into(source, room[done:end])
            self._done_bytes = end

    def finish(self, store: Store, rows: int) -> ByteArray | None:
        """Open the rest and return the body as `open_body` does; this is of no use any more."""
        self.take(store, rows, self._size)
        try:
            self._stream.finalize_with_tag(bytes(self.plain.data[self._plain_bytes : self._size]))
        except InvalidTag:
            self.give_up()
            return None
        return self.plain

    def give_up(self) -> None:
        """Give the buffer back; this is of no use any more."""
        self._pool.give_flat(self.plain)


def open_body(
    keys: DirectionKeys, terms: Terms, size: int, store: Store, pool: BufferPool
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
    nonce, associated = terms
    try:
        keys.body.decrypt_into(nonce, sealed, associated, plain.data[: size - TAG_BYTES])
    except InvalidTag:
        pool.give_flat(plain)
        return None
    return plain


def open_small_body(keys: DirectionKeys, terms: Terms, sealed: memoryview) -> bytes | None:
    """Return a body that came in one piece; None when something of it was altered."""
    nonce, associated = terms
    try:
        return keys.body.decrypt(nonce, bytes(sealed), associated)
    except InvalidTag:
        return None
