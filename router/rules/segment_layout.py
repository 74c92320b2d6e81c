"""How entries lie in a segment: one line of the cache for most questions.

A *slot* is two words of 64 bits: the upper 64 bits of the hash; then its other 16 bits, the policy
(16 bits) and the number of the rule (32 bits). A slot's home is `hash * homes >> 64`, so homes rise
with hashes; entries stand at their home or after it, sorted by hash. A search reads on from the
home until the hash is not smaller: what is not there is found out as soon as what is. There are two
homes for each entry: a search reads 1.5 slots on average, and a line of the cache holds four.
Where a key has several entries, or its policy does not fit 16 bits, the policy is `MANY` and the
number says where its *run* begins: how many they are, then number and policy of each (32 bits).
Source: Amble, Knuth, Ordered hash tables (1974); docs/decisions/0012.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SLOT_BYTES = 16
HOMES_PER_ENTRY = 2
EMPTY = 0xFFFF_FFFF_FFFF_FFFF
"""The hash of an empty slot: larger than all. The one entry of 2^64 that has it is not found."""
MANY = 0xFFFF
"""The policy of a slot whose number is an index in the runs."""
LONG_RUN = 64
"""Runs from here on are worth being kept decoded."""

Words = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Entries of one tuple: four arrays of equal length."""

    hashes: Words
    extras: Words
    """The 16 bits of the hash that follow."""
    numbers: Numbers
    policies: Numbers

    def picked(self, which: npt.NDArray[Any]) -> Rows:
        """Return some of them: by index or by a mask."""
        return Rows(
            self.hashes[which], self.extras[which], self.numbers[which], self.policies[which]
        )

    @classmethod
    def joined(cls, parts: list[Rows]) -> Rows:
        return cls(
            np.concatenate([one.hashes for one in parts]),
            np.concatenate([one.extras for one in parts]),
            np.concatenate([one.numbers for one in parts]),
            np.concatenate([one.policies for one in parts]),
        )

    def sorted(self) -> Rows:
        """Return them by hash; those of one key by number."""
        rows = self.picked(np.argsort(self.hashes, kind="stable"))
        if bool(np.any(rows.hashes[1:] == rows.hashes[:-1])):
            rows = rows.picked(np.lexsort((rows.numbers, rows.extras, rows.hashes)))
        return rows

    def starts(self) -> npt.NDArray[np.intp]:
        """Return where each key begins; they must be sorted."""
        new = np.ones(len(self.hashes), bool)
        new[1:] = (self.hashes[1:] != self.hashes[:-1]) | (self.extras[1:] != self.extras[:-1])
        return np.flatnonzero(new)


def homes_of(hashes: Words, homes: int) -> npt.NDArray[np.int64]:
    """Return `hash * homes >> 64` for each; `homes` has less than 32 bits."""
    half = np.uint64(32)
    count = np.uint64(homes)
    upper, lower = hashes >> half, hashes & np.uint64(0xFFFF_FFFF)
    return ((upper * count + (lower * count >> half)) >> half).astype(np.int64)


def laid_out(hashes: Words, words: Words) -> tuple[int, Words]:
    """Return the number of homes and the slots, shape (n, 2). `hashes` must be sorted."""
    homes = max(1, HOMES_PER_ENTRY * len(hashes))
    at = homes_of(hashes, homes)
    index = np.arange(len(hashes), dtype=np.int64)
    at = np.maximum.accumulate(at - index) + index
    count = max(homes, int(at[-1]) + 1 if len(at) else 0) + 1  # the last one is always empty
    slots = np.zeros((count, 2), np.uint64)
    slots[:, 0] = EMPTY
    slots[at, 0] = hashes
    slots[at, 1] = words
    return homes, slots


def found(slots: Words, homes: int, hashes: Words, extras: Words) -> tuple[Flags, Words]:
    """Search for many keys at once; return which are there, and the word of each that is."""
    at = homes_of(hashes, homes)
    pending = np.arange(len(hashes))
    while len(pending := pending[slots[at[pending], 0] < hashes[pending]]):
        at[pending] += 1
    words: Words = slots[at, 1]
    is_there = (slots[at, 0] == hashes) & (words >> np.uint64(48) == extras)
    return is_there, words


def packed(rows: Rows, runs_before: int) -> tuple[Words, Words, Numbers, Numbers]:
    """Return hash and word of each key, its runs, and where the long ones begin.

    Args:
        rows: sorted.
        runs_before: how many 32-bit numbers stand in the runs already.
    """
    starts = rows.starts()
    counts = np.diff(np.append(starts, len(rows.hashes)))
    first = rows.picked(starts)
    is_run = (counts > 1) | (first.policies >= MANY)
    sizes = counts[is_run]
    begins = runs_before + np.cumsum(2 * sizes + 1) - (2 * sizes + 1)
    numbers, policies = first.numbers.copy(), first.policies.copy()
    numbers[is_run], policies[is_run] = begins, MANY
    words: Words = (
        (first.extras << np.uint64(48))
        + (policies.astype(np.uint64) << np.uint64(32))
        + numbers.astype(np.uint64)
    )
    runs = np.empty(int((2 * sizes + 1).sum()), np.uint32)
    runs[begins - runs_before] = sizes
    member = np.repeat(is_run, counts)
    inner = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = np.repeat(begins - runs_before, sizes) + 1 + 2 * inner
    runs[places], runs[places + 1] = rows.numbers[member], rows.policies[member]
    longest_first = np.argsort(-sizes, kind="stable")
    long = begins[longest_first][sizes[longest_first] >= LONG_RUN].astype(np.uint32)
    return first.hashes, words, runs, long


def unpacked(slots: Words, runs: Numbers) -> Rows:
    """Return the entries of the slots of a tuple, sorted: the opposite of `packed`."""
    slots = slots[slots[:, 0] != EMPTY]
    words = slots[:, 1]
    extras = words >> np.uint64(48)
    policies = (words >> np.uint64(32) & np.uint64(MANY)).astype(np.uint32)
    numbers = (words & np.uint64(0xFFFF_FFFF)).astype(np.uint32)
    is_run = policies == MANY
    counts = np.ones(len(slots), np.int64)
    counts[is_run] = runs[numbers[is_run]]
    owner = np.repeat(np.arange(len(slots)), counts)
    inner = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = Rows(slots[:, 0], extras, numbers, policies).picked(owner)
    member = is_run[owner]
    places = rows.numbers[member].astype(np.int64) + 1 + 2 * inner[member]
    rows.numbers[member], rows.policies[member] = runs[places], runs[places + 1]
    return rows
