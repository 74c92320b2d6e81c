"""Two controllers on one PostgreSQL, one of them killed every few seconds, for `bench domain`.

Clients reserve over HTTP all the while; who gets no answer asks the other controller, under the
same idempotency key. What journals say was accepted has to be stored, once. Control: clients that
write an answer down before they have it, and ask again under another key.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import select

from packetcloud.domain_controller.core.reservations import Reservation
from packetcloud.domain_controller.core.slots import HOUR_MS, SECOND_MS
from packetcloud.domain_controller.state import journal
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.documents import load
from packetcloud.domain_controller.state.tables import RESERVATIONS
from packetcloud.testbed.bench.domain_clients import ACCEPTED_STATUS, Address, Client, Told
from packetcloud.testbed.bench.domain_place import (
    CLOUDLETS_COUNT,
    DomainPlace,
    now_ms,
    tenant_name,
)
from packetcloud.testbed.bench.domain_races import make_clients
from packetcloud.testbed.bench.rounds import Progress
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.processes import Children, wait_until

CLIENTS_COUNT = 16
"""A moderate load: a controller that starts needs processors too."""
PROMISE_WITHIN_S = 30.0
_PROMISED = '{"subject": "?", "state": "running"}'

Wished = tuple[str, int]
"""Tenant and begin of the slot: each wish has its own."""


@dataclass(frozen=True, slots=True)
class Failover:
    """What came of the kills."""

    kills_count: int
    answered_count: int
    pause_s: float
    """The longest that a client waited for an answer, asking again and again."""
    silence_s: float
    """The longest time in which nobody got an answer."""
    lost: int
    """Accepted, and not stored."""
    doubled: int
    """Wishes that are stored more than once."""


class Load(threading.Thread):
    """Clients on a loop of their own, while the main thread kills and starts controllers."""

    def __init__(self, clients: Sequence[Client], is_careless: bool = False) -> None:
        super().__init__(name="clients", daemon=True)
        self.error: BaseException | None = None
        self._clients = clients
        self._is_careless = is_careless
        self._is_over = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            asyncio.run(self._ask())
        except BaseException as error:  # raised again by who waits for the end
            self.error = error

    def end(self) -> None:
        """Let requests that are under way come to their answers.

        Raises:
            ChildError: a client got no answer for a long time.
        """
        self._is_over.set()
        self.join()
        if self.error is not None:
            raise self.error

    async def _ask(self) -> None:
        begin_ms = now_ms() + HOUR_MS
        ask = _ask_carelessly if self._is_careless else _ask

        async def go(client: Client) -> None:
            try:
                for count in itertools.count():
                    if self._is_over.is_set():
                        return
                    await ask(client, count, begin_ms + count * SECOND_MS)
            finally:
                client.hang_up()

        await asyncio.gather(*map(go, self._clients))


def measure_failover(
    place: DomainPlace,
    children: Children,
    seconds: float,
    kill_every_s: float,
    progress: Progress,
    *,
    is_careless: bool = False,
) -> Failover:
    """Kill one of two controllers every so often; each is started again at once.

    Raises:
        ChildError: a controller does not start, or clients get no answers any more.
    """
    running = [place.start(children, f"{name}0") for name in "ab"]
    controllers: list[Address] = [one.address for one in running]
    clients = make_clients(place, controllers)[:CLIENTS_COUNT]
    load = Load(clients, is_careless)
    kills_count, began_s = 0, time.monotonic()
    while time.monotonic() < began_s + seconds and load.is_alive():
        time.sleep(kill_every_s)
        victim = kills_count % 2
        running[victim].child.signal(signal.SIGKILL)
        running[victim].child.stop()
        kills_count += 1
        progress(f"failover: {kills_count} killed")
        running[victim] = place.start(children, f"{'ab'[victim]}{kills_count}")
        controllers[victim] = running[victim].address
    if is_careless:
        for one in running:
            one.child.signal(signal.SIGKILL)
            one.child.stop()
        # Each of them promises something once more, which nobody can store.
        promised = sum(len(client.journal) for client in clients) + 2 * len(clients)
        wait_until(
            lambda: sum(len(client.journal) for client in clients) >= promised,
            PROMISE_WITHIN_S,
            "careless clients go on",
        )
    load.end()
    for one in running:
        one.child.stop()
    told = [one for client in clients for one in client.journal]
    if not told:
        raise ChildError("no client was answered at all")
    times = sorted(one.ended_s for one in told)
    lost, doubled = judge_failover(told, stored_wishes(place.url))
    return Failover(
        kills_count,
        len(told),
        max(one.took_s for one in told),
        max((later - earlier for earlier, later in pairwise(times)), default=0.0),
        lost,
        doubled,
    )


def judge_failover(told: Iterable[Told], stored: Collection[Wished]) -> tuple[int, int]:
    """Return how many wishes were accepted and are not stored, and how many are stored twice."""
    accepted = {
        (tenant_name(one.client), one.begin_ms) for one in told if one.reservation is not None
    }
    counts = Counter(stored)
    return len(accepted - counts.keys()), sum(count > 1 for count in counts.values())


def stored_wishes(url: str) -> list[Wished]:
    """Return what is stored, whatever became of it since.

    Raises:
        ChildError: the journal of events is not whole.
    """
    database = Database(url, only_reads=True)
    try:
        with database.reading() as connection:
            if (wrong := journal.verify(connection)) is not None:
                raise ChildError(f"the journal of events is broken: {wrong}")
            texts = connection.execute(select(RESERVATIONS.c.document)).scalars()
            kept = [load(Reservation, text) for text in texts]
    finally:
        database.close()
    return [(one.tenant, one.wish.slot.begin_ms) for one in kept]


async def _ask(client: Client, count: int, begin_ms: int) -> None:
    told = await client.reserve(
        f"failover-{count:08}", begin_ms, begin_ms + HOUR_MS, _cloudlet(count)
    )
    if told.reservation is None:
        raise ChildError(f"a reservation was refused where there is room: {told.body}")


async def _ask_carelessly(client: Client, count: int, begin_ms: int) -> None:
    at_s = time.monotonic()
    told = Told(client.number, "?", begin_ms, ACCEPTED_STATUS, _PROMISED, at_s, at_s, 1)
    client.journal.append(told)
    for name in ("once", "twice"):
        key = f"{name}-{count:08}"
        await client.try_once(key, begin_ms, begin_ms + HOUR_MS, _cloudlet(count))


def _cloudlet(count: int) -> str:
    return f"c{count % CLOUDLETS_COUNT}"
