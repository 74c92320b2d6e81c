"""What requests change, each in one transaction: nonce, idempotency key, the change, its event.

Source: docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.domain_controller.api import changes as to
from packetcloud.domain_controller.api import kept_entries as entries
from packetcloud.domain_controller.api.changes import Asking, Change
from packetcloud.domain_controller.api.kept_places import (
    KeptPlaces,
    asker_of,
    read_world,
)
from packetcloud.domain_controller.api.kept_registry import (
    cloudlet_info,
    find_cloudlet,
    find_operation,
    find_tenant,
    operation_info,
)
from packetcloud.domain_controller.api.port import AbsentError, Given
from packetcloud.domain_controller.api.signatures import CLOCK_SKEW_S, Proof
from packetcloud.domain_controller.core import choice, life
from packetcloud.domain_controller.core.checks import shown
from packetcloud.domain_controller.core.choice import NoPlace
from packetcloud.domain_controller.core.reservations import FINAL, State
from packetcloud.domain_controller.core.slots import DAY_MS, Slot, check_ahead
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.errors import InvalidValueError
from packetcloud.domain_controller.state import (
    answers,
    bills,
    booking,
    catalogue,
    operations,
    registry,
    reservations,
    usage,
)
from packetcloud.domain_controller.state.answers import Answer, Asked
from packetcloud.domain_controller.state.bills import Draft
from packetcloud.domain_controller.state.booking import World
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import ConflictError
from packetcloud.domain_controller.state.nonces import Nonce
from packetcloud.domain_controller.state.operations import Operation, OperationState
from packetcloud.domain_controller.state.reports import Reports
from packetcloud.domain_controller.state.reservations import Kept
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.writer import Writer

WORLD_MS = 1000
"""What another controller changed in the registry is seen after so long at most."""
GAPS_WITHIN_MS = DAY_MS
"""So long after its end a bill waits for records that are missing."""
_CHANGES_SIGNERS = (to.SetTenantOpen, to.AddKey, to.RevokeKey)
_LOOKS_FOR_A_PLACE = (State.REQUESTED, State.OFFERED)


class KeptDomain(KeptPlaces):
    """The state of a domain, as the API asks it.

    Args:
        new_id: returns a name that nothing has: lower-case letters and digits.
    """

    def __init__(
        self,
        database: Database,
        writer: Writer,
        reports: Reports,
        new_id: Callable[[], str],
        clock_ms: Callable[[], int],
    ) -> None:
        super().__init__(database, reports, clock_ms)
        self._writer = writer
        self._new_id = new_id
        self._world: World | None = None
        self._world_ms = 0
        self._shown: tuple[Transaction, World] | None = None

    def world(self, transaction: Transaction) -> World:
        """Return what offers are made of; the registry as it was a second ago at most.

        Called in the writer's thread alone.
        """
        if self._world is not None and self._shown is not None and self._shown[0] is transaction:
            return self._shown[1]
        age_ms = transaction.now_ms - self._world_ms
        if self._world is None or not 0 <= age_ms < WORLD_MS:
            self._world_ms = transaction.now_ms
            self._world = read_world(transaction.connection, self._reports, transaction.now_ms)
        self._shown = (transaction, replace(self._world, reports=self._reports.all()))
        return self._shown[1]

    async def tick(self, name: str) -> None:
        """Do what is due of a reservation."""

        def work(transaction: Transaction) -> None:
            kept = reservations.lock(transaction, name)
            if kept is not None:
                booking.handle(transaction, self.world(transaction), kept, life.Tick())

        await self._writer.do(work, await asyncio.to_thread(self.cloudlets_of_kept, name))

    async def change(self, change: Change, asking: Asking) -> Given:
        """Do a change once. Raises: StateError, AbsentError and what the core refuses with."""
        draft: Draft | PacketCloudError | None = None
        if isinstance(change, to.CloseBill):
            # Adding up a million records takes its time, so it is done beside the writer. What is
            # wrong with it is no answer to a request that was answered already.
            draft = await asyncio.to_thread(self._draft_or_error, change)
        new_id = self._new_id()  # a work may run more than once, and does the same then

        asked: Asked | None = None
        if asking.idempotency_key is not None:
            asked = Asked(asking.principal, asking.idempotency_key, asking.digest)

        def work(transaction: Transaction) -> Answer:
            if asked is None:
                return act(transaction)
            return answers.once(transaction, asked, lambda: act(transaction))

        def act(transaction: Transaction) -> Answer:
            if isinstance(draft, PacketCloudError):
                raise draft
            if draft is not None:
                return entries.close_bill(transaction, draft, asking)
            return self._do(transaction, change, asking, new_id)

        locks = await self._cloudlets_of(change)
        try:
            answer = await self._writer.do(work, locks, nonce_of(asking.proof), asked)
        finally:
            if isinstance(change, _CHANGES_SIGNERS):
                self.known_keys.forget()
        return Given(answer.status, answer.body, answer.is_repeated)

    def cloudlets_of_kept(self, name: str) -> Collection[str]:
        """Return where a reservation holds places, and where it could when it is passed on."""
        with self._database.reading() as connection:
            kept = reservations.find(connection, name)
        if kept is None:
            return ()
        found = {hold.cloudlet for hold in kept.reservation.holds}
        if kept.reservation.state in _LOOKS_FOR_A_PLACE and self._world is not None:
            found.update(self._world.could_take(kept.reservation.wish))
        return found

    async def _cloudlets_of(self, change: Change) -> Collection[str]:
        """Return the cloudlets that a change may look at; one that is forgotten is locked late.

        Who locks them all before anything else waits for no other controller in a circle.
        """
        match change:
            case to.Reserve(wish=wish):
                world = self._world or await asyncio.to_thread(self._read_world)
                return () if world is None else world.could_take(wish)
            case to.Extend() | to.Resize() | to.CancelReservation():
                return await asyncio.to_thread(self.cloudlets_of_kept, change.reservation)
            case to.CancelOperation():
                return await asyncio.to_thread(self._cloudlets_of_operation, change.operation)
        return ()

    def _read_world(self) -> World | None:
        """Return what offers are made of; None: there is nothing to offer, and the work says so."""
        with self._database.reading() as connection, suppress(ConflictError):
            return read_world(connection, self._reports, self.clock_ms())
        return None

    def _cloudlets_of_operation(self, operation_id: str) -> Collection[str]:
        with self._database.reading() as connection:
            operation = operations.find(connection, operation_id)
        return () if operation is None else self.cloudlets_of_kept(operation.subject)

    def _do(self, transaction: Transaction, change: Change, asking: Asking, new_id: str) -> Answer:
        match change:
            case to.AddTenant():
                return entries.add_tenant(transaction, change, asking)
            case to.SetTenantOpen():
                return entries.set_tenant_open(transaction, change, asking)
            case to.AddKey():
                return entries.add_key(transaction, change, asking)
            case to.RevokeKey():
                return entries.revoke_key(transaction, change, asking)
            case to.AddCloudlet():
                self._world = None
                report = self._reports.get(change.name)
                return entries.add_cloudlet(transaction, change, asking, report)
            case to.SetCloudletOpen():
                return self._set_cloudlet_open(transaction, change, asking)
            case to.SetViType():
                self._world = None
                return entries.set_vi_type(transaction, change, asking)
            case to.AddService():
                return entries.add_service(transaction, change, asking)
            case to.RemoveService():
                return entries.remove_service(transaction, change, asking)
            case to.AddRules():
                return entries.add_rules(transaction, change, asking, new_id)
            case to.Reserve():
                return self._reserve(transaction, change, asking, new_id)
            case to.Extend():
                return self._extend(transaction, change, asking, new_id)
            case to.Resize():
                return self._resize(transaction, change, asking, new_id)
            case to.CancelReservation():
                return self._cancel(transaction, change, asking, new_id)
            case to.CancelOperation():
                return self._cancel_operation(transaction, change, asking)
        raise AssertionError(f"a change that nobody knows: {change}")

    def _draft_or_error(self, change: to.CloseBill) -> Draft | PacketCloudError:
        try:
            return self._draft(change)
        except PacketCloudError as error:
            return error

    def _draft(self, change: to.CloseBill) -> Draft:
        """Make the bill of all that was used until a time and is on no bill."""
        latest_ms = self.clock_ms() + CLOCK_SKEW_S * 1000
        if change.end_ms > latest_ms:  # no bill could follow until then
            raise InvalidValueError("end_ms", str(change.end_ms), f"at most {latest_ms}: now")
        with self._database.reading() as connection:
            find_tenant(connection, None, change.tenant)
            prices = catalogue.price_list_at(connection, change.end_ms)
            if prices is None:
                raise ConflictError("the domain has no price list, so there is nothing to bill")
            last = bills.last_bill(connection, change.tenant)
            begin_ms = 0 if last is None else last.end_ms
            if change.end_ms <= begin_ms:
                raise InvalidValueError("end_ms", str(change.end_ms), f"later than {begin_ms}")
            gaps = usage.meters_with_gaps(connection, change.tenant)
            if gaps and change.end_ms > self.clock_ms() - GAPS_WITHIN_MS:
                cloudlet, meter = gaps[0]
                raise ConflictError(
                    f"records of meter {meter} of cloudlet {cloudlet} are missing, which may still "
                    "come; close it later, or over what was used until a day ago"
                )
            period = (begin_ms, change.end_ms)
            return bills.draft(connection, change.tenant, period, prices.currency)

    def _set_cloudlet_open(
        self, transaction: Transaction, change: to.SetCloudletOpen, asking: Asking
    ) -> Answer:
        cloudlet = find_cloudlet(transaction.connection, change.name)
        cloudlet = replace(cloudlet, is_open=change.is_open)
        self._world = None
        registry.change_cloudlet(transaction, cloudlet)
        entries.note(transaction, "cloudlet-changed", change.name, None, asking)
        report = self._reports.get(change.name)
        return entries.answer(200, cloudlet_info(cloudlet, report, transaction.now_ms))

    def _reserve(
        self, transaction: Transaction, change: to.Reserve, asking: Asking, new_id: str
    ) -> Answer:
        check_ahead(change.wish.slot, transaction.now_ms)
        if change.wish.service is not None:
            _check_service(transaction, change.owner, change.wish.service)
        owner, name, world = change.owner, f"r-{new_id}", self.world(transaction)
        made = booking.request(transaction, world, name, owner, change.is_third_party, change.wish)
        has_failed = made.state in FINAL
        operation = operations.begin(
            transaction,
            f"op-{new_id}",
            owner,
            "reserve",
            name,
            OperationState.FAILED if has_failed else OperationState.RUNNING,
            made.text if has_failed else "",
        )
        entries.note(transaction, "asked", name, owner, asking)
        return _answer_with(operation)

    def _extend(
        self, transaction: Transaction, change: to.Extend, asking: Asking, new_id: str
    ) -> Answer:
        kept = _locked(transaction, asking, change.reservation)
        slot = kept.reservation.wish.slot
        wish = replace(kept.reservation.wish, slot=Slot(slot.begin_ms, change.end_ms, slot.repeat))
        return self._change(transaction, kept, wish, asking, ("extend", new_id))

    def _resize(
        self, transaction: Transaction, change: to.Resize, asking: Asking, new_id: str
    ) -> Answer:
        kept = _locked(transaction, asking, change.reservation)
        wish = replace(kept.reservation.wish, count=change.count)
        return self._change(transaction, kept, wish, asking, ("resize", new_id))

    def _change(
        self,
        transaction: Transaction,
        kept: Kept,
        wish: Wish,
        asking: Asking,
        named: tuple[str, str],
    ) -> Answer:
        """Ask for another end or number of VIs; that there is no room is an answer too."""
        kind, new_id = named
        one, now_ms = kept.reservation, transaction.now_ms
        check_ahead(wish.slot, now_ms)
        life.check_change(one, wish)
        world = self.world(transaction)
        asker = asker_of(world, one.tenant, one.is_third_party, wish)
        names = sorted(part.cloudlet for part in one.terms[-1].parts)
        transaction.lock(names)
        calendars = {name: booking.calendar_of(transaction, world, name).calendar for name in names}
        found = choice.change(one, wish, asker, calendars, now_ms)
        operation = operations.begin(transaction, f"op-{new_id}", one.tenant, kind, one.name)
        if isinstance(found, NoPlace):
            operations.end(transaction, operation.id, OperationState.FAILED, found.text)
        else:
            event = life.ChangeWished(operation.id, wish, found.terms)
            booking.handle(transaction, world, kept, event)
        entries.note(transaction, "asked", one.name, one.tenant, asking)
        return _operation_answer(transaction, operation.id)

    def _cancel(
        self, transaction: Transaction, change: to.CancelReservation, asking: Asking, new_id: str
    ) -> Answer:
        kept = _locked(transaction, asking, change.reservation)
        one = kept.reservation
        event = life.Cancelled(f"cancelled by {asking.principal}")
        booking.handle(transaction, self.world(transaction), kept, event)
        operations.end_of_subject(transaction, one.name, OperationState.CANCELLED, event.text)
        operation = operations.begin(transaction, f"op-{new_id}", one.tenant, "cancel", one.name)
        operations.end(transaction, operation.id, OperationState.DONE)
        entries.note(transaction, "asked", one.name, one.tenant, asking)
        return _operation_answer(transaction, operation.id)

    def _cancel_operation(
        self, transaction: Transaction, change: to.CancelOperation, asking: Asking
    ) -> Answer:
        operation = find_operation(transaction.connection, asking.owner, change.operation)
        if operation.state is not OperationState.RUNNING:
            return _operation_answer(transaction, operation.id, 200)
        kept = _locked(transaction, asking, operation.subject)
        text = f"cancelled by {asking.principal}"
        event = (
            life.Cancelled(text)
            if operation.kind == "reserve"
            else life.ChangeCancelled(operation.id, text)
        )
        operations.end(transaction, operation.id, OperationState.CANCELLED, text)
        booking.handle(transaction, self.world(transaction), kept, event)
        entries.note(transaction, "asked", operation.subject, operation.owner, asking)
        return _operation_answer(transaction, operation.id, 200)


def nonce_of(proof: Proof) -> Nonce:
    """Return what a signed request uses up."""
    return Nonce(proof.key_id, proof.nonce, proof.expires_ms)


def _locked(transaction: Transaction, asking: Asking, name: str) -> Kept:
    """Raises: AbsentError."""
    kept = reservations.lock(transaction, name, asking.owner)
    if kept is None:
        raise AbsentError(f"there is no reservation {name!r}; see: packetcloud reservation list")
    return kept


def _check_service(transaction: Transaction, owner: str, name: str) -> None:
    """Raises: InvalidValueError: it is none of the owner's services."""
    names: list[str] = []
    after = ""
    while some := registry.services(transaction.connection, owner, after):
        names += [one.name for one in some]
        after = some[-1].sid.hex
    if name not in names:
        allowed = ", ".join(sorted(names)[:16]) or "none yet; see: packetcloud service register"
        raise InvalidValueError("service", shown(name), allowed)


def _operation_answer(transaction: Transaction, operation_id: str, status: int = 202) -> Answer:
    operation = operations.find(transaction.connection, operation_id)
    assert operation is not None, "it was begun in this transaction"
    return _answer_with(operation, status)


def _answer_with(operation: Operation, status: int = 202) -> Answer:
    return entries.answer(status, operation_info(operation))
