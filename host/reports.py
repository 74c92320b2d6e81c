"""Delivery reports to send: collected per source and sent in few chunks.

At once when the host is idle (at the end of the loop turn), and while reports stream out, once
every few milliseconds, so that a thousand chunks a second cost a few hundred report chunks.
Source: design, section 6; docs/protocol/chunk.md, "Delivery reports".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from packetcloud.chunk.messages import MAX_REPORT_ENTRIES, DeliveryReport, encode_reports

BATCH_S = 0.003
"""Longest wait of a report: far below any re-send interval, far above one loop turn."""
MAX_PENDING_COUNT = 65_536
"""Reports kept while the router is away, about 8 MiB. More are dropped and counted: the source
sends the chunk again and is answered then."""
MAX_BATCH_BYTES = 64 << 10
"""Details may be 512 bytes each; a report chunk stays a small chunk."""


@dataclass(frozen=True, slots=True)
class ReportBatch:
    """The payload of one report chunk to `source`."""

    source: bytes
    reports: tuple[DeliveryReport, ...]

    @property
    def payload(self) -> bytes:
        return encode_reports(list(self.reports))


class PendingReports:
    """Reports that no router has taken yet."""

    def __init__(self, max_pending_count: int = MAX_PENDING_COUNT) -> None:
        self._max_pending = max_pending_count
        self._by_source: dict[bytes, list[DeliveryReport]] = {}
        self._count = 0
        self._last_flush_s = float("-inf")
        self._due_s: float | None = None
        self.counters: Counter[str] = Counter()

    def add(self, source: bytes, report: DeliveryReport, now: float) -> None:
        """Queue `report`; it is due at once, or `BATCH_S` after the last flush."""
        if self._count >= self._max_pending:
            self.counters["reports_dropped_total"] += 1
            return
        self._by_source.setdefault(source, []).append(report)
        self._count += 1
        if self._due_s is None:
            self._due_s = max(now, self._last_flush_s + BATCH_S)

    def put_back(self, batch: ReportBatch, now: float) -> None:
        """The router did not take `batch`: try again."""
        for report in batch.reports:
            self.add(batch.source, report, now)

    def next_timeout(self) -> float | None:
        return self._due_s

    def flush(self, now: float) -> list[ReportBatch]:
        """Return everything as batches, one or a few per source."""
        batches: list[ReportBatch] = []
        for source, reports in self._by_source.items():
            batches.extend(ReportBatch(source, part) for part in _parts(reports))
        self._by_source = {}
        self.counters["reports_sent_total"] += self._count
        self.counters["report_chunks_total"] += len(batches)
        self._count = 0
        self._due_s = None
        self._last_flush_s = now
        return batches

    def __len__(self) -> int:
        return self._count


def _parts(reports: list[DeliveryReport]) -> list[tuple[DeliveryReport, ...]]:
    parts: list[tuple[DeliveryReport, ...]] = []
    part: list[DeliveryReport] = []
    part_bytes = 0
    for report in reports:
        entry_bytes = 16 + len(report.detail.encode())
        full = len(part) == MAX_REPORT_ENTRIES or part_bytes + entry_bytes > MAX_BATCH_BYTES
        if part and full:
            parts.append(tuple(part))
            part, part_bytes = [], 0
        part.append(report)
        part_bytes += entry_bytes
    if part:
        parts.append(tuple(part))
    return parts
