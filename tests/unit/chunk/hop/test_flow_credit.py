"""What the bodies of one flow may hold, and which flows are told to be busy."""

from __future__ import annotations

import random
import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest

from packetcloud.chunk.hop.flow_credit import STALE_COUNT, FlowCredit

MIB = 1 << 20


def test_credit_of_a_flow_at_its_cap_and_one_beyond() -> None:
    """At the cap a body is admitted; one byte more is not, and its flow is on the list."""
    credit = FlowCredit(1000)
    credit.hold(1, 400, 10_000)
    assert credit.admits(1, 600, 10_000) and not credit.busy
    assert not credit.admits(1, 601, 10_000) and list(credit.busy) == [1]
    assert credit.admits(2, 5000, 0), "who holds nothing may always begin one"
    assert credit.admits(0, 5000, 0), "no flow has no limit"


def test_a_flow_leaves_the_list_only_when_what_was_refused_fits() -> None:
    """Else it would be tried, and refused, in every round trip."""
    credit = FlowCredit(1000)
    credit.hold(1, 300, 10_000)
    credit.hold(1, 100, 10_000)
    assert not credit.admits(1, 900, 10_000)
    assert not credit.release(1, 100, 10_000) and credit.busy
    assert credit.release(1, 300, 10_000) and not credit.busy


def stopped_flows(count: int, free_bytes: int) -> FlowCredit:
    """Return the account of `count` flows that each hold a little and were refused much."""
    credit = FlowCredit(1 << 24)
    for flow in range(1, count + 1):
        credit.hold(flow, 350, free_bytes)
        assert not credit.admits(flow, MIB, free_bytes)
    return credit


def lines_of(work: Any) -> int:
    """Return how many lines `work` executes."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_a_release_costs_the_same_beside_any_number_of_stopped_flows() -> None:
    """The neighbour chooses the labels: 65 535 of them must not make each release a long one."""
    few, many = stopped_flows(10, 10_000), stopped_flows(65_535, 10_000)
    for credit in (few, many):
        credit.hold(0, 1000, 10_000)
    assert lines_of(lambda: many.release(0, 1000, 11_000)) <= 40
    assert lines_of(lambda: few.release(0, 1000, 11_000)) <= 40
    assert len(many.busy) == 65_535 and many.busy_labels(3) == [1, 2, 3]


def test_what_a_stopped_flow_waits_for_is_kept_in_bounds() -> None:
    """A flow refused and released over and over leaves no trace for each time."""
    credit = FlowCredit(1000)
    for _ in range(20_000):
        credit.hold(1, 400, 500)
        credit.admits(1, 900, 500)
        credit.release(1, 400, 0)
    assert len(credit._waits) <= 2 * len(credit.busy) + STALE_COUNT + 1


@pytest.mark.parametrize("seed", range(10))
def test_the_list_is_what_a_look_at_every_flow_would_make_it(seed: int) -> None:
    """At any time a flow leaves at the release after which it holds at most half of its limit, and
    what was refused fits."""
    rng = random.Random(seed)
    credit, total_bytes = FlowCredit(4000), 12_000
    held: list[tuple[int, int]] = []
    used = 0
    for _ in range(4000):
        flow, size = rng.randint(0, 30), rng.choice([1, 50, 400, 1500])
        if rng.random() < 0.55:
            if used + size <= total_bytes and credit.admits(flow, size, total_bytes - used):
                used += size
                credit.hold(flow, size, total_bytes - used)
                held.append((flow, size))
        elif held:
            flow, size = held.pop(rng.randrange(len(held)))
            used -= size
            limit = credit._limit(total_bytes - used)
            holds = Counter({flow: -size})
            for one in {*credit.busy, flow}:
                holds[one] += credit.held_bytes(one)
            stay = [
                one for one, wanted in credit.busy.items()
                if holds[one] and holds[one] > min(limit // 2, limit - wanted)
            ]  # fmt: skip
            has_freed = len(stay) < len(credit.busy)
            assert credit.release(flow, size, total_bytes - used) == has_freed
            assert list(credit.busy) == stay
