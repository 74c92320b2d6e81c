"""What became of a neighbour's transfers that need no more segments.

One is settled when the layer above took custody of it, or when its sender gave it up. A refused one
is on the list until the sender has confirmed that it knows; a whole one until the layer above has
decided about it.

Source: docs/protocol/hop.md, "CONTROL", "Custody that takes time".
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Body
from packetcloud.chunk.hop.keys import DirectionKeys, KeyRetirement, KeyRing

_ACK_REFUSED_COUNT = 16
"""REFUSED entries that travel with one ACK; the sender's FORGETs bring the next ones at once."""


class Outcomes:
    """The transfers of one neighbour that are settled, refused, or whole and undecided.

    Args:
        ring: whose keys are forgotten as transfers are settled; None in an open session.
    """

    def __init__(self, ring: KeyRing | None) -> None:
        self._retirement = KeyRetirement(ring) if ring is not None else None
        self.settled_below = 0
        """All transfers below are settled."""
        self._done: set[int] = set()
        """Those above that are settled too."""
        self.refused: dict[int, int] = {}
        """Reasons, by transfer, of refusals that the sender has not confirmed."""
        self._undecided: dict[int, Body] = {}
        """Whole bodies that the layer above has not decided about, by transfer."""
        self._transfer_of: dict[int, int] = {}
        """Their transfers by the `id` of the body."""

    def __contains__(self, transfer: int) -> bool:
        return (
            transfer < self.settled_below
            or transfer in self._done
            or transfer in self.refused
            or transfer in self._undecided
        )

    def is_beyond_window(self, transfer: int) -> bool:
        """Tell whether the sender may not have begun `transfer` yet."""
        return transfer - self.settled_below >= wire.TRANSFER_WINDOW_COUNT

    @property
    def open_count(self) -> int:
        """Transfers of the window that are on a list here."""
        return len(self._done) + len(self.refused)

    def note_sealed(self, transfer: int, keys: DirectionKeys) -> None:
        """A transfer came that was sealed with `keys`."""
        if keys.epoch and self._retirement is not None:
            self._retirement.note_sealed(keys, transfer, self.settled_below)

    def settle(self, transfer: int) -> None:
        if transfer != self.settled_below:
            self._done.add(transfer)
            return
        below = transfer + 1
        if self._done:
            while below in self._done:
                self._done.discard(below)
                below += 1
        self.settled_below = below
        if self._retirement is not None and self._retirement.keys is not None:
            self._retirement.note_settled(below)

    def refuse(self, transfer: int, reason: int) -> None:
        self.refused[transfer] = reason

    def defer(self, transfer: int, body: Body) -> None:
        """The layer above will `decide` about a whole body later."""
        self._undecided[transfer] = body
        self._transfer_of[id(body)] = transfer

    def decide(self, body: Body, reason: int | None) -> bool:
        """Settle or refuse a body that was deferred; return False if it is too late for that."""
        transfer = self._transfer_of.pop(id(body), None)
        if transfer is None:
            return False
        del self._undecided[transfer]
        if reason is None:
            self.settle(transfer)
        else:
            self.refuse(transfer, reason)
        return True

    def forget(self, transfer: int) -> bool:
        """Settle a transfer that its sender gave up or knows to be refused.

        Returns:
            False, and nothing was changed, when it was not whole here and not refused.
        """
        if self.refused.pop(transfer, None) is not None:
            self.settle(transfer)
            return True
        if (undecided := self._undecided.pop(transfer, None)) is not None:
            # The layer above still has it, and its memory comes free when that releases it.
            del self._transfer_of[id(undecided)]
            self.settle(transfer)
            return True
        return transfer in self

    def close(self) -> None:
        """Nothing that the layer above may still decide matters any more."""
        self._undecided.clear()
        self._transfer_of.clear()

    # --- what an ACK says of them ---------------------------------------------------------------

    def bitmap(self) -> bytes:
        """Return which transfers from `settled_below` on are settled: bit i = the i-th, LSB first,
        no zero bytes at the end."""
        if not self._done:
            return b""
        bits = 0
        for transfer in self._done:
            bits |= 1 << (transfer - self.settled_below)
        return bits.to_bytes((bits.bit_length() + 7) // 8, "little")

    def frames(self, room: int) -> list[bytes]:
        """Return what is said of refused and of undecided transfers, in at most `room` bytes."""
        frames: list[bytes] = []
        if self.refused:
            count = min(_ACK_REFUSED_COUNT, (room - wire.FRAME_HEAD_BYTES) // 8)
            entries = tuple(
                (transfer & 0xFFFF_FFFF, reason)
                for transfer, reason in islice(self.refused.items(), count)
            )
            frames.append(wire.RefusedFrame(entries).to_bytes())
            room -= len(frames[-1])
        if self._undecided:
            count = min(wire.MAX_WHOLE_COUNT, (room - wire.FRAME_HEAD_BYTES) // 8)
            if count > 0:
                frames.append(wire.WholeFrame(_ranges(self._undecided, count)).to_bytes())
        return frames


def _ranges(transfers: Iterable[int], count: int) -> tuple[tuple[int, int], ...]:
    """Return the first `count` ranges of `transfers`: low 32 bits of the first, how many."""
    found: list[list[int]] = []
    for transfer in sorted(transfers):
        if found and transfer == found[-1][0] + found[-1][1]:
            found[-1][1] += 1
        elif len(found) == count:
            break
        else:
            found.append([transfer, 1])
    return tuple((first & 0xFFFF_FFFF, number) for first, number in found)
