"""The hop node without its socket: datagrams and the time in, datagrams and upcalls out.

`landing` / `receive_train` / `datagrams_to_send` / `next_timeout` / `handle_timeout`. A train is
what the kernel hands over in one piece: datagrams of one size and one source, the last one perhaps
shorter.

Source: docs/protocol/hop.md; design, sections 3 and 5.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import AdmitNeighbour, HopConfig, HopReceiver, Role
from packetcloud.chunk.hop.buffers import (
    BufferPool,
    ByteArray,
    FlatBuffer,
    RowBuffer,
    Store,
    join_front,
)
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.handshake import (
    ClientHandshake,
    ClientState,
    HalfOpen,
    RandomBytes,
    ServerHandshakes,
    new_session_id,
)
from packetcloud.chunk.hop.incoming_transfers import EVICTION_PAUSE_S
from packetcloud.chunk.hop.keys import KeyRing
from packetcloud.chunk.hop.session import (
    BURSTS_PER_TURN,
    COUNTERS,
    Datagram,
    Session,
    check_address,
)
from packetcloud.chunk.hop.stamps import Stamps
from packetcloud.chunk.hop.suites import offered_suites, parse_networks
from packetcloud.chunk.identity import Identity, verify
from packetcloud.chunk.names import GUID

RESETS_PER_S = 50
"""Answers to datagrams of unknown sessions: enough for a restart, useless for a flood."""
RESETS_PER_ADDRESS = 5
"""Of them to one address: a neighbour of an earlier life sends once in 3 s at least."""
SAME_KEY = "another process attached with the same key"
MAX_REPLIES_COUNT = 1024
"""Handshakes, probes and farewells that wait for the socket; whoever wants one asks again."""
TIMER_SLACK_COUNT = 4096
"""Timers that were replaced by earlier ones lie in the heap until their time; so many may, besides
one for each live timer. A timer is 100 bytes."""
SCRATCH_BYTES = 65_536
"""More than the kernel ever hands over in one piece."""


COUNTER_NAMES = frozenset(
    {
        *COUNTERS,
        "half_open_forgotten",
        "addresses_forgotten",
        "stamps_forgotten",
        "dead_timers",
        "buffers_freed",
    }
)
"""What `HopCore.counters` has: of `stats()`, what only ever grows."""
RESET_DOMAIN = b"hop 2 reset"

_CONFIRM_BYTE = wire.type_byte(wire.DatagramType.CONFIRM)
_SESSION_BYTES = frozenset({wire.DATA_BYTE, wire.BUNDLE_BYTE, wire.CONTROL_BYTE})


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
        self._random_bytes = random_bytes
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
        self._servers = ServerHandshakes(identity, random_bytes, self._admit_with_cap, self.stamps)
        self._clients: dict[int, ClientHandshake] = {}
        self._by_remote: dict[int, tuple[Session, ...]] = {}
        """By the id that the neighbour chose: two neighbours may choose the same."""
        self._reset_second = 0
        self._resets_to: Counter[Any] = Counter()
        """Resets of this second, by address."""
        self._ended: Counter[str] = Counter()
        """What the sessions that ended had counted."""
        self._client_done: dict[int, Callable[[Session | str], None]] = {}
        self._active: dict[Session, None] = {}
        self._out: deque[Datagram] = deque()
        self._timers: list[tuple[float, int]] = []
        self._timer_of: dict[int, float] = {}
        self._make_room_at = float("-inf")
        self._hellos_count = 0
        self._dead_timers = 0
        """Replaced timers that were taken out before their time."""
        self._scratch: ByteArray = np.empty(SCRATCH_BYTES, np.uint8)
        self._landing: tuple[Store, int] | None = None
        self._last: Session | None = None

    # --- connecting -----------------------------------------------------------------------------

    def connect(
        self,
        address: Any,
        expected: GUID | None,
        done: Callable[[Session | str], None],
        now: float,
    ) -> None:
        """Begin a handshake; `done` gets the session, or a text that says why there is none."""
        local_id = new_session_id(self._random_bytes)
        self._clients[local_id] = ClientHandshake(
            self.identity,
            self._parameters(address),
            address,
            expected,
            local_id,
            self._random_bytes,
            self.stamps.take(),
            now,
        )
        self._client_done[local_id] = done
        self._after_client(local_id, now)
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
        return self._admit(guid, Role(theirs.role)) if self._admit is not None else None

    # --- receiving ------------------------------------------------------------------------------

    def landing(self) -> list[memoryview]:
        """Return where the next train shall be received: its likely place, then scratch space."""
        self._landing = None
        last = self._last
        if last is not None:
            place = last.receiver.incoming.landing()
            if place is not None and place[1] < place[0].capacity:
                self._landing = place
                return [*place[0].landing(place[1]), self._scratch.data]
        return [self._scratch.data]

    def landing_run(self) -> tuple[Store, int, int, Any] | None:
        """Return where the trains that end the transfer in hand belong, and who sends them.

        The shell may receive several trains into these rows, one behind the other, as long as each
        is full, and hand them over as one by `receive_run`; jumbo datagrams, whose headers land
        apart, by `receive_split`.
        """
        last = self._last
        place = last.receiver.incoming.landing_run() if last is not None else None
        if last is None or place is None:
            return None
        return *place, last.peer_address

    @property
    def scratch(self) -> memoryview:
        """Space behind a landing place, for what turns out longer."""
        return self._scratch.data

    def receive_run(self, rows: RowBuffer, row: int, length: int, address: Any, now: float) -> None:
        """Take in `length` bytes of full datagrams that landed in `rows` from `row` on."""
        array = rows.bytes[row * rows.stride :]
        try:
            self._receive(array, length, min(rows.stride, length), (rows, row), address, now)
        except ProtocolError as error:
            self.dropped[error.reason] += 1

    def landing_rows(self) -> tuple[ByteArray, int] | None:
        """Return a place for a batch of datagrams, as an array and the bytes of each row."""
        self._landing = None
        last = self._last
        place = last.receiver.incoming.landing() if last is not None else None
        if place is None:
            return None
        rows, row = place
        if isinstance(rows, FlatBuffer) or row >= rows.capacity:
            return None
        self._landing = place
        return rows.bytes[row * rows.stride :], rows.stride

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
        placed = self._landing
        rows, row = placed if placed is not None else (None, 0)
        if rows is None:
            array = self._scratch
        elif isinstance(rows, FlatBuffer):
            array, placed = self._join(rows.landing(row), length), None
        else:
            array = rows.bytes[row * rows.stride :]
            if length > len(array):
                array, placed = self._join([array.data], length), None
        try:
            self._receive(array, length, row_bytes, placed, address, now)
        except ProtocolError as error:
            self.dropped[error.reason] += 1

    def _join(self, pieces: list[memoryview], length: int) -> ByteArray:
        """Copy a train that lies in `pieces` and behind them in the scratch into one array."""
        return np.frombuffer(join_front([*pieces, self._scratch.data], length), np.uint8)

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
                self._last = session
                if session.receive_split(store, row, count, last_bytes, now):
                    return
        except ProtocolError as error:
            self.dropped[error.reason] += 1
            return
        # They lie where others may be placed: take all of them out before looking at the first.
        sizes = [store.stride] * (count - 1) + [last_bytes]
        wholes = [self._join(store.landing(row + at), size) for at, size in enumerate(sizes)]
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
            self._last = session
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
                    self._reply(answer)
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
            elif first == _CONFIRM_BYTE and not session.is_confirmed:
                self._reply(session.ack_datagram(now))
            else:
                raise ProtocolError("unexpected_type", f"{first:#04x}")
            return
        if first >> 4 != wire.HOP_VERSION:
            raise ProtocolError("bad_version", f"{first >> 4}")
        if first in _SESSION_BYTES and local_id not in self._clients:
            self._reset(local_id, len(datagram), address, now)
            raise ProtocolError("unknown_session")
        if len(datagram) > wire.MIN_DATAGRAM_BYTES:
            raise ProtocolError("unknown_session")
        self._receive_handshake(first & 15, local_id, bytes(datagram), address, now)

    def _receive_handshake(
        self, kind: int, local_id: int, datagram: bytes, address: Any, now: float
    ) -> None:
        if kind == wire.DatagramType.HELLO:
            self._hellos_count += 1
            parameters = self._parameters(address)
            answer = self._servers.receive_hello(datagram, address, parameters, now)
            self._reply((address, [answer], len(answer)))
            return
        if kind == wire.DatagramType.CONFIRM:
            proven = self._servers.receive_confirm(datagram, address)
            if isinstance(proven, bytes):
                self._reply((address, [proven], len(proven)))
            else:
                self._begin_inbound(proven, now)
            return
        client = self._clients.get(local_id)
        if client is None or client.address != address:
            if kind == wire.DatagramType.REJECT:
                self._take_reset(datagram, address, now)
            raise ProtocolError("unknown_session")
        frames = b""
        match kind:
            case wire.DatagramType.RETRY:
                client.receive_retry(datagram, now)
            case wire.DatagramType.WELCOME:
                client.receive_welcome(datagram, now)
            case wire.DatagramType.CONTROL:
                frames = client.receive_control(datagram)
            case _:
                raise ProtocolError("unexpected_type", str(kind))
        self._after_client(local_id, now)
        session = self.sessions.get(local_id)
        if session is not None and kind == wire.DatagramType.CONTROL:
            session.receive_frames(frames, now)

    def _reset(self, local_id: int, asked_bytes: int, address: Any, now: float) -> None:
        """Tell a neighbour of an earlier life that its session is not known here.

        Never about a handshake under way: what was signed would end the session once it is up.
        """
        if asked_bytes < wire.REJECT_BYTES or local_id in self._servers:
            return
        second = int(now)
        if second != self._reset_second:
            self._reset_second = second
            self._resets_to.clear()
        resets_to = self._resets_to
        if resets_to[address] >= RESETS_PER_ADDRESS or resets_to.total() >= RESETS_PER_S:
            self.dropped["resets_full"] += 1
            return
        resets_to[address] += 1
        signature = self.identity.sign(RESET_DOMAIN, local_id.to_bytes(8, "big"))
        reset = wire.Reject(local_id, signature).to_bytes()
        self._reply((address, [reset], len(reset)))

    def _take_reset(self, datagram: bytes, address: Any, now: float) -> None:
        """End the session that the neighbour does not know (any more): it was restarted."""
        reject = wire.Reject.from_bytes(datagram)
        sessions = self._by_remote.get(reject.session, ())
        session = next((one for one in sessions if one.peer_address == address), None)
        if session is None:
            return
        signed = reject.session.to_bytes(8, "big")
        if not verify(session.public_key, RESET_DOMAIN, signed, reject.signature):
            raise ProtocolError("bad_signature", "REJECT")
        session.close("the neighbour was restarted")
        self._end(session, now, tell=False)

    def _after_client(self, local_id: int, now: float) -> None:
        """Send what a client handshake wants sent, and finish it when it is over."""
        client = self._clients[local_id]
        datagram = client.take_datagram()
        if datagram is not None:
            self._reply((client.address, [datagram], len(datagram)))
        if client.state is ClientState.UP:
            assert client.welcome is not None and client.envelope is not None
            del self._clients[local_id]
            session = self._begin(
                client.welcome.public_key,
                client.welcome.parameters,
                client.parameters,
                client.address,
                local_id,
                client.welcome.own_session,
                client.ring,
                client.envelope,
                now,
            )
            if client.rtt_s is not None:
                session.rtt.add_sample(client.rtt_s, 0.0, now)
            self._client_done.pop(local_id)(session)
            self._tell(self._upper.neighbour_up, session)
        elif client.state is ClientState.FAILED:
            del self._clients[local_id]
            self._client_done.pop(local_id)(client.failure)
        else:
            self._arm(local_id, client.next_timeout())

    # --- sessions -------------------------------------------------------------------------------

    def _begin_inbound(self, half: HalfOpen, now: float) -> None:
        guid = GUID.from_public_key(half.public_key)
        for old in list(self.sessions.values()):
            if old.guid == guid and old.instance == half.parameters.instance:
                is_elsewhere = old.peer_address != half.address
                old.close(SAME_KEY if is_elsewhere else "replaced by a new session")
                # Where the old one still runs it must not take this for a restart of ours.
                self._end(old, now, tell=is_elsewhere)
        ring = half.make_ring()
        session = self._begin(
            half.public_key,
            half.parameters,
            half.own_parameters,
            half.address,
            half.local_id,
            half.remote_id,
            ring,
            Envelope(half.remote_id, ring),
            now,
        )
        session.rtt.add_sample(now - half.begun_at, 0.0, now)
        session.receiver.acks.due_now = True
        self._tell(self._upper.neighbour_up, session)

    def _begin(
        self,
        public_key: bytes,
        theirs: wire.Parameters,
        ours: wire.Parameters,
        address: Any,
        local_id: int,
        remote_id: int,
        ring: KeyRing | None,
        envelope: Envelope,
        now: float,
    ) -> Session:
        session = Session(
            GUID.from_public_key(public_key),
            public_key,
            theirs,
            address,
            local_id,
            remote_id,
            min(theirs.max_datagram_bytes, ours.max_datagram_bytes),
            ring,
            envelope,
            self.config,
            self._window_bytes,
            self.pool,
            self._upper,
            self._wake,
            self._note_fault,
            self._make_room,
            self.dropped,
            self._random_bytes,
            now,
        )
        self.sessions[local_id] = session
        self._by_remote[remote_id] = (*self._by_remote.get(remote_id, ()), session)
        self._active[session] = None
        return session

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
        if self.sessions.pop(session.local_id, None) is None:
            return
        self._active.pop(session, None)
        others = tuple(o for o in self._by_remote[session.remote_id] if o is not session)
        if others:
            self._by_remote[session.remote_id] = others
        else:
            del self._by_remote[session.remote_id]
        self._timer_of.pop(session.local_id, None)
        if self._last is session:
            self._last = None
        if tell:
            self._reply(session.close_datagram())
        session.end()
        self._ended.update(session.counters())
        self._tell(self._upper.neighbour_down, session, session.close_reason)

    def _wake(self, session: Session) -> None:
        self._active[session] = None
        self._on_wake()

    def _reply(self, datagram: Datagram) -> None:
        """Have a single datagram sent, unless so many wait that the socket must be stuck."""
        if len(self._out) < MAX_REPLIES_COUNT:
            self._out.append(datagram)
        else:
            self.dropped["replies_full"] += 1

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        """Call the layer above; a fault of its own costs nobody else anything."""
        try:
            call(*arguments)
        except Exception:
            self._note_fault()

    def _note_fault(self) -> None:
        self.dropped["internal_error"] += 1
        self._on_fault()

    def suspect(self, address: Any, now: float) -> None:
        """The network says that nobody listens at `address` (an ICMP error): a hint, no proof."""
        for session in self.sessions.values():
            if session.peer_address == address:
                session.suspect(now)
                self._arm(session.local_id, now)
        for local_id, client in self._clients.items():
            if client.address == address:
                client.suspect(now)
                self._arm(local_id, client.next_timeout())

    def close(self, reason: str, now: float) -> None:
        """End every session; `datagrams_to_send` then holds the farewells."""
        for session in list(self.sessions.values()):
            session.close(reason)
            self._end(session, now, tell=True)
        for local_id, done in list(self._client_done.items()):
            self._clients.pop(local_id, None)
            done(reason)
        self._client_done.clear()

    # --- sending --------------------------------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """Some session used up its turn and may have more to send."""
        return bool(self._active or self._out)

    def datagrams_to_send(self, now: float) -> Iterator[Datagram]:
        """Yield what is to be sent now; the buffers of each hold until the next is asked for.

        Control of all sessions comes first, then a turn of bursts of each. Who stops asking, as the
        socket is full, loses nothing: the session that had its turn is the last one the next time.
        """
        turns = list(self._active)
        for session in turns:
            if session.is_up:
                yield from self._guarded(session, session.control_to_send(now), now)
            else:
                # Either the neighbour closed it or the layer above did; tell him in both cases.
                self._end(session, now, tell=True)
        yield from self._take_replies()
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
                self._arm(session.local_id, session.next_timeout())
        yield from self._take_replies()

    def _take_replies(self) -> Iterator[Datagram]:
        while self._out:
            yield self._out.popleft()

    def _guarded(
        self, session: Session, datagrams: Iterator[Datagram], now: float
    ) -> Iterator[Datagram]:
        """Pass datagrams on; a fault of ours ends this session, not the port."""
        try:
            yield from datagrams
        except Exception:
            self._note_fault()
            session.close("internal error")
            self._end(session, now, tell=True)

    # --- timers ---------------------------------------------------------------------------------

    def _arm(self, local_id: int, deadline: float) -> None:
        """Have a look at this session or handshake at `deadline`; never later than asked before."""
        known = self._timer_of.get(local_id)
        if known is None or deadline < known:
            self._timer_of[local_id] = deadline
            heapq.heappush(self._timers, (deadline, local_id))
            if len(self._timers) > len(self._timer_of) + TIMER_SLACK_COUNT:
                self._dead_timers += len(self._timers) - len(self._timer_of)
                self._timers = [(at, number) for number, at in self._timer_of.items()]
                heapq.heapify(self._timers)

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` must be called, or None."""
        timers = self._timers
        while timers and self._timer_of.get(timers[0][1]) != timers[0][0]:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def handle_timeout(self, now: float) -> None:
        """Run every timer that is due; then ask `datagrams_to_send`."""
        for _ in range(len(self._timers)):
            deadline = self.next_timeout()
            if deadline is None or deadline > now:
                return
            _, local_id = heapq.heappop(self._timers)
            self._timer_of.pop(local_id, None)
            session = self.sessions.get(local_id)
            if session is not None:
                for datagram in self._guarded(session, session.handle_timeout(now), now):
                    self._reply(datagram)
                if local_id in self.sessions:
                    self._active[session] = None
            elif local_id in self._clients:
                self._clients[local_id].handle_timeout(now)
                self._after_client(local_id, now)

    @property
    def strangers_count(self) -> int:
        """Datagrams so far that belong to no session: HELLOs, and sessions that are not known."""
        return self._hellos_count + self.dropped["unknown_session"]

    def known_ids(self) -> list[int]:
        """Return every session id that a datagram may carry which is no stranger's."""
        return [*self.sessions, *self._clients, *self._servers.local_ids()]

    def counters(self) -> dict[str, int]:
        """Return what only ever grows, of this node's sessions past and present, for metrics."""
        total = Counter(dict.fromkeys(COUNTERS, 0))
        total.update(self._ended)
        for session in self.sessions.values():
            total.update(session.counters())
        return {
            **total,
            "half_open_forgotten": self._servers.forgotten_count,
            "stamps_forgotten": self.stamps.forgotten_count,
            "addresses_forgotten": self._servers.addresses_forgotten_count,
            "dead_timers": self._dead_timers,
            "buffers_freed": self.pool.freed_count,
        }

    def stats(self) -> dict[str, int]:
        """Return the present sizes of the whole node and its counters."""
        sessions = self.sessions.values()
        return {
            "neighbours": len(self.sessions),
            "half_open": len(self._servers),
            "held_bytes": sum(s.receiver.credit.held_bytes for s in sessions),
            "queued_bytes": sum(s.sender.queued_bytes for s in sessions),
            "in_flight_bytes": sum(s.sender.in_flight_bytes for s in sessions),
            "free_buffer_bytes": self.pool.free_bytes,
            "busy_flows": sum(len(s.receiver.credit.flows.busy) for s in sessions),
            "parked_flows_now": sum(len(s.sender.flows.parked) for s in sessions),
            **self.counters(),
        }
