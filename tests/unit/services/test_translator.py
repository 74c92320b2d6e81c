"""The translator: what may be reached, whose a connection is, and what a slow host may cost."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.names import GUID, SID, ChunkId
from packetcloud.chunk.streams.wire import (
    Data,
    Grant,
    Message,
    MessageKind,
    Open,
    Opened,
    Reset,
    ResetCode,
    decode_message,
    encode_message,
)
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.parameters import Parameters
from packetcloud.services.sdk import ServiceChunk, ServiceContext, Verdict
from packetcloud.services.testing import HARNESS_SID
from packetcloud.services.translator import connector as connector_module
from packetcloud.services.translator import listeners as listeners_module
from packetcloud.services.translator.connector import Connector, Resolver
from packetcloud.services.translator.egress import Egress, is_public, parse_rules
from packetcloud.services.translator.errors import RefusedConnectionError
from packetcloud.services.translator.listeners import Listeners, parse_owners
from packetcloud.services.translator.service import Translator
from packetcloud.services.translator.sessions import (
    LEAST_UPLOAD_WINDOW_BYTES,
    SessionLimits,
    Sessions,
)

ALICE, MALLORY = GUID(bytes(19) + b"\x0a"), GUID(bytes(19) + b"\x0b")
WINDOW = 1 << 30
PAGE_BYTES = 64 << 20
"""Longer than what is kept of one."""
LOG = logging.getLogger("test.translator")
LOG.setLevel(logging.INFO)  # the counts are told, too
DEFAULTS: dict[str, Any] = {
    "allow": "127.0.0.0/8",
    "deny": "",
    "listen": "",
    "connect_timeout_s": 5.0,
    "idle_timeout_s": 300.0,
    "max_connections": 64,
    "max_connections_per_host": 32,
    "max_sessions": 16,
    "max_sessions_per_host": 4,
    "max_held_requests": 32,
    "buffer_mib": 128,
    "buffer_mib_per_host": 16,
    "upload_mib": 32,
}


def egress(allow: str, deny: str = "") -> Egress:
    return Egress(parse_rules(allow, "allow"), parse_rules(deny, "deny", networks_only=True))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "239.1.2.3", "255.255.255.255", "240.0.0.1", "192.0.2.1",
        "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
        "2001:0:0:0:0:0:80ff:fffe",
    ],
)  # fmt: skip
def test_what_is_not_public_is_not_reached(address: str) -> None:
    """Neither as an address, nor where a name leads to it, however it is written."""
    there = ipaddress.ip_address(address)
    assert not is_public(there)
    assert not egress("public example.org").may_connect("example.org", there, 443)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_what_is_public_is_reached(address: str) -> None:
    """Unless the carrier says that it is its own."""
    there = ipaddress.ip_address(address)
    assert egress("public").may_connect("", there, 443)
    assert not egress("public", "8.8.8.0/24 2606:4700::/32").may_connect("", there, 443)


def test_lists_name_networks_names_and_ports() -> None:
    """A port narrows an entry; a network opens what is private, a name does not."""
    rules = egress("10.0.0.0/8:80-90, *.example.org:443 [2001:db8::]/32:22")
    ten, public = ipaddress.ip_address("10.1.1.1"), ipaddress.ip_address("9.9.9.9")
    assert rules.may_connect("x", ten, 85) and not rules.may_connect("x", ten, 91)
    assert rules.may_connect("WWW.example.org.", public, 443)
    assert not rules.may_connect("example.org", public, 443)
    assert not rules.may_connect("www.example.org", public, 80)
    assert not rules.may_connect("www.example.org", ten, 443)
    assert rules.may_connect("", ipaddress.ip_address("2001:db8::7"), 22)


@pytest.mark.parametrize(
    "text", ["10.0.0.0/33", "a b/c", "x:0", "x:70000", "x:9-8", "exa mple!", "1.2.3"]
)
def test_a_wrong_entry_is_named(text: str) -> None:
    """The operator reads which parameter and which word."""
    with pytest.raises(ServiceConfigError, match="parameter allow"):
        parse_rules(text, "allow")
    with pytest.raises(ServiceConfigError, match="parameter deny"):
        parse_rules("example.org", "deny", networks_only=True)


@pytest.mark.parametrize("text", ["80", "80=xyz", "0=" + "a" * 40, "x:80=" + "a" * 40])
def test_a_wrong_port_is_named(text: str) -> None:
    """So is one that is given twice."""
    with pytest.raises(ServiceConfigError, match="parameter listen"):
        parse_owners(text)
    with pytest.raises(ServiceConfigError, match="twice"):
        parse_owners(f"80={'a' * 40} 80={'b' * 40}")


def test_a_name_that_changes_its_mind_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that says something public first and something private from then on: what was
    looked at is what is connected to, address by address, and nothing else is."""
    answers = [["192.168.0.9", "8.8.8.8", "9.9.9.9"]]
    reached: list[str] = []

    async def resolve(*_: object) -> list[str]:
        return answers.pop() if answers else ["127.0.0.1"]

    async def connected(_loop: object, address: str, _port: int) -> socket.socket:
        reached.append(address)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    async def connect() -> None:
        await Connector(egress("public"), resolve, 5.0).connect("rebind.example.org", 80, b"")

    monkeypatch.setattr(connector_module, "connected_socket", connected)
    with pytest.raises(RefusedConnectionError) as refused:
        asyncio.run(connect())
    assert reached == ["8.8.8.8", "9.9.9.9"]
    assert refused.value.code is ResetCode.CONNECTION_REFUSED
    # Where all that it says is private, nothing is tried, and the answer does not tell what it was.
    with pytest.raises(RefusedConnectionError) as refused:
        asyncio.run(connect())
    assert len(reached) == 2 and refused.value.code is ResetCode.NOT_ALLOWED
    assert "127.0.0.1" not in str(refused.value)


def test_the_translators_own_addresses_are_not_reached() -> None:
    """Also where it has a public one; a network in `allow` opens it."""

    class Everything(Egress):
        def may_connect(self, *_: object) -> bool:
            return True

    async def resolve(*_: object) -> list[str]:
        raise AssertionError("an address is no name")

    async def connect(rules: Egress) -> None:
        await Connector(rules, resolve, 5.0).connect("127.0.0.1", 9, b"")

    for rules, code in (
        (Everything((), ()), ResetCode.NOT_ALLOWED),
        (egress("127.0.0.0/8"), ResetCode.CONNECTION_REFUSED),
    ):
        with pytest.raises(RefusedConnectionError) as refused:
            asyncio.run(connect(rules))
        assert refused.value.code is code


class Place:
    """A translator on a loop, and a server that it may reach."""

    def __init__(self, **settings: Any) -> None:
        self.service = Translator()
        self.context = ServiceContext(HARNESS_SID, Parameters({**DEFAULTS, **settings}), LOG)
        self.service.start(self.context)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.setblocking(False)
        self.port = self.server.getsockname()[1]
        self._number = 0

    async def ask(self, *frames: Any, source: GUID = ALICE, session: int = 1, **more: Any) -> Any:
        """Send one request, and return the message that answers it."""
        self._number += 1
        message = Message(
            MessageKind.REQUEST, session, self._number, frames, answer_bytes=1 << 20, **more
        )
        payload = encode_message(message)
        header = ChunkHeader(source, GUID(HARNESS_SID.value), ChunkId(1), len(payload), sid=SID_)
        verdict = self.service.process(
            ServiceChunk(header, memoryview(payload)),
            None,  # type: ignore[arg-type]  # not used
        )
        given: Verdict = await verdict
        (emitted,) = given.emitted
        assert emitted.destination == source
        return decode_message(emitted.payload)

    async def open(self, stream: int, source: GUID = ALICE) -> socket.socket:
        """Open a stream; return the server's end of its connection."""
        loop = asyncio.get_running_loop()
        asked = asyncio.ensure_future(
            self.ask(
                Open(stream, "127.0.0.1", self.port, WINDOW),
                source=source,
                is_first=True,
                hold_ms=3000,
            )
        )
        connection, _ = await loop.sock_accept(self.server)
        answer = await asked
        assert any(isinstance(frame, Opened) for frame in answer.frames), answer
        connection.setblocking(False)
        return connection


SID_ = SID(HARNESS_SID.value)


def run(story: Callable[[Place], Awaitable[None]], **settings: Any) -> None:
    async def told() -> None:
        place = Place(**settings)
        try:
            await asyncio.wait_for(story(place), 20.0)
        finally:
            place.service.stop()
            place.server.close()

    asyncio.run(told())


def test_another_host_touches_no_connection() -> None:
    """Who guesses session and stream of another: it is no session of his, and nothing arrives."""

    async def story(place: Place) -> None:
        server = await place.open(1)
        attacks = (
            Data(1, 0, (b"forged",)),
            Reset(1, ResetCode.ABORTED),
            Grant(1, 0, 1 << 40),
            Open(1, "127.0.0.1", place.port, 0),
        )
        for frame in attacks:
            answer = await place.ask(frame, source=MALLORY)
            assert answer.kind is MessageKind.UNKNOWN and not answer.frames
        # With a session of his own under the same number, the stream is another one.
        for frame in attacks:
            answer = await place.ask(frame, source=MALLORY, is_first=True, hold_ms=1)
            assert answer.kind is MessageKind.ANSWER
        await place.ask(Data(1, 0, (b"mine",), True))
        assert await asyncio.get_running_loop().sock_recv(server, 99) == b"mine"
        assert await asyncio.get_running_loop().sock_recv(server, 99) == b""
        server.close()

    run(story)


def test_repeated_requests_open_one_connection() -> None:
    """A request that comes again, and data that come again, change nothing."""

    async def story(place: Place) -> None:
        server = await place.open(1)
        for _ in range(3):
            await place.ask(Open(1, "127.0.0.1", place.port, WINDOW), Data(1, 0, (b"once",)))
        assert await asyncio.get_running_loop().sock_recv(server, 99) == b"once"
        with pytest.raises(BlockingIOError):
            place.server.accept()
        with pytest.raises(BlockingIOError):
            server.recv(1)
        server.close()

    run(story)


def fill(**settings: Any) -> int:
    """Return how much of an endless page a translator keeps for a host that takes nothing."""
    kept = 0

    async def story(place: Place) -> None:
        nonlocal kept
        server = await place.open(1)
        loop = asyncio.get_running_loop()
        sending = asyncio.ensure_future(loop.sock_sendall(server, bytes(PAGE_BYTES)))
        session = next(iter(place.service._sessions))
        reading = session._connections[1].end.socket
        while session.outgoing_bytes < PAGE_BYTES and (session.room(1) or reading._is_reading):
            await asyncio.sleep(0)
        kept = session.outgoing_bytes
        sending.cancel()
        server.close()

    run(story, **settings)
    return kept


def test_a_host_that_takes_nothing_costs_a_bounded_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever window it grants. Control: without the bounds everything is read."""
    from packetcloud.chunk.streams import outbox

    assert 0 < fill() <= outbox.MAX_KEPT_BYTES
    monkeypatch.setattr(outbox, "MAX_KEPT_BYTES", 1 << 40)
    assert fill() <= 16 << 20
    assert fill(buffer_mib=4) <= 4 << 20
    assert fill(buffer_mib_per_host=65536, buffer_mib=65536) > 32 << 20


def test_connections_over_a_hosts_share_are_refused() -> None:
    """It is told so, and others go on."""

    async def story(place: Place) -> None:
        first = await place.open(1)
        answer = await place.ask(Open(2, "127.0.0.1", place.port, 0), hold_ms=100)
        assert [frame.code for frame in answer.frames] == [ResetCode.TOO_MANY]
        second = await place.open(1, MALLORY)
        first.close()
        second.close()

    run(story, max_connections_per_host=1)


def test_a_host_does_not_hold_the_window_of_the_vi() -> None:
    """A large request is answered at once, though it asks to be held."""

    async def story(place: Place) -> None:
        server = await place.open(1)
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        await place.ask(Data(1, 0, (bytes(8192),)), hold_ms=4000)
        assert loop.time() - asked_at < 3.5
        server.close()

    run(story)


def test_an_unknown_session_and_junk_are_answered() -> None:
    """A translator that was restarted says that it knows nothing; junk is dropped with a reason."""

    async def story(place: Place) -> None:
        assert (await place.ask()).kind is MessageKind.UNKNOWN
        header = ChunkHeader(ALICE, GUID(HARNESS_SID.value), ChunkId(1), 4, sid=SID_)
        verdict = await place.service.process(
            ServiceChunk(header, memoryview(b"junk")),
            None,  # type: ignore[arg-type]  # not used
        )
        assert b"no request to a translator" in verdict.detail

    run(story)


def test_a_connection_that_fails_here_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What one connection does wrong resets that one: the others and their requests go on."""

    async def story(place: Place) -> None:
        good, bad = await place.open(1), await place.open(2)
        session = next(iter(place.service._sessions))

        def fail(*_: object) -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(session._connections[2].end, "received", fail)
        answer = await place.ask(Data(2, 0, (b"x",)), Data(1, 0, (b"y",)), hold_ms=3000)
        assert [frame.code for frame in answer.frames if isinstance(frame, Reset)] == [
            ResetCode.ABORTED
        ]
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(good, 9) == b"y"
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(bad, 9)
        assert place.service.counts()["failures"] == 1
        good.close()
        bad.close()

    run(story)


@pytest.mark.parametrize("broken", ["connect", "accept"])
def test_a_connection_that_cannot_be_opened_for_whatever_reason_is_reset(broken: str) -> None:
    """Its host does not wait for it for good; whether it was connected already or not."""

    async def story(place: Place) -> None:
        good = await place.open(1)
        session = next(iter(place.service._sessions))

        def fail(*_: object) -> None:
            raise RuntimeError("broken")

        part = session._connector if broken == "connect" else session._table
        setattr(part, broken, fail)
        asked = asyncio.ensure_future(
            place.ask(Open(2, "127.0.0.1", place.port, WINDOW), hold_ms=3000)
        )
        if broken == "accept":
            bad, _ = await asyncio.get_running_loop().sock_accept(place.server)
        answer = await asked
        assert [frame.code for frame in answer.frames] == [ResetCode.ABORTED]
        assert place.service.counts()["failures"] == 1
        assert place.service.counts()["connections"] == 1 and not session._opening
        if broken == "accept":
            with pytest.raises(ConnectionResetError):
                await asyncio.get_running_loop().sock_recv(bad, 9)
            bad.close()
        good.close()

    run(story)


def test_without_a_thread_a_name_is_refused_and_takes_no_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often: turns and places in line come back."""

    async def ask() -> None:
        resolver = Resolver()

        def submit(*_: object, **__: object) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(resolver._pool, "submit", submit)
        for _ in range(connector_module.THREADS_PER_SOURCE_COUNT + 1):
            with pytest.raises(RefusedConnectionError, match="no thread") as refused:
                await asyncio.wait_for(resolver("localhost", 80, b"source"), 5.0)
            assert refused.value.code is ResetCode.TOO_MANY
        assert not resolver._shares and resolver._waiting_count == 0
        assert resolver.refused_count == connector_module.THREADS_PER_SOURCE_COUNT + 1
        resolver.close()

    asyncio.run(ask())


def test_a_session_that_fails_as_it_is_looked_at_ends_no_looking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is ended itself, even if it fails at that, too; others are looked at, now and later."""

    async def story(place: Place) -> None:
        connections = [await place.open(1, source) for source in (ALICE, MALLORY)]
        service, loop = place.service, asyncio.get_running_loop()
        bad, good = list(service._sessions)
        looked: list[float] = []

        def fail(*_: object) -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(bad, "sweep", fail)
        monkeypatch.setattr(good, "sweep", lambda now, _: looked.append(now))
        service._sweep(loop)
        assert list(service._sessions) == [good] and len(looked) == 1
        assert service.counts()["failures"] == 1
        close = good.close
        monkeypatch.setattr(good, "close", fail)
        monkeypatch.setattr(good, "sweep", fail)
        with pytest.raises(RuntimeError):
            service._sweep(loop)
        assert not len(service._sessions) and service._sweep_call is not None
        close()
        service._sweep(loop)
        assert service._sweep_call is None
        for connection in connections:
            connection.close()

    run(story)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EMFILE, ResetCode.TOO_MANY),
        (errno.EADDRINUSE, ResetCode.TOO_MANY),
        (errno.EACCES, ResetCode.NOT_ALLOWED),
    ],
)
def test_why_a_port_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, number: int, code: ResetCode
) -> None:
    """What may pass is told so; whose port it is not is refused for good."""

    def listen(_: object) -> socket.socket:
        raise OSError(number, "no")

    monkeypatch.setattr(listeners_module, "_listen", listen)
    ports = Listeners(parse_owners(f"8080={ALICE.hex}"), LOG)
    loop: Any = None  # none is needed where nothing is listened at
    for source, expected in ((ALICE, code), (MALLORY, ResetCode.NOT_ALLOWED)):
        refusal = ports.claim(loop, 8080, source, object(), lambda *_: None)
        assert refusal is not None and refusal[0] is expected


def test_sessions_without_a_request_each_are_refused() -> None:
    """The operator reads which parameter, and what would do."""
    with pytest.raises(ServiceConfigError, match="max_held_requests: 3 for max_sessions = 4"):
        Place(max_sessions=4, max_held_requests=3)


def test_windows_together_stay_within_their_budget() -> None:
    """Whoever comes while others have large windows gets a small one. Control: their shares alone,
    as each was when it began, are twice as much."""
    mib = 1 << 20
    sessions: Sessions[Any] = Sessions(SessionLimits(upload_bytes=4 * mib))
    alone = 0
    for number in range(16):
        window = sessions.upload_window(0)
        alone += min(mib, 4 * mib // max(1, number))
        sessions.note(b"host", 1, 0, window)
    assert sessions.promised_bytes <= 4 * mib + 16 * LEAST_UPLOAD_WINDOW_BYTES
    assert alone > 2 * 4 * mib
