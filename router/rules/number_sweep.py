"""Forgets the counts of rules that are gone, a few pages at a time.

Which rules are gone is asked of the keeper, page by page of what was counted, and not told with
each change: so nothing is missed when versions are skipped, rules end, or a keeper dies. Each step
on the loop takes a fraction of a millisecond. Source: docs/reference/router.md, "Rules".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from packetcloud.router.rules.number_counts import NumberCounts

MAX_PAGES_ASKED_COUNT = 64
"""16 384 rules: a third of a millisecond here, some milliseconds of the keeper's."""


class NumberSweep:
    """Sweeps some counts whenever rules have gone.

    Args:
        ask: returns which numbers of some pages rules have, as `Catalogue.numbers`.
    """

    def __init__(
        self,
        counts: Sequence[NumberCounts],
        ask: Callable[[list[int]], Awaitable[list[str]]],
    ) -> None:
        self._counts = counts
        self._ask = ask
        self._swept_count = 0

    async def run(self, gone_count: int) -> None:
        """Forget the counts of rules that are not there any more.

        What a rule counts between its end in the store and its end in force is forgotten by the
        sweep after this one.

        Args:
            gone_count: rules that were gone when the version in force was made; as many as before:
                nothing is done.
        """
        if gone_count == self._swept_count:
            return
        for counts in self._counts:
            pages = counts.pages()
            for start in range(0, len(pages), MAX_PAGES_ASKED_COUNT):
                some = pages[start : start + MAX_PAGES_ASKED_COUNT]
                for page, there in zip(some, await self._ask(some), strict=True):
                    counts.keep_only(page, bytes.fromhex(there))
        self._swept_count = gone_count
