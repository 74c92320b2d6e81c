"""The receiving half of a session: segments in, whole bodies up, ACKs out.

The usual train continues the transfer that the last one belonged to and has landed in its place
already, so it costs a look at all its headers at once and no copy. Everything else (gaps, repeats,
several transfers in one train) goes the slow way, by runs of consecutive segments.

Source: docs/protocol/hop.md, "Receiving".
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Body, Deferral, Refusal
from packetcloud.chunk.hop.body_seal import BodyOpening, open_body, open_small_body
from packetcloud.chunk.hop.buffers import (
    BufferPool,
    ByteArray,
    FlatBuffer,
    RowBuffer,
    SmallBody,
    Store,
    StoredBody,
)
from packetcloud.chunk.hop.flow_credit import FlowCredit
from packetcloud.chunk.hop.header_check import Words
from packetcloud.chunk.hop.keys import DirectionKeys, KeyRing
from packetcloud.chunk.hop.repair import Repair
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason

MAX_TRAIN_ROWS = 1024
"""Datagrams looked at in one piece: trains that follow each other into one body are joined."""
MAX_PARTIALS_COUNT = 1024
"""Unfinished transfers of one neighbour, about 2 KiB each without their bytes: 1 Gbit/s times
100 ms of two-datagram bodies of which a quarter lost a datagram."""
SLOW_AFTER_S = 5.0
EVICTION_PAUSE_S = 0.1
"""After a look that found nothing slow; a look at all unfinished transfers costs half a ms."""
SLOW_BYTES_PER_S = 16 << 10
"""An unfinished transfer this old that came in slower than this gives way where its room is needed:
1 MiB would take a minute. No path that carries a chunk before its deadline is as slow."""
OPEN_BYTES = 32 << 10
"""A sealed body is opened in pieces of at least so much as it comes; shorter ones in one."""
ACK_BYTES = 512 << 10
"""An ACK is due after so many bytes at the latest."""

_TRANSFER = struct.Struct(">III")
"""transfer, body bytes and segment index of a segment header, from its byte 12 on."""
_BODY_KINDS = {int(kind): kind for kind in BodyKind}
_WORDS = wire.DATA_HEADER_WORDS
_INDEX_WORD = 5
_BURST_WORD = 6
_CHECK_WORD = 7
_steps = np.zeros((MAX_TRAIN_ROWS, _WORDS), np.uint32)
_steps[:, _INDEX_WORD] = np.arange(MAX_TRAIN_ROWS)
_STEPS = _steps.tobytes()
"""What the headers of a train less its first one are when only the index counts up."""

_ACK_REFUSED_COUNT = 16
"""REFUSED entries that travel with one ACK; the sender's FORGETs bring the next ones at once."""
_LEAST_PARTIALS_BYTES = wire.PARTIAL_FIXED_BYTES + wire.MAX_BITMAP_BYTES
"""Kept free in an ACK while transfers are partial: one of them always fits."""

DeliverBody = Callable[[BodyKind, Body], Refusal | Deferral | None]


class _Incoming:
    """A transfer that is not whole yet."""

    __slots__ = (
        "begun_at", "body_bytes", "count", "flow", "got", "high", "keys", "kind", "second",
        "segments", "store",
    )  # fmt: skip

    def __init__(
        self,
        second: int,
        flow: int,
        body_bytes: int,
        segments: int,
        store: Store,
        keys: DirectionKeys | None,
        begun_at: float,
    ) -> None:
        self.begun_at = begun_at
        self.second = second
        """Second byte of its headers: kind and epoch."""
        self.kind = second & 15
        self.flow = flow
        self.keys = keys
        """What it was sealed with; None in an open session."""
        self.body_bytes = body_bytes
        self.segments = segments
        self.store = store
        self.count = 0
        self.high = 0
        """One more than the highest segment that is here."""
        self.got: npt.NDArray[np.bool_] | None = None
        """Which segments are here; None while all below `high` are."""


class Receiver:
    """Receives the transfers of one neighbour.

    Args:
        stride: bytes of a full datagram in this session, segment header included.
        ring: the keys; None in an open session.
        dropped: counts datagrams that are dropped, by reason.
        flow_credit_bytes: what one flow of this neighbour may hold here.
        deliver: called with each whole body; returns None to take custody, a refusal, or that it
            will `decide` later.
        on_room: called when a release makes an ACK due, so that the sender learns of the room.
        make_room: called with bytes and the time when all neighbours together hold too much for
            them: whoever holds most of unfinished transfers may have to give way.
    """

    def __init__(
        self,
        pool: BufferPool,
        stride: int,
        max_body_bytes: int,
        credit_bytes: int,
        flow_credit_bytes: int,
        window_bytes: int,
        ring: KeyRing | None,
        dropped: Counter[str],
        deliver: DeliverBody,
        on_room: Callable[[], None],
        make_room: Callable[[int, float], None] = lambda size, now: None,
    ) -> None:
        self._pool = pool
        self.stride = stride
        self._share = stride - wire.DATA_HEADER_BYTES
        self._max_body_bytes = max_body_bytes
        self._credit_bytes = credit_bytes
        self.window_bytes = window_bytes
        self._ring = ring
        self._unsure_words = slice(_BURST_WORD, _BURST_WORD + 1 if ring is None else _WORDS)
        """Those of a header that change within a run: the burst, and the check if it is one."""
        self._overhead_bytes = wire.TAG_BYTES if ring is not None else 0
        self._dropped = dropped
        self._deliver = deliver
        self._on_room = on_room
        self._make_room = make_room
        self._incoming: dict[int, _Incoming] = {}
        self._done_below = 0
        self._done: set[int] = set()
        self._refused: dict[int, int] = {}
        self._undecided: dict[int, Body] = {}
        """Whole bodies that the layer above has not decided about, by transfer."""
        self._transfer_of: dict[int, int] = {}
        """Their transfers by the `id` of the body."""
        self._flows = FlowCredit(flow_credit_bytes)
        self._largest_burst = 0
        """Bursts count from 1; 0 means that none arrived."""
        self._largest_at = 0.0
        self.received_bytes = 0
        self._unacked_bytes = 0
        self._largest_stride = stride
        self._stride_burst = 0
        """Up to this burst datagrams have a size that is not used any more."""
        self._used_bytes = 0
        """Sum of the bodies of all transfers that began here."""
        self._released_bytes = 0
        """Sum of the bodies that were refused, forgotten or released by the layer above."""
        self._advertised_limit = credit_bytes
        self._current: _Incoming | None = None
        self._opening: tuple[_Incoming, BodyOpening] | None = None
        """A sealed transfer that is opened as it comes; one at a time, as each takes a buffer."""
        self._epoch, self._epoch_transfer = 0, 0
        self._epoch_keys: DirectionKeys | None = None
        """The neighbour's newest keys, while older ones may still be needed."""
        self._repairs: dict[int, Repair] = {}
        """Transfers that were whole, and altered."""
        self._spare: Store | None = None
        self.ack_now = False
        self.ack_due_at: float | None = None
        self.is_starved = False
        """The sender said that it has no credit."""
        self.fresh_segments = 0
        """Segments that were not here before: what only a living neighbour can send."""
        self.duplicate_segments = 0
        self.damaged_segments = 0
        self.received_bodies = 0
        self.received_body_bytes = 0
        self.refused_unread: Counter[int] = Counter()
        """Transfers that were refused before their bytes were stored."""
        self.busy_unlisted_count = 0
        """BUSY lists that had no room for all labels."""
        self.partial_bytes = 0
        """Bodies of unfinished transfers."""
        self.evicted_transfers = 0
        """Unfinished transfers that gave way."""
        self._look_for_slow_at = float("-inf")

    # --- landing --------------------------------------------------------------------------------

    def landing(self) -> tuple[Store, int] | None:
        """Return where the next train most likely belongs: a buffer and a row of it."""
        current = self._current
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
        current = self._current
        if current is None:
            spare = self._spare
            return (spare, 0, spare.capacity) if spare is not None else None
        if current.high >= current.segments:
            return None
        return current.store, current.high, current.segments

    # --- data -----------------------------------------------------------------------------------

    def receive_rows(
        self,
        array: ByteArray,
        length: int,
        row_bytes: int,
        placed: tuple[Store, int] | None,
        now: float,
    ) -> list[memoryview]:
        """Take in a train of datagrams whose first one is DATA of this session.

        Args:
            array: the train in its first `length` bytes, a datagram every `row_bytes`.
            placed: the buffer and row that `array` is, when the train landed there.

        Returns:
            Datagrams of the train that are not DATA of this session; almost always none.

        Raises:
            ProtocolError: a header or a length breaks the format; nothing was changed by it.
        """
        count = (length + row_bytes - 1) // row_bytes
        last_bytes = length - (count - 1) * row_bytes
        others: list[memoryview] = []
        if last_bytes < wire.DATA_HEADER_BYTES and count > 1:
            # The kernel joins a short CONTROL datagram to the train before it.
            others.append(memoryview(bytes(array.data[length - last_bytes : length])))
            count, length, last_bytes = count - 1, length - last_bytes, row_bytes
        if last_bytes < wire.DATA_HEADER_BYTES or count > MAX_TRAIN_ROWS:
            raise ProtocolError("short_segment", f"{last_bytes} bytes")
        words = np.ndarray((count, _WORDS), ">u4", array.data, 0, (row_bytes, 4)).astype(np.uint32)
        if _is_one_run(words, self._unsure_words) and self._are_right(words):
            self._count(length)
            self._note_burst(wire.expand(int(words[-1, _BURST_WORD]), self._largest_burst), now)
            self._place(array, 0, count, row_bytes, last_bytes, placed, now)
            return others
        if placed is not None:
            # Moving one run to its place could write over another that still waits its turn.
            array, placed = array[:length].copy(), None
        is_ours = (words[:, 0] >> 24 == wire.DATA_BYTE) & (words[:, 1:3] == words[0, 1:3]).all(1)
        is_right = is_ours.copy()
        is_right[is_ours] = self._right(words[is_ours])
        for first, last in _runs(words, is_right):
            end_bytes = last_bytes if last == count else row_bytes
            if not is_ours[first]:
                rows = array.data[first * row_bytes : (last - 1) * row_bytes + end_bytes]
                others += [rows[at : at + row_bytes] for at in range(0, len(rows), row_bytes)]
                continue
            if not is_right[first]:
                self._dropped["bad_check"] += last - first
                continue
            self._count((last - first - 1) * row_bytes + end_bytes)
            self._note_burst(
                wire.expand(int(words[last - 1, _BURST_WORD]), self._largest_burst), now
            )
            self._place(array, first, last - first, row_bytes, end_bytes, placed, now)
        return others

    def receive_split(
        self, store: FlatBuffer, row: int, count: int, last_bytes: int, now: float
    ) -> bool:
        """Take in datagrams whose headers landed apart and whose shares landed from `row` on.

        Args:
            count: datagrams, the first of them DATA of this session, each of the session's full
                size but for the last.
            last_bytes: bytes of the last one, its header included.

        Returns:
            False, and nothing was changed, when that is not where all of them belong.

        Raises:
            ProtocolError: a header or a length breaks the format; nothing was changed by it.
        """
        headers = store.headers[row : row + count]
        words = headers.reshape(-1).view(">u4").reshape(count, _WORDS).astype(np.uint32)
        if not (_is_one_run(words, self._unsure_words) and self._are_right(words)):
            return False
        low, body_bytes, index = _TRANSFER.unpack_from(headers.data, 12)
        incoming = self._incoming.get(wire.expand(low, self._done_below))
        if incoming is not None:
            is_in_place = incoming.store is store
        else:
            segments = (body_bytes + self._share - 1) // self._share
            is_in_place = segments > 1 and store is self._spare and store.fits(segments)
        if not is_in_place or index != row:
            return False
        self._count((count - 1) * self.stride + last_bytes)
        self._note_burst(wire.expand(int(words[-1, _BURST_WORD]), self._largest_burst), now)
        flat = headers.reshape(-1)
        self._place(flat, 0, count, self.stride, last_bytes, (store, row), now)
        return True

    def _are_right(self, words: Words) -> bool:
        """Tell whether all checks are right of the headers of one run."""
        if self._ring is None:
            return not words[0, _CHECK_WORD]
        keys = self._ring.receive_keys(int(words[0, 0]) >> 20 & 15)
        return keys.check.is_run_right(words)

    def _right(self, words: Words) -> npt.NDArray[np.bool_]:
        """Tell for each header whether its check is right."""
        right: npt.NDArray[np.bool_] = words[:, _CHECK_WORD] == 0
        if self._ring is None:
            return right
        epochs = words[:, 0] >> np.uint32(20) & np.uint32(15)
        right[:] = False
        for epoch in set(epochs.tolist()):
            mine = epochs == epoch
            try:
                keys = self._ring.receive_keys(epoch)
            except ProtocolError:
                continue
            right[mine] = keys.check.is_right(words[mine])
        return right

    def _count(self, size: int) -> None:
        self.received_bytes += size
        self._unacked_bytes += size

    def _place(
        self,
        array: ByteArray,
        first: int,
        count: int,
        row_bytes: int,
        last_bytes: int,
        placed: tuple[Store, int] | None,
        now: float,
    ) -> None:
        """Put `count` consecutive segments of one transfer, from row `first`, in their place."""
        start = first * row_bytes
        head, second, flow, _, low, body_bytes, index, burst_low, _ = wire.DATA_HEADER.unpack_from(
            array.data, start
        )
        ring, overhead = self._ring, self._overhead_bytes
        kind = second & 15 if ring is not None else second
        if (
            head != wire.DATA_BYTE
            or kind not in _BODY_KINDS
            or not overhead < body_bytes <= wire.MAX_WIRE_BODY_BYTES
        ):
            raise ProtocolError("bad_segment", "type, kind or size")
        stride = self.stride
        segments = (body_bytes + self._share - 1) // self._share
        end = index + count
        if end > segments:
            raise ProtocolError("bad_segment", f"segment {end - 1} of {segments}")
        expected = stride
        if end == segments:
            expected = wire.DATA_HEADER_BYTES + body_bytes - (segments - 1) * self._share
        if last_bytes != expected or (count > 1 and row_bytes != stride):
            raise ProtocolError("bad_segment_length", f"{last_bytes} bytes, not {expected}")
        burst = wire.expand(burst_low, self._largest_burst)
        self._note_burst(burst, now)
        if burst <= self._stride_burst:
            raise ProtocolError("old_stride", f"burst {burst}")
        transfer = wire.expand(low, self._done_below)
        if self._is_settled(transfer):
            self.duplicate_segments += count
            self.ack_now = True
            return
        incoming = self._incoming.get(transfer)
        if segments == 1 and incoming is None:
            # Its row would take up a datagram's room, or 64 KiB, for perhaps one byte of credit.
            first_byte = start + wire.DATA_HEADER_BYTES
            content = array.data[first_byte : first_byte + body_bytes]
            if ring is not None:
                self._take_sealed(
                    transfer, ring.receive_keys(second >> 4), kind, flow, content, now
                )
            else:
                self._take_small(transfer, kind, flow, content, body_bytes, now)
            return
        if incoming is None:
            incoming = self._begin(transfer, second, flow, body_bytes, segments, now)
            if incoming is None:
                return
        elif (incoming.body_bytes, incoming.second, incoming.flow) != (body_bytes, second, flow):
            raise ProtocolError("bad_segment", "a transfer changed its size, kind, epoch or flow")
        store = incoming.store
        if placed is None or placed[0] is not store or placed[1] + first != index:
            size = (count - 1) * stride + last_bytes
            source = array.data[start : start + size]
            if isinstance(store, RowBuffer):
                store.memory[index * stride : index * stride + size] = source
            else:
                for row in range(count):
                    share = source[row * stride + wire.DATA_HEADER_BYTES : (row + 1) * stride]
                    at = (index + row) * self._share
                    store.memory[at : at + len(share)] = share
        if self._mark(incoming, index, end):
            self._complete(transfer, incoming)
            return
        self._current = incoming
        if incoming.got is None and incoming.keys is not None:
            self._open_more(transfer, incoming, incoming.keys, index)

    def _note_epoch(self, keys: DirectionKeys, transfer: int) -> None:
        """Remember from which transfer on the neighbour uses its newest keys.

        Transfers are numbered and sealed in one order, so once all below are settled nothing
        sealed with older keys can come.
        """
        if keys.epoch != self._epoch:
            if keys.epoch < self._epoch:
                return
            self._epoch, self._epoch_transfer, self._epoch_keys = keys.epoch, transfer, keys
        self._epoch_transfer = min(self._epoch_transfer, transfer)
        self._retire_keys()

    def _retire_keys(self) -> None:
        if self._epoch_keys is not None and self._done_below >= self._epoch_transfer:
            assert self._ring is not None
            self._ring.retire_before(self._epoch_keys)
            self._epoch_keys = None

    def _begin(
        self,
        transfer: int,
        second: int,
        flow: int,
        body_bytes: int,
        segments: int,
        now: float,
    ) -> _Incoming | None:
        """Admit a new transfer and give it its buffer; None when it is not admitted.

        Raises:
            ProtocolError: beyond the window, without credit, or one unfinished transfer too many.
        """
        self._check_room(transfer, body_bytes, now)
        if len(self._incoming) >= MAX_PARTIALS_COUNT and not self.evict_slow(1, now):
            raise ProtocolError("partials_full", f"transfer {transfer}")
        if body_bytes - self._overhead_bytes > self._max_body_bytes:
            self._refuse(transfer, body_bytes, Reason.PAYLOAD_TOO_LARGE)
            return None
        if not self._is_room_for_all(body_bytes, now):
            self._refuse(transfer, body_bytes, Reason.STORE_FULL)
            return None
        if not self._flows.admits(flow, body_bytes, self._free_bytes):
            self._refuse(transfer, body_bytes, wire.NOT_NOW)
            return None
        keys = self._ring.receive_keys(second >> 4) if self._ring is not None else None
        if keys is not None and keys.epoch:
            self._note_epoch(keys, transfer)
        self._hold(body_bytes, flow)
        self.partial_bytes += body_bytes
        spare = self._spare
        if spare is not None and spare.fits(segments):
            store, self._spare = spare, None
        else:
            store = self._pool.take_store(segments, self.stride)
        incoming = _Incoming(second, flow, body_bytes, segments, store, keys, now)
        self._incoming[transfer] = incoming
        return incoming

    def _check_room(self, transfer: int, body_bytes: int, now: float) -> None:
        """Raises: ProtocolError, beyond the window or without credit."""
        if transfer - self._done_below >= wire.TRANSFER_WINDOW_COUNT:
            raise ProtocolError("beyond_window", f"transfer {transfer}")
        lacking = self._used_bytes + body_bytes - self._released_bytes - self._credit_bytes
        if (
            lacking > 0
            and body_bytes - self._overhead_bytes <= self._max_body_bytes
            and self.evict_slow(lacking, now) < lacking
        ):
            self.is_starved = True
            self.ack_now = True
            raise ProtocolError("over_credit", f"{body_bytes} bytes")

    def _is_room_for_all(self, body_bytes: int, now: float) -> bool:
        """Tell whether all neighbours together may hold one more body, after making room for it."""
        if not self._pool.has_room(body_bytes):
            self._make_room(body_bytes, now)
        return self._pool.has_room(body_bytes)

    def evict_slow(self, wanted_bytes: int, now: float, *, slow_only: bool = True) -> int:
        """Refuse unfinished transfers, the slowest first, until their bodies are `wanted_bytes`.

        The sender is told, as if the store were full: whoever has the chunk sends it again later.

        Args:
            slow_only: spare those that are young or come in at a fair rate.

        Returns:
            Bytes of what was refused; perhaps fewer than wanted.
        """
        if slow_only and now < self._look_for_slow_at:
            return 0
        share = self._share
        rates = sorted(
            (incoming.count * share / max(now - incoming.begun_at, 1e-3), transfer)
            for transfer, incoming in self._incoming.items()
            if not slow_only or now - incoming.begun_at >= SLOW_AFTER_S
        )
        freed = 0
        for rate, transfer in rates:
            if freed >= wanted_bytes or (slow_only and rate >= SLOW_BYTES_PER_S):
                break
            incoming = self._drop_partial(transfer)
            self._release(incoming.body_bytes, incoming.flow)
            self._refused[transfer] = Reason.STORE_FULL
            self.evicted_transfers += 1
            self.ack_now = True
            freed += incoming.body_bytes
        if slow_only and not freed:
            self._look_for_slow_at = now + EVICTION_PAUSE_S
        return freed

    def _drop_partial(self, transfer: int) -> _Incoming:
        """Forget what came of an unfinished transfer; the caller releases its credit."""
        incoming = self._incoming.pop(transfer)
        opening = self._take_opening(incoming)
        if opening is not None:
            opening.give_up()
        self.partial_bytes -= incoming.body_bytes
        self._pool.give_store(incoming.store)
        if self._current is incoming:
            self._current = None
        return incoming

    def _mark(self, incoming: _Incoming, index: int, end: int) -> bool:
        """Note segments [index, end) as here; tell whether the transfer is whole."""
        got = incoming.got
        if got is None:
            if index == incoming.high:
                incoming.high = incoming.count = end
                self.fresh_segments += end - index
                return end == incoming.segments
            got = incoming.got = np.zeros(incoming.segments, np.bool_)
            got[: incoming.high] = True
        if index != incoming.high:
            self.ack_now = True
        part = got[index:end]
        known = int(np.count_nonzero(part))
        if known == end - index:
            # Nothing of it is new: a whole transfer waits for its repair.
            self.duplicate_segments += known
            return False
        part[:] = True
        self.duplicate_segments += known
        self.fresh_segments += end - index - known
        incoming.count += end - index - known
        incoming.high = max(incoming.high, end)
        return incoming.count == incoming.segments

    def _open_more(
        self, transfer: int, incoming: _Incoming, keys: DirectionKeys, index: int
    ) -> None:
        """Open what came of a transfer from its beginning on, while it is in the cache.

        Args:
            index: the first segment of what came now.
        """
        opening = self._take_opening(incoming)
        if opening is None:
            is_beginning = index * self._share < OPEN_BYTES <= incoming.high * self._share
            if not is_beginning or keys.body_streams is None:
                return
            if self._opening is not None:
                self._opening[1].give_up()
            opening = BodyOpening(
                keys, transfer, incoming.kind, incoming.flow, incoming.body_bytes, self._pool
            )
        self._opening = incoming, opening
        if (incoming.high - opening.rows) * self._share >= OPEN_BYTES:
            end_bytes = min(incoming.high * self._share, incoming.body_bytes)
            opening.take(incoming.store, incoming.high, end_bytes)

    def _take_opening(self, incoming: _Incoming) -> BodyOpening | None:
        """Return what a transfer is opened with as it comes, if it is; nobody else has it then."""
        if self._opening is None or self._opening[0] is not incoming:
            return None
        opening, self._opening = self._opening[1], None
        return opening

    def _complete(self, transfer: int, incoming: _Incoming) -> None:
        body = self._whole_body(transfer, incoming)
        if body is None:
            self._begin_repair(transfer, incoming)
            return
        if self._repairs:
            self._repairs.pop(transfer, None)
        del self._incoming[transfer]
        self.partial_bytes -= incoming.body_bytes
        if self._current is incoming or self._current is None:
            self._current = next(iter(self._incoming.values()), None)
        if self._spare is None and not self._incoming:
            self._spare = self._pool.take_store(incoming.segments, self.stride)
        self._settle(transfer, _BODY_KINDS[incoming.kind], body)

    def _whole_body(self, transfer: int, incoming: _Incoming) -> StoredBody | None:
        """Return the body of a transfer that is whole; None when something of it was altered."""
        pool, size, keys = self._pool, incoming.body_bytes, incoming.keys
        if keys is None:
            return StoredBody(incoming.store, size, pool, self._release, size, incoming.flow)
        kind, flow, store = incoming.kind, incoming.flow, incoming.store
        opening = self._take_opening(incoming)
        if opening is not None:
            plain = opening.finish(store, incoming.segments)
        else:
            plain = open_body(keys, transfer, kind, flow, size, store, pool)
        if plain is None:
            self._dropped["bad_body"] += 1
            return None
        pool.give_store(store)
        return StoredBody(plain, size - wire.TAG_BYTES, pool, self._release, size, flow)

    # --- damage ---------------------------------------------------------------------------------

    def _begin_repair(self, transfer: int, incoming: _Incoming) -> None:
        """Find out which segments of a transfer were altered; until then it stays as it is."""
        assert incoming.keys is not None
        if self._current is incoming:
            self._current = None
        repair = self._repairs.get(transfer)
        if repair is None:
            key = incoming.keys.digest_key
            repair = Repair(key, transfer, incoming.body_bytes, incoming.store)
            self._repairs[transfer] = repair
        repair.restart()

    def receive_digests(self, frame: wire.DigestsFrame) -> None:
        """Compare the sender's digests with what is here; what differs is missing again."""
        transfer = wire.expand(frame.transfer, self._done_below)
        repair, incoming = self._repairs.get(transfer), self._incoming.get(transfer)
        if repair is None or incoming is None:
            return
        altered = repair.take_digests(frame)
        if altered is None:
            return
        if not altered:
            self._judge_again(transfer, incoming)
            return
        if incoming.got is None:
            incoming.got = np.ones(incoming.segments, np.bool_)
        incoming.got[altered] = False
        incoming.count -= len(altered)
        self.damaged_segments += len(altered)

    def _judge_again(self, transfer: int, incoming: _Incoming) -> None:
        """Every segment is as the sender says; repeats may have mended it meanwhile.

        If not, what it sealed is not what it says, and asking on would lead nowhere.
        """
        self._complete(transfer, incoming)
        if transfer in self._incoming:
            del self._repairs[transfer]
            self._drop_partial(transfer)
            self._release(incoming.body_bytes, incoming.flow)
            self._refused[transfer] = Reason.DIGEST_MISMATCH
            self.ack_now = True

    @property
    def has_repairs(self) -> bool:
        """Whether a transfer is damaged: `repair_at` and `repair_frames` are about these."""
        return bool(self._repairs)

    def repair_at(self, patience_s: float) -> float:
        """Return when `repair_frames` has something to say."""
        return min(repair.due_at(patience_s) for repair in self._repairs.values())

    def repair_frames(self, patience_s: float, now: float) -> Iterator[bytes]:
        """Yield what is to be asked about damaged transfers, again after `patience_s`."""
        for transfer, repair in list(self._repairs.items()):
            incoming = self._incoming.get(transfer)
            if incoming is None:
                del self._repairs[transfer]  # given up meanwhile
            elif repair.due_at(patience_s) <= now:
                yield from repair.questions(incoming.got, self._largest_burst, now)

    # --- size of datagrams ----------------------------------------------------------------------

    def change_stride(self, frame: wire.StrideFrame) -> None:
        """Full datagrams of the neighbour have another size from the next burst on.

        What it wants back and is not whole is forgotten, and said to be.

        Raises:
            ProtocolError: larger than agreed, or of an earlier change.
        """
        burst = wire.expand(frame.burst, self._largest_burst)
        if frame.stride_bytes > self._largest_stride or burst < self._stride_burst:
            raise ProtocolError("bad_stride", f"{frame.stride_bytes} bytes")
        if frame.stride_bytes != self.stride:
            self.stride = frame.stride_bytes
            self._share = self.stride - wire.DATA_HEADER_BYTES
            self._current = None
            if self._spare is not None:
                self._pool.give_store(self._spare)
                self._spare = None
        self._stride_burst = burst
        for low, body_bytes in frame.entries:
            transfer = wire.expand(low, self._done_below)
            beyond = transfer - self._done_below >= wire.TRANSFER_WINDOW_COUNT
            if beyond or self._is_settled(transfer):
                continue
            self._drop(transfer, body_bytes)
            self._refused[transfer] = wire.GIVEN_BACK
        self.ack_now = True

    # --- bundles --------------------------------------------------------------------------------

    def receive_bundle(
        self, burst_low: int, count: int, data: memoryview, datagram_bytes: int, now: float
    ) -> None:
        """Take in the records of one BUNDLE datagram: whole small bodies.

        Raises:
            ProtocolError: a record breaks the format; records before it were taken.
        """
        self._count(datagram_bytes)
        self._note_burst(wire.expand(burst_low, self._largest_burst), now)
        offset, size = 0, len(data)
        unpack = wire.RECORD.unpack_from
        for _ in range(count):
            if size - offset < wire.RECORD_BYTES:
                raise ProtocolError("bad_bundle", "record cut off")
            low, body_bytes, kind, reserved, flow = unpack(data, offset)
            offset += wire.RECORD_BYTES
            end = offset + body_bytes
            if end > size or kind not in _BODY_KINDS or reserved or not body_bytes:
                raise ProtocolError("bad_bundle", "record length, kind or reserved bits")
            transfer = wire.expand(low, self._done_below)
            if self._is_settled(transfer) or transfer in self._incoming:
                self.duplicate_segments += 1
                self.ack_now = True
            else:
                self._take_small(transfer, kind, flow, data[offset:end], body_bytes, now)
            offset = end

    def _take_sealed(
        self,
        transfer: int,
        keys: DirectionKeys,
        kind: int,
        flow: int,
        sealed: memoryview,
        now: float,
    ) -> None:
        """Take in a body that came sealed by itself in one datagram; as if lost when altered.

        Raises:
            ProtocolError: not admitted.
        """
        plain = open_small_body(keys, transfer, kind, flow, sealed)
        if plain is None:
            self._dropped["bad_body"] += 1
            return
        if keys.epoch:
            self._note_epoch(keys, transfer)
        self.fresh_segments += 1
        self._take_small(transfer, kind, flow, memoryview(plain), len(sealed), now)

    def _take_small(
        self, transfer: int, kind: int, flow: int, data: memoryview, size: int, now: float
    ) -> None:
        """Take in a body that came whole in one datagram, in `size` bytes.

        Raises:
            ProtocolError: not admitted.
        """
        self._check_room(transfer, size, now)
        if not self._is_room_for_all(size, now):
            self._refuse(transfer, size, Reason.STORE_FULL)
            return
        if not self._flows.admits(flow, size, self._free_bytes):
            self._refuse(transfer, size, wire.NOT_NOW)
            return
        self._hold(size, flow)
        body = SmallBody(bytearray(data), self._release, size, flow)
        self._settle(transfer, _BODY_KINDS[kind], body)

    # --- settling -------------------------------------------------------------------------------

    def _settle(self, transfer: int, kind: BodyKind, body: Body) -> None:
        """Hand a whole body up, and note what the layer above said."""
        size = len(body)
        self.received_bodies += 1
        self.received_body_bytes += size
        self.ack_now = True
        answer = self._deliver(kind, body)
        if answer is None:
            self._note_done(transfer)
        elif answer is Deferral.PENDING:
            self._undecided[transfer] = body
            self._transfer_of[id(body)] = transfer
        else:
            body.release()
            self._refused[transfer] = answer.reason

    def decide(self, body: Body, refusal: Refusal | None) -> None:
        """Settle a body about which the layer above had not decided; nothing if it is too late."""
        transfer = self._transfer_of.pop(id(body), None)
        if refusal is not None:
            body.release()
        if transfer is None:
            return
        del self._undecided[transfer]
        if refusal is None:
            self._note_done(transfer)
        else:
            self._refused[transfer] = refusal.reason
        self.ack_now = True
        self._on_room()

    def _refuse(self, transfer: int, body_bytes: int, reason: int) -> None:
        """Refuse a transfer whose bytes were never stored."""
        self.refused_unread[reason] += 1
        self._hold(body_bytes)
        self._release(body_bytes)
        self._refused[transfer] = reason
        self.ack_now = True

    def forget(self, low: int, body_bytes: int) -> None:
        """The sender has settled this transfer for itself, or gave it up."""
        transfer = wire.expand(low, self._done_below)
        if transfer - self._done_below >= wire.TRANSFER_WINDOW_COUNT:
            raise ProtocolError("beyond_window", f"transfer {transfer}")
        self.ack_now = True
        if self._refused.pop(transfer, None) is not None:
            self._note_done(transfer)
            return
        if (undecided := self._undecided.pop(transfer, None)) is not None:
            # The layer above still has it, and its memory comes free when that releases it.
            del self._transfer_of[id(undecided)]
            self._note_done(transfer)
            return
        if self._is_settled(transfer):
            return
        self._drop(transfer, body_bytes)
        self._note_done(transfer)

    def _drop(self, transfer: int, body_bytes: int) -> None:
        """Give up a transfer, begun here or not; the books are as if it had come and gone."""
        flow = 0
        if transfer in self._incoming:
            incoming = self._drop_partial(transfer)
            body_bytes, flow = incoming.body_bytes, incoming.flow
        else:
            body_bytes = min(body_bytes, self._max_body_bytes + self._overhead_bytes)
            self._hold(body_bytes)
        self._release(body_bytes, flow)

    def _is_settled(self, transfer: int) -> bool:
        return (
            transfer < self._done_below
            or transfer in self._done
            or transfer in self._refused
            or transfer in self._undecided
        )

    def _note_done(self, transfer: int) -> None:
        if transfer != self._done_below:
            self._done.add(transfer)
            return
        below = transfer + 1
        if self._done:
            while below in self._done:
                self._done.discard(below)
                below += 1
        self._done_below = below
        if self._epoch_keys is not None:
            self._retire_keys()

    @property
    def _free_bytes(self) -> int:
        """What this neighbour may still begin."""
        return self._credit_bytes - (self._used_bytes - self._released_bytes)

    def _hold(self, size: int, flow: int = 0) -> None:
        self._used_bytes += size
        self._pool.held_bytes += size
        if self._flows.hold(flow, size, self._free_bytes):
            self.ack_now = True

    def _release(self, size: int, flow: int = 0) -> None:
        self._released_bytes += size
        self._pool.held_bytes -= size
        has_room = self._flows.release(flow, size, self._free_bytes)
        limit = self._released_bytes + self._credit_bytes
        if has_room or self.is_starved or limit - self._advertised_limit > self._credit_bytes // 4:
            self.ack_now = True
            self._on_room()

    def _note_burst(self, burst: int, now: float) -> None:
        if burst > self._largest_burst:
            self._largest_burst = burst
            self._largest_at = now

    def note_blocked(self, wanted_bytes: int, now: float) -> None:
        """The sender has a body of `wanted_bytes` to start and no credit."""
        lacking = self._used_bytes + wanted_bytes - self._released_bytes - self._credit_bytes
        if lacking > 0 and wanted_bytes <= self._max_body_bytes:
            self.evict_slow(lacking, now)
        self.is_starved = True
        self.ack_now = True

    def note_probe(self, burst_low: int, now: float) -> None:
        """The sender asks for an ACK at once."""
        self._note_burst(wire.expand(burst_low, self._largest_burst), now)
        self.ack_now = True

    def close(self) -> None:
        """Give the buffers of everything unfinished back."""
        for incoming in self._incoming.values():
            self._pool.give_store(incoming.store)
            self._pool.held_bytes -= incoming.body_bytes
        self._incoming.clear()
        self._repairs.clear()
        self._undecided.clear()
        self._transfer_of.clear()
        self.partial_bytes = 0
        self._current = None
        if self._opening is not None:
            self._opening[1].give_up()
            self._opening = None
        if self._spare is not None:
            self._pool.give_store(self._spare)
            self._spare = None

    # --- acknowledging --------------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that began here and are not released."""
        return self._used_bytes - self._released_bytes

    def wants_ack(self) -> bool:
        return self.ack_now or self._unacked_bytes >= ACK_BYTES

    @property
    def has_unacked(self) -> bool:
        return self._unacked_bytes > 0

    def take_ack(self, now: float) -> list[bytes]:
        """Return the frames that acknowledge everything so far, and start counting anew."""
        limit = self._released_bytes + self._credit_bytes
        delay_us = int((now - self._largest_at) * 1e6) if self._largest_burst else 0
        done = b""
        if self._done:
            bits = 0
            for transfer in self._done:
                bits |= 1 << (transfer - self._done_below)
            done = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
        least = _LEAST_PARTIALS_BYTES if self._incoming else 0
        room = wire.MAX_FRAMES_BYTES - wire.FRAME_HEAD_BYTES - wire.ACK_FIXED_BYTES
        room -= len(done) + least
        others = self._other_frames(room)
        partials: tuple[wire.Partial, ...] = ()
        more = False
        if self._incoming:
            partials, more = self._partials(room + least - sum(map(len, others)))
        # What it says of whole transfers must be known when the ACK is looked through for losses.
        frames = [
            *others,
            wire.AckFrame(
                self._largest_burst & 0xFFFF_FFFF,
                max(0, min(delay_us, 0xFFFF_FFFF)),
                self.received_bytes,
                limit,
                self.window_bytes,
                self._done_below & 0xFFFF_FFFF,
                done,
                partials,
                busy=self.is_starved and self._used_bytes >= limit,
                more=more,
            ).to_bytes(),
        ]
        self._advertised_limit = limit
        self._unacked_bytes = 0
        self.ack_now = False
        self.ack_due_at = None
        self.is_starved = False
        return frames

    def _other_frames(self, room: int) -> list[bytes]:
        """Return what is said beside the ACK itself in at most `room` bytes."""
        frames: list[bytes] = []
        if self._flows.busy:
            flows = list(self._flows.busy)
            if len(flows) > wire.MAX_BUSY_COUNT:
                self.busy_unlisted_count += 1
                flows = [0, *flows[: wire.MAX_BUSY_COUNT - 1]]
            frames.append(wire.BusyFrame(tuple(flows)).to_bytes())
            room -= len(frames[-1])
        if self._refused:
            count = min(_ACK_REFUSED_COUNT, (room - wire.FRAME_HEAD_BYTES) // 8)
            entries = tuple(
                (transfer & 0xFFFF_FFFF, reason)
                for transfer, reason in islice(self._refused.items(), count)
            )
            frames.append(wire.RefusedFrame(entries).to_bytes())
            room -= len(frames[-1])
        if self._undecided:
            count = min(wire.MAX_WHOLE_COUNT, (room - wire.FRAME_HEAD_BYTES) // 8)
            if count > 0:
                frames.append(wire.WholeFrame(_ranges(self._undecided, count)).to_bytes())
        return frames

    @property
    def busy_flows_count(self) -> int:
        """Flows that may not start a body now."""
        return len(self._flows.busy)

    @property
    def has_refused(self) -> bool:
        """Refusals that the sender has not confirmed; they are repeated until it does."""
        return bool(self._refused)

    def _partials(self, room: int) -> tuple[tuple[wire.Partial, ...], bool]:
        found: list[wire.Partial] = []
        for transfer in sorted(self._incoming):
            incoming = self._incoming[transfer]
            got, base, bitmap = incoming.got, incoming.high, b""
            if got is not None:
                base = int(np.argmin(got[: incoming.high])) if not got[:base].all() else base
                stop = min(incoming.high, base + wire.MAX_BITMAP_BYTES * 8)
                bitmap = np.packbits(got[base:stop], bitorder="little").tobytes()
            room -= wire.PARTIAL_FIXED_BYTES + len(bitmap)
            if room < 0 or len(found) == wire.MAX_PARTIALS_COUNT:
                return tuple(found), True
            found.append(wire.Partial(transfer & 0xFFFF_FFFF, base, bitmap))
        return tuple(found), False


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


def _is_one_run(words: Words, unsure: slice) -> bool:
    """Tell whether the headers are of consecutive segments of one transfer.

    Args:
        unsure: words that may differ from one header to the next.
    """
    if len(words) == 1:
        return True
    steps = words - words[0]
    steps[:, unsure] = 0
    return bool(steps.tobytes() == _STEPS[: len(words) * wire.DATA_HEADER_BYTES])


def _runs(words: Words, is_right: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Split the rows of a train where transfer, type or size change, the index does not go on, or
    a right header follows a wrong one.

    The burst number may change inside a run: the kernel joins bursts of a sender.
    """
    step = words[1:, :_BURST_WORD] - words[:-1, :_BURST_WORD]
    step[:, _INDEX_WORD] -= 1
    cut = step.any(axis=1) | (is_right[1:] != is_right[:-1])
    cuts = (np.flatnonzero(cut) + 1).tolist()
    return list(zip([0, *cuts], [*cuts, len(words)], strict=True))
