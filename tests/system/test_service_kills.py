"""100 SIGKILLs in the middle of chunks: none lost, none doubled, each processed once in effect.

The router and the service are the real commands, the two hosts are endpoints in this process, all
on loopback. The service marks in a file when `process` begins and ends with which chunk, so what a
kill hit is known from evidence, not from timing. Afterwards `broken_promises`, which sees nothing
but the two hosts' journals, judges.

The supervisor runs with its default policy: a SIGKILL from outside of a VI that had worked is no
crash, so it neither backs off nor quarantines, which is checked. Two settings of the router differ
from its defaults. `vi_window_count` puts both VIs to work on one flow. `max_attempts` is over the
number of kills: a chunk that was a dead VI's oldest task five times is taken for a poisonous one
and refused (docs/reference/router.md, "When VIs fail"), and with five kills a second that befalls
the largest chunks, whose verdicts take longest to leave a busy VI.

A sender that waits for a report for more than a second or so sends again, as it should: what a
dead VI held waits for the next one. Such copies are the sender's; the router adds none.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from packetcloud.chunk.hop.clock import install_monotonic_clock
from packetcloud.chunk.identity import Identity, create_identity_file
from packetcloud.chunk.names import GUID, SID
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendOutcome
from packetcloud.services.state_dir import running_services
from packetcloud.testbed.daemons import Router, RouterPlan, ServiceEntry, start_router
from packetcloud.testbed.processes import Child, Children, packetcloud_command, wait_until

SEED = 20
LOCALHOST = "127.0.0.1"
KILLS_COUNT = 100
REPLICAS = 2
ALL_AT_ONCE_SHARE = 0.2
MOST_CHUNKS_BETWEEN = 7
"""A VI is killed after 0 to so many whole chunks."""
LONGEST_DELAY_S = 0.012
"""From seeing that a chunk is in hand to the kill; `process` takes 8 to 32 ms."""
OUTSTANDING_COUNT = 12
"""Fewer than two windows: a VI has room for some of what another one held when it died."""
LEAST_CHUNKS = 400
MOST_CHUNKS = 20_000
BODY_SIZES = (0, 1, 900, 1_500, 9_000, 60_000, 250_000, 900_000)
ROUTER_SETTINGS = {"vi_window_count": 8}
SERVICE_SETTINGS = {"max_attempts": KILLS_COUNT + 1}
LIFETIME_S = 30.0
START_LIMIT_S = 30.0
RUN_LIMIT_S = 90.0
POLL_S = 0.002

MANIFEST = """\
manifest = 1
[service]
name = "complement"
version = "0.0.1"
entry_point = "complement_service:Complement"
[parameters.marks]
type = "path"
[behaviour]
fail_policy = "closed"
idempotent = true
"""
MODULE = '''\
import os
import time

from packetcloud.services.sdk import NetworkService, Verdict

COMPLEMENT = bytes(255 - value for value in range(256))


class Complement(NetworkService):
    """Counts its passes over a chunk in the fifth byte and turns round every bit of the body."""

    def start(self, context):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.marks = os.open(context.parameters.text("marks"), flags, 0o600)
        self.mark("up", 0)

    def process(self, chunk, context):
        payload = bytes(chunk.payload)
        number = int.from_bytes(payload[:4], "big")
        self.mark("begin", number)
        half_s = 0.004 * (1 + number % 4)
        time.sleep(half_s)
        done = payload[:4] + bytes([payload[4] + 1]) + payload[5:37]
        done += payload[37:].translate(COMPLEMENT)
        time.sleep(half_s)
        self.mark("end", number)
        return Verdict.update(done)

    def mark(self, what, number):
        os.write(self.marks, f"{what} {os.getpid()} {number} {time.monotonic()}\\n".encode())
'''
_COMPLEMENT = bytes(255 - value for value in range(256))
_HEAD_BYTES = 4 + 1 + 32


@dataclass(frozen=True, slots=True)
class Sent:
    """A line of the sender's journal; `outcome` is None until the chunk is settled."""

    number: int
    digest: bytes
    outcome: SendOutcome | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A line of the receiver's journal: what the chunk says of itself, and what it carries."""

    number: int
    passes: int
    told_digest: bytes
    digest: bytes

    @classmethod
    def of(cls, payload: bytes) -> Receipt:
        body = payload[_HEAD_BYTES:].translate(_COMPLEMENT)
        return cls(
            int.from_bytes(payload[:4], "big"),
            payload[4],
            payload[5:_HEAD_BYTES],
            hashlib.sha256(body).digest(),
        )


def broken_promises(sent: Iterable[Sent], received: Sequence[Receipt]) -> list[str]:
    """Return in words what was promised and not kept; it knows the two journals and no more."""
    found: list[str] = []
    arrived: defaultdict[int, list[Receipt]] = defaultdict(list)
    for receipt in received:
        arrived[receipt.number].append(receipt)
    for line in sent:
        receipts = arrived.pop(line.number, [])
        if line.outcome is None:
            found.append(f"{line.number}: never settled")
        elif line.outcome is not SendOutcome.DELIVERED:
            found.append(f"{line.number}: {line.words}")
        elif not receipts:
            found.append(f"{line.number}: said to be delivered, but lost")
        if len(receipts) > 1:
            found.append(f"{line.number}: arrived {len(receipts)} times")
        for receipt in receipts:
            if not receipt.digest == receipt.told_digest == line.digest:
                found.append(f"{line.number}: altered")
            if receipt.passes != 1:
                found.append(f"{line.number}: processed {receipt.passes} times")
    return found + [f"{number}: nobody sent it" for number in arrived]


class Marks:
    """What the service wrote down, VI by VI."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.up_at: dict[int, float] = {}
        """By pid, in the order of their starts; CLOCK_MONOTONIC."""
        self.in_hand: dict[int, int] = {}
        """By pid: the chunk that `process` is at work on, or was when the VI died."""
        self.done: Counter[int] = Counter()
        """By pid."""
        self.begun: defaultdict[int, list[int]] = defaultdict(list)
        """By chunk: the pids that began to process it, in order."""

    def read(self) -> None:
        """Take note of what was written since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            whole, newline, _ = stream.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.decode().splitlines():
            what, pid, number, at = line.split()
            self._take(what, int(pid), int(number), float(at))

    def successor(self, pid: int, number: int) -> int:
        """Return the VI that began with a chunk next after the VI `pid` had died over it."""
        begun = self.begun[number]
        # The last time: it may have worked on another copy of the chunk before.
        return begun[-begun[::-1].index(pid)]

    def _take(self, what: str, pid: int, number: int, at: float) -> None:
        if what == "up":
            self.up_at[pid] = at
        elif what == "begin":
            self.in_hand[pid] = number
            self.begun[number].append(pid)
        else:
            assert self.in_hand.pop(pid) == number, "one chunk after the other"
            self.done[pid] += 1


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL."""

    pid: int
    at: float
    """CLOCK_MONOTONIC, as in the marks."""


class Killer:
    """Sends SIGKILL to VIs that have a chunk in hand.

    For the first half of the kills it waits until all VIs are at work, then takes one, or sometimes
    all at once. For the second half it takes whichever is at work first, so that often none is.
    """

    def __init__(self, marks: Marks, supervisor: Child, seed: int) -> None:
        self.kills: list[Kill] = []
        self._marks = marks
        self._supervisor = supervisor
        self._rng = random.Random(seed)

    async def run(self) -> None:
        rng = self._rng
        while len(self.kills) < KILLS_COUNT:
            least_done = rng.randint(0, MOST_CHUNKS_BETWEEN)
            is_patient = len(self.kills) < KILLS_COUNT // 2
            at_once = REPLICAS if is_patient and rng.random() < ALL_AT_ONCE_SHARE else 1
            while len(victims := self._victims(least_done)) < (REPLICAS if is_patient else 1):
                await asyncio.sleep(POLL_S)
            if at_once == 1:
                await asyncio.sleep(rng.uniform(0, LONGEST_DELAY_S))
            for pid in rng.sample(victims, at_once)[: KILLS_COUNT - len(self.kills)]:
                self._kill(pid)

    def hits(self) -> dict[Kill, int]:
        """Return the kills in the middle of `process`, each with the chunk that it hit."""
        self._marks.read()
        in_hand = self._marks.in_hand
        return {kill: in_hand[kill.pid] for kill in self.kills if kill.pid in in_hand}

    def _victims(self, least_done: int) -> list[int]:
        self._marks.read()
        done, dead = self._marks.done, {kill.pid for kill in self.kills}
        return [pid for pid in self._marks.in_hand if pid not in dead and done[pid] >= least_done]

    def _kill(self, pid: int) -> None:
        handle = os.pidfd_open(pid)
        try:
            # Looked at after the handle was opened, so the number cannot mean anybody else.
            assert parent_of(pid) == self._supervisor.pid, "only a VI that we started"
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
        self.kills.append(Kill(pid, time.monotonic()))


class Hosts:
    """A sender that always has chunks on their way, a receiver, and their journals."""

    def __init__(self, router: Router, sid: SID, seed: int) -> None:
        self.sent: dict[int, Sent] = {}
        self.received: list[Receipt] = []
        self.resent_count = 0
        self.duplicates_count = 0
        """Copies that the receiver got of chunks that it had."""
        self._router = router
        self._sid = sid
        self._rng = random.Random(seed)

    async def run(self, reactor: Any, killing: Coroutine[Any, Any, None]) -> None:
        """Send while the killing goes on, and return when every chunk is settled."""
        sender = await Endpoint.open(reactor, self._router.address, Identity.generate())
        receiver = await Endpoint.open(reactor, self._router.address, Identity.generate())
        receiver.on_chunks(self._take)
        killer = asyncio.create_task(killing)
        try:
            lanes = [self._lane(sender, receiver.guid, killer) for _ in range(OUTSTANDING_COUNT)]
            await asyncio.gather(killer, *lanes)
            await self._router_is_empty()
            self.duplicates_count = int(receiver.stats().get("receive_duplicates_taken_total", 0))
        finally:
            killer.cancel()
            await sender.close()
            await receiver.close()

    async def _lane(self, sender: Endpoint, to: GUID, killer: asyncio.Task[None]) -> None:
        while len(self.sent) < (LEAST_CHUNKS if killer.done() else MOST_CHUNKS):
            body = self._rng.randbytes(self._rng.choice(BODY_SIZES))
            line = Sent(len(self.sent), hashlib.sha256(body).digest())
            self.sent[line.number] = line
            payload = line.number.to_bytes(4, "big") + b"\0" + line.digest + body
            result = await sender.send(to, payload, sid=self._sid, lifetime_s=LIFETIME_S)
            self.sent[line.number] = replace(line, outcome=result.outcome, words=result.explain())
            self.resent_count += result.attempts_count - 1

    def _take(self, chunks: list[ReceivedChunk]) -> None:
        for chunk in chunks:
            self.received.append(Receipt.of(bytes(chunk.payload)))
            chunk.release()

    async def _router_is_empty(self) -> None:
        """Wait until the last copies have arrived too; the deadline is the whole run's."""
        while (await asyncio.to_thread(self._router.get_json, "/info"))["conservation"]["held"]:
            await asyncio.sleep(0.05)


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    """Processes that end with the test, whatever happens; their logs are shown if it fails."""
    with Children(tmp_path) as started:
        yield started
    for log in sorted(tmp_path.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text()[-4000:]}")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def run_in_loop(test: Callable[[Any], Any]) -> Any:
    """Run a coroutine on a reactor of its own."""
    loop = asyncio.new_event_loop()
    try:
        reactor = AsyncioSelectorReactor(loop)
        install_monotonic_clock(reactor)
        return loop.run_until_complete(asyncio.wait_for(test(reactor), RUN_LIMIT_S))
    finally:
        loop.close()


def start_vis(children: Children, router: Router, key_file: Path, marks: Path) -> Child:
    """Start `packetcloud service run` with the service above; return when all VIs are attached."""
    folder = children.directory / "service"
    folder.mkdir()
    (folder / "manifest.toml").write_text(MANIFEST)
    (folder / "complement_service.py").write_text(MODULE)
    options: list[object] = ["--router", f"{router.address[0]}:{router.address[1]}"]
    options += ["--key", key_file, "--set", f"marks={marks}", "--replicas", REPLICAS]
    options += ["--state-dir", children.directory / "state"]
    service = children.start("service", packetcloud_command("service", "run", folder, *options))
    wait_until(
        lambda: len(router.get_json("/services")[0]["vis"]) == REPLICAS,
        START_LIMIT_S,
        "all VIs attach",
    )
    return service


@pytest.mark.alone
def test_of_100_kills_none_loses_doubles_or_refuses_a_chunk(
    children: Children, tmp_path: Path
) -> None:
    """Two VIs, killed singly and both at once, under steady traffic of chunks up to 900 kB."""
    sid = create_identity_file(tmp_path / "service.key").sid
    entry = ServiceEntry(sid.hex, "complement", settings=SERVICE_SETTINGS)
    plan = RouterPlan((LOCALHOST, 0), (LOCALHOST, 0), [entry], ROUTER_SETTINGS)
    router = start_router(children, plan)
    marks = Marks(tmp_path / "marks")
    supervisor = start_vis(children, router, tmp_path / "service.key", tmp_path / "marks")
    killer, hosts = Killer(marks, supervisor, SEED), Hosts(router, sid, SEED)
    began = time.monotonic()
    run_in_loop(lambda reactor: hosts.run(reactor, killer.run()))
    took_s = time.monotonic() - began
    assert broken_promises(hosts.sent.values(), hosts.received) == []

    hits = killer.hits()
    took_over = [marks.successor(kill.pid, number) for kill, number in hits.items()]
    by_another = sum(marks.up_at[pid] < kill.at for kill, pid in zip(hits, took_over, strict=True))
    figures = router.get_json("/services")[0]
    print(
        f"{took_s:.1f} s: {len(killer.kills)} kills, {len(hits)} in the middle of a chunk "
        f"({by_another} taken over by the other VI, {len(hits) - by_another} by a restarted one); "
        f"{len(hosts.sent)} chunks, {figures['tasks']} tasks, {figures['retried']} of them again; "
        f"{hosts.resent_count} sent again, {hosts.duplicates_count} duplicates"
    )
    assert len(killer.kills) == KILLS_COUNT
    assert len(hosts.sent) >= LEAST_CHUNKS
    assert len(hits) >= KILLS_COUNT / 2
    assert figures["retried"] >= len(hits), "the router had what was hit in its hands, all of it"
    assert by_another and len(hits) > by_another, "both ways to go on were seen"
    assert hosts.duplicates_count <= hosts.resent_count, "the router doubled nothing by itself"

    info = router.get_json("/info")
    conservation = info["conservation"]
    assert conservation["delivered"] == conservation["taken_in"]
    assert conservation["balance"] == conservation["originated"] == 0
    assert info["refused_at_door"] == {}
    [status] = running_services(tmp_path / "state")
    assert sum(replica["restarts"] for replica in status["replicas"]) == KILLS_COUNT
    assert not any(replica["crashes_in_window"] for replica in status["replicas"])

    children.close()
    assert not any(is_alive(pid) for pid in marks.up_at), "no VI is left behind"


SENT = [Sent(number, bytes([number]) * 32, SendOutcome.DELIVERED) for number in range(3)]
RECEIVED = [Receipt(line.number, 1, line.digest, line.digest) for line in SENT]


@pytest.mark.parametrize(
    ("sent", "received", "found"),
    [
        (SENT, RECEIVED, []),
        (SENT, RECEIVED[::-1], []),
        (SENT, RECEIVED[:2], ["2: said to be delivered, but lost"]),
        (SENT, [*RECEIVED, RECEIVED[1]], ["1: arrived 2 times"]),
        (SENT, [*RECEIVED[:2], replace(RECEIVED[2], digest=bytes(32))], ["2: altered"]),
        (SENT, [*RECEIVED[:2], replace(RECEIVED[0], number=2)], ["2: altered"]),
        (SENT, [*RECEIVED[:2], replace(RECEIVED[2], passes=0)], ["2: processed 0 times"]),
        (SENT, [*RECEIVED[:2], replace(RECEIVED[2], passes=2)], ["2: processed 2 times"]),
        (SENT[:2], RECEIVED, ["2: nobody sent it"]),
        ([*SENT[:2], replace(SENT[2], outcome=None)], RECEIVED, ["2: never settled"]),
        (
            [*SENT[:2], replace(SENT[2], outcome=SendOutcome.REFUSED, words="refused: why")],
            RECEIVED[:2],
            ["2: refused: why"],
        ),
        (
            [*SENT[:2], replace(SENT[2], outcome=SendOutcome.EXPIRED, words="expired")],
            RECEIVED,
            ["2: expired"],
        ),
    ],
)
def test_the_judge_finds_what_a_doctored_journal_hides(
    sent: list[Sent], received: list[Receipt], found: list[str]
) -> None:
    """Lost, doubled, altered, refused, never settled, made up; and nothing where all is well."""
    assert broken_promises(sent, received) == found
