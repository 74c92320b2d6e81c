"""The real hop core on a simulated socket: what `chunk.hop.udp.HopNode` is on a real one."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.hop.api import AdmitNeighbour, HopConfig, HopReceiver, Neighbour, Role
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.lane import Lane
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.hop.stamp_file import SAVE_PAUSE_S
from packetcloud.chunk.hop.stamps import Stamps
from packetcloud.chunk.hop.udp import WINDOW_SHARE, HopConnectError
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID
from packetcloud.testbed.simulation.machine import Address, Process, Socket
from packetcloud.testbed.simulation.network import IP_UDP_BYTES, Network

STAMP_FILE = Path("/state/stamps")
TRAIN_BYTES = 60_000
"""What a kernel joins at most of datagrams that follow each other."""
TURNS_IN_A_ROW = 4
BYTES_PER_TURN = 1 << 20
LANE_AFTER_S = 0.001
LANE_BYTES = 192 << 10
"""So little that it is full at times."""
LENT_FROM_BYTES = 64
"""Most chunks are short here."""
LONGEST_WAKE_S = 0.0002
"""A process sees what has arrived within so long."""


class SimulatedHopNode:
    """One UDP port with all its neighbours; see `hop.api` for what it does for the layer above.

    Args:
        joins_datagrams: the kernel hands over trains, as with generic receive offload.
        mtu_bytes: of the machine's own links.
        keeps_stamps: the stamps of handshakes are kept on disk.
    """

    def __init__(
        self,
        process: Process,
        network: Network,
        identity: Identity,
        role: Role,
        config: HopConfig,
        receiver: HopReceiver,
        admit: AdmitNeighbour | None = None,
        *,
        joins_datagrams: bool = True,
        mtu_bytes: int = 1500,
        has_fast_aes: bool = True,
        keeps_stamps: bool = False,
    ) -> None:
        self._process = process
        self._machine = process.machine
        self._network = network
        self._identity = identity
        self._role = role
        self.config = config
        self._upper = receiver
        self._admit = admit
        self._joins_datagrams = joins_datagrams
        self._keeps_stamps = keeps_stamps
        self._has_fast_aes = has_fast_aes
        self._datagram_bytes = mtu_bytes - IP_UDP_BYTES
        self._core: HopCore | None = None
        self._socket: Socket | None = None
        self._turn_is_planned = False
        self._timer: Any = None
        self._timer_at = 0.0
        self.faults_count = 0
        self.answers_soon = False

    # --- what chunk.hop.udp.HopNode has ---------------------------------------------------------

    def listen(self, host: str = "0.0.0.0", port: int = 0) -> Address:
        if self._socket is not None:
            raise LocalMisuseError("this hop node listens already")
        capacity = self.config.receive_buffer_bytes
        sock = self._socket = self._machine.bind(port, capacity, self._wake)
        self._core = HopCore(
            self._identity,
            self._role,
            self.config,
            self._upper,
            self._machine.rng.randbytes,
            lambda address: self._datagram_bytes,
            int(capacity * WINDOW_SHARE),
            self._admit,
            self._wake,
            self._note_fault,
            self._load_stamps(),
            self._has_fast_aes,
        )
        self._network.nodes[sock.address] = self
        return sock.address

    @property
    def core(self) -> HopCore:
        if self._core is None:
            raise LocalMisuseError("this hop node does not listen")
        return self._core

    @property
    def is_closed(self) -> bool:
        return self._core is None

    @property
    def guid(self) -> GUID:
        return self._identity.guid

    @property
    def neighbours(self) -> list[Neighbour]:
        return list(self._core.sessions.values()) if self._core is not None else []

    def stats(self) -> dict[str, int]:
        return self.core.stats()

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self.core.dropped)

    def send_now(self) -> None:
        """What is to be sent leaves when this moment's calls are over."""

    async def connect(self, address: Address, expected: GUID | None = None) -> Neighbour:
        result: Deferred[Session | str] = Deferred()
        self.core.connect(address, expected, result.callback, self._now())
        session = await result
        if isinstance(session, str):
            raise HopConnectError(f"no session with {address[0]}:{address[1]}: {session}")
        if self._role is Role.SERVICE and session.lane_token[0] & 1:
            self._process.later(LANE_AFTER_S, lambda: self._share_memory(address, session))
        return session

    def _share_memory(self, address: Address, ours: Session) -> None:
        """Lend bodies to the router and borrow from it, as `chunk.hop.lane_door` has them agree."""
        router = self._network.nodes.get(address)
        theirs = router.core.session_for_lane(ours.lane_token) if router is not None else None
        if theirs is None or not ours.is_up:
            return
        first, second = np.zeros(LANE_BYTES, np.uint8), np.zeros(LANE_BYTES, np.uint8)
        theirs.open_lane(Lane(first, second, LENT_FROM_BYTES))
        ours.open_lane(Lane(second, first, LENT_FROM_BYTES))
        ours.use_lane()
        mapped = theirs

        def lend() -> None:
            if mapped.is_up:
                mapped.use_lane(lambda: None)

        assert router is not None
        router._process.later(LANE_AFTER_S, lend)

    async def close(self, reason: str = "shutting down") -> None:
        if self._core is not None:
            self._core.close(reason, self._now())
            self._send_out()
            self.abandon()

    def abandon(self) -> None:
        sock, self._socket = self._socket, None
        self._core = None
        if sock is not None:
            self._network.nodes.pop(sock.address, None)
            self._machine.sockets.pop(sock.address[1], None)

    # --- stamps of handshakes, as chunk.hop.stamp_file keeps them -------------------------------

    def _load_stamps(self) -> Stamps:
        saved = self._machine.disk.read(STAMP_FILE) if self._keeps_stamps else None
        stamps = Stamps(lambda: int(self._machine.wall_s() * 1e9), saved)
        if self._keeps_stamps:
            self._process.later(SAVE_PAUSE_S, lambda: self._save_stamps(stamps))
        return stamps

    def _save_stamps(self, stamps: Stamps) -> None:
        if stamps.is_changed:
            stamps.is_changed = False
            disk = self._machine.disk
            disk.replace(STAMP_FILE, stamps.to_bytes())
            disk.open_append(STAMP_FILE).sync()
        self._process.later(SAVE_PAUSE_S, lambda: self._save_stamps(stamps))

    # --- inside ---------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._process.reactor.seconds()

    def _wake(self) -> None:
        if not self._turn_is_planned:
            self._turn_is_planned = True
            delay_s = self._machine.rng.random() * LONGEST_WAKE_S
            self._process.later(delay_s, self._take_turns)

    def _note_fault(self) -> None:
        error = sys.exception() if sys.version_info >= (3, 12) else sys.exc_info()[1]
        self._machine.note_fault("".join(traceback.format_exception(error)[-6:]))

    def _take_turns(self) -> None:
        self._turn_is_planned = False
        core, sock = self._core, self._socket
        if core is None or sock is None:
            return
        for _ in range(TURNS_IN_A_ROW):
            taken = self._take_in()
            self._send_out()
            if self._core is not core:
                return
            if not core.has_more and (not taken or not sock.inbox):
                break
        if core.has_more or sock.inbox:
            self._wake()
        self._arm(core.next_timeout())

    def _take_in(self) -> bool:
        sock, core = self._socket, self._core
        if sock is None or core is None:
            return False
        while sock.errors:
            core.suspect(sock.errors.popleft(), self._now())
        left = BYTES_PER_TURN
        while left > 0 and self._core is core and (train := self._next_train(sock)) is not None:
            source, datagrams = train
            size = sum(map(len, datagrams))
            left -= size
            self._receive(core, source, datagrams, size)
        return left < BYTES_PER_TURN

    def _next_train(self, sock: Socket) -> tuple[Address, list[bytes]] | None:
        """Return datagrams of one source and size, the last one perhaps shorter."""
        first = sock.take()
        if first is None:
            return None
        source, datagram = first
        row_bytes, datagrams, total = len(datagram), [datagram], len(datagram)
        while (
            self._joins_datagrams
            and sock.inbox
            and sock.inbox[0][0] == source
            and 0 < len(sock.inbox[0][1]) <= row_bytes
            and total + row_bytes <= TRAIN_BYTES
        ):
            following = sock.take()
            assert following is not None
            datagrams.append(following[1])
            total += len(following[1])
            if len(following[1]) < row_bytes:
                break
        return source, datagrams

    def _receive(self, core: HopCore, source: Address, datagrams: list[bytes], size: int) -> None:
        """Hand a train to the core, in the place that it has for it or elsewhere."""
        train = b"".join(datagrams)
        row_bytes, now = len(datagrams[0]), self._now()
        if self._machine.rng.random() < 0.1:
            array = np.frombuffer(bytearray(train), np.uint8)
            core.receive_elsewhere(array, size, row_bytes, source, now)
            return
        at = 0
        for piece in core.landing():
            part = train[at : at + len(piece)]
            piece[: len(part)] = part
            at += len(part)
            if at >= size:
                break
        core.receive_train(size, row_bytes, source, now)

    def _send_out(self) -> None:
        core, sock = self._core, self._socket
        if core is None or sock is None:
            return
        for address, buffers, row_bytes in core.datagrams_to_send(self._now()):
            if len(buffers) > 1:
                datagrams = [
                    bytes(buffers[at]) + bytes(buffers[at + 1]) for at in range(0, len(buffers), 2)
                ]
            else:
                burst = bytes(buffers[0])
                datagrams = [burst[at : at + row_bytes] for at in range(0, len(burst), row_bytes)]
            self._network.send(self._machine, sock.address, address, datagrams)

    def _arm(self, deadline: float | None) -> None:
        if deadline is None:
            return
        if self._timer is not None and self._timer.active():
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        reactor = self._process.reactor
        self._timer = reactor.callLater(max(0.0, deadline - reactor.seconds()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._core is not None:
            self._core.handle_timeout(self._now())
            self._take_turns()
