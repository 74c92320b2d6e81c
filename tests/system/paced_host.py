"""A host that sends chunks through a service at a steady pace and takes them itself: a program.

It sends whether or not the last one has arrived, so that nothing slows it down but the machine. Its
journal says what became of each: `Paced` reads it.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from packetcloud.chunk.hop.clock import install_monotonic_clock
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import SID
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.received import ReceivedChunk

LIFETIME_S = 60.0
PADDING = b" " + bytes(1000)
CALM_COUNT = 5
START_LIMIT_S = 30.0
END_LIMIT_S = LIFETIME_S + 10.0
_number = itertools.count(1)


@dataclass(frozen=True)
class Window:
    """What a stretch of time was like, or several of them together."""

    sent_count: int = 0
    took_count: int = 0
    """Chunks that arrived in it, whenever they were sent."""
    delays_s: tuple[float, ...] = ()
    """Of those that were sent in it, from then until the sender knew of the delivery."""

    @property
    def goodput_share(self) -> float:
        """Chunks that arrived in it, for each that was sent in it."""
        return self.took_count / max(1, self.sent_count)

    @property
    def p99_s(self) -> float:
        delays = sorted(self.delays_s)
        return delays[math.ceil(0.99 * len(delays)) - 1] if delays else math.inf

    def __add__(self, other: Window) -> Window:
        return Window(
            self.sent_count + other.sent_count,
            self.took_count + other.took_count,
            self.delays_s + other.delays_s,
        )

    def __str__(self) -> str:
        share, p99_ms = self.goodput_share, self.p99_s * 1e3
        return f"{share:.0%} of {self.sent_count} chunks, p99 {p99_ms:.1f} ms"


class Paced:
    """The program, and its journal.

    Args:
        router: host and port.
        rate: chunks a second.
    """

    def __init__(self, router: tuple[str, int], sid: SID, rate: float, folder: Path) -> None:
        name = f"{sid.hex[:8]}-{next(_number)}"
        self._journal = folder / f"paced-{name}"
        self._enough = folder / f"enough-{name}"
        self._process = subprocess.Popen(
            [
                *(sys.executable, __file__, router[0], str(router[1]), sid.hex, str(rate)),
                *(str(self._journal), str(self._enough)),
            ],
            # The scheduler shares out the machine by sessions: ours is none of the tests' own.
            start_new_session=True,
        )
        self._lines: list[list[str]] = []
        """Of the journal, as far as it was read."""
        self._read_bytes = 0
        end = time.monotonic() + START_LIMIT_S
        while not self.took_count():
            assert self._process.poll() is None and time.monotonic() < end, "no chunk arrives"
            time.sleep(0.05)

    def took_count(self) -> int:
        return sum(words[0] == "took" for words in self._read())

    def window(self, duration_s: float) -> Window:
        """Let time pass and return what it was like; a chunk that is still under way was slow."""
        begin = time.monotonic()
        time.sleep(duration_s)
        end = time.monotonic()
        lines = self._read()
        took = sum(words[0] == "took" and begin <= float(words[2]) < end for words in lines)
        sent = {
            words[1]: float(words[2])
            for words in lines
            if words[0] == "sent" and begin <= float(words[2]) < end
        }
        ended = {words[1]: float(words[2]) for words in lines if words[0] == "ended"}
        delays = tuple(ended.get(number, end) - at for number, at in sent.items())
        return Window(len(sent), took, delays)

    def flowing(self, count: int = 20) -> None:
        """Wait until so many more chunks have arrived."""
        before = self.took_count()
        end = time.monotonic() + LIFETIME_S
        while self.took_count() < before + count:
            assert time.monotonic() < end, f"{self.took_count() - before} chunks in {LIFETIME_S} s"
            time.sleep(0.05)

    def calm(self) -> None:
        """Wait until hardly any chunk is under way."""
        end = time.monotonic() + LIFETIME_S
        while True:
            counts = Counter(words[0] for words in self._read())
            if (under_way := counts["sent"] - counts["ended"]) <= CALM_COUNT:
                return
            assert time.monotonic() < end, f"{under_way} chunks are still under way"
            time.sleep(0.05)

    def stop(self) -> None:
        """Send no more; return when every send has ended."""
        if self._process.poll() is None:
            self._enough.touch()
            try:
                self._process.wait(END_LIMIT_S)
            finally:
                self.kill()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def broken_promises(self) -> list[str]:
        """Return in words what became of chunks that should not; after `stop`."""
        lines = self._read()
        sent = {words[1] for words in lines if words[0] == "sent"}
        took = Counter(words[1] for words in lines if words[0] == "took")
        ended = {words[1]: " ".join(words[4:]) for words in lines if words[0] == "ended"}
        return [
            *([] if lines[-1] == ["done"] else ["it did not come to its end"]),
            *(f"{number}: {how}" for number, how in ended.items() if how != "delivered"),
            *(f"{number}: no end" for number in sent - set(ended)),
            *(f"{number}: lost" for number in sent - set(took)),
            *(f"{number}: arrived {times} times" for number, times in took.items() if times > 1),
        ]

    def counts(self) -> list[int]:
        """Return what the service wrote before each chunk, in the order of their arrival."""
        return [int(words[3]) for words in self._read() if words[0] == "took"]

    def broken_counts(self) -> list[str]:
        """Return in words where its counts show two owners, or a state left behind; after `stop`.

        What the sender sent again, as nobody told it in time how it went, the service may have
        counted twice, and the receiver took once.
        """
        counts = self.counts()
        again = sum(int(words[3]) - 1 for words in self._read() if words[0] == "ended")
        missing = max(counts) - len(set(counts))
        return [
            *(f"{count} was counted {n} times" for count, n in Counter(counts).items() if n > 1),
            *([f"{missing} counts are missing, {again} chunks went again"] * (missing > again)),
        ]

    def _read(self) -> list[list[str]]:
        if self._journal.exists():
            with self._journal.open("rb") as journal:
                journal.seek(self._read_bytes)
                whole, end, _ = journal.read().rpartition(b"\n")
            self._read_bytes += len(whole) + len(end)
            self._lines += [line.split() for line in whole.decode().splitlines()]
        return self._lines


async def pace(
    reactor: object, router: tuple[str, int], sid: SID, rate: float, files: list[Path]
) -> None:
    """Send until a file says that it is enough."""
    journal = os.open(files[0], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(*words: object) -> None:
        os.write(journal, (" ".join(map(str, words)) + "\n").encode())

    def take(chunks: list[ReceivedChunk]) -> None:
        now = time.monotonic()
        for chunk in chunks:
            count, number, _ = bytes(chunk.payload).split(b" ", 2)
            write("took", int(number), now, int(count))
            chunk.release()

    source = await Endpoint.open(reactor, router, Identity.generate())  # type: ignore[arg-type]
    sink = await Endpoint.open(reactor, router, Identity.generate())  # type: ignore[arg-type]
    sink.on_chunks(take)

    async def send(number: int) -> None:
        write("sent", number, time.monotonic())
        payload = b"%d" % number + PADDING
        result = await source.send(sink.guid, payload, sid=sid, lifetime_s=LIFETIME_S)
        how = "delivered" if result.ok else result.explain()
        write("ended", number, time.monotonic(), result.attempts_count, how)

    number, begin = 0, time.monotonic()
    under_way: set[asyncio.Task[None]] = set()
    while number % 10 or not files[1].exists():
        number += 1
        due = begin + number / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.ensure_future(send(number))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    write("done")


def main(host: str, port: str, sid: str, rate: str, *files: str) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    reactor = AsyncioSelectorReactor(loop)
    install_monotonic_clock(reactor)
    work = pace(
        reactor, (host, int(port)), SID.from_hex(sid), float(rate), [Path(one) for one in files]
    )
    loop.run_until_complete(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
