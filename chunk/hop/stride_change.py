"""A change of the size of full datagrams: asked for until nothing of the old size is left.

What the neighbour has whole stays; the rest comes back and is cut anew, as other transfers.

Source: docs/protocol/hop.md, "Size of datagrams".
"""

from __future__ import annotations

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.open_transfers import OpenTransfers


class StrideChange:
    """One change, from its first question to its end.

    Args:
        stride: the new size.
        burst: a number that no burst has, between those of the old size and those of the new one.
            No two changes have the same: else one that was overtaken would be believed.
        wanted: transfers that must come back or be settled first, and their body bytes.
    """

    def __init__(self, stride: int, burst: int, wanted: dict[int, int]) -> None:
        self.stride = stride
        self._burst = burst
        self._wanted: dict[int, int] = wanted
        self._asked_at = float("-inf")
        self.is_known = False
        """The neighbour knows of it."""

    def left(self, transfers: OpenTransfers) -> list[tuple[int, int]]:
        """Return the transfers, as they travel, that must still come back, and their bytes."""
        return [
            (transfer & 0xFFFF_FFFF, size)
            for transfer, size in self._wanted.items()
            if transfer in transfers.outstanding and transfer not in transfers.whole
        ]

    def due_at(self, patience_s: float) -> float:
        """Return when `question` has something to say."""
        return self._asked_at + patience_s

    def take_answer(self, stride: int, burst: int) -> None:
        """Take in which change the neighbour knows of, if it is this one.

        Args:
            burst: its low 32 bits.
        """
        if (stride, burst) == (self.stride, self._burst & 0xFFFF_FFFF):
            self.is_known = True

    def question(self, left: list[tuple[int, int]], now: float) -> bytes:
        """Return the frame that asks for the change, and for what must come back."""
        self._asked_at = now
        entries = tuple(left[: wire.MAX_ENTRIES_COUNT])
        burst = self._burst & 0xFFFF_FFFF
        return wire.StrideFrame(wire.StrideStep.CHANGE, self.stride, burst, entries).to_bytes()
