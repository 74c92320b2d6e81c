"""What a router counted of a service between two looks: only what came between them."""

from __future__ import annotations

from typing import Any

import pytest

from packetcloud.router.histogram import LogHistogram
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.topology.measure import service_rows
from packetcloud.testbed.visits import PARTS, Counted, Look, delays_between


class _Router:
    """What a router says of one service."""

    def __init__(self) -> None:
        self.counted = LogHistogram()

    def serve(self, *durations_s: float) -> Look:
        for one in durations_s:
            self.counted.add(round(one * 1e9))
        durations: dict[str, Any] = {
            "count": self.counted.count,
            "sum_s": self.counted.sum_ns / 1e9,
            "buckets": [(value_ns / 1e9, n) for value_ns, n in self.counted.buckets_ns()],
        }
        whole = dict.fromkeys(PARTS, durations) | {"tasks": self.counted.count, "pid": id(self)}
        return whole | dict.fromkeys(("missed_deadlines", "retried", "skipped", "dropped"), 0)


def test_a_slow_start_is_not_in_the_window() -> None:
    """The control is the router's own median, which the start is in."""
    router = _Router()
    opened = router.serve(*[2.0] * 100)
    closed = router.serve(*[0.003] * 50, 0.009)
    found = delays_between(opened, closed)
    assert found["delay_penalty_p50_ms"] == pytest.approx(3.0, rel=0.04)
    assert found["delay_penalty_p99_ms"] == pytest.approx(9.0, rel=0.04)
    assert found["delay_penalty_mean_ms"] == pytest.approx(159 / 51, rel=1e-6)
    assert delays_between(None, closed)["delay_penalty_p50_ms"] == pytest.approx(2000, rel=0.04)


def test_a_window_without_a_visit_has_no_figures() -> None:
    """Rather than 0."""
    look = _Router().serve(0.1)
    with pytest.raises(ChildError, match="no chunk visited"):
        delays_between(look, look)


def test_windows_of_several_runs_add_up() -> None:
    """Quantiles are of all chunks, not means of quantiles."""
    router = _Router()
    looks = [router.serve(), router.serve(0.001), router.serve(0.005, 0.005)]
    one, other = (Counted.between(looks[at], looks[at + 1], "delay_penalty") for at in range(2))
    both = one.with_those_of(other)
    assert both.count == 3
    assert both.quantile_ms(0.5) == pytest.approx(5.0, rel=0.04)
    assert both.mean_ms == pytest.approx(11 / 3)


def test_a_turn_s_durations_are_of_its_time_and_its_counts_of_all_of_it() -> None:
    """Also where an earlier turn was through the same router."""
    router = _Router()
    looks = [router.serve(9.0), router.serve(5.0), router.serve(0.004), router.serve(7.0)]
    before, opened, closed, after = ({"s": look} for look in looks)
    (row,) = service_rows(2, (before, after), (opened, closed))
    assert (row["turn"], row["tasks"]) == (2, 3)
    assert row["delay_penalty_p50_ms"] == pytest.approx(4.0, rel=0.04)


def test_a_router_that_was_started_again_counts_from_zero() -> None:
    """What it did since counts; a window that it was away in has no durations."""
    old, new = _Router(), _Router()
    before, after = {"s": old.serve(1.0, 1.0)}, {"s": new.serve(0.002)}
    (row,) = service_rows(1, (before, after), (before, after))
    assert row["tasks"] == 1 and row["delay_penalty_p50_ms"] is None
    (row,) = service_rows(1, (before, after), ({}, after))
    assert row["delay_penalty_mean_ms"] is None
    assert service_rows(1, (after, after), (after, after)) == []


def test_two_routers_are_not_taken_for_one() -> None:
    """Also where the second has counted more than the first: what it did since is all that counts,
    and no histogram is taken from another's."""
    old, new = _Router(), _Router()
    before, after = {"s": old.serve(1.0, 1.0)}, {"s": new.serve(*[0.002] * 5)}
    (row,) = service_rows(1, (before, after), (before, after))
    assert row["tasks"] == 5 and row["delay_penalty_mean_ms"] is None
    with pytest.raises(ChildError, match="started again"):
        delays_between(before["s"], after["s"])
