"""The controller's end of the control links over loopback: who gets in, what is heard, the caps."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from packetcloud.cloudlet import callers, links
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.links import Caller, ControlServer
from packetcloud.services.control_frames import PIECE_BYTES, encode_json
from packetcloud.services.state_transfer import announcement
from tests.functional.control_vi import ControlVi, hello_of

TOKENS = {1: "one's token", 2: "two's token", 3: "three's token"}
ADDRESSES = {1: "127.0.0.1", 2: "127.0.0.1", 3: "127.0.0.3"}


class Place:
    """A control server, and what it told."""

    def __init__(self) -> None:
        self.events: list[saw.Event] = []
        self.server = ControlServer(self._find, self._tell)
        self.address = ("", 0)
        self._changed = asyncio.Event()

    def _find(self, name: str) -> Caller | None:
        number = int(name.removeprefix("vi-")) if name.removeprefix("vi-").isdigit() else 0
        token = TOKENS.get(number)
        return None if token is None else Caller(number, token, ADDRESSES[number])

    def _tell(self, event: saw.Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, *wanted: saw.Event) -> None:
        """Wait until these were told, in whatever order."""
        async with asyncio.timeout(30):
            while any(one not in self.events for one in wanted):
                self._changed.clear()
                await self._changed.wait()

    async def vi(
        self, number: int = 1, *, is_launched: bool = False, takes_files: bool = False
    ) -> ControlVi:
        """Return a VI that got in."""
        vi = await ControlVi.call(self.address, from_address=ADDRESSES[number])
        before = self.events.count(saw.LinkUp(number, is_launched))
        hello = hello_of(f"vi-{number}", TOKENS[number], is_launched=is_launched)
        vi.say(hello | ({"takes_files": True} if takes_files else {}))
        async with asyncio.timeout(30):
            while self.events.count(saw.LinkUp(number, is_launched)) == before:
                self._changed.clear()
                await self._changed.wait()
        return vi


@contextlib.asynccontextmanager
async def _place() -> AsyncIterator[Place]:
    place = Place()
    place.address = await place.server.bind("127.0.0.1", 0)
    await place.server.serve()
    try:
        yield place
    finally:
        await place.server.close()


def _run(body: Callable[[Place], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with _place() as place:
            await body(place)

    asyncio.run(whole())


def test_a_vi_says_who_it_is_and_is_heard() -> None:
    async def body(place: Place) -> None:
        vi = await place.vi(is_launched=True)
        vi.say({"event": "ready"})
        vi.say({"event": "status", "status": {"attachment": "attached"}})
        vi.say({"event": "error", "text": "no\nroom", "is_config": True})
        vi.say({"event": "news of a later version"})
        await place.until(
            saw.LinkUp(1, True),
            saw.ViReady(1),
            saw.ViStatus(1, {"attachment": "attached"}),
            saw.ViFailed(1, "no room", True),
        )
        assert place.server.say(1, {"do": "stop"})
        await vi.until(lambda: {"do": "stop"} in vi.messages)
        vi.close()
        await place.until(saw.LinkDown(1))
        assert not place.server.say(1, {"do": "stop"})

    _run(body)


@pytest.mark.parametrize(
    "first",
    [
        encode_json(hello_of("vi-1", "another token")),
        encode_json(hello_of("vi-1", "")),
        encode_json(hello_of("vi-1", "\ud800")),
        encode_json(hello_of("vi-2", TOKENS[1])),
        encode_json(hello_of("vi-9", "")),
        encode_json(hello_of("\ud800", "")),
        encode_json(hello_of("vi-1", TOKENS[1]) | {"protocol": 2}),
        encode_json({"event": "ready"}),
        encode_json({}),
        struct.pack("!IB", 3, 2) + b"ab",
        struct.pack("!IB", 1 << 30, 1),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_whoever_does_not_prove_who_it_is_hears_nothing(first: bytes) -> None:
    """The connection ends without a byte, and nobody is told."""

    async def body(place: Place) -> None:
        stranger = await ControlVi.call(place.address)
        stranger.writer.write(first)
        async with asyncio.timeout(30):
            await stranger.ended.wait()
        assert (stranger.messages, place.events) == ([], [])
        assert place.server.refused == {"hello": 1}
        await place.vi()

    _run(body)


def test_a_right_token_from_a_wrong_address_is_refused() -> None:
    """A token that leaked is of no use elsewhere: the network holds addresses to their NICs."""

    async def body(place: Place) -> None:
        thief = await ControlVi.call(place.address, from_address="127.0.0.9")
        thief.say(hello_of("vi-1", TOKENS[1]))
        async with asyncio.timeout(30):
            await thief.ended.wait()
        assert place.events == []

    _run(body)


def test_who_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one who sends a `hello` byte by byte: the limit is for the whole of it."""
    monkeypatch.setattr(links, "HELLO_LIMIT_S", 0.2)

    async def body(place: Place) -> None:
        silent, slow = [await ControlVi.call(place.address) for _ in range(2)]

        async def dribble() -> None:
            for byte in encode_json(hello_of("vi-1", TOKENS[1]))[:-1]:
                slow.writer.write(bytes([byte]))
                await asyncio.sleep(0.01)

        task = asyncio.create_task(dribble())
        async with asyncio.timeout(30):
            await silent.ended.wait()
            await slow.ended.wait()
        task.cancel()
        assert place.server.refused == {"silent": 2}
        assert place.events == []

    _run(body)


def test_who_calls_again_and_again_is_heard_ten_times_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each call that proves itself wakes the whole controller; others are answered meanwhile."""
    monkeypatch.setattr(callers, "_WINDOW_S", 3600.0)

    async def body(place: Place) -> None:
        for _ in range(callers.MAX_CALLS_PER_S_COUNT):
            vi = await place.vi()
        assert place.server.callers.held_up_count == 0
        more = await ControlVi.call(place.address)
        more.say(hello_of("vi-1", TOKENS[1]))
        async with asyncio.timeout(30):
            while not place.server.callers.held_up_count:
                await asyncio.sleep(0.005)
        await place.vi(3)
        assert place.events.count(saw.LinkUp(1, False)) == callers.MAX_CALLS_PER_S_COUNT
        vi.say({"event": "ready"})
        await place.until(saw.ViReady(1))

    _run(body)


def test_a_newer_connection_replaces_the_older() -> None:
    """And the end of the older one is not taken for the end of the link."""

    async def body(place: Place) -> None:
        older = await place.vi()
        newer = await place.vi(is_launched=True)
        async with asyncio.timeout(30):
            await older.ended.wait()
        assert place.server.say(1, {"do": "stop"})
        await newer.until(lambda: newer.messages == [{"do": "stop"}])
        assert saw.LinkDown(1) not in place.events
        newer.close()
        await place.until(saw.LinkDown(1))

    _run(body)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, 5 * PIECE_BYTES + 3])
def test_a_state_goes_from_one_to_the_other(size: int) -> None:
    """In pieces, with reports in between; the reader sets the pace."""
    state = bytes(number % 251 for number in range(size))

    async def body(place: Place) -> None:
        old, twin = await place.vi(1), await place.vi(2)
        assert place.server.ask_state(1) == ""
        await old.until(lambda: {"do": "export"} in old.messages)
        old.say({"event": "status", "status": {}})
        await old.send_state(state)
        await place.until(saw.StateExported(1, True))
        assert place.server.states_bytes == size
        assert place.server.give_state(1, 2) == ""
        await twin.until(lambda: twin.states == [state])
        twin.say({"event": "imported"})
        await place.until(saw.StateImported(2, True))
        place.server.drop_state(1)
        assert place.server.states_bytes == 0
        assert place.server.give_state(1, 2) == "the state of VI 1 is not here"

    _run(body)


def test_reports_are_heard_between_two_pieces() -> None:
    async def body(place: Place) -> None:
        old = await place.vi(1)
        place.server.ask_state(1)
        old.say({"event": "exported", **announcement(b"abcd")})
        old.writer.write(struct.pack("!IB", 3, 2) + b"ab")
        old.say({"event": "status", "status": {"waiting": 1}})
        await place.until(saw.ViStatus(1, {"waiting": 1}))
        old.writer.write(struct.pack("!IB", 3, 2) + b"cd")
        await place.until(saw.StateExported(1, True))

    _run(body)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"event": "exported", "bytes": 4, "sha256": "0" * 64}, "its control link ended"),
        ({"event": "exported", "bytes": -1, "sha256": "0" * 64}, "its control link ended"),
        ({"event": "exported", "bytes": 65 << 20, "sha256": "0" * 64}, "its control link ended"),
        ({"event": "failed", "what": "export", "text": "busy"}, "busy"),
    ],
)
def test_a_state_that_cannot_be_had_is_said_at_once(answer: dict[str, Any], text: str) -> None:
    """Chunks wait meanwhile: nobody waits for a limit of time."""

    async def body(place: Place) -> None:
        old = await place.vi(1)
        place.server.ask_state(1)
        old.say(answer)
        old.writer.write(struct.pack("!IB", 5, 2) + b"abcd")
        await place.until(saw.StateExported(1, False, text))
        assert place.server.states_bytes == 0

    _run(body)


def test_the_end_of_a_link_ends_what_is_on_its_way() -> None:
    async def body(place: Place) -> None:
        old, twin = await place.vi(1), await place.vi(2)
        place.server.ask_state(1)
        await old.send_state(b"abcd")
        await place.until(saw.StateExported(1, True))
        place.server.give_state(1, 2)
        twin.close()
        await place.until(saw.StateImported(2, False, "its control link ended"), saw.LinkDown(2))
        place.server.drop_state(1)
        place.server.ask_state(1)
        again = await place.vi(1, is_launched=True)
        await place.until(saw.StateExported(1, False, "its control link ended"))
        assert place.server.ask_state(7) == "it has no control link"
        again.close()

    _run(body)


def test_a_state_that_is_given_up_is_not_taken_for_the_next() -> None:
    """Whoever still sends it loses the connection and calls again."""

    async def body(place: Place) -> None:
        old = await place.vi(1)
        place.server.ask_state(1)
        old.say({"event": "exported", **announcement(b"abcd")})
        old.say({"event": "ready"})
        await place.until(saw.ViReady(1))
        place.server.drop_state(1)
        async with asyncio.timeout(30):
            await old.ended.wait()
        again = await place.vi(1, is_launched=True)
        place.server.ask_state(1)
        await again.send_state(b"efgh")
        await place.until(saw.StateExported(1, True))

    _run(body)


@pytest.mark.parametrize(
    "message",
    [
        {"event": "exported", **announcement(b"")},
        {"event": "imported"},
        {"event": "failed", "what": "export", "text": ""},
        {"event": "failed", "what": "import", "text": ""},
        {"event": "status", "status": {str(number): 0 for number in range(200)}},
        {"event": "status", "status": {"deep": [[number] for number in range(200)]}},
        {"event": "status", "status": {"text": "x" * 501}},
        {"event": "status", "status": {"text": "\ud800"}},
        {"event": "status", "status": {"number": float("nan")}},
        {"event": "status", "status": {"number": 1 << 70}},
    ],
)
def test_a_vi_that_lies_loses_its_connection_and_nothing_is_kept(message: dict[str, Any]) -> None:
    async def body(place: Place) -> None:
        liar, other = await place.vi(1), await place.vi(2)
        liar.say(message)
        await place.until(saw.LinkDown(1))
        assert place.server.refused == {"protocol": 1}
        assert place.server.states_bytes == 0
        other.say({"event": "ready"})
        await place.until(saw.ViReady(2))

    _run(body)


def test_a_vi_that_does_not_read_loses_its_connection() -> None:
    async def body(place: Place) -> None:
        deaf = await ControlVi.call(place.address, reads=False)
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it reads, too
        deaf.say(hello_of("vi-1", TOKENS[1]))
        await place.until(saw.LinkUp(1, False))
        for _ in range(400):
            place.server.say(1, {"do": "stop", "padding": "x" * (100 << 10)})
            await asyncio.sleep(0)
        await place.until(saw.LinkDown(1))

    _run(body)


def test_a_port_that_is_taken_is_named() -> None:
    async def body(place: Place) -> None:
        host, port = place.address
        with pytest.raises(CloudletConfigError, match=rf"control port {host}:{port} .*free port"):
            await ControlServer(lambda name: None, place.events.append).bind(host, port)

    _run(body)


def test_nobody_is_answered_before_the_controller_is_ready() -> None:
    """A VI that calls early would be told to a core that has not begun."""

    async def body(place: Place) -> None:
        early = ControlServer(lambda name: None, place.events.append)
        address = await early.bind("127.0.0.1", 0)
        with pytest.raises(ConnectionRefusedError):
            await ControlVi.call(address)
        await early.serve()
        (await ControlVi.call(address)).close()
        await early.close()

    _run(body)


@pytest.mark.parametrize("count", [3, 4])
def test_who_calls_wrongly_again_and_again_does_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    """At the cap all is logged, beyond it all is counted; the next window is logged again."""
    monkeypatch.setattr(links, "MAX_LOGGED_COUNT", 3)

    async def body(place: Place) -> None:
        async def call() -> None:
            vi = await ControlVi.call(place.address)
            vi.say({"event": "nonsense"})
            async with asyncio.timeout(30):
                await vi.ended.wait()

        for _ in range(count):
            await call()
        texts = [one.getMessage() for one in caplog.records]
        assert len([text for text in texts if "no `hello`" in text]) == 3
        assert len([text for text in texts if "no more of these" in text]) == 1
        assert place.server.refused["hello"] == count
        assert place.server.unlogged_count == count - 3
        loop = asyncio.get_running_loop()
        clock = loop.time
        monkeypatch.setattr(loop, "time", lambda: clock() + links.LOG_WINDOW_S)
        await call()
        assert len([one for one in caplog.records if "no `hello`" in one.getMessage()]) == 4

    _run(body)


def test_files_reach_vis_whose_service_runs() -> None:
    """Not before that, when its launch would not understand; an older VI is never told of them."""

    async def body(place: Place) -> None:
        files = {"key_file": "AAAA"}
        assert place.server.give_files(1, files), "it is away, and gets them when it says so"
        newer = await place.vi(1, takes_files=True)
        assert place.server.give_files(1, files)
        newer.say({"event": "ready"})
        await place.until(saw.ViReady(1))
        assert place.server.give_files(1, files)
        await newer.until(lambda: newer.messages)
        assert newer.messages == [{"do": "files", "files": files}]
        again = await place.vi(1, is_launched=True, takes_files=True)
        assert place.server.give_files(1, files)
        await again.until(lambda: again.messages)
        older = await place.vi(2, is_launched=True)
        assert not place.server.give_files(2, files)
        place.server.say(2, {"do": "stop"})
        await older.until(lambda: older.messages)
        assert older.messages == [{"do": "stop"}]

    _run(body)
