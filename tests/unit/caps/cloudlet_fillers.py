"""Fillers of the caps of the cloudlet controller. Source: cloudlet/caps.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from packetcloud.cloudlet.callers import (
    MAX_CALLS_PER_S_COUNT,
    MAX_STRANGERS_OF_ONE_COUNT,
)
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.links import (
    LOG_WINDOW_S,
    MAX_BEHIND_BYTES,
    MAX_LOGGED_COUNT,
    MAX_REPORTS_PER_S_COUNT,
    MAX_STATES_BYTES,
    MAX_STATUS_VALUES_COUNT,
    MAX_STRANGERS_COUNT,
    Caller,
    ControlServer,
    Link,
)
from packetcloud.services.control_frames import MAX_STATE_BYTES
from tests.functional.control_vi import ControlVi, hello_of
from tests.unit.caps.filled import Filled, fills

OTHER = 100
"""The VI that goes on."""


class _Place:
    def __init__(self) -> None:
        self.server = ControlServer(
            lambda name: Caller(int(name), "token", "127.0.0.1"), self._tell
        )
        self.events: list[saw.Event] = []
        self.address = ("", 0)
        self._changed = asyncio.Event()

    def _tell(self, event: saw.Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await self._changed.wait()

    async def vi(self, number: int, *, reads: bool = True) -> ControlVi:
        vi = await ControlVi.call(self.address, reads=reads)
        vi.say(hello_of(str(number), "token"))
        await self.until(lambda: saw.LinkUp(number, False) in self.events)
        return vi

    async def goes_on(self, vi: ControlVi) -> bool:
        """Tell whether another VI is heard and spoken to."""
        vi.say({"event": "ready"})
        await self.until(lambda: saw.ViReady(OTHER) in self.events)
        self.server.say(OTHER, {"do": "stop"})
        await vi.until(lambda: vi.messages)
        return True


@contextlib.asynccontextmanager
async def _placed() -> AsyncIterator[_Place]:
    place = _Place()
    place.address = await place.server.bind("127.0.0.1", 0)
    await place.server.serve()
    try:
        yield place
    finally:
        await place.server.close()


def _run(body: Callable[[_Place, ControlVi], Coroutine[Any, Any, Filled]]) -> Filled:
    async def whole() -> Filled:
        async with _placed() as place:
            return await body(place, await place.vi(OTHER))

    return asyncio.run(whole())


@fills("cloudlet", "control links that have not said who they are")
def strangers() -> Filled:
    """Many call and say nothing."""

    async def body(place: _Place, other: ControlVi) -> Filled:
        server = place.server
        callers = [
            await ControlVi.call(place.address, from_address=f"127.0.1.{1 + number}")
            for number in range(MAX_STRANGERS_COUNT // MAX_STRANGERS_OF_ONE_COUNT)
            for _ in range(MAX_STRANGERS_OF_ONE_COUNT)
        ]
        await place.until(lambda: server.strangers_count == MAX_STRANGERS_COUNT)
        at_cap, counted = server.strangers_count, server.refused["strangers"]
        more = [await ControlVi.call(place.address) for _ in range(20)]
        await place.until(lambda: server.refused["strangers"] == 20)
        beyond, counted_beyond = server.strangers_count, server.refused["strangers"]
        goes_on = await place.goes_on(other)
        for caller in [*callers, *more]:
            caller.close()
        await place.until(lambda: not server.strangers_count)
        cap, left = MAX_STRANGERS_COUNT, server.strangers_count
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, left)

    return _run(body)


@fills("cloudlet", "such control links of one address")
def strangers_of_one() -> Filled:
    """A VI calls again and again and says nothing; another calls meanwhile."""

    async def body(place: _Place, other: ControlVi) -> Filled:
        server, liar = place.server, "127.0.0.9"

        async def calls(count: int) -> list[ControlVi]:
            return [await ControlVi.call(place.address, from_address=liar) for _ in range(count)]

        def there() -> int:
            return server.callers.strangers_of(liar)

        callers = await calls(MAX_STRANGERS_OF_ONE_COUNT)
        await place.until(lambda: there() == MAX_STRANGERS_OF_ONE_COUNT)
        at_cap, counted = there(), server.refused["strangers"]
        callers += await calls(MAX_STRANGERS_COUNT)
        await place.until(lambda: server.refused["strangers"] == MAX_STRANGERS_COUNT)
        beyond, counted_beyond = there(), server.refused["strangers"]
        await place.vi(1)
        goes_on = await place.goes_on(other)
        for caller in callers:
            caller.close()
        await place.until(lambda: not there())
        cap = MAX_STRANGERS_OF_ONE_COUNT
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, there())

    return _run(body)


@fills("cloudlet", "calls of one address within a second")
def calls() -> Filled:
    """A VI proves itself and hangs up, as fast as it can; time stands still."""

    async def body(place: _Place, other: ControlVi) -> Filled:
        callers, liar, now = place.server.callers, "127.0.0.9", 1e9

        def press(count: int) -> tuple[int, int]:
            for _ in range(count):
                assert callers.come(liar, now)
                callers.pause_s(liar, now)
                callers.known(liar)
            return callers.calls_of(liar), callers.held_up_count

        at_cap, counted = press(MAX_CALLS_PER_S_COUNT)
        beyond, counted_beyond = press(20)
        goes_on = await place.goes_on(other)
        is_free = callers.pause_s(liar, now + 1.0) == 0.0
        cap, left = MAX_CALLS_PER_S_COUNT, callers.calls_of(liar) - is_free
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, left)

    return _run(body)


@fills("cloudlet", "states on their way")
def states() -> Filled:
    """VIs announce the largest states that there are, and send nothing."""

    async def body(place: _Place, other: ControlVi) -> Filled:
        server = place.server
        count = MAX_STATES_BYTES // MAX_STATE_BYTES
        message = {"event": "exported", "bytes": MAX_STATE_BYTES, "sha256": "0" * 64}
        vis = []
        for number in range(count + 1):
            vi = await place.vi(number)
            vis.append(vi)  # or it would end
            server.ask_state(number)
            if number == count:
                at_cap, counted = server.states_bytes, server.refused["protocol"]
            vi.say(message)
            await place.until(
                lambda number=number: (  # type: ignore[misc]
                    server.states_bytes == MAX_STATE_BYTES * (number + 1)
                    or saw.LinkDown(number) in place.events
                )
            )
        beyond, counted_beyond = server.states_bytes, server.refused["protocol"]
        goes_on = await place.goes_on(other)
        for number, vi in enumerate(vis):
            server.drop_state(number)
            vi.close()
        cap, left = MAX_STATES_BYTES, server.states_bytes
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, left)

    return _run(body)


@fills("cloudlet", "what a VI has not read")
def behind() -> Filled:
    """A VI reads nothing of what it is told."""
    padding = "x" * (64 << 10)
    granularity = len(padding) + 64

    async def body(place: _Place, other: ControlVi) -> Filled:
        server = place.server
        deaf = await place.vi(1, reads=False)
        link = server._links[1]

        def press() -> None:
            server.say(1, {"do": "stop", "padding": padding})

        while link.behind_bytes + granularity <= MAX_BEHIND_BYTES:
            press()
            await asyncio.sleep(0)
        at_cap, counted = link.behind_bytes, server.refused["behind"]
        while not server.refused["behind"]:
            press()
        beyond, counted_beyond = link.behind_bytes, server.refused["behind"]
        goes_on = await place.goes_on(other)
        await place.until(lambda: saw.LinkDown(1) in place.events)
        deaf.close()
        left, cap = link.behind_bytes, MAX_BEHIND_BYTES
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, left, granularity)

    return _run(body)


@fills("cloudlet", "reports of a VI within a second")
def reports() -> Filled:
    """A VI reports as fast as it can; time stands still."""

    async def body(place: _Place, other: ControlVi) -> Filled:
        vi = await place.vi(1)
        link: Link = place.server._links[1]
        now = 1e9

        def press(count: int) -> tuple[int, int]:
            for _ in range(count):
                link.pause_s(now)
            return link.reports_count, place.server.held_up_count

        at_cap, counted = press(MAX_REPORTS_PER_S_COUNT)
        beyond, counted_beyond = press(20)
        goes_on = await place.goes_on(other)
        is_free = link.pause_s(now + 1.0) == 0.0
        cap, left = MAX_REPORTS_PER_S_COUNT, link.reports_count - is_free
        vi.close()
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, left)

    return _run(body)


@fills("cloudlet", "lines in the log about closed links within a minute")
def logged() -> Filled:
    """Somebody calls again and again, and says nonsense."""

    async def body(place: _Place, other: ControlVi) -> Filled:
        server = place.server

        async def call(count: int) -> None:
            for number in range(count):  # from many, as one is held up
                address = f"127.0.0.{number + 2}"
                vi = await ControlVi.call(place.address, from_address=address)
                vi.say({"event": "nonsense"})
                async with asyncio.timeout(60):
                    await vi.ended.wait()

        await call(MAX_LOGGED_COUNT)
        at_cap, counted = server.logged_count, server.unlogged_count
        await call(20)
        beyond, counted_beyond = server.logged_count, server.unlogged_count
        goes_on = await place.goes_on(other)
        server._logging_ends_at -= LOG_WINDOW_S
        cap, left = MAX_LOGGED_COUNT, server.logged_count
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, left)

    return _run(body)


@fills("cloudlet", "keys and values of a status")
def status() -> Filled:
    """A VI says more and more of itself."""

    async def body(place: _Place, other: ControlVi) -> Filled:
        server = place.server
        vi = await place.vi(1)
        keys_count = (MAX_STATUS_VALUES_COUNT - 1) // 2  # the status itself is one

        def heard() -> int:
            sizes = [len(one.status) for one in place.events if isinstance(one, saw.ViStatus)]
            return 1 + 2 * max(sizes, default=0)

        vi.say({"event": "status", "status": {str(number): 0 for number in range(keys_count)}})
        await place.until(lambda: heard() > 1)
        at_cap, counted = heard(), server.refused["protocol"]
        vi.say({"event": "status", "status": {str(number): 0 for number in range(keys_count + 1)}})
        await place.until(lambda: saw.LinkDown(1) in place.events)
        goes_on = await place.goes_on(other)
        cap, counted_beyond = MAX_STATUS_VALUES_COUNT, server.refused["protocol"]
        left = len(server._links) - 1
        return Filled(cap, at_cap, counted, heard(), counted_beyond, goes_on, left, 2)

    return _run(body)
