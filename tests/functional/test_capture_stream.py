"""Captures over the management API of a router that runs: real sockets, a real stream."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from twisted.internet.defer import Deferred

from packetcloud.chunk.capture import CapturedPacket, read_packets
from packetcloud.chunk.captured import captured_chunks
from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.pcap import CaptureDecoder
from packetcloud.cli.main import main
from packetcloud.router.capture_client import stream_capture
from packetcloud.router.daemon import RouterDaemon
from packetcloud.router.state import format_address
from packetcloud.router.tap import MAX_CAPTURES_COUNT
from tests.functional.router_network import Host, Network, run
from tests.unit.router.router_fakes import guid

T = TypeVar("T")


def url_of(router: RouterDaemon) -> str:
    return f"http://{format_address(router.management.address)}"


def packets(data: bytes) -> list[CapturedPacket]:
    return list(read_packets(io.BytesIO(data), "stream"))


def in_thread(call: Callable[[], T]) -> Deferred[T]:
    """Begin a blocking call beside the reactor."""
    loop = asyncio.get_running_loop()
    return Deferred.fromFuture(loop.run_in_executor(None, call))


async def while_captured(
    net: Network, router: RouterDaemon, send: Callable[[], object], **query: object
) -> bytes:
    """Capture, send when it has begun, and return what came until the router ended it."""
    data = in_thread(lambda: b"".join(stream_capture(url_of(router), query)))
    await net.until(lambda: router.core.tap.is_on)
    send()
    return await data


def test_what_passes_is_streamed_until_the_count_is_full(tmp_path: Path) -> None:
    """A large chunk and a refused one come with payload, neighbour, address and reason."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        a, b = await net.host(router), await net.host(router)
        payload = bytes(range(256)) * 2000

        def send() -> None:
            a.send(b.guid, payload)
            a.send(guid("x"))

        data = await while_captured(
            net, router, send, point=["taken", "ended"], snap=1 << 20, count=2
        )
        found = captured_chunks(CaptureDecoder().decode(packets(data)))
        second, first = sorted(found, key=lambda one: one.point)
        assert first.payload == payload
        assert first.comment == f"taken; from=host {a.guid}"
        assert second.comment.endswith("refused at the door: unresolvable_guid")
        (sighting, *_) = CaptureDecoder().decode(packets(data))
        addresses = {one.neighbour.address for one in router.core.attachments}
        assert sighting.source in addresses
        assert sighting.destination == router.hop.address
        await net.close()

    run(test)


def test_a_capture_ends_after_its_time(tmp_path: Path) -> None:
    """With nothing to see the file is whole and empty."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        data = await while_captured(net, router, lambda: None, seconds=0.2)
        assert packets(data) == []
        assert len(data) > 50
        await net.close()

    run(test)


def test_a_capture_ends_when_its_client_goes_away(tmp_path: Path) -> None:
    """Whoever leaves without a word leaves nothing behind, whether chunks come or not."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()

        for _ in range(MAX_CAPTURES_COUNT + 2):
            stream = stream_capture(url_of(router), {})
            assert await in_thread(partial(next, stream))
            assert len(router.core.tap.captures) == 1
            await in_thread(stream.close)
            await net.until(lambda: not router.core.tap.is_on)
        await net.close()

    run(test)


def test_a_reader_that_stands_still_holds_up_nobody(tmp_path: Path) -> None:
    """Chunks arrive at their pace, the ring stays within its bytes, and what is left out is
    counted."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        a, b = await net.host(router), await net.host(router)
        stream = stream_capture(url_of(router), {"snap": 1 << 20})
        assert await in_thread(lambda: next(stream))
        (capture,) = router.core.tap.captures
        for number in range(60):
            a.send(b.guid, bytes(1 << 20))
            await net.until(partial(b.has, number + 1))
            assert capture.ring_bytes <= 16 << 20
        assert router.core.tap.lost_count > 0
        await in_thread(stream.close)
        await net.until(lambda: not router.core.tap.is_on)
        await net.close()

    run(test)


def test_one_capture_too_many_is_answered_with_the_reason(tmp_path: Path) -> None:
    """The client's error says what to do; a wrong parameter is named."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        streams = [stream_capture(url_of(router), {}) for _ in range(MAX_CAPTURES_COUNT)]
        for stream in streams:
            assert await in_thread(partial(next, stream))
        with pytest.raises(PacketCloudError, match="end one of them"):
            await in_thread(lambda: next(stream_capture(url_of(router), {})))
        url = f"{url_of(router)}/chunks/capture"
        for query in ({"guid": "zz"}, {"snap": 1 << 30}, {"point": "there"}, {"unknown": "1"}):
            answer = await in_thread(partial(httpx.get, url, params=query))
            assert answer.status_code == 422
            assert next(iter(query)) in answer.text
        for stream in streams:
            await in_thread(stream.close)
        await net.close()

    run(test)


def test_a_router_that_stops_ends_its_captures(tmp_path: Path) -> None:
    """The client gets what was seen, and a whole file."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        a, b = await net.host(router), await net.host(router)

        stream = stream_capture(url_of(router), {"point": "taken"})
        beginning = await in_thread(lambda: next(stream))
        rest = in_thread(lambda: b"".join(stream))
        a.send(b.guid)
        await net.until(lambda: b.received)
        await net.close()
        assert len(packets(beginning + await rest)) == 1

    run(test)


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`chunk capture` writes what `chunk decode` shows and `chunk replay` gives to a service."""
    path = tmp_path / "seen.pcapng"

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        a, b = await net.host(router), await net.host(router)

        def capture() -> int:
            address = format_address(router.management.address)
            options = ["--guid", b.guid.hex[:8], "--count", "4", "--snap", "1MiB"]
            return main(["chunk", "capture", "--router", address, *options, "-o", str(path)])

        code = in_thread(capture)
        await net.until(lambda: router.core.tap.is_on)
        await _send_all(net, a, b)
        assert await code == 0
        await net.close()

    run(test)
    assert "looks 4" in " ".join(capsys.readouterr().out.split())
    assert main(["chunk", "decode", str(path)]) == 0
    assert "# left; to=host" in capsys.readouterr().out
    replay = ["chunk", "replay", str(path), "--service", "wan-optimizer"]
    assert main([*replay, "--set", "direction=compress", "--format", "json"]) == 0
    assert '"update": 2' in capsys.readouterr().out


async def _send_all(net: Network, a: Host, b: Host) -> None:
    for number in range(2):
        a.send(b.guid, b"text " * 10_000)
        await net.until(partial(b.has, number + 1))
