"""Programs of one key in one process: who holds the session, and what stops nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent

from packetcloud.chunk.identity import create_identity_file, load_identity_file
from packetcloud.chunk.names import GUID, SID
from packetcloud.host import proxy_programs
from packetcloud.host.errors import HostError
from packetcloud.host.meeting_place import claim
from packetcloud.host.proxy_programs import run_proxy
from packetcloud.host.shared_session import (
    MAX_PARTS_COUNT,
    MAX_PROGRAMS_COUNT,
    End,
    Part,
    SessionHolder,
    Standing,
    Tell,
    join,
)

TRANSLATOR = SID(bytes(19) + b"\x07")
ROUTER, OTHER_ROUTER = GUID(bytes(19) + b"\x08"), GUID(bytes(19) + b"\x09")
ORDER = Part({"serve": "what the test wants"})


class Program:
    """`host proxy` over a session with a router that says nothing."""

    def __init__(self, key_file: Path, router_guid: GUID | None = None) -> None:
        self.ready: list[tuple[str, int]] = []
        self.failures: list[BaseException] = []
        self.sessions_count = 0
        self.closed: Deferred[None] | None = None
        """When the router has the last words; None: at once."""
        attachment: Any = SimpleNamespace(
            router=("192.0.2.1", 9), key_file=key_file, router_guid=router_guid, open=self._open
        )
        reactor: Any = None
        self._running = Deferred.fromCoroutine(
            run_proxy(reactor, attachment, TRANSLATOR, ("127.0.0.1", 0), self.ready.append)
        )
        self._running.addErrback(lambda failure: self.failures.append(failure.value))

    def stop(self) -> None:
        self._running.cancel()

    def _open(self, _reactor: object) -> Deferred[Any]:
        self.sessions_count += 1
        return succeed(
            SimpleNamespace(
                on_chunks=lambda *_: None,
                send=lambda *_, **__: Deferred(),
                is_connected=True,
                close=lambda flush_s: self.closed or succeed(None),
            )
        )


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30.0))


async def until(is_so: Callable[[], object]) -> None:
    while not is_so():
        await asyncio.sleep(0.002)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    create_identity_file(tmp_path / "own.key")
    return tmp_path / "own.key"


@pytest.fixture
def guid(tmp_path: Path) -> GUID:
    return create_identity_file(tmp_path / "other.key").guid


def serve(_: Part, tell: Tell) -> End:
    tell(Standing.SERVED, "")
    return lambda: None


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs meet."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "packetcloud"


@pytest.mark.parametrize("is_foreign", [False, True])
def test_who_takes_the_place_stops_no_program(
    key_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, is_foreign: bool
) -> None:
    """Another user does, or a program that says nothing: a warning says what that means."""
    monkeypatch.setattr(proxy_programs, "JOIN_AGAIN_S", 0.0)
    place = claim(load_identity_file(key_file).guid)
    assert place is not None
    if is_foreign:
        folder.chmod(0o777)
    else:
        place.sock.close()

    async def scenario() -> None:
        with place, capturedLogs() as events:
            program = Program(key_file)
            await until(lambda: program.ready or program.failures)
        assert program.ready and not program.failures and program.sessions_count == 1
        (text,) = [formatEvent(event) for event in events]
        assert "cannot meet" in text and (str(folder) in text) is is_foreign
        program.stop()

    play(scenario())


@pytest.mark.parametrize(
    ("held", "asked", "is_served"),
    [
        (ROUTER, ROUTER, True),
        (ROUTER, None, True),
        (None, None, True),
        (ROUTER, OTHER_ROUTER, False),
        (None, ROUTER, False),
    ],
)
def test_the_routers_guid_is_one_of_the_terms(
    key_file: Path, held: GUID | None, asked: GUID | None, is_served: bool
) -> None:
    """Who names one is served over a session with that router, or told why it is not."""

    async def scenario() -> None:
        first = Program(key_file, held)
        await until(lambda: first.ready)
        second = Program(key_file, asked)
        await until(lambda: second.ready or second.failures)
        assert bool(second.ready) is is_served and second.sessions_count == 0
        if not is_served:
            (failure,) = second.failures
            assert isinstance(failure, HostError) and "--router-guid" in str(failure)
        second.stop()
        first.stop()

    play(scenario())


def test_a_holder_that_ends_takes_nobody_more(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its place until the router has its last words; then the next program has it."""
    monkeypatch.setattr(proxy_programs, "JOIN_AGAIN_S", 0.0)  # it asks again in the next turn

    async def scenario() -> None:
        first = Program(key_file)
        await until(lambda: first.ready)
        first.closed = closed = Deferred()
        first.stop()
        second = Program(key_file)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not second.ready and second.sessions_count == 0
        closed.callback(None)
        await until(lambda: second.ready)
        assert second.sessions_count == 1 and not second.failures
        second.stop()

    play(scenario())


@pytest.mark.parametrize("turns", range(6))
def test_programs_that_are_stopped_together_all_end(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Also one that is stopped in the very turn in which it learns that the holder has ended."""
    monkeypatch.setattr(proxy_programs, "JOIN_AGAIN_S", 60.0)

    async def scenario() -> None:
        first, second = Program(key_file), Program(key_file)
        await until(lambda: first.ready and second.ready)
        first.stop()
        for _ in range(turns):
            await asyncio.sleep(0)
        second.stop()
        await until(lambda: first.failures and second.failures)

    play(scenario())


def test_one_program_too_many_is_told_so(guid: GUID) -> None:
    """As many as the cap says are served; when one leaves, there is a place again."""
    told: list[str] = []

    async def scenario() -> None:
        place = claim(guid)
        assert place is not None and claim(guid) is None
        holder = SessionHolder(place, {}, serve)

        def note(_number: int, _standing: Standing, text: str) -> None:
            told.append(text)

        def program() -> asyncio.Task[bool]:
            return asyncio.ensure_future(join(guid, [ORDER], note))

        programs = [program() for _ in range(MAX_PROGRAMS_COUNT)]
        await until(lambda: len(told) == MAX_PROGRAMS_COUNT)
        assert not any(told)
        assert await program()
        assert "allowed: no more" in told.pop()
        programs.pop().cancel()
        await until(lambda: len(holder._programs) < MAX_PROGRAMS_COUNT)
        programs.append(program())
        await until(lambda: len(told) > MAX_PROGRAMS_COUNT)
        assert not any(told)
        holder.close()
        assert all(await asyncio.gather(*programs))

    play(scenario())


def test_as_many_parts_as_may_be_are_served(guid: GUID) -> None:
    """They are more than the socket takes at once; one more is refused."""
    told: dict[int, Standing] = {}

    def note(number: int, standing: Standing, _: str) -> None:
        told[number] = standing

    async def scenario() -> None:
        place = claim(guid)
        assert place is not None
        holder = SessionHolder(place, {}, serve)
        parts = [Part({"serve": "x" * 2000})] * (MAX_PARTS_COUNT + 1)
        joined = asyncio.ensure_future(join(guid, parts, note))
        await until(lambda: len(told) == len(parts))
        assert told.pop(MAX_PARTS_COUNT) is Standing.REFUSED
        assert set(told.values()) == {Standing.SERVED}
        holder.close()
        assert await joined

    play(scenario())


def test_a_holder_that_says_nothing_is_a_try(guid: GUID) -> None:
    """Whoever joins gives up after some of these, as with one that is not there."""

    async def scenario() -> None:
        place = claim(guid)
        assert place is not None
        holder = SessionHolder(place, {}, lambda *_: lambda: None)
        joined = asyncio.ensure_future(join(guid, [ORDER], pytest.fail))
        await until(lambda: holder._programs)
        holder.close()
        assert not await joined

    play(scenario())
