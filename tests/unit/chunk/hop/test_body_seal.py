"""A body sealed and opened piece by piece is the body sealed and opened at once."""

from __future__ import annotations

import random

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from packetcloud.chunk.hop.body_seal import BodyOpening, BodySeal, Terms, open_body, terms_of
from packetcloud.chunk.hop.buffers import BufferPool, FlatBuffer, RowBuffer, Store
from packetcloud.chunk.hop.datagrams import DATA_HEADER_BYTES, TAG_BYTES
from packetcloud.chunk.hop.keys import DirectionKeys
from packetcloud.chunk.hop.suites import Suite

STRIDE = 132
SHARE = STRIDE - DATA_HEADER_BYTES
TRANSFER, KIND, FLOW = 77, 1, 9
SUITES = (Suite.AES_256_GCM, Suite.CHACHA20_POLY1305)


def keys_of(suite: Suite) -> DirectionKeys:
    return DirectionKeys(suite, bytes(range(32)), b"to server", 0)


def sealed_whole(keys: DirectionKeys, body: bytes) -> bytes:
    """What the cipher makes of the body in one call."""
    associated = bytes([KIND]) + FLOW.to_bytes(2, "big")
    associated += (len(body) + TAG_BYTES).to_bytes(4, "big")
    return keys.body.encrypt(TRANSFER.to_bytes(12, "big"), body, associated)


def terms(size: int) -> Terms:
    return terms_of(TRANSFER, KIND, FLOW, size)


def pieces_of(size: int, rng: random.Random) -> list[int]:
    ends = sorted(rng.randrange(size + 1) for _ in range(rng.randrange(6)))
    return [*ends, size]


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
@pytest.mark.parametrize("prefix_bytes", [0, 1, 16, 88])
def test_a_body_sealed_in_pieces_is_the_body_sealed_at_once(
    suite: Suite, prefix_bytes: int
) -> None:
    """Wherever the pieces end: in the prefix, in the body or in the tag."""
    keys, rng = keys_of(suite), random.Random(prefix_bytes)
    for size in (prefix_bytes + 1, 100, 997, 70_000):
        body = rng.randbytes(size)
        seal = BodySeal(
            keys, terms(size + TAG_BYTES), body[:prefix_bytes], body[prefix_bytes:], BufferPool()
        )
        for end in pieces_of(size + TAG_BYTES, rng):
            seal.seal_to(end)
        assert seal.sealed.tobytes()[: seal.size] == sealed_whole(keys, body)


def test_no_more_is_sealed_than_was_asked_for() -> None:
    """What is sealed ahead of its burst has left the cache when it is sent."""
    pool = BufferPool()
    seal = BodySeal(keys_of(Suite.AES_256_GCM), terms(5000 + TAG_BYTES), b"", bytes(5000), pool)
    seal.sealed[:] = 0
    seal.seal_to(1000)
    assert seal.sealed[:1000].any()
    assert not seal.sealed[1000:].any()


def store_of(sealed: bytes, is_flat: bool) -> Store:
    rows = (len(sealed) + SHARE - 1) // SHARE
    padded = np.frombuffer(sealed + bytes(rows * SHARE - len(sealed)), np.uint8)
    if is_flat:
        return FlatBuffer(padded.copy(), STRIDE)
    store = RowBuffer(rows, STRIDE)
    store.payload[:rows] = padded.reshape(rows, SHARE)
    return store


def open_in_pieces(store: Store, size: int, rng: random.Random, pool: BufferPool) -> bytes | None:
    opening = BodyOpening(keys_of(Suite.AES_256_GCM), terms(size), size, pool)
    rows = (size + SHARE - 1) // SHARE
    for end in sorted(rng.randrange(1, rows + 1) for _ in range(rng.randrange(4))):
        opening.take(store, end, min(end * SHARE, size))
    plain = opening.finish(store, rows)
    return plain.tobytes()[: size - TAG_BYTES] if plain is not None else None


@pytest.mark.parametrize("is_flat", [False, True], ids=["rows", "jumbo"])
def test_a_body_opened_in_pieces_is_the_body_opened_at_once(is_flat: bool) -> None:
    """Wherever the segments and the pieces end, in rows and in one stretch."""
    keys, rng = keys_of(Suite.AES_256_GCM), random.Random(4)
    # Ends of segments just before, within and just behind the tag.
    for size in (1, SHARE - TAG_BYTES, SHARE - 1, SHARE, 3 * SHARE - 5, 3 * SHARE + 1, 9000):
        body = rng.randbytes(size)
        sealed = sealed_whole(keys, body)
        for _ in range(5):
            store = store_of(sealed, is_flat)
            assert open_in_pieces(store, len(sealed), rng, BufferPool()) == body
            whole = open_body(keys, terms(len(sealed)), len(sealed), store, BufferPool())
            assert whole is not None
            assert whole.tobytes()[:size] == body


@pytest.mark.parametrize("is_flat", [False, True], ids=["rows", "jumbo"])
def test_one_altered_bit_anywhere_is_found_and_the_buffer_comes_back(is_flat: bool) -> None:
    """In the first segment, behind it, in the tag: nothing is opened, and nothing is kept."""
    keys, rng = keys_of(Suite.AES_256_GCM), random.Random(5)
    sealed = sealed_whole(keys, rng.randbytes(3 * SHARE))
    for at in (0, SHARE, 2 * SHARE + 7, len(sealed) - TAG_BYTES, len(sealed) - 1):
        altered = bytearray(sealed)
        altered[at] ^= 4
        pool = BufferPool()
        store = store_of(bytes(altered), is_flat)
        assert open_in_pieces(store, len(sealed), rng, pool) is None
        assert pool.free_bytes > 0, "the buffer was kept"
        assert open_body(keys, terms(len(sealed)), len(sealed), store, pool) is None


def test_pieces_and_wholes_are_one_cipher() -> None:
    """AES goes in pieces; a suite without streams is sealed and opened at once."""
    keys = keys_of(Suite.AES_256_GCM)
    assert isinstance(keys.body, AESGCM)
    assert keys.body_streams is not None
    assert keys_of(Suite.CHACHA20_POLY1305).body_streams is None, "then it is opened at once"
