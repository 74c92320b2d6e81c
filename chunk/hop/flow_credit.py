"""What each flow of one neighbour holds here, and which flows may start nothing more.

A flow may hold `flow_credit_bytes`, but no more than its neighbour's credit has left: one stopped
flow leaves half of the credit to the others, the next one at least half of that and so on (dynamic
thresholds as in shared-memory switches: Choudhury and Hahne, 1998). A flow that holds nothing may
always begin one body, so none starves for what others hold.
Source: docs/protocol/hop.md, "Flows"; docs/decisions/0010.
"""

from __future__ import annotations


class FlowCredit:
    """The account of one neighbour's flows. Label 0 stands for no flow and is not limited."""

    def __init__(self, flow_credit_bytes: int) -> None:
        self._flow_credit_bytes = flow_credit_bytes
        self._busy_from_bytes = flow_credit_bytes * 3 // 4
        self._held: dict[int, int] = {}
        self.busy: dict[int, int] = {}
        """Flows that may not start now, the one longest on the list first, and the bytes of the
        body that was refused, if one was."""

    def held_bytes(self, flow: int) -> int:
        return self._held.get(flow, 0)

    def admits(self, flow: int, size: int, free_bytes: int) -> bool:
        """Tell whether `flow` may begin a body; if not, it is on the list from now on."""
        held = self._held.get(flow, 0)
        if not held or not flow:
            return True
        total = held + size
        if total <= free_bytes and total <= self._flow_credit_bytes:
            return True
        self.busy[flow] = size
        return False

    def hold(self, flow: int, size: int, free_bytes: int) -> bool:
        """Count a body that began; tell whether its flow came onto the list by that.

        At three quarters of its limit already: what is on the way then still finds room.
        """
        held = self._held[flow] = self._held.get(flow, 0) + size
        if not flow or (held <= free_bytes // 2 and held <= self._busy_from_bytes):
            return False
        if flow not in self.busy and held > self._limit(free_bytes) * 3 // 4:
            self.busy[flow] = 0
            return True
        return False

    def release(self, flow: int, size: int, free_bytes: int) -> bool:
        """Count a body that is gone; tell whether a flow left the list. O(flows on the list)."""
        held = self._held[flow] - size
        if held:
            self._held[flow] = held
        else:
            del self._held[flow]
        if not self.busy:
            return False
        limit = self._limit(free_bytes)
        freed = []
        for busy, wanted_bytes in self.busy.items():
            held = self._held.get(busy, 0)
            if not held or held <= min(limit // 2, limit - wanted_bytes):
                freed.append(busy)
        for busy in freed:
            del self.busy[busy]
        return bool(freed)

    def _limit(self, free_bytes: int) -> int:
        return min(self._flow_credit_bytes, max(0, free_bytes))
