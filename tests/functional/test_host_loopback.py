"""Endpoints and file transfer over real hop nodes on loopback, with a tiny router between them."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import random
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.header import ChunkHeader, PayloadType
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.reasons import Reason
from packetcloud.host.blocking import BlockingEndpoint, ReactorThread
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.errors import EndpointClosedError, RouterUnreachableError, TransferError
from packetcloud.host.file_transfer import FileTransfers, ReceivedFile, ReceiveProgress
from packetcloud.host.inbox_folder import InboxFolder
from packetcloud.host.promise import Promise
from packetcloud.host.reactor import Reactor
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendResult
from tests.functional.host_router import TinyRouter

Scenario = Callable[[Reactor, TinyRouter], Coroutine[Any, Any, None]]


@pytest.fixture
def thread() -> Iterator[ReactorThread]:
    running = ReactorThread()
    yield running
    running.stop()


@pytest.fixture
def router(thread: ReactorThread) -> Iterator[TinyRouter]:
    started = TinyRouter(thread.reactor)
    thread.call(started.start)
    yield started
    thread.wait(lambda: Promise.from_coroutine(started.stop()))


def play(thread: ReactorThread, router: TinyRouter, scenario: Scenario) -> None:
    """Run a Twisted coroutine on the reactor's thread and wait for it."""
    thread.wait(lambda: Promise.from_coroutine(scenario(thread.reactor, router)))


async def pair(reactor: Reactor, router: TinyRouter) -> tuple[Endpoint, Endpoint]:
    a = await Endpoint.open(reactor, router.address, Identity.generate())
    b = await Endpoint.open(reactor, router.address, Identity.generate())
    return a, b


def test_chunks_of_all_sizes_arrive_intact(thread: ReactorThread, router: TinyRouter) -> None:
    """From empty to 1 MiB, each once, each with its own bytes."""
    rng = random.Random(1)
    sizes = [0, 1, 100, 1400, 1500, 65_536, 300_000, (1 << 20) - 1] * 5
    sent = [rng.randbytes(size) for size in sizes]

    async def scenario(reactor: Reactor, router: TinyRouter) -> None:
        a, b = await pair(reactor, router)
        got: list[bytes] = []

        def take(batch: list[ReceivedChunk]) -> None:
            for chunk in batch:
                got.append(bytes(chunk.payload))
                chunk.release()

        b.on_chunks(take)
        promises: list[Promise[SendResult]] = []
        for payload in sent:
            await a.writable()
            promises.append(a.send(b.guid, payload, payload_prefix=b"p"))
        for promise in promises:
            assert (await promise).ok
        assert sorted(got) == sorted(b"p" + payload for payload in sent)
        await a.close()
        await b.close()

    play(thread, router, scenario)


def test_asyncio_code_uses_an_endpoint(thread: ReactorThread, router: TinyRouter) -> None:
    """`await` and `async for` in asyncio tasks, on the same loop."""

    async def main() -> int:
        a = await Endpoint.open(thread.reactor, router.address, Identity.generate())
        b = await Endpoint.open(thread.reactor, router.address, Identity.generate())

        async def consume() -> int:
            total = 0
            async for chunk in b.receive():
                total += len(chunk.payload)
                chunk.release()
            return total

        consumer = asyncio.ensure_future(consume())
        results = await asyncio.gather(*(a.send(b.guid, bytes(i)) for i in range(100)))
        assert all(result.ok for result in results)
        await a.close()
        await b.close()
        return await consumer

    def start() -> Promise[int]:
        promise: Promise[int] = Promise()
        task = asyncio.ensure_future(main())

        def done(ended: asyncio.Task[int]) -> None:
            error = ended.exception()
            if error is not None:
                promise.errback(error)
            else:
                promise.callback(ended.result())

        task.add_done_callback(done)
        return promise

    assert thread.wait(start) == sum(range(100))


def test_payload_from_a_mapped_file(
    thread: ReactorThread, router: TinyRouter, tmp_path: Path
) -> None:
    """A memoryview of a mapping is sent as it lies; when the send ended, it can be unmapped."""
    path = tmp_path / "f"
    data = random.Random(2).randbytes(1 << 20)
    path.write_bytes(data)

    async def scenario(reactor: Reactor, router: TinyRouter) -> None:
        a, b = await pair(reactor, router)
        stream = b.receive()
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = memoryview(mapping)
        promise = a.send(b.guid, view)
        chunk = await stream.__anext__()
        assert bytes(chunk.payload) == data
        chunk.release()
        assert (await promise).ok
        view.release()
        await a.close()
        mapping.close()
        await b.close()

    play(thread, router, scenario)


def test_router_restart(thread: ReactorThread, router: TinyRouter) -> None:
    """The router is replaced at the same address with the same key: both hosts find it again."""

    async def scenario(reactor: Reactor, router: TinyRouter) -> None:
        a, b = await pair(reactor, router)
        got: list[bytes] = []

        def take(batch: list[ReceivedChunk]) -> None:
            for chunk in batch:
                got.append(bytes(chunk.payload))
                chunk.release()

        b.on_chunks(take)
        assert (await a.send(b.guid, b"one")).ok
        port = router.address[1]
        await router.stop()
        promise = a.send(b.guid, b"two")
        router.start(port)
        assert (await promise).ok
        assert got == [b"one", b"two"]
        await a.close()
        await b.close()

    play(thread, router, scenario)


def test_lost_chunks_and_reports_are_healed(thread: ReactorThread, router: TinyRouter) -> None:
    """The router forgets the first copy of a tenth of what it took: all is delivered, once."""
    rng = random.Random(3)
    known: set[tuple[bytes, int]] = set()

    def forget(header: ChunkHeader) -> bool:
        key = (header.source.value, header.chunk_id.value)
        is_first = key not in known
        known.add(key)
        return is_first and len(known) > 2 and rng.random() < 0.1

    router.drop = forget

    async def scenario(reactor: Reactor, router: TinyRouter) -> None:
        a, b = await pair(reactor, router)
        got: list[bytes] = []

        def take(batch: list[ReceivedChunk]) -> None:
            for chunk in batch:
                got.append(bytes(chunk.payload))
                chunk.release()

        b.on_chunks(take)
        assert (await a.send(b.guid, b"a first one, so that the round trip is known")).ok
        got.clear()
        payloads = [i.to_bytes(4, "big") * 500 for i in range(100)]
        promises = [a.send(b.guid, payload) for payload in payloads]
        for promise in promises:
            assert (await promise).ok
        assert sorted(got) == sorted(payloads)
        await a.close()
        await b.close()

    play(thread, router, scenario)


def test_file_over_loopback(thread: ReactorThread, router: TinyRouter, tmp_path: Path) -> None:
    """20 MB there, with a payload that is changed and restored on the way, as services do."""
    source = tmp_path / "f.bin"
    source.write_bytes(random.Random(4).randbytes(20_000_003))

    def there_and_back(header: ChunkHeader, payload: bytes) -> bytes:
        return payload[::-1][::-1]

    router.change_payload = there_and_back

    async def scenario(reactor: Reactor, router: TinyRouter) -> None:
        a, b = await pair(reactor, router)
        files: list[ReceivedFile] = []
        inbox = FileTransfers(reactor, b)
        receiver = await inbox.receive(tmp_path / "in", on_file=files.append)
        sent = await FileTransfers(reactor, a).send(source, b.guid)
        assert sent.sha256 == hashlib.sha256(source.read_bytes()).digest()
        assert files[0].path.read_bytes() == source.read_bytes()
        await receiver.close()
        await a.close()
        await b.close()

    play(thread, router, scenario)


def test_receiver_restart_in_the_middle_of_a_file(
    thread: ReactorThread, router: TinyRouter, tmp_path: Path
) -> None:
    """The receiver leaves and comes back; the running sender goes on and finishes."""
    source = tmp_path / "f.bin"
    source.write_bytes(random.Random(5).randbytes(30_000_000))

    async def scenario(reactor: Reactor, router: TinyRouter) -> None:
        identity = Identity.generate()
        a = await Endpoint.open(reactor, router.address, Identity.generate())
        b = await Endpoint.open(reactor, router.address, identity)
        middle: Promise[None] = Promise()

        def watch(progress: ReceiveProgress) -> None:
            if progress.have_bytes >= 10_000_000 and not middle.called:
                middle.callback(None)

        receiver = await FileTransfers(reactor, b).receive(tmp_path / "in", on_progress=watch)
        promise = FileTransfers(reactor, a).send(source, b.guid, chunk_bytes=100_000)
        await middle
        await receiver.close()
        await b.close()
        b = await Endpoint.open(reactor, router.address, identity)
        receiver = await FileTransfers(reactor, b).receive(tmp_path / "in")
        await promise
        assert (tmp_path / "in" / "f.bin").read_bytes() == source.read_bytes()
        await receiver.close()
        await a.close()
        await b.close()

    play(thread, router, scenario)


def test_an_offer_that_comes_while_the_receiver_opens_its_folder_is_not_refused(
    thread: ReactorThread, router: TinyRouter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that is slow to open its folder still takes what was offered meanwhile."""
    source = tmp_path / "f.bin"
    source.write_bytes(bytes(200_000))
    opens = threading.Event()
    really_open = InboxFolder.open

    def open_late(self: InboxFolder) -> None:
        opens.wait(10)
        really_open(self)

    monkeypatch.setattr(InboxFolder, "open", open_late)

    async def scenario(reactor: Reactor, router: TinyRouter) -> None:
        a = await Endpoint.open(reactor, router.address, Identity.generate())
        b = await Endpoint.open(reactor, router.address, Identity.generate())
        transfers = FileTransfers(reactor, b)
        receiving = transfers.receive(tmp_path / "in")
        promise = FileTransfers(reactor, a).send(source, b.guid)
        pause: Promise[None] = Promise()
        reactor.callLater(0.3, pause.callback, None)
        await pause
        opens.set()
        receiver = await receiving
        await promise
        assert (tmp_path / "in" / "f.bin").read_bytes() == source.read_bytes()
        await receiver.close()
        await a.close()
        await b.close()

    play(thread, router, scenario)


def test_blocking_endpoint(router: TinyRouter, tmp_path: Path) -> None:
    """The calls of a script: send, receive, a file, a refusal, a timeout, close."""
    with (
        BlockingEndpoint.open(router.address, Identity.generate()) as a,
        BlockingEndpoint.open(router.address, Identity.generate()) as b,
    ):
        assert b.receive(timeout_s=0.01) is None
        results = a.send_many(b.guid, [b"one", b"two"], report=False)
        assert all(result.ok for result in results)
        received = [b.receive(), b.receive()]
        assert {chunk.payload for chunk in received if chunk is not None} == {b"one", b"two"}
        refused = a.send(Identity.generate().guid, b"x")
        assert refused.reason == Reason.UNRESOLVABLE_GUID
        path = tmp_path / "f"
        path.write_bytes(b"abc")
        with pytest.raises(TransferError):
            a.send_file(path, Identity.generate().guid)
        assert a.stats()["send_submitted_total"] >= 3
    with pytest.raises(EndpointClosedError):
        a.send(b.guid, b"x")
    a.close()


def test_unresolvable_router_name() -> None:
    """A name that does not resolve is said as such."""
    with pytest.raises(RouterUnreachableError, match="does not resolve"):
        BlockingEndpoint.open(("no-such-host.invalid", 4700), Identity.generate())


def test_reports_are_not_answered(thread: ReactorThread, router: TinyRouter) -> None:
    """Reports never make reports: after one exchange the network falls silent."""
    seen: list[int] = []

    def watch(header: ChunkHeader) -> bool:
        seen.append(header.payload_type)
        return False

    router.drop = watch

    async def scenario(reactor: Reactor, router: TinyRouter) -> None:
        a, b = await pair(reactor, router)
        b.on_chunks(lambda batch: [chunk.release() for chunk in batch] and None)
        assert (await a.send(b.guid, b"x")).ok
        await a.close()
        await b.close()
        assert seen == [PayloadType.DATA, PayloadType.REPORT]

    play(thread, router, scenario)
