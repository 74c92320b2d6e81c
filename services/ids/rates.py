"""Thresholds and rates: who has had how many matches of which rule.

The counting is Suricata's: a window begins with its first match, is not moved by later ones, and
ends when `seconds` have passed. Source: Suricata user guide, "Thresholding Keywords".
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from packetcloud.services.ids.rule import Rate, Rule, Threshold, ThresholdKind, Track

DEFAULT_MAX_COUNT = 65_536

Key = tuple[int, int, bytes]
"""gid and sid of the rule, and whom is counted."""


class Effect(Enum):
    """What a match comes to."""

    NONE = "none"
    FULL = "full"
    ACTION_ONLY = "action only"
    """The action is taken, and nobody is told."""


@dataclass(slots=True)
class _Tally:
    began_at: float
    count: int


@dataclass(slots=True)
class _Bucket:
    filled_at: float
    left: float


class Rates:
    """All windows and buckets.

    Args:
        max_count: kept at once, of each kind; beyond it the one used least lately goes.
    """

    def __init__(self, max_count: int) -> None:
        self._max_count = max_count
        self._tallies: OrderedDict[Key, _Tally] = OrderedDict()
        self._buckets: OrderedDict[Key, _Bucket] = OrderedDict()
        self.forgotten_count = 0

    def __len__(self) -> int:
        return len(self._tallies) + len(self._buckets)

    def count(self, rule: Rule, source: bytes, destination: bytes, now: float) -> Effect:
        """Count a match of a rule and say what comes of it."""
        threshold = rule.threshold
        if threshold is None:
            return Effect.FULL
        key = (*rule.key, _whom(threshold.track, source, destination))
        tally = self._tallies.get(key)
        if tally is None:
            self._make_room(self._tallies)
            tally = self._tallies[key] = _Tally(now, 1)
            is_reached = threshold.count == 1 and threshold.kind is not ThresholdKind.FILTER
            return (
                Effect.FULL if is_reached or threshold.kind is ThresholdKind.LIMIT else Effect.NONE
            )
        self._tallies.move_to_end(key)
        if now - tally.began_at > threshold.seconds:
            tally.began_at, tally.count = now, 0
        tally.count += 1
        return _effect(threshold, tally)

    def take(
        self, rule: Rule, rate: Rate, source: bytes, destination: bytes, size: int, now: float
    ) -> bool:
        """Tell whether a chunk is within a rule's rate, and count it if so.

        A bucket holds what `seconds` let through. A chunk larger than it passes a full bucket.
        """
        key = (*rule.key, _whom(rate.track, source, destination))
        bucket = self._buckets.get(key)
        if bucket is None:
            self._make_room(self._buckets)
            bucket = self._buckets[key] = _Bucket(now, float(rate.amount))
        else:
            self._buckets.move_to_end(key)
        gained = max(0.0, now - bucket.filled_at) * rate.amount / rate.seconds
        bucket.left = min(float(rate.amount), bucket.left + gained)
        bucket.filled_at = now
        cost = min(size if rate.is_bytes else 1, rate.amount)
        if bucket.left < cost:
            return False
        bucket.left -= cost
        return True

    def export(self, now: float) -> dict[str, list[list[object]]]:
        """Return everything as JSON values; times as ages."""
        return {
            "tallies": [
                [gid, sid, whom.hex(), now - one.began_at, one.count]
                for (gid, sid, whom), one in self._tallies.items()
            ],
            "buckets": [
                [gid, sid, whom.hex(), now - one.filled_at, one.left]
                for (gid, sid, whom), one in self._buckets.items()
            ],
        }

    def take_over(self, state: dict[str, list[list[object]]], now: float) -> None:
        """Take over what `export` returned. Raises: KeyError, TypeError, ValueError."""
        for gid, sid, whom, age, count in state["tallies"]:
            self._make_room(self._tallies)
            self._tallies[_key(gid, sid, whom)] = _Tally(now - _number(age), int(_number(count)))
        for gid, sid, whom, age, left in state["buckets"]:
            self._make_room(self._buckets)
            self._buckets[_key(gid, sid, whom)] = _Bucket(now - _number(age), _number(left))

    def _make_room(self, table: OrderedDict[Key, _Tally] | OrderedDict[Key, _Bucket]) -> None:
        if len(table) >= self._max_count:
            table.popitem(last=False)
            self.forgotten_count += 1


def _effect(threshold: Threshold, tally: _Tally) -> Effect:
    match threshold.kind:
        case ThresholdKind.LIMIT:
            return Effect.FULL if tally.count <= threshold.count else Effect.ACTION_ONLY
        case ThresholdKind.THRESHOLD:
            if tally.count < threshold.count:
                return Effect.NONE
            tally.count = 0
            return Effect.FULL
        case ThresholdKind.BOTH:
            if tally.count < threshold.count:
                return Effect.NONE
            return Effect.FULL if tally.count == threshold.count else Effect.ACTION_ONLY
        case ThresholdKind.FILTER:
            return Effect.FULL if tally.count > threshold.count else Effect.NONE


def _whom(track: Track, source: bytes, destination: bytes) -> bytes:
    match track:
        case Track.SOURCE:
            return source
        case Track.DESTINATION:
            return destination
        case Track.BOTH:
            return source + destination
        case Track.FLOW:
            return b"".join(sorted((source, destination)))
        case Track.RULE:
            return b""


def _key(gid: object, sid: object, whom: object) -> Key:
    if not isinstance(whom, str):
        raise TypeError("not a name")
    return int(_number(gid)), int(_number(sid)), bytes.fromhex(whom)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    return value
