"""The unfinished transfers of one neighbour: where they land, and which give way.

The usual train continues the transfer in hand, so it can land in its place straight from the
kernel; while there is none, the buffer that the next transfer will most likely get is kept ready.

Source: docs/protocol/hop.md, "Receiving".
"""

from __future__ import annotations

from collections.abc import Callable

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.buffers import BufferPool, Store, StoredBody
from packetcloud.chunk.hop.incoming import Incoming, Unsealer
from packetcloud.chunk.hop.keys import DirectionKeys

MAX_PARTIALS_COUNT = 1024
"""Unfinished transfers of one neighbour, about 2 KiB each without their bytes: 1 Gbit/s times
100 ms of two-datagram bodies of which a quarter lost a datagram."""
SLOW_AFTER_S = 5.0
SPARE_IDLE_S = 3.0
"""A neighbour that began no transfer for so long keeps no buffer ready for the next one."""
EVICTION_PAUSE_S = 0.1
"""After a look that found nothing slow; a look at all unfinished transfers costs half a ms."""
SLOW_BYTES_PER_S = 16 << 10
"""An unfinished transfer this old that came in slower than this gives way where its room is needed:
1 MiB would take a minute. No path that carries a chunk before its deadline is as slow."""


class IncomingTransfers:
    """The table of them, and their buffers.

    Args:
        stride: bytes of a full datagram, segment header included.
        on_release: given to each body, which calls it with its bytes and its flow.
    """

    def __init__(
        self, pool: BufferPool, stride: int, on_release: Callable[[int, int], None]
    ) -> None:
        self._pool = pool
        self.stride = stride
        self.share = stride - wire.DATA_HEADER_BYTES
        """Bytes of a body in a full datagram."""
        self._on_release = on_release
        self.transfers: dict[int, Incoming] = {}
        self.body_bytes = 0
        """Of all unfinished transfers."""
        self.in_hand: Incoming | None = None
        """The one that the next train most likely continues."""
        self._spare: Store | None = None
        self._begun_at = float("-inf")
        """When the last transfer began."""
        self.unsealer = Unsealer(pool)
        self._look_for_slow_at = float("-inf")

    # --- landing --------------------------------------------------------------------------------

    def landing(self) -> tuple[Store, int] | None:
        """Return where the next train most likely belongs: a buffer and a row of it."""
        current = self.in_hand
        if current is not None:
            return current.store, current.high
        if self._spare is not None:
            return self._spare, 0
        return None

    def landing_run(self) -> tuple[Store, int, int] | None:
        """Return the rows that the transfer in hand still lacks at its end: buffer, first, end.

        With nothing in hand, all rows of the buffer that the next transfer will most likely get.
        None when the end of the transfer is there and only a hole before it is not: nothing can be
        received into no rows, and whoever tried would never come to the repeats.
        """
        current = self.in_hand
        if current is None:
            spare = self._spare
            return (spare, 0, spare.capacity) if spare is not None else None
        if current.high >= current.segments:
            return None
        return current.store, current.high, current.segments

    def has_place(self, store: Store, transfer: int, body_bytes: int) -> bool:
        """Tell whether the segments of `transfer` belong in `store`, begun or not."""
        incoming = self.transfers.get(transfer)
        if incoming is not None:
            return incoming.store is store
        segments = (body_bytes + self.share - 1) // self.share
        return segments > 1 and store is self._spare and store.fits(segments)

    def change_stride(self, stride: int) -> None:
        """Transfers that begin from now on come in datagrams of another size."""
        if stride == self.stride:
            return
        self.stride = stride
        self.share = stride - wire.DATA_HEADER_BYTES
        self.in_hand = None
        self._give_spare()

    # --- one transfer ---------------------------------------------------------------------------

    def begin(
        self,
        transfer: int,
        second: int,
        flow: int,
        body_bytes: int,
        segments: int,
        keys: DirectionKeys | None,
        now: float,
    ) -> Incoming:
        """Give a new transfer its buffer; the arguments are those of `Incoming`."""
        self.body_bytes += body_bytes
        self._begun_at = now
        spare = self._spare
        if spare is not None and spare.fits(segments):
            store, self._spare = spare, None
            self._pool.use_ready(store)
        else:
            store = self._pool.take_store(segments, self.stride)
        incoming = Incoming(transfer, second, flow, body_bytes, segments, store, keys, now)
        self.transfers[transfer] = incoming
        return incoming

    def whole_body(self, incoming: Incoming) -> StoredBody | None:
        """Return the body of a transfer that is whole; None when something of it was altered.

        Its buffer belongs to the body then: end the transfer.
        """
        pool, size, keys, store = self._pool, incoming.body_bytes, incoming.keys, incoming.store
        if keys is None:
            return StoredBody(store, size, pool, self._on_release, size, incoming.flow)
        plain = self.unsealer.open(incoming, keys)
        if plain is None:
            return None
        pool.give_store(store)
        return StoredBody(plain, size - wire.TAG_BYTES, pool, self._on_release, size, incoming.flow)

    def end(self, incoming: Incoming) -> None:
        """Take out a transfer whose body was made, and turn to another one or to a new buffer."""
        del self.transfers[incoming.transfer]
        self.body_bytes -= incoming.body_bytes
        if self.in_hand is incoming or self.in_hand is None:
            self.in_hand = next(iter(self.transfers.values()), None)
        if self._spare is None and not self.transfers:
            self._spare = self._pool.take_ready(incoming.segments, self.stride)

    def set_aside(self, incoming: Incoming) -> None:
        """All of a transfer came, but it stays: the next train does not continue it."""
        if self.in_hand is incoming:
            self.in_hand = None

    def drop(self, transfer: int) -> Incoming | None:
        """Forget what came of a transfer, if it began; the caller releases its credit."""
        incoming = self.transfers.pop(transfer, None)
        if incoming is None:
            return None
        self.unsealer.give_up(incoming)
        self.body_bytes -= incoming.body_bytes
        self._pool.give_store(incoming.store)
        self.set_aside(incoming)
        return incoming

    # --- all of them ----------------------------------------------------------------------------

    def slowest_first(self, now: float, *, slow_only: bool) -> list[int]:
        """Return the transfers that may give way.

        Args:
            slow_only: spare those that are young or come in at a fair rate; after a look that found
                nothing else, for `EVICTION_PAUSE_S`, all of them.
        """
        if slow_only and now < self._look_for_slow_at:
            return []
        rates = sorted(
            (incoming.bytes_per_s(now), transfer)
            for transfer, incoming in self.transfers.items()
            if not slow_only or now - incoming.begun_at >= SLOW_AFTER_S
        )
        found = [
            transfer for rate, transfer in rates if not slow_only or rate < SLOW_BYTES_PER_S
        ]  # fmt: skip
        if slow_only and not found:
            self._look_for_slow_at = now + EVICTION_PAUSE_S
        return found

    def partials(self, room: int) -> tuple[tuple[wire.Partial, ...], bool]:
        """Return what an ACK says of them in `room` bytes, and whether there are more."""
        found: list[wire.Partial] = []
        for transfer in sorted(self.transfers):
            partial = self.transfers[transfer].partial()
            room -= wire.PARTIAL_FIXED_BYTES + len(partial.bitmap)
            if room < 0 or len(found) == wire.MAX_PARTIALS_COUNT:
                return tuple(found), True
            found.append(partial)
        return tuple(found), False

    def rest(self, now: float) -> None:
        """Give back what is only kept ready, if nothing began for a while. Never between the offer
        of a landing place and the train that landed there."""
        if now - self._begun_at >= SPARE_IDLE_S:
            self._give_spare()

    def close(self) -> None:
        """Give all buffers back."""
        for incoming in self.transfers.values():
            self._pool.give_store(incoming.store)
        self.transfers.clear()
        self.body_bytes = 0
        self.in_hand = None
        self.unsealer.close()
        self._give_spare()

    def _give_spare(self) -> None:
        if self._spare is not None:
            self._pool.use_ready(self._spare)
            self._pool.give_store(self._spare)
            self._spare = None
