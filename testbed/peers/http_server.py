"""The AES job behind HTTP: `POST`, keep-alive, one process, no framework.

`python -m packetcloud.testbed.peers.http_server`. It speaks just enough HTTP/1.1 for nginx and for
our load client, and reads a body straight into the cipher's buffer: a framework would be slower.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import sys
import time

from packetcloud.testbed.peers.aes_job import AesJob
from packetcloud.testbed.processes import emit_event

MAX_BODY_BYTES = 4 << 20
MAX_HEAD_BYTES = 16 << 10
_END_OF_HEAD = b"\r\n\r\n"


class RequestError(Exception):
    """The client sent something that is not our kind of request; its connection is closed."""


class Connection:
    """One client: reads a request, answers, reads the next."""

    def __init__(self, sock: socket.socket, key: bytes) -> None:
        self.socket = sock
        self._job = AesJob(key, MAX_BODY_BYTES)
        self._head = bytearray()
        self._body_bytes = -1
        self._have_bytes = 0
        self._unsent: list[memoryview] = []

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def readable(self) -> bool:
        """Read what is there; return False at the end of the connection.

        Raises:
            RequestError: not a POST with a Content-Length within limits.
        """
        if self._unsent:
            return True  # no pipelining: the next request waits for this answer
        try:
            if self._body_bytes < 0:
                data = self.socket.recv(1 << 16)
                if not data:
                    return False
                self._take_head(data)
            else:
                landing = self._job.landing[self._have_bytes : self._body_bytes]
                count = self.socket.recv_into(landing)
                if not count:
                    return False
                self._have_bytes += count
        except BlockingIOError:
            return True
        if self._have_bytes == self._body_bytes:
            self._answer()
        return True

    def writable(self) -> None:
        """Send more of the answer."""
        while self._unsent:
            try:
                sent = self.socket.sendmsg(self._unsent)
            except BlockingIOError:
                return
            while sent and sent >= len(self._unsent[0]):
                sent -= len(self._unsent.pop(0))
            if sent:
                self._unsent[0] = self._unsent[0][sent:]

    def _take_head(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(_END_OF_HEAD)
        if end < 0:
            if len(self._head) > MAX_HEAD_BYTES:
                raise RequestError("head too long")
            return
        rest = self._head[end + len(_END_OF_HEAD) :]
        self._body_bytes = content_length(bytes(self._head[:end]))
        if len(rest) > self._body_bytes:
            raise RequestError("pipelined")
        self._job.landing[: len(rest)] = rest
        self._have_bytes = len(rest)
        self._head.clear()

    def _answer(self) -> None:
        begin_ns = time.perf_counter_ns()
        result = self._job.encrypt_landed(self._body_bytes)
        spent_ns = time.perf_counter_ns() - begin_ns
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Length: {len(result)}\r\nX-Processing-Ns: {spent_ns}\r\n\r\n"
        )
        self._body_bytes, self._have_bytes = -1, 0
        self._unsent = [memoryview(head.encode()), result]
        self.writable()


def content_length(head: bytes) -> int:
    """Return the body's length from a request head.

    Raises:
        RequestError: not a POST, or no usable Content-Length.
    """
    lines = head.split(b"\r\n")
    if not lines[0].startswith(b"POST "):
        raise RequestError(f"not a POST: {lines[0][:40]!r}")
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            text = value.strip()
            if text.isdigit() and int(text) <= MAX_BODY_BYTES:
                return int(text)
            raise RequestError(f"Content-Length {text[:20]!r}")
    raise RequestError("no Content-Length")


def serve(listener: socket.socket, key: bytes) -> None:
    """Serve until the process ends."""
    selector = selectors.DefaultSelector()
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for entry, events in selector.select():
            connection = entry.data
            if connection is None:
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(sock, selectors.EVENT_READ, Connection(sock, key))
                continue
            if not _attend(connection, events):
                selector.unregister(connection.socket)
                connection.socket.close()
                continue
            wanted = selectors.EVENT_WRITE if connection.has_unsent else selectors.EVENT_READ
            if entry.events != wanted:
                selector.modify(connection.socket, wanted, connection)


def _attend(connection: Connection, events: int) -> bool:
    try:
        if events & selectors.EVENT_WRITE:
            connection.writable()
        return connection.readable() if events & selectors.EVENT_READ else True
    except (RequestError, OSError) as error:
        print(f"http_server: {error}", file=sys.stderr)
        return False


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", type=bytes.fromhex, required=True)
    options = parser.parse_args(arguments)
    listener = socket.create_server((options.host, options.port), backlog=128)
    emit_event("listening", address=listener.getsockname())
    serve(listener, options.key)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
