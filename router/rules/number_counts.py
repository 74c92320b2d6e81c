"""Counts by the number of a rule: 8 bytes each, where a dict takes a hundred.

Numbers are given out one after the other, so they are dense: counts lie in pages of 256 numbers,
made when one of them is counted first.
"""

from __future__ import annotations

from array import array

import numpy as np

PAGE_BITS = 8
PAGE_COUNT = 1 << PAGE_BITS
_PAGE_MASK = PAGE_COUNT - 1
MAX_PAGES_COUNT = 1 << 16
"""Sixteen million rules, 140 MB. Numbers whose page would be one more are not counted."""


class NumberCounts:
    """How often each number was counted."""

    def __init__(self) -> None:
        self.uncounted_count = 0
        """Numbers that came when all pages were taken, each time that they came."""
        self._pages: dict[int, array[int]] = {}

    def add(self, number: int) -> None:
        """Count once more."""
        page = self._pages.get(number >> PAGE_BITS)
        if page is None:
            if len(self._pages) >= MAX_PAGES_COUNT:
                self.uncounted_count += 1
                return
            page = self._pages[number >> PAGE_BITS] = array("Q", bytes(8 * PAGE_COUNT))
        page[number & _PAGE_MASK] += 1

    def of(self, number: int) -> int:
        """Return how often it was counted."""
        page = self._pages.get(number >> PAGE_BITS)
        return 0 if page is None else page[number & _PAGE_MASK]

    def pages(self) -> list[int]:
        """Return the pages in which something was counted: page p has the numbers from 256 p on.

        O(pages): a third of a millisecond for all.
        """
        return list(self._pages)

    def keep_only(self, page: int, kept: bytes) -> None:
        """Begin again with zero for the other numbers of a page; about 5 µs.

        A page that counts nothing any more is given back.

        Args:
            kept: bit i (LSB first) for number i of the page; 32 bytes.
        """
        counts = self._pages.get(page)
        if counts is None:
            return
        values = np.frombuffer(counts, np.uint64)
        values *= np.unpackbits(np.frombuffer(kept, np.uint8), bitorder="little")
        if not values.any():
            del self._pages[page]

    @property
    def array_bytes(self) -> int:
        """What the counts take in memory but for the index of pages."""
        return sum(page.itemsize * len(page) for page in self._pages.values())
