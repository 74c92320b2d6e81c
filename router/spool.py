"""What of the chunks in custody is on disk, and what may go there.

Bookkeeping without any I/O: jobs go out through `submit`, answers come back through `done`. Two
uses, one log: a chunk is *spilled* when memory runs short while its next hop is away or BUSY, and
with durable custody it is *stored* before it is acknowledged. A record lives until its chunk leaves
custody, so a chunk is written once.
Source: docs/decisions/0010; docs/reference/router.md, "The spool".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from packetcloud.chunk.hop.api import Buffer
from packetcloud.router.chunk_record import Record
from packetcloud.router.disk_jobs import (
    TRY_AGAIN_S,
    DiskFigures,
    DiskState,
    Job,
    Put,
    PutDone,
    Read,
    Remove,
    TryAgain,
)
from packetcloud.router.settings import SpoolSettings

if TYPE_CHECKING:
    from packetcloud.router.custody import Custody

MAX_QUEUED_BYTES = 32 << 20
"""Chunks on their way to the disk: a second of a slow one. Above it nothing more is written: chunks
that would have to be durable are refused `store_full`, others stay in memory."""


class Lying(Enum):
    """Where a chunk's record stands."""

    NOWHERE = "nowhere"
    WRITING = "writing"
    ON_DISK = "on disk"


class Spool:
    """The records of one router.

    Args:
        settings: None: there is no spool, and nothing is ever written.
        submit: gives a job to the disk worker.
        first_number: greater than that of any record that an earlier process may have left.
        wall_ms: the wall clock, in ms since 1970.
    """

    def __init__(
        self,
        settings: SpoolSettings | None,
        submit: Callable[[Job], None],
        first_number: int,
        wall_ms: Callable[[], int],
    ) -> None:
        self.settings = settings
        self.is_durable = settings is not None and settings.is_durable
        """Custody is taken when the chunk is on disk."""
        self._submit = submit
        self._wall_ms = wall_ms
        self._next_number = first_number
        self._entries: dict[int, Custody] = {}
        """Chunks with a record, by its number."""
        self._flow_bytes: dict[int, int] = {}
        self.used_bytes = 0
        """Chunks on disk or on their way there."""
        self.queued_bytes = 0
        self._reading: dict[int, int] = {}
        """Bytes that are being read, by the number of the record."""
        self.reading_bytes = 0
        self._back: dict[int, int] = {}
        """Bytes that came back from disk and are in memory, by the number of the record."""
        self.back_bytes = 0
        self.error = ""
        """Why the disk takes nothing now; empty while it does."""
        self.try_again_at = float("inf")
        self.state = DiskState(0, 0, 0)
        self.figures = DiskFigures()
        self.spilled_count = 0
        self.spilled_bytes_total = 0
        self.stored_count = 0
        self.restored_count = 0
        self.recovered_count = 0
        self.refused: Counter[str] = Counter()
        """Chunks that were not written, by reason."""

    def start_at(self, number: int) -> None:
        """Use no number below this one: with a clock set back, an earlier process may have."""
        self._next_number = max(self._next_number, number)

    @property
    def is_on(self) -> bool:
        return self.settings is not None

    @property
    def count(self) -> int:
        return len(self._entries)

    def flow_bytes(self, label: int) -> int:
        return self._flow_bytes.get(label, 0)

    def reason_to_refuse(self, label: int, size_bytes: int) -> str:
        """Say why a chunk cannot be written now; empty if it can."""
        settings = self.settings
        if settings is None:
            return "off"
        if self.error:
            return "disk_error"
        if self.used_bytes + size_bytes > settings.max_bytes:
            return "full"
        if self._flow_bytes.get(label, 0) + size_bytes > settings.max_flow_bytes:
            return "flow_full"
        if self.queued_bytes + size_bytes > MAX_QUEUED_BYTES:
            return "queue_full"
        return ""

    def put(self, entry: Custody, pieces: Sequence[Buffer], now: float, must_last: bool) -> bool:
        """Have a chunk written; False, and counted, when that cannot be.

        Args:
            pieces: its bytes as they lie in custody; they must stay as they are until the answer.
        """
        size = sum(map(len, pieces))
        reason = self.reason_to_refuse(entry.flow.label, size)
        if reason:
            self.refused[reason] += 1
            return False
        number, self._next_number = self._next_number, self._next_number + 1
        wall_ms = self._wall_ms()
        taken_ms = wall_ms - int((now - entry.taken_at) * 1000)
        expires_ms = wall_ms + int((entry.expires_at - now) * 1000)
        visit = entry.visit
        executed: frozenset[bytes] = frozenset()
        if visit is not None:
            executed = visit.executed(entry.flow.steps[: visit.step_index])
        record = Record(
            number,
            max(0, taken_ms),
            expires_ms,
            entry.is_originated,
            tuple(sorted(executed)),
            entry.flow.ingress,
        )
        self._keep(entry, number, size)
        entry.lying = Lying.WRITING
        entry.is_updated = False
        self.queued_bytes += size
        self._submit(Put(record, tuple(pieces), size, must_last))
        return True

    def recovered(self, entry: Custody, number: int, size: int) -> None:
        """An earlier process left this chunk's record."""
        self._keep(entry, number, size)
        entry.lying = Lying.ON_DISK
        self.recovered_count += 1
        self._next_number = max(self._next_number, number + 1)

    def read(self, entry: Custody) -> None:
        """Have a spilled chunk's bytes read."""
        entry.is_loading = True
        self._reading[entry.record_number] = entry.size_bytes
        self.reading_bytes += entry.size_bytes
        self._submit(Read(entry.record_number, entry.record_bytes))

    def read_done(self, number: int) -> int:
        """Take in that a read has ended; return the bytes that it was of."""
        size = self._reading.pop(number, 0)
        self.reading_bytes -= size
        return size

    def came_back(self, entry: Custody) -> None:
        """The bytes of a chunk on disk are in memory again."""
        self._back[entry.record_number] = entry.size_bytes
        self.back_bytes += entry.size_bytes

    def is_back(self, entry: Custody) -> bool:
        return entry.record_number in self._back

    def let_go(self, entry: Custody) -> None:
        """They are not, or the chunk has left custody."""
        self.back_bytes -= self._back.pop(entry.record_number, 0)

    def forget(self, entry: Custody, *, must_last: bool = False) -> None:
        """The chunk has left custody: its record is done with.

        Args:
            must_last: the disk answers when the record will not be found again.
        """
        number = entry.record_number
        if number not in self._entries:
            return
        if self._back:
            self.let_go(entry)
        if entry.lying is Lying.WRITING:
            self.queued_bytes -= entry.record_bytes
        self._drop(entry)
        self._submit(Remove(number, must_last))

    def entry(self, number: int) -> Custody | None:
        """Return the chunk of a record; None when it has left custody meanwhile."""
        return self._entries.get(number)

    def written(self, result: PutDone) -> Custody | None:
        """Take in how a put ended; return its chunk, None when that is gone."""
        entry = self._entries.get(result.number)
        if entry is None:
            return None
        self.queued_bytes -= entry.record_bytes
        entry.lying = Lying.ON_DISK
        if result.error:
            self.refused["disk_error"] += 1
            self._drop(entry)
        return entry

    def disk_is(self, state: DiskState, now: float) -> None:
        """Take in what the disk is like after a group of jobs."""
        self.state = state
        if state.sync_s is not None:
            self.figures.sync.add(int(state.sync_s * 1e9))
            self.figures.groups_count += 1
        if state.error:
            self.figures.errors_count += 1
            self.try_again_at = now + TRY_AGAIN_S
        else:
            self.try_again_at = float("inf")
        self.error = state.error

    def handle_timeout(self, now: float) -> None:
        """Ask a disk that took nothing whether it does again."""
        if now >= self.try_again_at:
            self.try_again_at = now + TRY_AGAIN_S
            self._submit(TryAgain())

    def _keep(self, entry: Custody, number: int, size: int) -> None:
        self._entries[number] = entry
        entry.record_number = number
        entry.record_bytes = size
        self.used_bytes += size
        label = entry.flow.label
        self._flow_bytes[label] = self._flow_bytes.get(label, 0) + size

    def _drop(self, entry: Custody) -> None:
        """It has no record any more."""
        label, size = entry.flow.label, entry.record_bytes
        del self._entries[entry.record_number]
        self.used_bytes -= size
        self._flow_bytes[label] -= size
        if not self._flow_bytes[label]:
            del self._flow_bytes[label]
        entry.record_number = 0
        entry.lying = Lying.NOWHERE
