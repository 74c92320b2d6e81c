"""Custody: the chunks that this router answers for, and the sum that must always hold.

    taken_in + originated + restored =
        sent_on + delivered + replaced + refused + expired + dropped + held

`held` is counted from the chunks themselves, the other terms by counters, so the sum is a check and
not an identity. A refusal at the door is no custody and stands outside it.
Source: design, section 6, "Custody".
"""

from __future__ import annotations

from collections import Counter

from packetcloud.chunk.messages import DeliveryReport, Outcome
from packetcloud.chunk.reasons import Reason
from packetcloud.router.custody import Custody, Leaving, Phase
from packetcloud.router.deadlines import DeadlineWheel
from packetcloud.router.reports import ReportBatch, indeterminate
from packetcloud.router.spool import Spool
from packetcloud.router.tap import Point, Tap

MAX_HELD_COUNT = 262_144
"""Chunks in custody, beside the cap on their bytes: with what the hop needs each costs 1.5 KiB or
so whatever its size: small chunks reach this at 400 MB, large ones never."""
MAX_DROPPING_NAMES_COUNT = 1024
"""Services whose drops are counted by name; those of others are counted together. Where services
that no list names may attach, strangers choose the names."""
OTHER_NAME = "other"
BACK_SHARE = 8
"""Where the store is full, what came back from disk may take an eighth of it beyond that."""


class CustodyBook:
    """All chunks in custody, the counters of the sum, and the one place where custody ends."""

    def __init__(self, store_bytes: int, reports: ReportBatch, spool: Spool, tap: Tap) -> None:
        self.store_bytes = store_bytes
        self.spool = spool
        self.tap = tap
        self.spilled_bytes = 0
        """Of the chunks in custody: on disk only."""
        self.pending_bytes = 0
        """Of chunks that are being written before they are taken, or read."""
        self.restored_count = 0
        """Chunks taken over from an earlier process."""
        self.wheel: DeadlineWheel[Custody] = DeadlineWheel()
        self.held_bytes = 0
        self._serial = 0
        self._entry_count = 0
        """The entries as they came and went, for `is_full`; `held_count` looks at them."""
        self.taken_in_count = 0
        self.taken_in_bytes = 0
        self.originated_count = 0
        self.sent_on_count = 0
        self.sent_on_bytes = 0
        self.delivered_count = 0
        self.delivered_bytes = 0
        self.replaced_count = 0
        self.refused: Counter[Reason] = Counter()
        self.expired: Counter[Reason] = Counter()
        self.dropped: Counter[str] = Counter()
        """By the name of the service that dropped."""
        self.undeliverable_reports_count = 0
        self._reports = reports

    @property
    def held_count(self) -> int:
        return len(self.wheel)

    def is_full(self, size_bytes: int) -> bool:
        """Tell whether a chunk of `size_bytes` is one too many."""
        return (
            self.held_bytes - self.spilled_bytes + self.pending_bytes + size_bytes
            > self.store_bytes
            or self._entry_count >= MAX_HELD_COUNT
        )

    def may_read(self, size_bytes: int) -> bool:
        """Tell whether the bytes of a chunk may come back from disk now.

        What comes back has a share of its own beyond the store, or new chunks would keep it out.
        """
        spool = self.spool
        back_bytes = spool.reading_bytes + spool.back_bytes
        in_memory_bytes = self.held_bytes - self.spilled_bytes + self.pending_bytes
        return (
            not back_bytes
            or in_memory_bytes + size_bytes <= self.store_bytes
            or back_bytes + size_bytes <= self.store_bytes // BACK_SHARE
        )

    def read(self, entry: Custody) -> None:
        """Have a spilled chunk's bytes read; there is room for them from now on."""
        self.pending_bytes += entry.size_bytes
        self.spool.read(entry)

    def read_done(self, number: int) -> None:
        """A read has ended, whatever became of its chunk meanwhile."""
        self.pending_bytes -= self.spool.read_done(number)

    def conservation(self) -> dict[str, int]:
        """Return the terms of the sum; `balance` is zero when nothing was lost or doubled."""
        terms = {
            "taken_in": self.taken_in_count,
            "originated": self.originated_count,
            "restored": self.restored_count,
            "sent_on": self.sent_on_count,
            "delivered": self.delivered_count,
            "replaced": self.replaced_count,
            "refused": self.refused.total(),
            "expired": self.expired.total(),
            "dropped": self.dropped.total(),
            "held": self.held_count,
        }
        came = terms["taken_in"] + terms["originated"] + terms["restored"]
        terms["balance"] = 2 * came - sum(terms.values())
        return terms

    def take(self, entry: Custody) -> None:
        """Answer for a chunk from now on."""
        self.taken_in_count += 1
        self.taken_in_bytes += entry.size_bytes
        self.held_bytes += entry.size_bytes
        self._enter(entry)
        self.wheel.add(entry, entry.expires_at)

    def restore(self, entry: Custody) -> None:
        """Answer for a chunk that an earlier process of this router had taken."""
        self.restored_count += 1
        self._enter(entry)
        self.held_bytes += entry.size_bytes
        self.spilled_bytes += entry.size_bytes
        self.wheel.add(entry, entry.expires_at)

    def originate(self, entry: Custody) -> None:
        """Answer for a chunk that begins here: a report, or what a service emitted."""
        entry.is_originated = True
        self.originated_count += 1
        self.held_bytes += entry.size_bytes
        self._enter(entry)
        self.wheel.add(entry, entry.expires_at)

    def _enter(self, entry: Custody) -> None:
        self._entry_count += 1
        self._serial += 1
        entry.serial = self._serial

    def passed_on(self, entry: Custody, to_router: bool) -> None:
        """The next custodian, or the destination, has the chunk."""
        if to_router:
            self.sent_on_count += 1
            self.sent_on_bytes += entry.size_bytes
        else:
            self.delivered_count += 1
            self.delivered_bytes += entry.size_bytes
        self._forget(entry)

    def give_up(self, entry: Custody, how: Leaving, reason: Reason, detail: str) -> None:
        """End custody without passing the chunk on; its source is told when it asked."""
        if self.tap.is_on:
            words = (how.value, reason.word, detail)
            self.tap.saw_chunk(Point.ENDED, entry, None, ": ".join(filter(None, words)))
        if how is Leaving.REFUSED:
            self.refused[reason] += 1
        elif how is Leaving.EXPIRED:
            self.expired[reason] += 1
        elif how is Leaving.DROPPED:
            assert entry.visit is not None, "only a service drops"
            name = entry.visit.service_name
            if name not in self.dropped and len(self.dropped) >= MAX_DROPPING_NAMES_COUNT:
                name = OTHER_NAME
            self.dropped[name] += 1
        else:
            self.replaced_count += 1
        is_removal_awaited = False
        if entry.flow.reports_to is not None:
            is_removal_awaited = self._report(entry, entry.flow.reports_to, how, reason, detail)
        elif entry.flow.is_report:
            self.undeliverable_reports_count += 1
        self._forget(entry, is_removal_awaited)

    def _report(
        self, entry: Custody, source_na: int, how: Leaving, reason: Reason, detail: str
    ) -> bool:
        """Have the source told; True: when the chunk's record is gone for good."""
        source = entry.head[20:40]
        outcome = _OUTCOMES[how]
        if outcome is Outcome.DELIVERED:
            self._reports.add(source, source_na, DeliveryReport(entry.chunk_id, outcome, 0, detail))
            return False
        # Whoever passed it on may do so again, and say so to nobody, when their session was lost.
        is_second_hand = entry.flow.ingress not in (source, b"")
        report = DeliveryReport(entry.chunk_id, outcome, int(reason), detail, is_second_hand)
        if entry.has_left_a_copy:
            self._reports.add(source, source_na, indeterminate(report))
            return False
        if entry.record_number:
            self._reports.add_after_removal(entry.record_number, source, source_na, report)
            return True
        self._reports.add(source, source_na, report)
        return False

    def _forget(self, entry: Custody, is_removal_awaited: bool = False) -> None:
        entry.phase = Phase.GONE
        bucket = entry.bucket
        if bucket is not None:
            del bucket[entry]
            entry.bucket = None
        self.held_bytes -= entry.size_bytes
        self._entry_count -= 1
        if entry.is_spilled:
            self.spilled_bytes -= entry.size_bytes
            entry.is_spilled = False
        if entry.record_number:
            self.spool.forget(entry, must_last=is_removal_awaited)
        entry.release()


_OUTCOMES = {
    Leaving.REFUSED: Outcome.REFUSED,
    Leaving.DROPPED: Outcome.REFUSED,
    Leaving.EXPIRED: Outcome.EXPIRED,
    # A service took the chunk in the destination's place and sent others instead: its journey ended
    # as its source wanted when it asked for that service.
    Leaving.REPLACED: Outcome.DELIVERED,
}
