"""Chunks that begin at this router: what services emit, and reports to sources.

Source: design, section 6, step 5; docs/decisions/0003.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from packetcloud.chunk.flow_labels import FlowLabels
from packetcloud.chunk.header import HOP_LIMIT_OFFSET, ChunkHeader, PayloadType
from packetcloud.chunk.hop.api import FoundT
from packetcloud.chunk.names import GUID, GUID_BYTES, NA, SID, ChunkId
from packetcloud.chunk.reasons import Reason
from packetcloud.router.custody import Custody, Leaving
from packetcloud.router.custody_book import CustodyBook
from packetcloud.router.emission import Done, Emissions
from packetcloud.router.emitted import Emitted, header_from_router
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.flow import Flow
from packetcloud.router.layout import HeaderLayout
from packetcloud.router.planner import FlowPlanner
from packetcloud.router.service_pool import Visit
from packetcloud.router.settings import RouterSettings

_REPORT_LIFETIME_MS = 30_000
_U64 = (1 << 64) - 1


class Origination:
    """Makes chunks and takes them into custody.

    Args:
        first_chunk_id: for reports; no earlier run may have come near it.
        begin: called with a chunk that is in custody from now on.
    """

    def __init__(
        self,
        settings: RouterSettings,
        book: CustodyBook,
        planner: FlowPlanner,
        labels: FlowLabels,
        first_chunk_id: int,
        begin: Callable[[Custody, float], None],
    ) -> None:
        self._settings = settings
        self._book = book
        self._planner = planner
        self._labels = labels
        self._next_chunk_id = first_chunk_id & _U64
        self._begin = begin
        self._emissions = Emissions(book, begin)

    def configure(self, settings: RouterSettings) -> None:
        """Take new settings."""
        self._settings = settings

    def emit(
        self, parent: Custody, sid: SID, emitted: list[Emitted], done: Done, now: float
    ) -> None:
        """Take what a service emitted into custody, each by itself; or nothing, and say why.

        Args:
            parent: the chunk that the service had.
            done: called at once, or when all is on disk under durable custody.
        """
        visit = parent.visit
        assert visit is not None, "only a service emits"
        # The one that emits has had its part too, though its step is not done.
        makers = visit.executed(parent.flow.steps[: visit.step_index + 1])
        children: list[Custody] = []
        for made, payload in emitted:
            hop_limit = parent.head[HOP_LIMIT_OFFSET]
            header = header_from_router(made, sid, self._settings.na, hop_limit)
            head = header.to_bytes()
            try:
                flow = self._planner.plan(header, head, now, makers=makers)
                if flow.late is not None:
                    flow = self._planner.settle(
                        flow, head, len(payload), partial(_look_at, payload), now
                    )
            except ChunkRefusedError as error:
                self._refuse_emitted(head, payload, error, now)
                continue
            children.append(self._entry_of(head, payload, flow, Visit(makers), now))
        if self._book.spool.is_durable and children:
            self._emissions.store(parent, children, done, now)
            return
        for child in children:
            self._originate(child, now)
        done("", now)

    def written(self, entry: Custody, error: str, now: float) -> bool:
        """Take in what became of a chunk's record; False: no service emitted it."""
        return self._emissions.written(entry, error, now)

    def report(self, source: bytes, source_na: int, payload: bytes, now: float) -> None:
        """Send a source what it must be told."""
        header = ChunkHeader(
            source=self._settings.guid,
            destination=GUID(source),
            chunk_id=self._take_chunk_id(),
            payload_bytes=len(payload),
            source_na=self._settings.na,
            destination_na=NA(source_na),
            payload_type=PayloadType.REPORT,
            lifetime_ms=_REPORT_LIFETIME_MS,
        ).to_bytes()
        label = self._labels.label(source, bytes(GUID_BYTES))
        flow = Flow(HeaderLayout.of(header), is_report=True, label=label)
        self._originate(self._entry_of(header, payload, flow, None, now), now)

    def _entry_of(
        self, header: bytes, payload: bytes, flow: Flow, visit: Visit | None, now: float
    ) -> Custody:
        """Return a chunk that begins here, not in custody yet."""
        expires_at = now + self._settings.hold_limit_s
        offset = flow.layout.lifetime_offset
        if offset:
            left_ms = int.from_bytes(header[offset : offset + 4], "big")
            expires_at = min(expires_at, now + left_ms / 1000)
        size_bytes = len(header) + len(payload)
        entry = Custody(None, header, flow, size_bytes, now, expires_at)
        entry.header, entry.payload, entry.visit = bytearray(header), payload, visit
        return entry

    def _originate(self, entry: Custody, now: float) -> None:
        is_full = self._book.is_full(entry.size_bytes)
        self._book.originate(entry)
        if is_full:
            self._book.give_up(entry, Leaving.REFUSED, Reason.STORE_FULL, "")
            return
        self._begin(entry, now)

    def _refuse_emitted(
        self, header: bytes, payload: bytes, error: ChunkRefusedError, now: float
    ) -> None:
        flow = Flow(HeaderLayout.of(header))
        entry = Custody(None, header, flow, len(header) + len(payload), now, now)
        self._book.originate(entry)
        self._book.give_up(entry, Leaving.REFUSED, error.reason, error.detail)

    def _take_chunk_id(self) -> ChunkId:
        chunk_id = ChunkId(self._next_chunk_id)
        self._next_chunk_id = (self._next_chunk_id + 1) & _U64
        return chunk_id


def _look_at(payload: bytes, at: Callable[[memoryview], FoundT]) -> FoundT:
    return at(memoryview(payload))
