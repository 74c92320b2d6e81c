"""Chunks to VIs and verdicts back: every way a task can end, and what follows from it.

The original stays here until the verdict. A task that is given again has a new id, so a late
verdict on the old one finds nothing: whatever happens to VIs, a chunk is processed once in effect.
Source: design, section 6, steps 4 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import PAYLOAD_TYPE_OFFSET, may_become
from packetcloud.chunk.hop.api import Body, Buffer, Refusal, Settlement
from packetcloud.chunk.messages import (
    MAX_DETAIL_BYTES,
    VERDICT_BYTES,
    BodyKind,
    VerdictCode,
    VerdictHeader,
)
from packetcloud.chunk.names import GUID_BYTES, SID
from packetcloud.chunk.reasons import Reason, reason_word
from packetcloud.router.attachment import Attachment
from packetcloud.router.custody import Custody, Leaving, Phase
from packetcloud.router.custody_book import CustodyBook
from packetcloud.router.emission import Done
from packetcloud.router.emitted import Emitted, split_emitted
from packetcloud.router.service_pool import MAX_LOOKED_AT_COUNT, VI, Service, Visit
from packetcloud.router.service_table import ServiceTable
from packetcloud.router.settings import FailPolicy

Leave = Callable[[Custody, float], None]
Emit = Callable[[Custody, SID, list[Emitted], Done, float], None]
Redirected = Callable[[Custody, float], bool]

_DESTINATION_OFFSET = 44
_VERDICT_HEAD_BYTES = VERDICT_BYTES + MAX_DETAIL_BYTES
_MISSED = "no verdict within the deadline"


class ServiceDispatch:
    """Runs the steps of a visit.

    Args:
        table: the services of this cloudlet, and the settings.
        leave: called with a chunk whose services are done.
        emit: called with a chunk, the SID that emitted, the emitted chunks, and what to call when
            they are in custody, or cannot be.
        redirected: called with a chunk that has another destination, when the step that gave it is
            done; decides which services are left, False: the chunk ended.
        services_changed: called when cached flows may name services that are gone.
    """

    def __init__(
        self,
        book: CustodyBook,
        table: ServiceTable,
        leave: Leave,
        emit: Emit,
        redirected: Redirected,
        services_changed: Callable[[], None],
    ) -> None:
        self.services = table.by_sid
        self.bad_verdicts_count = 0
        self._book = book
        self._wheel = book.wheel
        self._table = table
        self._leave = leave
        self._emit = emit
        self._redirected = redirected
        self._services_changed = services_changed
        self._last_task_id = 0

    def vi_up(self, attachment: Attachment, now: float) -> bool:
        """Note a new VI and give it what waits; False: it may not serve here."""
        service = self._table.attach(attachment, now)
        if service is None:
            return False
        self._pump(service, now)
        return True

    def vi_down(self, attachment: Attachment, now: float) -> None:
        """Take back every task of a VI that is gone, the oldest first in line again."""
        vi = attachment.vi
        if vi is None:
            return
        service = vi.service
        self._table.detach(vi, now)
        orphans, vi.tasks, vi.tasks_bytes = list(vi.tasks.values()), {}, 0
        # The oldest task is the one that it was most likely working on when it died.
        for suspect in orphans[:1]:
            self._count_attempt(suspect, Reason.SERVICE_FAILED, "its VI ended before a verdict")
        for entry in reversed(orphans):
            self._enqueue(service, entry, first=True)
        for entry in orphans[:1]:
            self._fail_if_exhausted(service, entry, now)
        self._pump(service, now)

    def run_step(self, entry: Custody, now: float) -> None:
        """Go on with a chunk: to its next service, or out when none is left."""
        visit = entry.visit
        if visit is None:
            visit = entry.visit = Visit()
        steps = entry.flow.steps
        if visit.step_index == len(steps):
            self._leave(entry, now)
            return
        visit.turn_at = now
        service = steps[visit.step_index].service
        # Where flows stay with their VI, a chunk whose VI has room need not stand in line behind
        # those of others: so many are there, at times, that not all are looked at.
        if not service.waiting or service.settings.keeps_flows:
            vi = self._vi_for(service, visit, entry)
            if vi is not None:
                self._give(service, vi, visit, entry, now)
                return
        self._enqueue(service, entry)
        self._pump(service, now)

    def verdict_received(self, vi: VI, body: Body, now: float) -> Refusal | None:
        """Act on a verdict; unknown task ids are late verdicts and change nothing."""
        try:
            verdict = VerdictHeader.from_bytes(body.head(_VERDICT_HEAD_BYTES))
        except ProtocolError:
            self.bad_verdicts_count += 1
            return Refusal(Reason.MALFORMED)
        entry = vi.tasks.get(verdict.task_id)
        if entry is None:
            vi.service.late_count += 1
            body.release()
            return None
        visit = entry.visit
        assert visit is not None, "an entry with a task has a visit"
        if self._book.tap.is_on:
            self._book.tap.saw_verdict(entry, vi.attachment, body, verdict)
        if entry.is_unsettled:
            if visit.verdict is not None:
                self.bad_verdicts_count += 1
                return Refusal(Reason.MALFORMED)
            visit.verdict = (verdict, body)
            self._measure(vi.service, visit, verdict, now)
            return None
        self._measure(vi.service, visit, verdict, now)
        self._judge(vi, visit, entry, verdict, body, now)
        return None

    def task_settled(self, entry: Custody, settlement: Settlement, reason: int, now: float) -> None:
        """The hop is done with the bytes of a task."""
        visit = entry.visit
        assert visit is not None and visit.vi is not None, "an entry with a task has both"
        vi = visit.vi
        if visit.verdict is not None:
            (verdict, body), visit.verdict = visit.verdict, None
            self._judge(vi, visit, entry, verdict, body, now)
        elif visit.has_missed:
            visit.has_missed = False
            self._attempt_failed(vi, visit, entry, Reason.SERVICE_FAILED, _MISSED, now)
        elif settlement is Settlement.LOST:
            # `neighbour_down` follows at once and takes all tasks back together, in their order.
            self._table.drain(vi, now)
        elif settlement is Settlement.REFUSED:
            self._take_task_back(vi, entry)
            if reason == Reason.SHUTTING_DOWN:
                self._table.drain(vi, now)
                self._enqueue(vi.service, entry, first=True)
            else:
                word = f"a VI refused the task: {reason_word(reason)}"
                why = Reason.PAYLOAD_TOO_LARGE if reason == Reason.PAYLOAD_TOO_LARGE else None
                self._attempt_failed(vi, visit, entry, why or Reason.SERVICE_FAILED, word, now)
            self._pump(vi.service, now)

    def task_due(self, entry: Custody, now: float) -> None:
        """A task's deadline passed without a verdict: somebody else gets the chunk."""
        visit = entry.visit
        assert visit is not None and visit.vi is not None, "an entry with a task has both"
        vi = visit.vi
        entry.due_at = math.inf
        if visit.verdict is not None or visit.has_missed:
            return
        vi.service.missed_count += 1
        vi.has_missed = True
        self._take_task_back(vi, entry)
        if entry.is_unsettled:
            visit.has_missed = True
            vi.neighbour.cancel(entry)
        else:
            self._attempt_failed(vi, visit, entry, Reason.SERVICE_FAILED, _MISSED, now)
        self._pump(vi.service, now)

    def forget(self, entry: Custody) -> None:
        """The chunk ends for another reason: whatever a VI says about it is late."""
        visit = entry.visit
        if visit is None or visit.step_index == len(entry.flow.steps):
            return
        if entry.phase is Phase.QUEUED:
            entry.flow.steps[visit.step_index].service.leave_line(entry)
        elif visit.vi is not None:
            self._take_task_back(visit.vi, entry)
        if visit.verdict is not None:
            visit.verdict[1].release()
            visit.verdict = None

    def handle_timeout(self, now: float) -> None:
        """End the grace times that are over."""
        for service in self._table.graces_over(now):
            while (entry := service.next_in_line()) is not None:
                self._follow_policy(service, entry, "no VI came back in time", now)
            if self._table.drop_unused(service):
                self._services_changed()

    def _give(self, service: Service, vi: VI, visit: Visit, entry: Custody, now: float) -> None:
        self._last_task_id = task_id = self._last_task_id + 1
        service.tasks_count += 1
        if visit.first_sent_at is None:
            visit.first_sent_at = now
        else:
            service.retried_count += 1
        visit.task_id = task_id
        visit.vi = vi
        vi.tasks[task_id] = entry
        vi.tasks_bytes += entry.size_bytes
        entry.phase = Phase.TASKED
        entry.is_unsettled = True
        entry.due_at = due_at = now + service.deadline_s
        if due_at < entry.wake_at:
            self._wheel.wake_by(entry, due_at)
        prefix = task_id.to_bytes(8, "big") + service.task_tail
        if self._book.tap.is_on:
            self._book.tap.saw_task(entry, vi.attachment, prefix)
        if entry.header is None:
            assert entry.body is not None, "a chunk without header of its own lies in a body"
            vi.neighbour.send_body(BodyKind.TASK, entry.body, entry, prefix, flow=entry.flow.label)
        else:
            prefix += entry.header
            vi.neighbour.send(BodyKind.TASK, prefix, entry.payload, entry, flow=entry.flow.label)

    def _measure(self, service: Service, visit: Visit, verdict: VerdictHeader, now: float) -> None:
        service.verdicts[verdict.code] += 1
        if verdict.code is VerdictCode.FAILED or visit.first_sent_at is None:
            return
        penalty_ns = int((now - visit.turn_at) * 1e9)
        # A VI can claim any processing time; never more than the router saw pass.
        processing_ns = min(verdict.processing_ns, penalty_ns)
        service.penalty.add(penalty_ns)
        service.processing.add(processing_ns)
        service.delivery.add(penalty_ns - processing_ns)
        service.wait.add(int((visit.first_sent_at - visit.turn_at) * 1e9))

    def _judge(
        self,
        vi: VI,
        visit: Visit,
        entry: Custody,
        verdict: VerdictHeader,
        body: Body,
        now: float,
    ) -> None:
        service = vi.service
        vi.has_missed = False
        if vi.tasks.pop(visit.task_id, None) is not None:
            vi.tasks_bytes -= entry.size_bytes
        entry.due_at = math.inf
        code = verdict.code
        if code is VerdictCode.FORWARD:
            body.release()
            self._step_done(visit, entry, now)
        elif code is VerdictCode.UPDATE:
            self._update(vi, visit, entry, verdict, body, now)
        elif code is VerdictCode.DROP:
            body.release()
            self._drop(service, visit, entry, verdict)
        elif code is VerdictCode.REDIRECT:
            body.release()
            self._redirect(vi, visit, entry, verdict, now)
        elif code is VerdictCode.EMIT:
            self._emit_chunks(vi, visit, entry, verdict, body, now)
        else:
            body.release()
            text = verdict.detail.decode("utf-8", "replace")
            self._attempt_failed(vi, visit, entry, Reason.SERVICE_FAILED, text, now)
        if service.waiting:
            self._pump(service, now)

    def _update(
        self,
        vi: VI,
        visit: Visit,
        entry: Custody,
        verdict: VerdictHeader,
        body: Body,
        now: float,
    ) -> None:
        fault = _retyping_fault(entry, verdict)
        if fault:
            body.release()
            self._attempt_failed(vi, visit, entry, Reason.SERVICE_FAILED, fault, now)
            return
        payload = body.contiguous()[verdict.encoded_bytes :]
        _replace_payload(entry, payload, body, verdict.payload_type)
        self._step_done(visit, entry, now)

    def _redirect(
        self, vi: VI, visit: Visit, entry: Custody, verdict: VerdictHeader, now: float
    ) -> None:
        if verdict.redirect_target[0].is_zero:
            text = "it redirected to the GUID zero"
            self._attempt_failed(vi, visit, entry, Reason.SERVICE_FAILED, text, now)
            return
        entry.patch(_DESTINATION_OFFSET, verdict.detail[: GUID_BYTES + 4])
        visit.is_redirected = True
        self._count_step(visit, entry)
        if self._redirected(entry, now):
            self.run_step(entry, now)

    def _drop(self, service: Service, visit: Visit, entry: Custody, verdict: VerdictHeader) -> None:
        visit.service_name = service.name
        reason = Reason.SEND_AGAIN if verdict.again else Reason.DROPPED_BY_SERVICE
        detail = verdict.detail.decode("utf-8", "replace")
        self._book.give_up(entry, Leaving.DROPPED, reason, detail)

    def _emit_chunks(
        self,
        vi: VI,
        visit: Visit,
        entry: Custody,
        verdict: VerdictHeader,
        body: Body,
        now: float,
    ) -> None:
        fault = _retyping_fault(entry, verdict)
        if fault:
            body.release()
            self._attempt_failed(vi, visit, entry, Reason.SERVICE_FAILED, fault, now)
            return
        try:
            emitted, payload = split_emitted(
                body.contiguous()[verdict.encoded_bytes :],
                verdict.emit_count,
                updates=verdict.updates,
            )
        except ProtocolError as error:
            self.bad_verdicts_count += 1
            self._attempt_failed(vi, visit, entry, Reason.SERVICE_FAILED, str(error), now)
            return
        finally:
            body.release()
        service = vi.service

        def done(error: str, now: float) -> None:
            if not error:
                service.emitted_count += len(emitted)
            elif verdict.updates or verdict.again or verdict.keep:
                service.left_out_count += len(emitted)
            else:
                self._attempt_failed(vi, visit, entry, Reason.STORE_FULL, error, now)
                return
            if verdict.updates:
                _replace_payload(entry, payload, None, verdict.payload_type)
            if verdict.keep:
                self._step_done(visit, entry, now)
            elif verdict.again:
                self._drop(service, visit, entry, verdict)
            else:
                detail = f"service {service.name} sent other chunks instead"
                self._book.give_up(entry, Leaving.REPLACED, Reason.DROPPED_BY_SERVICE, detail)

        entry.phase = Phase.EMITTING
        self._emit(entry, service.sid, emitted, done, now)

    def _step_done(self, visit: Visit, entry: Custody, now: float) -> None:
        self._count_step(visit, entry)
        self.run_step(entry, now)

    def _count_step(self, visit: Visit, entry: Custody) -> None:
        for offset, data in entry.flow.steps[visit.step_index].patches:
            entry.patch(offset, data)
        visit.next_step()

    def _attempt_failed(
        self, vi: VI, visit: Visit, entry: Custody, reason: Reason, text: str, now: float
    ) -> None:
        service = vi.service
        self._count_attempt(entry, reason, text)
        visit.failed_vis += (vi,)
        self._enqueue(service, entry, first=True)
        if not self._fail_if_exhausted(service, entry, now):
            self._pump(service, now)

    def _count_attempt(self, entry: Custody, reason: Reason, text: str) -> None:
        visit = entry.visit
        assert visit is not None, "an entry with a task has a visit"
        visit.attempts += 1
        visit.failure = (reason, text)

    def _fail_if_exhausted(self, service: Service, entry: Custody, now: float) -> bool:
        """Follow the fail policy for a waiting chunk that nobody is left to try."""
        visit = entry.visit
        assert visit is not None, "an entry that waits for a VI has a visit"
        if visit.attempts < service.settings.max_attempts and not service.is_exhausted(
            entry.flow.hash, visit.failed_vis
        ):
            return False
        service.leave_line(entry)
        self._follow_policy(service, entry, visit.failure[1], now)
        return True

    def _follow_policy(self, service: Service, entry: Custody, text: str, now: float) -> None:
        visit = entry.visit
        assert visit is not None, "an entry that waits for a VI has a visit"
        if service.settings.fail_policy is FailPolicy.OPEN:
            service.skipped_count += 1
            self._step_done(visit, entry, now)
            return
        detail = f"service {service.name}: {text}"
        self._book.give_up(entry, Leaving.REFUSED, visit.failure[0], detail)

    def _enqueue(self, service: Service, entry: Custody, first: bool = False) -> None:
        entry.phase = Phase.QUEUED
        entry.due_at = math.inf
        entry.move_verdict_out_of_the_hop()
        service.waiting[entry] = None
        if first:
            service.waiting.move_to_end(entry, last=False)

    def _pump(self, service: Service, now: float) -> None:
        """Give waiting chunks to VIs with room, the oldest first."""
        if service.settings.keeps_flows:
            self._pump_kept(service, now)
            return
        while service.waiting:
            if not self._moves_on(service, next(iter(service.waiting)), now):
                return

    def _pump_kept(self, service: Service, now: float) -> None:
        """The same where flows stay with their VI: a full one holds up its own flows alone."""
        open_count = sum(vi.may_keep_flows for vi in service.slots if vi is not None)
        full: set[VI] = set()
        for entry in list(islice(service.waiting, MAX_LOOKED_AT_COUNT)):
            if entry not in service.waiting:
                continue  # it ended with another one
            keeper = service.keeper_of(entry.flow.hash) if service.slots else None
            if keeper in full or self._moves_on(service, entry, now):
                continue
            if keeper is None:
                return
            full.add(keeper)
            if len(full) == open_count:
                return

    def _moves_on(self, service: Service, entry: Custody, now: float) -> bool:
        """Give a waiting chunk to a VI, or follow the fail policy where none is to come; False: it
        goes on waiting."""
        visit = entry.visit
        assert visit is not None, "an entry that waits for a VI has a visit"
        vi = self._vi_for(service, visit, entry)
        if vi is not None:
            del service.waiting[entry]
            self._give(service, vi, visit, entry, now)
            return True
        if not service.may_serve(now):
            del service.waiting[entry]
            self._follow_policy(service, entry, "no VI is attached", now)
            return True
        return self._fail_if_exhausted(service, entry, now)

    def _vi_for(self, service: Service, visit: Visit, entry: Custody) -> VI | None:
        settings = self._table.settings
        return service.choose(
            entry.flow.hash, visit.failed_vis, settings.vi_window_bytes, settings.vi_window_count
        )

    def _take_task_back(self, vi: VI, entry: Custody) -> None:
        visit = entry.visit
        if visit is not None and vi.tasks.pop(visit.task_id, None) is not None:
            vi.tasks_bytes -= entry.size_bytes


def _retyping_fault(entry: Custody, verdict: VerdictHeader) -> str:
    """Return what is wrong with the payload type that an update gives; empty: it may give it."""
    if verdict.payload_type is None:
        return ""
    header = entry.header if entry.header is not None else entry.header_bytes_now()
    was, becomes = header[PAYLOAD_TYPE_OFFSET], verdict.payload_type
    return "" if may_become(was, becomes) else f"it changed payload type {was} to {becomes}"


def _replace_payload(
    entry: Custody, payload: Buffer, verdict_body: Body | None, payload_type: int | None = None
) -> None:
    """Give a chunk its new payload, which lies in `verdict_body` unless it was copied."""
    header = entry.header if entry.header is not None else entry.header_bytes_now()
    header = entry.flow.layout.updated_header(header, len(payload), payload_type)
    entry.update_payload(header, payload, verdict_body)
