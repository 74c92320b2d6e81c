"""What a controller does without being asked: deadlines, reports to disk, forgetting what is old.

Several controllers on one database share it by a lease: one of them looks after deadlines. If it is
stopped and goes on, what it does then is done once more by another at most, and changes nothing.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Awaitable, Callable

from packetcloud.domain_controller.api.kept import KeptDomain
from packetcloud.domain_controller.core.cloudlets import CloudletReport
from packetcloud.domain_controller.core.life import LifeLimits
from packetcloud.domain_controller.errors import DomainError
from packetcloud.domain_controller.state import (
    answers,
    nonces,
    operations,
    ownership,
    reports,
    reservations,
    rule_outbox,
)
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import ConflictError, StateError
from packetcloud.domain_controller.state.reports import WRITE_EVERY_S, Reports
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.writer import Writer

LEASE = "deadlines"
LEASE_MS = 3000
"""Another controller takes over so long after this one was lost."""
LOOK_EVERY_S = 0.5
"""How late a deadline may be."""
FORGET_EVERY_S = 60.0
MAX_SET_BACK_COUNT = 10_000
"""Reservations that are looked at when the clock was set back: some ten seconds of writing."""
_log = logging.getLogger("packetcloud.domain")


class Housekeeping:
    """The tasks of one controller."""

    def __init__(
        self,
        database: Database,
        writer: Writer,
        state: KeptDomain,
        known_reports: Reports,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = f"controller-{secrets.token_hex(4)}"
        self._database = database
        self._writer = writer
        self._state = state
        self._reports = known_reports
        self._sleep = sleep
        self._looked_ms = 0
        """When deadlines were looked at last."""

    async def run(self) -> None:
        """Go on until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._again(LOOK_EVERY_S, self.do_due))
            tasks.create_task(self._again(WRITE_EVERY_S, self.write_reports))
            tasks.create_task(self._again(FORGET_EVERY_S, self.forget))

    async def do_due(self) -> int:
        """Do what is due of reservations, if that is this controller's to do; return how many."""
        lease = await self._writer.do(
            lambda transaction: ownership.take_lease(transaction, LEASE, self.name, LEASE_MS)
        )
        if lease is None:
            return 0
        now_ms = self._state.clock_ms()
        looked_ms, self._looked_ms = self._looked_ms, now_ms
        limits = LifeLimits()

        def read() -> list[str]:
            with self._database.reading() as connection:
                if (
                    now_ms < looked_ms
                ):  # the clock was set back: deadlines near then are brought near
                    near_ms = looked_ms + limits.request_ms + limits.answer_ms
                    return reservations.due(connection, near_ms, MAX_SET_BACK_COUNT)
                return reservations.due(connection, now_ms)

        names = await asyncio.to_thread(read)
        for name in names:
            try:
                await self._state.tick(name)
            except (DomainError, ConflictError) as error:
                _log.error("reservation %s: its deadline passed: %s", name, error)
        return len(names)

    async def write_reports(self) -> None:
        """Write what cloudlets reported, and read what they reported to other controllers."""
        while some := self._reports.some_unwritten():
            await self._writer.do(functools.partial(_write, some))
            self._reports.written(some)

        def read() -> None:
            with self._database.reading() as connection:
                self._reports.read_others(connection)

        await asyncio.to_thread(read)

    async def forget(self) -> None:
        """Forget nonces, idempotency keys and operations that are old, and rules that are over."""

        def work(transaction: Transaction) -> None:
            nonces.forget_expired(transaction)
            answers.forget_old(transaction)
            operations.forget_old(transaction)
            rule_outbox.forget_ended(transaction)

        await self._writer.do(work)

    async def _again(self, every_s: float, do: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await do()
            except StateError as error:
                _log.warning("%s: %s", do.__name__, error)
            await self._sleep(every_s)


def _write(some: list[CloudletReport], transaction: Transaction) -> None:
    reports.write(transaction, some)
