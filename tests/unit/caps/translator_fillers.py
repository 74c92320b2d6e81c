"""Fillers of the caps of translators and proxies. Source: services/caps.py, host/caps.py."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from packetcloud.host.expose import MAX_CALLS_COUNT, Exposure
from packetcloud.host.proxy import MAX_HEAD_BYTES, Proxy
from packetcloud.services.translator import connector
from packetcloud.services.translator.connector import (
    MAX_RESOLVING_COUNT,
    MAX_RESOLVING_PER_SOURCE_COUNT,
    Resolver,
)
from packetcloud.services.translator.errors import RefusedConnectionError
from packetcloud.services.translator.sessions import (
    MAX_BUFFERED_PER_SOURCE_BYTES,
    MAX_SESSIONS_COUNT,
    MAX_SESSIONS_PER_SOURCE_COUNT,
    SessionLimits,
    Sessions,
)
from tests.unit.caps.filled import Filled, fills


class FakeSession:
    streams_count = 0
    has_ports = False

    def __init__(self, heard_at: float = 0.0) -> None:
        self.heard_at = heard_at


def source(number: int) -> bytes:
    return number.to_bytes(20, "big")


@fills("services", "sessions of a translator")
def sessions() -> Filled:
    """More and more hosts begin one."""
    there: Sessions[FakeSession] = Sessions(SessionLimits())

    def begin(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            if there.has_room():
                there.add(source(number), 1, FakeSession())
        return len(there), there.refused_count

    at_cap, counted = begin(0, MAX_SESSIONS_COUNT)
    beyond, counted_beyond = begin(MAX_SESSIONS_COUNT, MAX_SESSIONS_COUNT + 9)
    goes_on = there.find(source(3), 1) is not None
    for number in range(MAX_SESSIONS_COUNT):
        there.remove(source(number), 1)
    return Filled(MAX_SESSIONS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, len(there))


@fills("services", "sessions of one host at a translator")
def sessions_of_one() -> Filled:
    """One host begins them again and again."""
    there: Sessions[FakeSession] = Sessions(SessionLimits())
    numbers: dict[FakeSession, int] = {}

    def begin(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            oldest = there.displaced_by(source(1))
            if oldest is not None:
                there.remove(source(1), numbers.pop(oldest))
            session = FakeSession(float(number))
            numbers[session] = number
            there.add(source(1), number, session)
        return len(there), there.displaced_count

    at_cap, counted = begin(0, MAX_SESSIONS_PER_SOURCE_COUNT)
    beyond, counted_beyond = begin(MAX_SESSIONS_PER_SOURCE_COUNT, 20)
    goes_on = there.displaced_by(source(2)) is None and there.has_room()
    for number in numbers.values():
        there.remove(source(1), number)
    cap = MAX_SESSIONS_PER_SOURCE_COUNT
    return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, len(there))


@fills("services", "bytes that one host lets a translator keep")
def buffered() -> Filled:
    """A host takes nothing of what its servers send."""
    there: Sessions[FakeSession] = Sessions(SessionLimits())

    def read() -> tuple[int, int]:
        while (room := there.room(source(1))) > 0:
            there.note(source(1), 0, min(room, 65536), 0)
            if there.buffered_bytes == MAX_BUFFERED_PER_SOURCE_BYTES:
                break
        return there.buffered_bytes, there.held_up_count

    at_cap, counted = read()
    beyond, counted_beyond = read()
    goes_on = there.room(source(2)) > 0
    there.note(source(1), 0, -there.buffered_bytes, 0)
    cap = MAX_BUFFERED_PER_SOURCE_BYTES
    return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, there.buffered_bytes)


def look_up(cap: int, source_of: Callable[[int], bytes]) -> Filled:
    """No name server answers hosts that ask for `cap` names and more; another one goes on."""
    answer = threading.Event()

    def resolve(*_: Any, **__: Any) -> list[Any]:
        answer.wait(10.0)
        return [(2, 1, 6, "", ("192.0.2.1", 80))]

    async def fill() -> Filled:
        resolver = Resolver()

        async def ask(first: int, end: int) -> tuple[list[asyncio.Task[Any]], int, int]:
            tasks = [
                asyncio.ensure_future(resolver("example.org", 80, source_of(number)))
                for number in range(first, end)
            ]
            for _ in range(3):
                await asyncio.sleep(0)
            return tasks, resolver._waiting_count, resolver.refused_count

        tasks, at_cap, counted = await ask(0, cap)
        more, beyond, counted_beyond = await ask(cap, cap + 9)
        answer.set()
        ended = await asyncio.gather(*tasks, *more, return_exceptions=True)
        assert sum(isinstance(one, RefusedConnectionError) for one in ended) == 9
        goes_on = await resolver("example.org", 80, source_of(0)) == ["192.0.2.1"]
        left = resolver._waiting_count + len(resolver._shares)
        resolver.close()
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, left)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connector.socket, "getaddrinfo", resolve)
        return asyncio.run(fill())


@fills("services", "names that a translator looks up")
def names() -> Filled:
    """By many hosts, each with less than its share."""
    return look_up(MAX_RESOLVING_COUNT, lambda number: source(number % 8))


@fills("services", "names of one host that a translator looks up")
def names_of_one() -> Filled:
    """By one host."""
    return look_up(MAX_RESOLVING_PER_SOURCE_COUNT, lambda _: source(1))


class FakeLink:
    """Stands for the streams of a proxy; none ever opens."""

    def __init__(self) -> None:
        self.reset_count = 0

    def open(self, *_: object) -> int:
        return 1

    def reset(self, *_: object) -> None:
        self.reset_count += 1

    def pump_soon(self) -> None: ...
    def unlisten(self, port: int, owner: object) -> None: ...


@contextmanager
def socket_pairs(count: int) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    pairs = [tcp_pair() for _ in range(count)]
    try:
        yield pairs
    finally:
        for pair in pairs:
            for one in pair:
                one.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return client, server.accept()[0]


@fills("host", "clients of a proxy")
def clients() -> Filled:
    """Programs connect and say nothing; a smaller cap, for the descriptors of the test."""
    small = 16

    async def fill() -> Filled:
        proxy = Proxy(FakeLink(), small)  # type: ignore[arg-type]  # what it uses of one
        with socket_pairs(small + 4) as pairs:

            def connect(first: int, end: int) -> tuple[int, int]:
                for _, ours in pairs[first:end]:
                    proxy.take(ours)
                return proxy.clients_count, proxy.counts["clients_refused"]

            at_cap, counted = connect(0, small)
            beyond, counted_beyond = connect(small, small + 4)
            proxy.close()
            return Filled(small, at_cap, counted, beyond, counted_beyond, True, proxy.clients_count)

    return asyncio.run(fill())


@fills("host", "head of a request to a proxy")
def head() -> Filled:
    """A program sends headers without end."""

    async def fill() -> Filled:
        proxy = Proxy(FakeLink())  # type: ignore[arg-type]  # what it uses of one
        with socket_pairs(2) as pairs:
            for _, ours in pairs:
                proxy.take(ours)
            greedy, other = list(proxy._clients)
            line = b"GET http://example.org/ HTTP/1.1\r\nx: "
            greedy.came(line + b"y" * (MAX_HEAD_BYTES - len(line)))
            at_cap, counted = len(greedy._head), proxy.counts["http_refused"]
            greedy.came(b"y")
            beyond = min(len(greedy._head), MAX_HEAD_BYTES)
            counted_beyond = proxy.counts["http_refused"]
            other.came(b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n")
            goes_on = other._stream == 1
            proxy.close()
        return Filled(
            MAX_HEAD_BYTES,
            at_cap,
            counted,
            beyond,
            counted_beyond,
            goes_on,
            proxy.clients_count,
        )

    return asyncio.run(fill())


@fills("host", "calls to an exposed service")
def calls() -> Filled:
    """Everybody calls, and the service of this host accepts nothing."""

    async def fill() -> Filled:
        link = FakeLink()
        exposure = Exposure(
            link,  # type: ignore[arg-type]  # what it uses of one
            80,
            ("192.0.2.1", 9),
            lambda *_: None,
        )

        def call(first: int, end: int) -> tuple[int, int]:
            for stream in range(first, end):
                exposure.called(stream, "192.0.2.7", 80)
            return len(exposure._calls), exposure.counts["calls_refused"]

        at_cap, counted = call(0, MAX_CALLS_COUNT)
        beyond, counted_beyond = call(MAX_CALLS_COUNT, MAX_CALLS_COUNT + 9)
        next(iter(exposure._calls)).abort()
        goes_on = exposure.called(9999, "192.0.2.7", 80) is not None
        exposure.close()
        await asyncio.sleep(0)
        return Filled(
            MAX_CALLS_COUNT,
            at_cap,
            counted,
            beyond,
            counted_beyond,
            goes_on,
            len(exposure._calls),
        )

    return asyncio.run(fill())
