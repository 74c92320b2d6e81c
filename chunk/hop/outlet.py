"""How a hop node's datagrams leave: 64 KiB a system call where the kernel cuts them.

Source: udp(7), UDP_SEGMENT; docs/decisions/0006.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Buffer
from packetcloud.chunk.hop.offload import SOL_UDP, UDP_SEGMENT

Ancillary = tuple[tuple[int, int, bytes], ...]
_NO_SEGMENTATION = frozenset({errno.EIO, errno.EINVAL, errno.EOPNOTSUPP})
"""What a device answers whose driver cannot cut a train, whatever the kernel offered."""
FAILURES_LOGGED_COUNT = 64
"""Kinds of failure told in the log; a neighbour can make up any number of addresses."""

_log = logging.getLogger(__name__)


class Outlet:
    """Sends through one socket; keeps what the socket did not take until `resume`.

    Args:
        has_segmentation: the kernel cuts a train into its datagrams.
        read_errors: called when the socket may have an error to report that came in earlier, such
            as an ICMP error about another address.
        dropped: counts `send_failed`: trains that could not be sent, as if the network lost them.
    """

    def __init__(
        self,
        sock: socket.socket,
        has_segmentation: bool,
        read_errors: Callable[[], None],
        dropped: Counter[str],
    ) -> None:
        self._socket = sock
        self._has_segmentation = has_segmentation
        self._read_errors = read_errors
        self._dropped = dropped
        self._logged: set[tuple[Any, int | None]] = set()
        self._stalled: tuple[Any, list[Buffer], int] | None = None

    @property
    def is_open(self) -> bool:
        """The socket took all that it was given."""
        return self._stalled is None

    def resume(self) -> None:
        """Send what the socket did not take the last time."""
        if self._stalled is not None:
            address, buffers, row_bytes = self._stalled
            self._stalled = None
            self.send(address, buffers, row_bytes)

    def give_up(self) -> None:
        """Drop what the socket did not take: something that matters more comes now."""
        self._stalled = None

    def send(self, address: Any, buffers: list[Buffer], row_bytes: int) -> bool:
        """Send a burst of datagrams of `row_bytes`, or jumbo datagrams of two buffers each.

        Returns:
            False when the socket was full: the rest is kept, and nothing else may be sent before.
        """
        if len(buffers) > 1:
            for sent in range(0, len(buffers), 2):
                if not self._send_part(address, buffers[sent : sent + 2], ()):
                    return self._keep(address, buffers[sent:], row_bytes)
            return True
        burst = memoryview(buffers[0])
        size = len(burst)
        sent = 0
        while sent < size:
            rows = wire.train_rows(row_bytes) if self._has_segmentation else 1
            part = burst[sent : sent + rows * row_bytes]
            option: Ancillary = ()
            if len(part) > row_bytes:
                option = ((SOL_UDP, UDP_SEGMENT, struct.pack("=H", row_bytes)),)
            had_segmentation = self._has_segmentation
            if not self._send_part(address, [part], option):
                return self._keep(address, [burst[sent:]], row_bytes)
            if self._has_segmentation == had_segmentation:
                sent += len(part)
        return True

    def _send_part(self, address: Any, pieces: list[Buffer], option: Ancillary) -> bool:
        """Make one system call; False when the socket is full."""
        failure: OSError | None = None
        for _ in range(2):
            try:
                self._socket.sendmsg(pieces, option, 0, address)
            except BlockingIOError:
                return False
            except OSError as error:
                # The first time it may be an ICMP error about some other neighbour.
                failure = error
                self._read_errors()
            else:
                return True
        assert failure is not None
        if option and failure.errno in _NO_SEGMENTATION:
            _log.warning("hop: no segmentation towards %s (%s): slower", address[0], failure)
            self._has_segmentation = False
            return True
        self._dropped["send_failed"] += 1
        kind = address, failure.errno
        if kind not in self._logged and len(self._logged) < FAILURES_LOGGED_COUNT:
            self._logged.add(kind)
            _log.warning("hop: cannot send to %s:%d: %s", address[0], address[1], failure)
        return True

    def _keep(self, address: Any, left: list[Buffer], row_bytes: int) -> bool:
        # The buffers are the core's, and hold only until it is asked for the next burst.
        self._stalled = address, [bytes(piece) for piece in left], row_bytes
        return False
