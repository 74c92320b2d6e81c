"""Anchors: places in a payload that are found again wherever its bytes have moved to.

A place is an anchor because of the bytes at it, never because of where it is: an insertion before
it does not change it. About one in `SPACING_BYTES` is one; it is known by a hash of the 32 bytes
that begin there. A wrong guess costs bytes only, so the hash need not resist anybody.
Source: docs/decisions/0018; Anand et al., "Redundancy in network traffic" (2009).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOW_BYTES = 32
SPACING_BYTES = 512
MAX_ANCHORS = 4096
"""Of one payload: twice what 1 MiB has on the average; of more, every n-th is taken."""
_CANDIDATE_BITS = 7
_MAX_CANDIDATES = 1 << 16
_CHOSEN_MASK = np.uint64(3)
_WORD_FACTOR = np.uint32(0x9E37_79B1)
_WORD_MASK = np.uint32(0x5BD1_E995)
"""So that runs of zeros, of which archives have many, are no candidates."""
_CANDIDATE_LIMIT = np.uint32(1 << (32 - _CANDIDATE_BITS))
_FACTORS = tuple(
    np.uint64(value)
    for value in (
        0x9E37_79B9_7F4A_7C15,
        0xBF58_476D_1CE4_E5B9,
        0x94D0_49BB_1331_11EB,
        0xD6E8_FEB8_6659_FD93,
    )
)
_FOLD = np.uint64(32)

Anchors = tuple[NDArray[np.int64], NDArray[np.uint64]]
"""Offsets in ascending order, and the hashes of what begins there."""


def find_anchors(payload: bytes) -> Anchors:
    """Return the anchors of `payload`. About 2 ms of processor per MiB."""
    places = _candidates(payload)
    if len(places) > _MAX_CANDIDATES:  # the same few bytes again and again
        places = places[:: -(-len(places) // _MAX_CANDIDATES)]
    hashes = _hash_at(payload, places)
    chosen = (hashes & _CHOSEN_MASK) == 0
    chosen[1:] &= hashes[1:] != hashes[:-1]  # a run of equal bytes is one place
    places, hashes = places[chosen], hashes[chosen]
    if len(places) > MAX_ANCHORS:
        step = -(-len(places) // MAX_ANCHORS)
        places, hashes = places[::step], hashes[::step]
    return places, hashes


def _candidates(payload: bytes) -> NDArray[np.int64]:
    """Return where four bytes have a small hash: one place in 128 of random bytes."""
    found = []
    last = len(payload) - WINDOW_BYTES
    for shift in range(4):
        count = (last - shift) // 4 + 1
        if count > 0:
            words = np.frombuffer(payload, "<u4", count, shift)
            found.append(
                np.flatnonzero((words ^ _WORD_MASK) * _WORD_FACTOR < _CANDIDATE_LIMIT) * 4 + shift
            )
    if not found:
        return np.empty(0, np.int64)
    places = np.concatenate(found)
    places.sort()
    return places


def _hash_at(payload: bytes, places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash the 32 bytes at each place."""
    if not len(places):
        return np.empty(0, np.uint64)
    # Every 8 bytes of the payload, at any offset; only those at the places are read.
    words: NDArray[np.uint64] = np.ndarray((len(payload) - 7,), np.dtype("<u8"), payload, 0, (1,))
    hashes = np.zeros(len(places), np.uint64)
    for number, factor in enumerate(_FACTORS):
        hashes = (hashes ^ words[places + 8 * number]) * factor
        hashes ^= hashes >> _FOLD
    return hashes
