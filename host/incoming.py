"""One file being received, without any I/O: what is there, what is missing, what to answer.

States: OPENING (the disk looks for an earlier part) -> RECEIVING -> FINISHING (all is there, digest
and renaming under way) -> gone. Source: docs/protocol/file-transfer.md, "Receiver".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.host.file_format import MAX_RANGES_COUNT, Answer, AnswerState, Finish
from packetcloud.host.ranges import RangeSet

SYNC_BYTES = 128 << 20
SYNC_S = 5.0
"""What arrived is made safe every 128 MiB or 5 s: so much is sent again after a power cut."""
MAX_PIECES_COUNT = 65_536
"""Separate ranges of one file: 1 MiB of memory. An honest sender makes as many as its window."""


class IncomingState(Enum):
    """Where one incoming file stands."""

    OPENING = "opening"
    RECEIVING = "receiving"
    FINISHING = "finishing"
    GONE = "gone"


_TRANSITIONS = {
    IncomingState.OPENING: {IncomingState.RECEIVING, IncomingState.GONE},
    IncomingState.RECEIVING: {IncomingState.FINISHING, IncomingState.GONE},
    IncomingState.FINISHING: {IncomingState.RECEIVING, IncomingState.GONE},
    IncomingState.GONE: set(),
}


class DataVerdict(Enum):
    """What to do with a piece of data."""

    WRITE = "write"
    HAVE = "have"
    """It is there already."""
    BAD = "bad"
    """It does not belong to this file."""


@dataclass(frozen=True, slots=True)
class Question:
    """An OFFER or FINISH that waits for its answer."""

    transfer_id: bytes
    number: int


class Incoming:
    """One file from one source. Several transfers of the same content may share it (resumed)."""

    def __init__(self, source: bytes, file_key: bytes, name: str, size_bytes: int, now: float):
        self.source = source
        self.file_key = file_key
        self.name = name
        self.size_bytes = size_bytes
        self.state = IncomingState.OPENING
        self.transfer_ids: set[bytes] = set()
        self.written = RangeSet()
        self.digest: bytes | None = None
        """From the sender's FINISH, once nothing is missing."""
        self.last_active_s = now
        self.started_s = now
        self._reserved = RangeSet()
        self._questions: list[Question] = []
        self._unsafe_bytes = 0
        self._synced_s = now

    def opened(self, restored: RangeSet) -> None:
        """The part is open and holds `restored` from an earlier run."""
        self.written = restored.copy()
        self._reserved = restored.copy()
        self.move(IncomingState.RECEIVING)

    def asked(self, transfer_id: bytes, number: int, now: float) -> None:
        """Remember to answer an OFFER; only the latest question of a transfer counts."""
        self.last_active_s = now
        self.transfer_ids.add(transfer_id)
        self._questions = [q for q in self._questions if q.transfer_id != transfer_id]
        self._questions.append(Question(transfer_id, number))

    def data(self, start: int, end: int, now: float) -> DataVerdict:
        """Decide about the piece [start, end); WRITE reserves it until `wrote` or `not_written`."""
        self.last_active_s = now
        if end > self.size_bytes or self.state is IncomingState.OPENING:
            return DataVerdict.BAD
        if self.state is not IncomingState.RECEIVING or self.written.covers(start, end):
            return DataVerdict.HAVE
        if len(self._reserved) >= MAX_PIECES_COUNT and not self._reserved.covers(start, end):
            return DataVerdict.BAD
        self._reserved.add(start, end)
        return DataVerdict.WRITE

    def reach(self, pieces: list[tuple[int, int]]) -> int:
        """Return how far the file will have no gap once `pieces` are written too."""
        ahead = self.written.copy()
        for start, end in pieces:
            ahead.add(start, end)
        return ahead.end_of_first()

    def wrote(self, pieces: list[tuple[int, int]], now: float) -> None:
        """`pieces` are in the file."""
        self.last_active_s = now
        before = self.written.total_bytes
        for start, end in pieces:
            self.written.add(start, end)
        self._unsafe_bytes += self.written.total_bytes - before

    def not_written(self) -> None:
        """A write failed: what was reserved and is not there is missing again."""
        self._reserved = self.written.copy()

    def finish_asked(self, finish: Finish, now: float) -> bool:
        """The sender says it is all; return whether it belongs to this file."""
        if finish.size_bytes != self.size_bytes:
            return False
        self.asked(finish.transfer_id, finish.question, now)
        self.digest = finish.digest
        return True

    @property
    def is_whole(self) -> bool:
        return self.written.covers(0, self.size_bytes)

    def sync_due(self, now: float) -> bool:
        """Whether what was written should be made safe now."""
        late = now - self._synced_s >= SYNC_S
        return self._unsafe_bytes >= SYNC_BYTES or (late and self._unsafe_bytes > 0)

    def sync_begins(self, now: float) -> RangeSet:
        """Return what the journal may claim once the data is synced."""
        self._unsafe_bytes = 0
        self._synced_s = now
        return self.written.copy()

    def answers(self, state: AnswerState, digest: bytes = b"", text: str = "") -> list[Answer]:
        """Return the answers to all open questions, which are none afterwards."""
        questions, self._questions = self._questions, []
        missing: tuple[tuple[int, int], ...] = ()
        if state is AnswerState.WANTED:
            missing = tuple(self.written.missing(self.size_bytes))[:MAX_RANGES_COUNT]
        return [
            Answer(
                question.transfer_id,
                question.number,
                state,
                self.written.total_bytes,
                digest or bytes(32),
                text,
                missing,
            )
            for question in questions
        ]

    @property
    def has_questions(self) -> bool:
        return bool(self._questions)

    def move(self, state: IncomingState) -> None:
        if state not in _TRANSITIONS[self.state]:
            raise LocalMisuseError(f"{self.state.value} cannot become {state.value}")
        self.state = state
