"""Chunks that wait for their next hop: while it is away, has no room for their flow, or refused
them for now. What memory has no room for lies on disk meanwhile.

A line is left only at its front, so a flow keeps its order. Of a flow whose next hop says BUSY a
little stays in the session: its settlement is the sign to look at the line again.
Source: docs/decisions/0010; docs/reference/router.md, "Waiting".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from packetcloud.chunk.reasons import Reason
from packetcloud.router.custody import Custody, Leaving, Phase
from packetcloud.router.custody_book import CustodyBook
from packetcloud.router.disk_jobs import ReadDone
from packetcloud.router.lines import Line
from packetcloud.router.settings import MIB, RouterSettings
from packetcloud.router.spool import Lying

if TYPE_CHECKING:
    from packetcloud.router.attachment import Attachment
    from packetcloud.router.routes import NextHop

LINE_WINDOW_BYTES = 8 * MIB
"""Of one line, given to the session and not settled: what comes back from disk is not to fill the
memory that it had left."""
BUSY_WINDOW_BYTES = MIB
"""The same while its next hop says BUSY: what uses the room at once when there is some again."""
LOAD_AHEAD_BYTES = 4 * MIB
"""Read from disk before its turn: 20 ms of a disk that reads 200 MB/s."""
READ_AGAIN_S = 0.1
"""While there is no memory for what should come back: how often that is looked at."""
MAX_SHORT_LINES_COUNT = 64
"""Lines that are looked at then."""
RETRY_FIRST_S = 0.25
RETRY_CAP_S = 2.0
"""A chunk that its next custodian has no room for is offered again, as a host does it."""
RETRYABLE_REASONS = frozenset({int(Reason.STORE_FULL), int(Reason.SHUTTING_DOWN)})
"""Refusals that time may heal; the chunk's own deadline bounds it."""

Send = Callable[["Custody", "NextHop", "Attachment", float], None]
AttachmentOf = Callable[["NextHop", float], "Attachment | None"]


class WaitingRoom:
    """All lines of a router.

    Args:
        send: gives a chunk to the session of its next hop.
        attachment_of: returns the session to use, None while the next hop is away.
    """

    def __init__(
        self, settings: RouterSettings, book: CustodyBook, send: Send, attachment_of: AttachmentOf
    ) -> None:
        self._book = book
        self._spool = book.spool
        self._send = send
        self._attachment_of = attachment_of
        self._memory_lines: dict[Line, None] = {}
        """Lines with something that could be spilled."""
        self.memory_bytes = 0
        """What waits in memory and could be spilled."""
        self._short: dict[tuple[NextHop, int], None] = {}
        """Lines, by next hop and label, that wait for memory to come back from disk."""
        self.next_try_at = math.inf
        self.retried_count = 0
        self.damaged_count = 0
        self.configure(settings)

    def configure(self, settings: RouterSettings) -> None:
        self._detached_hold_s = settings.detached_hold_s
        self._detached_hold_bytes = settings.detached_hold_bytes

    def is_full(self, hop: NextHop, label: int, size_bytes: int) -> bool:
        """Tell whether no further chunk of this flow may wait for a next hop that is away.

        A flow whose share of the spool is used up is not refused: its chunks stay in the hop, whose
        credit for the flow then says BUSY.
        """
        if hop.waiting_bytes + size_bytes <= self._detached_hold_bytes:
            return False
        if not self._spool.is_on:
            return True
        return self._spool.reason_to_refuse(label, size_bytes) in ("full", "disk_error")

    def must_wait(self, hop: NextHop, attachment: Attachment, label: int) -> bool:
        """Tell whether a chunk of this flow has to stand in line although its next hop is here."""
        if hop.waiting.count and label in hop.waiting.by_label:
            return True
        is_busy = attachment.neighbour.is_busy(label)
        return is_busy and hop.leaving.get(label, 0) >= BUSY_WINDOW_BYTES

    def hold(self, entry: Custody, hop: NextHop, now: float, *, is_back: bool = False) -> None:
        """Put a chunk in line; nothing reads its bytes now."""
        is_away = self._attachment_of(hop, now) is None
        size = entry.size_bytes
        # What has a record asks for no further room on disk, whatever the disk says now.
        has_record = bool(entry.record_number)
        if is_away and not has_record and self.is_full(hop, entry.flow.label, size):
            detail = f"too much waits for {hop.name} already"
            self._book.give_up(entry, Leaving.REFUSED, Reason.STORE_FULL, detail)
            return
        if hop.waiting_bytes + size <= self._detached_hold_bytes:
            may_move = True
        elif has_record:
            may_move = not entry.is_updated
        else:
            may_move = not self._spool.reason_to_refuse(entry.flow.label, size)
        if may_move:
            entry.move_out_of_the_hop()
        entry.next_hop = hop
        entry.phase = Phase.HELD
        entry.due_at = now + self._detached_hold_s if is_away else math.inf
        if not is_away and entry.retry_at > now:
            entry.due_at = entry.retry_at
        line = hop.waiting.add(entry, is_back=is_back)
        if may_move:
            self._keep_in_memory(line, entry)
        if entry.due_at < entry.wake_at:
            self._book.wheel.wake_by(entry, entry.due_at)
        self._spill(now)

    def try_again_later(self, entry: Custody, hop: NextHop, now: float) -> None:
        """The next custodian has no room for a chunk now: it goes first when it is tried again."""
        wait_s = min(RETRY_CAP_S, RETRY_FIRST_S * (1 << min(entry.retries, 10)))
        entry.retries += 1
        self.retried_count += 1
        entry.retry_at = now + wait_s
        self.hold(entry, hop, now, is_back=True)

    def held_until(self, hop: NextHop) -> float:
        """Return until when a chunk waits for a next hop that is away, whenever it came."""
        return hop.away_since + self._detached_hold_s

    def stop_waiting(self, entry: Custody) -> None:
        """Take a chunk out of its line, if it is in one."""
        hop = entry.next_hop
        if hop is None or entry.phase is not Phase.HELD:
            return
        line = hop.waiting.by_label.get(entry.flow.label)
        if line is not None and entry in line.entries:
            self._spare(line, entry)
            hop.waiting.remove(entry)

    def pump(self, hop: NextHop, now: float) -> None:
        """Send what may leave the lines of a next hop."""
        for label in list(hop.waiting.by_label):
            attachment = self._attachment_of(hop, now)
            if attachment is None:
                return
            self._pump_line(hop, label, attachment, now)

    def left(self, hop: NextHop, label: int, now: float) -> None:
        """A chunk of this flow has left the session of its next hop."""
        if hop.waiting.count and label in hop.waiting.by_label:
            attachment = self._attachment_of(hop, now)
            if attachment is not None:
                self._pump_line(hop, label, attachment, now)
        if self._short:
            self.read_more(now)

    def read_more(self, now: float) -> None:
        """Go on with lines that wait for memory, until there is none; call it at `next_try_at`."""
        self.next_try_at = math.inf
        for hop, label in list(islice(self._short, MAX_SHORT_LINES_COUNT)):
            del self._short[hop, label]
            attachment = self._attachment_of(hop, now)
            if attachment is not None:
                self._pump_line(hop, label, attachment, now)
            if (hop, label) in self._short:
                break
        if self._short:
            self.next_try_at = now + READ_AGAIN_S

    def away(self, hop: NextHop, now: float) -> None:
        """The next hop went away: whoever stands in line for it waits so long and no longer."""
        due_at = now + self._detached_hold_s
        for entry in hop.waiting:
            entry.due_at = due_at
            self._book.wheel.wake_by(entry, min(due_at, entry.expires_at))
            if not entry.is_updated and self._spool.is_back(entry):
                self._spare(hop.waiting.by_label[entry.flow.label], entry)
                self._let_go(hop, entry)

    def _pump_line(self, hop: NextHop, label: int, attachment: Attachment, now: float) -> None:
        neighbour = attachment.neighbour
        while neighbour.is_up and (line := hop.waiting.by_label.get(label)) is not None:
            entry = next(iter(line.entries))
            leaving = hop.leaving.get(label, 0)
            if (
                entry.retry_at > now
                or leaving >= LINE_WINDOW_BYTES
                or (leaving and entry.retries)
                or (leaving >= BUSY_WINDOW_BYTES and neighbour.is_busy(label))
            ):
                return
            if entry.is_spilled:
                self._load(hop, label, line, now)
                return
            self.stop_waiting(entry)
            self._send(entry, hop, attachment, now)
            if entry.retries:
                return  # the others wait until it is known whether there is room now

    # --- disk -----------------------------------------------------------------------------------

    def written(self, entry: Custody, error: str, now: float) -> None:
        """A chunk in line was written to disk, or was not."""
        hop = entry.next_hop
        if entry.phase is not Phase.HELD or hop is None:
            return  # it left meanwhile; its record goes when it leaves custody
        line = hop.waiting.by_label.get(entry.flow.label)
        if line is None or entry not in line.entries or entry in line.in_memory:
            return
        if error:
            self._keep_in_memory(line, entry)
            return
        self._let_go(hop, entry)
        self._spill(now)

    def loaded(self, entry: Custody, result: ReadDone, now: float) -> None:
        """A chunk in line came back from disk, or cannot."""
        hop = entry.next_hop
        if result.error:
            self.cannot_be_read(entry, result)
        else:
            self._spool.restored_count += 1
            self.bring_back(entry, result.data)
            if hop is not None and self._attachment_of(hop, now) is None:
                self._let_go(hop, entry)
        if hop is not None:
            self.left(hop, entry.flow.label, now)

    def cannot_be_read(self, entry: Custody, result: ReadDone) -> None:
        """Give up a chunk whose record is damaged or gone: nothing altered is sent."""
        self.damaged_count += result.is_damaged
        self.stop_waiting(entry)
        detail = f"its copy on disk cannot be read: {result.error}"
        self._book.give_up(entry, Leaving.REFUSED, Reason.INTERNAL_ERROR, detail)

    def bring_back(self, entry: Custody, data: bytes) -> None:
        """Take the bytes that came back from the disk."""
        self._book.spilled_bytes -= entry.size_bytes
        if entry.phase is Phase.HELD and entry.next_hop is not None:
            entry.next_hop.waiting.memory_bytes += entry.size_bytes
        entry.take_back(data)
        self._spool.came_back(entry)

    def _load(self, hop: NextHop, label: int, line: Line, now: float) -> None:
        ahead = 0
        for entry in line.entries:
            ahead += entry.size_bytes
            if entry.is_spilled and not entry.is_loading:
                if not self._book.may_read(entry.size_bytes):
                    self._short[hop, label] = None
                    if self.next_try_at == math.inf:
                        self.next_try_at = now + READ_AGAIN_S
                        # Whoever arms a timer looks at the wheel after every event.
                        self._book.wheel.wake_by(entry, self.next_try_at)
                    return
                self._book.read(entry)
            if ahead >= LOAD_AHEAD_BYTES:
                return

    def _spill(self, now: float) -> None:
        """Have the oldest of the largest lines written while too much waits in memory."""
        settings = self._spool.settings
        if settings is None:
            return
        while self.memory_bytes > settings.memory_bytes and self._memory_lines:
            line = max(self._memory_lines, key=lambda one: one.memory_bytes)
            entry = next(iter(line.in_memory))
            if entry.record_number:
                # Written before, and its payload not changed since.
                self._spare(line, entry)
                self._let_go(entry.next_hop, entry)
                continue
            pieces = (entry.record_header(), entry.payload)
            if not self._spool.put(entry, pieces, now, must_last=False):
                return
            self._spare(line, entry)

    def _let_go(self, hop: NextHop | None, entry: Custody) -> None:
        """The bytes of a chunk in line are on disk, and only there from now on."""
        entry.drop_payload()
        self._spool.let_go(entry)
        self._book.spilled_bytes += entry.size_bytes
        self._spool.spilled_count += 1
        self._spool.spilled_bytes_total += entry.size_bytes
        if hop is not None:
            hop.waiting.memory_bytes -= entry.size_bytes

    def _keep_in_memory(self, line: Line, entry: Custody) -> None:
        if entry.lying is Lying.WRITING:
            return  # `written` decides
        if entry.is_updated and entry.record_number:
            return  # its record is the original, on which its custody rests: there is one for each
        line.keep_in_memory(entry)
        self._memory_lines[line] = None
        self.memory_bytes += entry.size_bytes

    def _spare(self, line: Line, entry: Custody) -> None:
        if entry in line.in_memory:
            line.spare(entry)
            self.memory_bytes -= entry.size_bytes
            if not line.in_memory:
                del self._memory_lines[line]
