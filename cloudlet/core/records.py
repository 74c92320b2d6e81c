"""Usage records that wait for the domain controller: each meter's are a chain.

Source: docs/reference/usage-records.md.
"""

from __future__ import annotations

from typing import Protocol

from packetcloud.cloudlet.core.saved import Saved
from packetcloud.domain_controller.core.prices import Meter as Kind
from packetcloud.domain_controller.core.usage import UsageRecord

MAX_KEPT_COUNT = 10_000
"""Records that wait to be taken: a hundred reservations for four days. What would be one more is
not counted."""


class Chained(Protocol):
    """A meter: its name, and number and digest of its last record."""

    name: str
    number: int
    previous: str


class Records:
    """Makes the records of a cloudlet.

    Args:
        cloudlet: its name at the domain.
    """

    def __init__(self, cloudlet: str, saved: Saved) -> None:
        self._cloudlet = cloudlet
        self._saved = saved

    def add(
        self,
        meter: Chained,
        reservation: str,
        terms: int,
        kind: Kind,
        span_ms: tuple[int, int],
        quantity: int,
    ) -> bool:
        """Make the next record of a meter; False: too many wait, and this is none."""
        if len(self._saved.records) >= MAX_KEPT_COUNT:
            return False
        record = UsageRecord(
            self._cloudlet,
            meter.name,
            meter.number + 1,
            bytes.fromhex(meter.previous),
            reservation,
            terms,
            kind,
            *span_ms,
            quantity,
        )
        meter.number, meter.previous = record.number, record.digest.hex()
        self._saved.records[record.meter, record.number] = record
        return True
