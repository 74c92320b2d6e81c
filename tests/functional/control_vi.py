"""A VI's end of the control link on the test's own loop, that does what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from packetcloud.services.control_frames import (
    PROTOCOL_VERSION,
    FrameReader,
    encode_json,
    encode_state,
)
from packetcloud.services.state_transfer import StateIntake, announcement


def hello_of(name: str, token: str, *, is_launched: bool = False) -> dict[str, Any]:
    return {
        "event": "hello",
        "protocol": PROTOCOL_VERSION,
        "vi": name,
        "token": token,
        "is_launched": is_launched,
    }


class ControlVi:
    """One connection: what came is in `messages`, a state that came whole in `states`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.messages: list[dict[str, Any]] = []
        self.states: list[bytes] = []
        self.ended = asyncio.Event()
        self.writer = writer
        self.on_message: Callable[[dict[str, Any]], None] = lambda message: None
        self._reader = reader
        self._intake: StateIntake | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def call(
        cls, address: tuple[str, int], *, from_address: str = "127.0.0.1", reads: bool = True
    ) -> ControlVi:
        reader, writer = await asyncio.open_connection(*address, local_addr=(from_address, 0))
        vi = cls(reader, writer)
        if reads:
            vi.read()
        return vi

    def read(self) -> None:
        """Begin to take what comes."""
        self._task = asyncio.get_running_loop().create_task(self._listen())

    def say(self, message: dict[str, Any]) -> None:
        self.writer.write(encode_json(message))

    async def send_state(self, state: bytes, **changes: Any) -> None:
        self.say({"event": "exported", **announcement(state), **changes})
        for frame in encode_state(state):
            self.writer.write(frame)
            await self.writer.drain()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something that came makes it true."""
        async with asyncio.timeout(30):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        self.writer.transport.abort()

    async def _listen(self) -> None:
        frames = FrameReader()
        try:
            while data := await self._reader.read(1 << 16):
                for frame in frames.feed(data):
                    self._take(frame)
                self._changed.set()
        except ConnectionError:
            pass
        finally:
            self.ended.set()
            self._changed.set()

    def _take(self, frame: dict[str, Any] | bytes) -> None:
        if isinstance(frame, bytes):
            assert self._intake is not None
            self._intake.add(frame)
        else:
            self.messages.append(frame)
            if frame.get("do") == "import":
                self._intake = StateIntake(frame)
            else:
                self.on_message(frame)
        if self._intake is not None and self._intake.is_complete:
            self.states.append(self._intake.state())
            self._intake = None
            self.on_message({"do": "imported"})
