"""When: a slot from begin to end, once or repeated. Begin belongs to it, end does not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from packetcloud.domain_controller.core.checks import check_integer, check_time, check_type, shown
from packetcloud.domain_controller.errors import InvalidValueError

SECOND_MS = 1000
HOUR_MS = 3600 * SECOND_MS
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS
MIN_SLOT_MS = SECOND_MS
"""A VI cannot be started and ended within less."""
MAX_SLOT_MS = 366 * DAY_MS
"""One occurrence lasts at most so long; who wants more extends it."""
MAX_OCCURRENCES_COUNT = 366
"""Each is a hold of its own: a year of days."""
MAX_AHEAD_MS = 2 * 366 * DAY_MS
"""The last occurrence ends at most so far ahead: prices and cloudlets change."""


class Every(StrEnum):
    """How often a slot repeats; a day has 24 hours of UTC, whatever clocks on walls do."""

    DAY = "day"
    WEEK = "week"

    @property
    def ms(self) -> int:
        return DAY_MS if self is Every.DAY else WEEK_MS


@dataclass(frozen=True, slots=True)
class Repeat:
    """How a slot repeats: so many times, or while it begins before a time; one of the two."""

    every: Every
    count: int | None = None
    """Occurrences in all, the first one included."""
    until_ms: int | None = None
    """The last occurrence begins before this."""

    def __post_init__(self) -> None:
        if not isinstance(self.every, Every):
            raise InvalidValueError(
                "repeat.every", shown(self.every), " or ".join(every.value for every in Every)
            )
        if (self.count is None) == (self.until_ms is None):
            given = "both" if self.count is not None else "neither"
            raise InvalidValueError("repeat", f"{given} of count and until_ms", "one of the two")
        if self.count is not None:
            check_integer("repeat.count", self.count, 1, MAX_OCCURRENCES_COUNT)
        if self.until_ms is not None:
            check_time("repeat.until_ms", self.until_ms)


@dataclass(frozen=True, slots=True)
class Slot:
    """A time from begin to end, perhaps repeated."""

    begin_ms: int
    end_ms: int
    repeat: Repeat | None = None

    def __post_init__(self) -> None:
        check_time("slot.begin_ms", self.begin_ms)
        check_time("slot.end_ms", self.end_ms)
        length = self.end_ms - self.begin_ms
        if not MIN_SLOT_MS <= length <= MAX_SLOT_MS:
            allowed = f"{MIN_SLOT_MS} to {MAX_SLOT_MS} ms after begin_ms"
            raise InvalidValueError("slot.end_ms", shown(self.end_ms), allowed)
        if self.repeat is None:
            return
        check_type("slot.repeat", self.repeat, Repeat, "a repeat")
        if length > self.repeat.every.ms:
            allowed = f"at most {self.repeat.every.ms} ms long, so that no two occurrences overlap"
            raise InvalidValueError("slot.end_ms", shown(self.end_ms), allowed)
        until = self.repeat.until_ms
        if until is not None and until <= self.begin_ms:
            raise InvalidValueError("repeat.until_ms", shown(until), "later than slot.begin_ms")
        if self.occurrences_count > MAX_OCCURRENCES_COUNT:
            given = f"{self.occurrences_count} occurrences"
            raise InvalidValueError("slot.repeat", given, f"at most {MAX_OCCURRENCES_COUNT}")
        check_time("slot.repeat: the last end", self.last_end_ms)

    @property
    def occurrences_count(self) -> int:
        """How many times the slot comes."""
        if self.repeat is None:
            return 1
        if self.repeat.count is not None:
            return self.repeat.count
        assert self.repeat.until_ms is not None
        return -(-(self.repeat.until_ms - self.begin_ms) // self.repeat.every.ms)

    @property
    def last_end_ms(self) -> int:
        """The end of the last occurrence."""
        step = self.repeat.every.ms if self.repeat is not None else 0
        return self.end_ms + (self.occurrences_count - 1) * step

    def occurrences(self) -> tuple[tuple[int, int], ...]:
        """Return (begin, end) of each occurrence, the earliest first."""
        step = self.repeat.every.ms if self.repeat is not None else 0
        return tuple(
            (self.begin_ms + number * step, self.end_ms + number * step)
            for number in range(self.occurrences_count)
        )

    def moved_to(self, begin_ms: int) -> Slot:
        """Return the same slot, begun at another time; `until_ms` moves along."""
        shift = begin_ms - self.begin_ms
        repeat = self.repeat
        if repeat is not None and repeat.until_ms is not None:
            repeat = Repeat(repeat.every, None, repeat.until_ms + shift)
        return Slot(begin_ms, self.end_ms + shift, repeat)

    def covers(self, begin_ms: int, end_ms: int, slack_ms: int = 0) -> bool:
        """Tell whether a time lies within one occurrence that the slack makes longer each side."""
        step = self.repeat.every.ms if self.repeat is not None else 0
        number = 0
        if step:
            number = (begin_ms + slack_ms - self.begin_ms) // step
            number = min(max(number, 0), self.occurrences_count - 1)
        shift = number * step
        return (
            self.begin_ms + shift - slack_ms <= begin_ms
            and end_ms <= self.end_ms + shift + slack_ms
        )

    @property
    def total_ms(self) -> int:
        """The time that all occurrences last together."""
        return (self.end_ms - self.begin_ms) * self.occurrences_count


def check_ahead(slot: Slot, now_ms: int) -> None:
    """Refuse a slot that is over, or too far ahead.

    Raises:
        InvalidValueError: names the field and the bound.
    """
    if slot.last_end_ms <= now_ms:  # of one that repeats, occurrences that are over do not count
        given = shown(slot.last_end_ms)
        raise InvalidValueError("slot.end_ms", given, f"later than now, {now_ms}")
    if slot.last_end_ms > now_ms + MAX_AHEAD_MS:
        allowed = f"at most {MAX_AHEAD_MS} ms ahead of now, {now_ms}, with all repeats"
        raise InvalidValueError("slot.end_ms", shown(slot.last_end_ms), allowed)
