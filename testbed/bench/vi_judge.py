"""Judges migrations by the journals of sender and receiver; knows nothing of how one is made.

The promises L1 to L3 and L5 are those of `testbed.simulation.checker`, judged by both its judges.
Beside them stands the count that a tally wrote before each chunk: it is the state that moves, so
with one owner after the other it is 1, 2, 3 and so on without a gap, and never twice the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packetcloud.testbed.simulation.checker import StreamingJudge, sorted_verdicts
from packetcloud.testbed.simulation.journal import Entry, Line
from packetcloud.testbed.traffic.witness import Row

MOST_TOLD_COUNT = 5
"""Of each kind of breach in a report; who wants more has the journals."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One migration: when it was asked for, and when chunks flowed again. CLOCK_MONOTONIC."""

    asked_s: float
    flowing_s: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """What two journals say of a run."""

    sent: int
    lost: int
    """Chunks that were sent and never taken."""
    doubled: int
    """Chunks that were taken twice, and counts that were written twice: two owners, or a state
    that was left behind."""
    problems: tuple[str, ...]
    """Every breach in words; empty: all promises were kept."""
    pauses_s: tuple[float, ...]
    """Of each migration, the longest delay from sender to receiver of a chunk that was sent while
    it was going on."""


def judge(rows: Sequence[Row], moved: Sequence[Moved], lifetime_s: float) -> Judgement:
    """Judge the journals of one run, which begins with a fresh state.

    Args:
        rows: of both hosts, in any order.
        lifetime_s: of every chunk.
    """
    rows = sorted(rows, key=lambda row: row[0].time_s)
    lines = [line for line, _ in rows]
    sent_s = {line.op: line.time_s for line in lines if line.entry is Entry.SUBMITTED}
    taken = [line for line in lines if line.entry is Entry.TAKEN]
    taken_count = Counter(line.op for line in taken)
    lost = sorted(set(sent_s) - set(taken_count))
    counts = Counter(count for line, count in rows if line.entry is Entry.TAKEN)
    again = {count: times for count, times in counts.items() if times > 1}
    gaps = sorted(set(range(1, max(counts, default=0) + 1)) - set(counts))
    problems = [
        *_breaches(lines, {op: moment + lifetime_s for op, moment in sent_s.items()}),
        *_told("never taken: chunk", lost),
        *_told("written twice by the service: count", sorted(again)),
        *_told("left out by the service: count", gaps),
    ]
    twice = sum(times - 1 for times in taken_count.values())
    # A chunk that came twice came with its count, so both say the same of it.
    doubled = max(twice, sum(times - 1 for times in again.values()))
    first_s: dict[int, float] = {}
    for line in taken:
        first_s.setdefault(line.op, line.time_s)
    pauses = tuple(_pause_s(sent_s, first_s, one) for one in moved)
    return Judgement(len(sent_s), len(lost), doubled, tuple(problems), pauses)


def _breaches(lines: Sequence[Line], must_end_by_s: Mapping[int, float]) -> list[str]:
    streaming = StreamingJudge(must_end_by_s, {})
    for line in lines:
        streaming.feed(line)
    streaming.finish(lines[-1].time_s if lines else 0.0)
    found = [str(one) for one in streaming.violations]
    seen = {(one.promise, one.op) for one in streaming.violations}
    others = [f"{promise} (op {op})" for promise, op in sorted(sorted_verdicts(lines) - seen)]
    told = found[:MOST_TOLD_COUNT] + others[:MOST_TOLD_COUNT]
    left = len(found) + len(others) - len(told)
    return told + ([f"and {left} breaches more"] if left else [])


def _told(what: str, numbers: Sequence[int]) -> list[str]:
    if not numbers:
        return []
    some = ", ".join(map(str, numbers[:MOST_TOLD_COUNT]))
    more = f" and {len(numbers) - MOST_TOLD_COUNT} more" if len(numbers) > MOST_TOLD_COUNT else ""
    return [f"{what} {some}{more}"]


def _pause_s(sent_s: Mapping[int, float], first_s: Mapping[int, float], moved: Moved) -> float:
    """Return the longest delay of a chunk that was sent during a migration and taken at all."""
    delays = [
        first_s[op] - moment_s
        for op, moment_s in sent_s.items()
        if op in first_s and moved.asked_s <= moment_s <= moved.flowing_s
    ]
    return max(delays, default=0.0)
