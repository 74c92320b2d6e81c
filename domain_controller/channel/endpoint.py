"""The WebSocket: whoever the gate let in becomes a session, until either side ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from packetcloud.domain_controller.api.gate import Signer
from packetcloud.domain_controller.api.problems import ProblemError, busy
from packetcloud.domain_controller.api.signatures import Proof
from packetcloud.domain_controller.channel.frames import SUBPROTOCOL
from packetcloud.domain_controller.channel.hub import Channel, Hub
from packetcloud.domain_controller.channel.port import ChannelState
from packetcloud.domain_controller.channel.session import ChannelEndedError, Session
from packetcloud.domain_controller.core.cloudlets import MAX_SEQUENCE
from packetcloud.domain_controller.state.errors import StateError

SILENT_INTERVALS = 4
"""A cloudlet that was asked for so many reports and sent nothing is away."""
MIN_SILENT_S = 10.0
CHECK_KEY_EVERY_S = 10.0
"""A key that was revoked ends its channel after so long at most."""
_POLICY_VIOLATION, _GOING_AWAY = 1008, 1001
_QUERY = re.compile(rb"(?:epoch=([0-9]{1,16}))?")
_log = logging.getLogger("packetcloud.domain")


class ChannelEndpoint:
    """Serves channels.

    Args:
        clock_ms: milliseconds since 1970.
    """

    def __init__(
        self,
        state: ChannelState,
        hub: Hub,
        domain: str,
        clock_ms: Callable[[], int],
        report_every_ms: int,
    ) -> None:
        self.hub = hub
        self._state = state
        self._domain = domain
        self._clock_ms = clock_ms
        self._report_every_ms = report_every_ms

    async def open(
        self, scope: Scope, receive: Receive, send: Send, by: Signer, proof: Proof
    ) -> None:
        """Serve a channel to its end.

        Args:
            by: the cloudlet whose signature opens it.

        Raises:
            ProblemError: it is not opened; nothing was sent yet.
            StateError: as `ChannelState.open_channel` says; nothing was sent yet.
        """
        cloudlet = by.principal.name
        seen_epoch = _seen_epoch(scope)
        if SUBPROTOCOL not in scope.get("subprotocols", ()):
            raise ProblemError(
                400, "invalid", f"the channel's subprotocol is {SUBPROTOCOL}; ask for it"
            )
        if self.hub.is_full and cloudlet not in self.hub.channels:
            raise busy(f"{self.hub.most} cloudlets have their channel here, as many as may")
        owner = await self._state.open_channel(cloudlet, proof, seen_epoch)
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})

        async def send_text(text: str) -> None:
            await send({"type": "websocket.send", "text": text})

        session = Session(
            cloudlet,
            self._domain,
            owner,
            by.public_key,
            self._state,
            send_text,
            self._clock_ms,
            self._report_every_ms,
        )
        channel = self.hub.add(session)
        _log.info("cloudlet %s: channel open, epoch %d", cloudlet, owner.epoch)
        text = "its key counts no more"
        try:
            await session.begin()
            text = await _first_end(
                self._read(channel, receive),
                self._tell(channel),
                self._watch_key(proof.key_id),
                _replaced(channel),
            )
            with contextlib.suppress(Exception):  # it may be closed already, in any way
                code = _POLICY_VIOLATION if channel.replaced.is_set() else _GOING_AWAY
                await send({"type": "websocket.close", "code": code, "reason": text[:100]})
        finally:
            self.hub.remove(channel)
            _log.info("cloudlet %s: channel of epoch %d ended: %s", cloudlet, owner.epoch, text)

    async def _read(self, channel: Channel, receive: Receive) -> str:
        silent_s = max(MIN_SILENT_S, SILENT_INTERVALS * self._report_every_ms / 1000)
        while True:
            try:
                async with asyncio.timeout(silent_s):
                    message = await receive()
            except TimeoutError:
                return f"nothing came for {silent_s:g} s"
            if message["type"] == "websocket.disconnect":
                return "the cloudlet ended it"
            if message["type"] == "websocket.receive":
                await channel.session.receive(message.get("text") or message.get("bytes") or "")

    async def _tell(self, channel: Channel) -> str:
        while True:
            await channel.wake.wait()
            channel.wake.clear()
            await channel.session.deliver()

    async def _watch_key(self, key_id: str) -> str:
        while True:
            await asyncio.sleep(CHECK_KEY_EVERY_S)
            try:
                signer = await asyncio.to_thread(self._state.signer, key_id, self._clock_ms())
            except StateError:
                continue  # a database that is away says nothing of the key
            if signer is None:
                return "its key counts no more"


async def _replaced(channel: Channel) -> str:
    await channel.replaced.wait()
    return "the cloudlet opened another channel; is its key that of a second controller, too?"


async def _first_end(*works: Awaitable[str]) -> str:
    """Return why the first of them ended; the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    try:
        return next(iter(done)).result()
    except ChannelEndedError as error:
        return str(error)
    except (OSError, RuntimeError) as error:
        # What the server raises where the connection is gone while it is written to.
        return f"the connection is gone: {error!r}"


def _seen_epoch(scope: Scope) -> int:
    """Raises: ProblemError: the query is not `epoch=N`."""
    found = _QUERY.fullmatch(scope["query_string"])
    if found is None:
        raise ProblemError(400, "invalid", "query: allowed: epoch=N, decimal digits")
    epoch = int(found[1] or b"0")
    if epoch >= MAX_SEQUENCE:
        raise ProblemError(422, "not-possible", f"query.epoch: allowed: less than {MAX_SEQUENCE}")
    return epoch
