"""What is new: one look at the journal for all that wait, and streams of events (SSE).

Whoever waits is woken when the journal grew, whichever controller wrote it. A stream ends itself
after a while, and its client comes again with the number of the last event that it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from packetcloud.domain_controller.api.answered import EventInfo
from packetcloud.domain_controller.api.port import DomainState
from packetcloud.domain_controller.api.problems import ProblemError, busy
from packetcloud.domain_controller.state.errors import StateError

LOOK_EVERY_S = 0.2
"""How often the journal is looked at while somebody waits: one row of an index."""
ASK_AGAIN_S = 1.0
"""So often whoever waits asks though the journal did not grow: the end of an extension or a resize
changes its operation, and is no event."""
HEARTBEAT_S = 15.0
"""A stream says something at least so often, so that both ends notice when the other is gone."""
STREAM_LIMIT_S = 3600.0
"""So long a stream lasts: then its request is signed anew."""
MAX_STREAMS_COUNT = 256
MAX_STREAMS_OF_ONE_COUNT = 16
MAX_WAITING_COUNT = 1024
BATCH_COUNT = 200
_log = logging.getLogger("packetcloud.domain")

T = TypeVar("T")


class Feed:
    """The journal's end, as far as this process has seen it.

    Args:
        max_streams: of all callers together.
    """

    def __init__(self, state: DomainState, max_streams: int = MAX_STREAMS_COUNT) -> None:
        self.streams: Counter[str] = Counter()
        self.waiting_count = 0
        self._state = state
        self._max_streams = max_streams
        self._seen = 0
        self._grown = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._is_ending = False

    async def wait(self, ask: Callable[[], T], is_there: Callable[[T], bool], wait_s: float) -> T:
        """Return what `ask` returns once `is_there`, or when `wait_s` are over or the feed ends.

        Raises:
            ProblemError: too many wait.
        """
        found = await asyncio.to_thread(ask)
        if wait_s <= 0 or is_there(found):
            return found
        if self.waiting_count >= MAX_WAITING_COUNT:
            raise busy(f"{MAX_WAITING_COUNT} requests wait already; ask without wait_s")
        self.waiting_count += 1
        try:
            async with asyncio.timeout(wait_s):
                while not is_there(found) and not self._is_ending:
                    grown = self._next()
                    # Once more, for what happened before the journal was looked at.
                    found = await asyncio.to_thread(ask)
                    if not is_there(found):
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(grown.wait(), ASK_AGAIN_S)
                        found = await asyncio.to_thread(ask)
        except TimeoutError:
            found = await asyncio.to_thread(ask)
        finally:
            self.waiting_count -= 1
            self._rest()
        return found

    def end(self) -> None:
        """Answer everybody who waits, as if their time were over; streams end."""
        self._is_ending = True
        self._grown.set()

    def open_stream(self, who: str) -> None:
        """Count a stream in; `close_stream` counts it out.

        Raises:
            ProblemError: too many are open.
        """
        if self.streams[who] >= MAX_STREAMS_OF_ONE_COUNT:
            raise ProblemError(
                429,
                "too-many-streams",
                f"{MAX_STREAMS_OF_ONE_COUNT} streams of {who} are open; close one",
                headers={"Retry-After": "1"},
            )
        if self.streams.total() >= self._max_streams:
            raise busy(f"{self._max_streams} streams are open, as many as may")
        self.streams[who] += 1

    def close_stream(self, who: str) -> None:
        """Count a stream out."""
        self.streams[who] -= 1
        if not self.streams[who]:
            del self.streams[who]
        self._rest()

    async def stream(
        self, owner: str | None, after: int, may_go_on: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """Yield what a stream carries, from the event after `after` on.

        Args:
            may_go_on: whether the key that asked counts still; asked at each heartbeat.
        """
        loop = asyncio.get_running_loop()
        end_s = loop.time() + STREAM_LIMIT_S
        yield b"retry: 1000\n\n"
        try:
            while loop.time() < end_s and not self._is_ending:
                grown = self._next()
                events = await asyncio.to_thread(self._state.events, owner, after, BATCH_COUNT)
                for event in events:
                    after = event.number
                    yield encode_event(event)
                if events:
                    continue
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await grown.wait()
                except TimeoutError:
                    if not await asyncio.to_thread(may_go_on):
                        return
                    yield b": still here\n\n"
        except StateError as error:
            # The answer has begun: its client comes again by itself.
            _log.warning("an event stream ends early: %s", error)

    def _next(self) -> asyncio.Event:
        """Return what is set when the journal has grown from now on."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return self._grown

    def _rest(self) -> None:
        """Look no more when nobody waits."""
        if not self.waiting_count and not self.streams and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _look(self) -> None:
        while True:
            try:
                last = await asyncio.to_thread(self._state.last_event)
            except StateError as error:
                _log.warning("the journal cannot be read now: %s", error)
                last = self._seen
            if last != self._seen:
                self._seen = last
                grown, self._grown = self._grown, asyncio.Event()
                grown.set()
                if self._is_ending:
                    self._grown.set()
            await asyncio.sleep(LOOK_EVERY_S)


class EventStream(StreamingResponse):
    """An answer that is a stream of events, counted out however it ends.

    Its own `finally` would not run if the client went away before the first event was asked for.
    """

    def __init__(self, content: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = asyncio.create_task(self.stream_response(send))
        gone = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait((stream, gone), return_when=asyncio.FIRST_COMPLETED)
            if stream.done():
                with contextlib.suppress(OSError):  # its client went away while it was written to
                    stream.result()
        finally:
            for task in (stream, gone):
                task.cancel()
            await asyncio.gather(stream, gone, return_exceptions=True)
            self._ended()


def encode_event(event: EventInfo) -> bytes:
    """Return an event as a stream carries it (HTML, section 9.2)."""
    data = json.dumps(event.model_dump(), separators=(",", ":"))
    return f"id: {event.number}\nevent: {event.kind}\ndata: {data}\n\n".encode()
