"""The open transfers to one neighbour: their numbers, its credit, and what it has not settled.

A body becomes a transfer when its first burst is to leave, if the window of transfers and the
credit have room. It stays one until an ACK names it as settled; a transfer that was given up is
gone here at once, but not there until the neighbour says so.

Source: docs/protocol/hop.md, "Sending".
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.buffers import BufferPool
from packetcloud.chunk.hop.keys import KeyRing
from packetcloud.chunk.hop.lane import Lane, Loan
from packetcloud.chunk.hop.outgoing import Outgoing


class OpenTransfers:
    """The transfers of one session's sending direction.

    Args:
        credit_bytes: what the neighbour holds for this node to begin with.
        ring: the keys; None in an open session.
        pool: where sealed bodies live until they are settled.
    """

    def __init__(self, credit_bytes: int, ring: KeyRing | None, pool: BufferPool) -> None:
        self._ring = ring
        self._pool = pool
        self.outstanding: dict[int, Outgoing] = {}
        self.whole: dict[int, None] = {}
        """Outstanding transfers that the neighbour has whole and has not settled."""
        self._known_whole = 0
        """What a WHOLE named, settled since or not: bit i = transfer done_below + i."""
        self._known_done = 0
        """What a bitmap named as settled: bit i = transfer done_below + i."""
        self.forgotten: dict[int, int] = {}
        """Bytes of transfers given up or refused that the neighbour has not settled yet."""
        self._forget: dict[int, None] = {}
        """Those of them that it is to be told of now."""
        self._forgot_at = 0.0
        self.next_transfer = 0
        self.done_below = 0
        self._started_bytes = 0
        self.credit_limit = credit_bytes
        self.blocked_at: float | None = None
        """When a body began to wait for credit, or it was last asked for; None when none waits."""
        self.lane: Lane | None = None
        self._loans: dict[int, Loan] = {}
        """What lies in the lane, by transfer: until the neighbour has settled it, also if it was
        given up, as what tells of it may still be on its way."""
        self.full_count = 0
        """How often a body had to wait for the neighbour to settle older ones."""

    def find(self, low: int) -> Outgoing | None:
        """Return the outstanding transfer whose number travels as `low`."""
        return self.outstanding.get(wire.expand(low, self.done_below))

    @property
    def oldest_epoch(self) -> int:
        """Key epoch of the oldest transfer that is not settled; the present one when none is."""
        assert self._ring is not None
        epochs = (o.keys.epoch for o in self.outstanding.values() if o.keys is not None)
        return next(epochs, self._ring.newest.epoch)

    # --- beginning ------------------------------------------------------------------------------

    def may_start(self, outgoing: Outgoing, now: float) -> bool:
        """Tell whether window and credit have room for one more."""
        if self.next_transfer - self.done_below >= wire.TRANSFER_WINDOW_COUNT:
            self.full_count += 1
            return False
        if self._started_bytes + outgoing.body_bytes > self.credit_limit:
            if self.blocked_at is None:
                self.blocked_at = now
            return False
        self.blocked_at = None
        return True

    def start(self, outgoing: Outgoing) -> None:
        """Make a body the next transfer."""
        outgoing.transfer = self.next_transfer
        self.next_transfer += 1
        self._started_bytes += outgoing.body_bytes
        self.outstanding[outgoing.transfer] = outgoing
        if outgoing.loan is not None:
            self._loans[outgoing.transfer] = outgoing.loan
        if self._ring is not None and not outgoing.is_small:
            outgoing.seal_with(self._ring.send, self._pool)

    def grant(self, limit_bytes: int, now: float) -> bool:
        """Take in a higher limit of credit; tell whether a body waited for it."""
        self.credit_limit = limit_bytes
        if self.blocked_at is None:
            return False
        self.blocked_at = now
        return True

    # --- ending ---------------------------------------------------------------------------------

    def settle(self, below: int, bitmap: bytes) -> Iterator[Outgoing]:
        """Yield the bodies that the neighbour has settled; they are no transfers any more.

        Args:
            below: all transfers below it are settled.
            bitmap: bit i = transfer below + i, LSB first.
        """
        first = self.done_below
        if below > first:
            self.done_below = below
            self._known_done >>= below - first
            self._known_whole >>= below - first
        bits = int.from_bytes(bitmap, "little") >> (self.done_below - below) if bitmap else 0
        # Each ACK names again what those before it named: only what is new is looked at.
        fresh = bits & self._window_mask() & ~self._known_done if bits else 0
        self._known_done |= fresh
        outstanding = self.outstanding
        for transfer in chain(range(first, below), _numbers(self.done_below, fresh)):
            outgoing = outstanding.pop(transfer, None)
            if self._loans and (loan := self._loans.pop(transfer, None)) is not None:
                assert self.lane is not None
                self.lane.give_back(loan)
            if outgoing is not None:
                yield outgoing
            elif self.forgotten:
                self.forgotten.pop(transfer, None)
                self._forget.pop(transfer, None)

    def take_whole(self, first: int, count: int) -> Iterator[Outgoing]:
        """Yield the outstanding ones of `count` transfers that were not known to be whole there.

        O(those), however often the neighbour names what it named before.
        """
        below = self.done_below
        # Clipped before anything is shifted: a neighbour may name numbers that are far away.
        begin, end = max(first, below), min(first + count, self.next_transfer)
        if begin >= end:
            return
        fresh = ((1 << (end - begin)) - 1) << (begin - below) & ~self._known_whole
        self._known_whole |= fresh
        for transfer in _numbers(below, fresh):
            outgoing = self.outstanding.get(transfer)
            if outgoing is not None:
                yield outgoing

    def note_damaged(self, transfer: int) -> None:
        """An outstanding transfer is not whole there after all: segments of it were altered."""
        self._known_whole &= ~(1 << (transfer - self.done_below))

    def _window_mask(self) -> int:
        """Return the bits of the transfers from `done_below` on that have begun."""
        return (1 << (self.next_transfer - self.done_below)) - 1

    def give_up(self, transfer: int) -> Outgoing | None:
        """Take a transfer out; have the neighbour told, until it says that it has settled it.

        Else neither its memory nor its credit nor its place in the window would ever come free.
        """
        outgoing = self.outstanding.pop(transfer, None)
        if outgoing is not None:
            self.whole.pop(transfer, None)
            self.forgotten[transfer] = outgoing.body_bytes
            self._forget[transfer] = None
        elif transfer in self.forgotten:
            self._forget[transfer] = None
        return outgoing

    def take_forgets(self, now: float) -> bytes | None:
        """Return a FORGET frame for transfers settled by refusal or cancelled, or None."""
        if not self._forget:
            return None
        transfers = list(self._forget)[: wire.MAX_ENTRIES_COUNT]
        for transfer in transfers:
            del self._forget[transfer]
        self._forgot_at = now
        entries = tuple((t & 0xFFFF_FFFF, self.forgotten[t]) for t in transfers)
        return wire.ForgetFrame(entries).to_bytes()

    def repeat_forgets(self, patience_s: float, now: float, most: int | None) -> None:
        """Have the neighbour told again of what it has not settled, if it had time to.

        Args:
            most: of how many at once; None: of all.
        """
        if self.forgotten and now >= self._forgot_at + patience_s:
            self._forget = dict.fromkeys(islice(self.forgotten, most))

    def next_timeout(self, patience_s: float) -> float | None:
        """Return when to ask for credit, or to tell again what is given up; None for neither."""
        deadline = None
        if self.blocked_at is not None:
            deadline = self.blocked_at + patience_s
        if self.forgotten and not self._forget:
            repeat_at = self._forgot_at + patience_s
            deadline = repeat_at if deadline is None else min(deadline, repeat_at)
        return deadline

    def clear(self) -> None:
        """The session ends."""
        self.outstanding.clear()
        self.whole.clear()
        self._loans.clear()


def _numbers(below: int, bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        bits ^= low
        yield below + low.bit_length() - 1
