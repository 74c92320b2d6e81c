"""What each flow of one neighbour holds here, and which flows may start nothing more.

A flow may hold `flow_credit_bytes`, but no more than its neighbour's credit has left: one stopped
flow leaves half of the credit to the others, the next one at least half of that and so on (dynamic
thresholds as in shared-memory switches: Choudhury and Hahne, 1998). A flow that holds nothing may
always begin one body, so none starves for what others hold.
Source: docs/protocol/hop.md, "Flows"; docs/decisions/0010.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from itertools import islice

MAX_FLOWS_COUNT = 8192
"""Flows of one neighbour that hold something, up to 330 bytes each: 2.6 MiB. They are a third of
the usual credit in bodies of 1 KiB; a byte of each of all 65,535 labels would cost 20 MiB."""
STALE_COUNT = 1024
"""Entries of the heap that mean nothing any more: so many may lie in it, and one more for each flow
on the list. An entry is 100 bytes."""


class FlowCredit:
    """The account of one neighbour's flows. Label 0 stands for no flow and is not limited."""

    def __init__(self, flow_credit_bytes: int) -> None:
        self._flow_credit_bytes = flow_credit_bytes
        self._busy_from_bytes = flow_credit_bytes * 3 // 4
        self.held: dict[int, int] = {}
        """Bytes by flow, of those that hold any."""
        # A plain dict would be searched from its first slot on, however many have left it.
        self.busy: OrderedDict[int, int] = OrderedDict()
        """Flows that may not start now, the one longest on the list first, and the bytes of the
        body that was refused, if one was."""
        self._waits: list[tuple[int, int]] = []
        """Heap of limits and flows: at that limit or soon after the flow leaves the list."""
        self._wait_of: dict[int, int] = {}
        """The entry of each flow on the list that counts: never above the limit it waits for."""

    def busy_labels(self, count: int) -> list[int]:
        """Return the first `count` flows on the list. O(count)."""
        return list(islice(self.busy, count))

    def held_bytes(self, flow: int) -> int:
        return self.held.get(flow, 0)

    def admits(self, flow: int, size: int, free_bytes: int) -> bool:
        """Tell whether `flow` may begin a body; if not, it is on the list from now on."""
        held = self.held.get(flow, 0)
        if not held or not flow:
            return True
        total = held + size
        if total <= free_bytes and total <= self._flow_credit_bytes:
            return True
        self.busy[flow] = size
        self._wait(flow)
        return False

    def hold(self, flow: int, size: int, free_bytes: int) -> bool:
        """Count a body that began; tell whether its flow came onto the list by that.

        At three quarters of its limit already: what is on the way then still finds room.
        """
        held = self.held[flow] = self.held.get(flow, 0) + size
        if not flow or (held <= free_bytes // 2 and held <= self._busy_from_bytes):
            return False
        if flow not in self.busy and held > self._limit(free_bytes) * 3 // 4:
            self.busy[flow] = 0
            self._wait(flow)
            return True
        return False

    def release(self, flow: int, size: int, free_bytes: int) -> bool:
        """Count a body that is gone; tell whether a flow left the list.

        Cost: the flows that leave it and the logarithm of those on it, not all of them: the
        neighbour chooses how many labels it uses.
        """
        held = self.held[flow] - size
        if held:
            self.held[flow] = held
        else:
            del self.held[flow]
        if not self.busy:
            return False
        if flow in self.busy:
            self._wait(flow)
        limit, waits = self._limit(free_bytes), self._waits
        has_freed = False
        while waits and waits[0][0] <= limit:
            wait, busy = heapq.heappop(waits)
            if self._wait_of.get(busy) != wait:
                continue
            del self._wait_of[busy]
            if self._needed(busy) <= limit:
                del self.busy[busy]
                has_freed = True
            else:
                self._wait(busy)
        return has_freed

    def _needed(self, flow: int) -> int:
        """Return the limit at which a flow leaves the list: it holds at most half of that, and
        what was refused fits."""
        held = self.held.get(flow, 0)
        return max(2 * held, held + self.busy[flow]) if held else 0

    def _wait(self, flow: int) -> None:
        """Have a flow looked at when the limit is as high as it needs, or sooner.

        An entry that is too low stays: what it needs is worked out again when its turn comes.
        """
        needed = self._needed(flow)
        known = self._wait_of.get(flow)
        if known is not None and known <= needed:
            return
        self._wait_of[flow] = needed
        heapq.heappush(self._waits, (needed, flow))
        if len(self._waits) > 2 * len(self._wait_of) + STALE_COUNT:
            self._waits[:] = [(wait, busy) for busy, wait in self._wait_of.items()]
            heapq.heapify(self._waits)

    def _limit(self, free_bytes: int) -> int:
        return min(self._flow_credit_bytes, max(0, free_bytes))
