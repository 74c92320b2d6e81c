"""What a rule of a segment does beside what it names; rules that do the same share one policy.

A record of 104 bytes: service, flags, priority, validity, size, where its pattern ids stand, and
the numbers of the sets that a chunk's fields must be in too. Source: docs/decisions/0012.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.router.rules.answer import Late
from packetcloud.router.rules.rule import MAX_SIZE_BYTES, Action
from packetcloud.router.rules.segment_hash import Field

RECORD = struct.Struct("<20sB3xqddIIII5Q")
SETS_AT = RECORD.size - 8 * len(Field)
"""Where the numbers of the sets begin in it."""
PRIORITY_LIMIT = 1 << 63
_NUMBER_BITS = 32


class Flag:
    """The yes and no of a policy, as bits of one byte."""

    VISIT = 1
    SHADOW = 2
    OWN = 4
    BOTH = 8
    """It holds for the answers too."""
    ALL_PATTERNS = 16
    REFUSE = 32
    """Where nobody knows its service the chunk is refused."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One record, as it is asked."""

    service: bytes
    flags: int
    priority: int = 0
    valid_from_s: float = -math.inf
    valid_until_s: float = math.inf
    size_min: int = 0
    size_max: int = MAX_SIZE_BYTES
    patterns: tuple[int, ...] = ()
    sets: tuple[int, ...] = (0,) * len(Field)
    """By field: the number of the set that its value must be in; zero: any value."""

    def to_bytes(self, patterns_at: int) -> bytes:
        """Return the record. `patterns_at`: index of its first pattern id among all.

        Raises:
            LocalMisuseError: the priority takes more than 64 bits.
        """
        if not -PRIORITY_LIMIT <= self.priority < PRIORITY_LIMIT:
            raise LocalMisuseError(f"priority {self.priority}: 64 bits with a sign")
        return RECORD.pack(
            self.service,
            self.flags,
            self.priority,
            self.valid_from_s,
            self.valid_until_s,
            self.size_min,
            self.size_max,
            patterns_at,
            len(self.patterns),
            *self.sets,
        )

    @classmethod
    def from_bytes(cls, record: memoryview, patterns: memoryview) -> Policy:
        """Read a record. `patterns`: the pattern ids of all policies, 32 bits each."""
        service, flags, priority, since, until, low, high, at, count, *sets = RECORD.unpack(record)
        return cls(
            service,
            flags,
            priority,
            since,
            until,
            low,
            high,
            tuple(patterns[at : at + count]),
            tuple(sets),
        )


class Effect:
    """A policy as it is asked: all that follows from it, worked out once."""

    __slots__ = (
        "action",
        "holds_for_answers",
        "is_shadow",
        "is_simple",
        "late",
        "order",
        "refuses_absent",
        "service",
        "sets",
        "valid_from_s",
        "valid_until_s",
    )

    def __init__(self, policy: Policy) -> None:
        flags = policy.flags
        self.service = policy.service
        self.action = Action.VISIT if flags & Flag.VISIT else Action.PASS
        self.is_shadow = bool(flags & Flag.SHADOW)
        self.holds_for_answers = bool(flags & Flag.BOTH)
        self.refuses_absent = bool(flags & Flag.REFUSE)
        self.valid_from_s = policy.valid_from_s
        self.valid_until_s = policy.valid_until_s
        self.late = _late(policy)
        self.sets = tuple((index, number) for index, number in enumerate(policy.sets) if number)
        """Fields whose value must be in a set, and its number."""
        self.order = _order(policy)
        """Plus the number of the rule: sorts rules by rank, the first first."""
        self.is_simple = (
            not self.is_shadow
            and not self.sets
            and self.valid_from_s == -math.inf
            and self.valid_until_s == math.inf
        )
        """It is active and asks for nothing more of a flow, now and always."""


def _late(policy: Policy) -> Late | None:
    if not policy.patterns and policy.size_min == 0 and policy.size_max == MAX_SIZE_BYTES:
        return None
    needs_all = bool(policy.flags & Flag.ALL_PATTERNS)
    return Late(policy.size_min, policy.size_max, policy.patterns, needs_all)


def _order(policy: Policy) -> int:
    place = PRIORITY_LIMIT - policy.priority
    if not policy.flags & Flag.OWN:
        place += 2 * PRIORITY_LIMIT
    return (place << 1 | (not policy.flags & Flag.VISIT)) << _NUMBER_BITS
