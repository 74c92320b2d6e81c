"""What the benchmarks make of their measurements."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from packetcloud.testbed.bench.changes import Change, change_figures
from packetcloud.testbed.bench.chunks import limit_of
from packetcloud.testbed.bench.emulated import INTEROP_LINK, LINK
from packetcloud.testbed.bench.fairness import (
    bottleneck,
    fairness_keys,
    mix_figures,
    read_between_packets,
)
from packetcloud.testbed.bench.handshakes import handshake_figures
from packetcloud.testbed.bench.loss import cell_figures, loss_keys
from packetcloud.testbed.bench.outages import Outage, ideal_s, outage_keys
from packetcloud.testbed.bench.rounds import Record, Timing
from packetcloud.testbed.bench.service import knee_gbps, size_figures
from packetcloud.testbed.bench.service_ours import delay_figures
from packetcloud.testbed.bench.shared import bytes_at, jain, mix_trial, per_second_bps
from packetcloud.testbed.bench.stages import STAGES, stage_of, stage_shares
from packetcloud.testbed.bench.trial import Trial
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import ChildError


def _step(offered: float, delivered: float, penalty_ms: float) -> dict[str, float]:
    return {
        "offered_gbps": offered,
        "goodput_gbps": delivered,
        "delay_penalty_p50_ms": penalty_ms,
    }


def test_the_knee_is_the_last_step_that_keeps_up() -> None:
    """A step that delivers too little ends it, even if a later one does better."""
    steps = [_step(1, 1.0, 2), _step(2, 1.96, 3), _step(3, 2.5, 4), _step(4, 3.99, 4)]
    assert knee_gbps(steps, 2.0) == 1.96


def test_the_knee_is_before_the_delay_explodes() -> None:
    """Everything delivered, but three times as late, is behind the knee."""
    assert knee_gbps([_step(1, 1.0, 2), _step(2, 2.0, 6), _step(3, 3.0, 6.1)], 2.0) == 2.0


def test_a_node_that_never_keeps_up_has_no_knee() -> None:
    """None is not zero."""
    assert knee_gbps([_step(1, 0.5, 2)], 2.0) is None
    assert knee_gbps([], 2.0) is None


def test_the_figures_of_a_size() -> None:
    """Ratios come from medians; a peer that is missing leaves a gap."""
    full = {
        "ours": Record([Trial(4.0, 1.0), Trial(5.0, 1.0), Trial(6.0, 1.0)]),
        "aes_limit": Record([Trial(6.25, 1.0)]),
        "http": Record([Trial(2.0, 1.0)]),
        "grpc": Record(missing="grpcio is not installed"),
    }
    delays = {"processing_p50_ms": 2.0, "delivery_p50_ms": 1.0, "delay_p50_ms": 5.0}
    steady = {
        "ours": Record([Trial(0.1, 1.0, {}, delays)]),
        "http": Record([Trial(0.1, 1.0, {}, {"delay_p50_ms": 10.0})]),
        "grpc": Record(missing="grpcio is not installed"),
    }
    figures = size_figures(full, steady)
    assert figures["node_goodput_gbps"] == 5.0
    assert figures["ratio_aes_limit"] == pytest.approx(0.8)
    assert figures["delivery_over_processing"] == pytest.approx(0.5)
    assert figures["speedup_http"] == pytest.approx(2.5)
    assert figures["delay_speedup_http"] == pytest.approx(2.0)
    assert figures["speedup_grpc"] is None


def test_delay_figures() -> None:
    """Median and 99th percentile, in ms."""
    figures = delay_figures([number / 1000 for number in range(1, 102)])
    assert figures == {"delay_p50_ms": pytest.approx(51.0), "delay_p99_ms": pytest.approx(100.0)}
    assert delay_figures([1.0]) == {}


def test_samples_are_added_up_by_stage() -> None:
    """Shares add up to one; system calls are told from the hop around them."""
    samples = {
        "packetcloud.chunk.hop.outlet:Outlet._send": 2,
        "packetcloud.chunk.hop.intake:Intake._receive_train": 3,
        "packetcloud.chunk.hop.core:HopCore.receive": 4,
        "somewhere:else": 1,
    }
    assert stage_shares(samples) == {
        "hop": 0.4,
        "receive call": 0.3,
        "send call": 0.2,
        "other": 0.1,
    }
    assert stage_shares({}) == {}


@pytest.mark.parametrize(
    ("function", "stage"),
    [
        ("packetcloud.router.custody_book:CustodyBook.take", "custody"),
        ("packetcloud.router.core:RouterCore.body_received", "router, rest"),
        ("packetcloud.chunk.header:decode_header", "header"),
        ("asyncio.base_events:BaseEventLoop._run_once", "event loop"),
    ],
)
def test_a_function_belongs_to_its_stage(function: str, stage: str) -> None:
    """The most specific name wins."""
    assert stage_of(function) == stage


def test_the_limit_is_the_process_that_fills_a_core() -> None:
    """Else it is the machine."""
    busy = {"sender": 0.4, "router": 0.97, "whole_machine": 1.6}
    assert limit_of(busy).startswith("the router: 0.97")
    busy = {"sender": 0.6, "router": 0.7, "whole_machine": 2.0}
    assert limit_of(busy).startswith("the machine")


def test_every_stage_is_of_code_that_exists() -> None:
    """A module that was renamed would else count as its surroundings, without a word."""
    for _, start in STAGES:
        module = start.partition(":")[0].rstrip(".")
        assert importlib.util.find_spec(module) is not None, start


def _cell(ours: float, cubic: float, loss: float) -> dict[str, object]:
    records = {"ours": Record([Trial(ours, 1.0)]), "cubic": Record([Trial(cubic, 1.0)])}
    return cell_figures(records, LINK, loss, 1)


def test_a_share_is_of_what_the_loss_leaves() -> None:
    """Payload over (rate of the link x (1 - loss)): headers count against who sends them."""
    cell = _cell(ours=0.036, cubic=0.004, loss=0.2)
    assert cell["left_gbps"] == pytest.approx(0.04)
    assert cell["ours_share"] == pytest.approx(0.9)
    assert cell["times_cubic"] == pytest.approx(9.0)
    assert cell["times_bbr"] is None


def test_a_peer_that_gets_nothing_through_has_no_ratio() -> None:
    """Infinity is no figure."""
    cell = _cell(ours=0.036, cubic=0.0, loss=0.3)
    assert cell["cubic_gbps"] == 0.0
    assert cell["times_cubic"] is None


def test_the_keys_of_bench_loss() -> None:
    """The worst share up to 2 % counts, and only when all three were measured."""
    shares = {"0": 0.04, "1": 0.03, "2": 0.045, "10": 0.036, "30": 0.02}
    cells = {name: _cell(gbps, 0.01, int(name) / 100) for name, gbps in shares.items()}
    keys = loss_keys({"cells": cells, "interop": {"ours_share": 0.93}})
    assert keys["min_share_to_2_percent"] == pytest.approx(0.03 / (0.05 * 0.99))
    assert keys["share_10_percent"] == pytest.approx(0.036 / 0.045)
    assert keys["share_30_percent"] == pytest.approx(0.02 / 0.035)
    assert keys["times_cubic_1_percent"] == pytest.approx(3.0)
    assert keys["times_bbr_1_percent"] is None
    assert keys["interop_share"] == 0.93
    del cells["2"]
    assert loss_keys({"cells": cells})["min_share_to_2_percent"] is None


def test_handshakes_that_failed_say_why() -> None:
    """Only those with a body that was taken count."""
    tries = [
        {"is_up": True, "connect_s": 0.3, "text": ""},
        {"is_up": False, "connect_s": 0.2, "text": "the body was refused"},
        {"is_up": True, "connect_s": 0.1, "text": ""},
    ]
    figures = handshake_figures(tries, 2.0)
    assert (figures["succeeded"], figures["tried"]) == (2, 3)
    assert figures["longest_s"] == 0.3
    assert figures["failures"] == ["the body was refused"]
    assert handshake_figures([], 0.0)["median_s"] is None


def test_fifty_handshakes_are_fifty() -> None:
    """A shorter run has no figure of that name."""
    fifty = {"cells": {}, "handshakes": {"count": 50, "succeeded": 49}}
    assert loss_keys(fifty)["handshakes_of_50"] == 49
    fifty["handshakes"]["count"] = 3
    assert loss_keys(fifty)["handshakes_of_50"] is None


def test_the_worst_outage_counts() -> None:
    """One that never ended leaves no figure."""
    found = {"a": {"is_delivered": True, "seconds_after_healing": 2.0}}
    found["b"] = {"is_delivered": True, "seconds_after_healing": 3.0}
    assert outage_keys(found) == {"all_delivered": True, "worst_seconds_after_healing": 3.0}
    found["c"] = {"is_delivered": False, "seconds_after_healing": None}
    assert outage_keys(found) == {"all_delivered": False, "worst_seconds_after_healing": None}


def test_the_least_time_under_an_outage() -> None:
    """9.6 Mbit/s of payload on the interop link, all the time that it carries."""
    once = Outage("once", LINK, down_s=20.0)
    assert ideal_s(once, 6_000_000) == pytest.approx(21.0)
    cycle = Outage("cycle", INTEROP_LINK, down_s=2.0, up_s=5.0)
    assert ideal_s(cycle, 1_200_000) == pytest.approx(1.0)
    assert ideal_s(cycle, 7_200_000) == pytest.approx(8.0)


def test_jains_index() -> None:
    """1 for equal parts, 1/n when one has all, and when nobody has anything."""
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain([5.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain([1.0, 3.0]) == pytest.approx(0.8)
    assert jain([0.0, 0.0]) == 0.5


def test_bytes_between_ticks_lie_on_a_line() -> None:
    """Before the first tick nothing has changed, after the last nothing is known to have."""
    points = [(10.0, 100.0), (11.0, 300.0), (13.0, 300.0)]
    assert [bytes_at(points, moment) for moment in (9.0, 10.5, 11.0, 12.0, 14.0)] == [
        100.0,
        200.0,
        300.0,
        300.0,
        300.0,
    ]
    assert per_second_bps(points, 10.0, 2) == [1600.0, 0.0]


def test_the_figures_of_a_mix() -> None:
    """The index is of each second; a share of 1 is what everybody gets on average."""
    timing = Timing(seconds=2, warmup=0, repeats=1)
    trial = mix_trial({"ours": [[9e6, 3e6]], "cubic": [[3e6, 9e6]]}, timing)
    figures = mix_figures(Record([trial]))
    assert figures["jain"] == pytest.approx(0.8)
    assert figures["jain_of_means"] == pytest.approx(1.0)
    assert figures["fair_shares"] == {"ours": 1.0, "cubic": 1.0}
    assert figures["link_share"] == pytest.approx(0.5)
    uneven = mix_trial({"ours": [[9e6, 9e6]], "cubic": [[3e6, 3e6]]}, timing)
    assert mix_figures(Record([uneven]))["fair_shares"]["ours"] == pytest.approx(1.5)
    assert mix_figures(Record())["jain"] is None


def test_the_keys_of_bench_fairness() -> None:
    """What was not measured is None, not 0."""
    mixes = {"beside cubic": {"fair_shares": {"ours": 1.1}}}
    keys = fairness_keys(
        {
            "own_kind": {"4": {"mixes": {"ours": {"jain": 0.97}}}},
            "beside": {"4bdp": {"mixes": mixes}},
            "background": {
                "mixes": {
                    "cubic alone": {"mbps": {"cubic": 20.0}},
                    "background beside cubic": {"mbps": {"cubic": 19.0, "background": 1.0}},
                    "background alone": {"mbps": {"background": 18.0}},
                }
            },
            "dark": {"datagrams_per_timeout": 1.0},
        }
    )
    assert keys["jain_4"] == 0.97
    assert keys["jain_2"] is None
    assert keys["share_beside_cubic_4bdp"] == 1.1
    assert keys["share_beside_bbr_4bdp"] is None
    assert keys["datagrams_per_timeout"] == 1.0
    assert keys["cubic_keeps_beside_background"] == pytest.approx(0.95)
    assert keys["background_alone_link_share"] == pytest.approx(0.75)
    assert fairness_keys({})["cubic_keeps_beside_background"] is None
    assert fairness_keys({})["background_alone_link_share"] is None


def test_the_buffer_is_in_bandwidth_delay_products() -> None:
    """24 Mbit/s times 80 ms is 160 packets of 1500 bytes."""
    assert [bottleneck(times).queue_packets for times in (1, 4)] == [160, 640]


def test_a_transfer_has_recovered_when_it_stays_so() -> None:
    """A queue that empties itself after the change is no recovery."""
    change = Change("slower", LINK, Shape(rate_bps=1e6), observe_s=10.0)
    # 0.5 Mbit/s up to the change, a gush of a second, nothing for two, then 0.9 Mbit/s.
    points = [(0.0, 0.0), (4.0, 250_000.0), (5.0, 400_000.0), (7.0, 400_000.0)]
    points.append((14.0, 400_000.0 + 7 * 112_500.0))
    figures = change_figures(points, 4.0, change)
    assert figures["before_mbps"] == pytest.approx(0.5)
    assert figures["after_mbps"] == pytest.approx(0.9)
    assert figures["recovered_after_s"] == pytest.approx(2.9, abs=0.2)
    stuck = change_figures([*points[:-1], (14.0, 400_000.0)], 4.0, change)
    assert stuck["recovered_after_s"] is None


class _Dark:
    """A sender that sends a datagram before every tick of a list, and the link that it sends to.

    What it says is on its way for a moment: a tick from before a report comes first.
    """

    name = "sender"

    def __init__(self, sends: list[bool]) -> None:
        self._sends = iter(sends)
        self.packets = self.timeouts = 0

    def taken_events(self) -> list[dict[str, object]]:
        return []

    def wait_event(self, kind: str, timeout_s: float) -> dict[str, object]:
        assert kind == "tick"
        if next(self._sends, False):
            self.packets += 1
            self.timeouts += 1
        return {"event": kind, "timeouts": self.timeouts}

    def report(self) -> dict[str, object]:
        return {"to_right": {"in_packets": self.packets}}


@pytest.mark.parametrize("sends", [[], [True], [False, True], [True, True, False, True]])
def test_packets_and_timeouts_are_read_while_nothing_leaves(sends: list[bool]) -> None:
    """A datagram between what the link says and what the sender says is no second one."""
    dark: Any = _Dark(sends)
    assert read_between_packets(dark, dark) == (sum(sends), sum(sends))


def test_a_sender_without_a_pause_cannot_be_read() -> None:
    """The figure is refused then, not guessed."""
    dark: Any = _Dark([True] * 1000)
    with pytest.raises(ChildError, match="without a pause"):
        read_between_packets(dark, dark)
