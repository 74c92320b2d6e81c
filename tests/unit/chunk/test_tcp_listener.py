"""A listening socket that runs out of descriptors: it pauses, and goes on."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from packetcloud.chunk.streams.tcp_listener import PAUSE_S, TcpListener
from tests.unit.host.proxy_world import FakeLoop


class FakeQueue:
    """A listening socket with one connection in its queue, and no descriptor for it at first."""

    def __init__(self, code: int) -> None:
        self.code: int | None = code
        self.tries_count = 0
        self.room = 0
        self.is_closed = False

    @property
    def is_readable(self) -> bool:
        return self.tries_count < 100 and self.code != 0

    def fileno(self) -> int:
        return -1 if self.is_closed else 7

    def accept(self) -> tuple[str, str]:
        self.tries_count += 1
        if self.code is None:
            self.code = 0
            return "connection", "address"
        raise OSError(self.code or errno.EAGAIN, "none")

    def close(self) -> None:
        self.is_closed = True


def listen(code: int) -> tuple[FakeLoop, FakeQueue, list[Any], list[int]]:
    loop, queue = FakeLoop(), FakeQueue(code)
    loop.sockets[7] = queue
    accepted: list[Any] = []
    paused: list[int] = []
    fakes: Any = (loop, queue)
    TcpListener(*fakes, lambda *one: accepted.append(one), lambda: paused.append(1))
    return loop, queue, accepted, paused


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_without_descriptors_it_pauses(code: int) -> None:
    """It asks once for each pause, and takes what waited as soon as there is one."""
    loop, queue, accepted, paused = listen(code)
    loop.settle()
    assert queue.tries_count == len(paused) == 1
    loop.pass_time(PAUSE_S * 3.5)
    assert queue.tries_count == len(paused) == 4
    queue.code = None
    loop.pass_time(PAUSE_S)
    assert accepted == [("connection", "address")]


def test_another_error_does_not_pause_it() -> None:
    """A client that has gone again says nothing about the next one. The control of the above: it
    is asked again and again."""
    loop, queue, _, paused = listen(errno.ECONNABORTED)
    loop.settle()
    assert queue.tries_count == 100 and not paused
