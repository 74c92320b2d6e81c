"""Meters: for how long how many VIs ran for each reservation, as chained records.

What nobody saw is not counted: between two looks the smaller number of VIs counts, and nothing
while the controller was away. A record is kept until the domain controller has taken it. What is
open is written down once a minute: a controller that is killed forgets no more than that, in the
tenant's favour. Source: docs/reference/usage-records.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from packetcloud.cloudlet.core import records
from packetcloud.cloudlet.core.commands import Command, Note
from packetcloud.cloudlet.core.records import Records
from packetcloud.cloudlet.core.saved import Meter, Piece, Reserved, Saved
from packetcloud.domain_controller.core.prices import Meter as Kind
from packetcloud.domain_controller.core.usage import FIRST_PREVIOUS, MAX_RECORD_MS

RECORD_MS = 60_000
"""A record is closed after so long while somebody takes it; else after the longest that may be."""
CHECKPOINT_MS = 60_000
"""What is open is written down so often."""
MAX_LOOK_MS = 5000
"""After so long without a look, what was between two looks is not counted."""
MAX_RECORDS_COUNT = 500
"""Records of one message."""


class Metering:
    """All meters of a cloudlet.

    Args:
        cloudlet: its name at the domain.
        new_name: returns a name that no meter ever had.
    """

    def __init__(self, cloudlet: str, saved: Saved, new_name: Callable[[], str]) -> None:
        self.lost_ms = 0
        """VI time that was not counted as too many records wait."""
        self._records = Records(cloudlet, saved)
        self._saved = saved
        self._new_name = new_name
        self._at_ms: int | None = None
        self._vis: dict[str, int] = {}

    def tick(self, at_ms: int, running: Mapping[str, int], *, is_sent_soon: bool) -> list[Command]:
        """Look what runs.

        Args:
            running: VIs by reservation, no more than are reserved.
            is_sent_soon: somebody takes records now.
        """
        before_ms, self._at_ms = self._at_ms, at_ms
        vis, self._vis = self._vis, dict(running)
        is_seen = before_ms is not None and 0 < at_ms - before_ms <= MAX_LOOK_MS
        lost_ms = self.lost_ms
        for name, count in running.items():
            counted = min(count, vis.get(name, 0))
            if is_seen and counted and before_ms is not None:
                one = self._saved.reserved[name]
                for begin, end in _within(one, before_ms, at_ms):
                    self._add(one, Piece(begin, end, counted, one.terms))
        longest_ms = RECORD_MS if is_sent_soon else MAX_RECORD_MS - MAX_LOOK_MS
        for name, meter in list(self._saved.meters.items()):
            self._look_at(name, meter, at_ms, longest_ms)
        if self.lost_ms > lost_ms == 0:
            kept = records.MAX_KEPT_COUNT
            text = f"{kept} usage records wait for a domain controller; more are lost"
            return [Note(text, True)]
        return []

    def _add(self, one: Reserved, piece: Piece) -> None:
        meter = self._saved.meters.get(one.name)
        if meter is None:
            meter = Meter(self._new_name(), 0, FIRST_PREVIOUS.hex())
            self._saved.meters[one.name] = meter
        open_ = meter.open
        if piece.begin_ms < (open_.end_ms if open_ is not None else meter.until_ms):
            return  # the clock was set back: that time was counted
        if open_ is not None and open_.goes_on_with(piece):
            meter.open = Piece(open_.begin_ms, piece.end_ms, piece.vis, piece.terms)
            return
        self._close(one.name, meter)
        meter.open = piece

    def _look_at(self, name: str, meter: Meter, at_ms: int, longest_ms: int) -> None:
        piece = meter.open
        if piece is not None:
            is_over = name not in self._saved.reserved or piece.end_ms < at_ms
            if is_over or piece.end_ms - piece.begin_ms >= longest_ms:
                self._close(name, meter)
            elif meter.written is None or meter.written.begin_ms != piece.begin_ms:
                if piece.end_ms - piece.begin_ms >= CHECKPOINT_MS:
                    meter.written = piece
            elif piece.end_ms - meter.written.end_ms >= CHECKPOINT_MS:
                meter.written = piece
        if meter.open is None and name not in self._saved.reserved:
            del self._saved.meters[name]  # its records know all that is to be known of it

    def _close(self, name: str, meter: Meter) -> None:
        piece, meter.open, meter.written = meter.open, None, None
        if piece is None:
            return
        meter.until_ms = piece.end_ms
        length_ms = (piece.end_ms - piece.begin_ms) * piece.vis
        span_ms = (piece.begin_ms, piece.end_ms)
        if not self._records.add(meter, name, piece.terms, Kind.VI_TIME, span_ms, length_ms):
            self.lost_ms += length_ms


def _within(one: Reserved, begin_ms: int, end_ms: int) -> Iterator[tuple[int, int]]:
    """Yield what of a span of time belongs to occurrences of a slot."""
    for begin, end in one.occurrences:
        first, last = max(begin, begin_ms), min(end, end_ms)
        if first < last:
            yield first, last
