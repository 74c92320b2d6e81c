"""Chunks to VIs where the cloudlet controller's table lists them: held slots, accounts, checks.

A router whose config takes no such table has the plain `ServiceDispatch`, and none of this is in
the way of its chunks. Source: docs/decisions/0013.
"""

from __future__ import annotations

from collections.abc import Callable

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop.api import Body, Refusal, Settlement
from packetcloud.chunk.messages import (
    MAX_DETAIL_BYTES,
    VERDICT_BYTES,
    VerdictCode,
    VerdictHeader,
)
from packetcloud.chunk.names import GUID, NA, SID
from packetcloud.router.attachment import Attachment
from packetcloud.router.cloudlet_pool import CloudletService, CloudletVI
from packetcloud.router.cloudlet_table import CloudletTable
from packetcloud.router.conduct_account import Evidence, Violation
from packetcloud.router.custody import Custody, Phase
from packetcloud.router.custody_book import CustodyBook
from packetcloud.router.dispatch import Emit, Leave, Redirected, ServiceDispatch
from packetcloud.router.inspection import Inspection
from packetcloud.router.routes import Routes
from packetcloud.router.service_pool import VI, Service, Visit
from packetcloud.router.service_table import ServiceTable
from packetcloud.router.verdict_checks import VerdictChecks, WrittenVerdict

_SOURCE = slice(20, 40)
_VERDICT_HEAD_BYTES = VERDICT_BYTES + MAX_DETAIL_BYTES


class CloudletDispatch(ServiceDispatch):
    """Runs the steps of a visit with the services of config and table.

    Args:
        routes: know where a destination is.
    """

    def __init__(
        self,
        book: CustodyBook,
        services: ServiceTable,
        leave: Leave,
        emit: Emit,
        redirected: Redirected,
        services_changed: Callable[[], None],
        routes: Routes,
    ) -> None:
        super().__init__(book, services, leave, emit, redirected, services_changed)
        self.table = CloudletTable()
        """In force."""
        self.changed: Callable[[], None] = _nobody_listens
        """Called when the table is another one, or a VI that is held has no task left."""
        self._left: list[VI] = []
        """Whose tasks ended for another reason than theirs."""
        self.inspection = Inspection(book.tap.wall_ns)
        self._routes = routes
        self._checks = VerdictChecks(self._where_is, self._where_runs)

    def install(self, table: CloudletTable, now: float) -> bool:
        """Go by this table from here on, in one step; tell whether flows are decided otherwise."""
        before, self.table = self.table, table
        for service in self._table.install(table.services, now):
            self.inspection.watch(service)
            self._pump(service, now)
        self.changed()
        return _plan_of(before) != _plan_of(table)

    def find(self, sid: SID, instance: int) -> CloudletVI | None:
        """Return an attached VI of the table."""
        service = self.services.get(sid.value)
        if not isinstance(service, CloudletService):
            return None
        listed = (vi for vi in service.cloudlet_vis if vi.entry is not None)
        return next((vi for vi in listed if vi.instance == instance), None)

    def vi_up(self, attachment: Attachment, now: float) -> bool:
        is_up = super().vi_up(attachment, now)
        if isinstance(attachment.vi, CloudletVI):
            self.changed()
        return is_up

    def vi_down(self, attachment: Attachment, now: float) -> None:
        super().vi_down(attachment, now)
        if isinstance(attachment.vi, CloudletVI):
            self.changed()

    def verdict_received(self, vi: VI, body: Body, now: float) -> Refusal | None:
        if not isinstance(vi, CloudletVI):
            return super().verdict_received(vi, body, now)
        answer = super().verdict_received(vi, self._checked(vi, body, now), now)
        self._vacate(vi, now)
        return answer

    def task_settled(self, entry: Custody, settlement: Settlement, reason: int, now: float) -> None:
        vi = _vi_of(entry)
        super().task_settled(entry, settlement, reason, now)
        self._vacate(vi, now)

    def task_due(self, entry: Custody, now: float) -> None:
        vi = _vi_of(entry)
        super().task_due(entry, now)
        self._vacate(vi, now)

    def forget(self, entry: Custody) -> None:
        if entry.phase is not Phase.QUEUED and (vi := _vi_of(entry)) is not None:
            self._left.append(vi)
        super().forget(entry)

    def handle_timeout(self, now: float) -> None:
        # Whoever gives up a chunk whose time is over calls this when he is through with all.
        left, self._left = self._left, []
        for vi in left:
            self._vacate(vi, now)
        super().handle_timeout(now)

    def _give(self, service: Service, vi: VI, visit: Visit, entry: Custody, now: float) -> None:
        if isinstance(vi, CloudletVI):
            vi.given_count += 1
            vi.traffic.to_chunks += 1
            vi.traffic.to_bytes += entry.size_bytes
            if vi.service.tap is not None:
                # The id that the task is about to get: it may be settled before this returns.
                prefix = (self._last_task_id + 1).to_bytes(8, "big") + service.task_tail
                vi.service.tap.saw_task(entry, vi.attachment, prefix)
        super()._give(service, vi, visit, entry, now)

    def _measure(self, service: Service, visit: Visit, verdict: VerdictHeader, now: float) -> None:
        super()._measure(service, visit, verdict, now)
        vi = visit.vi
        if (
            isinstance(vi, CloudletVI)
            and verdict.code is not VerdictCode.FAILED
            and visit.first_sent_at is not None
        ):
            penalty_ns = int((now - visit.first_sent_at) * 1e9)
            vi.recent.add(penalty_ns, now)
            vi.service.recent.add(penalty_ns, now)

    def _enqueue(self, service: Service, entry: Custody, first: bool = False) -> None:
        super()._enqueue(service, entry, first)
        if isinstance(service, CloudletService):
            service.stand_aside(entry, first)

    def _pump(self, service: Service, now: float) -> None:
        super()._pump(service, now)
        if isinstance(service, CloudletService) and service.held and not service.may_serve(now):
            while (entry := service.next_in_line()) is not None:
                self._follow_policy(service, entry, "no VI is attached", now)

    def _fail_if_exhausted(self, service: Service, entry: Custody, now: float) -> bool:
        visit = entry.visit
        assert visit is not None, "an entry that waits for a VI has a visit"
        if (
            isinstance(service, CloudletService)
            and service.is_held(entry.flow.hash)
            and visit.attempts < service.settings.max_attempts
        ):
            return False  # whoever serves in its slot next has not tried it yet
        return super()._fail_if_exhausted(service, entry, now)

    def _vacate(self, vi: VI | None, now: float) -> None:
        """Let others serve in the slot of a VI that does not any more, and has no task left."""
        if isinstance(vi, CloudletVI) and not vi.tasks and not vi.serves:
            vi.service.settle()
            self._pump(vi.service, now)
            self.changed()

    def _checked(self, vi: CloudletVI, body: Body, now: float) -> Body:
        """Note what a VI sent, and return what it counts for."""
        vi.answered_count += 1
        vi.traffic.from_chunks += 1
        vi.traffic.from_bytes += len(body)
        if vi.answered_count > vi.given_count:  # a late one is not: it was given that task
            vi.account.violations[Violation.SURPLUS] += 1
            vi.service.violations[Violation.SURPLUS] += 1
        try:
            verdict = VerdictHeader.from_bytes(body.head(_VERDICT_HEAD_BYTES))
        except ProtocolError:
            return body
        vi.verdicts[verdict.code] += 1
        entry = vi.tasks.get(verdict.task_id)
        if entry is None or entry.visit is None or entry.visit.verdict is not None:
            return body  # late, or a second one: without effect in any case
        if vi.service.tap is not None:
            vi.service.tap.saw_verdict(entry, vi.attachment, body, verdict)
        found = self._checks.undeclared(vi, verdict)
        if found is None and vi.entry is not None and vi.entry.is_bound:
            own = WrittenVerdict.without_emission(verdict, body)
            if own is not None:
                found = self._checks.sent_astray(vi, verdict, body, now)
            if own is not None and found is None:
                vi.service.left_out_count += verdict.emit_count
                body.release()
                verdict, body = own.header, own
        if found is None:
            found = self._checks.finding(vi, entry, verdict, body, now)
        if found is None:
            return body
        kind, why = found
        source = GUID(entry.head[_SOURCE])
        vi.account.note(Evidence(now, kind, source, entry.chunk_id, why))
        vi.service.violations[kind] += 1
        body.release()
        return WrittenVerdict.refused(verdict, why)

    def _where_is(self, guid: GUID, na: NA, now: float) -> int | None:
        found = self._routes.resolve(guid.value, na.value, now)
        return found[1] if found is not None else None

    def _where_runs(self, sid: SID) -> int | None:
        if self._table.hosted(sid) is not None:
            return self._table.settings.na.value
        return self._routes.na_of_service(sid.value)


def make_dispatch(
    book: CustodyBook,
    services: ServiceTable,
    leave: Leave,
    emit: Emit,
    redirected: Redirected,
    services_changed: Callable[[], None],
    routes: Routes | None,
) -> tuple[ServiceDispatch, CloudletDispatch | None]:
    """Return what gives chunks to VIs, and once more what knows the cloudlet's table.

    Args:
        routes: None: this router takes no table.
    """
    if routes is None:
        plain = ServiceDispatch(book, services, leave, emit, redirected, services_changed)
        return plain, None
    own = CloudletDispatch(book, services, leave, emit, redirected, services_changed, routes)
    return own, own


def _vi_of(entry: Custody) -> VI | None:
    return entry.visit.vi if entry.visit is not None else None


def _plan_of(table: CloudletTable) -> dict[bytes, int]:
    """Return what flows are decided by."""
    return {sid: entry.settings.priority for sid, entry in table.services.items()}


def _nobody_listens() -> None:
    pass
