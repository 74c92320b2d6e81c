"""Fillers of the caps of what a host remembers of chunks that came. Source: host/caps.py."""

from __future__ import annotations

from packetcloud.chunk.names import GUID
from packetcloud.host.duplicates import (
    MAX_PAGES_COUNT,
    MAX_PAGES_PER_SOURCE_COUNT,
    MAX_REFUSED_COUNT,
    MAX_REFUSED_PER_SOURCE_COUNT,
    DuplicateWindow,
    Seen,
)
from tests.unit.caps.endpoint_fillers import FRIEND, name_of
from tests.unit.caps.filled import Filled, fills


class Window:
    """A duplicate window that scattered ids come into."""

    def __init__(self) -> None:
        self.window = DuplicateWindow()
        self.early = self.window.counters

    def scatter(self, source: GUID, first: int, end: int) -> None:
        """Each id lies in a page of its own."""
        for number in range(first, end):
            self.window.arrived(source.value, number << 8, 60.0, 0.0)

    def knows_friend(self) -> bool:
        return self.window.arrived(FRIEND.value, 7, 60.0, 0.0) is Seen.TAKEN

    def left(self) -> int:
        self.window.expire(1e6)
        return len(self.window._sources) + self.window._pages_count + self.window._refused_count


def _window() -> Window:
    made = Window()
    made.window.arrived(FRIEND.value, 7, 60.0, 0.0)
    made.window.taken(FRIEND.value, 7)
    return made


@fills("host", "pages of ids seen of one source")
def pages_of_source() -> Filled:
    """A source scatters its ids."""
    limit = MAX_PAGES_PER_SOURCE_COUNT
    made = _window()

    def scatter(first: int, end: int) -> tuple[int, int]:
        made.scatter(name_of(1), first, end)
        pages = len(made.window._sources[name_of(1).value].pages)
        return pages, made.early["forgotten_early_total"]

    at_cap, counted = scatter(0, limit)
    beyond, counted_beyond = scatter(limit, limit + 100)
    goes_on = made.knows_friend()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, made.left())


@fills("host", "pages of ids seen of all sources")
def pages_of_all() -> Filled:
    """Many sources scatter their ids."""
    limit = MAX_PAGES_COUNT
    made = _window()
    each = limit // 16
    for number in range(1, 17):
        made.scatter(name_of(number), 0, each - (number == 16))
    at_cap, counted = made.window._pages_count, made.early["forgotten_early_total"]
    made.scatter(name_of(99), 0, 500)
    beyond, counted_beyond = made.window._pages_count, made.early["forgotten_early_total"]
    goes_on = made.knows_friend()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, made.left())


@fills("host", "refusals remembered of one source")
def refusals_of_source() -> Filled:
    """The application refuses everything of a source."""
    limit = MAX_REFUSED_PER_SOURCE_COUNT
    made = _window()

    def refuse(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            made.window.arrived(name_of(1).value, number, 60.0, 0.0)
            made.window.refused(name_of(1).value, number, "no")
        known = len(made.window._sources[name_of(1).value].refused)
        return known, made.early["refused_forgotten_total"]

    at_cap, counted = refuse(0, limit)
    beyond, counted_beyond = refuse(limit, limit + 100)
    return Filled(limit, at_cap, counted, beyond, counted_beyond, made.knows_friend(), made.left())


@fills("host", "refusals remembered of all sources")
def refusals_of_all() -> Filled:
    """The application refuses everything of many sources."""
    limit = MAX_REFUSED_COUNT
    made = _window()
    window = made.window

    def refuse(source: int, count: int) -> tuple[int, int]:
        for number in range(count):
            window.arrived(name_of(source).value, number, 60.0, 0.0)
            window.refused(name_of(source).value, number, "no")
        known = sum(len(one.refused) for one in window._sources.values())
        assert known == window._refused_count
        return known, made.early["refused_forgotten_total"]

    sources = limit // MAX_REFUSED_PER_SOURCE_COUNT
    for number in range(1, sources):
        refuse(number, MAX_REFUSED_PER_SOURCE_COUNT)
    at_cap, counted = refuse(sources, MAX_REFUSED_PER_SOURCE_COUNT)
    beyond, counted_beyond = refuse(sources + 1, 10)
    goes_on = window.refusal_detail(name_of(sources + 1).value, 0) == "no" and made.knows_friend()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, made.left())
