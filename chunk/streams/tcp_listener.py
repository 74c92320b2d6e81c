"""One listening socket: every connection that comes in, and a pause when descriptors run out."""

from __future__ import annotations

import errno
import socket
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from typing import Any

ACCEPT_COUNT = 64
"""Connections taken at once from the queue."""
PAUSE_S = 0.2
"""Without descriptors or memory the queue stays readable: who asked at once again would only spin.
The clients wait in the queue meanwhile."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""No descriptor or memory is left just now."""

Accepted = Callable[[socket.socket, Any], None]
"""Called with a connection and the address that it comes from."""


class TcpListener:
    """Takes connections until it is closed.

    Args:
        sock: listens, and does not block; closed with this.
        paused: called whenever the queue has to wait for descriptors.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        sock: socket.socket,
        accepted: Accepted,
        paused: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._accepted = accepted
        self._paused = paused
        self._resume_call: TimerHandle | None = None
        self._resume()

    def stop(self) -> None:
        """Take no more; who connects waits for `close`. Harmless when repeated."""
        if self._resume_call is not None:
            self._resume_call.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())

    def close(self) -> None:
        """Take no more. Harmless when repeated."""
        self.stop()
        self._sock.close()

    def _resume(self) -> None:
        self._resume_call = None
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def _readable(self) -> None:
        for _ in range(ACCEPT_COUNT):
            try:
                connection, address = self._sock.accept()
            except OSError as error:  # nobody is left, or has gone again
                if error.errno in EXHAUSTED:
                    self._pause()
                return
            self._accepted(connection, address)
            if self._sock.fileno() < 0:
                return  # whoever took it closed this

    def _pause(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._resume_call = self._loop.call_later(PAUSE_S, self._resume)
        self._paused()
