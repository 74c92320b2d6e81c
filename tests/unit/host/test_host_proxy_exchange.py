"""Requests through a proxy: what one server, client or owner does reaches nobody else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from packetcloud.chunk.streams import caller
from packetcloud.chunk.streams.wire import Buffer, Data, Grant, Opened, Reset, ResetCode
from packetcloud.host.proxy_exchange import KEEP_ALIVE_S
from tests.unit.host.proxy_world import ROOM, WINDOW, ProxyWorld

GET = b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n"
BODY = b"the whole body"
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
BESIDES = b"bytes of another stream"


class Recorder:
    """Owns a stream, and keeps what it is told."""

    def __init__(self) -> None:
        self.got = b""
        self.failure: ResetCode | None = None

    def opened(self) -> None: ...
    def received(self, pieces: Sequence[Buffer]) -> None:
        self.got += b"".join(bytes(piece) for piece in pieces)

    def ended(self) -> None: ...
    def writable(self) -> None: ...
    def failed(self, code: ResetCode, text: str) -> None:
        self.failure = code

    def done(self) -> None: ...


class Faulty(Recorder):
    """Fails at the first bytes."""

    def received(self, pieces: Sequence[Buffer]) -> None:
        raise ValueError("a fault of ours")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> ProxyWorld:
    return ProxyWorld(monkeypatch)


def owned(world: ProxyWorld, owner: Recorder) -> int:
    """Return a stream of this owner that is open."""
    stream = world.link.open("other.example.org", 80, owner)
    world.loop.settle()
    world.answer(Opened(stream, WINDOW))
    return stream


def test_an_owner_that_fails_ends_its_own_stream_alone(world: ProxyWorld) -> None:
    """Others get the bytes of the same answer, not those that lie in its buffer afterwards."""
    faulty, other = Faulty(), Recorder()
    first, second = owned(world, faulty), owned(world, other)
    world.answer(Data(first, 0, (b"for the first",)), Data(second, 0, (BESIDES,)))
    world.loop.pass_time(1.0)
    assert other.got == BESIDES and other.failure is None
    assert faulty.failure is ResetCode.ABORTED and world.resets(first) == [ResetCode.ABORTED]
    assert world.link.owner_failures_count == 1


def test_a_length_beside_a_transfer_encoding_stays_here(world: ProxyWorld) -> None:
    """A server says both, and they differ: the client gets the whole body, chunked."""
    client, stream = world.opened(GET)
    other = Recorder()
    second = owned(world, other)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    world.answer(Data(stream, 0, (head + b"5\r\nhello\r\n0\r\n\r\n",)), Data(second, 0, (BESIDES,)))
    assert client.taken.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    assert b"content-length" not in client.taken.lower()
    assert other.got == BESIDES and not world.link.owner_failures_count


def test_pieces_behind_the_end_of_an_exchange_are_left(world: ProxyWorld) -> None:
    """A response is whole in the first of two pieces that come together."""
    client, stream = world.opened(GET)
    other = Recorder()
    second = owned(world, other)
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    world.answer(Data(stream, len(page), (b"more",)))
    world.answer(Data(stream, 0, (page,)), Data(second, 0, (BESIDES,)))
    assert client.taken.endswith(b"\r\n\r\nhello")
    assert other.got == BESIDES and not world.link.owner_failures_count


def test_a_tunnel_that_opens_and_fails_at_once(world: ProxyWorld) -> None:
    """What its client said early goes nowhere, and nothing is put into a stream that is no more."""
    client = world.client(b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\nearly")
    (stream,) = world.streams()
    other = Recorder()
    second = owned(world, other)
    world.answer(
        Opened(stream, WINDOW),
        Reset(stream, ResetCode.CONNECTION_REFUSED),
        Data(second, 0, (BESIDES,)),
    )
    assert client.was_reset
    assert other.got == BESIDES and not world.link.owner_failures_count


def test_a_slow_client_gets_a_large_page(
    world: ProxyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may send more as the client takes what came, not when it has taken all of it."""
    monkeypatch.setattr(caller, "MAX_WINDOW_BYTES", 8192)
    client, stream = world.opened(GET, room=1000)
    body = bytes(range(250)) * 80
    page = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    windows, sent = [], 0
    for _ in range(20):
        windows.append(world.granted(stream))
        if part := page[sent : windows[-1]]:
            world.answer(Data(stream, sent, (part,)))
            sent += len(part)
        client.room = 3000
        world.loop.settle()
    assert client.taken.endswith(body)
    assert windows[0] == 8192 < windows[1] < 16384


def test_a_download_that_is_given_up_ends_at_its_server(world: ProxyWorld) -> None:
    """It does not run on to its end for nobody."""
    client, stream = world.opened(GET)
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    world.answer(Data(stream, 0, (page,)))
    client.is_broken = True
    world.answer(Data(stream, len(page), (b"for nobody",)))
    assert world.resets(stream) == [ResetCode.ABORTED] and not len(world.link.caller)


def test_a_stream_that_has_ended_is_done_though_its_client_is_slow(world: ProxyWorld) -> None:
    """Nothing of it stays behind, and the client still gets all of it."""
    client, stream = world.opened(GET, room=10)
    world.answer(Data(stream, 0, (b"HTTP/1.1 200 OK\r\n\r\nall that there is",), True))
    world.answer(Grant(stream, len(world.said(stream)) + 1, WINDOW))
    assert not len(world.link.caller) and not world.resets(stream)
    client.room = ROOM
    world.loop.settle()
    assert client.taken.endswith(b"all that there is\r\n0\r\n\r\n")


@pytest.mark.parametrize("said", [(GET,), (GET, b"")], ids=["stays", "half-closes"])
def test_a_whole_answer_waits_for_a_slow_client(world: ProxyWorld, said: tuple[bytes, ...]) -> None:
    """Neither the time that it takes nor its own end cuts the answer off."""
    client, stream = world.opened(*said, room=10)
    world.answer(Data(stream, 0, (PAGE,)))
    world.loop.pass_time(2 * KEEP_ALIVE_S)
    assert not client.is_closed
    client.room = ROOM
    world.loop.settle()
    assert client.taken.endswith(BODY)
    if len(said) == 1:
        world.loop.pass_time(KEEP_ALIVE_S - 1)
        assert not client.is_closed
        world.loop.pass_time(2)
    assert client.is_closed and client.has_ended and not client.was_reset


def test_no_page_of_ours_in_the_midst_of_an_answer(world: ProxyWorld) -> None:
    """A client ends in its request's body while the answer has begun: it sees a reset."""
    post = b"POST http://example.org/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"
    client, stream = world.opened(post)
    world.answer(Data(stream, 0, (PAGE[:-1],)))
    client.incoming.append(b"")
    world.loop.settle()
    assert client.was_reset and b"no HTTP request" not in client.taken


@pytest.mark.parametrize("at_once", [True, False])
def test_an_answer_that_nobody_asked_for_goes_to_nobody(world: ProxyWorld, at_once: bool) -> None:
    """It is not the answer to the next request either: that has a connection of its own."""
    forged = PAGE.replace(BODY, BODY[::-1])
    client, stream = world.opened(GET)
    if at_once:
        world.answer(Data(stream, 0, (PAGE + forged,)))
    else:
        world.answer(Data(stream, 0, (PAGE,)))
        world.answer(Data(stream, len(PAGE), (forged,)))
    assert world.resets(stream) == [ResetCode.ABORTED]
    client.incoming.append(GET)
    world.loop.settle()
    again = world.streams()[-1]
    world.answer(Opened(again, WINDOW), Data(again, 0, (PAGE,)))
    assert again != stream and client.taken.count(BODY) == 2
    assert BODY[::-1] not in client.taken and not client.is_closed
