"""Virtual time: one heap of events, and no clock but the one that it moves."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol

MOST_EVENTS_COUNT = 300_000
"""Ten times what the busiest seed needs: some timer goes round and round."""


class EndlessError(AssertionError):
    """The events do not come to an end: code under test plans one at once, again and again."""


class Scheduled(Protocol):
    """Whose turn an event is: a process that may be dead or stopped by then."""

    is_alive: bool
    backlog: list[Event] | None

    def note_fault(self, error: Exception) -> None:
        """An event of the process raised."""


class Event:
    """One call at one moment; over once it was made or cancelled."""

    __slots__ = ("call", "is_over", "owner", "when_s")

    def __init__(self, when_s: float, call: Callable[[], object], owner: Scheduled | None) -> None:
        self.when_s = when_s
        self.call = call
        self.owner = owner
        self.is_over = False


class VirtualTime:
    """The clock of a whole network. Events of one moment happen in the order of `at`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.events_count = 0
        self._heap: list[tuple[float, int, Event]] = []
        self._serial = 0

    def at(
        self, when_s: float, call: Callable[[], object], owner: Scheduled | None = None
    ) -> Event:
        """Make `call` at `when_s`, unless its owner is dead by then; later if it is stopped."""
        event = Event(max(when_s, self.now_s), call, owner)
        self._serial += 1
        heapq.heappush(self._heap, (event.when_s, self._serial, event))
        return event

    def run_until(self, end_s: float) -> None:
        """Make every call up to and at `end_s`."""
        heap = self._heap
        while heap and heap[0][0] <= end_s:
            self.now_s, _, event = heapq.heappop(heap)
            if event.is_over:
                continue
            owner = event.owner
            if owner is None:
                event.is_over = True
                event.call()
                continue
            if not owner.is_alive:
                continue
            if owner.backlog is not None:
                owner.backlog.append(event)
                continue
            event.is_over = True
            self.events_count += 1
            if self.events_count > MOST_EVENTS_COUNT:
                raise EndlessError(
                    f"{self.events_count} events by {self.now_s:.6f} s: {event.call}"
                )
            try:
                event.call()
            except Exception as error:  # noted as a reactor does: the process goes on
                owner.note_fault(error)
        self.now_s = end_s
