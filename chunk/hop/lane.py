"""A lane: memory shared with a neighbour on this machine, through which bodies go to it and back.

Each side writes into memory of its own, which the other can only read. Datagrams then say where a
body lies, and everything else (custody, refusals, credit, what is said again) is as without. Who
receives copies a body out before looking at it: its sender may change it at any time.

Source: docs/protocol/hop.md, "Lanes"; docs/decisions/0020.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop.api import Buffer
from packetcloud.chunk.hop.buffers import BufferPool, ByteArray, StoredBody, gather

LANE_BYTES = 8 << 20
"""Of each direction: a window of a VI (`vi_window_bytes`), beyond which bodies go in datagrams."""
MAX_LANES_COUNT = 64
"""Of one node: 512 MiB that it writes at the most, and as much that services write."""
LENT_FROM_BYTES = 8 << 10
"""Shorter bodies are copied into a datagram sooner than they are lent."""
PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Loan:
    """Where a body lies while its transfer is not settled."""

    start: int
    size: int


class Shelf:
    """Hands out stretches of a memory, the lowest first: what is warm in the cache is used again.

    Args:
        size: of the memory, in bytes.
    """

    def __init__(self, size: int) -> None:
        self._free = [(0, size // PAGE_BYTES * PAGE_BYTES)]
        """(start, end), ascending, none touching the next."""

    def find(self, size: int) -> int | None:
        """Return where the lowest stretch of `size` bytes begins; None: none is free."""
        size = _whole_pages(size)
        return next((start for start, end in self._free if end - start >= size), None)

    def take(self, size: int) -> int | None:
        """Hand out a stretch of at least `size` bytes; None: none is free."""
        size = _whole_pages(size)
        for number, (start, end) in enumerate(self._free):
            if end - start >= size:
                rest = [(start + size, end)] if end - start > size else []
                self._free[number : number + 1] = rest
                return start
        return None

    def give(self, start: int, size: int) -> None:
        """Take a stretch back that was handed out with these figures."""
        free, end = self._free, start + _whole_pages(size)
        at = bisect_left(free, (start, end))
        first, last = at, at
        if at and free[at - 1][1] == start:
            first, start = at - 1, free[at - 1][0]
        if at < len(free) and free[at][0] == end:
            last, end = at + 1, free[at][1]
        free[first:last] = [(start, end)]

    @property
    def free_bytes(self) -> int:
        return sum(end - start for start, end in self._free)


class Lane:
    """Both directions of one session.

    Args:
        own: what we write, and the neighbour reads.
        theirs: what the neighbour writes; its bytes may change at any time.
        lent_from_bytes: shorter bodies are not lent.
    """

    def __init__(
        self, own: ByteArray, theirs: ByteArray, lent_from_bytes: int = LENT_FROM_BYTES
    ) -> None:
        self._lent_from_bytes = lent_from_bytes
        self._own = own
        self._theirs = theirs
        self._shelf = Shelf(len(own))
        self.lent_bodies = 0
        self.borrowed_bodies = 0

    @property
    def free_bytes(self) -> int:
        """Of what we write, what holds no body now."""
        return self._shelf.free_bytes

    def takes(self, size: int) -> bool:
        """Tell whether a body of `size` bytes is worth it, and has room now."""
        return size >= self._lent_from_bytes and self._shelf.find(size) is not None

    def lend(self, prefix: bytes, payload: Buffer, body: StoredBody | None) -> Loan | None:
        """Lay prefix ‖ payload, or a received body, where the neighbour can read it.

        Returns:
            None: there is no room for it now.
        """
        size = len(body) if body is not None else len(prefix) + len(payload)
        start = self._shelf.take(size)
        if start is None:
            return None
        place = self._own[start : start + size]
        if body is None:
            skip = len(prefix)
            place[:skip] = np.frombuffer(prefix, np.uint8)
            place[skip:] = np.frombuffer(payload, np.uint8)
        elif body.rows is not None:
            gather(body.rows, size, place)
        else:
            place[:] = np.frombuffer(body.contiguous(), np.uint8)
        self.lent_bodies += 1
        return Loan(start, size)

    def give_back(self, loan: Loan) -> None:
        """The neighbour has settled the transfer, and reads the body no more."""
        self._shelf.give(loan.start, loan.size)

    def check(self, start: int, size: int) -> None:
        """Raises: ProtocolError: no body can lie there."""
        if start + size > len(self._theirs):
            raise ProtocolError("bad_reference", f"{size} bytes at {start}")

    @property
    def size(self) -> int:
        """Bytes of what the neighbour writes: its loans lie side by side, so they are no more."""
        return len(self._theirs)

    def borrow(self, start: int, size: int, pool: BufferPool) -> ByteArray | bytearray:
        """Return a copy of a body of the neighbour; a long one lies in a buffer of the pool."""
        self.borrowed_bodies += 1
        pool.copied_bytes += size
        theirs = self._theirs[start : start + size]
        if size < LENT_FROM_BYTES:
            return bytearray(theirs)  # a buffer has 4 KiB at least, and counts for its body
        copy = pool.take_flat(size)
        copy[:size] = theirs
        return copy


def _whole_pages(size: int) -> int:
    return (size + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
