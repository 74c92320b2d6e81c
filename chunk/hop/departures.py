"""What leaves next in a session: which body, how much of it, when, and again if it was lost.

What was lost goes first, then the body under way, then the next one of the flows, then what can
wait, first what was lost of it; each as the window, the pace and the neighbour's credit allow.

Source: docs/protocol/hop.md, "Sending".
"""

from __future__ import annotations

from collections import OrderedDict

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Buffer
from packetcloud.chunk.hop.buffers import JUMBO_BYTES
from packetcloud.chunk.hop.congestion import Congestion
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.flight import TIMER_SLACK_S, Flight
from packetcloud.chunk.hop.flow_queues import FlowQueues
from packetcloud.chunk.hop.lane import Lane
from packetcloud.chunk.hop.layout import BurstLayout
from packetcloud.chunk.hop.open_transfers import OpenTransfers
from packetcloud.chunk.hop.outgoing import Outgoing

MAX_BURST_BYTES = 512 << 10
"""Laid and counted in one piece: small enough to stay in the cache until it is sent."""


def burst_rows(stride: int) -> int:
    """Datagrams of one burst: whole system calls of segmentation offload, 512 KiB at most."""
    if stride >= JUMBO_BYTES:
        return max(1, MAX_BURST_BYTES // stride)
    rows = wire.train_rows(stride)
    return rows * max(1, MAX_BURST_BYTES // (rows * stride))


class Departures:
    """Makes the bursts of one session.

    Args:
        session: the session id that the neighbour chose.
        stride: bytes of a full datagram.
        envelope: what bundles travel in.
        flows: bodies that no transfer has begun for.
    """

    def __init__(
        self,
        session: int,
        stride: int,
        peer_window_bytes: int,
        envelope: Envelope,
        flows: FlowQueues,
        transfers: OpenTransfers,
        flight: Flight,
        congestion: Congestion,
    ) -> None:
        self._session = session
        self._envelope = envelope
        self._flows = flows
        self._transfers = transfers
        self._flight = flight
        self._congestion = congestion
        self.overhead_bytes = envelope.overhead_bytes
        self.use_stride(stride)
        self._sure_bytes = self.small_bytes_in(wire.MIN_DATAGRAM_BYTES)
        """Bodies that may have come in datagrams that every path takes."""
        self.peer_window = peer_window_bytes
        self._current: Outgoing | None = None
        self._waiting_current: Outgoing | None = None
        """The one under way of those that can wait."""
        # Ordered dicts, as one ACK may take thousands out of their middle.
        self._resend: OrderedDict[Outgoing, None] = OrderedDict()
        self._resend_small: OrderedDict[Outgoing, None] = OrderedDict()
        self._resend_waiting: OrderedDict[Outgoing, None] = OrderedDict()
        """Those of the background class."""
        self._asked_burst = 0
        """The last burst before which an ACK was asked for while the window grows."""
        self.paced_until: float | None = None
        """From when on the next burst may leave; None when it is not the pace that it waits for."""
        self.is_limited = True
        """The last time there was nothing more to send."""
        self.lane: Lane | None = None
        """Through which bodies may go instead."""
        self.is_held = False
        """Nothing leaves while the size of datagrams changes."""
        self.large_since: float | None = None
        """When something large left after which nothing large is known to have arrived."""
        self.retransmitted_segments = 0

    def use_stride(self, stride: int) -> None:
        """From now on a full datagram has `stride` bytes."""
        self.stride = stride
        self.share = stride - wire.DATA_HEADER_BYTES
        """Bytes of a segment."""
        self.small_bytes = self.small_bytes_in(stride)
        self._rows_per_burst = burst_rows(stride)
        self._layout = BurstLayout(self._session, stride, self._rows_per_burst, self._envelope)

    def small_bytes_in(self, stride: int) -> int:
        """Return the largest body that travels in a bundle."""
        head_bytes = wire.BUNDLE_HEADER_BYTES + wire.RECORD_BYTES
        return stride - head_bytes - self.overhead_bytes

    def drop(self, outgoing: Outgoing) -> None:
        """Nothing more of it leaves. O(1)."""
        if self._current is outgoing:
            self._current = None
        if self._waiting_current is outgoing:
            self._waiting_current = None
        if outgoing.lost:
            outgoing.lost.clear()
        for queue in (self._resend, self._resend_small, self._resend_waiting):
            queue.pop(outgoing, None)

    def clear(self) -> None:
        """The session ends."""
        self._resend.clear()
        self._resend_small.clear()
        self._resend_waiting.clear()
        self._current = self._waiting_current = None

    # --- bursts ---------------------------------------------------------------------------------

    def next_burst(self, now: float) -> tuple[list[Buffer], int] | None:
        """Return the buffers of the next burst and its datagram size, or None.

        The buffers hold until the next call; the burst counts as sent at `now`.
        """
        congestion = self._congestion
        if self.paced_until is not None and now >= self.paced_until:
            congestion.on_woken(now)
        self.paced_until = None
        if self.is_held:
            self.is_limited = True
            return None
        if self._flight.in_flight_bytes >= min(congestion.window_bytes, self.peer_window):
            self.is_limited = False
            return None
        release_at = congestion.release_at()
        if now < release_at - TIMER_SLACK_S and self._has_to_send:
            self.is_limited = False
            self.paced_until = release_at
            return None
        rows = max(1, int(congestion.burst_bytes) // self.stride)
        rows = min(rows, self._rows_per_burst)
        if self._resend_small:
            laid = self._send_bundles(self._resend_small, rows, now)
            if laid is not None:
                return laid
        while self._resend:
            outgoing = next(iter(self._resend))
            if outgoing.lost:
                return self._send_lost(outgoing, rows, now)
            del self._resend[outgoing]
        current = self._current
        if current is None:
            head = self._flows.head()
            if head is None or not self._transfers.may_start(head, now):
                self.is_limited = True
                congestion.on_nothing_to_send()
                return self._next_background(rows, head is None, now)
            if head.is_small or self._may_lend(head):
                return self._send_bundles(None, rows, now)
            current = self._current = self._flows.popleft()
            self._transfers.start(current)
        laid = self._send_next(current, rows, now)
        if current.next_index >= current.segments:
            self._current = None
        return laid

    def take_question(self, now: float) -> bytes | None:
        """Return a probe when nothing more may leave and the window would grow with an ACK."""
        flight = self._flight
        if (
            not self.is_limited
            and self.paced_until is None
            and self._congestion.is_starting
            and flight.in_flight_bytes
            and not flight.backoff
            and self._asked_burst != flight.next_burst
        ):
            question = flight.probe(now)
            self._asked_burst = flight.next_burst
            return question
        return None

    @property
    def _has_to_send(self) -> bool:
        if self._current or self._resend or self._resend_small or self._waiting_current:
            return True
        if self._resend_waiting:
            return True
        return self._flows.head() is not None or self._flows.background_head() is not None

    def _send_next(
        self, outgoing: Outgoing, rows: int, now: float
    ) -> tuple[list[Buffer], int] | None:
        count = min(rows, outgoing.segments - outgoing.next_index)
        laid = self._send_rows(outgoing, outgoing.next_index, count, now)
        outgoing.next_index += count
        return laid

    def _next_background(
        self, rows: int, may_begin: bool, now: float
    ) -> tuple[list[Buffer], int] | None:
        """Return a burst of what can wait, if its own window has room.

        Args:
            may_begin: nothing else waits for credit; else a body would take what comes free of it.
        """
        resend, current = self._resend_waiting, self._waiting_current
        lost = next(iter(resend), None)
        while lost is not None and not lost.lost:
            del resend[lost]
            lost = next(iter(resend), None)
        head = lost or current
        if head is None and may_begin:
            head = self._flows.background_head()
        if head is None:
            return None
        background = self._congestion.background
        room = background.window_bytes - self._flight.background_bytes
        if room <= 0:
            background.is_full = True
            return None
        rows = max(1, min(rows, int(room) // self.stride))
        if lost is not None:
            return self._send_lost(lost, rows, now)
        if current is None:
            if not self._transfers.may_start(head, now):
                return None
            self._flows.remove(head)
            current = self._waiting_current = head
            self._transfers.start(current)
        laid = self._send_next(current, rows, now)
        if current.next_index >= current.segments:
            self._waiting_current = None
        return laid

    def _may_lend(self, outgoing: Outgoing) -> bool:
        """Tell whether a body that is to begin goes through the lane."""
        lane = self.lane
        return lane is not None and not outgoing.background and lane.takes(outgoing.plain_bytes)

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
        burst = self._flight.take_number()
        outgoing.note_sent(index, index + count, burst)
        buffers, size = self._layout.rows(outgoing, index, count, burst)
        if self.large_since is None and min(size, self.stride) > wire.MIN_DATAGRAM_BYTES:
            self.large_since = now
        self._flight.add(burst, size, now, outgoing.background)
        return buffers, self.stride

    def _send_bundles(
        self, lost: OrderedDict[Outgoing, None] | None, rows: int, now: float
    ) -> tuple[list[Buffer], int] | None:
        """Pack small bodies into up to `rows` datagrams of one size.

        Args:
            lost: those to send again; None for new ones.
        """
        flows, transfers = self._flows, self._transfers
        burst = self._flight.next_burst
        limit = self.stride - self.overhead_bytes
        datagrams: list[list[Outgoing]] = []
        sizes: list[int] = []
        size = limit + 1
        while True:
            outgoing = flows.head() if lost is None else next(iter(lost), None)
            if outgoing is None:
                break
            is_lent = self._may_lend(outgoing) if lost is None else outgoing.loan is not None
            content_bytes = wire.REFERENCE.size if is_lent else outgoing.body_bytes
            added = wire.RECORD_BYTES + content_bytes
            if size + added > limit:
                if len(datagrams) == rows:
                    break
                datagrams.append([])
                sizes.append(0)
                size = wire.BUNDLE_HEADER_BYTES
            if lost is not None:
                del lost[outgoing]
                if outgoing.transfer not in transfers.outstanding:
                    continue
                self.retransmitted_segments += 1
            else:
                if not (outgoing.is_small or is_lent) or not transfers.may_start(outgoing, now):
                    break
                flows.popleft()
                if is_lent:
                    assert self.lane is not None
                    outgoing.lend(self.lane)
                transfers.start(outgoing)
            outgoing.note_sent(0, 1, burst)
            size += added
            sizes[-1] = size
            datagrams[-1].append(outgoing)
            if is_lent and lost is None:
                break  # the neighbour may have this one while the next one is laid
        while datagrams and not datagrams[-1]:
            datagrams.pop()
            sizes.pop()
        if not datagrams:
            return None
        self._flight.take_number()
        laid, longest = self._layout.bundles(datagrams, sizes, burst)
        if longest > wire.MIN_DATAGRAM_BYTES and self.large_since is None:
            self.large_since = now
        self._flight.add(burst, len(laid), now, background=False)
        return [laid], longest

    # --- what has to leave again, and what arrived ----------------------------------------------

    def find_lost(self, outgoing: Outgoing, floor: int) -> bool:
        """Queue lost segments of one transfer; tell whether some may turn out lost later.

        Args:
            floor: the last burst of which all that is missing counts as lost.
        """
        was_queued = bool(outgoing.lost)
        lost = outgoing.find_lost(floor)
        if lost:
            self._congestion.on_loss(min(lost * self.stride, outgoing.record_bytes))
            if outgoing.is_small:
                outgoing.lost.clear()
                self._resend_small[outgoing] = None
            elif not was_queued:
                self._queue_again(outgoing)
        return lost is not None

    def take_damage(self, outgoing: Outgoing, frame: wire.DamagedFrame) -> None:
        """Send again what arrived altered. That is no sign of a full queue."""
        was_queued = bool(outgoing.lost)
        burst = wire.expand(frame.burst, self._flight.largest_acked)
        if outgoing.take_damage(frame.base, frame.bitmap, burst) and not was_queued:
            self._queue_again(outgoing)

    def _queue_again(self, outgoing: Outgoing) -> None:
        (self._resend_waiting if outgoing.background else self._resend)[outgoing] = None

    def note_arrived(self, outgoing: Outgoing) -> None:
        """Something of this arrived: if it takes large datagrams, they arrive."""
        if outgoing.plain_bytes > self._sure_bytes and outgoing.loan is None:
            self.large_since = self._flight.newest_sent_at
