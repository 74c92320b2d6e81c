"""Tenants that reserve at a whole controller: how fast, and whether more is sold than there is.

In a race 64 of them want 50 places at the same time, and each asks twice under one idempotency key.
Judged by their journals alone. Control: the same judge over a seller who looks and inserts in two
steps, and does not know what it answered.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from packetcloud.domain_controller.core.slots import DAY_MS, HOUR_MS
from packetcloud.testbed.bench.domain_clients import ACCEPTED_STATUS, Address, Client, Told
from packetcloud.testbed.bench.domain_place import (
    CLOUDLETS_COUNT,
    RACE,
    RACE_PLACES,
    TENANTS_COUNT,
    DomainPlace,
    now_ms,
)
from packetcloud.testbed.bench.rounds import Progress
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.processes import Child

SEED = 6
SHOWN_EVERY_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast reservations were made durable."""

    count: int
    per_s: float
    p50_ms: float
    p99_ms: float
    controller_cores: float
    """Processors that the controller used."""
    controller_ms: float
    """Processor time of the controller for each: what it is on a machine that others use too."""


@dataclass(frozen=True, slots=True)
class Races:
    """What journals say of races."""

    rounds: int
    oversold: int
    """Places given away that were not there, of all rounds."""
    short_rounds: int
    """Rounds in which a place was left that somebody wanted."""
    other_answers: int
    """Keys under which two answers were given."""
    failed: int
    """Requests that were neither accepted nor refused for lack of room."""

    @property
    def is_right(self) -> bool:
        """Tell whether every round gave away exactly what there was, and every answer twice."""
        return not (self.oversold or self.short_rounds or self.other_answers or self.failed)


def measure_rate(place: DomainPlace, child: Child, address: Address, seconds: float) -> Rate:
    """Have all clients reserve as fast as they are answered, and return how fast that was.

    Raises:
        ChildError: a request was refused: there is room for all.
    """
    clients = make_clients(place, [address])
    asyncio.run(_load(clients, 1.0, "warm"))
    for client in clients:
        client.journal.clear()
    began_s, began_cpu_s = time.monotonic(), child.cpu_seconds()
    asyncio.run(_load(clients, seconds, "rate"))
    length_s, cpu_s = time.monotonic() - began_s, child.cpu_seconds() - began_cpu_s
    told = [one for client in clients for one in client.journal]
    for one in told:
        if one.reservation is None:
            raise ChildError(f"a reservation was refused where there is room: {one.body}")
    took_ms = sorted(1000 * one.took_s for one in told)
    return Rate(
        len(told),
        len(told) / length_s,
        took_ms[len(took_ms) // 2],
        took_ms[len(took_ms) * 99 // 100],
        cpu_s / length_s,
        1000 * cpu_s / len(told),
    )


def race(place: DomainPlace, address: Address, rounds: int, progress: Progress) -> list[Told]:
    """Run races; return what the clients wrote down."""
    clients = make_clients(place, [address])
    asyncio.run(_race(clients, rounds, progress))
    return [one for client in clients for one in client.journal]


def judge_races(journal: Iterable[Told], places: int) -> Races:
    """Return what a journal proves: a round is a slot."""
    accepted: dict[int, set[str]] = defaultdict(set)
    wanted: dict[int, set[int]] = defaultdict(set)
    bodies: dict[tuple[int, str], set[tuple[int, str]]] = defaultdict(set)
    failed = 0
    for one in journal:
        wanted[one.begin_ms].add(one.client)
        bodies[one.client, one.key].add((one.status, one.body))
        failed += one.status != ACCEPTED_STATUS
        if one.reservation is not None:
            accepted[one.begin_ms].add(one.reservation)
    counts = {begin_ms: len(accepted[begin_ms]) for begin_ms in wanted}
    return Races(
        len(wanted),
        sum(max(0, count - places) for count in counts.values()),
        sum(count < min(places, len(wanted[begin_ms])) for begin_ms, count in counts.items()),
        sum(len(answers) > 1 for answers in bodies.values()),
        failed,
    )


def make_clients(place: DomainPlace, controllers: Sequence[Address]) -> list[Client]:
    """Return a client for each tenant."""
    return [Client(number, one, controllers) for number, one in enumerate(place.tenants)]


async def _load(clients: Sequence[Client], seconds: float, phase: str) -> None:
    end_s = time.monotonic() + seconds

    async def go(client: Client) -> None:
        chance = random.Random(f"{SEED}/{phase}/{client.number}")
        count = 0
        try:
            while time.monotonic() < end_s:
                count += 1
                begin_ms = now_ms() + chance.randrange(HOUR_MS, DAY_MS)
                cloudlet = f"c{chance.randrange(CLOUDLETS_COUNT)}"
                await client.reserve(f"{phase}-{count:08}", begin_ms, begin_ms + HOUR_MS, cloudlet)
        finally:
            client.hang_up()

    await asyncio.gather(*map(go, clients))


async def _race(clients: Sequence[Client], rounds: int, progress: Progress) -> None:
    begin_ms = now_ms() + HOUR_MS

    async def go(client: Client, number: int) -> None:
        start_ms = begin_ms + number * HOUR_MS
        for _ in range(2):
            await client.reserve(f"race-{number:08}", start_ms, start_ms + HOUR_MS, RACE)

    try:
        for number in range(rounds):
            if number % SHOWN_EVERY_ROUNDS == 0:
                progress(f"races: {number} of {rounds}, {len(clients)} for {RACE_PLACES} places")
            await asyncio.gather(*(go(client, number) for client in clients))
    finally:
        for client in clients:
            client.hang_up()


async def naive_races(rounds: int) -> list[Told]:
    """Return the journal of clients of a seller who looks first, inserts later and knows no keys.

    The control of the judge: it has to find both.
    """
    sold: dict[int, int] = defaultdict(int)
    journal: list[Told] = []

    async def ask(client: int, number: int) -> None:
        has_room = sold[number] < RACE_PLACES
        await asyncio.sleep(0)  # between the two, others look
        sold[number] += has_room
        answer = {"subject": f"r-{sold[number]}", "state": "running" if has_room else "failed"}
        at_s = time.monotonic()
        key, body = f"race-{number:08}", json.dumps(answer)
        journal.append(Told(client, key, number, ACCEPTED_STATUS, body, at_s, at_s, 1))

    for number in range(rounds):
        for _ in range(2):
            await asyncio.gather(*(ask(client, number) for client in range(TENANTS_COUNT)))
    return journal
