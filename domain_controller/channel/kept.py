"""The channel's side of the database: each promise one transaction, fenced by the owner's epoch."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol, TypeVar

from sqlalchemy import Connection, select

from packetcloud.domain_controller.api.gate import Signer
from packetcloud.domain_controller.api.kept import KeptDomain, nonce_of
from packetcloud.domain_controller.api.signatures import Proof
from packetcloud.domain_controller.channel.frames import (
    Amount,
    AnswerFrame,
    DirectiveFrame,
    RulesFrame,
)
from packetcloud.domain_controller.core.calendar import Calendar, Conflict
from packetcloud.domain_controller.core.cloudlets import CloudletReport
from packetcloud.domain_controller.core.events import Answered, Forgotten, UsageComplete
from packetcloud.domain_controller.core.installations import RulesState, SetState
from packetcloud.domain_controller.core.packing import NodeRoom, rooms_of
from packetcloud.domain_controller.core.reconciliation import Finding, compare
from packetcloud.domain_controller.core.reservations import Directive, Reservation
from packetcloud.domain_controller.core.resources import ViType
from packetcloud.domain_controller.core.usage import Taken, UsageRecord
from packetcloud.domain_controller.state import (
    booking,
    holds,
    intake,
    outbox,
    ownership,
    registry,
    reservations,
    rule_outbox,
    usage,
)
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.documents import load
from packetcloud.domain_controller.state.ownership import Ownership
from packetcloud.domain_controller.state.reports import Reports
from packetcloud.domain_controller.state.tables import DIRECTIVES, RESERVATIONS
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.usage import Signatures
from packetcloud.domain_controller.state.writer import Writer

T = TypeVar("T")


class InThread(Protocol):
    """What `asyncio.to_thread` does."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


class KeptChannel:
    """The state of a domain, as the channel asks it.

    Args:
        controller: the name of this controller: another one for each process.
        in_thread: reads beside the loop.
    """

    def __init__(
        self,
        controller: str,
        database: Database,
        writer: Writer,
        domain: KeptDomain,
        reports: Reports,
        in_thread: InThread = asyncio.to_thread,
    ) -> None:
        self._controller = controller
        self._database = database
        self._writer = writer
        self._domain = domain
        self._reports = reports
        self._in_thread = in_thread
        self._roomy: dict[str, tuple[NodeRoom, ...]] = {}
        """The nodes of cloudlets on which all that is held has room."""

    def signer(self, key_id: str, now_ms: int) -> Signer | None:
        return self._domain.signer(key_id, now_ms)

    async def open_channel(self, cloudlet: str, proof: Proof, seen_epoch: int) -> Ownership:
        def work(transaction: Transaction) -> Ownership:
            name = ownership.cloudlet_channel(cloudlet)
            return ownership.take(transaction, name, self._controller, seen_epoch)

        return await self._writer.do(work, nonce=nonce_of(proof))

    async def waiting(self, cloudlets: Sequence[str], sent_before_ms: int) -> frozenset[str]:
        def read() -> frozenset[str]:
            with self._database.reading() as connection:
                of_rules = rule_outbox.waiting(connection, sent_before_ms)
                return outbox.waiting(connection, cloudlets, sent_before_ms) | of_rules

        return await self._in_thread(read)

    async def directives(
        self, owner: Ownership, cloudlet: str, sent_before_ms: int
    ) -> list[DirectiveFrame | RulesFrame]:
        return await self._writer.do(
            lambda transaction: send_work(transaction, owner, cloudlet, sent_before_ms)
        )

    async def answered(self, owner: Ownership, cloudlet: str, answer: AnswerFrame) -> None:
        def work(transaction: Transaction) -> None:
            ownership.require(transaction, owner)
            kept = reservations.lock(transaction, answer.reservation)
            directive = kept.reservation.directive(cloudlet) if kept is not None else None
            if kept is None or directive is None or directive.number != answer.number:
                return  # late
            event = Answered(cloudlet, answer.number, answer.is_accepted, answer.text, answer.seen)
            booking.handle(transaction, self._domain.world(transaction), kept, event)

        await self._writer.do(work, await self._cloudlets_of(answer.reservation))

    async def rules_said(
        self, owner: Ownership, cloudlet: str, said: Sequence[SetState], *, is_whole: bool
    ) -> Counter[RulesState]:
        return await self._writer.do(
            lambda transaction: rule_outbox.hear(
                transaction, owner, cloudlet, said, is_whole=is_whole
            )
        )

    async def take(
        self,
        owner: Ownership,
        cloudlet: str,
        records: Sequence[UsageRecord],
        signatures: Signatures,
    ) -> list[Taken | None]:
        return await self._writer.do(
            lambda transaction: intake.take_from(transaction, owner, cloudlet, records, signatures)
        )

    async def usage_complete(
        self, owner: Ownership, cloudlet: str, reservation: str, number: int
    ) -> None:
        def work(transaction: Transaction) -> None:
            ownership.require(transaction, owner)
            kept = reservations.lock(transaction, reservation)
            if kept is None or usage.has_gaps(transaction.connection, reservation, cloudlet):
                return
            event = UsageComplete(cloudlet, number)
            booking.handle(transaction, self._domain.world(transaction), kept, event)

        await self._writer.do(work, await self._cloudlets_of(reservation))

    def put_report(self, report: CloudletReport) -> None:
        self._reports.put(report)

    async def compare(self, report: CloudletReport) -> list[Finding]:
        def read() -> list[Finding]:
            query = select(RESERVATIONS.c.document).join(DIRECTIVES)
            with self._database.reading() as connection:
                texts = connection.execute(query.where(DIRECTIVES.c.cloudlet == report.cloudlet))
                told = [load(Reservation, text) for text in texts.scalars()]
                overbooked = self._overbooked(connection, report)
            # Of one without a service nothing runs, and nothing is missing.
            served = [one for one in told if one.wish.service is not None]
            return compare(served, report, overbooked)

        return await self._in_thread(read)

    def _overbooked(self, connection: Connection, report: CloudletReport) -> Conflict | None:
        """Return the first time at which a cloudlet has less than is held.

        What is held had room when it was held, so it is looked at again when the nodes changed.
        """
        cloudlet = registry.find_cloudlet(connection, report.cloudlet)
        if cloudlet is None:
            return None
        rooms = rooms_of(report, cloudlet.isp_share_permille)
        if self._roomy.get(cloudlet.name) == rooms:
            return None
        now_ms = self._domain.clock_ms()
        held = holds.of_cloudlet(connection, cloudlet.name, now_ms)
        calendar = Calendar(rooms, registry.vi_types(connection), held)
        last_ms = max((hold.end_ms for hold in held), default=now_ms)
        conflict = calendar.overbooked(now_ms, last_ms)
        if conflict is None:
            self._roomy[cloudlet.name] = rooms
        else:
            self._roomy.pop(cloudlet.name, None)
        return conflict

    async def remind(self, owner: Ownership, cloudlet: str, reservation: str) -> None:
        def work(transaction: Transaction) -> None:
            ownership.require(transaction, owner)
            kept = reservations.lock(transaction, reservation)
            if kept is not None:
                world = self._domain.world(transaction)
                booking.handle(transaction, world, kept, Forgotten(cloudlet))

        await self._writer.do(work, await self._cloudlets_of(reservation))

    async def _cloudlets_of(self, reservation: str) -> Collection[str]:
        """Return what a work on a reservation is to lock before anything else."""
        return await self._in_thread(lambda: self._domain.cloudlets_of_kept(reservation))


def send_work(
    transaction: Transaction, owner: Ownership, cloudlet: str, sent_before_ms: int
) -> list[DirectiveFrame | RulesFrame]:
    """Return the directives and rules that a cloudlet is to be sent now, noted as sent.

    Raises:
        StaleOwnerError: another controller has the cloudlet.
    """
    connection = transaction.connection
    waiting = outbox.unanswered(connection, cloudlet, sent_before_ms)
    outbox.note_sent(transaction, owner, cloudlet, [name for name, _ in waiting])
    types = registry.vi_types(connection)
    frames: list[DirectiveFrame | RulesFrame] = []
    for name, directive in waiting:
        kept = reservations.find(connection, name)
        assert kept is not None, "a directive belongs to a reservation"
        frames.append(_frame(transaction, owner, kept.reservation, directive, types))
    sets = rule_outbox.send(transaction, owner, cloudlet, sent_before_ms)
    return frames + [_rules_frame(owner, one) for one in sets]


def _frame(
    transaction: Transaction,
    owner: Ownership,
    reservation: Reservation,
    directive: Directive,
    types: dict[str, ViType],
) -> DirectiveFrame:
    wish = directive.wish
    service = (
        registry.service_named(transaction.connection, reservation.tenant, wish.service)
        if wish.service is not None
        else None
    )
    amount = types[wish.vi_type].resources
    return DirectiveFrame(
        epoch=owner.epoch,
        reservation=reservation.name,
        number=directive.number,
        wanted=directive.wanted,
        tenant=reservation.tenant if reservation.is_third_party else None,
        vi_type=wish.vi_type,
        resources=Amount(
            milli_cpus=amount.milli_cpus,
            memory_bytes=amount.memory_bytes,
            disk_bytes=amount.disk_bytes,
            io_per_s=amount.io_per_s,
        ),
        count=directive.count,
        service=wish.service,
        sid=service.sid.hex if service is not None else None,
        terms=directive.terms,
        occurrences=wish.slot.occurrences(),
    )


def _rules_frame(owner: Ownership, one: rule_outbox.Document) -> RulesFrame:
    return RulesFrame(
        epoch=owner.epoch,
        rule_set=one.rule_set,
        signer=one.signer,
        set_name=one.name,
        serial=one.serial,
        until_ms=one.until_ms,
        document=one.text,
    )
