"""SIGKILLs of a controller's writer at each step, at any moment, and of one that was stopped.

What was answered is there, what is there was asked for, and asking again with the same key does
nothing twice. The number of kills at random moments is an option: `pytest --domain-kills 100`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.domain_controller.state import ownership
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import StaleOwnerError
from packetcloud.domain_controller.state.writer import Writer
from packetcloud.testbed.private_postgresql import PrivatePostgresql
from tests.system import domain_places as places
from tests.system.domain_databases import url
from tests.system.killed_domain import STEPS
from tests.system.test_domain_writer import until

__all__ = ["url"]
NOW_MS = 1_800_000_000_000
SEED = 6
LIMIT_S = 60.0


def start(url: str, journal: Path, life: str, step: str = "", count: int = 0) -> subprocess.Popen:
    program = "tests.system.killed_domain"
    return subprocess.Popen(
        [sys.executable, "-m", program, url, str(journal), life, step, str(count)],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
    )


def lines(journal: Path) -> list[list[str]]:
    return [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []


def check(url: str, journal: Path) -> None:
    """Judge what is stored, and compare it with what the killed ones were told."""
    database = Database(url)
    places.judge(database)
    writer = Writer(database, lambda: NOW_MS)
    said = lines(journal)
    answered = {words[1]: int(words[2]) for words in said if words[0] == "answered"}
    cancelled = {words[1] for words in said if words[0] == "cancelled"}
    try:
        for _, name, lane in (words for words in said if words[0] == "asked"):
            place = places.Place(name, int(lane))
            again = writer.do_blocking(places.reserve(place, name))
            if name in answered:
                assert again.is_repeated and again.status == answered[name], name
        for name in cancelled:
            place = places.Place(name, int(name.split("-")[-2]))
            again = writer.do_blocking(places.cancel(place, f"{name}-cancel"))
            assert again.is_repeated and again.status == 200, name
        places.judge(database)
    finally:
        writer.close()
        database.close()


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_each_step_loses_and_doubles_nothing(
    url: str, tmp_path: Path, step: str, pytestconfig: pytest.Config
) -> None:
    """Several lives on one database, each ended at this step, early or late."""
    chance = random.Random(f"{SEED} {step}")
    journal = tmp_path / "journal"
    for life in range(pytestconfig.getoption("--domain-kills")):
        process = start(url, journal, str(life), step, chance.randint(1, 40))
        assert process.wait(LIMIT_S) == -signal.SIGKILL, process.stderr.read().decode()
        check(url, journal)


def test_kills_at_any_moment_lose_and_double_nothing(
    url: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Killed after some answers, wherever it is then."""
    chance = random.Random(SEED)
    journal = tmp_path / "journal"
    for life in range(pytestconfig.getoption("--domain-kills")):
        before = len(lines(journal))
        process = start(url, journal, str(life))
        goal = before + chance.randint(1, 300)
        until(lambda goal=goal: len(lines(journal)) >= goal)  # type: ignore[misc]
        process.kill()
        process.wait(LIMIT_S)
        check(url, journal)


OWNER_PROGRAM = """
import sys
from packetcloud.domain_controller.state import ownership
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import NotDoneError, OutcomeUnknownError
from packetcloud.domain_controller.state.writer import Writer

writer = Writer(Database(sys.argv[1]), lambda: 1_800_000_000_000)
mine = writer.do_blocking(lambda transaction: ownership.take(transaction, "cloudlet/c1", "old"))
number = 0

def work(transaction):
    ownership.require(transaction, mine)
    transaction.note("command", f"{mine.epoch}", None, f"{number}")

while True:
    number += 1
    try:
        writer.do_blocking(work)
    except (NotDoneError, OutcomeUnknownError):
        continue  # PostgreSQL ended what was open while this was stopped
    print(number, flush=True)
"""


def test_an_owner_that_was_stopped_writes_nothing_afterwards(
    postgresql: PrivatePostgresql,
) -> None:
    """SIGSTOP, another controller takes the cloudlet, SIGCONT: every write of the old one is
    refused, and none came in between."""
    url = postgresql.make_database()
    database = Database(url)
    writer = Writer(database, lambda: NOW_MS)
    try:
        for stops in range(3):
            old = subprocess.Popen(
                [sys.executable, "-c", OWNER_PROGRAM, url],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert old.stdout is not None and old.stderr is not None
            while int(old.stdout.readline()) < 20 * (stops + 1):
                pass
            os.kill(old.pid, signal.SIGSTOP)
            new = _patiently(writer, lambda work: ownership.take(work, "cloudlet/c1", "new"))
            assert new.epoch == 2 * (stops + 1)

            def work(transaction: places.Transaction, new: ownership.Ownership = new) -> None:
                ownership.require(transaction, new)
                transaction.note("command", f"{new.epoch}", None, "new")

            _patiently(writer, work)
            os.kill(old.pid, signal.SIGCONT)
            assert old.wait(LIMIT_S) != 0
            assert StaleOwnerError.__name__ in old.stderr.read()
        with database.reading() as connection:
            epochs = [int(event.note.subject) for event in places.journal.read(connection)]
        assert epochs == sorted(epochs) and set(epochs) == set(range(1, 7))
    finally:
        writer.close()
        database.close()


def _patiently(writer: Writer, work: places.Work) -> ownership.Ownership:
    """Do a work, again while what was stopped keeps its locks."""
    results = []

    def is_done() -> bool:
        try:
            results.append(writer.do_blocking(work))
        except PacketCloudError as error:
            assert "ask again" in str(error)
            return False
        return True

    until(is_done)
    return results[0]


def test_one_of_two_controllers_is_killed(url: str, tmp_path: Path) -> None:
    """On one PostgreSQL another goes on at once; a file of SQLite is free for the next one."""
    journal = tmp_path / "journal"
    killed = start(url, journal, "killed")
    until(lambda: len(lines(journal)) > 50)
    if url.startswith("postgresql"):
        other = start(url, tmp_path / "other", "other")
        until(lambda: len(lines(tmp_path / "other")) > 50)
    killed.kill()
    killed.wait(LIMIT_S)
    if url.startswith("postgresql"):
        before = len(lines(tmp_path / "other"))
        until(lambda: len(lines(tmp_path / "other")) > before + 50)
        other.kill()
        other.wait(LIMIT_S)
        check(url, tmp_path / "other")
    check(url, journal)
