"""Opens the channel to a domain controller, again and again; VIs run whether it is there or not.

Nothing is kept here: what was said and not taken, the core says again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Awaitable, Callable

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import CloseCode

from packetcloud.cloudlet.controller import Controller
from packetcloud.cloudlet.core.commands import (
    DropDomain,
    SayAnswer,
    SayComplete,
    SayRules,
    SayUsage,
    ToDomain,
)
from packetcloud.cloudlet.core.events import DomainDown, Metered
from packetcloud.cloudlet.domain_link.report import report_of
from packetcloud.cloudlet.domain_link.settings import DomainSettings
from packetcloud.cloudlet.domain_link.translation import (
    answer_frame,
    complete_frame,
    event_of,
    rules_frame,
    usage_frame,
)
from packetcloud.domain_controller.api.signatures import sign_request
from packetcloud.domain_controller.channel.frames import (
    CHANNEL_PATH,
    MAX_FRAME_BYTES,
    SUBPROTOCOL,
    Part,
    WelcomeFrame,
    decode_down,
    encode,
)
from packetcloud.domain_controller.errors import FrameError

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
"""Between two attempts; the pause is a part of this by chance, so that not all come at once."""
STEADY_S = 60.0
"""Two controllers with one key end each other's channels. Whose channel did not last so long comes
again later each time."""
OPEN_WITHIN_S = 10.0
PING_EVERY_S = 20.0
METER_EVERY_S = 1.0
MAX_WAITING_COUNT = 1024
"""Frames that wait for a slow channel; what would be one more is dropped, and said again later."""
MAX_SHOWN_CHARS = 300
NONCE_BYTES = 18
_log = logging.getLogger("packetcloud.cloudlet")


class DomainLink:
    """The channel of one cloudlet.

    Args:
        clock_ms: milliseconds since 1970.
        random_bytes: the system's random source.
    """

    def __init__(
        self,
        controller: Controller,
        settings: DomainSettings,
        clock_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.url = ""
        """With which the channel is open, or was last tried."""
        self.text = "not tried yet"
        """Why it is not open."""
        self.dropped_count = 0
        """Frames that were not sent or not taken."""
        self.name = settings.name
        self._controller = controller
        self._settings = settings
        self._clock_ms = clock_ms
        self._random_bytes = random_bytes
        self._sleep = sleep
        self._outgoing: asyncio.Queue[Part] | None = None
        self._drop_text: asyncio.Future[str] | None = None
        self._has_welcome = False
        controller.domain = self

    async def run(self) -> None:
        """Go on until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_open())
            tasks.create_task(self._meter())

    def say(self, command: ToDomain) -> None:
        """Send something, or end the channel."""
        match command:
            case SayAnswer():
                self._put(answer_frame(command))
            case SayUsage():
                self._put(usage_frame(command, self._settings.identity))
            case SayComplete():
                self._put(complete_frame(command))
            case SayRules():
                self._put(rules_frame(command))
            case DropDomain(text):
                if self._drop_text is not None and not self._drop_text.done():
                    self._drop_text.set_result(text)

    async def _meter(self) -> None:
        while True:
            self._controller.tell(Metered(self._clock_ms()))
            await self._sleep(METER_EVERY_S)

    async def _keep_open(self) -> None:
        pause_s, attempt = FIRST_PAUSE_S, 0
        loop = asyncio.get_running_loop()
        while True:
            self.url = self._settings.urls[attempt % len(self._settings.urls)]
            self._has_welcome = False
            begin_s = loop.time()
            is_sent_away = False
            try:
                text = await self._one_channel()
            except (OSError, WebSocketException, TimeoutError) as error:
                text = _why(error)
                is_sent_away = _is_sent_away(error)
            was_brief = loop.time() - begin_s < STEADY_S
            if self._has_welcome and not (is_sent_away and was_brief):
                pause_s = FIRST_PAUSE_S
            if self._has_welcome or text != self.text:
                _log.warning("no domain controller at %s: %s", self.url, text)
            self.text = text
            attempt += 1
            chance = int.from_bytes(self._random_bytes(2), "big") / 0xFFFF
            await self._sleep(pause_s * (0.5 + chance / 2))
            if attempt % len(self._settings.urls) == 0:
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _one_channel(self) -> str:
        """Open the channel and use it to its end; return why it ended."""
        request = self._signed_request()
        headers = [(name, value) for name, value in request.headers.items() if name != "host"]
        url = str(request.url)
        async with connect(
            "ws" + url.removeprefix("http"),
            additional_headers=headers,
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]  # a NewType of str
            compression=None,
            max_size=MAX_FRAME_BYTES,
            max_queue=4,
            open_timeout=OPEN_WITHIN_S,
            close_timeout=1.0,
            ping_interval=PING_EVERY_S,
            ping_timeout=PING_EVERY_S,
            proxy=None,
            ssl=self._trusted() if url.startswith("https") else None,
        ) as channel:
            loop = asyncio.get_running_loop()
            self._outgoing = asyncio.Queue(MAX_WAITING_COUNT)
            self._drop_text = loop.create_future()
            works = (self._read(channel), self._write(channel), _text_of(self._drop_text))
            tasks = [asyncio.ensure_future(work) for work in works]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                return next(iter(done)).result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._outgoing = self._drop_text = None
                self._controller.tell(DomainDown())

    def _signed_request(self) -> httpx.Request:
        epoch = self._controller.core.saved.domain_epoch
        request = httpx.Request("GET", f"{self.url}{CHANNEL_PATH}?epoch={epoch}")
        nonce = self._random_bytes(NONCE_BYTES).hex()
        sign_request(request, b"", self._settings.identity, nonce, self._clock_ms() / 1000)
        return request

    def _trusted(self) -> ssl.SSLContext:
        ca_file = self._settings.ca_file
        return ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)

    async def _read(self, channel: ClientConnection) -> str:
        report_task: asyncio.Task[None] | None = None
        try:
            async for text in channel:
                try:
                    frame = decode_down(text)
                except FrameError as error:
                    self.dropped_count += 1
                    _log.warning("a frame of %s is dropped: %s", self.url, error)
                    continue
                if isinstance(frame, WelcomeFrame):
                    if frame.cloudlet != self._settings.name:
                        return (
                            f"it knows this key as cloudlet {frame.cloudlet!r}, and [domain] name "
                            f"is {self._settings.name!r}: allowed: the former"
                        )
                    self._has_welcome = True
                    self.text = ""
                    if report_task is None:
                        report_task = asyncio.create_task(self._report(frame.report_every_ms))
                self._controller.tell(event_of(frame, self._clock_ms()))
            return f"it ended the channel: {channel.close_reason or channel.close_code}"
        finally:
            if report_task is not None:
                report_task.cancel()

    async def _report(self, every_ms: int) -> None:
        sequence = 0
        while True:
            if self._controller.core.inventory.is_known:
                around = self._controller.surroundings.now()
                self._put(report_of(self._controller.core, sequence, around))
                sequence += 1
            await self._sleep(every_ms / 1000)

    async def _write(self, channel: ClientConnection) -> str:
        assert self._outgoing is not None
        while True:
            await channel.send(encode(await self._outgoing.get()))

    def _put(self, frame: Part) -> None:
        if self._outgoing is None or self._outgoing.full():
            self.dropped_count += 1
            return
        self._outgoing.put_nowait(frame)


async def _text_of(future: asyncio.Future[str]) -> str:
    return await future


def _why(error: Exception) -> str:
    """Return in one line why the channel could not be opened, or ended."""
    if isinstance(error, InvalidStatus):
        response = error.response
        try:
            detail = json.loads(response.body or b"").get("detail", "")
        except (ValueError, AttributeError):
            detail = ""
        return f"HTTP {response.status_code}: {str(detail)[:MAX_SHOWN_CHARS]}".rstrip(": ")
    if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.reason:
        return f"it ended the channel: {error.rcvd.reason}"[:MAX_SHOWN_CHARS]
    text = " ".join(str(error).split())[:MAX_SHOWN_CHARS]
    return text or type(error).__name__


def _is_sent_away(error: Exception) -> bool:
    """Tell whether the domain controller ended the channel because it does not want it."""
    if not isinstance(error, ConnectionClosed) or error.rcvd is None:
        return False
    return error.rcvd.code == CloseCode.POLICY_VIOLATION
