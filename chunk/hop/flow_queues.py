"""The bodies that wait to be sent, in a line for each flow; flows take turns.

What can wait has a line of its own, which has its turn when there is nothing else to send.

A flow is what the layer above labels alike (docs/protocol/hop.md, "Flows"). Each turn is worth as
many bytes for everybody (deficit round robin), so a flow of small bodies gets as much of a link as
one of large bodies. A parked flow has no turn: the neighbour has no room for it now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from packetcloud.chunk.hop.outgoing import Outgoing

TURN_BYTES = 64 << 10
"""What a flow may send before the next one has its turn: one bundle of small bodies, and 50 us at
10 Gbit/s. A larger body is sent whole and paid off in the following rounds."""


class FlowQueues:
    """The lines of one session. `head`, `popleft`: O(1), and O(flows) once in many turns."""

    def __init__(self) -> None:
        self._serial = 0
        self._lines: dict[int, deque[Outgoing]] = {}
        self._turns: deque[int] = deque()
        """Flows that have a turn, the next one first."""
        self._left_bytes: dict[int, int] = {}
        """What each of them may still send; below zero it is in debt."""
        self._can_wait: deque[Outgoing] = deque()
        """Bodies of the background class."""
        self.parked: dict[int, None] = {}
        """Flows that may not start now, those longest parked first."""
        self.parked_count = 0
        """How often a flow was parked."""

    def __iter__(self) -> Iterator[Outgoing]:
        for line in self._lines.values():
            yield from line
        yield from self._can_wait

    @property
    def has_parked_bodies(self) -> bool:
        """Bodies wait for the neighbour to have room for their flow."""
        return any(flow in self._lines for flow in self.parked)

    def has_bodies(self, flow: int) -> bool:
        return flow in self._lines

    def append(self, outgoing: Outgoing) -> None:
        """Put a body at the end of its flow's line, or of what can wait."""
        if outgoing.background:
            self._can_wait.append(outgoing)
            return
        self._serial = outgoing.serial = self._serial + 1
        line = self._lines.get(outgoing.flow)
        if line is None:
            line = self._new_line(outgoing.flow)
        line.append(outgoing)

    def put_back(self, outgoing: Outgoing) -> None:
        """Put back a body that was taken out: it is the next one again, behind older ones.

        O(bodies of its flow that were put back before).
        """
        if outgoing.background:
            self._can_wait.appendleft(outgoing)
            return
        line = self._lines.get(outgoing.flow)
        if line is None:
            line = self._new_line(outgoing.flow)
        place = 0
        for other in line:
            if other.serial > outgoing.serial:
                break
            place += 1
        line.insert(place, outgoing)

    def remove(self, outgoing: Outgoing) -> None:
        """Take a waiting body out. O(bodies of its flow, or of what can wait)."""
        if outgoing.background:
            self._can_wait.remove(outgoing)
            return
        line = self._lines[outgoing.flow]
        line.remove(outgoing)
        if not line:
            del self._lines[outgoing.flow]

    def clear(self) -> None:
        self._lines.clear()
        self._turns.clear()
        self._left_bytes.clear()
        self._can_wait.clear()
        self.parked.clear()

    def head(self) -> Outgoing | None:
        """Return the body whose turn it is; None when no flow may start one."""
        turns, lines, left = self._turns, self._lines, self._left_bytes
        passed = 0
        while turns:
            flow = turns[0]
            line = lines.get(flow)
            if line is not None:
                if left[flow] > 0 or len(turns) == 1:
                    return line[0]
                passed += 1
            elif left[flow] >= 0 or len(turns) == 1:
                # An empty line leaves only when its debt is paid: else a flow of one large body at
                # a time would have them for the price of small ones.
                turns.popleft()
                del left[flow]
                continue
            left[flow] += TURN_BYTES
            turns.rotate(-1)
            if passed > len(turns):
                # Everybody is deep in debt: as many rounds at once as the least indebted needs.
                rounds = min(-left[flow] // TURN_BYTES for flow in turns if flow in lines)
                for flow in turns:
                    left[flow] += max(0, rounds) * TURN_BYTES
                passed = 0
        return None

    def background_head(self) -> Outgoing | None:
        """Return the first body that can wait and whose flow is not parked."""
        parked = self.parked
        return next((body for body in self._can_wait if body.flow not in parked), None)

    def popleft(self) -> Outgoing:
        """Take the body that `head` has just returned."""
        turns = self._turns
        flow = turns[0]
        line = self._lines[flow]
        outgoing = line.popleft()
        if not line:
            del self._lines[flow]
        left = TURN_BYTES if len(turns) == 1 else self._left_bytes[flow]
        self._left_bytes[flow] = left - outgoing.body_bytes
        return outgoing

    def park(self, flow: int) -> None:
        """Start nothing more of `flow` until `unpark`."""
        if flow in self.parked:
            return
        self.parked[flow] = None
        self.parked_count += 1
        if flow in self._left_bytes:
            self._turns.remove(flow)
            del self._left_bytes[flow]

    def unpark(self, flow: int) -> None:
        """The neighbour has room for `flow` again."""
        del self.parked[flow]
        if flow in self._lines:
            self._turns.append(flow)
            self._left_bytes[flow] = TURN_BYTES

    def _new_line(self, flow: int) -> deque[Outgoing]:
        line: deque[Outgoing] = deque()
        self._lines[flow] = line
        if flow not in self._left_bytes and flow not in self.parked:
            self._turns.append(flow)
            self._left_bytes[flow] = TURN_BYTES
        return line
