"""A capture as an HTTP answer that goes on until its count, its time or its reader ends.

A shell: it waits, the tap does not. A reader that is slow keeps this coroutine waiting in `send`,
so the ring fills up and what finds no room is counted; chunks notice nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from packetcloud.router.capture_file import CaptureWriter
from packetcloud.router.tap import Tap, Wanted

MEDIA_TYPE = "application/x-pcapng"
PART_BYTES = 1 << 18
"""Written at a time: what a slow reader makes the server hold beside the ring."""


class CaptureResponse(StreamingResponse):
    """Streams one capture; when the client goes away the capture ends.

    Args:
        seconds: how long; None: until the client goes away or the count is full.

    Raises:
        TooManyCapturesError: there is no room for another.
    """

    def __init__(
        self, tap: Tap, wanted: Wanted, writer: CaptureWriter, seconds: float | None
    ) -> None:
        self._event = asyncio.Event()
        self._tap = tap
        self._capture = tap.begin(wanted, self._event.set)
        self._writer = writer
        self._seconds = seconds
        super().__init__(self._parts(), media_type=MEDIA_TYPE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._tap.end(self._capture)

    async def _parts(self) -> AsyncIterator[bytes]:
        capture, writer = self._capture, self._writer
        seconds = asyncio.get_running_loop().time
        end = math.inf if self._seconds is None else seconds() + self._seconds
        yield writer.beginning()
        while not capture.is_over and (left_s := end - seconds()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._event.wait(), left_s if end < math.inf else None)
            self._event.clear()
            if sights := capture.take(PART_BYTES):
                yield writer.packets(sights)
                self._event.set()  # there may be more
        self._tap.end(capture)
        while sights := capture.take(PART_BYTES):
            yield writer.packets(sights)
        yield writer.ending(time.time_ns(), capture.lost_count)
