"""When to look at which session or handshake next: one deadline each, the earliest first.

A deadline that was replaced by an earlier one, or cancelled, stays in the heap and is passed over
when its time comes: taking it out at once would cost a search.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

TIMER_SLACK_COUNT = 4096
"""Timers that were replaced by earlier ones lie in the heap until their time; so many may, besides
one for each live timer. A timer is 100 bytes."""


class Timers:
    """At most one live timer for each number."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._deadline_of: dict[int, float] = {}
        self.dead_count = 0
        """Replaced timers that were taken out before their time."""

    @property
    def replaced_count(self) -> int:
        """Timers in the heap that were replaced or cancelled."""
        return len(self._heap) - len(self._deadline_of)

    def arm(self, number: int, deadline: float) -> None:
        """Have `number` looked at at `deadline`; never later than asked before."""
        known = self._deadline_of.get(number)
        if known is None or deadline < known:
            self._deadline_of[number] = deadline
            heapq.heappush(self._heap, (deadline, number))
            if len(self._heap) > len(self._deadline_of) + TIMER_SLACK_COUNT:
                self.dead_count += len(self._heap) - len(self._deadline_of)
                self._heap = [(at, one) for one, at in self._deadline_of.items()]
                heapq.heapify(self._heap)

    def cancel(self, number: int) -> None:
        self._deadline_of.pop(number, None)

    def next_deadline(self) -> float | None:
        """Return when `take_due` has something, or None."""
        heap = self._heap
        while heap and self._deadline_of.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: float) -> Iterator[int]:
        """Yield what is due, and disarm it.

        Whoever arms again for a time that is past meanwhile is met again, but not for ever: the
        call ends after as many as there were timers at its begin.
        """
        for _ in range(len(self._heap)):
            deadline = self.next_deadline()
            if deadline is None or deadline > now:
                return
            _, number = heapq.heappop(self._heap)
            self._deadline_of.pop(number, None)
            yield number
