"""The client of the service peers: as many requests as they take, or one at a set pace.

`python -m packetcloud.testbed.peers.load http|grpc`. Prints `window` like our receiver, and `done`
with the delay of every request that counts, and how long the cipher took by the server's own clock.
"""

from __future__ import annotations

import argparse
import queue
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from packetcloud.testbed.peers.aes_job import decrypt
from packetcloud.testbed.processes import emit_event
from packetcloud.testbed.traffic.pattern import CHECK_EVERY, make_payload
from packetcloud.testbed.traffic.window import ArrivalWindow

_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """One finished request."""

    delay_s: float
    processing_ns: int
    data: Any


class Client(Protocol):
    """Sends requests and hands out answers."""

    def submit(self) -> None: ...
    def next_answer(self) -> Answer: ...


class HttpExchange:
    """One keep-alive connection with at most one request on it."""

    def __init__(self, address: tuple[str, int], payload: bytes) -> None:
        self.socket = socket.create_connection(address, timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        head = (
            f"POST /encrypt HTTP/1.1\r\nHost: {address[0]}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        self._request = (memoryview(head.encode()), memoryview(payload))
        self._buffer = memoryview(bytearray(len(payload) + (64 << 10)))
        self._unsent: list[memoryview] = []
        self._begin_s = 0.0
        self._have_bytes = 0
        self._total_bytes = 0
        self._head_bytes = 0
        self._processing_ns = 0

    def begin(self) -> None:
        """Send the next request."""
        self._begin_s = time.monotonic()
        self._have_bytes = self._total_bytes = 0
        self._unsent = list(self._request)
        self.write()

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def write(self) -> None:
        while self._unsent:
            try:
                sent = self.socket.sendmsg(self._unsent)
            except BlockingIOError:
                return
            while self._unsent and sent >= len(self._unsent[0]):
                sent -= len(self._unsent.pop(0))
            if sent:
                self._unsent[0] = self._unsent[0][sent:]

    def read(self) -> Answer | None:
        """Read what is there; return the answer once it is whole."""
        try:
            count = self.socket.recv_into(self._buffer[self._have_bytes :])
        except BlockingIOError:
            return None
        if not count:
            raise ConnectionError("the server closed the connection")
        self._have_bytes += count
        if not self._total_bytes:
            self._parse_head()
        if not self._total_bytes or self._have_bytes < self._total_bytes:
            return None
        delay_s = time.monotonic() - self._begin_s
        body = self._buffer[self._head_bytes : self._total_bytes]
        return Answer(delay_s, self._processing_ns, body)

    def _parse_head(self) -> None:
        text = bytes(self._buffer[: min(self._have_bytes, 4096)])
        end = text.find(_END_OF_HEAD)
        if end < 0:
            return
        lines = text[:end].split(b"\r\n")
        if b" 200 " not in lines[0] + b" ":
            raise ConnectionError(f"the server answered {lines[0].decode('latin-1')}")
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:])
        self._head_bytes = end + len(_END_OF_HEAD)
        self._total_bytes = self._head_bytes + int(fields[b"content-length"])
        self._processing_ns = int(fields.get(b"x-processing-ns", b"0"))


class HttpClient:
    """Several keep-alive connections in one thread."""

    def __init__(self, address: tuple[str, int], payload: bytes, connections: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._idle = [HttpExchange(address, payload) for _ in range(connections)]

    def submit(self) -> None:
        exchange = self._idle.pop()
        exchange.begin()
        self._selector.register(exchange.socket, _wanted(exchange), exchange)

    def next_answer(self) -> Answer:
        while True:
            for entry, events in self._selector.select():
                exchange = entry.data
                if events & selectors.EVENT_WRITE:
                    exchange.write()
                answer: Answer | None = exchange.read() if events & selectors.EVENT_READ else None
                if answer is not None:
                    self._selector.unregister(exchange.socket)
                    self._idle.append(exchange)
                    return answer
                if entry.events != _wanted(exchange):
                    self._selector.modify(exchange.socket, _wanted(exchange), exchange)


class GrpcClient:
    """Unary calls on one channel, finished by the library's own threads."""

    def __init__(self, address: tuple[str, int], payload: bytes) -> None:
        import grpc

        from packetcloud.testbed.peers.grpc_server import METHOD, OPTIONS

        self._channel = grpc.insecure_channel(f"{address[0]}:{address[1]}", options=OPTIONS)
        grpc.channel_ready_future(self._channel).result(timeout=15)
        self._call = self._channel.unary_unary(METHOD, None, None)
        self._payload = payload
        self._answers: queue.SimpleQueue[tuple[float, float, Any]] = queue.SimpleQueue()

    def submit(self) -> None:
        begin_s = time.monotonic()
        future = self._call.future(self._payload, timeout=30)
        future.add_done_callback(lambda done: self._answers.put((begin_s, time.monotonic(), done)))

    def next_answer(self) -> Answer:
        from packetcloud.testbed.peers.grpc_server import PROCESSING_KEY

        begin_s, end_s, done = self._answers.get()
        data = done.result()
        fields = dict(done.trailing_metadata())
        return Answer(end_s - begin_s, int(fields.get(PROCESSING_KEY, 0)), data)


@dataclass(slots=True)
class Tally:
    """What the run has seen."""

    key: bytes
    payload: bytes
    delays_s: list[float] = field(default_factory=list)
    processing_ns: list[int] = field(default_factory=list)
    answers: int = 0
    altered: int = 0

    def add(self, answer: Answer) -> None:
        if (
            self.answers % CHECK_EVERY == 0
            and decrypt(self.key, bytes(answer.data)) != self.payload
        ):
            self.altered += 1
        self.answers += 1
        self.delays_s.append(answer.delay_s)
        self.processing_ns.append(answer.processing_ns)


def run_closed_loop(
    client: Client, tally: Tally, outstanding: int, warmup_s: float, seconds: float
) -> None:
    """Keep `outstanding` requests in flight until the window is over."""
    window = ArrivalWindow(warmup_s, seconds)
    for _ in range(outstanding):
        client.submit()
    while True:
        answer = client.next_answer()
        tally.add(answer)
        closed = window.arrived(time.monotonic(), len(tally.payload))
        if closed is not None:
            emit_event("window", **window.event(closed))
            return
        client.submit()


def run_paced(client: Client, tally: Tally, rate: float, warmup_s: float, seconds: float) -> None:
    """Send one request at a time, `rate` per second; those of the warm-up are not kept."""
    begin_s = time.monotonic()
    number = 0
    while (due_s := begin_s + number / rate) < begin_s + warmup_s + seconds:
        time.sleep(max(0.0, due_s - time.monotonic()))
        client.submit()
        tally.add(client.next_answer())
        if due_s < begin_s + warmup_s:
            tally.delays_s.clear()
            tally.processing_ns.clear()
        number += 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("http", "grpc"))
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", type=bytes.fromhex, required=True)
    parser.add_argument("--payload-bytes", type=int, default=1 << 20)
    parser.add_argument("--outstanding", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0.0, help="requests per second; 0: no limit")
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    address = options.host, options.port
    payload = make_payload(options.payload_bytes)
    tally = Tally(options.key, payload)
    try:
        client: Client = (
            HttpClient(address, payload, 1 if options.rate else options.outstanding)
            if options.kind == "http"
            else GrpcClient(address, payload)
        )
        if options.rate:
            run_paced(client, tally, options.rate, options.warmup, options.seconds)
        else:
            run_closed_loop(client, tally, options.outstanding, options.warmup, options.seconds)
    except Exception as error:  # whatever a peer's library raises is our one result
        emit_event("error", text=f"{type(error).__name__}: {error}")
        return 2
    emit_event(
        "done",
        delays_s=tally.delays_s,
        processing_ns=tally.processing_ns,
        answers=tally.answers,
        altered=tally.altered,
    )
    return 0


def _wanted(exchange: HttpExchange) -> int:
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    return both if exchange.has_unsent else selectors.EVENT_READ


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
