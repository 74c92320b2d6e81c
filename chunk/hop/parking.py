"""Flows that the neighbour has no room for, and how often it is asked whether it has some again.

It names them beside its ACKs, those at least that the list has room for. The ACK with the news may
be lost, so while nothing else is on its way one is asked for by and by.

Source: docs/protocol/hop.md, "Flows".
"""

from __future__ import annotations

from packetcloud.chunk.hop.flow_queues import FlowQueues

QUESTION_S = 0.05
MAX_QUESTION_S = 1.0
"""While flows are parked, or bodies wait for the layer above, and nothing else is on its way, an
ACK is asked for, each time after twice as long: the one with the news may have been lost."""


class Parking:
    """Which flows of one session are parked, as the neighbour says."""

    def __init__(self, flows: FlowQueues) -> None:
        self._flows = flows
        self._unlisted: dict[int, None] = {}
        """Parked flows that a BUSY list without room for all of them does not name."""
        self.question_at: float | None = None
        """When to ask for an ACK; None when one will come anyway, or has nothing to say."""
        self._question_count = 0

    def take_busy(
        self, busy: tuple[int, ...], has_whole: bool, is_answer_due: bool, now: float
    ) -> None:
        """Park the flows that the neighbour names, and no others if it names all.

        Args:
            busy: labels; a 0 says that there are more.
            has_whole: it has bodies whole that wait for the layer above it.
            is_answer_due: something is on its way, so another ACK will come.
        """
        if busy or self._flows.parked:
            self._park(busy)
        if not self._unlisted and (is_answer_due or not (has_whole or self._flows.parked)):
            self.question_at = None
        elif self.question_at is None:
            wait_s = min(MAX_QUESTION_S, QUESTION_S * (1 << min(self._question_count, 10)))
            self.question_at = now + wait_s

    def _park(self, busy: tuple[int, ...]) -> None:
        flows = self._flows
        named = dict.fromkeys(busy)
        is_complete = named.pop(0, 0) == 0
        self._unlisted.clear()
        for flow in list(flows.parked):
            if flow not in named:
                if is_complete or not flows.has_bodies(flow):
                    flows.unpark(flow)
                    self._question_count = 0
                else:
                    self._unlisted[flow] = None
        for flow in named:
            flows.park(flow)

    def note_news(self) -> None:
        """The neighbour said something new: the next question comes soon again."""
        self._question_count = 0

    def must_ask(self, now: float) -> bool:
        """Tell whether an ACK is to be asked for now; if so, try the flows that no list names."""
        if self.question_at is None or now < self.question_at:
            return False
        self.question_at = None
        self._question_count += 1
        for flow in list(self._unlisted):
            self._flows.unpark(flow)
        self._unlisted.clear()
        return True
