"""One established session with a neighbour: a sender, a receiver and what goes on between them.

Source: docs/protocol/hop.md, "Sessions".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.address_proof import AddressProof
from packetcloud.chunk.hop.agreement import Agreement
from packetcloud.chunk.hop.api import (
    MAX_PREFIX_BYTES,
    Body,
    Buffer,
    Deferral,
    HopConfig,
    HopReceiver,
    Refusal,
    Role,
    Settlement,
)
from packetcloud.chunk.hop.buffers import BufferPool, ByteArray, FlatBuffer, Store, StoredBody
from packetcloud.chunk.hop.lane import Lane
from packetcloud.chunk.hop.liveness import Liveness
from packetcloud.chunk.hop.receiver import Receiver
from packetcloud.chunk.hop.rekey import Rekeying
from packetcloud.chunk.hop.repair import DigestBudget
from packetcloud.chunk.hop.rtt import MAX_ACK_DELAY_S, RttEstimator
from packetcloud.chunk.hop.sender import Sender
from packetcloud.chunk.hop.stride_negotiation import StrideNegotiation
from packetcloud.chunk.hop.suites import Suite
from packetcloud.chunk.hop.vigil import NEAR_S, Vigil
from packetcloud.chunk.messages import TASK_ID_BYTES, BodyKind
from packetcloud.chunk.reasons import Reason

BURSTS_PER_TURN = 4
"""Bursts that one session sends before the next session has its turn: 2 MiB."""
REFUSAL_REPEAT_S = 0.05
"""Refusals are repeated this often until the sender has confirmed them."""
SKIP_AFTER_COUNT = 32
"""After 32 to 63 bursts of a sealed session one number is left out, at random: a neighbour that
acknowledges ahead of what arrives names it before long. Without seals links may alter numbers."""

COUNTERS = (
    "retransmitted_segments",
    "duplicate_segments",
    "damaged_segments",
    "moves",
    "mtu_fallbacks",
    "rekeyings",
    "probes",
    "received_bodies",
    "refused_too_large",
    "refused_store_full",
    "window_full",
    "refused_not_now",
    "parked_flows",
    "busy_unlisted",
    "withheld_acks",
    "evicted_transfers",
    "lent_bodies",
    "borrowed_bodies",
)
"""What a session counts, by name."""

_KINDS = frozenset(BodyKind)

Datagram = tuple[Any, list[Buffer], int]
"""Address, buffers of a burst, bytes of each of its datagrams."""


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """What a node shares with each of its sessions."""

    config: HopConfig
    window_bytes: int
    """What the socket's receive buffer can take from one neighbour."""
    pool: BufferPool
    upper: HopReceiver
    """The layer above."""
    wake: Callable[[Session], None]
    """Called with a session that has something to send outside of a receive."""
    on_fault: Callable[[], None]
    """Called inside the handler of an exception that the layer above raised."""
    make_room: Callable[[int, float], None]
    """Called with bytes and the time when all neighbours together hold too much for them."""
    dropped: Counter[str]
    """Counts datagrams that are dropped, by reason."""
    random_bytes: Callable[[int], bytes]
    digest_budget: DigestBudget
    """How often questions for digests are answered."""
    vigil: Vigil[Session]
    """Told of questions to services, and of their answers."""


class Session:
    """A neighbour, as `hop.api.Neighbour` describes it."""

    def __init__(self, agreement: Agreement, around: Surroundings, now: float) -> None:
        parameters, ring, envelope = agreement.parameters, agreement.ring, agreement.envelope
        config, random_bytes, wake = around.config, around.random_bytes, around.wake
        self.guid = agreement.guid
        self.public_key = agreement.public_key
        self.role = Role(parameters.role)
        self.instance = parameters.instance
        self.peer_address = agreement.address
        self.local_id = agreement.local_id
        self.remote_id = agreement.remote_id
        self.stride = stride = agreement.datagram_bytes
        self.suite = ring.suite if ring is not None else Suite.OPEN
        self._is_open = ring is None
        self.is_up = True
        self.confirm = b""
        """The CONFIRM that began the session, until the neighbour has spoken on it: then its
        handshake is over too."""
        self.close_reason = ""
        self._envelope = envelope
        self._proof = AddressProof(random_bytes)
        self._challenged = b""
        """The token of the last PATH_CHALLENGE."""
        self._answer: Datagram | None = None
        """The PATH_RESPONSE that is due."""
        self.moves = 0
        self.lane_token = agreement.lane_token
        self._lane: Lane | None = None
        self._last_lane_counts = (0, 0)
        self._ring: Callable[[], None] | None = None
        """Wakes the neighbour of the lane."""
        self._rekeying: Rekeying | None = None
        if ring is not None:
            self._rekeying = Rekeying(
                ring,
                random_bytes,
                config.rekey_after_s,
                config.rekey_after_bytes,
                lambda: self.sender.transfers.oldest_epoch,
                now,
                is_client=ring.is_client,
            )
        self.rtt = RttEstimator()
        self._upper = around.upper
        self._wake = wake
        self._vigil = around.vigil
        self._leads_to: Session | None = None
        """Where the last body of this neighbour went on to, to be worked on."""
        self._newest = -1
        """The newest transfer of which something came."""
        self._is_forewarning = False
        self._on_fault = around.on_fault
        self._liveness = Liveness(config.idle_timeout_s, config.keepalive_s, now)
        self._withheld_acks = False
        """It sent, but acknowledged nothing for so long that the session ended."""
        self.receiver = Receiver(
            around.pool,
            config,
            stride,
            around.window_bytes,
            ring,
            around.dropped,
            self._deliver,
            lambda: wake(self),
            around.make_room,
        )
        self.sender = Sender(
            agreement.remote_id,
            stride,
            parameters.max_body_bytes,
            parameters.credit_bytes,
            parameters.window_bytes,
            ring,
            envelope,
            around.pool,
            self.rtt,
            self._settle,
            (lambda: SKIP_AFTER_COUNT + random_bytes(1)[0] % SKIP_AFTER_COUNT) if ring else None,
            around.digest_budget,
        )
        self._negotiation: StrideNegotiation | None = None
        """In an open session the routes are taken at their word."""
        if ring is not None:
            self._negotiation = StrideNegotiation(
                stride, envelope, self.sender, self.receiver, self.rtt, now
            )
        self._silence = self.sender.silence
        self.rtt.add_sample(agreement.rtt_s, 0.0, now)

    # --- hop.api.Neighbour ----------------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        return self.peer_address[0], self.peer_address[1]

    @property
    def queued_bytes(self) -> int:
        return self.sender.queued_bytes

    def send(
        self,
        kind: BodyKind,
        prefix: bytes,
        payload: Buffer,
        token: object,
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        self._check_body(kind, prefix, flow)
        self.sender.queue(kind, prefix, payload, token, flow, background)
        self._wake(self)

    def send_body(
        self,
        kind: BodyKind,
        body: Body,
        token: object,
        prefix: bytes = b"",
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        self._check_body(kind, prefix, flow)
        if (
            not prefix
            and self.suite is Suite.OPEN
            and isinstance(body, StoredBody)
            and body.rows is not None
            and body.rows.stride == self.stride
        ):
            self.sender.queue_rows(kind, body, token, flow, background)
        else:
            self.sender.queue(kind, prefix, body.contiguous(), token, flow, background)
        self._wake(self)

    def cancel(self, token: object) -> None:
        self.sender.cancel(token)
        self._wake(self)

    def is_busy(self, flow: int) -> bool:
        return flow in self.sender.flows.parked

    def decide(self, body: Body, refusal: Refusal | None = None) -> None:
        self.receiver.custody.decide(body, refusal)

    def close(self, reason: str = "") -> None:
        if self.is_up:
            self.close_reason = reason or "closed"
            self.is_up = False
            self._wake(self)

    def _check_body(self, kind: int, prefix: bytes, flow: int) -> None:
        """Raise for what would fail later, when the bodies of others leave with it."""
        if not self.is_up:
            raise LocalMisuseError(f"the session with {self.guid.short} has ended")
        if kind not in _KINDS or not 0 <= flow <= wire.MAX_FLOW or len(prefix) > MAX_PREFIX_BYTES:
            raise LocalMisuseError(
                f"body of kind {kind}, flow {flow}, prefix of {len(prefix)} bytes"
            )
        if kind is BodyKind.TASK:
            if self._ring is not None and not self._vigil.has_question:
                self._ring()
            self._vigil.asked(self, prefix[:TASK_ID_BYTES], self.round_trip_s)

    # --- shared memory --------------------------------------------------------------------------

    def open_lane(self, lane: Lane) -> None:
        """Take bodies that the neighbour lends, from now on; before `use_lane`, in the place of one
        that it never mapped."""
        assert not self.lends, "a lane that is used stays as long as its session"
        self._lane = self.receiver.lane = lane

    @property
    def lends(self) -> bool:
        """Both sides use the lane."""
        return self.sender.departures.lane is not None

    def use_lane(self, ring: Callable[[], None] | None = None) -> None:
        """The neighbour has mapped the lane: lend bodies too.

        Args:
            ring: wakes the neighbour, which then waits for what is about to come.
        """
        assert self._lane is not None, "it was opened before"
        self.sender.use_lane(self._lane)
        self._ring = ring

    @property
    def has_lane(self) -> bool:
        return self._lane is not None

    @property
    def round_trip_s(self) -> float:
        """The least that the way there and back takes: next to nothing to who shares memory,
        however long it slept when it was asked last."""
        return 0.0 if self._lane is not None else self.rtt.minimum_s

    @property
    def is_near(self) -> bool:
        """Staying awake for it may pay."""
        return self.round_trip_s <= NEAR_S

    # --- receiving ------------------------------------------------------------------------------

    def receive_rows(
        self,
        array: ByteArray,
        length: int,
        row_bytes: int,
        placed: tuple[Store, int] | None,
        now: float,
    ) -> list[memoryview]:
        """Take in a train of DATA; see `Receiver.receive_rows`.

        The neighbour lives if that brings what was not here before; in an open session anyway.
        """
        receiver = self.receiver
        known = receiver.fresh_segments
        try:
            return receiver.receive_rows(array, length, row_bytes, placed, now)
        finally:
            if self._is_open or receiver.fresh_segments > known:
                self._heard(now)
            if self._leads_to is not None:
                self._note_begun(self._leads_to)

    def receive_split(
        self, store: FlatBuffer, row: int, count: int, last_bytes: int, now: float
    ) -> bool:
        """Take in jumbo datagrams; see `Receiver.receive_split`."""
        receiver = self.receiver
        known = receiver.fresh_segments
        try:
            return receiver.receive_split(store, row, count, last_bytes, now)
        finally:
            if self._is_open or receiver.fresh_segments > known:
                self._heard(now)
            if self._leads_to is not None:
                self._note_begun(self._leads_to)

    def _note_begun(self, next_one: Session) -> None:
        """Forewarn whoever the last body went on to when the next one begins to come."""
        in_hand = self.receiver.incoming.in_hand
        if in_hand is not None and in_hand.transfer > self._newest:
            self._newest = in_hand.transfer
            next_one.forewarn()

    def forewarn(self) -> None:
        """Have a neighbour that is near, and probably asleep, told that a body will follow."""
        if not self.is_up or not self.is_near or self._vigil.has_question:
            return
        if self._ring is not None:
            self._ring()
            return
        self._is_forewarning = True
        self._wake(self)

    def _heard(self, now: float) -> None:
        """The neighbour lives, and hears what is asked."""
        self._liveness.heard(now)
        self._silence.heard()

    def receive_bundle(self, data: memoryview, now: float) -> None:
        """Take in a BUNDLE datagram. Raises: ProtocolError."""
        burst, count, records = self._envelope.open_bundle(data)
        self._heard(now)
        try:
            self.receiver.receive_bundle(burst, count, records, len(data), now)
        except ProtocolError as error:
            if error.reason == "bad_reference":
                self.close("it lends what is not there")
            raise

    def receive_control(self, datagram: bytes, now: float) -> None:
        """Take in a CONTROL datagram. Raises: ProtocolError."""
        self.receive_frames(self._envelope.open_control(datagram), now)

    def receive_from_elsewhere(
        self, datagram: bytes, address: Any, now: float
    ) -> Iterator[Datagram]:
        """Take in a CONTROL datagram from an address that is not the neighbour's, if it is his.

        Yields:
            What goes to that address: at most one datagram, no longer than this one.

        Raises:
            ProtocolError: nothing proves that it is his, as in an open session.
        """
        if self.suite is Suite.OPEN:
            check_address(self, address)
        frames = self._envelope.open_control(datagram)
        is_newest = self._envelope.is_newest
        for frame in wire.decode_frames(frames):
            if isinstance(frame, wire.PathResponseFrame) and self._proof.is_proven_by(
                address, frame.token
            ):
                self._move(address, now)
        self.receive_frames(frames, now, address)
        if is_newest and address != self.peer_address:
            challenge = self._envelope.control([self._proof.challenge(address)])
            if len(challenge) <= len(datagram):
                yield address, [challenge], len(challenge)

    def _move(self, address: Any, now: float) -> None:
        """The neighbour is at `address` now. What is under way to the old one is found lost."""
        self.peer_address = address
        self.moves += 1
        self._restart_path(now)
        self.receiver.acks.due_now = True

    def _restart_path(self, now: float) -> None:
        """The path is another one: what was known of the old one does not hold."""
        self.rtt.reset()
        self.sender.flight.restart_path()
        if self._negotiation is not None:
            self._negotiation.restart(now)

    def _receive_ack(self, frame: wire.AckFrame, busy: tuple[int, ...], now: float) -> None:
        try:
            self.sender.receive_ack(frame, busy, now)
        except ProtocolError:
            if self.sender.was_lied_to:
                self.close("it acknowledges what was never sent")
            raise

    def receive_frames(self, frames: bytes, now: float, source: Any = None) -> None:
        """Take in what a CONTROL datagram carried.

        Args:
            source: where it came from, if not from the neighbour's address.

        Raises:
            ProtocolError: a frame breaks the format or lies; those before it were taken.
        """
        self._heard(now)
        self.confirm = b""
        busy: tuple[int, ...] = ()
        has_ack = has_whole = says_something = False
        for frame in wire.decode_frames(frames):
            says_something = says_something or not isinstance(frame, wire.PaddingFrame)
            match frame:
                case wire.AckFrame():
                    if has_ack:
                        raise ProtocolError("repeated_frame", "ACK")
                    has_ack = True
                    known = self.sender.flight.largest_acked
                    self._receive_ack(frame, busy, now)
                    if self._negotiation is not None and self.sender.flight.largest_acked > known:
                        self._negotiation.note_heard()
                case wire.BusyFrame(flows):
                    busy = flows
                case wire.WholeFrame():
                    if has_whole:
                        raise ProtocolError("repeated_frame", "WHOLE")
                    has_whole = True
                    self.sender.receive_whole(frame)
                case wire.ProbeFrame(burst):
                    self.receiver.acks.note_probe(burst, now)
                case wire.BlockedFrame(wanted_bytes):
                    self.receiver.custody.note_blocked(wanted_bytes, now)
                case wire.RefusedFrame():
                    self.sender.receive_refusals(frame)
                case wire.ForgetFrame(entries):
                    for transfer, body_bytes in entries:
                        self.receiver.custody.forget(transfer, body_bytes)
                case wire.DigestsWantedFrame():
                    self.sender.receive_digests_wanted(frame, now)
                case wire.DigestsFrame():
                    self.receiver.receive_digests(frame)
                case wire.DamagedFrame():
                    self.sender.receive_damaged(frame)
                case wire.StrideFrame():
                    self._receive_stride(frame)
                case wire.RekeyFrame():
                    self._receive_rekey(frame, now)
                case wire.PathChallengeFrame(token):
                    there = self.peer_address if source is None else source
                    self._answer_challenge(token, there, now)
                case wire.CloseFrame(reason):
                    self.is_up = False
                    self.close_reason = reason or "closed by the neighbour"
        if not says_something and self.is_near:
            self._vigil.warned(now)

    def _answer_challenge(self, token: bytes, address: Any, now: float) -> None:
        """Say the token back to where it came from: the neighbour sees us somewhere else."""
        if token != self._challenged:
            self._challenged = token
            self._restart_path(now)
        response = self._envelope.control([wire.PathResponseFrame(token).to_bytes()])
        self._answer = address, [response], len(response)

    def _receive_stride(self, frame: wire.StrideFrame) -> None:
        if self._negotiation is None:
            raise ProtocolError("unexpected_stride", "in an open session")
        self._negotiation.receive(frame)

    def _receive_rekey(self, frame: wire.RekeyFrame, now: float) -> None:
        if self._rekeying is None:
            raise ProtocolError("unexpected_rekey", "in an open session")
        if self._rekeying.receive(frame, self._used_bytes, now):
            self.receiver.acks.due_now = True

    @property
    def _used_bytes(self) -> int:
        """What went one way or the other, whichever is more."""
        return max(self.sender.flight.sent_bytes, self.receiver.acks.received_bytes)

    def suspect(self, now: float) -> None:
        """The neighbour's host says that nobody listens: believe it unless it answers soon."""
        self._liveness.suspect(self.rtt.probe_timeout_s(0), now)

    def _deliver(self, kind: BodyKind, body: Body) -> Refusal | Deferral | None:
        vigil = self._vigil
        if kind is BodyKind.VERDICT:
            vigil.answered(self, body.head(TASK_ID_BYTES))
        elif kind is BodyKind.TASK:
            vigil.met()
        vigil.asked_last = None
        try:
            return self._upper.body_received(self, kind, body)
        except Exception:  # a fault above costs this body, not others of its train or the port
            self._on_fault()
            return Refusal(Reason.INTERNAL_ERROR)
        finally:
            self._leads_to = vigil.asked_last

    def _settle(self, token: object, settlement: Settlement, reason: int) -> None:
        try:
            self._upper.body_settled(self, token, settlement, reason)
        except Exception:  # the body is settled whatever is made of it, and so are those behind
            self._on_fault()

    # --- sending --------------------------------------------------------------------------------

    def control_to_send(self, now: float) -> Iterator[Datagram]:
        """Yield the control datagrams that are due."""
        frames = []
        receiver = self.receiver
        if self._answer is not None:
            yield self._answer
            self._answer = None
        if self._is_forewarning:
            self._is_forewarning = False
            if not self.sender.queued_bytes:  # else it leaves now
                yield self._control([wire.PaddingFrame(0).to_bytes()])
        if self._rekeying is not None:
            patience_s = self.rtt.probe_timeout_s(0)
            for frame in self._rekeying.answers():
                yield self._control([frame])
            if self._silence.may_ask(now):
                for frame in self._rekeying.offers(self._used_bytes, patience_s, now):
                    self._silence.asked(now)
                    yield self._control([frame])
        if receiver.acks.is_due():
            frames = receiver.acks.take(now)
            if receiver.outcomes.refused:
                receiver.acks.due_at = now + max(REFUSAL_REPEAT_S, 2 * self.rtt.smoothed_s)
        elif receiver.acks.due_at is None and receiver.acks.unacked_bytes:
            receiver.acks.due_at = now + min(MAX_ACK_DELAY_S, self.rtt.smoothed_s / 4 + 0.0005)
        while (forget := self.sender.transfers.take_forgets(now)) is not None:
            if sum(map(len, frames)) + len(forget) > wire.MAX_FRAMES_BYTES:
                yield self._control(frames)
                frames = []
            frames.append(forget)
        if frames:
            yield self._control(frames)
        for digests in self.sender.digest_answers.take():
            yield self._control([digests])
        if receiver.repairs.transfers:
            questions = receiver.repair_frames(self.rtt.probe_timeout_s(0), now)
            while self._silence.may_ask(now) and (question := next(questions, b"")):
                self._silence.asked(now)
                yield self._control([question])
        if self._negotiation is not None:
            for datagram in self._negotiation.datagrams(now):
                yield self.peer_address, [datagram], len(datagram)

    def bursts_to_send(self, now: float) -> Iterator[Datagram]:
        """Yield up to `BURSTS_PER_TURN` bursts, or what asks for leave to send more."""
        for _ in range(BURSTS_PER_TURN):
            burst = self.sender.departures.next_burst(now)
            if burst is None:
                if not self._silence.may_ask(now):
                    return
                question = self.sender.departures.take_question(now)
                if question is not None:
                    self._silence.asked(now)
                    yield self._control([question])
                return
            yield self.peer_address, burst[0], burst[1]

    def _control(self, frames: list[bytes]) -> Datagram:
        datagram = self._envelope.control(frames)
        return self.peer_address, [datagram], len(datagram)

    def close_datagram(self) -> Datagram:
        """Return the datagram that tells the neighbour that this session ends."""
        return self._control([wire.CloseFrame(self.close_reason).to_bytes()])

    def ack_datagram(self, now: float) -> Datagram:
        """Return an ACK, whether one is due or not; the first one ends the handshake."""
        return self._control(self.receiver.acks.take(now))

    # --- timers ---------------------------------------------------------------------------------

    def next_timeout(self) -> float:
        """Return when `handle_timeout` must be called at the latest."""
        acks, silent_until = self.receiver.acks, self._silence.until
        deadline = self._liveness.next_timeout(self.sender.flight.unanswered_since, silent_until)
        if acks.due_at is not None:
            is_answer = acks.unacked_bytes > 0
            deadline = min(deadline, acks.due_at if is_answer else max(acks.due_at, silent_until))
        if self._negotiation is not None:
            deadline = min(deadline, self._negotiation.next_timeout())
        if self._rekeying is not None:
            rekey_at = self._rekeying.next_timeout(self.rtt.probe_timeout_s(0))
            deadline = min(deadline, max(rekey_at, silent_until))
        if self.receiver.repairs.transfers:
            repair_at = self.receiver.repairs.due_at(self.rtt.probe_timeout_s(0))
            deadline = min(deadline, max(repair_at, silent_until))
        sender_deadline = self.sender.next_timeout()
        return deadline if sender_deadline is None else min(deadline, sender_deadline)

    def handle_timeout(self, now: float) -> Iterator[Datagram]:
        """Do what is due at `now`; `is_up` is False afterwards when the neighbour is gone."""
        if self._liveness.is_gone(now):
            self.is_up = False
            self.close_reason = "port closed" if self._liveness.is_suspect else "no answer"
            return
        if self._liveness.is_withholding(self.sender.flight.unanswered_since, now):
            # It hears nothing of us, or keeps us waiting on purpose: what is on its way would grow.
            self._withheld_acks = True
            self.close("it acknowledges nothing")
            return
        if self._rekeying is not None and self._rekeying.is_overdue(self._used_bytes, now):
            self.close("it does not take new keys")
            return
        receiver, silence = self.receiver, self._silence
        receiver.incoming.rest(now)
        frames = list(self.sender.handle_timeout(now))
        # A burst that is unanswered is asked about anyway; a suspect has no time for that.
        is_asked = self.sender.flight.unanswered_since is not None
        if self._liveness.is_suspect or (silence.may_ask(now) and not frames):
            is_due = self._liveness.must_ask(now)
            if is_due and (self._liveness.is_suspect or not is_asked):
                frames.append(self.sender.flight.probe(now))
        if frames:
            silence.asked(now)
        acks = receiver.acks
        if acks.due_at is not None and now >= acks.due_at:
            # Without anything new it says again what was refused.
            if acks.unacked_bytes:
                acks.due_now = True
            elif silence.may_ask(now):
                silence.asked(now)
                acks.due_now = True
        if frames:
            yield self._control(frames)

    def counters(self) -> dict[str, int]:
        """Return what this session has counted so far: `COUNTERS`."""
        sender, receiver = self.sender, self.receiver
        return {
            "retransmitted_segments": sender.retransmitted_segments,
            "duplicate_segments": receiver.duplicate_segments,
            "damaged_segments": receiver.damaged_segments,
            "moves": self.moves,
            "mtu_fallbacks": self._negotiation.fallbacks if self._negotiation is not None else 0,
            "rekeyings": self._rekeying.count if self._rekeying is not None else 0,
            "probes": sender.probes,
            "received_bodies": receiver.custody.received_bodies,
            "refused_too_large": receiver.custody.refused_unread[Reason.PAYLOAD_TOO_LARGE],
            "refused_store_full": receiver.custody.refused_unread[Reason.STORE_FULL],
            "refused_not_now": receiver.custody.refused_unread[wire.NOT_NOW],
            "busy_unlisted": receiver.acks.busy_unlisted_count,
            "parked_flows": sender.flows.parked_count,
            "window_full": sender.transfers.full_count,
            "withheld_acks": int(self._withheld_acks),
            "evicted_transfers": receiver.custody.evicted_transfers,
            "lent_bodies": self._lane_counts()[0],
            "borrowed_bodies": self._lane_counts()[1],
        }

    def end(self) -> None:
        """Release every buffer and settle what is left as LOST."""
        self.is_up = False
        self.receiver.close()
        self.sender.close()
        # Its memory and descriptors go now, and not when the collector finds this session.
        self._last_lane_counts = self._lane_counts()
        self._lane = self._ring = self._leads_to = None

    def _lane_counts(self) -> tuple[int, int]:
        """Return bodies lent and borrowed."""
        lane = self._lane
        return (lane.lent_bodies, lane.borrowed_bodies) if lane else self._last_lane_counts


def check_address(session: Session, address: Any) -> None:
    """Raise unless a datagram for `session` came from where the neighbour is."""
    if address != session.peer_address:
        raise ProtocolError("wrong_address", str(address))
