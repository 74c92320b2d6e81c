"""A real capture, by tcpdump, of two hop nodes that talk over loopback."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, ensureDeferred

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.hop.api import HopConfig, Role
from packetcloud.chunk.hop.datagrams import DATA_HEADER_BYTES
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import ChunkId
from packetcloud.cli.main import main
from tests.unit.chunk.hop.hop_link import Upper

pytestmark = [pytest.mark.root, pytest.mark.needs("tcpdump")]

LIMIT_S = 30.0
SIZES = (0, 100, 5_000, 1 << 20)


async def until(reactor: Any, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "condition did not come true"
        pause: Deferred[None] = Deferred()
        reactor.callLater(0.02, pause.callback, None)
        await pause


async def converse(reactor: Any, path: Path, datagram_bytes: int) -> int:
    """Send chunks of all sizes while tcpdump listens; return the port of the receiving node."""
    config = HopConfig(max_datagram_bytes=datagram_bytes, private_links=("127.0.0.0/8",))
    here, there = Upper(), Upper()
    source, destination = Identity.generate(), Identity.generate()
    client = HopNode(reactor, source, Role.HOST, config, here)
    server = HopNode(reactor, destination, Role.ROUTER, config, there)
    client.listen("127.0.0.1", 0)
    address = server.listen("127.0.0.1", 0)
    with path.open("wb") as file:
        command = ["tcpdump", "-i", "lo", "-U", "--immediate-mode", "-s", "0", "-B", "16384"]
        command += ["-w", "-", f"udp port {address[1]}"]
        tcpdump = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE)
        try:
            assert tcpdump.stderr is not None
            while b"listening on" not in (line := tcpdump.stderr.readline()):
                assert line, "tcpdump ended"
            neighbour = await client.connect(address, destination.guid)
            for number, size in enumerate(SIZES):
                header = ChunkHeader(source.guid, destination.guid, ChunkId(number), size)
                neighbour.send(BodyKind.CHUNK, header.to_bytes(), bytes(size), number)
            await until(reactor, lambda: len(here.settled) == len(SIZES))
            await client.close()
            await until(reactor, lambda: bool(there.down))
            await until(reactor, lambda: b"shutting down" in path.read_bytes()[-500:])
        finally:
            tcpdump.send_signal(signal.SIGINT)
            tcpdump.wait(10)
            await server.close()
    return address[1]


@pytest.mark.parametrize("datagram_bytes", [1472, 65_507])
def test_what_tcpdump_captured_is_understood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], datagram_bytes: int
) -> None:
    """Every datagram is read, trains of segmentation offload too, and every segment is there."""
    path = tmp_path / "hop.pcap"
    loop = asyncio.new_event_loop()
    try:
        reactor = AsyncioSelectorReactor(loop)
        done: Deferred[int] = ensureDeferred(converse(reactor, path, datagram_bytes))
        port = loop.run_until_complete(asyncio.wait_for(done.asFuture(loop), 2 * LIMIT_S))
    finally:
        loop.close()
    assert main(["chunk", "decode", str(path), "--port", str(port), "--format", "json"]) == 0
    datagrams = json.loads(capsys.readouterr().out)["datagrams"]
    bodies = [body for entry in datagrams for body in entry.get("bodies", ())]
    assert [entry["error"] for entry in [*datagrams, *bodies] if entry["error"]] == []
    assert {entry["type"] for entry in datagrams} >= {"hello", "welcome", "confirm", "control"}
    headers = {body["chunk"]["chunk_id"]: body["chunk"] for body in bodies if "chunk" in body}
    assert {header["payload_bytes"] for header in headers.values()} == set(SIZES)
    share = datagram_bytes - DATA_HEADER_BYTES
    largest = max(bodies, key=lambda body: int(body["body_bytes"]))
    segments = {body["segment"] for body in bodies if body["transfer"] == largest["transfer"]}
    assert segments == set(range(-(-largest["body_bytes"] // share)))
