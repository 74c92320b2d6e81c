"""Meters of chunks and bytes: what the router counted to and from each VI, as chained records.

The router's counts only grow, under the identity of its boot. What is open is written down together
with the counts up to which it was counted, so a controller that begins anew goes on from there: it
counts nothing twice, and loses nothing while the router runs. A router that begins anew takes with
it what it counted since the last look, in the tenant's favour.
Source: MobiArch'13 paper, section 3.5; docs/reference/usage-records.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from packetcloud.cloudlet.core import metering, records
from packetcloud.cloudlet.core.commands import Command, Note
from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.core.records import Records
from packetcloud.cloudlet.core.saved import (
    Counts,
    Reserved,
    Saved,
    Stretch,
    TrafficMeter,
    TrafficState,
)
from packetcloud.domain_controller.core.prices import Meter as Kind
from packetcloud.domain_controller.core.usage import FIRST_PREVIOUS, MAX_RECORD_MS

LONGEST_MS = MAX_RECORD_MS - metering.MAX_LOOK_MS
"""A record is no longer, whether somebody takes it or not."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What the router said of a VI last."""

    one: Reserved
    """For whom it ran then: the reservation may be gone before the VI is."""
    boot: str
    counts: Counts


class Traffic:
    """All meters of chunks and bytes of a cloudlet, one for each VI of a reservation.

    Args:
        cloudlet: its name at the domain.
        new_name: returns a name that no meter ever had, for the VI of this number.
    """

    def __init__(self, cloudlet: str, saved: Saved, new_name: Callable[[int], str]) -> None:
        self.lost_chunks = 0
        """Chunks that were not counted as too many records wait."""
        self.lost_bytes = 0
        self._records = Records(cloudlet, saved)
        self._saved = saved
        self._new_name = new_name
        self._looks: dict[int, _Look] = {}

    def look(self, vi: Vi, boot: str, counts: Counts) -> None:
        """Take note of what the router counted; what is open of it is counted at the next tick."""
        before = self._looks.get(vi.number)
        one = self._saved.reserved.get(vi.reservation) or (before.one if before else None)
        if one is not None:
            self._looks[vi.number] = _Look(one, boot, counts)

    def tick(self, at_ms: int, *, is_sent_soon: bool) -> list[Command]:
        """Count what the router counted since the last tick.

        Args:
            is_sent_soon: somebody takes records now.
        """
        lost = self.lost_chunks + self.lost_bytes
        for number, look in self._looks.items():
            self._count(number, look, at_ms)
        longest_ms = metering.RECORD_MS if is_sent_soon else LONGEST_MS
        for number in [*self._saved.traffic]:
            self._look_at(number, at_ms, longest_ms)
        for number in self._looks.keys() - self._saved.vis.keys():
            del self._looks[number]
        if self.lost_chunks + self.lost_bytes > lost == 0:
            kept = records.MAX_KEPT_COUNT
            text = f"{kept} usage records wait for a domain controller; more traffic is lost"
            return [Note(text, True)]
        return []

    def _count(self, number: int, look: _Look, at_ms: int) -> None:
        meter = self._saved.traffic.get(number)
        if meter is None:
            if not look.counts.chunks and not look.counts.bytes:
                return
            meter = TrafficMeter(look.one.name, self._new_name(number), FIRST_PREVIOUS.hex())
            self._saved.traffic[number] = meter
        state = meter.now
        base = state.counts
        if look.boot != state.boot or look.counts.is_before(base):
            base = Counts()  # the router began anew, or listed the VI anew
        new = look.counts - base
        until_ms = state.open.end_ms if state.open is not None else meter.until_ms
        if not (new.chunks or new.bytes) or at_ms <= until_ms:
            return  # the clock was set back: it is counted when that time is over
        span = _within(look.one, max(until_ms, at_ms - metering.MAX_LOOK_MS), at_ms)
        if span is None:  # outside of the slot: nobody pays for it
            meter.now = TrafficState(look.boot, look.counts, state.open)
            return
        terms = look.one.terms
        if state.open is not None and not state.open.takes(terms, span[1], LONGEST_MS):
            self._close(meter)  # with the counts up to which that was counted
        open_ = meter.now.open or Stretch(*span, terms, Counts())
        grown = replace(open_, end_ms=span[1], counts=open_.counts + new)
        meter.now = TrafficState(look.boot, look.counts, grown)

    def _look_at(self, number: int, at_ms: int, longest_ms: int) -> None:
        meter = self._saved.traffic[number]
        open_, written = meter.now.open, meter.written
        is_over = number not in self._saved.vis
        if open_ is not None:
            if is_over or at_ms - open_.begin_ms >= longest_ms:
                self._close(meter)
            elif written is None or (
                open_ != written.open
                and at_ms - max(open_.begin_ms, meter.written_ms) >= metering.CHECKPOINT_MS
            ):
                meter.written, meter.written_ms = meter.now, at_ms
        if is_over:
            del self._saved.traffic[number]

    def _close(self, meter: TrafficMeter) -> None:
        """Make records of what is open, and write down with them up to where it was counted."""
        open_ = meter.now.open
        meter.now = replace(meter.now, open=None)
        meter.written = meter.now
        if open_ is None:
            return
        meter.until_ms = open_.end_ms
        for kind, quantity in (
            (Kind.CHUNKS, open_.counts.chunks),
            (Kind.BYTES, open_.counts.bytes),
        ):
            if quantity:
                self._keep(meter, kind, open_, quantity)

    def _keep(self, meter: TrafficMeter, kind: Kind, stretch: Stretch, quantity: int) -> None:
        span_ms = (stretch.begin_ms, stretch.end_ms)
        if self._records.add(meter, meter.reservation, stretch.terms, kind, span_ms, quantity):
            return
        if kind is Kind.CHUNKS:
            self.lost_chunks += quantity
        else:
            self.lost_bytes += quantity


def _within(one: Reserved, begin_ms: int, end_ms: int) -> tuple[int, int] | None:
    """Return what of a span of time belongs to the last occurrence of a slot that it touches."""
    for begin, end in reversed(one.occurrences):
        first, last = max(begin, begin_ms), min(end, end_ms)
        if first < last:
            return first, last
    return None
