"""Judges a run by its journals, knowing the promises and nothing of how they are kept.

- L1  nothing is lost in silence: what was accepted is delivered or reported as failed
- L2  a receiver's application takes each operation at most once
- L3  what it takes is what was sent, or what the services made of it
- L4  a custodian says "passed on" only when the next one has said "I take it"
- L5  an honest answer, in time: reported as failed and not as indeterminate means not delivered

L1 to L3 are judged twice by programs that share nothing: `StreamingJudge` line by line as the run
goes, `sorted_verdicts` afterwards over the sorted journal. Source: docs/reference/simulate.md.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packetcloud.testbed.simulation.journal import NO_POWER, Entry, Line

GRACE_S = 1.5
"""A report may be on its way for a second after the lifetime; the rest is one turn of a loop."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    promise: str
    op: int
    text: str
    time_s: float

    def __str__(self) -> str:
        where = f" (op {self.op})" if self.op else ""
        return f"{self.promise}{where} at {self.time_s:.6f} s: {self.text}"


class _Op:
    """What is known of one operation."""

    __slots__ = ("digest", "end", "ended_at_s", "forgot", "outcome", "submitted_s", "takers")

    def __init__(self, line: Line) -> None:
        self.digest = line.digest
        self.submitted_s = line.time_s
        self.takers: dict[str, float] = {}
        self.end = ""
        self.outcome = ""
        self.ended_at_s = 0.0
        self.forgot = False


class StreamingJudge:
    """Takes in the journals line by line.

    Args:
        must_end_by_s: by operation, when its sender must have been told how it ended.
        names: the short GUID of each machine that can take custody, by its name.
    """

    def __init__(self, must_end_by_s: Mapping[int, float], names: Mapping[str, str]) -> None:
        self.violations: list[Violation] = []
        self.ops: dict[int, _Op] = {}
        self._must_end_by_s = must_end_by_s
        self._guids = names
        self._took: Counter[tuple[int, str, str]] = Counter()
        self._died: set[tuple[str, float]] = set()
        self._lost_power: dict[str, float] = {}
        self._passed: Counter[tuple[int, str, str]] = Counter()

    @property
    def judged_count(self) -> int:
        """Operations whose end was told."""
        return sum(bool(op.end) for op in self.ops.values())

    def feed(self, line: Line) -> None:
        """Take in the next line."""
        match line.entry:
            case Entry.SUBMITTED:
                if line.op in self.ops:
                    self._violated("L2", line, "submitted twice")
                self.ops[line.op] = _Op(line)
            case Entry.TAKEN:
                self._taken(line)
            case Entry.DIED:
                self._died.add((line.node, line.time_s))
                if line.outcome == NO_POWER:
                    self._lost_power[line.node] = line.time_s
            case Entry.ENDED:
                self._ended(line)
            case Entry.FORGOT:
                self.ops[line.op].forgot = True
            case Entry.TOOK:
                self._took[line.op, self._guids[line.node], line.outcome] += 1
            case Entry.PASSED:
                self._passed_on(line)
            case Entry.REFUSED | Entry.GAVE_UP | Entry.FORGOTTEN:
                pass

    def finish(self, now_s: float) -> None:
        """The run is over: nothing more comes."""
        for number, op in self.ops.items():
            if not op.end and not op.forgot:
                text = "accepted, and neither delivered nor reported as failed: its sender waits"
                self.violations.append(Violation("L1", number, text, now_s))

    def _taken(self, line: Line) -> None:
        op = self.ops.get(line.op)
        if op is None:
            self._violated("L3", line, "taken, but nobody sent it")
            return
        if line.digest != op.digest:
            self._violated("L3", line, f"taken as {line.digest}, sent as {op.digest}")
        first_s = op.takers.get(line.node)
        # Killed in the moment of taking it, a host takes it again; a power cut takes the notes of
        # earlier ones with it: docs/reference/host.md, docs/protocol/hop.md.
        if (
            first_s is not None
            and (line.node, first_s) not in self._died
            and first_s > self._lost_power.get(line.node, float("-inf"))
        ):
            self._violated("L2", line, f"taken again, first at {first_s:.6f} s")
        op.takers.setdefault(line.node, line.time_s)
        if op.end in _FAILURES:
            self._violated("L5", line, f"taken after its sender was told {op.end!r} for certain")

    def _ended(self, line: Line) -> None:
        op = self.ops[line.op]
        word = line.outcome.split(" ")[0]
        if op.end:
            self._violated("L5", line, "its sender was told twice how it ended")
        op.end = "indeterminate" if line.is_indeterminate else word
        op.ended_at_s = line.time_s
        op.outcome = line.outcome
        if word == "delivered" and not op.takers:
            self._violated("L1", line, "reported as delivered, and nobody took it")
        if word in _FAILURES and not line.is_indeterminate and op.takers:
            self._violated("L5", line, f"told {line.outcome!r} for certain, and it was taken")
        late_s = line.time_s - self._must_end_by_s.get(line.op, line.time_s)
        if late_s > GRACE_S:
            self._violated("L5", line, f"its sender was told {late_s:.3f} s after the deadline")

    def _passed_on(self, line: Line) -> None:
        # Who passed it on, and to whom: he must have said that he takes it, once for each time.
        key = line.op, line.outcome, self._guids[line.node]
        self._passed[key] += 1
        if self._passed[key] > self._took[key]:
            self._violated("L4", line, f"given up to {line.outcome}, who never took it")

    def _violated(self, promise: str, line: Line, text: str) -> None:
        self.violations.append(Violation(promise, line.op, text, line.time_s))


_FAILURES = frozenset({"refused", "expired"})


def sorted_verdicts(lines: Iterable[Line]) -> set[tuple[str, int]]:
    """Return (promise, operation) for every breach of L1, L2 and L3, from the whole journal."""
    lines = list(lines)
    deaths = {(line.node, line.time_s) for line in lines if line.entry is Entry.DIED}
    cuts = {
        line.node: line.time_s
        for line in lines
        if line.entry is Entry.DIED and line.outcome == NO_POWER
    }
    wanted = {
        Entry.SUBMITTED: "accepted",
        Entry.ENDED: "told",
        Entry.FORGOT: "told",
        Entry.TAKEN: "delivered",
    }
    rows = sorted(
        (line.op, wanted[line.entry], line.node, line.digest, line.time_s, line.outcome)
        for line in lines
        if line.entry in wanted
    )
    broken: set[tuple[str, int]] = set()
    for op, group in itertools.groupby(rows, key=lambda row: row[0]):
        of_op = list(group)
        accepted = [row for row in of_op if row[1] == "accepted"]
        told = [row for row in of_op if row[1] == "told"]
        delivered = [row for row in of_op if row[1] == "delivered"]
        claims = [row for row in told if row[5].startswith("delivered")]
        first_s = min((row[4] for row in delivered), default=float("inf"))
        if (accepted and not told) or any(row[4] < first_s for row in claims):
            broken.add(("L1", op))
        places = [
            row[2]
            for row in delivered
            if (row[2], row[4]) not in deaths and row[4] > cuts.get(row[2], float("-inf"))
        ]
        if len(places) != len(set(places)) or len(accepted) > 1:
            broken.add(("L2", op))
        digests = {row[3] for row in accepted}
        if any(row[3] not in digests for row in delivered):
            broken.add(("L3", op))
    return broken
