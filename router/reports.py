"""What sources are told, gathered over one turn of the loop: one report chunk for many ends."""

from __future__ import annotations

from packetcloud.chunk.messages import DeliveryReport, encode_reports

MAX_BATCH_COUNT = 256
"""Entries of one report chunk: with the longest details 128 KiB, without them 3 KiB."""


class ReportBatch:
    """Reports by source GUID and NA. Memory: what one turn of the loop can give up."""

    def __init__(self) -> None:
        self.sent_count = 0
        self.pending: dict[tuple[bytes, int], list[DeliveryReport]] = {}
        """By source GUID and NA; empty when there is nothing to send."""

    def add(self, source: bytes, source_na: int, report: DeliveryReport) -> None:
        """Keep `report` for the source (20-byte GUID and its NA) until `take`."""
        self.pending.setdefault((source, source_na), []).append(report)

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
