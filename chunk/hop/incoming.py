"""One transfer that is not whole yet: which of its segments are here, and its opening as it comes.

Source: docs/protocol/hop.md, "Receiving", "Sealing".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.body_seal import BodyOpening, open_body, terms_of
from packetcloud.chunk.hop.buffers import BufferPool, ByteArray, Store
from packetcloud.chunk.hop.keys import DirectionKeys

OPEN_BYTES = 32 << 10
"""A sealed body is opened in pieces of at least so much as it comes; shorter ones in one."""


class Incoming:
    """A transfer that is not whole yet.

    Args:
        second: second byte of its headers: kind and epoch.
        keys: what it was sealed with; None in an open session.
    """

    __slots__ = (
        "begun_at", "body_bytes", "count", "flow", "got", "high", "keys", "kind", "second",
        "segments", "share", "store", "transfer",
    )  # fmt: skip

    def __init__(
        self,
        transfer: int,
        second: int,
        flow: int,
        body_bytes: int,
        segments: int,
        store: Store,
        keys: DirectionKeys | None,
        begun_at: float,
    ) -> None:
        self.transfer = transfer
        self.begun_at = begun_at
        self.second = second
        self.kind = second & 15
        self.flow = flow
        self.keys = keys
        self.body_bytes = body_bytes
        self.segments = segments
        self.store = store
        self.share = store.stride - wire.DATA_HEADER_BYTES
        """Bytes of the body in each segment but the last."""
        self.count = 0
        """Segments that are here: all of them make it whole."""
        self.high = 0
        """One more than the highest segment that is here."""
        self.got: npt.NDArray[np.bool_] | None = None
        """Which segments are here; None while all below `high` are."""

    def lacking(self, index: int, end: int) -> list[tuple[int, int]]:
        """Return which of segments [index, end) are not here: runs, each its first and its end."""
        got = self.got
        if got is None:
            return [(max(index, self.high), end)] if end > self.high else []
        missing = np.flatnonzero(~got[index:end])
        if len(missing) == end - index:
            return [(index, end)]
        runs = np.split(missing + index, np.flatnonzero(np.diff(missing) > 1) + 1)
        return [(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]

    def mark(self, index: int, end: int) -> int:
        """Note segments [index, end) as here; return how many of them were not."""
        got = self.got
        if got is None:
            if index == self.high:
                self.high = self.count = end
                return end - index
            got = self.got = np.zeros(self.segments, np.bool_)
            got[: self.high] = True
        part = got[index:end]
        fresh = end - index - int(np.count_nonzero(part))
        if fresh:
            part[:] = True
            self.count += fresh
            self.high = max(self.high, end)
        return fresh

    def miss(self, altered: list[int]) -> None:
        """Note segments of a whole transfer as not here: they were altered on their way."""
        if self.got is None:
            self.got = np.ones(self.segments, np.bool_)
        self.got[altered] = False
        self.count -= len(altered)

    def bytes_per_s(self, now: float) -> float:
        """Return how fast it comes in."""
        return self.count * self.share / max(now - self.begun_at, 1e-3)

    def partial(self) -> wire.Partial:
        """Return what an ACK says of it: where the first gap is, and what is here behind that."""
        got, base, bitmap = self.got, self.high, b""
        if got is not None:
            base = int(np.argmin(got[: self.high])) if not got[:base].all() else base
            stop = min(self.high, base + wire.MAX_BITMAP_BYTES * 8)
            bitmap = np.packbits(got[base:stop], bitorder="little").tobytes()
        return wire.Partial(self.transfer & 0xFFFF_FFFF, base, bitmap)


class Unsealer:
    """Opens the sealed transfers of one neighbour: one of them as it comes, the others when whole.

    No more than one, as each takes a second buffer.
    """

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        self._in_hand: tuple[Incoming, BodyOpening] | None = None

    def follow(self, incoming: Incoming, keys: DirectionKeys, index: int) -> None:
        """Open what came of a transfer from its beginning on, while it is in the cache.

        Args:
            index: the first segment of what came now.
        """
        opening = self._take(incoming)
        high, share = incoming.high, incoming.share
        if opening is None:
            is_beginning = index * share < OPEN_BYTES <= high * share
            if not is_beginning or keys.body_streams is None:
                return
            self.close()
            size = incoming.body_bytes
            terms = terms_of(incoming.transfer, incoming.kind, incoming.flow, size)
            opening = BodyOpening(keys, terms, size, self._pool)
        self._in_hand = incoming, opening
        if (high - opening.rows) * share >= OPEN_BYTES:
            opening.take(incoming.store, high, min(high * share, incoming.body_bytes))

    def open(self, incoming: Incoming, keys: DirectionKeys) -> ByteArray | None:
        """Return the body of a transfer that is whole; None when something of it was altered."""
        opening = self._take(incoming)
        if opening is not None:
            return opening.finish(incoming.store, incoming.segments)
        size = incoming.body_bytes
        terms = terms_of(incoming.transfer, incoming.kind, incoming.flow, size)
        return open_body(keys, terms, size, incoming.store, self._pool)

    def give_up(self, incoming: Incoming) -> None:
        """Nothing more comes of a transfer."""
        opening = self._take(incoming)
        if opening is not None:
            opening.give_up()

    def _take(self, incoming: Incoming) -> BodyOpening | None:
        """Return what a transfer is opened with as it comes, if it is; nobody else has it then."""
        if self._in_hand is None or self._in_hand[0] is not incoming:
            return None
        opening, self._in_hand = self._in_hand[1], None
        return opening

    def close(self) -> None:
        """Give the buffer of what is opened now back."""
        if self._in_hand is not None:
            self._in_hand[1].give_up()
            self._in_hand = None
