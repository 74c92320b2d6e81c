"""What a controller's own parts cost without HTTP and signatures, for `bench domain`.

`measure_reservations` decides and writes as the API does behind its gate: the database and the
deciding. `measure_reports` reads reports and keeps them, as whoever takes them from a channel does.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from functools import partial

from packetcloud.domain_controller.core.cloudlets import CloudletReport
from packetcloud.domain_controller.core.reservations import State
from packetcloud.domain_controller.core.slots import DAY_MS, HOUR_MS, Slot
from packetcloud.domain_controller.core.wishes import Constraints, Wish
from packetcloud.domain_controller.state import booking, reports
from packetcloud.domain_controller.state.answers import Answer, Asked, once
from packetcloud.domain_controller.state.booking import World
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.documents import dump, load
from packetcloud.domain_controller.state.reports import Reports
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.writer import Writer
from packetcloud.testbed.bench.domain_place import (
    CLOUDLETS_COUNT,
    SMALL,
    TENANTS_COUNT,
    bench_world,
    fill,
    now_ms,
    tenant_name,
)

CLIENTS_COUNT = 64
REPORTING_COUNT = 1000
REPORT_EVERY_S = 5.0
ROUNDS_COUNT = 6
SEED = 6
MADE = 202


@dataclass(frozen=True, slots=True)
class WriterRate:
    """How fast reservations were made durable."""

    count: int
    per_s: float
    p50_ms: float
    p99_ms: float
    batches_count: int
    cores: float
    """Processors that deciding and writing used."""
    ms: float
    """Processor time for each."""


@dataclass(frozen=True, slots=True)
class ReportCost:
    """What reports cost that are kept in memory and written now and then."""

    reports_count: int
    report_bytes: int
    core_share: float
    """Of one core, at the rate at which cloudlets report."""


def measure_reservations(
    url: str, seconds: float, clients: int = CLIENTS_COUNT, warmup_s: float = 1.0
) -> WriterRate:
    """Reserve at an empty database for so long, and return what was answered in that time."""
    world = bench_world(CLOUDLETS_COUNT)
    fill(url, world)
    database = Database(url)
    writer = Writer(database, now_ms)
    try:
        asyncio.run(_load(writer, world, clients, warmup_s, "warm"))
        batches = writer.figures.batches
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        took_s = asyncio.run(_load(writer, world, clients, seconds, "run"))
        length_s = time.monotonic() - began_s
        cpu_s = time.process_time() - began_cpu_s
    finally:
        writer.close()
        database.close()
    took_s.sort()
    return WriterRate(
        len(took_s),
        len(took_s) / length_s,
        1000 * took_s[len(took_s) // 2],
        1000 * took_s[len(took_s) * 99 // 100],
        writer.figures.batches - batches,
        cpu_s / length_s,
        1000 * cpu_s / len(took_s),
    )


def measure_reports(
    url: str, cloudlets_count: int = REPORTING_COUNT, rounds: int = ROUNDS_COUNT
) -> ReportCost:
    """Take reports of many cloudlets, each once a round, and write as a controller does."""
    world = bench_world(cloudlets_count)
    fill(url, world)
    texts = [dump(report) for report in world.reports.values()]
    database = Database(url)
    writer = Writer(database, now_ms)
    try:
        with database.reading() as connection:
            known = Reports(connection)
        began_s = time.process_time()
        for number in range(rounds):
            for text in texts:
                one = load(CloudletReport, text)
                come_ms = one.received_at_ms + number + 1
                known.put(CloudletReport(one.cloudlet, number + 2, come_ms, one.nodes))
            if (number + 1) * REPORT_EVERY_S % reports.WRITE_EVERY_S == 0:
                while some := known.some_unwritten():
                    writer.do_blocking(partial(_write_reports, some))
                    known.written(some)
        cpu_s = time.process_time() - began_s
    finally:
        writer.close()
        database.close()
    share = cpu_s / (rounds * REPORT_EVERY_S)
    return ReportCost(rounds * cloudlets_count, max(map(len, texts)), share)


async def _load(
    writer: Writer, world: World, clients: int, seconds: float, phase: str
) -> list[float]:
    """Return how long each reservation took that was made."""
    end_s = time.monotonic() + seconds
    took_s: list[float] = []

    async def client(number: int) -> None:
        chance = random.Random(f"{SEED}/{phase}/{number}")
        count = 0
        while time.monotonic() < end_s:
            count += 1
            name = f"{phase}-{number}-{count}"
            begin_ms = now_ms() + chance.randrange(HOUR_MS, DAY_MS)
            cloudlet = f"c{chance.randrange(CLOUDLETS_COUNT)}"
            wish = Wish(SMALL.name, 1, Slot(begin_ms, begin_ms + HOUR_MS), Constraints(cloudlet))
            tenant = tenant_name(number % TENANTS_COUNT)
            began_s = time.monotonic()
            work = partial(_reserve, world, name, tenant, wish)
            answer = await writer.do(work, [cloudlet])
            took_s.append(time.monotonic() - began_s)
            assert answer.status == MADE, answer.body

    await asyncio.gather(*(client(number) for number in range(clients)))
    return took_s


def _reserve(world: World, name: str, tenant: str, wish: Wish, transaction: Transaction) -> Answer:
    """Make one reservation, under its name as idempotency key."""

    def act() -> Answer:
        made = booking.request(transaction, world, name, tenant, True, wish)
        return Answer(MADE if made.state is State.OFFERED else 409, made.text)

    return once(transaction, Asked(tenant, name, name.encode()), act)


def _write_reports(some: list[CloudletReport], transaction: Transaction) -> None:
    reports.write(transaction, some)
