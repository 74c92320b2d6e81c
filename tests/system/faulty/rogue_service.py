"""A service that does whatever a hostile one can think of; a chunk says what, and for how long.

`WORD SECONDS ...` begins it; `said` answers with what came of the last one; any other chunk is
served as by an honest service. It reaches past the SDK into the runtime of its own process, as
anybody's code in a VI can. For containers only: without limits it would do what it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.hop.outlet import Outlet
from packetcloud.chunk.messages import BodyKind, VerdictCode, VerdictHeader
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.services.runtime import ServiceRuntime
from packetcloud.services.sdk import (
    ChunkContext,
    EmittedChunk,
    NetworkService,
    ServiceChunk,
    ServiceContext,
    Verdict,
)

HUGE = bytes(1 << 20)
FILE = Path("/tmp/full")
UNANSWERED_LIES = 200
"""Lies that the router has not taken yet: more of them would only fill this container's memory."""
DRIP_S = 0.1
SMALL_BYTES = 600
"""Datagrams of this size keep the session up while the large ones drip."""


class Rogue(NetworkService):
    """See the module."""

    def start(self, context: ServiceContext) -> None:
        self.said = "nothing yet"
        self.neighbour: Any = None
        self.task_id = 0
        self.under_way = 0
        self.drips_until = 0.0
        self.next_drip = 0.0
        self._look_over_the_runtimes_shoulder()
        Outlet.send = _dripping(self, Outlet.send)  # type: ignore[method-assign]

    async def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        words = bytes(chunk.payload).decode().split()
        attacks: dict[str, Callable[..., Coroutine[Any, Any, Verdict]]] = {
            "crash": self._crash,
            "memory": self._memory,
            "fork": self._fork,
            "disk": self._disk,
            "room": self._room,
            "loop": self._loop,
            "hold": self._hold,
            "drip": self._drip,
            "lie": self._lie,
            "flood": self._flood,
            "astray": self._astray,
        }
        if words and words[0] in attacks:
            return await attacks[words[0]](*words[1:])
        if words == ["said"]:
            return Verdict.update(self.said.encode())
        return Verdict.update(b"served " + bytes(chunk.payload))

    async def _crash(self) -> Verdict:
        os.kill(os.getpid(), signal.SIGKILL)
        return Verdict.forward()

    async def _memory(self, wanted_mib: str) -> Verdict:
        held = [bytearray(b"\1") * (1 << 20) for _ in range(int(wanted_mib))]
        self.said = f"memory {len(held)}"
        return Verdict.forward()

    async def _fork(self, duration_s: str) -> Verdict:
        """Every process makes more of them, until there are no more, and goes on trying."""
        end = time.monotonic() + float(duration_s)
        root, made, refusals = os.getpid(), 0, 0
        while time.monotonic() < end:
            try:
                if os.fork():
                    made += 1
            except OSError:
                refusals += 1
        if os.getpid() != root:
            os._exit(0)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        self.said = f"fork {made} {refusals}"
        return Verdict.forward()

    async def _disk(self, duration_s: str, claimed_mib: str) -> Verdict:
        """Lay claim to room, write until there is no more, and go on trying."""
        end = time.monotonic() + float(duration_s)
        written, failures = int(claimed_mib) << 20, set()
        block = random.randbytes(1 << 20)
        with FILE.open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, written)
            file.seek(written)
            while time.monotonic() < end:
                try:
                    written += file.write(block)
                    os.fsync(file.fileno())
                except OSError as error:
                    failures.add(errno.errorcode[error.errno or 0])
        FILE.unlink()
        self.said = f"disk {written >> 20} {','.join(sorted(failures))}"
        return Verdict.forward()

    async def _room(self, wanted_mib: str) -> Verdict:
        """Lay claim to room without writing there."""
        failure = ""
        with FILE.open("wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, int(wanted_mib) << 20)
            except OSError as error:
                failure = errno.errorcode[error.errno or 0]
        FILE.unlink()
        self.said = f"room {wanted_mib} {failure}"
        return Verdict.forward()

    async def _loop(self, duration_s: str) -> Verdict:
        """More processes that do nothing but run than there are processors."""
        end = time.monotonic() + float(duration_s)
        children = []
        for _ in range(7):
            child = os.fork()
            if child == 0:
                while time.monotonic() < end:
                    pass
                os._exit(0)
            children.append(child)
        while time.monotonic() < end:
            pass
        for child in children:
            os.waitpid(child, 0)
        return Verdict.forward()

    async def _hold(self, duration_s: str) -> Verdict:
        """Take a chunk and say nothing."""
        await asyncio.sleep(float(duration_s))
        return Verdict.forward()

    async def _drip(self, duration_s: str) -> Verdict:
        """Begin a large verdict, of which a datagram comes now and then."""
        self.drips_until = max(self.drips_until, time.monotonic() + float(duration_s))
        return Verdict.update(HUGE)

    async def _lie(self, duration_s: str, stranger: str) -> Verdict:
        """Verdicts on tasks of others, on none, in doubles, in pieces; chunks under other names."""
        end = time.monotonic() + float(duration_s)
        own, count = self.task_id, 0
        forged = _forged_chunk(GUID.from_hex(stranger))
        while time.monotonic() < end:
            if self.under_way < UNANSWERED_LIES:
                count += 1
                nearby = own + random.choice([-1, 1]) * random.randrange(1, 1000)
                anywhere = random.randrange(1 << 64)
                for task_id in (nearby, anywhere, nearby):
                    self._say(VerdictHeader(task_id, VerdictCode.DROP, 0, b"a lie").to_bytes())
                    self._say(VerdictHeader(task_id, VerdictCode.UPDATE, 0).to_bytes(), b"a lie")
                self._say(random.randbytes(40))
                self._say(b"\0")
                self._say(forged, b"a lie", BodyKind.CHUNK)
            await asyncio.sleep(0)
        self.said = f"lie {count}"
        # The true one, twice; whichever comes second has no effect.
        self._say(VerdictHeader(own, VerdictCode.UPDATE, 0).to_bytes(), b"lied")
        return Verdict.update(b"lied")

    async def _flood(self, duration_s: str) -> Verdict:
        """The largest verdicts that there are, on nobody's tasks, as fast as they go."""
        end = time.monotonic() + float(duration_s)
        count = 0
        while time.monotonic() < end:
            if self.under_way < 16:
                count += 1
                head = VerdictHeader(random.randrange(1 << 64), VerdictCode.UPDATE, 1 << 63)
                self._say(head.to_bytes(), HUGE)
            await asyncio.sleep(0)
        self.said = f"flood {count}"
        return Verdict.update(b"flooded")

    async def _astray(self, stranger: str) -> Verdict:
        """Send what it was given, and something else, to somebody of its own choice."""
        somewhere = GUID.from_hex(stranger)
        if random.random() < 0.5:
            return Verdict.redirect(somewhere)
        return Verdict.emit([EmittedChunk(somewhere, b"astray")], keep=True)

    def _say(self, prefix: bytes, payload: bytes = b"", kind: BodyKind = BodyKind.VERDICT) -> None:
        self.under_way += 1
        self.neighbour.send(kind, prefix, payload, self)

    def _look_over_the_runtimes_shoulder(self) -> None:
        """Learn the router's session and the ids of tasks, and hear of what became of lies."""
        receive, settle = ServiceRuntime.body_received, ServiceRuntime.body_settled

        def received(runtime: ServiceRuntime, neighbour: Any, kind: BodyKind, body: Any) -> Any:
            self.neighbour, self.task_id = neighbour, int.from_bytes(body.head(8), "big")
            return receive(runtime, neighbour, kind, body)

        def settled(
            runtime: ServiceRuntime, neighbour: Any, token: object, settlement: Any, reason: int
        ) -> None:
            if token is self:
                self.under_way -= 1
            else:
                settle(runtime, neighbour, token, settlement, reason)

        ServiceRuntime.body_received = received  # type: ignore[method-assign]
        ServiceRuntime.body_settled = settled  # type: ignore[method-assign]


def _forged_chunk(source: GUID) -> bytes:
    """Return the header of a chunk that somebody else is to have sent to itself."""
    return ChunkHeader(
        source=source,
        destination=source,
        chunk_id=ChunkId(random.randrange(1, 1 << 64)),
        payload_bytes=5,
    ).to_bytes()


def _dripping(rogue: Rogue, send: Callable[..., bool]) -> Callable[..., bool]:
    """Return what sends large datagrams one at a time, seldom, and loses the others."""

    def dripping(outlet: Outlet, address: Any, buffers: list[Any], row_bytes: int) -> bool:
        now = time.monotonic()
        if now >= rogue.drips_until or sum(map(len, buffers)) <= SMALL_BYTES:
            return send(outlet, address, buffers, row_bytes)
        if now < rogue.next_drip:
            return True
        rogue.next_drip = now + DRIP_S
        first = buffers[:2] if len(buffers) > 1 else [memoryview(buffers[0])[:row_bytes]]
        return send(outlet, address, first, row_bytes)

    return dripping
