"""SIGKILLs of a durable router in the middle of its work: what it acknowledged, it delivers.

The router is the real command with `custody = "durable"`, killed again and again and started anew
with the same spool; the two hosts are endpoints in this process. Most chunks ask for no report:
once the router has acknowledged such a chunk its source forgets it, so nobody but the router can
bring it to its destination. `broken_promises` knows the two journals and nothing else.

The number of kills is an option: `pytest --router-kills 200`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from packetcloud.chunk.hop.clock import install_monotonic_clock
from packetcloud.chunk.http_api import trust_for
from packetcloud.chunk.identity import Identity, create_identity_file
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendOutcome

SEED = 11
LANES = 16
BODY_SIZES = (0, 1, 900, 5_000, 60_000, 250_000, 900_000)
REPORTED_SHARE = 0.25
LIFETIME_S = 60.0
MOST_CHUNKS_BETWEEN = 40
MOST_S = 3.0
"""The router is killed after so many chunks arrived, or so long after it listens."""
LIMIT_S = 30.0
_HEAD_BYTES = 4 + 32
_COMMAND = [sys.executable, "-m", "packetcloud.cli"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A line of the sender's journal; `outcome` is None until the chunk is settled."""

    number: int
    digest: bytes
    outcome: SendOutcome | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A line of the receiver's journal."""

    number: int
    told_digest: bytes
    digest: bytes


GOOD = (SendOutcome.DELIVERED, SendOutcome.IN_CUSTODY)


def broken_promises(sent: Iterable[Sent], received: Iterable[Receipt]) -> list[str]:
    """Return in words what was promised and not kept."""
    found: list[str] = []
    arrived: defaultdict[int, list[Receipt]] = defaultdict(list)
    for receipt in received:
        arrived[receipt.number].append(receipt)
    for line in sent:
        receipts = arrived.pop(line.number, [])
        if line.outcome is None:
            found.append(f"{line.number}: never settled")
        elif line.outcome not in GOOD:
            found.append(f"{line.number}: {line.words}")
        elif not receipts:
            found.append(f"{line.number}: acknowledged, and lost")
        if len(receipts) > 1:
            found.append(f"{line.number}: arrived {len(receipts)} times")
        for receipt in receipts:
            if not receipt.digest == receipt.told_digest == line.digest:
                found.append(f"{line.number}: altered")
    return found + [f"{number}: nobody sent it" for number in arrived]


class DurableRouter:
    """`packetcloud router run`, killed and started again with the same files and ports."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self._folder = folder
        self._more = more
        create_identity_file(folder / "r.key")
        self.address = ("127.0.0.1", 0)
        self.control = "127.0.0.1:0"
        self.process: subprocess.Popen[str] | None = None
        self.kills_count = 0
        self.start()

    def start(self) -> None:
        """Start it, and return once it listens."""
        (self._folder / "r.toml").write_text(
            '[router]\nname = "r"\nkey_file = "r.key"\nna = 1\ncustody = "durable"\n'
            f'listen = "127.0.0.1:{self.address[1]}"\ncontrol_listen = "{self.control}"\n'
            f'[spool]\npath = "spool"\n{self._more}\n'
        )
        with (self._folder / "r.log").open("a") as log:
            self.process = subprocess.Popen(
                [*_COMMAND, "router", "run", str(self._folder / "r.toml"), "--format", "json"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1].strip() != "}":
            line = self.process.stdout.readline()
            assert line, (self._folder / "r.log").read_text()[-3000:]
            lines.append(line)
        facts = json.loads("".join(lines))
        self.address = ("127.0.0.1", int(facts["listen"].rpartition(":")[2]))
        self.control = facts["control"].removeprefix("http://")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.kills_count += 1

    def get(self, path: str) -> Any:
        url = f"http://{self.control}{path}"
        return httpx.get(url, verify=trust_for(url)).json()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def durable_router(tmp_path: Path) -> Iterator[DurableRouter]:
    router = DurableRouter(tmp_path)
    yield router
    router.stop()
    print((tmp_path / "r.log").read_text()[-4000:])


class Hosts:
    """A sender that always has chunks on their way, a receiver, and their journals."""

    def __init__(self, router: DurableRouter, seed: int) -> None:
        self.sent: dict[int, Sent] = {}
        self.received: list[Receipt] = []
        self.outcomes: Counter[SendOutcome] = Counter()
        self.duplicates_count = 0
        self._router = router
        self._rng = random.Random(seed)

    async def run(self, reactor: Any, kills_count: int) -> None:
        """Send while the router is killed; return when all that was acknowledged has arrived."""
        sender = await Endpoint.open(reactor, self._router.address, Identity.generate())
        receiver = await Endpoint.open(reactor, self._router.address, Identity.generate())
        receiver.on_chunks(self._take)
        killer = asyncio.create_task(self._kill(kills_count))
        try:
            lanes = [self._lane(sender, receiver, killer) for _ in range(LANES)]
            await asyncio.gather(killer, *lanes)
            end = time.monotonic() + LIMIT_S
            while broken_promises(self.sent.values(), self.received) and time.monotonic() < end:
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)  # whatever comes twice has come
            self.duplicates_count = int(receiver.stats().get("receive_duplicates_taken_total", 0))
        finally:
            killer.cancel()
            await sender.close()
            await receiver.close()

    async def _kill(self, count: int) -> None:
        for _ in range(count):
            # Some lives are too short for anybody to come back, most carry chunks.
            end = time.monotonic() + MOST_S
            enough = len(self.received) + self._rng.randint(0, MOST_CHUNKS_BETWEEN)
            while len(self.received) < enough and time.monotonic() < end:
                await asyncio.sleep(0.002)
            await asyncio.sleep(self._rng.uniform(0.0, 0.02))
            await asyncio.to_thread(self._router.kill)
            await asyncio.to_thread(self._router.start)
        await asyncio.sleep(1.0)

    async def _lane(self, sender: Endpoint, to: Endpoint, killer: asyncio.Task[None]) -> None:
        while not killer.done():
            body = self._rng.randbytes(self._rng.choice(BODY_SIZES))
            line = Sent(len(self.sent), hashlib.sha256(body).digest())
            self.sent[line.number] = line
            payload = line.number.to_bytes(4, "big") + line.digest + body
            wants_report = self._rng.random() < REPORTED_SHARE
            result = await sender.send(to.guid, payload, lifetime_s=LIFETIME_S, report=wants_report)
            self.outcomes[result.outcome] += 1
            self.sent[line.number] = replace(line, outcome=result.outcome, words=result.explain())

    def _take(self, chunks: list[ReceivedChunk]) -> None:
        for chunk in chunks:
            payload = bytes(chunk.payload)
            number, told = int.from_bytes(payload[:4], "big"), payload[4:_HEAD_BYTES]
            digest = hashlib.sha256(payload[_HEAD_BYTES:]).digest()
            self.received.append(Receipt(number, told, digest))
            chunk.release()


def run_in_loop(test: Callable[[Any], Any], limit_s: float) -> Any:
    """Run a coroutine on a reactor of its own."""
    loop = asyncio.new_event_loop()
    try:
        reactor = AsyncioSelectorReactor(loop)
        install_monotonic_clock(reactor)
        return loop.run_until_complete(asyncio.wait_for(test(reactor), limit_s))
    finally:
        loop.close()


def test_kills_of_a_durable_router_lose_double_and_alter_nothing(
    durable_router: DurableRouter, request: pytest.FixtureRequest
) -> None:
    """Acknowledged is delivered, once, unaltered, whether or not a report was asked for."""
    kills_count = int(request.config.getoption("--router-kills"))
    hosts = Hosts(durable_router, SEED)
    run_in_loop(lambda reactor: hosts.run(reactor, kills_count), LIMIT_S * 2 + 6.0 * kills_count)
    assert broken_promises(hosts.sent.values(), hosts.received) == []
    info = durable_router.get("/info")
    print(
        f"{durable_router.kills_count} kills, {len(hosts.sent)} chunks, "
        f"{dict(hosts.outcomes)}; {hosts.duplicates_count} copies dropped by the receiver; "
        f"the last router took over {info['conservation']['restored']}"
    )
    assert durable_router.kills_count == kills_count
    assert hosts.outcomes[SendOutcome.IN_CUSTODY] > len(hosts.sent) / 2
    assert info["conservation"]["balance"] == 0
    assert info["spool"]["records"] == info["conservation"]["held"] == 0
    assert info["spool"]["damaged"] == 0


SENT = [Sent(number, bytes([number]) * 32, SendOutcome.IN_CUSTODY) for number in range(3)]
RECEIVED = [Receipt(line.number, line.digest, line.digest) for line in SENT]


@pytest.mark.parametrize(
    ("sent", "received", "found"),
    [
        (SENT, RECEIVED[::-1], []),
        (SENT, RECEIVED[:2], ["2: acknowledged, and lost"]),
        (SENT, [*RECEIVED, RECEIVED[1]], ["1: arrived 2 times"]),
        (SENT, [*RECEIVED[:2], replace(RECEIVED[2], digest=bytes(32))], ["2: altered"]),
        (SENT[:2], RECEIVED, ["2: nobody sent it"]),
        ([*SENT[:2], replace(SENT[2], outcome=None)], RECEIVED, ["2: never settled"]),
        (
            [*SENT[:2], replace(SENT[2], outcome=SendOutcome.EXPIRED, words="expired")],
            RECEIVED,
            ["2: expired"],
        ),
    ],
)
def test_the_judge_of_router_kills_finds_what_a_doctored_journal_hides(
    sent: list[Sent], received: list[Receipt], found: list[str]
) -> None:
    """Lost, doubled, altered, made up, never settled, failed; and nothing where all is well."""
    assert broken_promises(sent, received) == found


def test_a_durable_router_takes_up_what_waits_for_a_host_that_is_away(
    durable_router: DurableRouter,
) -> None:
    """Killed while its chunks wait on disk, before the destination ever came: all are delivered."""
    later = Identity.generate()

    async def course(reactor: Any) -> list[int]:
        here = await Endpoint.open(reactor, durable_router.address, later)
        await here.close()  # known to the router, and away
        sender = await Endpoint.open(reactor, durable_router.address, Identity.generate())
        try:
            for number in range(40):
                payload = number.to_bytes(4, "big") + os.urandom(50_000)
                result = await sender.send(later.guid, payload, lifetime_s=LIFETIME_S, report=False)
                assert result.outcome is SendOutcome.IN_CUSTODY, result.explain()
        finally:
            await sender.close()
        await asyncio.to_thread(durable_router.kill)
        await asyncio.to_thread(durable_router.start)
        arrived: list[int] = []
        receiver = await Endpoint.open(reactor, durable_router.address, later)

        def take(chunks: list[ReceivedChunk]) -> None:
            for chunk in chunks:
                arrived.append(int.from_bytes(bytes(chunk.payload[:4]), "big"))
                chunk.release()

        receiver.on_chunks(take)
        end = time.monotonic() + LIMIT_S
        while len(arrived) < 40 and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await receiver.close()
        return arrived

    arrived = run_in_loop(course, 2 * LIMIT_S)
    assert sorted(arrived) == list(range(40))
