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
from packetcloud.chunk.hop.acks import ACK_BYTES, Acks
from packetcloud.chunk.hop.api import Body, Deferral, Refusal
from packetcloud.chunk.hop.body_seal import open_small_body
from packetcloud.chunk.hop.buffers import BufferPool, ByteArray, FlatBuffer, SmallBody, Store
from packetcloud.chunk.hop.incoming import Incoming
from packetcloud.chunk.hop.incoming_transfers import MAX_PARTIALS_COUNT, IncomingTransfers
from packetcloud.chunk.hop.keys import DirectionKeys, KeyRing
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

DeliverBody = Callable[[BodyKind, Body], Refusal | Deferral | None]


class Receiver:
    """Receives the transfers of one neighbour.

    Args:
        stride: bytes of a full datagram in this session, segment header included.
        flow_credit_bytes: what one flow of this neighbour may hold here.
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
        self._max_body_bytes = max_body_bytes
        self._ring = ring
        self._overhead_bytes = wire.TAG_BYTES if ring is not None else 0
        self._dropped = dropped
        self._deliver = deliver
        self._on_room = on_room
        self._headers = TrainHeaders(ring)
        self.credit = credit = NeighbourCredit(
            pool, credit_bytes, flow_credit_bytes, self._announce_room, make_room
        )
        self.incoming = IncomingTransfers(pool, stride, credit.release)
        self.outcomes = Outcomes(ring)
        self._acks = Acks(window_bytes, credit, self.outcomes, self.incoming)
        self._repairs = Repairs()
        self._largest_stride = stride
        self._stride_burst = 0
        """Up to this burst datagrams have a size that is not used any more."""
        self.ack_now = False
        self.ack_due_at: float | None = None
        self.fresh_segments = 0
        """Segments that were not here before: what only a living neighbour can send."""
        self.duplicate_segments = 0
        self.damaged_segments = 0
        self.received_bodies = 0
        self.received_body_bytes = 0
        self.refused_unread: Counter[int] = Counter()
        """Transfers that were refused before their bytes were stored."""
        self.evicted_transfers = 0
        """Unfinished transfers that gave way."""

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
        words = train_words(array, count, row_bytes)
        if self._headers.is_right_run(words):
            self._acks.count(length, int(words[-1, BURST_WORD]), now)
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
                self._acks.count(size, int(words[end - 1, BURST_WORD]), now)
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
        self._acks.count(size, int(words[-1, BURST_WORD]), now)
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
        transfers, acks = self.incoming, self._acks
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
            self.ack_now = True
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
            store.put(index, array.data[start : start + (count - 1) * stride + last_bytes])
        if index != incoming.high:
            self.ack_now = True
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

    def _begin(
        self,
        transfer: int,
        second: int,
        flow: int,
        body_bytes: int,
        segments: int,
        now: float,
    ) -> Incoming | None:
        """Admit a new transfer and give it its buffer; None when it is not admitted.

        Raises:
            ProtocolError: beyond the window, without credit, or one unfinished transfer too many.
        """
        self._check_credit(transfer, body_bytes, now)
        if len(self.incoming.transfers) >= MAX_PARTIALS_COUNT and not self.evict_slow(1, now):
            raise ProtocolError("partials_full", f"transfer {transfer}")
        if body_bytes - self._overhead_bytes > self._max_body_bytes:
            self._refuse_unread(transfer, body_bytes, Reason.PAYLOAD_TOO_LARGE)
            return None
        reason = self.credit.refusal(body_bytes, flow, now)
        if reason is not None:
            self._refuse_unread(transfer, body_bytes, reason)
            return None
        keys = self._ring.receive_keys(second >> 4) if self._ring is not None else None
        if keys is not None:
            self.outcomes.note_sealed(transfer, keys)
        if self.credit.hold(body_bytes, flow):
            self.ack_now = True
        return self.incoming.begin(transfer, second, flow, body_bytes, segments, keys, now)

    def _check_credit(self, transfer: int, body_bytes: int, now: float) -> None:
        """Raises: ProtocolError, beyond the window or without credit."""
        if self.outcomes.is_beyond_window(transfer):
            raise ProtocolError("beyond_window", f"transfer {transfer}")
        lacking = self.credit.lacking_bytes(body_bytes)
        if (
            lacking > 0
            and body_bytes - self._overhead_bytes <= self._max_body_bytes
            and self.evict_slow(lacking, now) < lacking
        ):
            self.credit.is_starved = True
            self.ack_now = True
            raise ProtocolError("over_credit", f"{body_bytes} bytes")

    def evict_slow(self, wanted_bytes: int, now: float, *, slow_only: bool = True) -> int:
        """Refuse unfinished transfers, the slowest first, until their bodies are `wanted_bytes`.

        The sender is told, as if the store were full: whoever has the chunk sends it again later.

        Args:
            slow_only: spare those that are young or come in at a fair rate.

        Returns:
            Bytes of what was refused; perhaps fewer than wanted.
        """
        freed = 0
        for transfer in self.incoming.slowest_first(now, slow_only=slow_only):
            if freed >= wanted_bytes:
                break
            freed += self._drop(transfer)
            self.outcomes.refuse(transfer, Reason.STORE_FULL)
            self.evicted_transfers += 1
            self.ack_now = True
        return freed

    def _complete(self, incoming: Incoming) -> None:
        """All of a transfer is here: hand its body up, or find out what of it was altered."""
        body = self.incoming.whole_body(incoming)
        if body is None:
            self._dropped["bad_body"] += 1
            self.incoming.set_aside(incoming)
            self._repairs.begin(incoming)
            return
        if self._repairs.transfers:
            self._repairs.transfers.pop(incoming.transfer, None)
        self.incoming.end(incoming)
        self._settle(incoming.transfer, _BODY_KINDS[incoming.kind], body)

    # --- damage ---------------------------------------------------------------------------------

    def receive_digests(self, frame: wire.DigestsFrame) -> None:
        """Compare the sender's digests with what is here; what differs is missing again."""
        transfer = wire.expand(frame.transfer, self.outcomes.settled_below)
        repair = self._repairs.transfers.get(transfer)
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
            del self._repairs.transfers[transfer]
            self._drop(transfer)
            self.outcomes.refuse(transfer, Reason.DIGEST_MISMATCH)
            self.ack_now = True

    @property
    def has_repairs(self) -> bool:
        """Whether a transfer is damaged: `repair_at` and `repair_frames` are about these."""
        return bool(self._repairs.transfers)

    def repair_at(self, patience_s: float) -> float:
        """Return when `repair_frames` has something to say."""
        return self._repairs.due_at(patience_s)

    def repair_frames(self, patience_s: float, now: float) -> Iterator[bytes]:
        """Yield what is to be asked about damaged transfers, again after `patience_s`."""
        return self._repairs.questions(
            self.incoming.transfers, self._acks.largest_burst, patience_s, now
        )

    # --- size of datagrams ----------------------------------------------------------------------

    def change_stride(self, frame: wire.StrideFrame) -> None:
        """Full datagrams of the neighbour have another size from the next burst on.

        What it wants back and is not whole is forgotten, and said to be.

        Raises:
            ProtocolError: larger than agreed, or of an earlier change.
        """
        burst = wire.expand(frame.burst, self._acks.largest_burst)
        if frame.stride_bytes > self._largest_stride or burst < self._stride_burst:
            raise ProtocolError("bad_stride", f"{frame.stride_bytes} bytes")
        self.incoming.change_stride(frame.stride_bytes)
        self._stride_burst = burst
        outcomes = self.outcomes
        for low, body_bytes in frame.entries:
            transfer = wire.expand(low, outcomes.settled_below)
            if outcomes.is_beyond_window(transfer) or transfer in outcomes:
                continue
            self._drop(transfer, body_bytes)
            outcomes.refuse(transfer, wire.GIVEN_BACK)
        self.ack_now = True

    # --- bundles --------------------------------------------------------------------------------

    def receive_bundle(
        self, burst_low: int, count: int, data: memoryview, datagram_bytes: int, now: float
    ) -> None:
        """Take in the records of one BUNDLE datagram: whole small bodies.

        Raises:
            ProtocolError: a record breaks the format; records before it were taken.
        """
        self._acks.count(datagram_bytes, burst_low, now)
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
            transfer = wire.expand(low, self.outcomes.settled_below)
            if transfer in self.outcomes or transfer in self.incoming.transfers:
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
        self.outcomes.note_sealed(transfer, keys)
        self.fresh_segments += 1
        self._take_small(transfer, kind, flow, memoryview(plain), len(sealed), now)

    def _take_small(
        self, transfer: int, kind: int, flow: int, data: memoryview, size: int, now: float
    ) -> None:
        """Take in a body that came whole in one datagram, in `size` bytes.

        Raises:
            ProtocolError: not admitted.
        """
        self._check_credit(transfer, size, now)
        reason = self.credit.refusal(size, flow, now)
        if reason is not None:
            self._refuse_unread(transfer, size, reason)
            return
        if self.credit.hold(size, flow):
            self.ack_now = True
        body = SmallBody(bytearray(data), self.credit.release, size, flow)
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
            self.outcomes.settle(transfer)
        elif answer is Deferral.PENDING:
            self.outcomes.defer(transfer, body)
        else:
            body.release()
            self.outcomes.refuse(transfer, answer.reason)

    def decide(self, body: Body, refusal: Refusal | None) -> None:
        """Settle a body about which the layer above had not decided; nothing if it is too late."""
        if refusal is not None:
            body.release()
        if self.outcomes.decide(body, refusal.reason if refusal is not None else None):
            self._announce_room()

    def _refuse_unread(self, transfer: int, body_bytes: int, reason: int) -> None:
        """Refuse a transfer whose bytes were never stored."""
        self.refused_unread[reason] += 1
        self._pass_by(body_bytes)
        self.outcomes.refuse(transfer, reason)
        self.ack_now = True

    def forget(self, low: int, body_bytes: int) -> None:
        """The sender has settled this transfer for itself, or gave it up."""
        transfer = wire.expand(low, self.outcomes.settled_below)
        if self.outcomes.is_beyond_window(transfer):
            raise ProtocolError("beyond_window", f"transfer {transfer}")
        self.ack_now = True
        if not self.outcomes.forget(transfer):
            self._drop(transfer, body_bytes)
            self.outcomes.settle(transfer)

    def _drop(self, transfer: int, body_bytes: int = 0) -> int:
        """Give up a transfer, begun here or not; the books are as if it had come and gone.

        Args:
            body_bytes: what its sender says of it; it matters if it did not begin.

        Returns:
            Bytes of credit that came free.
        """
        incoming = self.incoming.drop(transfer)
        if incoming is None:
            self._pass_by(min(body_bytes, self._max_body_bytes + self._overhead_bytes))
            return 0
        self.credit.release(incoming.body_bytes, incoming.flow)
        return incoming.body_bytes

    def _pass_by(self, size: int) -> None:
        """Count a body that was never stored as held and released: so its sender counts too."""
        if self.credit.hold(size):
            self.ack_now = True
        self.credit.release(size)

    def _announce_room(self) -> None:
        """The sender must learn at once what came free."""
        self.ack_now = True
        self._on_room()

    def note_blocked(self, wanted_bytes: int, now: float) -> None:
        """The sender has a body of `wanted_bytes` to start and no credit."""
        lacking = self.credit.lacking_bytes(wanted_bytes)
        if lacking > 0 and wanted_bytes <= self._max_body_bytes:
            self.evict_slow(lacking, now)
        self.credit.is_starved = True
        self.ack_now = True

    def note_probe(self, burst_low: int, now: float) -> None:
        """The sender asks for an ACK at once."""
        self._acks.note_burst(wire.expand(burst_low, self._acks.largest_burst), now)
        self.ack_now = True

    def close(self) -> None:
        """Give the buffers of everything unfinished back."""
        self.credit.drop_unfinished(self.incoming.body_bytes)
        self.incoming.close()
        self._repairs.transfers.clear()
        self.outcomes.close()

    # --- acknowledging --------------------------------------------------------------------------

    @property
    def received_bytes(self) -> int:
        return self._acks.received_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that began here and are not released."""
        return self.credit.held_bytes

    @property
    def busy_flows_count(self) -> int:
        """Flows that may not start a body now."""
        return len(self.credit.flows.busy)

    @property
    def busy_unlisted_count(self) -> int:
        """BUSY lists that had no room for all labels."""
        return self._acks.busy_unlisted_count

    @property
    def has_refused(self) -> bool:
        """Refusals that the sender has not confirmed; they are repeated until it does."""
        return bool(self.outcomes.refused)

    @property
    def has_unacked(self) -> bool:
        return self._acks.unacked_bytes > 0

    def wants_ack(self) -> bool:
        return self.ack_now or self._acks.unacked_bytes >= ACK_BYTES

    def take_ack(self, now: float) -> list[bytes]:
        """Return the frames that acknowledge everything so far, and start counting anew."""
        frames = self._acks.take(now)
        self.ack_now = False
        self.ack_due_at = None
        return frames
