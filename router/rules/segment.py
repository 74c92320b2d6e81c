"""A segment of the table of rules, in memory: entries that never change, asked by hash.

See `segment_layout` for how they lie, `table` for who asks. Source: docs/decisions/0012.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from packetcloud.router.rules.answer import Contender
from packetcloud.router.rules.segment_file import Kind, Memory, Part, read_parts
from packetcloud.router.rules.segment_layout import (
    LONG_RUN,
    MANY,
    Flags,
    Rows,
    Words,
    found,
    unpacked,
)
from packetcloud.router.rules.segment_policy import RECORD, SETS_AT, Effect, Policy

MAX_KEPT_COUNT = 65_536
"""Policies that one segment keeps as objects, and rules of long runs: 400 bytes each, 26 MB."""
STEP_COUNT = 64
"""Rules that are decoded in one step: half a millisecond."""

_PIECE_COUNT = 1 << 20
"""Slots that are unpacked at a time: 16 MiB."""
_NONE = np.empty(0, np.uint8)

Candidate = tuple[int, Contender, Effect]
"""A rule of a key: its place in the order of ranks, and what it does."""


@dataclass(frozen=True, slots=True, eq=False)
class TupleTable:
    """The entries of the rules that name the fields of `mask`."""

    mask: int
    has_both: bool
    """Some of them hold for the answers too."""
    homes: int
    slots: memoryview
    """Two words for each slot, flat."""

    def words(self, bits: int) -> list[int]:
        """Return the second word of the slot with this hash, as a list of one; none: not there."""
        slots, start = self.slots, bits >> 16
        at = (start * self.homes >> 64) << 1
        while slots[at] < start:
            at += 2
        while slots[at] == start:
            if slots[at + 1] >> 48 == bits & 0xFFFF:
                return [slots[at + 1]]
            at += 2
        return []

    def array(self) -> Words:
        """Return a copy of the slots, shape (n, 2)."""
        return np.array(self.slots, np.uint64).reshape(-1, 2)


class Segment:
    """One file of entries, loaded.

    Args:
        parts: views of `memory`.
    """

    def __init__(self, memory: Memory, secret: bytes, parts: list[Part]) -> None:
        self._memory = memory
        self.secret = secret
        self.tuples: list[TupleTable] = []
        self.members: TupleTable | None = None
        """The members of all sets."""
        self._flat: dict[Kind, memoryview] = {}
        self.effects: dict[int, Effect] = {}
        """Those that were asked, by index; see `effect`."""
        self._kept: dict[int, list[Candidate]] = {}
        self.kept_count = 0
        """Rules of long runs that are kept."""
        self.forgotten_count = 0
        """Policies that were forgotten; they are read again when asked."""
        self.unkept_count = 0
        """How often a long run was read for one question, as there was no room to keep it."""
        for part in parts:
            if part.kind is Kind.TUPLE:
                self.tuples.append(TupleTable(part.mask, part.has_both, part.homes, part.data))
            elif part.kind is Kind.MEMBERS:
                self.members = TupleTable(part.mask, False, part.homes, part.data)
            else:
                self._flat[part.kind] = part.data
        self._runs = self._flat[Kind.RUNS]

    @property
    def array_bytes(self) -> int:
        """All that it takes in memory but what `MAX_KEPT_COUNT` bounds."""
        slots = [one.slots for one in self.tuples]
        if self.members is not None:
            slots.append(self.members.slots)
        return sum(one.nbytes for one in (*slots, *self._flat.values()))

    @property
    def policy_count(self) -> int:
        return len(self._flat[Kind.POLICIES]) // RECORD.size

    def effect(self, index: int) -> Effect:
        """Return a policy. The first time it is read from its record: a few microseconds."""
        known = self.effects.get(index)
        if known is None:
            if len(self.effects) >= MAX_KEPT_COUNT:
                self.forgotten_count += len(self.effects)
                self.effects.clear()
            known = self.effects[index] = Effect(self._policy(index))
        return known

    def candidates(self, word: int) -> list[Candidate]:
        """Return the rules that a slot stands for, by rank."""
        number = word & 0xFFFF_FFFF
        index = word >> 32 & MANY
        if index != MANY:
            return [self._candidate(number, index)]
        kept = self._kept.get(number)
        if kept is not None:
            return kept
        candidates: list[Candidate] = []
        for _ in self._decoding(number, candidates):
            pass
        return candidates

    def is_long(self, word: int) -> bool:
        """Tell whether a slot stands for so many rules that what they say is worth keeping."""
        return word >> 32 & MANY == MANY and self._runs[word & 0xFFFF_FFFF] >= LONG_RUN

    def counts(self, mask: int, rows: Rows) -> npt.NDArray[np.int64]:
        """Return how many rules it has of each of some keys of a tuple; O(keys)."""
        counts = np.zeros(len(rows.hashes), np.int64)
        for one in self.tuples:
            if one.mask == mask:
                slots = np.frombuffer(one.slots, np.uint64).reshape(-1, 2)
                is_there, words = found(slots, one.homes, rows.hashes, rows.extras)
                counts += is_there
                is_run = is_there & (words >> np.uint64(32) & np.uint64(MANY) == MANY)
                at = (words[is_run] & np.uint64(0xFFFF_FFFF)).astype(np.int64)
                counts[is_run] = np.frombuffer(self._runs, np.uint32)[at]
        return counts

    def numbers(self, mask: int, bits: int) -> list[int]:
        """Return the numbers of its rules of a key. `bits`: the hash of the key."""
        words = [word for one in self.tuples if one.mask == mask for word in one.words(bits)]
        return [one.number for word in words for _, one, _ in self.candidates(word)]

    def compound_numbers(self) -> npt.NDArray[np.uint32]:
        """Return the numbers of its rules that name values of several fields, ascending.

        O(entries of tuples of several fields, and of all tuples where a policy has sets), a piece
        at a time. For the keeper.
        """
        flat = np.frombuffer(self._flat[Kind.POLICIES], np.uint8) if self.policy_count else _NONE
        records = flat.reshape(-1, RECORD.size)
        has_sets: Flags = np.any(records[:, SETS_AT:], axis=1)
        runs = np.array(self._runs, np.uint32)
        numbers = [np.empty(0, np.uint32)]
        for one in self.tuples:
            is_compound = one.mask.bit_count() > 1
            if not is_compound and not has_sets.any():
                continue
            slots = np.frombuffer(one.slots, np.uint64).reshape(-1, 2)
            for start in range(0, len(slots), _PIECE_COUNT):
                rows = unpacked(slots[start : start + _PIECE_COUNT], runs)
                which = slice(None) if is_compound else has_sets[rows.policies]
                numbers.append(rows.numbers[which])
        return np.unique(np.concatenate(numbers))

    def prepare(self) -> Iterator[None]:
        """Decode the long runs, the longest first, a step of less than a millisecond at a time."""
        for at in self._flat[Kind.LONG_RUNS]:
            if at not in self._kept and self.kept_count + self._runs[at] <= MAX_KEPT_COUNT:
                yield from self._decoding(at, [])

    def all_policies(self) -> Iterator[Policy]:
        """Yield all, in the order of their index."""
        return (self._policy(index) for index in range(self.policy_count))

    def all_rows(self) -> Iterator[tuple[int, bool, Rows]]:
        """Yield the entries of each tuple as arrays: mask, `has_both`, rows by hash."""
        runs = np.array(self._runs, np.uint32)
        for one in self.tuples:
            yield one.mask, one.has_both, unpacked(one.array(), runs)

    def all_members(self) -> Rows:
        """Return the members of all sets, as rows without meaning but the hash."""
        none = np.empty((0, 2), np.uint64)
        slots = none if self.members is None else self.members.array()
        return unpacked(slots, np.empty(0, np.uint32))

    def close(self) -> None:
        """Give its memory back. For a thread; nobody may ask it any more."""
        self.effects.clear()
        self._kept.clear()
        self.kept_count = 0
        self._memory.close()

    def _policy(self, index: int) -> Policy:
        at = index * RECORD.size
        record = self._flat[Kind.POLICIES][at : at + RECORD.size]
        return Policy.from_bytes(record, self._flat[Kind.PATTERNS])

    def _decoding(self, at: int, candidates: list[Candidate]) -> Iterator[None]:
        """Fill `candidates` with the rules of a run, by rank; keep them if it is long."""
        begin = at + 1
        end = begin + 2 * self._runs[at]
        for step in range(begin, end, 2 * STEP_COUNT):
            pairs = self._runs[step : min(step + 2 * STEP_COUNT, end)].tolist()
            candidates += map(self._candidate, pairs[::2], pairs[1::2])
            yield
        candidates.sort(key=itemgetter(0))
        # A thread may prepare it while the loop asks: whoever comes second leaves it as it is.
        if len(candidates) >= LONG_RUN and at not in self._kept:
            if self.kept_count + len(candidates) > MAX_KEPT_COUNT:
                self.unkept_count += 1
                return
            self._kept[at] = candidates
            self.kept_count += len(candidates)

    def _candidate(self, number: int, index: int) -> Candidate:
        effect = self.effect(index)
        contender = Contender(number, effect.action, effect.late, effect.refuses_absent)
        return effect.order + number, contender, effect


def load_segment(path: Path) -> Segment:
    """Read a segment into memory and check it.

    May run in a thread beside the data plane: it holds the interpreter for microseconds at a time.

    Raises:
        OSError: it cannot be read.
        SegmentError: it is damaged, or of another version.
    """
    return Segment(*read_parts(path))


def open_segment(path: Path) -> Segment:
    """Open a segment where it lies, to look at a few keys of it; its parts are not checked.

    Raises:
        OSError: it cannot be read.
        SegmentError: its head is damaged, or it is of another version.
    """
    return Segment(*read_parts(path, as_it_lies=True))
