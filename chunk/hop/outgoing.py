"""A body on its way to the neighbour: what was sent, what arrived, what is lost.

Source: docs/protocol/hop.md, "Sending".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.body_seal import BodySeal, terms_of
from packetcloud.chunk.hop.buffers import BufferPool, StoredBody
from packetcloud.chunk.hop.keys import DirectionKeys
from packetcloud.chunk.hop.lane import Lane, Loan

NEVER = 1 << 62
"""A burst number that no ACK reaches."""


class Outgoing:
    """A body on its way to the neighbour."""

    __slots__ = (
        "_plain",
        "acked",
        "background",
        "body",
        "body_bytes",
        "first_burst",
        "flow",
        "is_small",
        "keys",
        "kind",
        "known_below",
        "last_burst",
        "loan",
        "lost",
        "next_index",
        "partial",
        "payload",
        "plain_bytes",
        "prefix",
        "seal",
        "segments",
        "sends",
        "serial",
        "token",
        "transfer",
    )

    def __init__(
        self,
        kind: int,
        prefix: bytes,
        payload: memoryview,
        body: StoredBody | None,
        token: object,
        share: int,
        small_bytes: int,
        overhead_bytes: int,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        self.kind = kind
        self.flow = flow
        self.serial = 0
        """Its place among the bodies of the session, as they were handed over."""
        self.prefix = prefix
        self.payload = payload
        self.body = body
        """Set when the rows of a received body go out in place; prefix and payload are empty."""
        self.token = token
        self.background = background
        """It can wait, and yields to whatever else wants the path."""
        self.plain_bytes = len(prefix) + len(payload) if body is None else len(body)
        self.is_small = body is None and self.plain_bytes <= small_bytes and not background
        """It travels whole, in a bundle."""
        self.body_bytes = self.plain_bytes + (0 if self.is_small else overhead_bytes)
        """As it travels: with its tag, where it is sealed by itself."""
        self.segments = (self.body_bytes + share - 1) // share
        self.keys: DirectionKeys | None = None
        """What it was sealed with."""
        self.seal: BodySeal | None = None
        self._plain = (prefix, payload)
        """What was handed over, to be sealed anew if this becomes another transfer."""
        self.loan: Loan | None = None
        """Where it lies in the lane, if it travels as a reference."""
        self.lost: deque[tuple[int, int]] = deque()
        self.begin_anew()

    def put_back(self, pool: BufferPool) -> None:
        """Forget the transfer that it was; then `cut` it, if it was lent."""
        self.give_back(pool)
        self.keys = None
        self.prefix, self.payload = self._plain
        self.loan = None
        self.begin_anew()

    def lend(self, lane: Lane) -> None:
        """Lay it in the lane, which has room, to travel as a reference in a bundle."""
        self.loan = lane.lend(self.prefix, self.payload, self.body)
        assert self.loan is not None, "the lane was asked"
        self.is_small, self.body_bytes, self.segments = True, self.plain_bytes, 1

    @property
    def record_bytes(self) -> int:
        """Of what follows its record in a bundle."""
        return self.body_bytes if self.loan is None else wire.REFERENCE.size

    def cut(self, share: int, small_bytes: int, overhead_bytes: int) -> None:
        """Cut it for datagrams of another size."""
        is_short = self.plain_bytes <= small_bytes
        self.is_small = self.body is None and is_short and not self.background
        self.body_bytes = self.plain_bytes + (0 if self.is_small else overhead_bytes)
        self.segments = (self.body_bytes + share - 1) // share

    def begin_anew(self) -> None:
        """Nothing of it was sent: it waits to become a transfer."""
        self.transfer = -1
        self.next_index = 0
        self.first_burst = NEVER
        self.sends: deque[tuple[int, int, int]] = deque()
        """(first segment, end, burst) of what was sent and is not known to have arrived."""
        self.known_below = 0
        """All segments below this arrived."""
        self.acked: npt.NDArray[np.bool_] | None = None
        self.last_burst: npt.NDArray[np.int64] | None = None
        """Burst in which each segment was last sent; made at the first sign of loss."""
        self.lost.clear()
        self.partial: wire.Partial | None = None
        """What an ACK said of it last."""

    @property
    def second(self) -> int:
        """Second byte of its headers: kind, and the epoch of the key."""
        return self.kind | (self.keys.epoch % 16 << 4 if self.keys is not None else 0)

    def seal_with(self, keys: DirectionKeys, pool: BufferPool) -> None:
        """From now on it is sealed, as the transfer that it has become, by and by as it is sent.

        What was handed over stays as it is.
        """
        self.keys = keys
        terms = terms_of(self.transfer, self.kind, self.flow, self.body_bytes)
        self.seal = BodySeal(keys, terms, self.prefix, self.payload, pool)
        self.prefix, self.payload = b"", self.seal.sealed.data[: self.body_bytes]

    def give_back(self, pool: BufferPool) -> None:
        """Give the buffer of the sealed body back; nothing of it is sent any more."""
        if self.seal is not None:
            pool.give_flat(self.seal.sealed)
            self.seal = None
            self.payload = memoryview(b"")

    def shares(self, first: int, end: int, share: int) -> Iterator[memoryview]:
        """Yield the shares of segments [first, end) of a sealed body."""
        if self.seal is not None:
            self.seal.seal_to(min(end * share, self.body_bytes))
        for index in range(first, end):
            yield self.payload[index * share : (index + 1) * share]

    def note_sent(self, first: int, end: int, burst: int) -> None:
        """Segments [first, end) left in `burst`."""
        if self.first_burst == NEVER:
            self.first_burst = burst
        if self.last_burst is None:
            self.sends.append((first, end, burst))
        else:
            self.last_burst[first:end] = burst

    def take_partial(self, partial: wire.Partial, largest: int) -> int:
        """Take in which segments the receiver has.

        Args:
            largest: the last burst that it knows of.

        Returns:
            How many came although they were called lost and sent again only later, if at all: they
            were not lost but overtaken. What is queued to be sent again stays so: it may have been
            found altered since this ACK left.
        """
        if self.last_burst is None:
            self._note_arrived(partial)
            return 0
        missing = ~self._arrived()
        self._note_arrived(partial)
        came = missing & self._arrived() & (self.last_burst > largest)
        return int(np.count_nonzero(came[: self.next_index]))

    def _note_arrived(self, partial: wire.Partial) -> None:
        base = min(partial.base, self.segments)
        self.known_below = max(self.known_below, base)
        if not partial.bitmap and self.acked is None:
            return
        acked = self._arrived()
        bits = np.unpackbits(np.frombuffer(partial.bitmap, np.uint8), bitorder="little")
        end = min(base + len(bits), self.segments)
        acked[base:end] |= bits[: end - base].astype(np.bool_)

    def find_lost(self, floor: int) -> int | None:
        """Put segments that were last sent at or before burst `floor`, and did not arrive, on the
        list of the lost.

        Returns:
            How many are newly lost; None when none is and nothing of it is on its way.
        """
        if self.known_below >= self.segments:
            return None
        if self.segments == 1:
            # An ACK may call thousands of these lost at once.
            if not self.sends:
                return None
            if self.sends[-1][2] > floor:
                return 0
            self.sends.clear()
            self.lost.append((0, 1))
            return 1
        if self.last_burst is None:
            sends = self.sends
            if self.acked is None:
                while sends and sends[0][1] <= self.known_below:
                    sends.popleft()
            if not sends:
                return None
            if sends[0][2] > floor:
                return 0
        missing = np.flatnonzero(~self._arrived() & (self._last_bursts() <= floor))
        if len(missing):
            self._queue_lost(missing)
        return len(missing)

    def take_damage(self, base: int, bitmap: bytes, burst: int) -> int:
        """Put segments that arrived altered, and were not sent after `burst`, on the list of the
        lost.

        Returns:
            How many are newly lost; 0 when the frame comes again.
        """
        bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
        altered = np.flatnonzero(bits[: max(0, self.segments - base)]) + base
        arrived, last_burst = self._arrived(), self._last_bursts()
        altered = altered[arrived[altered] & (last_burst[altered] <= burst)]
        if len(altered):
            arrived[altered] = False
            self.known_below = min(self.known_below, int(altered[0]))
            self._queue_lost(altered)
        return len(altered)

    def _last_bursts(self) -> npt.NDArray[np.int64]:
        """Return the burst in which each segment was last sent; 0 for those that arrived first."""
        if self.last_burst is None:
            self.last_burst = np.full(self.segments, NEVER, np.int64)
            self.last_burst[self._arrived()] = 0
            for first, end, burst in self.sends:
                self.last_burst[first:end] = burst
            self.sends.clear()
        return self.last_burst

    def _queue_lost(self, missing: npt.NDArray[np.intp]) -> None:
        """Put segments on the list of the lost."""
        assert self.last_burst is not None
        self.last_burst[missing] = NEVER
        cuts = np.flatnonzero(np.diff(missing) > 1)
        firsts = missing[np.concatenate(([0], cuts + 1))].tolist()
        ends = (missing[np.concatenate((cuts, [len(missing) - 1]))] + 1).tolist()
        self.lost.extend(zip(firsts, ends, strict=True))

    def _arrived(self) -> npt.NDArray[np.bool_]:
        if self.acked is None:
            self.acked = np.zeros(self.segments, np.bool_)
        self.acked[: self.known_below] = True
        return self.acked
