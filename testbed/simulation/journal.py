"""The journals: what each party says that it did, kept by somebody who does not die with it.

Three kinds of party write: senders (S), receivers (D) and custodians (C). Every line names one
operation: the number that the sending application gave to one chunk and wrote into its payload, so
that it can be followed whatever chunk ids, copies and services do.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Entry(Enum):
    """What a line says."""

    SUBMITTED = "S submitted"
    """The application gave a chunk to its endpoint, which took it."""
    ENDED = "S ended"
    """The endpoint told how it ended: `outcome` is delivered, refused, expired or in_custody."""
    FORGOT = "S forgot"
    """The sending process died before it knew."""
    TAKEN = "D taken"
    """The receiving application took the chunk."""
    REFUSED = "D refused"
    """The receiving application said no."""
    DIED = "D died"
    """The receiving process was killed; of no operation. `outcome`: `NO_POWER` or nothing."""
    TOOK = "C took"
    """A custodian told its neighbour that it has the chunk."""
    PASSED = "C passed"
    """A custodian was told by the next one, named in `outcome`, that it has the chunk."""
    GAVE_UP = "C gave up"
    """A custodian ended its custody and reported to the source."""
    FORGOTTEN = "C forgotten"
    """A custodian died with the chunk in its memory only."""


NO_POWER = "no power"


class Line(NamedTuple):
    """One line of a journal."""

    time_s: float
    node: str
    epoch: int
    entry: Entry
    op: int
    source: str
    chunk_id: int
    size: int
    digest: str
    """Of the payload, the receiver and the services still to run, as they should be (S) or were
    found (D)."""
    outcome: str
    is_indeterminate: bool = False
    """A failed operation that may have happened all the same."""

    def text(self) -> str:
        """Return the line as people read it."""
        outcome = self.outcome + ("?" if self.is_indeterminate else "")
        return (
            f"{self.time_s:12.6f}  {self.node}.{self.epoch}  {self.entry.value} op {self.op}  "
            f"{self.source}/{self.chunk_id:016x}  {self.size} B {self.digest} {outcome}"
        )


class Journal:
    """All lines of a run in the order of time, and whoever listens to them."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
