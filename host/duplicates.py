"""The receiver's memory of what it has: each chunk reaches the application at most once.

Keyed by source, then by pages of 256 chunk ids with one bit per id. Sources number their chunks to
one destination densely (see `chunk_ids`), so a page costs under one byte per chunk; with scattered
ids it costs a page per chunk, which is what the caps count. A page is forgotten when no copy of its
chunks can be alive any more, or early when a cap is reached, which is counted: from then on a very
late copy could be taken for a new chunk.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

_PAGE_BITS = 8
_PAGE_MASK = (1 << _PAGE_BITS) - 1
MAX_PAGES_PER_SOURCE_COUNT = 16_384
"""256-id pages of one source: 4 million dense chunks, about 4 MiB of memory; at 60 s of lifetime
that is 70 000 chunks/s from one host before anything is forgotten early."""
MAX_PAGES_COUNT = 131_072
"""Pages of all sources: about 32 MiB. Over it, the source with the most pages loses its oldest, so
one that floods forgets itself and not the others."""
MAX_REFUSED_PER_SOURCE_COUNT = 1024
"""Chunks that the application refused, kept with their words to answer a repeated copy alike."""
MAX_REFUSED_COUNT = 65_536
"""The same of all sources, about 30 MiB with the longest words: over it, the source with the most
forgets its older half."""
RETENTION_FACTOR = 2.0
RETENTION_SLACK_S = 30.0
"""A page is kept for twice the lifetime left on arrival and half a minute: custodians take only
their holding time off a lifetime, so a copy may live a little longer than it says."""
NO_LIFETIME_S = 600.0
"""Assumed for a chunk without a lifetime."""


class Seen(Enum):
    """What the window knows of a chunk."""

    NEW = "new"
    PENDING = "pending"
    """It arrived and the application has not answered yet."""
    TAKEN = "taken"
    REFUSED = "refused"


@dataclass(slots=True)
class _Page:
    seen: int = 0
    taken: int = 0
    keep_until_s: float = 0.0


@dataclass(slots=True)
class _Source:
    pages: OrderedDict[int, _Page] = field(default_factory=OrderedDict)
    refused: OrderedDict[int, str] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True)
class TakenPage:
    """256 consecutive ids of one source of which `taken` (bit i = id first + i) were taken."""

    source: bytes
    first_id: int
    taken: int
    keep_s: float
    """For how much longer the page matters."""


class DuplicateWindow:
    """Which chunks this receiver has seen, and what became of them."""

    def __init__(
        self,
        max_pages_per_source_count: int = MAX_PAGES_PER_SOURCE_COUNT,
        max_pages_count: int = MAX_PAGES_COUNT,
    ) -> None:
        self._max_pages_per_source = max_pages_per_source_count
        self._max_pages = max_pages_count
        self._sources: dict[bytes, _Source] = {}
        self._pages_count = 0
        self._refused_count = 0
        self.counters: Counter[str] = Counter()

    def arrived(self, source: bytes, chunk_id: int, lifetime_s: float | None, now: float) -> Seen:
        """Say what is known of the chunk; a NEW one is PENDING from now on. O(1) amortised."""
        known = self._sources.get(source)
        if known is None:
            known = self._sources[source] = _Source()
        number, bit = chunk_id >> _PAGE_BITS, 1 << (chunk_id & _PAGE_MASK)
        page = known.pages.get(number)
        if page is not None and page.seen & bit:
            if page.taken & bit:
                return Seen.TAKEN
            return Seen.REFUSED if chunk_id in known.refused else Seen.PENDING
        if page is None:
            page = self._new_page(source, known, number, now)
        page.seen |= bit
        page.keep_until_s = max(page.keep_until_s, now + retention_s(lifetime_s))
        return Seen.NEW

    def taken(self, source: bytes, chunk_id: int) -> None:
        """The application took the chunk."""
        page = self._page(source, chunk_id)
        if page is not None:
            page.taken |= 1 << (chunk_id & _PAGE_MASK)

    def refused(self, source: bytes, chunk_id: int, detail: str) -> None:
        """The application refused the chunk."""
        known = self._sources.get(source)
        if known is None:
            return
        self._refused_count += chunk_id not in known.refused
        known.refused[chunk_id] = detail
        if len(known.refused) > MAX_REFUSED_PER_SOURCE_COUNT:
            self._forget_refused(known, 1)
        if self._refused_count > MAX_REFUSED_COUNT:
            largest = max(self._sources.values(), key=lambda source: len(source.refused))
            self._forget_refused(largest, (len(largest.refused) + 1) // 2)

    def refusal_detail(self, source: bytes, chunk_id: int) -> str:
        """Return the application's words for a chunk that is `Seen.REFUSED`."""
        return self._sources[source].refused[chunk_id]

    def forget(self, source: bytes, chunk_id: int) -> None:
        """The chunk was not taken over after all: the next copy is new."""
        page = self._page(source, chunk_id)
        if page is not None:
            page.seen &= ~(1 << (chunk_id & _PAGE_MASK))

    def expire(self, now: float) -> None:
        """Forget what cannot come again. O(pages); call it now and then, not per chunk."""
        for name, known in list(self._sources.items()):
            old = [number for number, page in known.pages.items() if page.keep_until_s <= now]
            for number in old:
                self._drop(known, number)
            if not known.pages:
                del self._sources[name]

    def taken_pages(self, now: float) -> Iterator[TakenPage]:
        """Yield what must survive a restart: the taken chunks that may come again."""
        for name, known in self._sources.items():
            for number, page in known.pages.items():
                if page.taken and page.keep_until_s > now:
                    first_id = number << _PAGE_BITS
                    yield TakenPage(name, first_id, page.taken, page.keep_until_s - now)

    def restore(self, taken: TakenPage, now: float) -> None:
        """Put back one page of an earlier process."""
        known = self._sources.setdefault(taken.source, _Source())
        number = taken.first_id >> _PAGE_BITS
        page = known.pages.get(number)
        if page is None:
            page = self._new_page(taken.source, known, number, now)
        page.seen |= taken.taken
        page.taken |= taken.taken
        page.keep_until_s = max(page.keep_until_s, now + taken.keep_s)

    def stats(self) -> dict[str, float | int]:
        return {
            "forgotten_early_total": self.counters["forgotten_early_total"],
            "refused_forgotten_total": self.counters["refused_forgotten_total"],
            "sources_count": len(self._sources),
            "pages_count": self._pages_count,
        }

    def _forget_refused(self, known: _Source, count: int) -> None:
        for _ in range(count):
            known.refused.popitem(last=False)
        self._refused_count -= count
        self.counters["refused_forgotten_total"] += count

    def _page(self, source: bytes, chunk_id: int) -> _Page | None:
        known = self._sources.get(source)
        return known.pages.get(chunk_id >> _PAGE_BITS) if known is not None else None

    def _new_page(self, name: bytes, known: _Source, number: int, now: float) -> _Page:
        self._make_room(known, now)
        self._sources[name] = known  # making room forgets a source that has no page yet
        page = known.pages[number] = _Page()
        self._pages_count += 1
        return page

    def _make_room(self, known: _Source, now: float) -> None:
        if len(known.pages) >= self._max_pages_per_source:
            self._drop_oldest(known, now)
        if self._pages_count >= self._max_pages:
            self.expire(now)
        if self._pages_count >= self._max_pages:
            largest = max(self._sources.values(), key=lambda source: len(source.pages))
            for _ in range(1 + len(largest.pages) // 16):
                self._drop_oldest(largest, now)

    def _drop_oldest(self, known: _Source, now: float) -> None:
        number, page = next(iter(known.pages.items()))
        if page.keep_until_s > now:
            self.counters["forgotten_early_total"] += 1
        self._drop(known, number)

    def _drop(self, known: _Source, number: int) -> None:
        page = known.pages.pop(number)
        self._pages_count -= 1
        if known.refused and page.seen != page.taken:
            for chunk_id in [key for key in known.refused if key >> _PAGE_BITS == number]:
                del known.refused[chunk_id]
                self._refused_count -= 1


def retention_s(lifetime_s: float | None) -> float:
    """Return how long a chunk with `lifetime_s` left must be remembered."""
    known_s = NO_LIFETIME_S if lifetime_s is None else lifetime_s
    return known_s * RETENTION_FACTOR + RETENTION_SLACK_S
