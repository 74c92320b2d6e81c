"""Waiting for changes, and the stream of events: order, resumption, owners, caps, ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from packetcloud.domain_controller.api import feed as feed_module
from packetcloud.domain_controller.api.problems import TYPE_PREFIX
from tests.functional.domain_place import WISH, Place


class Stream:
    """An open stream of a caller's, spoken to as uvicorn speaks to an app."""

    def __init__(self, place: Place, request: httpx.Request) -> None:
        self.status = 0
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._is_read = False
        raw_path, _, query = request.url.raw_path.partition(b"?")
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.url.path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }
        self.task = asyncio.create_task(
            place.made.gate(self._scope, self._receive, self._send)  # type: ignore[arg-type]
        )

    async def event(self) -> dict[str, Any]:
        """Return the next event."""
        async with asyncio.timeout(30):
            while True:
                text = (await self.chunks.get()).decode()
                if text.startswith("id: "):
                    number, kind, data, *_ = text.splitlines()
                    found: dict[str, Any] = json.loads(data.removeprefix("data: "))
                    assert number == f"id: {found['number']}"
                    assert kind == f"event: {found['kind']}"
                    return found

    async def close(self) -> None:
        """Go away, as a client that closes its connection."""
        self._gone.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def _receive(self) -> dict[str, Any]:
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message.get("body"):
            if self._gone.is_set():
                raise OSError
            self.chunks.put_nowait(message["body"])


@contextlib.asynccontextmanager
async def streaming(
    place: Place, who: str, path: str = "/v1/events", last: int | None = None
) -> AsyncIterator[Stream]:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    stream = Stream(place, place.request(who, "GET", path, headers=headers))
    try:
        yield stream
    finally:
        await stream.close()


async def reserve(place: Place, who: str, number: int) -> str:
    """Make a reservation, which is one event; return its id."""
    got = await place.ask(who, "POST", "/v1/reservations", WISH, f"key-number-{number}")
    return str(got.json()["subject"])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is looked at without a pause, so that no test waits for one."""
    monkeypatch.setattr(feed_module, "LOOK_EVERY_S", 0.001)


def test_events_come_in_order_and_from_now_on() -> None:
    """What was before is not sent; what comes is, to who may see it."""

    async def scenario() -> None:
        place = Place()
        await reserve(place, "acme", 0)
        async with streaming(place, "acme") as ours, streaming(place, "noc") as all_of_them:
            while len(place.made.feed.streams) < 2:
                await asyncio.sleep(0)
            await asyncio.to_thread(lambda: None)
            names = [await reserve(place, "acme", 1), await reserve(place, "bolt", 2)]
            names.append(await reserve(place, "acme", 3))
            seen = [await ours.event() for _ in range(2)]
            assert [one["subject"] for one in seen] == [names[0], names[2]]
            assert {one["owner"] for one in seen} == {"acme"}
            seen = [await all_of_them.event() for _ in range(3)]
            assert [one["subject"] for one in seen] == names
        assert not place.made.feed.streams

    asyncio.run(scenario())


@pytest.mark.parametrize("by_header", [True, False])
def test_a_stream_goes_on_where_it_was(by_header: bool) -> None:
    """After the number that was seen last, none lost and none twice."""

    async def scenario() -> None:
        place = Place()
        names = [await reserve(place, "acme", number) for number in range(5)]
        path = "/v1/events" if by_header else "/v1/events?after=2"
        async with streaming(place, "acme", path, 2 if by_header else None) as stream:
            seen = [await stream.event() for _ in range(3)]
            assert [one["subject"] for one in seen] == names[2:]
            names.append(await reserve(place, "acme", 5))
            assert (await stream.event())["subject"] == names[-1]

    asyncio.run(scenario())


def test_a_number_that_no_event_has_yet_is_refused() -> None:
    """After a restore a client would otherwise miss all events up to the number that it saw."""

    async def scenario() -> None:
        place = Place()
        await reserve(place, "acme", 0)
        for path, headers in (("?after=2", {}), ("", {"Last-Event-ID": "2"})):
            request = place.request("acme", "GET", f"/v1/events{path}", headers=headers)
            got = await place.send(request)
            assert (got.status_code, "at most 1" in got.text) == (422, True)

    asyncio.run(scenario())


def test_long_histories_come_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event once, whatever the batch."""
    monkeypatch.setattr(feed_module, "BATCH_COUNT", 2)

    async def scenario() -> None:
        place = Place()
        names = [await reserve(place, "acme", number) for number in range(7)]
        async with streaming(place, "acme", last=0) as stream:
            seen = [await stream.event() for _ in range(7)]
        assert [one["subject"] for one in seen] == names

    asyncio.run(scenario())


def test_streams_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one caller, and of all together; who goes away makes room."""
    monkeypatch.setattr(feed_module, "MAX_STREAMS_OF_ONE_COUNT", 2)

    async def scenario() -> None:
        place = Place()  # four in all
        async with contextlib.AsyncExitStack() as stack:
            for who in ("acme", "acme", "bolt", "noc"):
                stream = await stack.enter_async_context(streaming(place, who, last=0))
                while not stream.status:
                    await asyncio.sleep(0)
            third = await place.ask("acme", "GET", "/v1/events")
            assert (third.status_code, third.json()["type"]) == (
                429,
                TYPE_PREFIX + "too-many-streams",
            )
            fifth = await place.ask("auditors", "GET", "/v1/events")
            assert (fifth.status_code, fifth.json()["type"]) == (503, TYPE_PREFIX + "busy")
        assert not place.made.feed.streams
        async with streaming(place, "auditors", last=0) as stream:
            while not stream.status:
                await asyncio.sleep(0)
            assert stream.status == 200

    asyncio.run(scenario())


def test_a_stream_ends_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next heartbeat after the key was revoked."""
    monkeypatch.setattr(feed_module, "HEARTBEAT_S", 0.01)

    async def scenario() -> None:
        place = Place()
        async with streaming(place, "acme") as stream:
            while b"still here" not in await stream.chunks.get():
                pass
            key_id = place.keys["acme"].guid.hex
            await place.ask("noc", "DELETE", f"/v1/tenants/acme/keys/{key_id}")
            async with asyncio.timeout(30):
                await stream.task
        assert not place.made.feed.streams

    asyncio.run(scenario())


def test_who_waits_is_woken() -> None:
    """By the end of an operation, and by the next version of a reservation."""

    async def scenario() -> None:
        place = Place()
        made = (await place.ask("acme", "POST", "/v1/reservations", WISH, "key-of-acme")).json()
        version = place.state.reservations_by_id[made["subject"]].version
        asked = [
            asyncio.create_task(place.ask("acme", "GET", path))
            for path in (
                f"/v1/operations/{made['id']}?wait_s=30",
                f"/v1/reservations/{made['subject']}?wait_s=30&beyond={version}",
            )
        ]
        while place.made.feed.waiting_count < 2:
            await asyncio.sleep(0)
        place.state.settle(made["id"], "done", "confirmed")
        operation, reservation = [(await one).json() for one in asked]
        assert operation["state"] == "done"
        assert reservation["state"] == "confirmed"
        assert place.made.feed.waiting_count == 0

    asyncio.run(scenario())


def test_who_waits_for_what_is_no_event_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of an extension grows no journal, and yet nobody waits for it until the limit."""
    monkeypatch.setattr(feed_module, "ASK_AGAIN_S", 0.001)

    async def scenario() -> None:
        place = Place()
        made = (await place.ask("acme", "POST", "/v1/reservations", WISH, "key-of-acme")).json()
        path = f"/v1/operations/{made['id']}?wait_s=30"
        asked = asyncio.create_task(place.ask("acme", "GET", path))
        while not place.made.feed.waiting_count:
            await asyncio.sleep(0)
        owner, info = place.state.operations_by_id[made["id"]]
        ended = info.model_copy(update={"state": "done"})
        place.state.operations_by_id[made["id"]] = (owner, ended)
        async with asyncio.timeout(10):
            assert (await asked).json()["state"] == "done"

    asyncio.run(scenario())


def test_who_waits_in_vain_gets_what_there_is() -> None:
    """Without waiting, and after waiting."""

    async def scenario() -> None:
        place = Place()
        made = (await place.ask("acme", "POST", "/v1/reservations", WISH, "key-of-acme")).json()
        for query in ("", "?wait_s=0", "?wait_s=1"):
            got = await place.ask("acme", "GET", f"/v1/operations/{made['id']}{query}")
            assert got.json()["state"] == "running"

    asyncio.run(scenario())


def test_those_who_wait_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it, one is told to ask without waiting."""
    monkeypatch.setattr(feed_module, "MAX_WAITING_COUNT", 1)

    async def scenario() -> None:
        place = Place()
        made = (await place.ask("acme", "POST", "/v1/reservations", WISH, "key-of-acme")).json()
        path = f"/v1/operations/{made['id']}?wait_s=30"
        first = asyncio.create_task(place.ask("acme", "GET", path))
        while place.made.feed.waiting_count < 1:
            await asyncio.sleep(0)
        second = await place.ask("acme", "GET", path)
        assert (second.status_code, second.json()["type"]) == (503, TYPE_PREFIX + "busy")
        place.state.settle(made["id"], "done", "confirmed")
        assert (await first).json()["state"] == "done"

    asyncio.run(scenario())


def test_whoever_waits_is_answered_when_the_controller_ends() -> None:
    """With what is so by then; streams end. Else their requests would be cut off in the middle."""

    async def scenario() -> None:
        place = Place()
        made = (await place.ask("acme", "POST", "/v1/reservations", WISH, "key-of-acme")).json()
        path = f"/v1/operations/{made['id']}?wait_s=30"
        waiting = asyncio.create_task(place.ask("acme", "GET", path))
        async with streaming(place, "acme") as stream:
            while not (place.made.feed.waiting_count and place.made.feed.streams):
                await asyncio.sleep(0)
            place.made.feed.end()
            async with asyncio.timeout(20):
                assert (await waiting).json()["state"] == "running"
                await stream.task
                later = await place.ask("acme", "GET", path)
        assert later.json()["state"] == "running"

    asyncio.run(scenario())
