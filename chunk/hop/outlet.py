"""How a hop node's datagrams leave: 64 KiB a system call where the kernel cuts them.

Source: udp(7), UDP_SEGMENT; docs/decisions/0006.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Buffer
from packetcloud.chunk.hop.offload import SOL_UDP, UDP_SEGMENT


class Outlet:
    """Sends through one socket; keeps what the socket did not take until `resume`.

    Args:
        has_segmentation: the kernel cuts a train into its datagrams.
        read_errors: called when the socket has an error to report: an ICMP error that came in
            earlier, or no route. The datagrams then count as lost.
    """

    def __init__(
        self, sock: socket.socket, has_segmentation: bool, read_errors: Callable[[], None]
    ) -> None:
        self._socket = sock
        self._has_segmentation = has_segmentation
        self._read_errors = read_errors
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

    def send(self, address: Any, buffers: list[Buffer], row_bytes: int) -> bool:
        """Send a burst of datagrams of `row_bytes`, or jumbo datagrams of two buffers each.

        Returns:
            False when the socket was full: the rest is kept, and nothing else may be sent before.
        """
        try:
            left = self._send(address, buffers, row_bytes)
        except OSError:
            self._read_errors()
            return True
        if left:
            # The buffers are the core's, and hold only until it is asked for the next burst.
            self._stalled = address, [bytes(piece) for piece in left], row_bytes
        return not left

    def _send(self, address: Any, buffers: list[Buffer], row_bytes: int) -> list[Buffer]:
        """Send, and return what the socket did not take."""
        sendmsg = self._socket.sendmsg
        if len(buffers) > 1:
            for sent in range(0, len(buffers), 2):
                try:
                    sendmsg(buffers[sent : sent + 2], (), 0, address)
                except BlockingIOError:
                    return buffers[sent:]
            return []
        burst = memoryview(buffers[0])
        size = len(burst)
        per_call = row_bytes * (wire.train_rows(row_bytes) if self._has_segmentation else 1)
        option = ((SOL_UDP, UDP_SEGMENT, struct.pack("=H", row_bytes)),)
        for sent in range(0, size, per_call):
            part = burst[sent : sent + per_call]
            try:
                sendmsg((part,), option if len(part) > row_bytes else (), 0, address)
            except BlockingIOError:
                return [burst[sent:]]
        return []
