"""The router without its sockets: events in, calls on the neighbours out, time passed in.

    neighbour_up / neighbour_down / body_received / body_settled / handle_timeout / flush_reports

What is refused at the door is no custody. Nothing here or below knows a socket, a clock or a loop.
Source: design, section 6.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.flow_labels import KEY_BYTES, FlowLabels
from packetcloud.chunk.header import decode_header
from packetcloud.chunk.hop.api import Body, Deferral, Neighbour, Refusal, Role, Settlement
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID, SID
from packetcloud.chunk.reasons import Reason
from packetcloud.router.attachment import Attachment
from packetcloud.router.chunk_record import Found
from packetcloud.router.cloudlet_dispatch import make_dispatch
from packetcloud.router.cloudlet_table import CloudletTable
from packetcloud.router.custody import Custody, Leaving, Phase
from packetcloud.router.custody_book import CustodyBook
from packetcloud.router.disk_jobs import PutDone, ReadDone, RemoveDone, Result
from packetcloud.router.door import Door
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.flow import Flow
from packetcloud.router.forward import Forwarder
from packetcloud.router.origination import Origination
from packetcloud.router.planner import FlowPlanner
from packetcloud.router.reports import ReportBatch
from packetcloud.router.restore import Restorer
from packetcloud.router.routes import Routes
from packetcloud.router.rule_counts import RuleCounts
from packetcloud.router.rules.answer import RuleTable
from packetcloud.router.service_table import ServiceTable
from packetcloud.router.settings import RouterSettings
from packetcloud.router.spool import Spool
from packetcloud.router.tap import Point, Tap

_log = logging.getLogger(__name__)

_ENDING_CHECK_S = 1.0


class RouterCore:
    """One router.

    Args:
        settings: names, limits, services, neighbours.
        now: seconds on a clock that never steps, the same clock as every later `now`.
        first_chunk_id: for chunks that this router makes; no earlier run may have come near it.
        spool: where chunks may lie on disk; None: nowhere.
        label_key: 16 bytes that nobody outside knows, for the labels of flows.
        tap: where captures look at chunks.
        wall_s: seconds since 1970, by which rules are valid; None: there will be no rules.
    """

    def __init__(
        self,
        settings: RouterSettings,
        now: float,
        first_chunk_id: int,
        label_key: bytes = bytes(KEY_BYTES),
        spool: Spool | None = None,
        tap: Tap | None = None,
        wall_s: Callable[[], float] | None = None,
    ) -> None:
        self.settings = settings
        self.tap = tap or Tap(lambda: 0)
        self.reports = ReportBatch()
        self.spool = spool or Spool(None, lambda job: None, 1, lambda: 0)
        self.book = CustodyBook(settings.store_bytes, self.reports, self.spool, self.tap)
        self.routes = Routes(settings, now)
        self.forwarder = Forwarder(settings, self.book, self.routes)
        self.service_table = ServiceTable(settings, now)
        self.refused_attachments: Counter[Role] = Counter()
        """Neighbours that were not admitted, by what they said they are."""
        self.rule_counts = RuleCounts()
        labels = FlowLabels(label_key)
        self._planner = FlowPlanner(
            settings,
            self.forwarder,
            self.service_table.hosted,
            labels,
            self.rule_counts,
            wall_s if wall_s is not None else _no_wall_clock,
        )
        self.door = Door(
            settings, self._planner, self.book, self.forwarder.waiting, self.spool.refused
        )
        self._origination = Origination(
            settings, self.book, self._planner, labels, first_chunk_id, self._begin
        )
        self.dispatch, self.cloudlet = make_dispatch(
            self.book,
            self.service_table,
            self.forwarder.leave,
            self._origination.emit,
            self._ask_again,
            self._forget_flows,
            self.routes if settings.has_table else None,
        )
        self.restorer = Restorer(
            self.book,
            self._planner,
            labels,
            self.forwarder.waiting,
            self._begin_found,
        )
        self._attachments: dict[int, Attachment] = {}

    @property
    def next_timeout(self) -> float:
        """When `handle_timeout` should be called; infinity for never."""
        return min(
            self.book.wheel.next_due_s,
            self.service_table.next_due_s,
            self.spool.try_again_at,
            self.restorer.next_try_at,
            self.forwarder.waiting.next_try_at,
        )

    @property
    def is_draining(self) -> bool:
        """No more chunks are taken."""
        return self.door.is_closed

    @property
    def attachments(self) -> list[Attachment]:
        return list(self._attachments.values())

    def admit(self, guid: GUID, role: Role, instance: int = 0) -> str | None:
        """Say why a neighbour may not attach, None if it may; count those that may not."""
        refusal = self.reason_to_refuse(guid, role, instance)
        self.refused_attachments[role] += refusal is not None
        return refusal

    def reason_to_refuse(self, guid: GUID, role: Role, instance: int = 0) -> str | None:
        """Say why a neighbour may not attach, None if it may."""
        settings = self.settings
        if self.is_draining:
            return "this router is shutting down"
        if role is Role.SERVICE:
            return self.service_table.reason_to_refuse(SID(guid.value), instance)
        if role is Role.ROUTER:
            if any(neighbour.guid == guid for neighbour in settings.neighbours):
                return None
            return f"router {guid} is not a configured neighbour"
        if settings.hosts is None or guid in settings.hosts:
            return None
        return f"host {guid} is not listed at this router"

    def configure(self, settings: RouterSettings, now: float) -> None:
        """Take new settings; what is in custody follows them from here on."""
        self.settings = settings
        self.book.store_bytes = settings.store_bytes
        self.forwarder.configure(settings)
        self._planner.configure(settings)
        self._origination.configure(settings)
        self.door.configure(settings)
        removed = self.routes.configure(settings, now)
        self.service_table.configure(settings, now)
        self._forget_flows()
        self.restorer.look_at_all(now)
        for hop in removed:
            if hop.attachment is not None:
                hop.attachment.neighbour.close("no longer a configured neighbour")
            self.forwarder.give_up_waiting(hop)
        if settings.hosts is not None:
            for attachment in self.attachments:
                if attachment.role is Role.HOST and attachment.guid not in settings.hosts:
                    attachment.neighbour.close("no longer listed at this router")

    @property
    def rules(self) -> RuleTable | None:
        """The rules in force."""
        return self._planner.rules

    def install_rules(self, rules: RuleTable | None) -> None:
        """Decide by these rules from here on, in one step; None: there are no rules.

        Whatever is in custody goes on as it was decided. Flows are decided again each when its next
        chunk comes, so this costs the same however many there are.
        """
        self._planner.install(rules)

    def install_table(self, table: CloudletTable, now: float) -> None:
        """Have the services of the cloudlet controller's table from here on, in one step.

        Chunks in custody go on as they were decided; a service that is gone follows its policy.
        """
        if self.cloudlet is None:
            raise LocalMisuseError("the settings of this router have no table")
        if self.cloudlet.install(table, now):
            self._forget_flows()
            self.restorer.look_at_all(now)

    def neighbour_up(self, neighbour: Neighbour, now: float) -> None:
        """A session is established."""
        attachment = Attachment(neighbour)
        self._attachments[id(neighbour)] = attachment
        self._forget_flows()
        if neighbour.role is Role.SERVICE:
            self.dispatch.vi_up(attachment, now)
            self.restorer.came(attachment.guid.value, now)
            return
        hop = self.routes.place_of(attachment, now)
        if hop is None:
            neighbour.close("not a configured neighbour")
            return
        before, hop.attachment = hop.attachment, attachment
        attachment.next_hop = hop
        if before is not None:
            # Its old session is dead, or will be: what it still had to settle goes the new way.
            before.neighbour.close("replaced by a newer session")
        self.forwarder.attached(hop, now)
        self.restorer.came(attachment.guid.value, now)

    def neighbour_down(self, neighbour: Neighbour, now: float) -> None:
        """A session ended; all its bodies were settled before."""
        attachment = self._attachments.pop(id(neighbour), None)
        if attachment is None:
            return
        self._forget_flows()
        if attachment.vi is not None:
            self.dispatch.vi_down(attachment, now)
        hop = attachment.next_hop
        if hop is not None and hop.attachment in (attachment, None):
            self.forwarder.waiting.away(hop, now)
            for forgotten in self.routes.detached(hop, now):
                self.forwarder.give_up_waiting(forgotten)

    def body_received(
        self, neighbour: Neighbour, kind: BodyKind, body: Body, now: float
    ) -> Refusal | Deferral | None:
        """Take custody of a body, or say why not; a refused body stays the caller's."""
        attachment = self._attachments.get(id(neighbour))
        if attachment is None:
            return self.door.refuse(Reason.NOT_AUTHORISED)
        vi = attachment.vi
        if vi is not None:
            if kind is BodyKind.VERDICT:
                return self.dispatch.verdict_received(vi, body, now)
            return self.door.refuse(Reason.NOT_AUTHORISED)
        if kind is not BodyKind.CHUNK or attachment.next_hop is None:
            return self.door.refuse(Reason.NOT_AUTHORISED)
        answer = self._chunk_received(attachment, body, now)
        if answer is not None and self.tap.is_on and isinstance(answer, Refusal):
            self.tap.refused_at_door(attachment, body, answer)
        return answer

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int, now: float
    ) -> None:
        """The hop is done with a body that this router gave to it."""
        assert isinstance(token, Custody), "the router's tokens are its custody entries"
        token.is_unsettled = False
        phase = token.phase
        hop = token.left_to
        if hop is not None:
            token.left_to = None
            hop.settled(token)
        self._settled(phase, token, neighbour, settlement, reason, now)
        if hop is not None and hop.waiting.count:
            self.forwarder.waiting.left(hop, token.flow.label, now)

    def _settled(
        self,
        phase: Phase,
        token: Custody,
        neighbour: Neighbour,
        settlement: Settlement,
        reason: int,
        now: float,
    ) -> None:
        if settlement is Settlement.LOST and phase is not Phase.TASKED:
            token.has_left_a_copy |= token.next_hop is not None
        if phase is Phase.LEAVING:
            if settlement is Settlement.ACCEPTED and token.next_hop is not None:
                self.book.passed_on(token, token.next_hop.is_router)
                return
            attachment = self._attachments.get(id(neighbour))
            self.forwarder.settled(token, attachment, settlement, reason, now)
        elif phase is Phase.TASKED:
            self.dispatch.task_settled(token, settlement, reason, now)
        elif phase is Phase.ENDING:
            assert token.ending is not None, "an ending chunk has an end"
            if settlement is Settlement.ACCEPTED and token.next_hop is not None:
                self.book.passed_on(token, token.next_hop.is_router)
            else:
                self.book.give_up(token, *token.ending)

    def handle_timeout(self, now: float) -> None:
        """Act on every deadline that has passed."""
        for entry in self.book.wheel.due(now):
            self._due(entry, now)
        self.dispatch.handle_timeout(now)
        self.spool.handle_timeout(now)
        if now >= self.restorer.next_try_at:
            self.restorer.start(now)
        if now >= self.forwarder.waiting.next_try_at:
            self.forwarder.waiting.read_more(now)

    def restore(self, found: list[Found], wall_ms: int, now: float) -> None:
        """Answer for the chunks that an earlier process of this router had taken."""
        self.restorer.take(found, self.settings, wall_ms, now)

    def disk_done(self, results: list[Result], now: float) -> None:
        """Take in the answers of the disk worker."""
        waiting = self.forwarder.waiting
        for result in results:
            if isinstance(result, PutDone):
                entry = self.spool.written(result)
                if entry is None:
                    continue
                if entry.phase is Phase.STORING:
                    if not self._origination.written(entry, result.error, now):
                        self._stored(entry, result.error, now)
                else:
                    waiting.written(entry, result.error, now)
            elif isinstance(result, ReadDone):
                self.book.read_done(result.number)
                entry = self.spool.entry(result.number)
                if entry is None or not entry.is_spilled:
                    continue
                if entry.phase is Phase.FOUND:
                    self.restorer.loaded(entry, result, now)
                else:
                    waiting.loaded(entry, result, now)
            elif isinstance(result, RemoveDone):
                self.reports.removed(result.number, result.error)
            else:
                self.spool.disk_is(result, now)

    def flush_reports(self, now: float) -> None:
        """Send what sources must be told; call it once at the end of a turn of the loop."""
        for source, source_na, payload in self.reports.take():
            self._origination.report(source, source_na, payload, now)

    def start_draining(self) -> None:
        """Take no more chunks; verdicts, and what is in custody, go on."""
        self.door.is_closed = True

    def give_up_all(self) -> None:
        """Refuse everything that is still held and not on disk for good, for the end of a drain."""
        for entry in list(self.book.wheel):
            # What is stored goes on when the router is started again.
            is_kept = entry.record_number and self.spool.is_durable
            if entry.phase is not Phase.GONE and not is_kept:
                self._end(entry, Leaving.REFUSED, Reason.SHUTTING_DOWN, "the router stops")

    def _chunk_received(
        self, attachment: Attachment, body: Body, now: float
    ) -> Refusal | Deferral | None:
        try:
            flow, head, size_bytes, expires_at = self.door.enter(attachment, body, now)
        except ChunkRefusedError as error:
            return self.door.refuse(error.reason)
        entry = Custody(body, head, flow, size_bytes, now, expires_at)
        for offset, data in flow.patches:
            body.patch(offset, data)
        if self.spool.is_durable:
            self._store(entry, attachment, body, now)
            return Deferral.PENDING
        self.book.take(entry)
        if self.tap.is_on:
            self.tap.saw_chunk(Point.TAKEN, entry, attachment)
        self._begin(entry, now)
        return None

    def _store(self, entry: Custody, attachment: Attachment, body: Body, now: float) -> None:
        """Have a chunk written before custody of it is taken."""
        is_put = self.spool.put(entry, (body.contiguous(),), now, must_last=True)
        assert is_put, "the door asked the disk for room"
        entry.phase = Phase.STORING
        entry.arrival = (attachment.neighbour, body)
        self.book.pending_bytes += entry.size_bytes

    def _stored(self, entry: Custody, error: str, now: float) -> None:
        """A chunk survives a power cut from now on, so it is taken; or it could not be written."""
        assert entry.arrival is not None, "whoever waits is known"
        (neighbour, body), entry.arrival = entry.arrival, None
        self.book.pending_bytes -= entry.size_bytes
        attachment = self._attachments.get(id(neighbour))
        if error:
            refusal = self.door.refuse(Reason.STORE_FULL)
            if self.tap.is_on and attachment is not None:
                self.tap.refused_at_door(attachment, body, refusal)
            neighbour.decide(body, refusal)
            return
        self.spool.stored_count += 1
        entry.phase = Phase.LEAVING
        self.book.take(entry)
        if self.tap.is_on:
            self.tap.saw_chunk(Point.TAKEN, entry, attachment)
        neighbour.decide(body)
        self._begin(entry, now)

    def _begin(self, entry: Custody, now: float) -> None:
        """Do with a chunk in custody what is to be done."""
        try:
            tally = entry.flow.tally
            if tally is not None:
                self.rule_counts.add(tally)
            if entry.flow.steps:
                self.dispatch.run_step(entry, now)
            else:
                self.forwarder.leave(entry, now)
        except Exception:  # else the hop reuses the memory of a body that the books hold
            self._end_of_fault(entry)

    def _begin_found(self, entry: Custody, now: float) -> None:
        """Do with a chunk that an earlier process had taken what is to be done."""
        if self._settle_late(entry, entry.flow, now):
            self._begin(entry, now)

    def _ask_again(self, entry: Custody, now: float) -> bool:
        """Decide about a redirected chunk, whose service is done; False: it was refused."""
        visit, old = entry.visit, entry.flow
        assert visit is not None, "a service redirected it"
        if self._planner.rules is None:
            return True
        executed = visit.executed(old.steps[: visit.step_index])
        head = entry.header_bytes_now()
        try:
            flow = self._planner.plan(
                decode_header(head),
                head,
                now,
                ingress=old.ingress,
                flow_hash=old.hash,
                reports_to=old.reports_to,
                executed=executed,
                layout=old.layout,
                label=old.label,
            )
        except ChunkRefusedError as error:
            self.book.give_up(entry, Leaving.REFUSED, error.reason, error.detail)
            return False
        if not self._settle_late(entry, flow, now):
            return False
        visit.start_again(executed)
        tally = entry.flow.tally
        if tally is not None:
            self.rule_counts.add(tally)
        return True

    def _settle_late(self, entry: Custody, flow: Flow, now: float) -> bool:
        """Decide about a chunk in custody by what is in it; False: it was refused."""
        if flow.late is not None:
            try:
                flow = self._planner.settle(
                    flow,
                    entry.header_bytes_now(),
                    entry.payload_bytes,
                    entry.look_at_payload,
                    now,
                )
            except ChunkRefusedError as error:
                self.book.give_up(entry, Leaving.REFUSED, error.reason, error.detail)
                return False
        entry.flow = flow
        for offset, data in flow.patches:
            entry.patch(offset, data)
        return True

    def _end_of_fault(self, entry: Custody) -> None:
        """Give up a chunk with which a fault of the router was met, inside its handler."""
        _log.exception("fault of the router with chunk %s", entry.chunk_id)
        if entry.phase is not Phase.GONE:
            self._end(entry, Leaving.REFUSED, Reason.INTERNAL_ERROR, "fault of the router")

    def _due(self, entry: Custody, now: float) -> None:
        wheel = self.book.wheel
        if entry.phase is Phase.ENDING:
            wheel.add(entry, now + _ENDING_CHECK_S)
        elif now >= entry.expires_at:
            self._end(entry, Leaving.EXPIRED, Reason.DEADLINE_PASSED, "held too long")
        elif now >= entry.due_at:
            wheel.add(entry, entry.expires_at)
            if entry.phase is Phase.TASKED:
                self.dispatch.task_due(entry, now)
            elif entry.phase is Phase.FOUND:
                entry.due_at = math.inf
                self.restorer.wait_over(entry, now)
            else:
                self.forwarder.wait_over(entry, now)
        else:
            wheel.add(entry, min(entry.expires_at, entry.due_at))

    def _end(self, entry: Custody, how: Leaving, reason: Reason, detail: str) -> None:
        """Give up a chunk in whatever phase it is; at once, or when the hop lets go of it."""
        if entry.phase is Phase.HELD:
            self.forwarder.waiting.stop_waiting(entry)
        elif entry.phase is Phase.FOUND:
            self.restorer.forget(entry)
        was_leaving = entry.phase is Phase.LEAVING
        vi = entry.visit.vi if entry.visit is not None else None
        if not was_leaving:
            self.dispatch.forget(entry)
            entry.next_hop = None
        if not entry.is_unsettled:
            self.book.give_up(entry, how, reason, detail)
            return
        if entry.phase is Phase.ENDING:
            return
        entry.phase = Phase.ENDING
        entry.ending = (how, reason, detail)
        if entry.bucket is None:
            self.book.wheel.add(entry, entry.expires_at + _ENDING_CHECK_S)
        holder = entry.next_hop.attachment if was_leaving and entry.next_hop is not None else None
        if not was_leaving and vi is not None:
            holder = vi.attachment
        if holder is not None:
            holder.neighbour.cancel(entry)

    def _forget_flows(self) -> None:
        for attachment in self._attachments.values():
            attachment.flows.clear()


def _no_wall_clock() -> float:
    raise LocalMisuseError("rules are valid by the wall clock: give the core a wall_s")
