"""A host as a program, to be killed: `receive` or `send`, each with a journal that outlives it.

Every line is one `write` at the end of the journal, so a kill cuts nothing in two.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
from pathlib import Path

from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from packetcloud.chunk.hop.clock import install_monotonic_clock
from packetcloud.chunk.identity import load_identity_file
from packetcloud.chunk.names import GUID
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.received import ReceivedChunk

LANES = 8
BODY_SIZES = (0, 1, 900, 5_000, 60_000, 250_000)


class Journal:
    """Lines of words."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, *words: object) -> None:
        os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())


def lines(path: Path) -> list[list[str]]:
    """Return the lines of a journal, each as its words."""
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


async def receive(reactor: object, router: tuple[str, int], folder: Path) -> None:
    """Take chunks. What the journal says was taken has no effect again: the application's part."""
    path = folder / "received"
    known = {words[1] for words in lines(path) if words[0] == "took"}
    journal = Journal(path)

    def take(chunks: list[ReceivedChunk]) -> None:
        for chunk in chunks:
            payload = bytes(chunk.payload)
            number, body = str(int.from_bytes(payload[:8], "big")), payload[40:]
            is_right = hashlib.sha256(body).digest() == payload[8:40]
            if number in known:
                journal.write("again", number)
            else:
                known.add(number)
                journal.write("took", number, "right" if is_right else "altered")
            chunk.release()

    endpoint = await Endpoint.open(
        reactor,  # type: ignore[arg-type]  # a module that is one
        router,
        load_identity_file(folder / "b.key"),
        state_file=folder / "b.window",
    )
    endpoint.on_chunks(take)
    journal.write("up", os.getpid())
    await asyncio.sleep(3600)


async def send(reactor: object, router: tuple[str, int], folder: Path, to: GUID) -> None:
    """Send chunk after chunk until a file says that it is enough; numbers are never used twice."""
    journal = Journal(folder / "sent")
    endpoint = await Endpoint.open(
        reactor,  # type: ignore[arg-type]  # a module that is one
        router,
        load_identity_file(folder / "a.key"),
    )
    rng = random.Random(os.getpid())
    journal.write("up", os.getpid())
    count = 0

    async def lane() -> None:
        nonlocal count
        while not (folder / "enough").exists():
            count += 1
            number = os.getpid() << 32 | count
            body = rng.randbytes(rng.choice(BODY_SIZES))
            payload = number.to_bytes(8, "big") + hashlib.sha256(body).digest() + body
            journal.write("sent", number)
            result = await endpoint.send(to, payload, lifetime_s=40.0)
            certain = "indeterminate" if result.indeterminate else "certain"
            journal.write("ended", number, result.outcome.value, certain)

    await asyncio.gather(*(lane() for _ in range(LANES)))
    await endpoint.close()
    journal.write("done", os.getpid())


def main(role: str, host: str, port: str, folder: str, *more: str) -> None:
    loop = asyncio.new_event_loop()
    reactor = AsyncioSelectorReactor(loop)
    install_monotonic_clock(reactor)
    router = (host, int(port))
    if role == "receive":
        loop.run_until_complete(receive(reactor, router, Path(folder)))
    else:
        loop.run_until_complete(send(reactor, router, Path(folder), GUID.from_hex(more[0])))


if __name__ == "__main__":
    main(*sys.argv[1:])
