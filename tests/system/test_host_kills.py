"""SIGKILLs of the host that sends and of the host that receives, judged from their journals.

Promised: what the sender was told is delivered was taken; what it was told failed for certain was
not; nothing had an effect twice; nothing is altered. A receiver that is killed between the
application's taking a chunk and the note of it sees that chunk once more (docs/protocol/hop.md):
its program knows it from its own journal, and there are never more than chunks in hand at a kill.

The number of kills of each host is an option: `pytest --host-kills 200`.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from packetcloud.chunk.identity import create_identity_file
from tests.system.killed_host import LANES, lines
from tests.system.test_router_kills import DurableRouter

PROGRAM = Path(__file__).with_name("killed_host.py")
SEED = 5
MOST_CHUNKS_BETWEEN = 60
LIMIT_S = 60.0


def broken_promises(sent: list[list[str]], received: list[list[str]]) -> list[str]:
    """Return in words what was promised and not kept."""
    found = [f"{words[1]}: altered" for words in received if words[-1] == "altered"]
    took = Counter(words[1] for words in received if words[0] == "took")
    found += [
        f"{number}: had an effect {times} times" for number, times in took.items() if times > 1
    ]
    known = {words[1] for words in sent if words[0] == "sent"}
    found += [f"{number}: nobody sent it" for number in took if number not in known]
    for words in sent:
        if words[0] != "ended":
            continue
        _, number, outcome, certain = words
        if outcome == "delivered" and number not in took:
            found.append(f"{number}: said to be delivered, but lost")
        if outcome != "delivered" and certain == "certain" and number in took:
            found.append(f"{number}: said to have failed, but taken")
    return found


class Host:
    """One of the two programs, killed and started again."""

    def __init__(self, router: DurableRouter, folder: Path, role: str, *more: str) -> None:
        self.journal = folder / ("received" if role == "receive" else "sent")
        self._command = [
            *(sys.executable, str(PROGRAM), role),
            *(router.address[0], str(router.address[1]), str(folder), *more),
        ]
        self._log = (folder / f"{role}.log").open("a")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stderr=self._log)
        wait_until(lambda: ["up", str(self.process.pid)] in lines(self.journal))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._log.close()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)


@pytest.fixture
def durable_router(tmp_path: Path) -> Iterator[DurableRouter]:
    router = DurableRouter(tmp_path)
    yield router
    router.stop()


def test_kills_of_either_host_lose_double_and_alter_nothing(
    durable_router: DurableRouter, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Both hosts are killed in the middle of their traffic, again and again."""
    kills_count = int(request.config.getoption("--host-kills"))
    create_identity_file(tmp_path / "a.key")
    to = create_identity_file(tmp_path / "b.key").guid
    rng = random.Random(SEED)
    b = Host(durable_router, tmp_path, "receive")
    a = Host(durable_router, tmp_path, "send", to.hex)
    try:
        victims = [a, b] * kills_count
        rng.shuffle(victims)
        for victim in victims:
            enough = len(lines(b.journal)) + rng.randint(1, MOST_CHUNKS_BETWEEN)
            wait_until(lambda: len(lines(b.journal)) >= enough)  # noqa: B023  # waited for here
            time.sleep(rng.uniform(0, 0.02))
            victim.kill()
            victim.start()
        (tmp_path / "enough").touch()
        wait_until(lambda: ["done", str(a.process.pid)] in lines(a.journal))
        wait_until(lambda: durable_router.get("/info")["conservation"]["held"] == 0)
    finally:
        a.stop()
        b.stop()
    sent, received = lines(a.journal), lines(b.journal)
    assert broken_promises(sent, received) == []
    counts = Counter(words[0] for words in (*sent, *received))
    ends = Counter(words[2] for words in sent if words[0] == "ended")
    print(f"{2 * kills_count} kills, {dict(counts)}, ends {dict(ends)}")
    assert counts["up"] == 2 * kills_count + 2
    assert ends["delivered"] > kills_count
    assert counts["again"] <= kills_count * LANES, "what was noted in time comes no more"


GOOD_SENT = [["sent", "1"], ["ended", "1", "delivered", "certain"], ["sent", "2"]]
GOOD_RECEIVED = [["took", "1", "right"], ["again", "1"]]


@pytest.mark.parametrize(
    ("sent", "received", "found"),
    [
        (GOOD_SENT, GOOD_RECEIVED, []),
        (GOOD_SENT, [], ["1: said to be delivered, but lost"]),
        (GOOD_SENT, [*GOOD_RECEIVED, ["took", "1", "right"]], ["1: had an effect 2 times"]),
        (GOOD_SENT, [["took", "1", "altered"]], ["1: altered"]),
        (GOOD_SENT, [*GOOD_RECEIVED, ["took", "7", "right"]], ["7: nobody sent it"]),
        (
            [["sent", "1"], ["ended", "1", "expired", "certain"]],
            GOOD_RECEIVED,
            ["1: said to have failed, but taken"],
        ),
        ([["sent", "1"], ["ended", "1", "expired", "indeterminate"]], GOOD_RECEIVED, []),
    ],
)
def test_the_judge_of_host_kills_finds_what_a_doctored_journal_hides(
    sent: list[list[str]], received: list[list[str]], found: list[str]
) -> None:
    """Lost, doubled, altered, made up, a failure that was none; and nothing where all is well."""
    assert broken_promises(sent, received) == found
