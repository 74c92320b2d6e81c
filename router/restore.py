"""Chunks that an earlier process of this router had taken and not handed on: they go on from here.

A router that starts knows no host and no VI yet, and most destinations are hosts. So a found chunk
waits, on disk, until its way is known and open, `detached_hold_s` at the most; then it starts its
visit anew from the bytes of the record. Its deadline is the one that it had: the record has it by
the wall clock, the only one that survives a restart. A clock that was set back keeps it no longer
than `hold_limit_s`, one that was set forward may expire it early, which its source is told.
Source: docs/decisions/0010; docs/reference/router.md, "After a kill".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.flow_labels import FlowLabels
from packetcloud.chunk.header import decode_header
from packetcloud.chunk.reasons import Reason
from packetcloud.router.chunk_log import Found
from packetcloud.router.custody import Custody, CustodyBook, Leaving, Phase
from packetcloud.router.disk_jobs import ReadDone
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.flow import Flow, is_report
from packetcloud.router.layout import HeaderLayout
from packetcloud.router.planner import FlowPlanner
from packetcloud.router.service_pool import Visit
from packetcloud.router.settings import MIB, RouterSettings
from packetcloud.router.waiting import WaitingRoom

if TYPE_CHECKING:
    from packetcloud.router.dispatch import ServiceDispatch

LOADING_BYTES = 16 * MIB
"""Read from disk at a time."""
TRY_AGAIN_S = 0.1


class Restorer:
    """Starts found chunks when their way is open.

    Args:
        waiting: counts what cannot be read.
        fault: called with a chunk that a fault of the router was met with.
    """

    def __init__(
        self,
        book: CustodyBook,
        planner: FlowPlanner,
        labels: FlowLabels,
        waiting: WaitingRoom,
        dispatch: ServiceDispatch,
        fault: Callable[[Custody], None],
    ) -> None:
        self._book = book
        self._spool = book.spool
        self._planner = planner
        self._labels = labels
        self._waiting = waiting
        self._dispatch = dispatch
        self._fault = fault
        self._found: dict[Custody, None] = {}
        self._loading: dict[int, int] = {}
        """Bytes that are being read, by the number of the record."""
        self.next_try_at = float("inf")

    @property
    def count(self) -> int:
        """Chunks that wait for their way."""
        return len(self._found)

    def take(
        self, found: Iterable[Found], settings: RouterSettings, wall_ms: int, now: float
    ) -> None:
        """Answer for what an earlier process left."""
        for one in found:
            try:
                header = decode_header(one.head)
            except ProtocolError:
                self._waiting.damaged_count += 1
                continue
            record = one.record
            wants_report = header.wants_report and not is_report(header)
            flow = Flow(
                HeaderLayout.of(one.head),
                reports_to=header.source_na.value if wants_report else None,
                is_report=is_report(header),
                label=self._labels.label(header.destination.value, header.sid.value),
            )
            taken_at = now - max(0.0, (wall_ms - record.taken_ms) / 1000)
            left_s = min(settings.hold_limit_s, (record.expires_ms - wall_ms) / 1000)
            entry = Custody(None, one.head, flow, one.size_bytes, taken_at, now + left_s)
            entry.phase = Phase.FOUND
            entry.is_spilled = True
            entry.is_originated = record.is_originated
            # The process that had it may have sent it on and died before it noted that.
            entry.has_left_a_copy = True
            if record.emitted_by:
                entry.visit = Visit(frozenset(record.emitted_by))
            entry.due_at = now + settings.detached_hold_s
            self._spool.recovered(entry, record.number, one.size_bytes)
            self._book.restore(entry)
            self._book.wheel.wake_by(entry, min(entry.due_at, entry.expires_at))
            self._found[entry] = None
        self.look(now)

    def look(self, now: float) -> None:
        """Start what can start; call it when somebody attached, and at `next_try_at`."""
        self.next_try_at = float("inf")
        for entry in list(self._found):
            if self._is_full:
                break
            self._try(entry, now)
        if self._found:
            self.next_try_at = now + TRY_AGAIN_S

    def wait_over(self, entry: Custody, now: float) -> None:
        """The way of a chunk did not open: it goes the way that there is, or is refused."""
        if entry in self._found:
            self._try(entry, now, is_last=True)

    def loaded(self, entry: Custody, result: ReadDone, now: float) -> None:
        """The bytes of a chunk that starts came from disk, or cannot."""
        if result.error:
            self._waiting.cannot_be_read(entry, result)
        else:
            self._waiting.bring_back(entry, result.data)
            try:
                self._dispatch.run_step(entry, now)
            except Exception:
                # Whatever it was, this chunk ends, and those behind it do not wait for ever.
                self._fault(entry)
        self.look(now)

    def read_done(self, number: int) -> None:
        """A read has ended, whatever became of its chunk meanwhile."""
        self._loading.pop(number, None)

    def forget(self, entry: Custody) -> None:
        """The chunk ends before it started."""
        self._found.pop(entry, None)

    @property
    def _is_full(self) -> bool:
        book = self._book
        return (
            sum(self._loading.values()) >= LOADING_BYTES
            or book.held_bytes - book.spilled_bytes > book.store_bytes // 2
        )

    def _try(self, entry: Custody, now: float, *, is_last: bool = False) -> None:
        try:
            header = decode_header(entry.head)
            visit = entry.visit
            flow = self._planner.plan(
                header,
                entry.head,
                now,
                reports_to=entry.flow.reports_to,
                executed=visit.emitted_by if visit is not None else frozenset(),
            )
        except ChunkRefusedError as error:
            if is_last:
                del self._found[entry]
                self._book.give_up(entry, Leaving.REFUSED, error.reason, error.detail)
            return
        except ProtocolError:
            del self._found[entry]
            self._book.give_up(entry, Leaving.REFUSED, Reason.MALFORMED, "after a restart")
            return
        if flow.steps:
            is_open = flow.steps[0].service.has_vi
        else:
            is_open = flow.next_hop is not None and flow.next_hop.attachment is not None
        if is_open or is_last:
            del self._found[entry]
            entry.flow = flow
            entry.due_at = float("inf")
            self._loading[entry.record_number] = entry.size_bytes
            self._spool.read(entry)
