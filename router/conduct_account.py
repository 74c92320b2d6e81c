"""What a VI of the cloudlet's table did that it may not do, and what it may still send.

Kept for as long as the table lists the VI, whatever sessions it has: who attaches anew has neither
a clean record nor new credit. Source: docs/reference/cloudlet-table.md.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from enum import StrEnum

from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.router.cloudlet_table import OutputBudget

MAX_EVIDENCE_COUNT = 8
"""Chunks that are named for what was done with them, the last ones; the counts are of all."""
OUTPUT_ALLOWANCE_BYTES = 1024
"""What may be added to any chunk, beside the ratio: headers and tags of a cipher."""
MAX_SAVED_BYTES = 16 << 20
"""What a VI may put by for later chunks: a service that gathers sixteen and sends them as one."""
MAX_SAVED_CHUNKS = 256


class Violation(StrEnum):
    """What a VI did that it may not do."""

    EMIT = "emit"
    """A restricted one made chunks."""
    REDIRECT = "redirect"
    """A restricted one sent a chunk elsewhere."""
    OUTPUT = "output"
    """A restricted one made more of a chunk than its budget allows."""
    DESTINATION = "destination"
    """It sent something where its service may send nothing."""
    SURPLUS = "surplus"
    """It gave more verdicts than it got tasks: on tasks of others, or twice."""
    BUDGET = "budget"
    """It sent more bytes or chunks, for those it got, than its service may."""
    PAYLOAD = "payload"
    """It sent another payload, and its service declared that it changes none."""
    VERDICT = "verdict"
    """It gave a verdict of a kind that its service did not declare."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One violation: which chunk, and what is wrong."""

    at: float
    kind: Violation
    source: GUID
    chunk_id: ChunkId
    text: str


class ConductAccount:
    """The account of one VI."""

    __slots__ = ("evidence", "saved_bytes", "saved_chunks", "violations")

    def __init__(self) -> None:
        self.violations: Counter[Violation] = Counter()
        self.evidence: deque[Evidence] = deque(maxlen=MAX_EVIDENCE_COUNT)
        self.saved_bytes = 0.0
        self.saved_chunks = 0.0

    def note(self, evidence: Evidence) -> None:
        """Take in a violation."""
        self.violations[evidence.kind] += 1
        self.evidence.append(evidence)

    def spend(
        self, budget: OutputBudget, in_bytes: int, out_bytes: int, out_chunks: int
    ) -> str | None:
        """Settle one chunk with what was made of it; returns why that is too much, if it is.

        What is too much is not sent, so it neither costs nor earns anything.

        Args:
            in_bytes: payload that the VI got.
            out_bytes: payload that it sends on, and whole chunks that it makes.
            out_chunks: one if the chunk goes on, and those that it makes.
        """
        left_bytes, left_chunks = self.saved_bytes, self.saved_chunks
        if budget.bytes_ratio is not None:
            have = left_bytes + budget.bytes_ratio * in_bytes + OUTPUT_ALLOWANCE_BYTES
            if out_bytes > have:
                return f"{out_bytes} bytes of {in_bytes}, allowed: {int(have)}"
            left_bytes = min(have - out_bytes, MAX_SAVED_BYTES)
        if budget.chunks_ratio is not None:
            have = left_chunks + budget.chunks_ratio
            if out_chunks > have:
                return f"{out_chunks} chunks of one, allowed: {int(have)}"
            left_chunks = min(have - out_chunks, MAX_SAVED_CHUNKS)
        self.saved_bytes, self.saved_chunks = left_bytes, left_chunks
        return None
