"""64 clients race for 50 places: as many are reserved as there are, whatever happens meanwhile.

The number of rounds is an option: `pytest --domain-rounds 1000`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from packetcloud.domain_controller.state.answers import Answer, find_all
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import KeyReusedError
from packetcloud.domain_controller.state.writer import Writer
from packetcloud.testbed.private_postgresql import PrivatePostgresql
from tests.system.domain_databases import url
from tests.system.domain_places import (
    CAPACITY,
    FULL,
    RESERVED,
    Place,
    asked,
    cancel,
    judge,
    naive,
    reserve,
    set_up,
)

__all__ = ["url"]
NOW_MS = 1_800_000_000_000
CLIENTS_COUNT = 64
SEED = 20


class Race:
    """Clients at one or several writers of one database."""

    def __init__(self, urls: list[str]) -> None:
        self.databases = [Database(url) for url in urls]
        self.writers = [Writer(database, lambda: NOW_MS) for database in self.databases]
        self.writers[0].do_blocking(set_up)
        self._threads = ThreadPoolExecutor(CLIENTS_COUNT)

    def run(self, client: Callable[[int], Answer]) -> list[Answer]:
        """Let all clients begin at once; return their answers."""
        barrier = threading.Barrier(CLIENTS_COUNT)

        def begin(number: int) -> Answer:
            barrier.wait()
            return client(number)

        return list(self._threads.map(begin, range(CLIENTS_COUNT)))

    def writer(self, number: int) -> Writer:
        return self.writers[number % len(self.writers)]

    def close(self) -> None:
        self._threads.shutdown()
        for writer in self.writers:
            writer.close()
        for database in self.databases:
            database.close()


def _race(race: Race, rounds_count: int) -> None:
    chance = random.Random(SEED)
    for round_ in range(rounds_count):
        fickle = set(chance.sample(range(CLIENTS_COUNT), 8))

        def client(number: int, round_: int = round_, fickle: set[int] = fickle) -> Answer:
            name = f"{round_}-{number}"
            place = Place(name, round_)
            first = race.writer(number).do_blocking(reserve(place, name))
            again = race.writer(number + 1).do_blocking(reserve(place, name))
            assert again.is_repeated and (again.status, again.body) == (first.status, first.body)
            if first.status != RESERVED or number not in fickle:
                return first
            gone = race.writer(number + 1).do_blocking(cancel(place, f"{name}-cancel"))
            assert gone.status == 200
            other = Place(f"{name}-again", round_)
            return race.writer(number).do_blocking(reserve(other, other.name))

        statuses = [answer.status for answer in race.run(client)]
        assert set(statuses) <= {RESERVED, FULL}
        assert statuses.count(RESERVED) == CAPACITY, f"seed {SEED}, round {round_}"
    assert judge(race.databases[0]) == dict.fromkeys(range(rounds_count), CAPACITY)


def test_as_many_are_accepted_as_there_are_places(url: str, pytestconfig: pytest.Config) -> None:
    """Every client asks twice with one key, some cancel and ask anew: always exactly 50."""
    race = Race([url])
    try:
        _race(race, pytestconfig.getoption("--domain-rounds"))
    finally:
        race.close()


def test_two_controllers_on_one_postgresql_do_not_oversell(
    postgresql: PrivatePostgresql, pytestconfig: pytest.Config
) -> None:
    """The same with every client's second request at the other controller."""
    url = postgresql.make_database()
    race = Race([url, url])
    try:
        _race(race, pytestconfig.getoption("--domain-rounds"))
    finally:
        race.close()


def test_looking_first_and_inserting_later_fails_the_same_judge(url: str) -> None:
    """The naive way oversells, and the judge says so: else the judge were worth nothing."""
    race = Race([url])
    try:
        race.run(lambda number: naive(race.writer(number), Place(f"n{number}")))
        with pytest.raises(AssertionError, match="oversold"):
            judge(race.databases[0])
    finally:
        race.close()


def test_a_key_stands_for_one_request(url: str) -> None:
    """The same key for something else is refused; a key that nobody used has no answer."""
    race = Race([url])
    try:
        one, other = Place("one"), Place("other")
        writer, database = race.writers[0], race.databases[0]
        assert writer.do_blocking(reserve(one, "key")).status == RESERVED
        with pytest.raises(KeyReusedError, match=r"'key'.*new key"):
            writer.do_blocking(reserve(other, "key"))
        with database.reading() as connection:
            known, never = asked("reserve", one, "key"), asked("reserve", one, "never")
            assert find_all(connection, [known, never]) == {
                (known.principal, known.key): (known.digest, Answer(RESERVED, "one"))
            }
        assert judge(database) == {0: 1}
    finally:
        race.close()
