"""Which entries a rule has in a segment.

A rule is entered under the *tuple* of the fields that it names, once for each value of one field:
the destination if it names several, else the field with most values. The other fields of which it
names several values stay conditions of its policy, as numbers of sets.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.router.rules.rule import (
    Action,
    Direction,
    IfAbsent,
    InstalledRule,
    Match,
    Mode,
    Pattern,
)
from packetcloud.router.rules.segment_hash import (
    ENDS,
    HASH_MASK,
    MEMBER,
    SHIFT,
    Field,
    multipliers,
    name_of,
    set_number,
)
from packetcloud.router.rules.segment_layout import Rows
from packetcloud.router.rules.segment_policy import Flag, Policy

PatternIds = Callable[[Pattern], int] | Mapping[Pattern, int]
_MAX_NUMBER = 0xFFFF_FFFF
_EXTRA_BITS = 16
_EXTRA_MASK = (1 << _EXTRA_BITS) - 1
_NO_SETS = (0,) * len(Field)
_FIELDS = tuple(Field)
_VISIT, _SHADOW, _BOTH = Action.VISIT, Mode.SHADOW, Direction.BOTH
_REFUSE = IfAbsent.REFUSE
"""Looked up once: an attribute of an enum takes longer than the rest of a comparison."""


def entry_count(match: Match) -> int:
    """Return how many entries a rule takes in a segment, those of its sets included."""
    count = 0
    for values in _values(match):
        size = len(values)
        if size > 1:
            count += size
    return count or 1


@dataclass(slots=True)
class TupleEntries:
    """The entries of the rules that name the same fields, in the order of the rules."""

    has_both: bool = False
    hashes: array[int] = field(default_factory=lambda: array("Q"))
    extras: array[int] = field(default_factory=lambda: array("H"))
    numbers: array[int] = field(default_factory=lambda: array("I"))
    policies: array[int] = field(default_factory=lambda: array("I"))

    def add(self, total: int, number: int, policy: int) -> None:
        """Add one. `total`: the sum of the products of its names."""
        value = total >> SHIFT & HASH_MASK
        self.hashes.append(value >> _EXTRA_BITS)
        self.extras.append(value & _EXTRA_MASK)
        self.numbers.append(number)
        self.policies.append(policy)

    def rows(self) -> Rows:
        return Rows(
            np.frombuffer(self.hashes, np.uint64),
            np.frombuffer(self.extras, np.uint16).astype(np.uint64),
            np.frombuffer(self.numbers, np.uint32),
            np.frombuffer(self.policies, np.uint32),
        )


class Entries:
    """The entries and policies of a set of rules.

    Args:
        pattern_ids: the id of each pattern in the scanner, the same in all segments of a table.
    """

    def __init__(self, secret: bytes, pattern_ids: PatternIds) -> None:
        self._secret = secret
        self._multipliers = multipliers(secret)
        self._pattern_id = (
            pattern_ids.__getitem__ if isinstance(pattern_ids, Mapping) else pattern_ids
        )
        self.tuples: dict[int, TupleEntries] = {}
        """By mask of the fields."""
        self.members = TupleEntries()
        self.policies: dict[Policy, int] = {}
        """Index of each."""
        self._known: dict[object, int] = {}
        self._sets: dict[tuple[int, frozenset[bytes] | frozenset[int]], int] = {}

    def add_all(self, rules: Iterable[InstalledRule]) -> None:
        """Add rules. About 2.5 µs for each that names one destination.

        Raises:
            LocalMisuseError: a rule has a value that no chunk can have, or a number beyond 32 bits.
        """
        factors = self._multipliers
        factor, only_destination = factors[Field.DESTINATION], (1 << Field.DESTINATION)
        for installed in rules:
            match = installed.rule.match
            if len(match.destinations) == 1 and not (
                match.sources or match.sids or match.payload_types or match.ingress
            ):
                # Most rules: as below, in half the time.
                (destination,) = match.destinations
                name = name_of(Field.DESTINATION, destination)
                total = int.from_bytes(name, "little") * factor
                self._enter(installed, only_destination, (total,), _NO_SETS)
                continue
            mask = total = 0
            several: list[Field] | None = None
            for index, values in enumerate(_values(match)):
                if not values:
                    continue
                if len(values) == 1:
                    (value,) = values
                    name = name_of(_FIELDS[index], value)
                    total += int.from_bytes(name, "little") * factors[index]
                    mask |= 1 << index
                elif several is None:
                    several = [_FIELDS[index]]
                else:
                    several.append(_FIELDS[index])
            if several is None:
                self._enter(installed, mask, (total,), _NO_SETS)
            else:
                self._add_several(installed, mask, total, several)

    def _add_several(
        self, installed: InstalledRule, mask: int, total: int, several: list[Field]
    ) -> None:
        values = _values(installed.rule.match)
        spread = Field.DESTINATION
        if spread not in several:
            spread = max(several, key=lambda one: len(values[one]))
        factor = self._multipliers[spread]
        totals = [
            total + int.from_bytes(name_of(spread, value), "little") * factor
            for value in values[spread]
        ]
        sets = [0] * len(Field)
        for one in several:
            if one is not spread:
                sets[one] = self._set_number(one, values[one])
        self._enter(installed, mask | 1 << spread, totals, tuple(sets))

    def _enter(
        self, installed: InstalledRule, mask: int, totals: Iterable[int], sets: tuple[int, ...]
    ) -> None:
        number = installed.number
        if not 0 <= number <= _MAX_NUMBER:
            raise LocalMisuseError(f"number of a rule: {number}: 32 bits")
        entries = self.tuples.get(mask)
        if entries is None:
            entries = self.tuples[mask] = TupleEntries()
        match = installed.rule.match
        is_both = match.direction is _BOTH and (
            bool(mask & ENDS) or bool(sets[Field.SOURCE] or sets[Field.DESTINATION])
        )
        entries.has_both |= is_both
        policy = self._policy_index(installed, is_both, sets)
        for total in totals:
            entries.add(total, number, policy)

    def _policy_index(self, installed: InstalledRule, is_both: bool, sets: tuple[int, ...]) -> int:
        rule = installed.rule
        match = rule.match
        patterns: tuple[int, ...] = ()
        if match.patterns:
            patterns = tuple(self._pattern_id(one) for one in match.patterns)
        flags = (
            (Flag.VISIT if rule.action is _VISIT else 0)
            | (Flag.SHADOW if rule.mode is _SHADOW else 0)
            | (Flag.OWN if installed.is_own else 0)
            | (Flag.BOTH if is_both else 0)
            | (Flag.ALL_PATTERNS if patterns and match.needs_all_patterns else 0)
            | (Flag.REFUSE if rule.if_absent is _REFUSE else 0)
        )
        fields = (
            rule.service.value,
            flags,
            rule.priority,
            rule.valid_from_s,
            rule.valid_until_s,
            match.size_min,
            match.size_max,
            patterns,
            sets,
        )
        index = self._known.get(fields)
        if index is None:
            index = self._known[fields] = self.intern(Policy(*fields))
        return index

    def intern(self, policy: Policy) -> int:
        """Return the index of a policy, a new one if there is none like it yet."""
        return self.policies.setdefault(policy, len(self.policies))

    def _set_number(self, one: Field, values: frozenset[bytes] | frozenset[int]) -> int:
        number = self._sets.get((one, values))
        if number is None:
            number = self._sets[one, values] = set_number(self._secret, one, values)
            begin = number * self._multipliers[MEMBER]
            factor = self._multipliers[one]
            for value in values:
                name = int.from_bytes(name_of(one, value), "little")
                self.members.add(begin + name * factor, 0, 0)
        return number


def _values(match: Match) -> tuple[frozenset[bytes] | frozenset[int], ...]:
    """Return the values of each field, in the order of `Field`."""
    return match.sources, match.destinations, match.sids, match.payload_types, match.ingress
