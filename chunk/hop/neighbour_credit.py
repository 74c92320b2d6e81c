"""What one neighbour and its flows may hold here, and what they do hold.

A body is held from its first segment on until the layer above releases it, or until it is refused
or forgotten. Both sums only grow, so what the sender is told is a limit that never goes back.

Source: docs/protocol/hop.md, "Receiving", "Flows"; docs/decisions/0010.
"""

from __future__ import annotations

from collections.abc import Callable

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.buffers import BufferPool
from packetcloud.chunk.hop.flow_credit import MAX_FLOWS_COUNT, FlowCredit
from packetcloud.chunk.reasons import Reason


class NeighbourCredit:
    """The account of one neighbour.

    Args:
        pool: where what all neighbours hold is counted together.
        credit_bytes: what this one may hold.
        flow_credit_bytes: what one flow of it may hold.
        on_room: called when a release gave room of which the sender must learn at once.
        make_room: called with bytes and the time when all neighbours together hold too much for
            them: whoever holds most of unfinished transfers may have to give way.
    """

    def __init__(
        self,
        pool: BufferPool,
        credit_bytes: int,
        flow_credit_bytes: int,
        on_room: Callable[[], None],
        make_room: Callable[[int, float], None],
    ) -> None:
        self._pool = pool
        self._credit_bytes = credit_bytes
        self._on_room = on_room
        self._make_room = make_room
        self.flows = FlowCredit(flow_credit_bytes)
        self._used_bytes = 0
        """Sum of the bodies of all transfers that began here."""
        self._released_bytes = 0
        """Sum of the bodies that were refused, forgotten or released by the layer above."""
        self._advertised_limit = credit_bytes
        self.is_starved = False
        """The sender said that it has no credit."""

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that began here and are not released."""
        return self._used_bytes - self._released_bytes

    def lacking_bytes(self, size: int) -> int:
        """Return how much more the neighbour holds than it may once it has begun a body of `size`
        bytes; not above 0 if it may."""
        return self._used_bytes + size - self._released_bytes - self._credit_bytes

    def refusal(self, size: int, flow: int, now: float) -> int | None:
        """Return why a body cannot begin for which the neighbour has credit; None if it can.

        Either all neighbours together hold too much, and no room can be made, or the flow does, or
        one flow more would hold something than may.
        """
        pool, flows = self._pool, self.flows
        if not pool.has_room(size):
            self._make_room(size, now)
            if not pool.has_room(size):
                return Reason.STORE_FULL
        if len(flows.held) >= MAX_FLOWS_COUNT and flow and flow not in flows.held:
            return Reason.STORE_FULL
        free_bytes = self._credit_bytes - (self._used_bytes - self._released_bytes)
        return None if flows.admits(flow, size, free_bytes) else wire.NOT_NOW

    def hold(self, size: int, flow: int = 0) -> bool:
        """Count a body that began; tell whether its flow must be called busy by that."""
        self._used_bytes += size
        self._pool.held_bytes += size
        free_bytes = self._credit_bytes - (self._used_bytes - self._released_bytes)
        return self.flows.hold(flow, size, free_bytes)

    def release(self, size: int, flow: int = 0) -> None:
        """Count a body that is gone."""
        self._released_bytes += size
        self._pool.held_bytes -= size
        limit = self._released_bytes + self._credit_bytes
        has_room = self.flows.release(flow, size, limit - self._used_bytes)
        if has_room or self.is_starved or limit - self._advertised_limit > self._credit_bytes // 4:
            self._on_room()

    def drop_unfinished(self, size: int) -> None:
        """The session ends: nothing is held any more of bodies that never became whole."""
        self._pool.held_bytes -= size

    def advertise(self) -> tuple[int, bool]:
        """Return what the sender is told: up to which sum it may begin bodies, and whether it has
        to wait for more although it asked."""
        limit = self._released_bytes + self._credit_bytes
        is_busy = self.is_starved and self._used_bytes >= limit
        self._advertised_limit = limit
        self.is_starved = False
        return limit, is_busy
