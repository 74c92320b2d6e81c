"""The sending half of a session: bodies in, bursts of datagrams out, settlements up.

What a neighbour says is taken in here and passed to the part that it is about: which bursts arrived
(`flight`), which transfers are settled (`open_transfers`), which flows it has no room for
(`parking`), what is to leave again (`departures`). Loss is looked for only in transfers that an ACK
leaves unfinished, so the clean path does no work per segment.

Source: docs/protocol/hop.md, "Sending".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Buffer, Settlement
from packetcloud.chunk.hop.buffers import BufferPool, StoredBody
from packetcloud.chunk.hop.congestion import Congestion
from packetcloud.chunk.hop.departures import MAX_BURST_BYTES, Departures
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.flight import Flight
from packetcloud.chunk.hop.flow_queues import FlowQueues
from packetcloud.chunk.hop.keys import KeyRing
from packetcloud.chunk.hop.lane import Lane
from packetcloud.chunk.hop.open_transfers import OpenTransfers
from packetcloud.chunk.hop.outgoing import NEVER, Outgoing
from packetcloud.chunk.hop.parking import Parking
from packetcloud.chunk.hop.repair import DigestAnswers, DigestBudget
from packetcloud.chunk.hop.rtt import RttEstimator
from packetcloud.chunk.hop.silence import Silence
from packetcloud.chunk.hop.stride_change import StrideChange
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason

SettleBody = Callable[[object, Settlement, int], None]


class Sender:
    """Sends bodies to one neighbour.

    Args:
        session: the session id that the neighbour chose.
        stride: bytes of a full datagram.
        ring: the keys; None in an open session.
        envelope: what bundles travel in.
        pool: where sealed bodies live until they are settled.
        settle: called once for each body with its token, how it ended and the refusal's reason.
        skip_after: returns after how many bursts one number is left out; None: none ever is.
        digest_budget: of the node; without one this sender has its own.
    """

    def __init__(
        self,
        session: int,
        stride: int,
        peer_max_body_bytes: int,
        peer_credit_bytes: int,
        peer_window_bytes: int,
        ring: KeyRing | None,
        envelope: Envelope,
        pool: BufferPool,
        rtt: RttEstimator,
        settle: SettleBody,
        skip_after: Callable[[], int] | None = None,
        digest_budget: DigestBudget | None = None,
    ) -> None:
        self._pool = pool
        self._peer_max_body_bytes = peer_max_body_bytes
        self._rtt = rtt
        self._settle = settle
        self.congestion = Congestion(stride, rtt, MAX_BURST_BYTES)
        self.flows = FlowQueues()
        """Bodies that no transfer has begun for."""
        self.transfers = OpenTransfers(peer_credit_bytes, ring, pool)
        self.flight = Flight(rtt, self.congestion, skip_after)
        self.departures = Departures(
            session, stride, peer_window_bytes, envelope, self.flows, self.transfers, self.flight,
            self.congestion,
        )  # fmt: skip
        self.silence = Silence(rtt)
        """Of all questions of the session."""
        self.digest_answers = DigestAnswers(digest_budget or DigestBudget())
        self._parking = Parking(self.flows)
        self._change: StrideChange | None = None
        """The change of the size of datagrams that is under way; nothing else is sent meanwhile."""
        self._by_token: dict[int, Outgoing] = {}
        self._looked_to = 0
        """The last transfer in which losses were looked for since an ACK named a new burst."""
        self.queued_bytes = 0
        self.was_lied_to = False

    @property
    def stride(self) -> int:
        """Bytes of a full datagram."""
        return self.departures.stride

    @property
    def retransmitted_segments(self) -> int:
        return self.departures.retransmitted_segments

    @property
    def sent_bytes(self) -> int:
        return self.flight.sent_bytes

    @property
    def in_flight_bytes(self) -> int:
        return self.flight.in_flight_bytes

    @property
    def probes(self) -> int:
        return self.flight.probes

    def use_lane(self, lane: Lane) -> None:
        """Have bodies that begin from now on go through shared memory, where it has room."""
        self.departures.lane = self.transfers.lane = lane

    # --- the layer above ------------------------------------------------------------------------

    def queue(
        self,
        kind: BodyKind,
        prefix: bytes,
        payload: Buffer,
        token: object,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        """Queue prefix ‖ payload; the memory of `payload` is read until it is settled."""
        view = memoryview(payload)
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B")
        cut = self.departures
        self._append(
            Outgoing(
                kind, prefix, view, None, token, cut.share, cut.small_bytes, cut.overhead_bytes,
                flow, background,
            )
        )  # fmt: skip

    def queue_rows(
        self,
        kind: BodyKind,
        body: StoredBody,
        token: object,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        """Queue a received body whose rows have this session's stride, to go out in place.

        Only in an open session: sealing would write over what may have to be sent elsewhere.
        """
        cut = self.departures
        self._append(
            Outgoing(
                kind, b"", memoryview(b""), body, token, cut.share, cut.small_bytes, 0, flow,
                background,
            )
        )  # fmt: skip

    def _append(self, outgoing: Outgoing) -> None:
        self._by_token[id(outgoing.token)] = outgoing
        self.queued_bytes += outgoing.plain_bytes
        if outgoing.plain_bytes > self._peer_max_body_bytes or not outgoing.plain_bytes:
            self._end(outgoing, Settlement.REFUSED, Reason.PAYLOAD_TOO_LARGE)
            return
        self.flows.append(outgoing)

    def cancel(self, token: object) -> None:
        """Give a body up: CANCELLED at once, or LOST when all of it was sent already.

        The neighbour may then have the whole body and take custody of it before it hears of this.
        """
        outgoing = self._by_token.get(id(token))
        if outgoing is None:
            return
        settlement, reason = Settlement.CANCELLED, int(Reason.CANCELLED)
        if outgoing.transfer >= 0:
            if outgoing.is_small or outgoing.next_index >= outgoing.segments:
                settlement, reason = Settlement.LOST, 0
            self.transfers.give_up(outgoing.transfer)
            self.departures.drop(outgoing)
        else:
            self.flows.remove(outgoing)
        self._end(outgoing, settlement, reason)

    def close(self) -> None:
        """Settle everything that is left as LOST."""
        self.digest_answers.close()
        left = [*self.transfers.outstanding.values(), *self.flows]
        # Whoever is told of one may cancel another: each of them is LOST, and only that.
        self._by_token.clear()
        self.transfers.clear()
        self.flows.clear()
        self.departures.clear()
        self.departures.lane = self.transfers.lane = None
        for outgoing in left:
            self._end(outgoing, Settlement.LOST, 0)

    def _end(self, outgoing: Outgoing, settlement: Settlement, reason: int) -> None:
        self._by_token.pop(id(outgoing.token), None)
        self.queued_bytes -= outgoing.plain_bytes
        outgoing.next_index = outgoing.segments
        outgoing.give_back(self._pool)
        self._settle(outgoing.token, settlement, int(reason))

    # --- acknowledgements -----------------------------------------------------------------------

    def receive_ack(self, ack: wire.AckFrame, busy: tuple[int, ...], now: float) -> None:
        """Take in what the neighbour says it has.

        Args:
            busy: labels of the BUSY frame beside the ACK.

        Raises:
            ProtocolError: it acknowledges what was never sent.
        """
        flight, transfers, departures = self.flight, self.transfers, self.departures
        largest = wire.expand(ack.largest_burst, flight.largest_acked)
        below = wire.expand(ack.done_below, transfers.done_below)
        if largest >= flight.next_burst or below > transfers.next_transfer:
            raise ProtocolError("optimistic_ack", f"burst {largest}, transfer {below}")
        if largest in flight.skipped:
            self.was_lied_to = True
            raise ProtocolError("lying_ack", f"burst {largest} was never sent")
        limit_bytes = ack.credit_limit_bytes
        if limit_bytes > transfers.credit_limit and transfers.grant(limit_bytes, now):
            flight.backoff = 0
        departures.peer_window = max(ack.window_bytes, departures.stride)
        known = flight.largest_acked
        flight.take_ack(ack, largest, departures.is_limited, now)
        if below > transfers.done_below or ack.done_bitmap:
            for outgoing in transfers.settle(below, ack.done_bitmap):
                departures.note_arrived(outgoing)
                self._accepted(outgoing)
        if ack.partials:
            self._take_partials(ack.partials, largest, now)
        if not transfers.outstanding:
            flight.forget_passed()
        elif largest >= known:
            horizon = NEVER
            if ack.more and ack.partials:
                horizon = wire.expand(ack.partials[-1].transfer, transfers.done_below)
            # Else it calls nothing lost that was not found so before.
            if largest > known or horizon > self._looked_to or flight.has_lost(now):
                self._find_lost(horizon, now)
                self._looked_to = horizon if largest > known else max(horizon, self._looked_to)
        has_whole, is_answer_due = bool(transfers.whole), flight.unanswered_since is not None
        self._parking.take_busy(busy, has_whole, is_answer_due, now)

    def _accepted(self, outgoing: Outgoing) -> None:
        whole = self.transfers.whole
        if whole and outgoing.transfer in whole:
            del whole[outgoing.transfer]
            self._parking.note_news()
        if outgoing.next_index < outgoing.segments or outgoing.lost:
            self.departures.drop(outgoing)
        self._end(outgoing, Settlement.ACCEPTED, 0)

    def _take_partials(self, partials: tuple[wire.Partial, ...], largest: int, now: float) -> None:
        transfers = self.transfers
        overtaken = 0
        for partial in partials:
            outgoing = transfers.find(partial.transfer)
            if outgoing is not None:
                overtaken += outgoing.take_partial(partial, largest)
                if outgoing.partial != partial:
                    outgoing.partial = partial
                    self.departures.note_arrived(outgoing)
        if overtaken:
            self.flight.note_overtaken(now)

    def _find_lost(self, horizon: int, now: float) -> None:
        """Queue again what an ACK should have named by now. Cost: one look per open transfer."""
        flight, departures = self.flight, self.departures
        floor = flight.loss_floor(now)
        waiting = False
        for outgoing in self.transfers.outstanding.values():
            if outgoing.transfer > horizon:
                break
            if outgoing.first_burst > floor:
                waiting = waiting or outgoing.first_burst <= flight.largest_acked
                break
            waiting = departures.find_lost(outgoing, floor) or waiting
        if waiting:
            flight.watch()

    def receive_whole(self, frame: wire.WholeFrame) -> None:
        """The neighbour has these transfers whole: nothing of them is to be sent again."""
        transfers = self.transfers
        for low, count in frame.entries:
            first = wire.expand(low, transfers.done_below)
            for outgoing in transfers.take_whole(first, count):
                if outgoing.transfer not in transfers.whole:
                    self.departures.note_arrived(outgoing)
                    transfers.whole[outgoing.transfer] = None
                    self._parking.note_news()
                if outgoing.known_below < outgoing.segments:
                    # Also when a late DAMAGED called something of it missing after it was mended.
                    outgoing.known_below = outgoing.segments
                    self.departures.drop(outgoing)

    def receive_refusals(self, frame: wire.RefusedFrame) -> None:
        """Take in refusals; each is confirmed by a FORGET, known or not."""
        for low, reason in frame.entries:
            outgoing = self.transfers.give_up(wire.expand(low, self.transfers.done_below))
            if outgoing is None:
                continue
            self.departures.drop(outgoing)
            if reason in (wire.GIVEN_BACK, wire.NOT_NOW):
                cut = self.departures
                outgoing.put_back(self._pool)
                outgoing.cut(cut.share, cut.small_bytes, cut.overhead_bytes)
                self.flows.put_back(outgoing)
                if reason == wire.NOT_NOW:
                    self.flows.park(outgoing.flow)
            else:
                self._end(outgoing, Settlement.REFUSED, reason)

    def receive_digests_wanted(self, frame: wire.DigestsWantedFrame, now: float) -> None:
        """The neighbour has a transfer whole, and altered: prepare digests of its segments.

        Raises:
            ProtocolError: it asks too often; it will ask again.
        """
        outgoing = self.transfers.find(frame.transfer)
        if outgoing is not None:
            self.digest_answers.prepare(outgoing, self.departures.share, frame, now)

    def receive_damaged(self, frame: wire.DamagedFrame) -> None:
        """Send again what arrived altered."""
        outgoing = self.transfers.find(frame.transfer)
        if outgoing is not None and outgoing.keys is not None:
            self.transfers.note_damaged(outgoing.transfer)
            self.departures.take_damage(outgoing, frame)

    # --- size of datagrams ----------------------------------------------------------------------

    def change_stride(self, stride: int) -> None:
        """Use another size of full datagrams, as soon as the neighbour knows of it.

        What it has whole stays; the rest comes back and is cut anew, as other transfers.
        """
        if stride == (self._change.stride if self._change is not None else self.stride):
            return
        small_bytes = self.departures.small_bytes_in(stride)
        outstanding = self.transfers.outstanding
        wanted = {
            transfer: outgoing.body_bytes
            for transfer, outgoing in outstanding.items()
            if outgoing.loan is None
            and not (outgoing.is_small and outgoing.plain_bytes <= small_bytes)
        }
        self._change = StrideChange(stride, self.flight.take_number(), wanted)
        self.departures.is_held = True
        for transfer in wanted:
            self.departures.drop(outstanding[transfer])

    def stride_at(self, patience_s: float) -> float | None:
        """Return when `stride_frames` has something to say."""
        return self._change.due_at(patience_s) if self._change is not None else None

    def stride_frames(self, patience_s: float, now: float) -> Iterator[bytes]:
        """Yield what asks for the change again, if anything may be asked, or end it."""
        change = self._change
        if change is None:
            return
        left = change.left(self.transfers)
        if change.is_known and not left:
            self._end_change(change.stride)
        elif now >= change.due_at(patience_s) and self.silence.may_ask(now):
            self.silence.asked(now)
            yield change.question(left, now)

    def stride_changed(self, stride: int, burst: int) -> None:
        """The neighbour knows of the change that named `burst`."""
        if self._change is not None:
            self._change.take_answer(stride, burst)

    def _end_change(self, stride: int) -> None:
        departures = self.departures
        self._change, departures.is_held, departures.large_since = None, False, None
        departures.use_stride(stride)
        for outgoing in self.flows:
            outgoing.cut(departures.share, departures.small_bytes, departures.overhead_bytes)

    # --- timers ---------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` must be called, or None."""
        flight, transfers, silent_until = self.flight, self.transfers, self.silence.until
        patience_s = self._patience_s
        deadline = flight.next_timeout(patience_s, silent_until)
        paced_until, question_at = self.departures.paced_until, self._parking.question_at
        if paced_until is not None:
            deadline = paced_until if deadline is None else min(deadline, paced_until)
        if transfers.blocked_at is not None or transfers.forgotten:
            repeat_at = transfers.next_timeout(patience_s)
            if repeat_at is not None:
                repeat_at = max(repeat_at, silent_until)
                deadline = repeat_at if deadline is None else min(deadline, repeat_at)
        if question_at is not None:
            question_at = max(question_at, silent_until)
            deadline = question_at if deadline is None else min(deadline, question_at)
        return deadline

    @property
    def _patience_s(self) -> float:
        """How long an answer may take before it is asked for again."""
        return self.silence.patience_s(self.flight.backoff)

    def handle_timeout(self, now: float) -> Iterator[bytes]:
        """Yield the control frames that are due, for one datagram: a probe, a question for credit,
        what was not confirmed of what is given up."""
        flight, transfers = self.flight, self.transfers
        if flight.has_lost(now):
            self._find_lost(NEVER, now)
        if not self.silence.may_ask(now):
            return
        patience_s = self._patience_s
        probe = flight.overdue_probe(patience_s, now)
        if probe is not None:
            yield probe
        if transfers.blocked_at is not None and now >= transfers.blocked_at + patience_s:
            flight.backoff += probe is None
            transfers.blocked_at = now
            head = self.flows.head() or self.flows.background_head()
            wanted = head.body_bytes if head is not None else 0
            yield wire.BlockedFrame(wanted).to_bytes()
        # The rest of them goes beside it, but not into a silence.
        most = wire.MAX_ENTRIES_COUNT if self.silence.is_lasting else None
        transfers.repeat_forgets(patience_s, now, most)
        forget = transfers.take_forgets(now)
        if forget is not None:
            yield forget
        if self._parking.must_ask(now) and probe is None:
            yield flight.probe(now)
