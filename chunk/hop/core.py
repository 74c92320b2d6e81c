"""The hop node without its socket: datagrams and the time in, datagrams and upcalls out.

`landing` / `receive_train` / `datagrams_to_send` / `next_timeout` / `handle_timeout`. A train is
what the kernel hands over in one piece: datagrams of one size and one source, the last one perhaps
shorter.

Source: docs/protocol/hop.md; design, sections 3 and 5.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.agreement import Agreement
from packetcloud.chunk.hop.api import AdmitNeighbour, HopConfig, HopReceiver, Role
from packetcloud.chunk.hop.buffers import BufferPool, ByteArray, FlatBuffer, RowBuffer, Store
from packetcloud.chunk.hop.door import Connected, Door, Newcomer
from packetcloud.chunk.hop.handshake import RandomBytes
from packetcloud.chunk.hop.incoming_transfers import EVICTION_PAUSE_S
from packetcloud.chunk.hop.landing import LandingPlace
from packetcloud.chunk.hop.lane import MAX_LANES_COUNT
from packetcloud.chunk.hop.repair import DigestBudget
from packetcloud.chunk.hop.replies import Replies
from packetcloud.chunk.hop.resets import Resets, check_reset
from packetcloud.chunk.hop.session import (
    BURSTS_PER_TURN,
    COUNTERS,
    Datagram,
    Session,
    Surroundings,
    check_address,
)
from packetcloud.chunk.hop.stamps import Stamps
from packetcloud.chunk.hop.suites import offered_suites, parse_networks
from packetcloud.chunk.hop.timers import Timers
from packetcloud.chunk.hop.vigil import Vigil
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID

SAME_KEY = "another process attached with the same key"

COUNTER_NAMES = frozenset(
    {
        *COUNTERS,
        "half_open_forgotten",
        "addresses_forgotten",
        "stamps_forgotten",
        "dead_timers",
        "buffers_freed",
        "buffers_unready",
        "lanes_refused",
        "guests_turned_away",
    }
)
"""What `HopCore.counters` has: of `stats()`, what only ever grows."""

_CONFIRM_BYTE = wire.type_byte(wire.DatagramType.CONFIRM)


class HopCore:
    """All sessions of one node.

    Args:
        upper: the layer above; called inside `receive_train`, `handle_timeout` and `close`.
        random_bytes: unpredictable bytes, such as `os.urandom`.
        datagram_bytes: largest datagram towards an address, from the MTU of the route.
        window_bytes: what the socket's receive buffer can take from one neighbour.
        admit: asked before an inbound neighbour is up.
        on_wake: called when there is something to send outside of a receive.
        on_fault: called inside the handler of an exception that the layer above raised.
        stamps: of the handshakes of this node; without them they count from 1, and a neighbour
            that knows better says so.
        has_fast_aes: this CPU has instructions for AES.
    """

    def __init__(
        self,
        identity: Identity,
        role: Role,
        config: HopConfig,
        upper: HopReceiver,
        random_bytes: RandomBytes,
        datagram_bytes: Callable[[Any], int],
        window_bytes: int,
        admit: AdmitNeighbour | None,
        on_wake: Callable[[], None],
        on_fault: Callable[[], None] = lambda: None,
        stamps: Stamps | None = None,
        has_fast_aes: bool = True,
    ) -> None:
        self.identity = identity
        self.role = role
        self.config = config
        self._upper = upper
        self._datagram_bytes = datagram_bytes
        self._window_bytes = window_bytes
        self._on_wake = on_wake
        self._on_fault = on_fault
        self._admit = admit
        self.stamps = stamps if stamps is not None else Stamps()
        self._has_fast_aes = has_fast_aes
        self._private_links = parse_networks(config.private_links)
        self.pool = BufferPool(config.max_held_bytes)
        self.sessions: dict[int, Session] = {}
        self.dropped: Counter[str] = Counter()
        """Datagrams or trains that were dropped, by reason."""
        self.vigil: Vigil[Session] = Vigil()
        self._surroundings = Surroundings(
            config,
            window_bytes,
            self.pool,
            upper,
            self._wake,
            self._note_fault,
            self._make_room,
            self.dropped,
            random_bytes,
            DigestBudget(),
            self.vigil,
        )
        self._by_remote: dict[int, tuple[Session, ...]] = {}
        """By the id that the neighbour chose: two neighbours may choose the same."""
        self._ended: Counter[str] = Counter()
        """What the sessions that ended had counted."""
        self._active: dict[Session, None] = {}
        self._make_room_at = float("-inf")
        self._replies = Replies(self.dropped)
        self._timers = Timers()
        """Of sessions and handshakes, by session id."""
        self._door = Door(
            identity,
            random_bytes,
            self._parameters,
            self._admit_with_cap,
            self._take_reset,
            self.stamps,
            self._timers,
            self._replies,
            Resets(identity, config.instance, self.dropped),
        )
        self.landing_place = LandingPlace()
        self.lanes_refused = 0
        """Services that got no memory to share, as too many had some."""
        self.guests_turned_away = 0
        """Connections at the door of lanes that gave way to others."""

    # --- connecting -----------------------------------------------------------------------------

    def connect(self, address: Any, expected: GUID | None, done: Connected, now: float) -> None:
        """Begin a handshake; `done` gets the session, or a text that says why there is none."""
        self._door.call(address, expected, done, now)
        self._on_wake()

    def _parameters(self, address: Any) -> wire.Parameters:
        datagram = self.config.max_datagram_bytes or self._datagram_bytes(address)
        return wire.Parameters(
            self.role,
            max(wire.MIN_DATAGRAM_BYTES, min(datagram, wire.MAX_DATAGRAM_BYTES)),
            self.config.max_body_bytes,
            self._window_bytes,
            self.config.credit_bytes,
            self.config.instance,
            offered_suites(address[0], self._private_links, self._has_fast_aes),
        )

    def _admit_with_cap(self, guid: GUID, theirs: wire.Parameters) -> str | None:
        # A restarted neighbour replaces its own session, also in a full house; the other instances
        # of its key stay, and count.
        others = sum(
            (session.guid, session.instance) != (guid, theirs.instance)
            for session in self.sessions.values()
        )
        if others >= self.config.max_neighbours_count:
            self.dropped["neighbours_full"] += 1
            return f"this node has {others} neighbours, as many as it may"
        if self._admit is None:
            return None
        return self._admit(guid, Role(theirs.role), theirs.instance)

    # --- receiving ------------------------------------------------------------------------------

    def landing(self) -> list[memoryview]:
        """Return where the next train shall be received: its likely place, then scratch space.

        `landing_place` has places for several trains.
        """
        return self.landing_place.landing()

    def receive_run(self, rows: RowBuffer, row: int, length: int, address: Any, now: float) -> None:
        """Take in `length` bytes of full datagrams that landed in `rows` from `row` on."""
        array = rows.bytes[row * rows.stride :]
        try:
            self._receive(array, length, min(rows.stride, length), (rows, row), address, now)
        except ProtocolError as error:
            self.dropped[error.reason] += 1

    def receive_elsewhere(
        self, array: ByteArray, length: int, row_bytes: int, address: Any, now: float
    ) -> None:
        """Take in a train that was not received into `landing()`."""
        try:
            self._receive(array, length, row_bytes, None, address, now)
        except ProtocolError as error:
            self.dropped[error.reason] += 1

    def receive_train(self, length: int, row_bytes: int, address: Any, now: float) -> None:
        """Take in a train of `length` bytes that was received into `landing()`."""
        array, placed = self.landing_place.find(length)
        try:
            self._receive(array, length, row_bytes, placed, address, now)
        except ProtocolError as error:
            self.dropped[error.reason] += 1

    def receive_split(
        self, store: FlatBuffer, row: int, count: int, last_bytes: int, address: Any, now: float
    ) -> None:
        """Take in `count` datagrams that landed split in `store` from `row` on.

        Each but the last has the full size of the session that `landing_run` was about.
        """
        head = store.header_rows[row]
        session = self.sessions.get(wire.PREFIX.unpack_from(head)[3])
        try:
            if (
                session is not None
                and head[0] == wire.DATA_BYTE
                and session.receiver.incoming.stride == store.stride
            ):
                check_address(session, address)
                self._active[session] = None
                self.landing_place.session = session
                if session.receive_split(store, row, count, last_bytes, now):
                    return
        except ProtocolError as error:
            self.dropped[error.reason] += 1
            return
        # They lie where others may be placed: take all of them out before looking at the first.
        sizes = [store.stride] * (count - 1) + [last_bytes]
        join = self.landing_place.join
        wholes = [join(store.landing(row + at), size) for at, size in enumerate(sizes)]
        for whole in wholes:
            self.receive_elsewhere(whole, len(whole), len(whole), address, now)

    def _receive(
        self,
        array: ByteArray,
        length: int,
        row_bytes: int,
        placed: tuple[Store, int] | None,
        address: Any,
        now: float,
    ) -> None:
        data = array.data
        if length < wire.PREFIX.size:
            raise ProtocolError("short_datagram", f"{length} bytes")
        first, _, _, local_id = wire.PREFIX.unpack_from(data)
        session = self.sessions.get(local_id)
        if first == wire.DATA_BYTE and session is not None:
            check_address(session, address)
            self._active[session] = None
            self.landing_place.session = session
            others = session.receive_rows(array, length, row_bytes, placed, now)
            for datagram in others:
                try:
                    self._receive_one(datagram, address, now)
                except ProtocolError as error:
                    self.dropped[error.reason] += 1
            return
        if length <= row_bytes:
            self._receive_one(data[:length], address, now)
            return
        # Rows of a train that is not data may lie where data will be written to: take them out.
        copy = memoryview(bytes(data[:length]))
        for start in range(0, length, row_bytes):
            try:
                self._receive_one(copy[start : start + row_bytes], address, now)
            except ProtocolError as error:
                self.dropped[error.reason] += 1

    def _receive_one(self, datagram: memoryview, address: Any, now: float) -> None:
        if len(datagram) < wire.PREFIX.size:
            raise ProtocolError("short_datagram", f"{len(datagram)} bytes")
        first, _, _, local_id = wire.PREFIX.unpack_from(datagram)
        session = self.sessions.get(local_id)
        if session is not None:
            if first == wire.CONTROL_BYTE and address != session.peer_address:
                for answer in session.receive_from_elsewhere(bytes(datagram), address, now):
                    self._replies.add(answer)
                self._active[session] = None
                return
            check_address(session, address)
            self._active[session] = None
            if first == wire.BUNDLE_BYTE:
                session.receive_bundle(datagram, now)
            elif first == wire.CONTROL_BYTE:
                session.receive_control(bytes(datagram), now)
            elif first == wire.DATA_BYTE:
                array = np.frombuffer(datagram, np.uint8)
                session.receive_rows(array, len(datagram), len(datagram), None, now)
            elif first == _CONFIRM_BYTE and session.confirm and datagram == session.confirm:
                self._replies.add(session.ack_datagram(now))
            else:
                raise ProtocolError("unexpected_type", f"{first:#04x}")
            return
        if first >> 4 != wire.HOP_VERSION:
            raise ProtocolError("bad_version", f"{first >> 4}")
        newcomer = self._door.receive(datagram, first, local_id, address, now)
        if newcomer is not None:
            self._begin(newcomer, now)

    # --- sessions -------------------------------------------------------------------------------

    def _begin(self, newcomer: Newcomer, now: float) -> None:
        """Begin a session with a neighbour whose handshake is over."""
        agreement = newcomer.agreement
        if newcomer.connected is None:
            self._end_older(agreement, now)
        session = Session(agreement, self._surroundings, now)
        local_id, remote_id = session.local_id, session.remote_id
        self.sessions[local_id] = session
        self._by_remote[remote_id] = (*self._by_remote.get(remote_id, ()), session)
        self._active[session] = None
        if newcomer.connected is None:
            session.receiver.acks.due_now = True
            session.confirm = newcomer.confirm
        else:
            newcomer.connected(session)
        self._tell(self._upper.neighbour_up, session)
        if newcomer.connected is not None and local_id in self.sessions:
            session.receive_frames(newcomer.frames, now)

    def session_for_lane(self, token: bytes) -> Session | None:
        """Return the session of a service whose token this is, if it may have a lane now."""
        found, lanes_count = None, 0
        for session in self.sessions.values():
            lanes_count += session.has_lane
            if hmac.compare_digest(session.lane_token, token):
                found = session
        if found is None or found.role is not Role.SERVICE or not found.is_up or found.lends:
            return None
        if lanes_count >= MAX_LANES_COUNT and not found.has_lane:
            self.lanes_refused += 1
            return None
        return found

    def _end_older(self, agreement: Agreement, now: float) -> None:
        """End the sessions whose place the one takes that was agreed on."""
        instance = agreement.parameters.instance
        for old in list(self.sessions.values()):
            if old.guid == agreement.guid and old.instance == instance:
                is_elsewhere = old.peer_address != agreement.address
                old.close(SAME_KEY if is_elsewhere else "replaced by a new session")
                # Where the old one still runs it must not take this for a restart of ours.
                self._end(old, now, tell=is_elsewhere)

    def _take_reset(self, reset: wire.Reject, address: Any, now: float) -> None:
        """End the session that the neighbour does not know (any more): it was restarted."""
        sessions = self._by_remote.get(reset.session, ())
        session = next((one for one in sessions if one.peer_address == address), None)
        if session is None:
            return
        check_reset(reset, session.public_key, session.instance)
        session.close("the neighbour was restarted")
        self._end(session, now, tell=False)

    def _make_room(self, size: int, now: float) -> None:
        """Have unfinished transfers refused, so that one more body of `size` bytes can be held.

        Whoever holds most of them gives way, down to what all neighbours could hold alike: one that
        begins bodies and finishes none must not keep a new body of somebody else out.
        """
        if now < self._make_room_at:
            return
        fair_bytes = self.config.max_held_bytes // len(self.sessions)
        while not self.pool.has_room(size):
            greedy = max(self.sessions.values(), key=lambda one: one.receiver.incoming.body_bytes)
            surplus = greedy.receiver.incoming.body_bytes - fair_bytes
            if surplus <= 0 or not greedy.receiver.custody.evict_slow(
                min(size, surplus), now, slow_only=False
            ):
                self._make_room_at = now + EVICTION_PAUSE_S
                return
            self._wake(greedy)

    def _end(self, session: Session, now: float, *, tell: bool) -> None:
        """Take a session out and tell both neighbours of it: the one below and the one above."""
        self._active.pop(session, None)
        if self.sessions.pop(session.local_id, None) is None:
            return
        others = tuple(o for o in self._by_remote[session.remote_id] if o is not session)
        if others:
            self._by_remote[session.remote_id] = others
        else:
            del self._by_remote[session.remote_id]
        self._timers.cancel(session.local_id)
        if self.landing_place.session is session:
            self.landing_place.session = None
        if tell:
            self._replies.add(session.close_datagram())
        session.end()
        self._ended.update(session.counters())
        self._tell(self._upper.neighbour_down, session, session.close_reason)

    def _wake(self, session: Session) -> None:
        """Have a session asked what it has to send, unless it is gone: a body that it delivered may
        be released much later."""
        if session.local_id not in self.sessions:
            return
        self._active[session] = None
        self._on_wake()

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        """Call the layer above; a fault of its own costs nobody else anything."""
        try:
            call(*arguments)
        except Exception:  # whatever the layer above raises
            self._note_fault()

    def _note_fault(self) -> None:
        self.dropped["internal_error"] += 1
        self._on_fault()

    def suspect(self, address: Any, now: float) -> None:
        """The network says that nobody listens at `address` (an ICMP error): a hint, no proof."""
        for session in self.sessions.values():
            if session.peer_address == address:
                session.suspect(now)
                self._timers.arm(session.local_id, now)
        self._door.suspect(address, now)

    def close(self, reason: str, now: float) -> None:
        """End every session; `datagrams_to_send` then holds the farewells."""
        for session in list(self.sessions.values()):
            session.close(reason)
            self._end(session, now, tell=True)
        self._door.close(reason)

    # --- sending --------------------------------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """Some session used up its turn and may have more to send."""
        return bool(self._active or self._replies)

    @property
    def is_midway(self) -> bool:
        """The last datagrams were of a body that is not whole, from a neighbour that is near."""
        session = self.landing_place.session
        return (
            session is not None
            and session.receiver.incoming.in_hand is not None
            and session.is_near
        )

    def datagrams_to_send(self, now: float, answers_first: bool = False) -> Iterator[Datagram]:
        """Yield what is to be sent now; the buffers of each hold until the next is asked for.

        Control of all sessions comes first, then a turn of bursts of each. Who stops asking, as the
        socket is full, loses nothing: the session that had its turn is the last one the next time.

        Args:
            answers_first: some bursts before all that; for a node with a session or two.
        """
        for session in list(self._active) if answers_first else ():
            if session.is_up:
                yield from self._guarded(session, session.bursts_to_send(now), now)
        asked = self.vigil.take_only()
        if asked is not None and asked.is_up and asked in self._active:
            yield from self._guarded(asked, asked.bursts_to_send(now), now)
        turns = list(self._active)
        for session in turns:
            if session.is_up:
                yield from self._guarded(session, session.control_to_send(now), now)
            else:
                # Either the neighbour closed it or the layer above did; tell him in both cases.
                self._end(session, now, tell=True)
        yield from self._replies.take()
        for session in turns:
            if session not in self._active:
                continue
            del self._active[session]
            self._active[session] = None
            bursts = 0
            for datagram in self._guarded(session, session.bursts_to_send(now), now):
                bursts += 1
                yield datagram
            if bursts < BURSTS_PER_TURN:
                self._active.pop(session, None)
            if session.is_up:
                self._timers.arm(session.local_id, session.next_timeout())
        yield from self._replies.take()

    def _guarded(
        self, session: Session, datagrams: Iterator[Datagram], now: float
    ) -> Iterator[Datagram]:
        """Pass datagrams on; a fault of ours ends this session, not the port."""
        try:
            yield from datagrams
        except Exception:  # raised on, it would end the turn of every other session
            self._note_fault()
            session.close("internal error")
            self._end(session, now, tell=True)

    # --- timers ---------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` must be called, or None."""
        return self._timers.next_deadline()

    def handle_timeout(self, now: float) -> None:
        """Run every timer that is due; then ask `datagrams_to_send`."""
        for local_id in self._timers.take_due(now):
            session = self.sessions.get(local_id)
            if session is None:
                self._door.handle_timeout(local_id, now)
                continue
            for datagram in self._guarded(session, session.handle_timeout(now), now):
                self._replies.add(datagram)
            if local_id in self.sessions:
                self._active[session] = None

    # --- figures --------------------------------------------------------------------------------

    @property
    def strangers_count(self) -> int:
        """Datagrams so far that belong to no session: HELLOs, and sessions that are not known."""
        return self._door.hellos_count + self.dropped["unknown_session"]

    def known_ids(self) -> list[int]:
        """Return every session id that a datagram may carry which is no stranger's."""
        return [*self.sessions, *self._door.local_ids()]

    def counters(self) -> dict[str, int]:
        """Return what only ever grows, of this node's sessions past and present, for metrics."""
        total = Counter(dict.fromkeys(COUNTERS, 0))
        total.update(self._ended)
        for session in self.sessions.values():
            total.update(session.counters())
        return {
            **total,
            **self._door.counters(),
            "dead_timers": self._timers.dead_count,
            "buffers_freed": self.pool.freed_count,
            "buffers_unready": self.pool.unready_count,
            "lanes_refused": self.lanes_refused,
            "guests_turned_away": self.guests_turned_away,
        }

    def stats(self) -> dict[str, int]:
        """Return the present sizes of the whole node and its counters."""
        sessions = self.sessions.values()
        return {
            "neighbours": len(self.sessions),
            "half_open": self._door.half_open_count,
            "held_bytes": sum(s.receiver.credit.held_bytes for s in sessions),
            "queued_bytes": sum(s.sender.queued_bytes for s in sessions),
            "in_flight_bytes": sum(s.sender.in_flight_bytes for s in sessions),
            "free_buffer_bytes": self.pool.free_bytes,
            "busy_flows": sum(len(s.receiver.credit.flows.busy) for s in sessions),
            "parked_flows_now": sum(len(s.sender.flows.parked) for s in sessions),
            **self.counters(),
        }
