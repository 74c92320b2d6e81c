"""What the commands `packetcloud host send|receive|ping` do, as coroutines on a reactor.

Each opens an endpoint, does its work and leaves the router again, also when it is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred

from packetcloud.chunk.identity import load_identity_file
from packetcloud.chunk.names import GUID, SID
from packetcloud.chunk.reasons import Reason
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.file_receiver import ReceivedFile, ReceiveProgress
from packetcloud.host.file_sender import DEFAULT_CHUNK_BYTES, DEFAULT_STALL_S
from packetcloud.host.file_transfer import FileTransfers
from packetcloud.host.outgoing_file import SendProgress, SentFile
from packetcloud.host.promise import Promise
from packetcloud.host.reactor import Reactor
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendResult

LAST_ANSWERS_S = 5.0
"""How long a receiver that is done waits until the sender has its last answer."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """Where and as whom a host attaches."""

    router: tuple[str, int]
    key_file: Path
    router_guid: GUID | None = None

    def open(self, reactor: Reactor, state_file: Path | None = None) -> Promise[Endpoint]:
        """Attach. Raises, besides what `Endpoint.open` does: IdentityError (the key file)."""
        identity = load_identity_file(self.key_file)
        return Endpoint.open(
            reactor, self.router, identity, router_guid=self.router_guid, state_file=state_file
        )


@dataclass(frozen=True, slots=True)
class SendOrder:
    """What `host send` was asked for."""

    path: Path
    destination: GUID
    name: str | None = None
    services: Sequence[SID] = ()
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    lifetime_s: float = 60.0
    stall_s: float = DEFAULT_STALL_S
    resume: bool = False


@dataclass(frozen=True, slots=True)
class ReceiveOrder:
    """What `host receive` was asked for."""

    folder: Path
    allowed: Sequence[GUID] = ()
    """Empty: anybody."""
    count: int | None = None
    """Stop after so many files; None: never."""
    max_bytes: int | None = None
    overwrite: bool = False
    sync_disk: bool = True
    state_file: Path | None = None


async def send_file(
    reactor: Reactor,
    attachment: Attachment,
    order: SendOrder,
    on_progress: Callable[[SendProgress], None] | None = None,
) -> SentFile:
    """Send one file. Raises: TransferError, RouterUnreachableError, IdentityError."""
    endpoint = await attachment.open(reactor)
    try:
        return await FileTransfers(reactor, endpoint).send(
            order.path,
            order.destination,
            name=order.name,
            services=order.services,
            chunk_bytes=order.chunk_bytes,
            lifetime_s=order.lifetime_s,
            stall_s=order.stall_s,
            resume=order.resume,
            on_progress=on_progress,
        )
    finally:
        await endpoint.close()


async def receive_files(
    reactor: Reactor,
    attachment: Attachment,
    order: ReceiveOrder,
    on_ready: Callable[[GUID], None],
    on_file: Callable[[ReceivedFile], None],
    on_progress: Callable[[ReceiveProgress], None] | None = None,
) -> int:
    """Receive files until `order.count` came, or until cancelled; return how many came."""
    endpoint = await attachment.open(reactor, order.state_file)
    enough: Promise[None] = Promise()
    count = 0

    def came(file: ReceivedFile) -> None:
        nonlocal count
        count += 1
        on_file(file)
        if count == order.count:
            enough.callback(None)

    transfers = FileTransfers(reactor, endpoint)
    endpoint.on_chunks(_refuse_others)
    try:
        receiver = await transfers.receive(
            order.folder,
            allowed=order.allowed or None,
            max_bytes=order.max_bytes,
            overwrite=order.overwrite,
            sync_disk=order.sync_disk,
            on_file=came,
            on_progress=on_progress,
        )
        try:
            on_ready(endpoint.guid)
            await enough
            await _within(reactor, receiver.answers_delivered(), LAST_ANSWERS_S)
        finally:
            await receiver.close()
    finally:
        await endpoint.close()
    return count


@dataclass(frozen=True, slots=True)
class PingResult:
    """One chunk there and its report back. `answered`: the destination itself answered."""

    number: int
    result: SendResult
    answered: bool


async def ping(
    reactor: Reactor,
    attachment: Attachment,
    destination: GUID,
    *,
    services: Sequence[SID] = (),
    count: int = 4,
    interval_s: float = 1.0,
    payload_bytes: int = 0,
    lifetime_s: float = 5.0,
    on_result: Callable[[PingResult], None],
) -> list[PingResult]:
    """Send `count` small chunks one after the other and time their delivery reports."""
    endpoint = await attachment.open(reactor)
    results: list[PingResult] = []
    try:
        for number in range(1, count + 1):
            result = await endpoint.send(
                destination, bytes(payload_bytes), services=services, lifetime_s=lifetime_s
            )
            answered = result.ok or result.reason == Reason.RECEIVER_REFUSED
            results.append(PingResult(number, result, answered))
            on_result(results[-1])
            if number < count:
                await _later(reactor, interval_s)
    finally:
        await endpoint.close()
    return results


def _refuse_others(batch: list[ReceivedChunk]) -> None:
    for chunk in batch:
        chunk.refuse("files_only: this host takes only files")
        chunk.release()


async def _within(reactor: Reactor, promise: Promise[None], limit_s: float) -> None:
    """Wait for `promise`, but not longer than `limit_s`."""
    waiting: Promise[None] = Promise()

    def over(_: object = None) -> None:
        if not waiting.called:
            waiting.callback(None)

    promise.addBoth(over)
    limit = reactor.callLater(limit_s, over)
    await waiting
    if limit.active():
        limit.cancel()


def _later(reactor: Reactor, delay_s: float) -> Deferred[None]:
    waiting: Deferred[None] = Deferred(lambda _: call.cancel())
    call = reactor.callLater(delay_s, waiting.callback, None)
    return waiting
