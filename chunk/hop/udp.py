"""The UDP shell of a hop node on a Twisted reactor: moves trains and arms one timer.

Source: design, sections 3 and 5.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python import log
from zope.interface import implementer

from packetcloud.chunk.errors import LocalMisuseError, PacketCloudError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import AdmitNeighbour, HopConfig, HopReceiver, Neighbour, Role
from packetcloud.chunk.hop.batch import BatchReceiver, load_recvmmsg
from packetcloud.chunk.hop.buffers import JUMBO_BYTES, join_front
from packetcloud.chunk.hop.clock import install_monotonic_clock
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.offload import (
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    disable_coalescing,
    enable_coalescing,
    enable_errors,
    enlarge_buffers,
    probe_offload,
    route_datagram_bytes,
)
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID

RECEIVES_PER_TURN = 16
BYTES_PER_TURN = 1024 << 10
"""Taken in before answers and what is to be passed on go out: reading and sending take turns often
enough that neither side of a router waits for the other."""
TURNS_IN_A_ROW = 4
"""Before whatever else the reactor has to do; each is about a millisecond at 10 Gbit/s."""
SINGLES_BEFORE_BATCH = 64
"""So many full datagrams that came alone, one after the other: nothing joins them on this path."""
BATCHES_IN_A_ROW = 4096
"""Then coalescing is tried again."""
_FULL_BYTES = 1200
_ANCILLARY_BYTES = socket.CMSG_SPACE(4)
WINDOW_SHARE = 0.35
"""Of the kernel's receive buffer: the rest is the kernel's bookkeeping for small frames."""


class HopConnectError(PacketCloudError):
    """No session with the neighbour came about; the text says why and what to check."""


@implementer(IReadDescriptor)
class HopNode:
    """One UDP socket with all its neighbours; see `hop.api` for what it does for the layer above.

    Args:
        reactor: a Twisted reactor; its clock is made monotonic.
    """

    def __init__(
        self,
        reactor: Any,
        identity: Identity,
        role: Role,
        config: HopConfig,
        receiver: HopReceiver,
        admit: AdmitNeighbour | None = None,
    ) -> None:
        install_monotonic_clock(reactor)
        self._reactor = reactor
        self._identity = identity
        self._role = role
        self._config = config
        self._upper = receiver
        self._admit = admit
        self._socket: socket.socket | None = None
        self._core: HopCore | None = None
        self._timer: Any = None
        self._timer_at = 0.0
        self._flush_call: Any = None
        self._batch: BatchReceiver | None = None
        self._batches_left = 0
        self._singles = 0
        self._poll: select.epoll | None = None
        """Watches the socket, and is itself what the reactor watches."""
        self._is_watched = False
        self._stalled: tuple[Any, list[bytes], int] | None = None
        self._has_segmentation = False
        self.receive_buffer_bytes = 0
        """What the kernel granted."""

    # --- life -----------------------------------------------------------------------------------

    def listen(self, host: str = "0.0.0.0", port: int = 0) -> tuple[str, int]:
        """Bind and begin to receive; return the address.

        Raises:
            OSError: the address cannot be bound.
        """
        if self._socket is not None:
            raise LocalMisuseError("this hop node listens already")
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
        self._has_segmentation = offload.segmentation
        if not (offload.segmentation and offload.coalescing):
            log.msg(f"hop: kernel offload missing, slower: {offload}; see packetcloud doctor")
        enable_errors(sock)
        self.receive_buffer_bytes = enlarge_buffers(sock, self._config.receive_buffer_bytes)
        self._socket = sock
        self._poll = select.epoll()
        self._core = HopCore(
            self._identity,
            self._role,
            self._config,
            self._upper,
            os.urandom,
            route_datagram_bytes,
            int(self.receive_buffer_bytes * WINDOW_SHARE),
            self._admit,
            self._wake,
            lambda: log.err(None, "hop: fault of the layer above"),  # type: ignore[no-untyped-call]
        )
        self._watch()
        self._reactor.addReader(self)
        address = sock.getsockname()
        return address[0], address[1]

    @property
    def core(self) -> HopCore:
        """The protocol core.

        Raises:
            LocalMisuseError: before `listen` and after `close`.
        """
        if self._core is None:
            raise LocalMisuseError("this hop node does not listen")
        return self._core

    @property
    def guid(self) -> GUID:
        return self._identity.guid

    @property
    def neighbours(self) -> list[Neighbour]:
        return list(self._core.sessions.values()) if self._core else []

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
        result: Deferred[Session | str] = Deferred()
        self.core.connect(address, expected, result.callback, time.monotonic())
        session = await result
        if isinstance(session, str):
            raise HopConnectError(f"no session with {address[0]}:{address[1]}: {session}")
        return session

    async def close(self, reason: str = "shutting down") -> None:
        """Say farewell to every neighbour and close the socket. Calling it again does nothing."""
        if self._core is None or self._socket is None:
            return
        self._core.close(reason, time.monotonic())
        self._send_out(self._core)
        self._reactor.removeReader(self)
        for call in (self._timer, self._flush_call):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._flush_call = None
        self._socket.close()
        assert self._poll is not None
        self._poll.close()
        self._socket = self._poll = self._core = None
        self._is_watched = False

    # --- IReadDescriptor ------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._poll.fileno() if self._poll is not None else -1

    def logPrefix(self) -> str:
        return "hop"

    def connectionLost(self, reason: Any) -> None:
        """Called by the reactor when it drops the descriptor; the socket is closed by `close`."""

    def doRead(self) -> None:
        """Something has arrived, or the socket takes datagrams again."""
        self._take_turns()

    def _take_turns(self) -> None:
        """Take in and send out in turns, until there is nothing to do or others must have a go.

        Nobody watches the socket meanwhile. Else the kernel would wake the reactor's poll for
        every datagram whose memory it frees: 3 % of a busy machine.
        """
        core, sock = self._core, self._socket
        if core is None or sock is None:
            return
        self._unwatch()
        for _ in range(TURNS_IN_A_ROW):
            self._resume()
            taken = self._take_in(core, sock)
            if self._core is not core:
                return
            self._send_out(core)
            if not taken and (self._stalled is not None or not core.has_more):
                break
        self._watch()
        if core.has_more and self._stalled is None:
            self._wake()
        self._arm(core.next_timeout())

    def _take_in(self, core: HopCore, sock: socket.socket) -> bool:
        """Take in what has arrived, up to `BYTES_PER_TURN`; tell whether anything had."""
        left = BYTES_PER_TURN
        for _ in range(RECEIVES_PER_TURN):
            if left <= 0 or self._core is not core:
                break
            try:
                received = self._receive_batch(core, sock) if self._batches_left else 0
                received = received or self._receive_run(core, sock, left)
                left -= received or self._receive_train(core, sock)
            except BlockingIOError:
                break
            except OSError:
                self._read_errors()
            except Exception:
                # A fault of ours in one chunk must not close the port for all neighbours.
                core.dropped["internal_error"] += 1
                log.err(None, "hop: fault while taking in a train")  # type: ignore[no-untyped-call]
        return left < BYTES_PER_TURN

    def _receive_run(self, core: HopCore, sock: socket.socket, limit_bytes: int) -> int:
        """Receive trains that follow each other into the body in hand, and look at them at once.

        Returns the bytes taken in, 0 when there is no body in hand. The run ends with the body,
        with the limit, with whatever does not fit in, and when nothing more is there.

        Raises:
            BlockingIOError: there is nothing.
        """
        place = core.landing_run()
        if place is None:
            return 0
        rows, first, end, expected = place
        stride, memory, scratch = rows.stride, rows.memory, core.scratch
        receive = sock.recvmsg_into
        row, length = first, 0
        misfit: tuple[bytearray, int, Any] | None = None
        while row < end:
            region = memory[row * stride :]
            try:
                size, ancillary, _, address = receive((region, scratch), _ANCILLARY_BYTES)
            except OSError as error:
                if not length:
                    raise
                if not isinstance(error, BlockingIOError):
                    self._read_errors()
                break
            row_bytes = int.from_bytes(ancillary[0][2][:2], sys.byteorder) if ancillary else size
            if address != expected or row_bytes != stride or size > len(region):
                misfit = (join_front((region, scratch), size), row_bytes, address)
                break
            if ancillary:
                self._singles = 0
            else:
                self._note_single(sock)
            length += size
            row += size // stride
            if size % stride or self._batches_left or length >= limit_bytes:
                break
        now = time.monotonic()
        if length:
            core.receive_run(rows, first, length, expected, now)
        if misfit is not None and misfit[0]:
            data, row_bytes, address = misfit
            array = np.frombuffer(data, np.uint8)
            core.receive_elsewhere(array, len(data), row_bytes, address, now)
            length += len(data)
        return length or 1

    def _note_single(self, sock: socket.socket) -> None:
        """Count full datagrams that came alone; after many, take them by batches."""
        self._singles += 1
        if self._singles >= SINGLES_BEFORE_BATCH:
            self._begin_batches(sock)

    def _receive_train(self, core: HopCore, sock: socket.socket) -> int:
        """Receive what the kernel has in one piece, and return its bytes.

        Raises:
            BlockingIOError: there is nothing.
        """
        buffers = core.landing()
        length, ancillary, _, address = sock.recvmsg_into(buffers, _ANCILLARY_BYTES)
        row_bytes = length
        for level, kind, data in ancillary:
            if level == SOL_UDP and kind == UDP_GRO:
                row_bytes = int.from_bytes(data[:2], sys.byteorder)
        if not length:
            return 0
        if row_bytes == length and len(buffers) == 2 and length >= _FULL_BYTES:
            self._note_single(sock)
        elif row_bytes < length:
            self._singles = 0
        core.receive_train(length, row_bytes, address, time.monotonic())
        return length

    def _receive_batch(self, core: HopCore, sock: socket.socket) -> int:
        """Receive many single datagrams; returns their bytes, 0 when there is no place for them."""
        place = core.landing_rows()
        if place is None or self._batch is None or place[1] > JUMBO_BYTES:
            return 0
        self._batches_left -= 1
        if not self._batches_left:
            enable_coalescing(sock)
            self._singles = 0
        received = self._batch.receive(sock.fileno(), *place)
        if received is None:
            raise BlockingIOError
        now = time.monotonic()
        in_place, groups = received
        total = 0
        for array, start, length, row_bytes, address in groups:
            total += length
            if in_place:
                core.receive_train(length, row_bytes, address, now)
            else:
                core.receive_elsewhere(array[start:], length, row_bytes, address, now)
        return total

    def _begin_batches(self, sock: socket.socket) -> None:
        """The path does not join datagrams: take many per call, and look again after a while."""
        recvmmsg = load_recvmmsg()
        if recvmmsg is None:
            return
        if self._batch is None:
            self._batch = BatchReceiver(recvmmsg)
        disable_coalescing(sock)
        self._batches_left = BATCHES_IN_A_ROW

    # --- inside ---------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._poll is not None and self._socket is not None and not self._is_watched:
            events = select.EPOLLIN if self._stalled is None else select.EPOLLIN | select.EPOLLOUT
            self._poll.register(self._socket, events)
            self._is_watched = True

    def _unwatch(self) -> None:
        if self._poll is not None and self._socket is not None and self._is_watched:
            self._poll.unregister(self._socket)
            self._is_watched = False

    def _wake(self) -> None:
        if self._flush_call is None:
            self._flush_call = self._reactor.callLater(0, self._flush_later)

    def _flush_later(self) -> None:
        self._flush_call = None
        self._take_turns()

    def _resume(self) -> None:
        """Send what the socket did not take the last time."""
        if self._stalled is not None:
            address, buffers, row_bytes = self._stalled
            self._stalled = None
            self._send(address, buffers, row_bytes)

    def _send_out(self, core: HopCore) -> None:
        """Send what is due, until the socket takes no more."""
        if self._stalled is not None:
            return
        for address, buffers, row_bytes in core.datagrams_to_send(time.monotonic()):
            self._send(address, buffers, row_bytes)
            if self._stalled is not None:
                return

    def _send(self, address: Any, buffers: list[Any], row_bytes: int) -> None:
        """Send a burst: a call for each 64 KiB of equal datagrams, or for each jumbo datagram."""
        assert self._socket is not None
        sendmsg = self._socket.sendmsg
        sent = 0
        try:
            if len(buffers) > 1:
                for sent in range(0, len(buffers), 2):
                    sendmsg(buffers[sent : sent + 2], (), 0, address)
                return
            burst = buffers[0]
            size = len(burst)
            if size <= row_bytes:
                sendmsg(buffers, (), 0, address)
                return
            per_call = row_bytes * (wire.train_rows(row_bytes) if self._has_segmentation else 1)
            option = ((SOL_UDP, UDP_SEGMENT, struct.pack("=H", row_bytes)),)
            for sent in range(0, size, per_call):
                part = burst[sent : sent + per_call]
                sendmsg((part,), option if len(part) > row_bytes else (), 0, address)
        except BlockingIOError:
            if len(buffers) > 1:
                left = [bytes(piece) for piece in buffers[sent:]]
            else:
                left = [bytes(memoryview(buffers[0])[sent:])]
            self._stalled = (address, left, row_bytes)
        except OSError:
            # An ICMP error that came in earlier, or no route: the datagram counts as lost.
            self._read_errors()

    def _read_errors(self) -> None:
        """Empty the socket's error queue; each entry names an address where nobody listens."""
        assert self._socket is not None
        for _ in range(16):
            try:
                _, _, _, address = self._socket.recvmsg(0, 256, socket.MSG_ERRQUEUE)
            except OSError:
                return
            if address and self._core is not None:
                self._core.suspect(address, time.monotonic())
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
        if self._core is not None:
            self._core.handle_timeout(time.monotonic())
            self._take_turns()
