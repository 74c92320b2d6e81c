"""What came since the last ACK, and what the next one says.

Source: docs/protocol/hop.md, "CONTROL", "Receiving".
"""

from __future__ import annotations

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.incoming_transfers import IncomingTransfers
from packetcloud.chunk.hop.neighbour_credit import NeighbourCredit
from packetcloud.chunk.hop.outcomes import Outcomes

ACK_BYTES = 512 << 10
"""An ACK is due after so many bytes at the latest."""
_LEAST_PARTIALS_BYTES = wire.PARTIAL_FIXED_BYTES + wire.MAX_BITMAP_BYTES
"""Kept free in an ACK while transfers are partial: one of them always fits."""


class Acks:
    """Counts what one neighbour sent, and acknowledges it.

    Args:
        window_bytes: what may be in flight to here.
        credit, outcomes, incoming: what else an ACK tells of.
    """

    def __init__(
        self,
        window_bytes: int,
        credit: NeighbourCredit,
        outcomes: Outcomes,
        incoming: IncomingTransfers,
    ) -> None:
        self._window_bytes = window_bytes
        self._credit = credit
        self._outcomes = outcomes
        self._incoming = incoming
        self.largest_burst = 0
        """Bursts count from 1; 0 means that none arrived."""
        self._largest_at = 0.0
        self.received_bytes = 0
        self.unacked_bytes = 0
        self.due_now = False
        self.due_at: float | None = None
        """When one is due at the latest, if nothing makes it due before."""
        self.busy_unlisted_count = 0
        """BUSY lists that had no room for all labels."""

    def count(self, size: int, burst_low: int, now: float) -> None:
        """Count `size` bytes that came, the last of them of the burst with these low 32 bits."""
        self.received_bytes += size
        self.unacked_bytes += size
        self.note_burst(wire.expand(burst_low, self.largest_burst), now)

    def note_burst(self, burst: int, now: float) -> None:
        if burst > self.largest_burst:
            self.largest_burst = burst
            self._largest_at = now

    def note_probe(self, burst_low: int, now: float) -> None:
        """The sender asks for an ACK at once."""
        self.note_burst(wire.expand(burst_low, self.largest_burst), now)
        self.due_now = True

    def is_due(self) -> bool:
        return self.due_now or self.unacked_bytes >= ACK_BYTES

    def take(self, now: float) -> list[bytes]:
        """Return the frames that acknowledge everything so far, and start counting anew."""
        outcomes, incoming = self._outcomes, self._incoming
        delay_us = int((now - self._largest_at) * 1e6) if self.largest_burst else 0
        done = outcomes.bitmap()
        least = _LEAST_PARTIALS_BYTES if incoming.transfers else 0
        room = wire.MAX_FRAMES_BYTES - wire.FRAME_HEAD_BYTES - wire.ACK_FIXED_BYTES
        room -= len(done) + least
        others = self._busy_frames()
        others += outcomes.frames(room - sum(map(len, others)))
        partials: tuple[wire.Partial, ...] = ()
        more = False
        if incoming.transfers:
            partials, more = incoming.partials(room + least - sum(map(len, others)))
        limit, is_busy = self._credit.advertise()
        self.unacked_bytes = 0
        self.due_now = False
        self.due_at = None
        # What it says of whole transfers must be known when the ACK is looked through for losses.
        return [
            *others,
            wire.AckFrame(
                self.largest_burst & 0xFFFF_FFFF,
                max(0, min(delay_us, 0xFFFF_FFFF)),
                self.received_bytes,
                limit,
                self._window_bytes,
                outcomes.settled_below & 0xFFFF_FFFF,
                done,
                partials,
                busy=is_busy,
                more=more,
            ).to_bytes(),
        ]

    def _busy_frames(self) -> list[bytes]:
        """Return which flows may not start a body now: a frame, if there are any."""
        if not self._credit.flows.busy:
            return []
        flows = self._credit.flows.busy_labels(wire.MAX_BUSY_COUNT + 1)
        if len(flows) > wire.MAX_BUSY_COUNT:
            self.busy_unlisted_count += 1
            flows = [0, *flows[: wire.MAX_BUSY_COUNT - 1]]
        return [wire.BusyFrame(tuple(flows)).to_bytes()]
