"""Which transfers of a neighbour are admitted here, and what becomes of each.

A transfer is admitted while the neighbour, its flow and all neighbours together may hold more. It
ends in one of four ways: the layer above takes custody, it is refused, its sender gives it up, or
it gives way to others because it came in too slowly.

Source: docs/protocol/hop.md, "Receiving", "Custody that takes time", "Flows".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.acks import Acks
from packetcloud.chunk.hop.api import Body, Deferral, Refusal
from packetcloud.chunk.hop.buffers import BufferPool, SmallBody, StoredBody
from packetcloud.chunk.hop.incoming import Incoming
from packetcloud.chunk.hop.incoming_transfers import MAX_PARTIALS_COUNT, IncomingTransfers
from packetcloud.chunk.hop.keys import KeyRing
from packetcloud.chunk.hop.lane import Lane
from packetcloud.chunk.hop.neighbour_credit import NeighbourCredit
from packetcloud.chunk.hop.outcomes import Outcomes
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason

DeliverBody = Callable[[BodyKind, Body], Refusal | Deferral | None]


class Custody:
    """Admits the transfers of one neighbour and brings each to its end.

    Args:
        credit, incoming, outcomes, acks: the neighbour's; nobody else admits or ends transfers.
        pool: where bodies out of a lane are copied to.
        max_body_bytes: of the largest body that is taken, tag not included.
        ring: the keys; None in an open session.
        deliver: called with each whole body; returns None to take custody, a refusal, or that it
            will `decide` later.
        on_room: called when the sender must learn at once what came free.
    """

    def __init__(
        self,
        credit: NeighbourCredit,
        incoming: IncomingTransfers,
        outcomes: Outcomes,
        acks: Acks,
        max_body_bytes: int,
        ring: KeyRing | None,
        pool: BufferPool,
        deliver: DeliverBody,
        on_room: Callable[[], None],
    ) -> None:
        self._credit = credit
        self._pool = pool
        self._incoming = incoming
        self._outcomes = outcomes
        self._acks = acks
        self._max_wire_bytes = max_body_bytes + (wire.TAG_BYTES if ring is not None else 0)
        """Bytes of the largest body taken, as it travels."""
        self._ring = ring
        self._deliver = deliver
        self._on_room = on_room
        self.received_bodies = 0
        self.received_body_bytes = 0
        self.refused_unread: Counter[int] = Counter()
        """Transfers that were refused before their bytes were stored."""
        self.evicted_transfers = 0
        """Unfinished transfers that gave way."""

    # --- admission ------------------------------------------------------------------------------

    def begin(
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
        if len(self._incoming.transfers) >= MAX_PARTIALS_COUNT and not self.evict_slow(1, now):
            raise ProtocolError("partials_full", f"transfer {transfer}")
        if body_bytes > self._max_wire_bytes:
            self._refuse_unread(transfer, body_bytes, Reason.PAYLOAD_TOO_LARGE)
            return None
        reason = self._credit.refusal(body_bytes, flow, now)
        if reason is not None:
            self._refuse_unread(transfer, body_bytes, reason)
            return None
        keys = self._ring.receive_keys(second >> 4) if self._ring is not None else None
        if keys is not None:
            self._outcomes.note_sealed(transfer, keys)
        if self._credit.hold(body_bytes, flow):
            self._acks.due_now = True
        return self._incoming.begin(transfer, second, flow, body_bytes, segments, keys, now)

    def take_small(
        self, transfer: int, kind: BodyKind, flow: int, data: memoryview, size: int, now: float
    ) -> None:
        """Take in a body that came whole in one datagram, in `size` bytes.

        Raises:
            ProtocolError: not admitted.
        """
        if self._is_admitted(transfer, flow, size, now):
            body = SmallBody(bytearray(data), self._credit.release, size, flow)
            self.settle(transfer, kind, body)

    def take_lent(
        self,
        transfer: int,
        kind: BodyKind,
        flow: int,
        lane: Lane,
        start: int,
        size: int,
        now: float,
    ) -> None:
        """Take in a body that lies in the lane from `start` on; it is copied before anybody looks.

        Raises:
            ProtocolError: not admitted.
        """
        self._check_credit(transfer, size, now)
        if size > self._max_wire_bytes:
            self._refuse_unread(transfer, size, Reason.PAYLOAD_TOO_LARGE)
        elif self._is_admitted(transfer, flow, size, now):
            copy = lane.borrow(start, size, self._pool)
            release = self._credit.release
            if isinstance(copy, bytearray):
                self.settle(transfer, kind, SmallBody(copy, release, size, flow))
            else:
                body = StoredBody(copy, size, self._pool, release, size, flow)
                self.settle(transfer, kind, body)

    def _is_admitted(self, transfer: int, flow: int, size: int, now: float) -> bool:
        """Hold credit for a body that is here whole, or refuse it.

        Raises:
            ProtocolError: beyond the window or without credit.
        """
        self._check_credit(transfer, size, now)
        reason = self._credit.refusal(size, flow, now)
        if reason is not None:
            self._refuse_unread(transfer, size, reason)
            return False
        if self._credit.hold(size, flow):
            self._acks.due_now = True
        return True

    def _check_credit(self, transfer: int, body_bytes: int, now: float) -> None:
        """Raises: ProtocolError, beyond the window or without credit."""
        if self._outcomes.is_beyond_window(transfer):
            raise ProtocolError("beyond_window", f"transfer {transfer}")
        lacking = self._credit.lacking_bytes(body_bytes)
        if (
            lacking > 0
            and body_bytes <= self._max_wire_bytes
            and self.evict_slow(lacking, now) < lacking
        ):
            self._credit.is_starved = True
            self._acks.due_now = True
            raise ProtocolError("over_credit", f"{body_bytes} bytes")

    def note_blocked(self, wanted_bytes: int, now: float) -> None:
        """The sender has a body of `wanted_bytes`, tag included, to start and no credit."""
        lacking = self._credit.lacking_bytes(wanted_bytes)
        if lacking > 0 and wanted_bytes <= self._max_wire_bytes:
            self.evict_slow(lacking, now)
        self._credit.is_starved = True
        self._acks.due_now = True

    def evict_slow(self, wanted_bytes: int, now: float, *, slow_only: bool = True) -> int:
        """Refuse unfinished transfers, the slowest first, until their bodies are `wanted_bytes`.

        The sender is told, as if the store were full: whoever has the chunk sends it again later.

        Args:
            slow_only: spare those that are young or come in at a fair rate.

        Returns:
            Bytes of what was refused; perhaps fewer than wanted.
        """
        freed = 0
        for transfer in self._incoming.slowest_first(now, slow_only=slow_only):
            if freed >= wanted_bytes:
                break
            freed += self.give_up(transfer, Reason.STORE_FULL)
            self.evicted_transfers += 1
        return freed

    # --- the end --------------------------------------------------------------------------------

    def settle(self, transfer: int, kind: BodyKind, body: Body) -> None:
        """Hand a whole body up, and note what the layer above said."""
        size = len(body)
        self.received_bodies += 1
        self.received_body_bytes += size
        self._acks.due_now = True
        answer = self._deliver(kind, body)
        if answer is None:
            self._outcomes.settle(transfer)
        elif answer is Deferral.PENDING:
            self._outcomes.defer(transfer, body)
        else:
            body.release()
            self._outcomes.refuse(transfer, answer.reason)

    def decide(self, body: Body, refusal: Refusal | None) -> None:
        """Settle a body about which the layer above had not decided; nothing if it is too late."""
        if refusal is not None:
            body.release()
        if self._outcomes.decide(body, refusal.reason if refusal is not None else None):
            self._on_room()

    def forget(self, low: int, body_bytes: int) -> None:
        """The sender has settled this transfer for itself, or gave it up."""
        outcomes = self._outcomes
        transfer = wire.expand(low, outcomes.settled_below)
        if outcomes.is_beyond_window(transfer):
            raise ProtocolError("beyond_window", f"transfer {transfer}")
        self._acks.due_now = True
        if not outcomes.forget(transfer):
            self._drop(transfer, body_bytes)
            outcomes.settle(transfer)

    def give_up(self, transfer: int, reason: int, body_bytes: int = 0) -> int:
        """Refuse a transfer that is not whole; arguments and result as of `_drop`."""
        freed = self._drop(transfer, body_bytes)
        self._outcomes.refuse(transfer, reason)
        self._acks.due_now = True
        return freed

    def _refuse_unread(self, transfer: int, body_bytes: int, reason: int) -> None:
        """Refuse a transfer whose bytes were never stored."""
        self.refused_unread[reason] += 1
        self._pass_by(body_bytes)
        self._outcomes.refuse(transfer, reason)
        self._acks.due_now = True

    def _drop(self, transfer: int, body_bytes: int) -> int:
        """Give up a transfer, begun here or not; the books are as if it had come and gone.

        Args:
            body_bytes: what its sender says of it; it matters if it did not begin.

        Returns:
            Bytes of credit that came free.
        """
        incoming = self._incoming.drop(transfer)
        if incoming is None:
            self._pass_by(min(body_bytes, self._max_wire_bytes))
            return 0
        self._credit.release(incoming.body_bytes, incoming.flow)
        return incoming.body_bytes

    def _pass_by(self, size: int) -> None:
        """Count a body that was never stored as held and released: its sender counts it too."""
        if self._credit.hold(size):
            self._acks.due_now = True
        self._credit.release(size)
