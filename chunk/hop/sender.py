"""The sending half of a session: bodies in, bursts of datagrams out, settlements up.

Bursts carry ascending numbers, and an ACK names the largest that arrived. What was sent three
bursts or 9/8 round trips before that and is not in the ACK is lost and goes out again; nothing is
lost for having waited alone. Loss is looked for only in transfers that an ACK leaves unfinished, so
the clean path does no work per segment.

Source: docs/protocol/hop.md, "Sending"; RFC 9002 sections 6.1 and 6.2 for the rules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Buffer, Settlement
from packetcloud.chunk.hop.buffers import JUMBO_BYTES, BufferPool, StoredBody
from packetcloud.chunk.hop.congestion import Congestion
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.flow_queues import FlowQueues
from packetcloud.chunk.hop.keys import KeyRing
from packetcloud.chunk.hop.layout import BurstLayout
from packetcloud.chunk.hop.outgoing import NEVER, Outgoing
from packetcloud.chunk.hop.repair import (
    DIGEST_FRAMES_PER_QUESTION,
    DIGESTS_PAUSE_S,
    segment_digests,
)
from packetcloud.chunk.hop.rtt import RttEstimator
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason

REORDER_BURSTS = 3
"""Bursts that may overtake one before it counts as lost: RFC 9002's packet threshold."""
MAX_BURST_BYTES = 512 << 10
"""Laid and counted in one piece: small enough to stay in the cache until it is sent."""
REORDER_SHARE = 0.25
MIN_REORDER_S = 0.0005
REORDER_MEMORY_S = 10.0
"""A quarter of a round trip more, each time that something called lost has come all the same (RFC
8985, section 6.2); half of it is forgotten when that did not happen for so long."""
TIMER_SLACK_S = 1e-6
"""A timer set for t + d and read as t <= now - d may miss by a rounding error and fire for ever."""


def burst_rows(stride: int) -> int:
    """Datagrams of one burst: whole system calls of segmentation offload, 512 KiB at most."""
    if stride >= JUMBO_BYTES:
        return max(1, MAX_BURST_BYTES // stride)
    rows = wire.train_rows(stride)
    return rows * max(1, MAX_BURST_BYTES // (rows * stride))


QUESTION_S = 0.05
MAX_QUESTION_S = 1.0
"""While flows are parked, or bodies wait for the layer above, and nothing else is on its way, an
ACK is asked for, each time after twice as long: the one with the news may have been lost."""

MAX_SKIPPED_COUNT = 64
"""Left out lately: an ACK of an older one is overtaken anyway."""


SettleBody = Callable[[object, Settlement, int], None]


@dataclass(slots=True)
class _Burst:
    """A burst on its way: number, when it left, its bytes."""

    number: int
    sent_at: float
    size: int
    background: bool = False


@dataclass(slots=True)
class StrideChange:
    """A change of the size of full datagrams."""

    stride: int
    burst: int
    """The last one of the old size."""
    wanted: dict[int, int]
    """Transfers that must come back or be settled first, and their body bytes."""
    asked_at: float = float("-inf")
    is_known: bool = False


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
    ) -> None:
        self._session = session
        self._envelope = envelope
        self._ring = ring
        self._pool = pool
        self._overhead_bytes = envelope.overhead_bytes
        self._use_stride(stride)
        self._sure_bytes = self._small_bytes_in(wire.MIN_DATAGRAM_BYTES)
        """Bodies that may have come in datagrams that every path takes."""
        self._peer_max_body_bytes = peer_max_body_bytes
        self._credit_limit = peer_credit_bytes
        self._peer_window = peer_window_bytes
        self._rtt = rtt
        self._settle = settle
        self.congestion = Congestion(stride, rtt, MAX_BURST_BYTES)
        self.flows = FlowQueues()
        """Bodies that no transfer has begun for."""
        self._outstanding: dict[int, Outgoing] = {}
        self._by_token: dict[int, Outgoing] = {}
        self._current: Outgoing | None = None
        self._can_wait: deque[Outgoing] = deque()
        """Bodies of the background class, sent while there is nothing else to send."""
        self._waiting_current: Outgoing | None = None
        self._background_bytes = 0
        """Those of the bytes in flight that belong to the background class."""
        self._resend: deque[Outgoing] = deque()
        self._resend_small: deque[Outgoing] = deque()
        self._whole: dict[int, None] = {}
        """Outstanding transfers that the neighbour has whole and has not settled."""
        self._unlisted_parked: dict[int, None] = {}
        """Parked flows that a BUSY list without room for all of them does not name."""
        self._question_at: float | None = None
        self._question_count = 0
        self._forgotten: dict[int, int] = {}
        """Bytes of transfers given up or refused that the neighbour has not settled yet."""
        self._forget: dict[int, None] = {}
        """Those of them that it is to be told of now."""
        self._forgot_at = 0.0
        self._next_transfer = 0
        self._next_burst = 1
        self._skip_after = skip_after
        self._until_skip = skip_after() if skip_after is not None else 0
        self._skipped: deque[int] = deque(maxlen=MAX_SKIPPED_COUNT)
        """Numbers that no burst has: whoever acknowledges one guesses."""
        self.was_lied_to = False
        self._done_below = 0
        self._started_bytes = 0
        self._in_flight: deque[_Burst] = deque()
        self._history: deque[_Burst] = deque()
        """Bursts that an ACK has passed but that are too recent to call lost by time."""
        self._loss_floor = 0
        self._reorder_s = 0.0
        """How long something may be overtaken by bursts before it is called lost."""
        self._overtaken_at = float("-inf")
        self._largest_sent_at = 0.0
        self._largest_acked = 0
        self.in_flight_bytes = 0
        self.queued_bytes = 0
        self._asked_burst = 0
        """The last burst before which an ACK was asked for while the window grows."""
        self._backoff = 0
        self._waiting_since: float | None = None
        self._blocked_at: float | None = None
        self._loss_at: float | None = None
        self._paced_until: float | None = None
        """From when on the next burst may leave; None when it is not the pace that it waits for."""
        self._limited = True
        self.retransmitted_segments = 0
        self.sent_bytes = 0
        self.probes = 0
        self.window_full_count = 0
        """How often a body had to wait for the neighbour to settle older ones."""
        self._digests: list[bytes] = []
        self._digests_at = float("-inf")
        self._change: StrideChange | None = None
        """The change of the size of datagrams that is under way; nothing else is sent meanwhile."""
        self.large_since: float | None = None
        """When something large left after which nothing large is known to have arrived."""

    def _use_stride(self, stride: int) -> None:
        self.stride = stride
        self._share = stride - wire.DATA_HEADER_BYTES
        self._small_bytes = self._small_bytes_in(stride)
        self._rows_per_burst = burst_rows(stride)
        self._layout = BurstLayout(self._session, stride, self._rows_per_burst, self._envelope)

    def _small_bytes_in(self, stride: int) -> int:
        """Return the largest body that travels in a bundle."""
        head_bytes = wire.BUNDLE_HEADER_BYTES + wire.RECORD_BYTES
        return stride - head_bytes - self._overhead_bytes

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
        self._append(
            Outgoing(
                kind, prefix, view, None, token, self._share, self._small_bytes,
                self._overhead_bytes, flow, background,
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
        self._append(
            Outgoing(
                kind, b"", memoryview(b""), body, token, self._share, self._small_bytes, 0, flow,
                background,
            )
        )  # fmt: skip

    def _append(self, outgoing: Outgoing) -> None:
        self._by_token[id(outgoing.token)] = outgoing
        self.queued_bytes += outgoing.body_bytes
        if outgoing.plain_bytes > self._peer_max_body_bytes or not outgoing.plain_bytes:
            self._end(outgoing, Settlement.REFUSED, Reason.PAYLOAD_TOO_LARGE)
            return
        if outgoing.background:
            self._can_wait.append(outgoing)
        else:
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
            self._outstanding.pop(outgoing.transfer, None)
            self._whole.pop(outgoing.transfer, None)
            self._give_up(outgoing.transfer, outgoing.body_bytes)
            self._drop_from_queues(outgoing)
        else:
            (self._can_wait if outgoing.background else self.flows).remove(outgoing)
        self._end(outgoing, settlement, reason)

    def close(self) -> None:
        """Settle everything that is left as LOST."""
        left = [*self._outstanding.values(), *self.flows, *self._can_wait]
        self._outstanding.clear()
        self.flows.clear()
        self._can_wait.clear()
        self._whole.clear()
        self._resend.clear()
        self._resend_small.clear()
        self._current = self._waiting_current = None
        for outgoing in left:
            self._end(outgoing, Settlement.LOST, 0)

    def _drop_from_queues(self, outgoing: Outgoing) -> None:
        if self._current is outgoing:
            self._current = None
        if self._waiting_current is outgoing:
            self._waiting_current = None
        if outgoing.lost:
            outgoing.lost.clear()
        for queue in (self._resend, self._resend_small):
            if outgoing in queue:
                queue.remove(outgoing)

    def _end(self, outgoing: Outgoing, settlement: Settlement, reason: int) -> None:
        self._by_token.pop(id(outgoing.token), None)
        self.queued_bytes -= outgoing.body_bytes
        outgoing.next_index = outgoing.segments
        outgoing.give_back(self._pool)
        self._settle(outgoing.token, settlement, int(reason))

    # --- sending --------------------------------------------------------------------------------

    def next_burst(self, now: float) -> tuple[list[Buffer], int] | None:
        """Return the buffers of the next burst and its datagram size, or None.

        The buffers hold until the next call; the burst counts as sent at `now`.
        """
        if self._paced_until is not None and now >= self._paced_until:
            self.congestion.on_woken(now)
        self._paced_until = None
        if self._change is not None:
            self._limited = True
            return None
        window = min(self.congestion.window_bytes, self._peer_window)
        if self.in_flight_bytes >= window:
            self._limited = False
            return None
        release_at = self.congestion.release_at()
        if now < release_at - TIMER_SLACK_S and self._has_to_send:
            self._limited = False
            self._paced_until = release_at
            return None
        rows = max(1, int(self.congestion.burst_bytes) // self.stride)
        rows = min(rows, self._rows_per_burst)
        if self._resend_small:
            laid = self._send_bundles(self._resend_small, rows, now)
            if laid is not None:
                return laid
        while self._resend:
            outgoing = self._resend[0]
            if outgoing.lost:
                return self._send_lost(outgoing, rows, now)
            self._resend.popleft()
        current = self._current
        if current is None:
            head = self.flows.head()
            if head is None or not self._may_start(head, now):
                self._limited = True
                self.congestion.on_nothing_to_send()
                return self._next_background(rows, now)
            if head.is_small:
                return self._send_bundles(None, rows, now)
            current = self._current = self.flows.popleft()
            self._start(current)
        laid = self._send_next(current, rows, now)
        if current.next_index >= current.segments:
            self._current = None
        return laid

    def _send_next(
        self, outgoing: Outgoing, rows: int, now: float
    ) -> tuple[list[Buffer], int] | None:
        count = min(rows, outgoing.segments - outgoing.next_index)
        laid = self._send_rows(outgoing, outgoing.next_index, count, now)
        outgoing.next_index += count
        return laid

    def _next_background(self, rows: int, now: float) -> tuple[list[Buffer], int] | None:
        """Return a burst of what can wait, if its own window has room."""
        current = self._waiting_current
        head = current or self._head_of_background()
        if head is None:
            return None
        background = self.congestion.background
        room = background.window_bytes - self._background_bytes
        if room <= 0:
            background.is_full = True
            return None
        if current is None:
            if not self._may_start(head, now):
                return None
            self._can_wait.remove(head)
            current = self._waiting_current = head
            self._start(current)
        laid = self._send_next(current, max(1, min(rows, int(room) // self.stride)), now)
        if current.next_index >= current.segments:
            self._waiting_current = None
        return laid

    def _put_back(self, outgoing: Outgoing) -> None:
        """The neighbour has no room for its flow now: it is the next of that flow again."""
        if outgoing.background:
            self._can_wait.appendleft(outgoing)
        else:
            self.flows.put_back(outgoing)

    def _head_of_background(self) -> Outgoing | None:
        """Return the first body that can wait and whose flow is not parked."""
        parked = self.flows.parked
        return next((body for body in self._can_wait if body.flow not in parked), None)

    @property
    def _has_to_send(self) -> bool:
        if self._current or self._resend or self._resend_small or self._waiting_current:
            return True
        return self.flows.head() is not None or self._head_of_background() is not None

    def _may_start(self, outgoing: Outgoing, now: float) -> bool:
        if self._next_transfer - self._done_below >= wire.TRANSFER_WINDOW_COUNT:
            self.window_full_count += 1
            return False
        if self._started_bytes + outgoing.body_bytes > self._credit_limit:
            if self._blocked_at is None:
                self._blocked_at = now
            return False
        self._blocked_at = None
        return True

    def _start(self, outgoing: Outgoing) -> None:
        outgoing.transfer = self._next_transfer
        self._next_transfer += 1
        self._started_bytes += outgoing.body_bytes
        self._outstanding[outgoing.transfer] = outgoing
        if self._ring is not None and not outgoing.is_small:
            outgoing.seal_with(self._ring.send, self._pool)

    def _send_lost(
        self, outgoing: Outgoing, rows: int, now: float
    ) -> tuple[list[Buffer], int] | None:
        first, end = outgoing.lost[0]
        count = min(rows, end - first)
        if first + count == end:
            outgoing.lost.popleft()
        else:
            outgoing.lost[0] = (first + count, end)
        self.retransmitted_segments += count
        return self._send_rows(outgoing, first, count, now)

    def _send_rows(
        self, outgoing: Outgoing, index: int, count: int, now: float
    ) -> tuple[list[Buffer], int]:
        burst = self._take_burst()
        outgoing.note_sent(index, index + count, burst)
        buffers, size = self._layout.rows(outgoing, index, count, burst)
        if self.large_since is None and min(size, self.stride) > wire.MIN_DATAGRAM_BYTES:
            self.large_since = now
        self._note_sent(burst, size, now, outgoing.background)
        return buffers, self.stride

    def _send_bundles(
        self, lost: deque[Outgoing] | None, rows: int, now: float
    ) -> tuple[list[Buffer], int] | None:
        """Pack small bodies into up to `rows` datagrams of one size, zero padded.

        Args:
            lost: those to send again; None for new ones.
        """
        burst = self._next_burst
        limit = self.stride - self._overhead_bytes
        datagrams: list[list[Buffer]] = []
        sizes: list[int] = []
        counts: list[int] = []
        size = limit + 1
        record = wire.RECORD
        while True:
            outgoing = self.flows.head() if lost is None else lost[0] if lost else None
            if outgoing is None:
                break
            body_bytes = outgoing.body_bytes
            added = wire.RECORD_BYTES + body_bytes
            if size + added > limit:
                if len(datagrams) == rows:
                    break
                datagrams.append([])
                sizes.append(0)
                counts.append(0)
                size = wire.BUNDLE_HEADER_BYTES
            if lost is not None:
                lost.popleft()
                if outgoing.transfer not in self._outstanding:
                    continue
                self.retransmitted_segments += 1
            else:
                if not outgoing.is_small or not self._may_start(outgoing, now):
                    break
                self.flows.popleft()
                self._start(outgoing)
            outgoing.note_sent(0, 1, burst)
            size += added
            sizes[-1] = size
            counts[-1] += 1
            datagrams[-1].append(
                record.pack(
                    outgoing.transfer & 0xFFFF_FFFF, body_bytes, outgoing.kind, 0, outgoing.flow
                )
            )
            if outgoing.prefix:
                datagrams[-1].append(outgoing.prefix)
            datagrams[-1].append(outgoing.payload)
        while counts and not counts[-1]:
            counts.pop()
            sizes.pop()
            datagrams.pop()
        if not counts:
            return None
        self._take_burst()
        laid, longest = self._layout.bundles(datagrams, sizes, counts, burst)
        if longest > wire.MIN_DATAGRAM_BYTES and self.large_since is None:
            self.large_since = now
        self._note_sent(burst, len(laid), now, background=False)
        return [laid], longest

    def _take_burst(self) -> int:
        """Return the number of the next burst; now and then leave one out behind it."""
        burst = self._next_burst
        self._next_burst += 1
        if self._skip_after is not None:
            self._until_skip -= 1
            if self._until_skip <= 0:
                self._skipped.append(self._next_burst)
                self._next_burst += 1
                self._until_skip = self._skip_after()
        return burst

    def _note_sent(self, burst: int, size: int, now: float, background: bool) -> None:
        if not self.in_flight_bytes:
            self.congestion.on_restart(burst + 1, now)
        self.congestion.on_sent(size, now)
        self._in_flight.append(_Burst(burst, now, size, background))
        self.in_flight_bytes += size
        if background:
            self._background_bytes += size
        self.sent_bytes += size
        if self._waiting_since is None:
            self._waiting_since = now

    # --- acknowledgements -----------------------------------------------------------------------

    def receive_ack(self, ack: wire.AckFrame, busy: tuple[int, ...], now: float) -> None:
        """Take in what the neighbour says it has.

        Args:
            busy: labels of the BUSY frame beside the ACK.

        Raises:
            ProtocolError: it acknowledges what was never sent.
        """
        largest = wire.expand(ack.largest_burst, self._largest_acked)
        below = wire.expand(ack.done_below, self._done_below)
        if largest >= self._next_burst or below > self._next_transfer:
            raise ProtocolError("optimistic_ack", f"burst {largest}, transfer {below}")
        if largest in self._skipped:
            self.was_lied_to = True
            raise ProtocolError("lying_ack", f"burst {largest} was never sent")
        if ack.credit_limit_bytes > self._credit_limit:
            self._credit_limit = ack.credit_limit_bytes
            if self._blocked_at is not None:
                self._blocked_at, self._backoff = now, 0
        self._peer_window = max(ack.window_bytes, self.stride)
        rtt_s: float | None = None
        if largest > self._largest_acked:
            rtt_s = self._pass_bursts(largest, ack.delay_us / 1e6, now)
            self._backoff = 0
            self._waiting_since = now if self._in_flight else None
        # A network may double datagrams, but not for ever.
        received_bytes = min(ack.received_bytes, 2 * self.sent_bytes)
        self.congestion.on_ack(
            received_bytes,
            rtt_s,
            largest,
            self._next_burst,
            self.in_flight_bytes,
            self._limited,
            now,
        )
        outstanding = self._outstanding
        if below > self._done_below:
            for transfer in range(self._done_below, below):
                self._take_done(transfer)
            self._done_below = below
        if ack.done_bitmap:
            self._take_bitmap(below, ack.done_bitmap)
        overtaken = 0
        for partial in ack.partials:
            outgoing = outstanding.get(wire.expand(partial.transfer, self._done_below))
            if outgoing is not None:
                overtaken += outgoing.take_partial(partial, largest)
                if outgoing.partial != partial:
                    outgoing.partial = partial
                    self._note_large(outgoing)
        if overtaken:
            self._note_overtaken(now)
        if outstanding and largest >= self._largest_acked:
            horizon = NEVER
            if ack.more and ack.partials:
                horizon = wire.expand(ack.partials[-1].transfer, self._done_below)
            self._find_lost(horizon, now)
        self._take_busy(busy)
        if not self._unlisted_parked and (
            self._in_flight or not (self._whole or self.flows.parked)
        ):
            self._question_at = None
        elif self._question_at is None:
            wait_s = min(MAX_QUESTION_S, QUESTION_S * (1 << min(self._question_count, 10)))
            self._question_at = now + wait_s

    def _take_busy(self, busy: tuple[int, ...]) -> None:
        """Park the flows that the neighbour names, and no others if it names all."""
        flows = self.flows
        if not busy and not flows.parked:
            return
        named = dict.fromkeys(busy)
        is_complete = named.pop(0, 0) == 0
        self._unlisted_parked.clear()
        for flow in list(flows.parked):
            if flow not in named:
                if is_complete or not flows.has_bodies(flow):
                    flows.unpark(flow)
                    self._question_count = 0
                else:
                    self._unlisted_parked[flow] = None
        for flow in named:
            flows.park(flow)

    def receive_whole(self, frame: wire.WholeFrame) -> None:
        """The neighbour has these transfers whole: nothing of them is to be sent again."""
        for low, count in frame.entries:
            first = wire.expand(low, self._done_below)
            for transfer in range(first, first + count):
                outgoing = self._outstanding.get(transfer)
                if outgoing is None:
                    continue
                if transfer not in self._whole:
                    self._note_large(outgoing)
                    self._whole[transfer] = None
                    self._question_count = 0
                if outgoing.known_below < outgoing.segments:
                    # Also when a late DAMAGED called something of it missing after it was mended.
                    outgoing.known_below = outgoing.segments
                    self._drop_from_queues(outgoing)

    def receive_refusals(self, frame: wire.RefusedFrame) -> None:
        """Take in refusals; each is confirmed by a FORGET, known or not."""
        for low, reason in frame.entries:
            transfer = wire.expand(low, self._done_below)
            outgoing = self._outstanding.pop(transfer, None)
            if outgoing is not None:
                self._whole.pop(transfer, None)
                self._give_up(transfer, outgoing.body_bytes)
                self._drop_from_queues(outgoing)
                if reason == wire.GIVEN_BACK:
                    outgoing.put_back(self._pool)
                    self._put_back(outgoing)
                elif reason == wire.NOT_NOW:
                    outgoing.put_back(self._pool)
                    self._put_back(outgoing)
                    self.flows.park(outgoing.flow)
                else:
                    self._end(outgoing, Settlement.REFUSED, reason)
            elif transfer in self._forgotten:
                self._forget[transfer] = None

    def _note_large(self, outgoing: Outgoing) -> None:
        """Something of this arrived: if it takes large datagrams, they arrive."""
        if outgoing.plain_bytes > self._sure_bytes:
            self.large_since = self._in_flight[-1].sent_at if self._in_flight else None

    # --- size of datagrams ----------------------------------------------------------------------

    def change_stride(self, stride: int) -> None:
        """Use another size of full datagrams, as soon as the neighbour knows of it.

        What it has whole stays; the rest comes back and is cut anew, as other transfers.
        """
        if stride == (self._change.stride if self._change is not None else self.stride):
            return
        small_bytes = self._small_bytes_in(stride)
        wanted = {
            transfer: outgoing.body_bytes
            for transfer, outgoing in self._outstanding.items()
            if not (outgoing.is_small and outgoing.plain_bytes <= small_bytes)
        }
        self._change = StrideChange(stride, self._next_burst - 1, wanted)
        for transfer in wanted:
            self._drop_from_queues(self._outstanding[transfer])

    def stride_at(self, patience_s: float) -> float | None:
        """Return when `stride_frames` has something to say."""
        return self._change.asked_at + patience_s if self._change is not None else None

    def stride_frames(self, patience_s: float, now: float) -> Iterator[bytes]:
        """Yield what asks for the change again, or end it."""
        change = self._change
        if change is None:
            return
        left = [
            (transfer & 0xFFFF_FFFF, size)
            for transfer, size in change.wanted.items()
            if transfer in self._outstanding and transfer not in self._whole
        ]
        if change.is_known and not left:
            self._end_change(change.stride)
        elif now >= change.asked_at + patience_s:
            change.asked_at = now
            burst = change.burst & 0xFFFF_FFFF
            entries = tuple(left[: wire.MAX_ENTRIES_COUNT])
            yield wire.StrideFrame(wire.StrideStep.CHANGE, change.stride, burst, entries).to_bytes()

    def stride_changed(self, stride: int) -> None:
        """The neighbour knows of a change."""
        if self._change is not None and self._change.stride == stride:
            self._change.is_known = True

    def _end_change(self, stride: int) -> None:
        self._change, self.large_since = None, None
        self._use_stride(stride)
        for outgoing in [*self.flows, *self._can_wait]:
            self.queued_bytes += outgoing.cut(self._share, self._small_bytes, self._overhead_bytes)

    @property
    def largest_acked(self) -> int:
        """The newest burst that the neighbour has acknowledged."""
        return self._largest_acked

    @property
    def oldest_epoch(self) -> int:
        """Key epoch of the oldest transfer that is not settled; the present one when none is."""
        assert self._ring is not None
        epochs = (o.keys.epoch for o in self._outstanding.values() if o.keys is not None)
        return next(epochs, self._ring.newest.epoch)

    def receive_digests_wanted(self, frame: wire.DigestsWantedFrame, now: float) -> None:
        """The neighbour has a transfer whole, and altered: prepare digests of its segments.

        Raises:
            ProtocolError: it asks too often; it will ask again.
        """
        transfer = wire.expand(frame.transfer, self._done_below)
        outgoing = self._outstanding.get(transfer)
        if outgoing is None or outgoing.keys is None or frame.first >= outgoing.segments:
            return
        if now < self._digests_at + DIGESTS_PAUSE_S:
            raise ProtocolError("digests_rate")
        self._digests_at = now
        self._digests = []
        first = frame.first
        for _ in range(DIGEST_FRAMES_PER_QUESTION):
            end = min(first + wire.MAX_DIGESTS_COUNT, outgoing.segments)
            if first == end:
                break
            digests = segment_digests(
                outgoing.keys.digest_key, transfer, first, outgoing.shares(first, end, self._share)
            )
            self._digests.append(wire.DigestsFrame(frame.transfer, first, digests).to_bytes())
            first = end

    def take_digests(self) -> list[bytes]:
        """Return the frames that answer the last question for digests, each for a datagram."""
        digests, self._digests = self._digests, []
        return digests

    def receive_damaged(self, frame: wire.DamagedFrame) -> None:
        """Send again what arrived altered. That is no sign of a full queue."""
        outgoing = self._outstanding.get(wire.expand(frame.transfer, self._done_below))
        if outgoing is None or outgoing.keys is None:
            return
        was_queued = bool(outgoing.lost)
        burst = wire.expand(frame.burst, self._largest_acked)
        if outgoing.take_damage(frame.base, frame.bitmap, burst) and not was_queued:
            self._resend.append(outgoing)

    def _give_up(self, transfer: int, body_bytes: int) -> None:
        """Have the neighbour told, until it says that it has settled this transfer.

        Else neither its memory nor its credit nor its place in the window would ever come free.
        """
        self._forgotten[transfer] = body_bytes
        self._forget[transfer] = None

    def _accepted(self, outgoing: Outgoing) -> None:
        if self._whole and outgoing.transfer in self._whole:
            del self._whole[outgoing.transfer]
            self._question_count = 0
        if outgoing.next_index < outgoing.segments or outgoing.lost:
            self._drop_from_queues(outgoing)
        self._end(outgoing, Settlement.ACCEPTED, 0)

    def _pass_bursts(self, largest: int, delay_s: float, now: float) -> float | None:
        """Take bursts out of flight; return the round trip of the largest, less `delay_s`."""
        rtt_s: float | None = None
        in_flight = self._in_flight
        while in_flight and in_flight[0].number <= largest:
            burst = in_flight.popleft()
            self.in_flight_bytes -= burst.size
            if burst.background:
                self._background_bytes -= burst.size
            self._history.append(burst)
            if burst.number == largest:
                self._rtt.add_sample(now - burst.sent_at, delay_s, now)
                rtt_s = max(now - burst.sent_at - delay_s, 1e-6)
            self._largest_sent_at = burst.sent_at
        self._largest_acked = largest
        return rtt_s

    def _take_bitmap(self, below: int, bitmap: bytes) -> None:
        bits = int.from_bytes(bitmap, "little")
        while bits:
            low = bits & -bits
            bits ^= low
            self._take_done(below + low.bit_length() - 1)

    def _take_done(self, transfer: int) -> None:
        outgoing = self._outstanding.pop(transfer, None)
        if outgoing is not None:
            self._note_large(outgoing)
            self._accepted(outgoing)
        elif self._forgotten:
            self._forgotten.pop(transfer, None)
            self._forget.pop(transfer, None)

    # --- loss -----------------------------------------------------------------------------------

    def _find_lost(self, horizon: int, now: float) -> None:
        """Queue again what an ACK should have named by now. Cost: one look per open transfer."""
        history = self._history
        largest = self._largest_acked
        if self._reorder_s and now - self._overtaken_at > REORDER_MEMORY_S:
            self._reorder_s, self._overtaken_at = self._reorder_s / 2, now
        floor = self._loss_floor
        passed_at = self._largest_sent_at - self._reorder_s + TIMER_SLACK_S
        while history and (
            (history[0].number <= largest - REORDER_BURSTS and history[0].sent_at <= passed_at)
            or self._loss_time(history[0]) <= now + TIMER_SLACK_S
        ):
            floor = max(floor, history.popleft().number)
        self._loss_floor = floor
        self._loss_at = None
        waiting = False
        for outgoing in self._outstanding.values():
            if outgoing.transfer > horizon:
                break
            if outgoing.first_burst > floor:
                waiting = waiting or outgoing.first_burst <= largest
                break
            waiting = self._find_lost_in(outgoing, floor) or waiting
        if waiting and history:
            self._loss_at = self._loss_time(history[0])

    def _loss_time(self, burst: _Burst) -> float:
        """Return when what is missing of a burst that an ACK has passed counts as lost.

        The neighbour may have acknowledged the last burst it knows of while the rest of it still
        lay in its socket: such a burst has as long as an answer may take.
        """
        if burst.number < self._largest_acked:
            return burst.sent_at + self._rtt.loss_delay_s + self._reorder_s
        return burst.sent_at + self._rtt.probe_timeout_s(0)

    def _note_overtaken(self, now: float) -> None:
        """What was called lost has come: wait longer for what was overtaken, up to a round trip."""
        rtt = self._rtt
        if now - self._overtaken_at >= rtt.smoothed_s:
            self._overtaken_at = now
            more_s = max(REORDER_SHARE * rtt.smoothed_s, MIN_REORDER_S)
            self._reorder_s = min(self._reorder_s + more_s, rtt.smoothed_s)

    def _find_lost_in(self, outgoing: Outgoing, floor: int) -> bool:
        """Queue lost segments of one transfer; tell whether some may turn out lost later."""
        was_queued = bool(outgoing.lost)
        lost = outgoing.find_lost(floor)
        if lost:
            self.congestion.on_loss(min(lost * self.stride, outgoing.body_bytes))
            if outgoing.is_small:
                outgoing.lost.clear()
                self._resend_small.append(outgoing)
            elif not was_queued:
                self._resend.append(outgoing)
        return lost is not None

    # --- timers and control ---------------------------------------------------------------------

    @property
    def unanswered_since(self) -> float | None:
        """When the oldest burst left that no ACK has passed; None when each was answered."""
        return self._in_flight[0].sent_at if self._in_flight else None

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` must be called, or None."""
        deadline = self._loss_at
        if self._paced_until is not None:
            deadline = self._paced_until if deadline is None else min(deadline, self._paced_until)
        if self._waiting_since is not None and self._in_flight:
            probe_at = self._waiting_since + self._rtt.probe_timeout_s(self._backoff)
            deadline = probe_at if deadline is None else min(deadline, probe_at)
        if self._blocked_at is not None:
            ask_at = self._blocked_at + self._rtt.probe_timeout_s(self._backoff)
            deadline = ask_at if deadline is None else min(deadline, ask_at)
        if self._forgotten and not self._forget:
            repeat_at = self._forgot_at + self._rtt.probe_timeout_s(self._backoff)
            deadline = repeat_at if deadline is None else min(deadline, repeat_at)
        if self._question_at is not None:
            deadline = self._question_at if deadline is None else min(deadline, self._question_at)
        return deadline

    def handle_timeout(self, now: float) -> Iterator[bytes]:
        """Yield the control frames that are due: a probe, or a question for credit."""
        if self._loss_at is not None and now >= self._loss_at:
            self._find_lost(NEVER, now)
        timeout = self._rtt.probe_timeout_s(self._backoff)
        if (
            self._waiting_since is not None
            and self._in_flight
            and now >= self._waiting_since + timeout
        ):
            self._backoff += 1
            self._waiting_since = now
            yield self.probe(now)
        if self._blocked_at is not None and now >= self._blocked_at + timeout:
            self._backoff += 1
            self._blocked_at = now
            head = self.flows.head() or self._head_of_background()
            wanted = head.body_bytes if head is not None else 0
            yield wire.BlockedFrame(wanted).to_bytes()
        if self._forgotten and now >= self._forgot_at + timeout:
            self._forget = dict.fromkeys(self._forgotten)
        if self._question_at is not None and now >= self._question_at:
            self._question_at = None
            self._question_count += 1
            for flow in list(self._unlisted_parked):
                self.flows.unpark(flow)
            self._unlisted_parked.clear()
            yield self.probe(now)

    def restart_path(self) -> None:
        """The neighbour, or this node, is somewhere else now: ask at once what is missing."""
        self.congestion.reset()
        self._backoff = 0
        if self._waiting_since is not None:
            self._waiting_since = float("-inf")

    def probe(self, now: float) -> bytes:
        """Return a frame that asks for an ACK at once and counts as a burst of no bytes."""
        burst = self._take_burst()
        self.probes += 1
        self._in_flight.append(_Burst(burst, now, 0))
        if self._waiting_since is None:
            self._waiting_since = now
        return wire.ProbeFrame(burst & 0xFFFF_FFFF).to_bytes()

    def take_question(self, now: float) -> bytes | None:
        """Return a probe when nothing more may leave and the window would grow with an ACK."""
        if (
            not self._limited
            and self._paced_until is None
            and self.congestion.is_starting
            and self.in_flight_bytes
            and self._asked_burst != self._next_burst
        ):
            question = self.probe(now)
            self._asked_burst = self._next_burst
            return question
        return None

    def take_forgets(self, now: float) -> bytes | None:
        """Return a FORGET frame for transfers settled by refusal or cancelled, or None."""
        if not self._forget:
            return None
        transfers = list(self._forget)[: wire.MAX_ENTRIES_COUNT]
        for transfer in transfers:
            del self._forget[transfer]
        self._forgot_at = now
        entries = tuple((t & 0xFFFF_FFFF, self._forgotten[t]) for t in transfers)
        return wire.ForgetFrame(entries).to_bytes()
