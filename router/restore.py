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

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.flow_labels import FlowLabels
from packetcloud.chunk.header import FIXED_BYTES, ChunkHeader, decode_header
from packetcloud.router.chunk_record import Found
from packetcloud.router.custody import Custody, Leaving, Phase
from packetcloud.router.custody_book import CustodyBook
from packetcloud.router.disk_jobs import ReadDone
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.flow import Flow, is_report
from packetcloud.router.layout import HeaderLayout
from packetcloud.router.planner import FlowPlanner
from packetcloud.router.service_pool import Visit
from packetcloud.router.settings import MIB, RouterSettings
from packetcloud.router.waiting import WaitingRoom

LOADING_BYTES = 16 * MIB
"""Read from disk at a time."""
TRY_AGAIN_S = 0.1
"""While memory is short: how often that is looked at."""


class _Kind:
    """Found chunks with the same header, but for what differs from chunk to chunk."""

    __slots__ = ("entries", "executed", "flow", "head", "header", "ingress", "names")

    def __init__(
        self, header: ChunkHeader, entry: Custody, executed: frozenset[bytes], ingress: bytes
    ) -> None:
        self.header = header
        """Of the first of them."""
        self.head = entry.head
        self.flow = entry.flow
        """For what they all have in common; once they start, the one that was planned."""
        self.executed = executed
        self.ingress = ingress
        self.entries: dict[Custody, None] = {}
        self.names: set[bytes] = {header.destination.value, header.sid.value}
        """GUIDs and SIDs whose coming may open the way."""
        if header.sequence is not None:
            self.names.update(sid.value for sid in header.sequence.sids)


class Restorer:
    """Starts found chunks when their way is open.

    A kind is planned when somebody comes for whom it may wait, never all kinds at once.

    Args:
        waiting: counts what cannot be read.
        begin: called with a chunk that starts, its bytes in memory.
    """

    def __init__(
        self,
        book: CustodyBook,
        planner: FlowPlanner,
        labels: FlowLabels,
        waiting: WaitingRoom,
        begin: Callable[[Custody, float], None],
    ) -> None:
        self._book = book
        self._spool = book.spool
        self._planner = planner
        self._labels = labels
        self._waiting = waiting
        self._begin = begin
        self._found: dict[Custody, _Kind] = {}
        self._kinds: dict[object, _Kind] = {}
        self._by_name: dict[bytes, dict[_Kind, None]] = {}
        self._open: dict[_Kind, None] = {}
        """Whose way is open, and whose chunks start as there is memory."""
        self._last: dict[Custody, None] = {}
        """Chunks whose wait is over; they go whatever way there is."""
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
            layout = HeaderLayout.of(one.head)
            head = one.head[: layout.header_bytes]
            executed = frozenset(record.executed)
            key = (head[2:8], head[20:FIXED_BYTES], layout, executed, record.ingress)
            kind = self._kinds.get(key)
            flow = kind.flow if kind is not None else self._flow_of(header, layout)
            taken_at = now - max(0.0, (wall_ms - record.taken_ms) / 1000)
            left_s = min(settings.hold_limit_s, (record.expires_ms - wall_ms) / 1000)
            entry = Custody(None, head, flow, one.size_bytes, taken_at, now + left_s)
            entry.phase = Phase.FOUND
            entry.is_spilled = True
            entry.is_originated = record.is_originated
            # The process that had it may have sent it on and died before it noted that.
            entry.has_left_a_copy = True
            if executed:
                entry.visit = Visit(executed)
            entry.due_at = now + settings.detached_hold_s
            self._spool.recovered(entry, record.number, one.size_bytes)
            self._book.restore(entry)
            self._book.wheel.wake_by(entry, min(entry.due_at, entry.expires_at))
            if kind is None:
                kind = self._kinds[key] = _Kind(header, entry, executed, record.ingress)
            kind.entries[entry] = None
            self._found[entry] = kind
        self.look_at_all(now)

    def look_at_all(self, now: float) -> None:
        """Plan every kind; call it when the tables have changed."""
        for key, kind in list(self._kinds.items()):
            if kind.entries:
                self._look_at(kind, now)
            else:
                del self._kinds[key]
                for name in kind.names:
                    self._by_name.get(name, {}).pop(kind, None)
        self.start(now)

    def came(self, name: bytes, now: float) -> None:
        """A host, router or VI is here: plan what waits for it, and start what can."""
        for kind in list(self._by_name.get(name, ())):
            if kind.entries:
                self._look_at(kind, now)
            else:
                del self._by_name[name][kind]
        self.start(now)

    def start(self, now: float) -> None:
        """Start what can start while there is memory; call it at `next_try_at` too. O(started)."""
        self.next_try_at = float("inf")
        while self._last or self._open:
            entry = next(iter(self._last), None)
            kind = self._found[entry] if entry is not None else next(iter(self._open))
            if entry is None:
                entry = next(iter(kind.entries), None)
                if entry is None or not (self._is_open(kind) or self._look_at(kind, now)):
                    self._open.pop(kind, None)
                    continue
            if not self._may_read(entry):
                self.next_try_at = now + TRY_AGAIN_S
                return
            if entry not in self._last:
                # The others have their turn before the next of this kind.
                del self._open[kind]
                self._open[kind] = None
            self.forget(entry)
            entry.flow = kind.flow
            entry.due_at = float("inf")
            self._book.read(entry)

    def wait_over(self, entry: Custody, now: float) -> None:
        """The way of a chunk did not open: it goes the way that there is, or is refused."""
        kind = self._found.get(entry)
        if kind is None:
            return
        try:
            self._plan(kind, now)
        except ChunkRefusedError as error:
            self.forget(entry)
            self._book.give_up(entry, Leaving.REFUSED, error.reason, error.detail)
            return
        self._last[entry] = None
        self.start(now)

    def loaded(self, entry: Custody, result: ReadDone, now: float) -> None:
        """The bytes of a chunk that starts came from disk, or cannot."""
        if result.error:
            self._waiting.cannot_be_read(entry, result)
        else:
            self._waiting.bring_back(entry, result.data)
            self._begin(entry, now)
        self.start(now)

    def forget(self, entry: Custody) -> None:
        """The chunk starts, or ends before it started."""
        kind = self._found.pop(entry, None)
        if kind is not None:
            del kind.entries[entry]
            self._last.pop(entry, None)
            if not self._found:
                self._kinds.clear()
                self._by_name.clear()
                self._open.clear()

    def _may_read(self, entry: Custody) -> bool:
        spool = self._spool
        return spool.reading_bytes < LOADING_BYTES and self._book.may_read(entry.size_bytes)

    def _flow_of(self, header: ChunkHeader, layout: HeaderLayout) -> Flow:
        wants_report = header.wants_report and not is_report(header)
        return Flow(
            layout,
            reports_to=header.source_na.value if wants_report else None,
            is_report=is_report(header),
            label=self._labels.label(header.destination.value, header.sid.value),
        )

    def _plan(self, kind: _Kind, now: float) -> None:
        kind.flow = self._planner.plan(
            kind.header,
            kind.head,
            now,
            ingress=kind.ingress,
            reports_to=kind.flow.reports_to,
            executed=kind.executed,
        )

    def _is_open(self, kind: _Kind) -> bool:
        is_decided = kind.flow.rules_epoch == self._planner.rules_epoch
        return is_decided and _has_way(kind.flow)

    def _look_at(self, kind: _Kind, now: float) -> bool:
        """Plan a kind; tell, and note, whether its way is open."""
        try:
            self._plan(kind, now)
        except ChunkRefusedError:
            is_open = False
        else:
            is_open = _has_way(kind.flow)
            if kind.flow.next_hop is not None:
                kind.names.add(kind.flow.next_hop.guid)
            if kind.flow.steps:
                kind.names.add(kind.flow.steps[0].service.sid.value)
        for name in kind.names:
            self._by_name.setdefault(name, {})[kind] = None
        if is_open:
            self._open[kind] = None
        return is_open


def _has_way(flow: Flow) -> bool:
    if flow.steps:
        return flow.steps[0].service.has_vi
    return flow.next_hop is not None and flow.next_hop.attachment is not None
