"""A TCP socket written without blocking: who is told what, and when."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from packetcloud.chunk.streams.tcp_end import TcpSocket
from tests.unit.host.proxy_world import FakeLoop, FakeSocket


class Owner:
    """Notes what it is told of written bytes, and what was unwritten then."""

    def __init__(self, tcp: TcpSocket) -> None:
        self.seen: list[tuple[int, int]] = []
        self._tcp = tcp
        tcp.owner = self

    def room(self) -> int:
        return 0

    def came(self, data: bytes) -> None: ...
    def came_end(self) -> None: ...
    def broke(self, why: str) -> None: ...
    def sent(self, count: int) -> None:
        self.seen.append((count, self._tcp.unwritten_bytes))


def test_who_hears_of_written_bytes_sees_what_is_left() -> None:
    """The rest lies in the queue before the owner is told, and what was taken is out of it."""
    loop, sock = FakeLoop(), FakeSocket(room=4)
    loop.sockets[sock.fileno()] = sock
    fakes: Any = (loop, sock)
    tcp = TcpSocket(*fakes)
    owner = Owner(tcp)
    tcp.write([b"abcdef", b"gh"])
    for room in (3, 9):
        sock.room = room
        loop.settle()
    assert owner.seen == [(4, 4), (2, 2), (1, 1), (1, 0)]
    assert sock.taken == b"abcdefgh" and not tcp.has_unwritten


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_process_that_is_killed_resets_its_connections(is_killed: bool) -> None:
    """Its kernel closes them: the peer sees a reset, and an end only when we ended."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname(), 10.0)
        ours, _ = server.accept()
    loop: Any = FakeLoop()
    tcp = TcpSocket(loop, ours)
    if is_killed:
        ours.close()
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
    else:
        tcp.close()
        assert peer.recv(1) == b""
    peer.close()
