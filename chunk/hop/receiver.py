"""The receiving half of a session: segments in, whole bodies up, ACKs out.

The usual train continues the transfer that the last one belonged to and has landed in its place
already, so it costs a look at all its headers at once and no copy. Everything else (gaps, repeats,
several transfers in one train) goes the slow way, by runs of consecutive segments.

Source: docs/protocol/hop.md, "Receiving".
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.acks import Acks
from packetcloud.chunk.hop.api import HopConfig
from packetcloud.chunk.hop.body_seal import open_small_body, terms_of
from packetcloud.chunk.hop.buffers import BufferPool, ByteArray, FlatBuffer, Store
from packetcloud.chunk.hop.custody import Custody, DeliverBody
from packetcloud.chunk.hop.incoming import Incoming
from packetcloud.chunk.hop.incoming_transfers import IncomingTransfers
from packetcloud.chunk.hop.keys import DirectionKeys, KeyRing
from packetcloud.chunk.hop.lane import Lane
from packetcloud.chunk.hop.neighbour_credit import NeighbourCredit
from packetcloud.chunk.hop.outcomes import Outcomes
from packetcloud.chunk.hop.repair import Repairs
from packetcloud.chunk.hop.train_headers import (
    BURST_WORD,
    MAX_TRAIN_ROWS,
    Origin,
    TrainHeaders,
    train_words,
)
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason

_TRANSFER = struct.Struct(">III")
"""transfer, body bytes and segment index of a segment header, from its byte 12 on."""
_BODY_KINDS = {int(kind): kind for kind in BodyKind}


class Receiver:
    """Receives the transfers of one neighbour.

    Args:
        config: how large a body may be, and what the neighbour and a flow of it may hold here.
        stride: bytes of a full datagram in this session, segment header included.
        ring: the keys; None in an open session.
        dropped: counts datagrams that are dropped, by reason.
        deliver: called with each whole body; returns None to take custody, a refusal, or that it
            will `decide` later.
        on_room: called when a release makes an ACK due, so that the sender learns of the room.
        make_room: called with bytes and the time when all neighbours together hold too much for
            them: whoever holds most of unfinished transfers may have to give way.
    """

    def __init__(
        self,
        pool: BufferPool,
        config: HopConfig,
        stride: int,
        window_bytes: int,
        ring: KeyRing | None,
        dropped: Counter[str],
        deliver: DeliverBody,
        on_room: Callable[[], None],
        make_room: Callable[[int, float], None],
    ) -> None:
        self._ring = ring
        self._overhead_bytes = wire.TAG_BYTES if ring is not None else 0
        self._dropped = dropped
        self._on_room = on_room
        self._headers = TrainHeaders(ring)
        self.credit = credit = NeighbourCredit(
            pool, config.credit_bytes, config.flow_credit_bytes, self._announce_room, make_room
        )
        self.incoming = incoming = IncomingTransfers(pool, stride, credit.release)
        self.outcomes = outcomes = Outcomes(ring)
        self.acks = acks = Acks(window_bytes, credit, outcomes, incoming)
        self.custody = Custody(
            credit,
            incoming,
            outcomes,
            acks,
            config.max_body_bytes,
            ring,
            pool,
            deliver,
            self._announce_room,
        )
        self.lane: Lane | None = None
        """Where bodies lie that come as references."""
        self.repairs = Repairs()
        self._largest_stride = stride
        self._stride_burst = 0
        """Up to this burst datagrams have a size that is not used any more."""
        self.fresh_segments = 0
        """Segments that were not here before: what only a living neighbour can send."""
        self.duplicate_segments = 0
        self.damaged_segments = 0

    def _announce_room(self) -> None:
        """The sender must learn at once what came free."""
        self.acks.due_now = True
        self._on_room()

    def close(self) -> None:
        """Give the buffers of everything unfinished back."""
        self.credit.drop_unfinished(self.incoming.body_bytes)
        self.incoming.close()
        self.lane = None
        self.repairs.transfers.clear()
        self.outcomes.close()

    # --- segments -------------------------------------------------------------------------------

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
        words = train_words(array, count, row_bytes)
        if self._headers.is_right_run(words):
            self.acks.count(length, int(words[-1, BURST_WORD]), now)
            self._place(array, 0, count, row_bytes, last_bytes, placed, now)
            return others
        if placed is not None:
            # Moving one run to its place could write over another that still waits its turn.
            array, placed = array[:length].copy(), None
        for first, end, origin in self._headers.runs(words):
            end_bytes = last_bytes if end == count else row_bytes
            if origin is Origin.ELSEWHERE:
                rows = array.data[first * row_bytes : (end - 1) * row_bytes + end_bytes]
                others += [rows[at : at + row_bytes] for at in range(0, len(rows), row_bytes)]
            elif origin is Origin.NOBODY:
                self._dropped["bad_check"] += end - first
            else:
                size = (end - first - 1) * row_bytes + end_bytes
                self.acks.count(size, int(words[end - 1, BURST_WORD]), now)
                self._place(array, first, end - first, row_bytes, end_bytes, placed, now)
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
        headers = store.headers[row : row + count].reshape(-1)
        words = train_words(headers, count, wire.DATA_HEADER_BYTES)
        if not self._headers.is_right_run(words):
            return False
        low, body_bytes, index = _TRANSFER.unpack_from(headers.data, 12)
        transfer = wire.expand(low, self.outcomes.settled_below)
        if index != row or not self.incoming.has_place(store, transfer, body_bytes):
            return False
        stride = self.incoming.stride
        size = (count - 1) * stride + last_bytes
        self.acks.count(size, int(words[-1, BURST_WORD]), now)
        self._place(headers, 0, count, stride, last_bytes, (store, row), now)
        return True

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
        transfers, acks = self.incoming, self.acks
        stride, share = transfers.stride, transfers.share
        segments = (body_bytes + share - 1) // share
        end = index + count
        if end > segments:
            raise ProtocolError("bad_segment", f"segment {end - 1} of {segments}")
        expected = stride
        if end == segments:
            expected = wire.DATA_HEADER_BYTES + body_bytes - (segments - 1) * share
        if last_bytes != expected or (count > 1 and row_bytes != stride):
            raise ProtocolError("bad_segment_length", f"{last_bytes} bytes, not {expected}")
        burst = wire.expand(burst_low, acks.largest_burst)
        if burst > acks.largest_burst:
            acks.note_burst(burst, now)
        if burst <= self._stride_burst:
            raise ProtocolError("old_stride", f"burst {burst}")
        transfer = wire.expand(low, self.outcomes.settled_below)
        if transfer in self.outcomes:
            self.duplicate_segments += count
            acks.due_now = True
            return
        incoming = transfers.transfers.get(transfer)
        if segments == 1 and incoming is None:
            # Its row would take up a datagram's room, or 64 KiB, for perhaps one byte of credit.
            first_byte = start + wire.DATA_HEADER_BYTES
            content = array.data[first_byte : first_byte + body_bytes]
            if ring is not None:
                self._take_sealed(
                    transfer, ring.receive_keys(second >> 4), kind, flow, content, now
                )
            else:
                self.custody.take_small(transfer, _BODY_KINDS[kind], flow, content, body_bytes, now)
            return
        if incoming is None:
            incoming = self.custody.begin(transfer, second, flow, body_bytes, segments, now)
            if incoming is None:
                return
        elif incoming.share != share:
            raise ProtocolError("bad_segment", "a transfer begun before the datagrams changed size")
        elif (incoming.body_bytes, incoming.second, incoming.flow) != (body_bytes, second, flow):
            raise ProtocolError("bad_segment", "a transfer changed its size, kind, epoch or flow")
        store = incoming.store
        if placed is None or placed[0] is not store or placed[1] + first != index:
            length = (count - 1) * stride + last_bytes
            self._put(incoming, index, array.data[start : start + length])
        if index != incoming.high:
            acks.due_now = True
        fresh = incoming.mark(index, end)
        self.fresh_segments += fresh
        self.duplicate_segments += count - fresh
        # With nothing new a whole transfer waits for its repair.
        if fresh and incoming.count == incoming.segments:
            self._complete(incoming)
            return
        transfers.in_hand = incoming
        if incoming.got is None and incoming.keys is not None:
            transfers.unsealer.follow(incoming, incoming.keys, index)

    def _put(self, incoming: Incoming, index: int, segments: memoryview) -> None:
        """Copy consecutive segments from `index` on to their place, those that are not here.

        Never over one that is: only their headers are known to be right, and a repeat that was
        altered on its way would undo what digests have shown to be right.
        """
        store = incoming.store
        stride = store.stride
        end = index + (len(segments) + stride - 1) // stride
        runs = incoming.lacking(index, end)
        if not runs and self.repairs.transfers:
            runs = self.repairs.doubted(incoming.transfer, index, end)
        for first, last in runs:
            store.put(first, segments[(first - index) * stride : (last - index) * stride])

    def _complete(self, incoming: Incoming) -> None:
        """All of a transfer is here: hand its body up, or find out what of it was altered."""
        body = self.incoming.whole_body(incoming)
        if body is None:
            self._dropped["bad_body"] += 1
            self.incoming.set_aside(incoming)
            self.repairs.begin(incoming)
            return
        if self.repairs.transfers:
            self.repairs.transfers.pop(incoming.transfer, None)
        self.incoming.end(incoming)
        self.custody.settle(incoming.transfer, _BODY_KINDS[incoming.kind], body)

    # --- damage ---------------------------------------------------------------------------------

    def receive_digests(self, frame: wire.DigestsFrame) -> None:
        """Compare the sender's digests with what is here; what differs is missing again."""
        transfer = wire.expand(frame.transfer, self.outcomes.settled_below)
        repair = self.repairs.transfers.get(transfer)
        if repair is None or transfer not in self.incoming.transfers:
            return
        altered = repair.take_digests(frame)
        if altered:
            self.damaged_segments += len(altered)
        elif altered is not None:
            self._judge_again(repair.incoming)

    def _judge_again(self, incoming: Incoming) -> None:
        """Every segment is as the sender says; repeats may have mended it meanwhile.

        If not, what it sealed is not what it says, and asking on would lead nowhere.
        """
        transfer = incoming.transfer
        self._complete(incoming)
        if transfer in self.incoming.transfers:
            del self.repairs.transfers[transfer]
            self.custody.give_up(transfer, Reason.DIGEST_MISMATCH)

    def repair_frames(self, patience_s: float, now: float) -> Iterator[bytes]:
        """Yield what is to be asked about damaged transfers, again after `patience_s`."""
        return self.repairs.questions(
            self.incoming.transfers, self.acks.largest_burst, patience_s, now
        )

    # --- size of datagrams ----------------------------------------------------------------------

    def change_stride(self, frame: wire.StrideFrame) -> None:
        """Full datagrams of the neighbour have another size from the next burst on.

        What it wants back and is not whole is forgotten, and said to be.

        Raises:
            ProtocolError: larger than agreed, of an earlier change, or of another by its number.
        """
        burst = wire.expand(frame.burst, self.acks.largest_burst)
        is_another = burst == self._stride_burst and frame.stride_bytes != self.incoming.stride
        if frame.stride_bytes > self._largest_stride or burst < self._stride_burst or is_another:
            raise ProtocolError("bad_stride", f"{frame.stride_bytes} bytes")
        self.incoming.change_stride(frame.stride_bytes)
        self._stride_burst = burst
        outcomes = self.outcomes
        for low, body_bytes in frame.entries:
            transfer = wire.expand(low, outcomes.settled_below)
            if not outcomes.is_beyond_window(transfer) and transfer not in outcomes:
                self.custody.give_up(transfer, wire.GIVEN_BACK, body_bytes)
        self.acks.due_now = True

    # --- bundles --------------------------------------------------------------------------------

    def receive_bundle(
        self, burst_low: int, count: int, data: memoryview, datagram_bytes: int, now: float
    ) -> None:
        """Take in the records of one BUNDLE datagram: whole small bodies.

        Raises:
            ProtocolError: a record breaks the format; records before it were taken.
        """
        self.acks.count(datagram_bytes, burst_low, now)
        offset, size = 0, len(data)
        unpack = wire.RECORD.unpack_from
        lent_bytes = 0
        for _ in range(count):
            if size - offset < wire.RECORD_BYTES:
                raise ProtocolError("bad_bundle", "record cut off")
            low, content_bytes, kind, form, flow = unpack(data, offset)
            offset += wire.RECORD_BYTES
            end = offset + content_bytes
            if end > size or kind not in _BODY_KINDS or form > wire.FORM_LENT or not content_bytes:
                raise ProtocolError("bad_bundle", "record length, kind or form")
            transfer = wire.expand(low, self.outcomes.settled_below)
            if transfer in self.outcomes or transfer in self.incoming.transfers:
                self.duplicate_segments += 1
                self.acks.due_now = True
            elif form == wire.FORM_LENT:
                lent_bytes += self._take_lent(
                    transfer, _BODY_KINDS[kind], flow, data[offset:end], lent_bytes, now
                )
            else:
                self.custody.take_small(
                    transfer, _BODY_KINDS[kind], flow, data[offset:end], content_bytes, now
                )
            offset = end

    def _take_lent(
        self,
        transfer: int,
        kind: BodyKind,
        flow: int,
        reference: memoryview,
        before_bytes: int,
        now: float,
    ) -> int:
        """Take in a body that lies in the lane, and return its bytes.

        Args:
            before_bytes: of those that came in the same datagram.

        Raises:
            ProtocolError: there is no lane, nothing can lie there, or not all of them; or it is not
                admitted.
        """
        if self.lane is None or len(reference) != wire.REFERENCE.size:
            raise ProtocolError("bad_reference", "no lane, or not a reference")
        start, size = map(int, wire.REFERENCE.unpack(reference))
        if not size:
            raise ProtocolError("bad_reference", "to nothing")
        self.lane.check(start, size)
        if before_bytes + size > self.lane.size:
            # A few bytes would have us copy the same body a thousand times.
            raise ProtocolError("bad_reference", "to more than there is")
        self.custody.take_lent(transfer, kind, flow, self.lane, start, size, now)
        return size

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
        plain = open_small_body(keys, terms_of(transfer, kind, flow, len(sealed)), sealed)
        if plain is None:
            self._dropped["bad_body"] += 1
            return
        self.outcomes.note_sealed(transfer, keys)
        self.fresh_segments += 1
        self.custody.take_small(
            transfer, _BODY_KINDS[kind], flow, memoryview(plain), len(sealed), now
        )
