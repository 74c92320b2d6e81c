"""Which of a host's sends may be outstanding: room for all of them, shared by flows.

A flow is what goes to one destination by way of one service. Each waits in its own line, lines are
served in turn, and none may hold more than `FLOW_SHARE` times what is left free: a destination that
takes nothing stops its own line, and whoever comes later finds room.

Source: Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches"
(IEEE/ACM Transactions on Networking, 1998); docs/reference/host.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from packetcloud.host.send import Send, SendState

FLOW_SHARE = 1
"""One flow alone may hold half of the room, the next one half of the rest, and so on: seven that
are stuck one after the other leave a chunk of 1 MiB its place in 128 MiB."""
TURNS_COUNT = 64
"""Lines looked at in one go, so that one settlement costs the same however many flows wait."""


@dataclass(slots=True)
class _Line:
    """One flow: what of it waits, in order, and what is outstanding."""

    waiting: OrderedDict[int, Send] = field(default_factory=OrderedDict)
    held_bytes: int = 0
    held_count: int = 0


class SendWindow:
    """Lets sends out as far as there is room.

    Args:
        max_bytes: payload that may be outstanding; a larger chunk goes when nothing else is.
        max_count: chunks that may be outstanding.
    """

    def __init__(self, max_bytes: int, max_count: int) -> None:
        self._max_bytes, self._max_count = max_bytes, max_count
        self.held_bytes = 0
        self.held_count = 0
        self.waiting_count = 0
        self._lines: dict[int, _Line] = {}
        """Flows with something that waits or is outstanding."""
        self._turns: OrderedDict[int, None] = OrderedDict()
        """Those of them where something waits, the next one first."""

    def has_room(self, size: int, flow: int | None = None) -> bool:
        """Whether a send of `size` bytes would go at once.

        Args:
            flow: its flow; None for one of which nothing is outstanding, while nobody waits.
        """
        if flow is None:
            return not self.waiting_count and self._fits(_Line(), size)
        line = self._lines.get(flow)
        return self._fits(line or _Line(), size) and not (line and line.waiting)

    def add(self, send: Send) -> None:
        """Put a send at the end of its flow's line."""
        flow = send.template.flow
        line = self._lines.get(flow)
        if line is None:
            line = self._lines[flow] = _Line()
        line.waiting[send.chunk_id] = send
        self._turns.setdefault(flow)
        self.waiting_count += 1

    def admit(self, flow: int) -> Iterator[Send]:
        """Yield the sends that may go now; `flow` is the one where something changed."""
        if flow in self._turns:
            self._turns.move_to_end(flow, last=False)
        stuck = 0
        while self._turns and stuck < TURNS_COUNT and not self._is_full:
            flow = next(iter(self._turns))
            line = self._lines[flow]
            self._turns.move_to_end(flow)
            send = next(iter(line.waiting.values()))
            if not self._fits(line, send.payload_bytes):
                stuck += 1
                if stuck >= len(self._turns):
                    return
                continue
            stuck = 0
            del line.waiting[send.chunk_id]
            self.waiting_count -= 1
            if not line.waiting:
                del self._turns[flow]
            self._hold(line, send.payload_bytes, 1)
            yield send

    def leave(self, send: Send) -> None:
        """A send ends, whether it waits or is outstanding."""
        flow = send.template.flow
        line = self._lines[flow]
        if send.state is SendState.WAITING:
            del line.waiting[send.chunk_id]
            self.waiting_count -= 1
            if not line.waiting:
                del self._turns[flow]
        else:
            self._hold(line, -send.payload_bytes, -1)
        if not line.waiting and not line.held_count:
            del self._lines[flow]

    @property
    def _is_full(self) -> bool:
        return self.held_count >= self._max_count or (
            self.held_bytes >= self._max_bytes and self.held_count > 0
        )

    def _fits(self, line: _Line, size: int) -> bool:
        if not self.held_count:
            return True
        free_bytes = self._max_bytes - self.held_bytes
        free_count = self._max_count - self.held_count
        if size > free_bytes or free_count <= 0:
            return False
        return not line.held_count or (
            line.held_bytes + size <= FLOW_SHARE * free_bytes
            and line.held_count + 1 <= FLOW_SHARE * free_count
        )

    def _hold(self, line: _Line, size: int, count: int) -> None:
        line.held_bytes += size
        line.held_count += count
        self.held_bytes += size
        self.held_count += count
