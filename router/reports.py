"""What sources are told, gathered over one turn of the loop: one report chunk for many ends.

What says that a chunk failed waits until its record on disk is gone for good: after a power cut the
chunk would be found again, and delivered after all.
"""

from __future__ import annotations

from dataclasses import replace

from packetcloud.chunk.messages import DeliveryReport, encode_reports
from packetcloud.chunk.reasons import Reason

MAX_BATCH_COUNT = 256
"""Entries of one report chunk: with the longest details 128 KiB, without them 3 KiB."""


class ReportBatch:
    """Reports by source GUID and NA. Memory: what one turn of the loop can give up."""

    def __init__(self) -> None:
        self.sent_count = 0
        self.pending: dict[tuple[bytes, int], list[DeliveryReport]] = {}
        """By source GUID and NA; empty when there is nothing to send."""
        self._waiting: dict[int, tuple[bytes, int, DeliveryReport]] = {}
        """By the number of the record."""

    @property
    def is_idle(self) -> bool:
        """Nothing is to be sent, and nothing waits for the disk."""
        return not self.pending and not self._waiting

    def add(self, source: bytes, source_na: int, report: DeliveryReport) -> None:
        """Keep `report` for the source (20-byte GUID and its NA) until `take`."""
        self.pending.setdefault((source, source_na), []).append(report)

    def add_after_removal(
        self, number: int, source: bytes, source_na: int, report: DeliveryReport
    ) -> None:
        """Keep `report` until the disk has forgotten record `number`."""
        self._waiting[number] = (source, source_na, report)

    def removed(self, number: int, error: str) -> None:
        """The disk has forgotten a record, or `error` says why it may come back."""
        held = self._waiting.pop(number, None)
        if held is None:
            return
        source, source_na, report = held
        if error:
            report = indeterminate(report)
        self.add(source, source_na, report)

    def take(self) -> list[tuple[bytes, int, bytes]]:
        """Return and forget everything as (source GUID, source NA, payload of a report chunk)."""
        pending, self.pending = self.pending, {}
        payloads: list[tuple[bytes, int, bytes]] = []
        for (source, source_na), reports in pending.items():
            self.sent_count += len(reports)
            for start in range(0, len(reports), MAX_BATCH_COUNT):
                batch = reports[start : start + MAX_BATCH_COUNT]
                payloads.append((source, source_na, encode_reports(batch)))
        return payloads


def indeterminate(report: DeliveryReport) -> DeliveryReport:
    """Return `report` for a chunk that may have been, or may be, delivered all the same."""
    word = Reason(report.reason).word
    detail = f"{word}: {report.detail}" if report.detail else word
    return replace(report, reason=int(Reason.OUTCOME_UNKNOWN), detail=detail)
