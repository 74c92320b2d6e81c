"""The UDP shell of a hop node on a Twisted reactor: moves trains and arms one timer.

Source: design, sections 3 and 5.
"""

from __future__ import annotations

import logging
import math
import os
import select
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from packetcloud.chunk.errors import LocalMisuseError, PacketCloudError
from packetcloud.chunk.hop.api import AdmitNeighbour, HopConfig, HopReceiver, Neighbour, Role
from packetcloud.chunk.hop.clock import install_monotonic_clock
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.flood import LOOK_S, FloodGauge
from packetcloud.chunk.hop.intake import BYTES_PER_TURN, Intake
from packetcloud.chunk.hop.lane_door import Lanes
from packetcloud.chunk.hop.lane_memory import Ear
from packetcloud.chunk.hop.offload import (
    enable_coalescing,
    enable_errors,
    enlarge_buffers,
    ignore_path_mtu,
    probe_fast_aes,
    probe_offload,
    route_datagram_bytes,
)
from packetcloud.chunk.hop.outlet import Outlet
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.hop.shield import Shield
from packetcloud.chunk.hop.stamp_file import StampFile, StampFileError
from packetcloud.chunk.hop.stamps import Stamps
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID

TURNS_IN_A_ROW = 4
"""Before whatever else the reactor has to do; each is about a millisecond at 10 Gbit/s."""
REST_S = 0.005
"""Who did nothing for so long takes in one train first: if it begins a body, a service that will
have it is forewarned while the rest of it comes. For as long again it stays awake in lulls: who is
busy for longer finds work whenever he looks, and would only take from who makes it."""
AWAKE_S = 0.0002
"""Looked for what is about to arrive, before whatever else the reactor has to do."""
WINDOW_SHARE = 0.35
"""Of the kernel's receive buffer: the rest is the kernel's bookkeeping for small frames."""


_log = logging.getLogger(__name__)


class HopConnectError(PacketCloudError):
    """No session with the neighbour came about; the text says why and what to check."""


def _first_address(address: tuple[str, int], family: int, flags: int) -> Any:
    return socket.getaddrinfo(*address, family, socket.SOCK_DGRAM, 0, flags)[0][4]


@dataclass(slots=True)
class _Open:
    """A socket, who watches it, and what moves datagrams between it and the core."""

    sock: socket.socket
    poll: select.epoll
    core: HopCore
    intake: Intake
    outlet: Outlet
    gauge: FloodGauge
    shield: Shield
    arrivals: select.poll
    """Tells of what arrives while nobody watches."""
    is_watched: bool = False
    ear: Ear | None = None
    """For the bell of the router that shares memory."""

    def listen_with(self, ear: Ear) -> None:
        """Have the reactor told of what this ear hears, and of no other."""
        if self.ear is not None:
            self.poll.unregister(self.ear)
        self.ear = ear
        self.poll.register(ear, select.EPOLLIN)

    def watch(self) -> None:
        """Have the reactor told of what arrives."""
        if not self.is_watched:
            full = not self.outlet.is_open
            self.poll.register(self.sock, select.EPOLLIN | (select.EPOLLOUT if full else 0))
            self.is_watched = True

    def unwatch(self) -> None:
        if self.is_watched:
            self.poll.unregister(self.sock)
            self.is_watched = False

    def look_until(self, until: float) -> bool:
        """Tell whether something arrives; whoever else wants the processor meanwhile has it."""
        while time.monotonic() < until:
            if self.arrivals.poll(0):
                return True
            os.sched_yield()
        return False

    def send_out(self, answers_first: bool = False) -> bool:
        """Send what is due, until the socket takes no more; tell whether there was anything.

        Args:
            answers_first: bodies leave before ACKs.
        """
        outlet = self.outlet
        has_sent = False
        if not outlet.is_open:
            return has_sent
        now = time.monotonic()
        for address, buffers, row_bytes in self.core.datagrams_to_send(now, answers_first):
            has_sent = True
            if not outlet.send(address, buffers, row_bytes):
                break
        return has_sent

    def close(self) -> None:
        self.intake.close()
        self.poll.close()
        self.sock.close()


@implementer(IReadDescriptor)
class HopNode:
    """One UDP socket with all its neighbours; see `hop.api` for what it does for the layer above.

    Args:
        reactor: a Twisted reactor; its clock is made monotonic.
        stamp_file: where the stamps of handshakes outlive the process; without it they do not.
        lanes: the folder where routers and services of this machine meet to share memory; without
            it all bodies go in datagrams.
        shows_lanes: containers on this machine have the folder of this router's door.
    """

    def __init__(
        self,
        reactor: Any,
        identity: Identity,
        role: Role,
        config: HopConfig,
        receiver: HopReceiver,
        admit: AdmitNeighbour | None = None,
        stamp_file: Path | None = None,
        lanes: Path | None = None,
        *,
        shows_lanes: bool = False,
    ) -> None:
        install_monotonic_clock(reactor)
        self._reactor = reactor
        self._identity = identity
        self._role = role
        self._config = config
        self._upper = receiver
        self._admit = admit
        self._stamp_file = StampFile(reactor, stamp_file) if stamp_file is not None else None
        self._lanes: Lanes | None = None
        if lanes is not None:
            self._lanes = Lanes(reactor, lanes, is_shown=shows_lanes)
        self._opened: _Open | None = None
        self._timer: Any = None
        self._timer_at = 0.0
        self._turn_call: Any = None
        self._is_turning = False
        """What is to be sent now is looked for anyway."""
        self._turned_at = self._woken_at = -math.inf
        """When the last turn ended, and when the first one began after a rest."""
        self._flood_call: Any = None
        """While a flood is shed: the next look at it, also when nothing comes any more."""
        self.answers_soon = False
        """The layer above will be done with what comes in less than an ACK may take, and then says
        `send_now`."""
        self.receive_buffer_bytes = 0
        """What the kernel granted."""

    # --- life -----------------------------------------------------------------------------------

    def listen(self, host: str = "0.0.0.0", port: int = 0) -> tuple[str, int]:
        """Bind and begin to receive; return the address.

        Raises:
            OSError: the address cannot be bound.
            StampFileError: the file of stamps is damaged.
        """
        if self._opened is not None:
            raise LocalMisuseError("this hop node listens already")
        stamps = self._load_stamps()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.bind((host, port))
        except OSError:
            sock.close()
            raise
        offload = probe_offload()
        if offload.coalescing:
            enable_coalescing(sock)
        if not (offload.segmentation and offload.coalescing):
            _log.warning("hop: kernel offload missing, slower: %s; see packetcloud doctor", offload)
        enable_errors(sock)
        ignore_path_mtu(sock)
        self.receive_buffer_bytes = enlarge_buffers(sock, self._config.receive_buffer_bytes)
        core = HopCore(
            self._identity,
            self._role,
            self._config,
            self._upper,
            os.urandom,
            route_datagram_bytes,
            int(self.receive_buffer_bytes * WINDOW_SHARE),
            self._admit,
            self._wake,
            lambda: _log.exception("hop: fault of the layer above"),
            stamps,
            probe_fast_aes(),
        )
        if self._stamp_file is not None:
            self._stamp_file.keep(core.stamps)
        opened = self._opened = _Open(
            sock,
            select.epoll(),
            core,
            Intake(core, sock, self._read_errors),
            Outlet(sock, offload.segmentation, self._read_errors, core.dropped),
            FloodGauge(time.monotonic()),
            Shield(sock),
            select.poll(),
        )
        opened.arrivals.register(sock, select.POLLIN)
        opened.watch()
        self._reactor.addReader(self)
        if self._lanes is not None and self._role is Role.ROUTER:
            self._lanes.open_door(core)
        address = sock.getsockname()
        return address[0], address[1]

    def _load_stamps(self) -> Stamps:
        """Raises: StampFileError."""
        saved = self._stamp_file.read() if self._stamp_file is not None else None
        try:
            return Stamps(time.time_ns, saved)
        except ValueError as error:
            assert self._stamp_file is not None
            raise StampFileError(f"{self._stamp_file.path}: {error}") from None

    @property
    def core(self) -> HopCore:
        """The protocol core.

        Raises:
            LocalMisuseError: before `listen` and after `close`.
        """
        if self._opened is None:
            raise LocalMisuseError("this hop node does not listen")
        return self._opened.core

    @property
    def guid(self) -> GUID:
        return self._identity.guid

    @property
    def lanes(self) -> Path | None:
        """Where services of this machine find the door; None: there is none."""
        return self._lanes.shared if self._lanes is not None else None

    @property
    def neighbours(self) -> list[Neighbour]:
        return list(self._opened.core.sessions.values()) if self._opened else []

    def stats(self) -> dict[str, int]:
        return self.core.stats()

    @property
    def dropped(self) -> dict[str, int]:
        """Datagrams dropped so far, by reason."""
        return dict(self.core.dropped)

    async def connect(self, address: tuple[str, int], expected: GUID | None = None) -> Neighbour:
        """Establish a session with the node at `address`.

        Raises:
            HopConnectError: no answer, another node than `expected`, or it does not admit us.
        """
        core = self.core
        assert self._opened is not None
        peer = await self._resolve(address, self._opened.sock.family)
        if self._opened is None or self._opened.core is not core:
            raise HopConnectError(f"no session with {address[0]}:{address[1]}: the node was closed")
        result: Deferred[Session | str] = Deferred()
        core.connect(peer, expected, result.callback, time.monotonic())
        session = await result
        if isinstance(session, str):
            raise HopConnectError(f"no session with {address[0]}:{address[1]}: {session}")
        if self._lanes is not None and self._role is Role.SERVICE:
            self._lanes.seek(session, self._listen_with)
        return session

    def _listen_with(self, ear: Ear) -> None:
        if self._opened is not None:
            self._opened.listen_with(ear)

    async def _resolve(self, address: tuple[str, int], family: int) -> Any:
        """Return the address as the socket reports it for what comes from there."""
        with suppress(OSError):
            # No name, so nothing is asked of anybody.
            return _first_address(address, family, socket.AI_NUMERICHOST)
        try:
            pool = self._reactor.getThreadPool()
            return await deferToThreadPool(self._reactor, pool, _first_address, address, family, 0)
        except OSError as error:
            wanted = "IPv6" if family == socket.AF_INET6 else "IPv4"
            raise HopConnectError(
                f"no session with {address[0]}:{address[1]}: {error.strerror or error}; allowed: "
                f"an {wanted} address, or a name of one, as this node listens on such"
            ) from None

    async def close(self, reason: str = "shutting down") -> None:
        """Say farewell to every neighbour and close the socket. Calling it again does nothing."""
        opened = self._opened
        if opened is not None:
            opened.core.close(reason, time.monotonic())
            opened.outlet.give_up()
            opened.send_out()
            self.abandon()

    def abandon(self) -> None:
        """Close the socket without a farewell, as the end of the process would."""
        opened = self._opened
        if opened is None:
            return
        self._reactor.removeReader(self)
        for call in (self._timer, self._turn_call, self._flood_call):
            if call is not None and call.active():
                call.cancel()
        if self._stamp_file is not None:
            self._stamp_file.close()
        if self._lanes is not None:
            self._lanes.close()
        self._timer = self._turn_call = self._flood_call = self._opened = None
        opened.close()

    # --- IReadDescriptor ------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._opened.poll.fileno() if self._opened is not None else -1

    def logPrefix(self) -> str:
        return "hop"

    def connectionLost(self, reason: Any) -> None:
        """Called by the reactor when it drops the descriptor; the socket is closed by `close`."""

    def doRead(self) -> None:
        """Something has arrived or is about to, or the socket takes datagrams again."""
        opened = self._opened
        if opened is not None and opened.ear is not None and opened.ear.was_rung():
            opened.core.vigil.warned(time.monotonic())
        self._take_turns()

    def _take_turns(self) -> None:
        """Take in and send out in turns, until there is nothing to do or others must have a go.

        Nobody watches the socket meanwhile. Else the kernel would wake the reactor's poll for
        every datagram whose memory it frees: 3 % of a busy machine.
        """
        opened = self._opened
        if opened is None:
            return
        core, outlet = opened.core, opened.outlet
        now = time.monotonic()
        has_rested = now - self._turned_at > REST_S
        if has_rested:
            self._woken_at = now
        self._is_turning = True
        opened.unwatch()
        try:
            for _ in range(TURNS_IN_A_ROW):
                began = time.monotonic()
                outlet.resume()
                taken = opened.intake.take_turn(1 if has_rested else BYTES_PER_TURN)
                has_rested = False
                if self._opened is not opened:
                    return
                is_alone = taken and began - self._woken_at < REST_S
                has_work = is_alone and self._reactor.timeout() == 0
                if has_work and self.answers_soon:
                    break  # the ACK can leave with the answer
                has_sent = opened.send_out()
                if self._opened is not opened:
                    return
                if core.has_more and outlet.is_open:
                    continue
                if has_work:
                    break  # what came is work for the layer above, and nobody else waits
                since = time.monotonic() if taken or has_sent else began
                if not self._sees_more(opened, taken, since) and not taken:
                    break
        except Exception:  # through the reactor it would close the port, and nobody would notice
            core.dropped["internal_error"] += 1
            _log.exception("hop: fault while sending")
        finally:
            self._is_turning = False
            if self._opened is opened:
                opened.watch()
        self._turned_at = now = time.monotonic()
        if (core.has_more and outlet.is_open) or core.vigil.until(now) > now:
            self._wake()
        self._arm(core.next_timeout())
        if self._flood_call is None and opened.gauge.is_due(now):
            self._look_at_flood(opened)

    def send_now(self) -> None:
        """Send what is due without waiting for the reactor's next turn; inside of a turn it is sent
        anyway."""
        opened = self._opened
        if opened is None or self._is_turning:
            return
        if self._turn_call is not None:
            self._turn_call.cancel()
            self._turn_call = None
        self._is_turning = True
        opened.unwatch()
        try:
            opened.send_out(answers_first=True)
        except Exception:  # as in a turn: nobody would notice a port that is closed
            opened.core.dropped["internal_error"] += 1
            _log.exception("hop: fault while sending")
        finally:
            self._is_turning = False
            if self._opened is opened:
                opened.watch()  # also for room, where the socket is full now
        if self._opened is opened:
            if opened.core.has_more and opened.outlet.is_open:
                self._wake()
            self._arm(opened.core.next_timeout())

    # --- inside ---------------------------------------------------------------------------------

    def _sees_more(self, opened: _Open, taken: bool, since: float) -> bool:
        """Stay awake for a moment if something is about to arrive and there is nothing else to do;
        tell whether it has.

        Args:
            since: when there began to be nothing else: a turn in vain counts as staying awake too.
        """
        core, now = opened.core, time.monotonic()
        if taken and now - self._woken_at < REST_S and core.is_midway:
            core.vigil.midway(now)
        until = core.vigil.until(now)
        if until <= now:
            return False
        pause_s = self._reactor.timeout()
        end = min(until, now + AWAKE_S, math.inf if pause_s is None else now + pause_s)
        has_come = opened.look_until(end)
        looked_until = time.monotonic()
        core.vigil.spent(looked_until - since, looked_until)
        return has_come

    def _wake(self) -> None:
        if self._turn_call is None and not self._is_turning:
            self._turn_call = self._reactor.callLater(0, self._on_turn)

    def _look_at_flood(self, opened: _Open) -> None:
        """Shed strangers while there are too many of them, and let in what got known since."""
        gauge, strangers = opened.gauge, opened.core.strangers_count
        gauge.look(strangers, opened.shield.dropped_count(), time.monotonic())
        shift = gauge.shift
        if opened.gauge.shed_count:
            opened.core.dropped["flood_shed"] = opened.gauge.shed_count
        opened.shield.shed(shift, opened.core.known_ids() if shift else ())
        if shift:
            self._flood_call = self._reactor.callLater(LOOK_S, self._on_flood_call)

    def _on_flood_call(self) -> None:
        self._flood_call = None
        if self._opened is not None:
            self._look_at_flood(self._opened)

    def _on_turn(self) -> None:
        self._turn_call = None
        self._take_turns()

    def _read_errors(self) -> None:
        """Empty the socket's error queue; each entry names an address where nobody listens."""
        opened = self._opened
        if opened is None:
            return
        for _ in range(16):
            try:
                _, _, _, address = opened.sock.recvmsg(0, 256, socket.MSG_ERRQUEUE)
            except OSError:
                return
            if address:
                opened.core.suspect(address, time.monotonic())
                self._wake()

    def _arm(self, deadline: float | None) -> None:
        if deadline is None:
            return
        if self._timer is not None and self._timer.active():
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        delay = max(0.0, deadline - time.monotonic())
        self._timer = self._reactor.callLater(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._opened is not None:
            self._opened.core.handle_timeout(time.monotonic())
            self._take_turns()
