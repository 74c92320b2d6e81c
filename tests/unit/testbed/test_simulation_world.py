"""The simulated world itself: time, disk, machines and links do what the reference says."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.internet.error import AlreadyCalled, AlreadyCancelled

from packetcloud.testbed.simulation.disk import SimulatedDisk
from packetcloud.testbed.simulation.guard import RealWorldError, forbidding_real_time
from packetcloud.testbed.simulation.machine import Machine
from packetcloud.testbed.simulation.network import REPLAY_LATEST_S, LinkOptions
from packetcloud.testbed.simulation.network import Path as LinkPath
from packetcloud.testbed.simulation.scenario import SCENARIOS, draw_plan
from packetcloud.testbed.simulation.virtual_time import EndlessError, VirtualTime

FILE = Path("/state/file")


def machine(seed: int = 1) -> Machine:
    return Machine(VirtualTime(), random.Random(seed), "A", "10.0.0.1")


# --- time and processes


def test_calls_come_in_the_order_of_their_time() -> None:
    """Equal moments keep the order in which they were asked for; cancelled calls never come."""
    one = machine()
    process = one.start()
    seen: list[str] = []
    process.reactor.callLater(2.0, seen.append, "late")
    process.reactor.callLater(1.0, seen.append, "first")
    process.reactor.callLater(1.0, seen.append, "second")
    gone = process.reactor.callLater(1.5, seen.append, "gone")
    gone.cancel()
    one.time.run_until(5.0)
    assert seen == ["first", "second", "late"]
    with pytest.raises(AlreadyCancelled):
        gone.cancel()


def test_cancelling_a_call_that_came_raises_as_on_a_reactor() -> None:
    """Code that cancels too late must be found out."""
    one = machine()
    call = one.start().reactor.callLater(0.0, int)
    one.time.run_until(0.0)
    assert not call.active()
    with pytest.raises(AlreadyCalled):
        call.cancel()


def test_a_dead_process_does_nothing_more() -> None:
    """Its calls do not come, its ports are closed, and the next process starts from nothing."""
    one = machine()
    process = one.start()
    seen: list[int] = []
    process.reactor.callLater(1.0, seen.append, 1)
    one.bind(4700, 1000, lambda: None)
    one.kill(power_cut=False)
    one.start()
    one.bind(4700, 1000, lambda: None)
    one.time.run_until(5.0)
    assert seen == []
    assert one.epoch == 2


def test_a_stopped_process_does_all_that_became_due_when_it_goes_on() -> None:
    """In its order, and not before."""
    one = machine()
    process = one.start()
    seen: list[tuple[int, float]] = []
    for number in (1, 2):
        process.reactor.callLater(
            number, lambda number=number: seen.append((number, one.time.now_s))
        )
    process.pause()
    one.time.run_until(10.0)
    assert seen == []
    process.resume()
    one.time.run_until(10.0)
    assert seen == [(1, 10.0), (2, 10.0)]


def test_a_step_of_the_wall_clock_moves_no_timer() -> None:
    """The reactor's clock is the monotonic one, as install_monotonic_clock makes it."""
    one = machine()
    seen: list[float] = []
    one.start().reactor.callLater(1.0, lambda: seen.append(one.time.now_s))
    before = one.wall_s()
    one.step_wall_clock(-3600.0)
    one.time.run_until(5.0)
    assert seen == [1.0]
    assert one.wall_s() == pytest.approx(before - 3600.0 + 5.0)


def test_what_an_event_raises_is_noted_and_the_process_goes_on() -> None:
    """As on a reactor; the run fails by the note."""
    one = machine()
    process = one.start()
    seen: list[int] = []
    process.reactor.callLater(1.0, lambda: 1 / 0)
    process.reactor.callLater(2.0, seen.append, 1)
    one.time.run_until(5.0)
    assert seen == [1]
    assert "ZeroDivisionError" in one.faults[0]


def test_a_timer_that_goes_round_and_round_ends_the_run() -> None:
    """Instead of hanging for ever; and a timer never comes a hair too early by rounding."""
    one = machine()
    reactor = one.start().reactor

    def again() -> None:
        reactor.callLater(0.0, again)

    again()
    with pytest.raises(EndlessError):
        one.time.run_until(1.0)
    other = machine()
    other.time.run_until(7.3)
    late = other.start().reactor
    due_s = late.seconds() + 1e-13
    seen: list[bool] = []
    late.callLater(due_s - late.seconds(), lambda: seen.append(late.seconds() >= due_s))
    other.time.run_until(8.0)
    assert seen == [True]


# --- disk


def written(disk: SimulatedDisk) -> bytes:
    return disk.read(FILE) or b""


def test_a_power_cut_keeps_what_was_synced_and_a_first_part_of_the_rest() -> None:
    """Never a later write without the one before it; the last one perhaps torn."""
    found = set()
    for seed in range(300):
        disk = SimulatedDisk(random.Random(seed))
        disk.replace(FILE, b"old|")
        file = disk.open_append(FILE)
        file.append(b"one|")
        file.sync()
        file.append(b"two|")
        file.append(b"three|")
        assert written(disk) == b"old|one|two|three|"
        disk.cut_power()
        assert written(disk).startswith(b"old|one|")
        found.add(written(disk))
    whole = b"old|one|two|three|"
    assert found <= {whole[:size] for size in range(8, len(whole) + 1)}
    assert {b"old|one|", b"old|one|two|", whole} < found


def test_a_replaced_file_is_the_old_or_the_new_one_after_a_power_cut() -> None:
    """Whole in both cases."""
    found = set()
    for seed in range(100):
        disk = SimulatedDisk(random.Random(seed))
        disk.replace(FILE, b"old")
        disk.open_append(FILE).sync()
        disk.replace(FILE, b"new")
        disk.cut_power()
        found.add(written(disk))
    assert found == {b"old", b"new"}


def test_a_killed_process_leaves_all_that_it_wrote() -> None:
    """The page cache survives it."""
    one = machine()
    one.start()
    one.disk.replace(FILE, b"x")
    one.disk.open_append(FILE).append(b"y")
    one.kill(power_cut=False)
    assert one.disk.read(FILE) == b"xy"


# --- links

MANY = [bytes([number % 256]) * 100 for number in range(4000)]


def carried(seed: int = 1, **options: float) -> tuple[list[bytes], LinkPath]:
    path = LinkPath(replace(LinkOptions(), **options), random.Random(seed))
    arrivals: list[tuple[float, bytes]] = []
    for number, datagram in enumerate(MANY):
        for at_s, arriving in path.carry([datagram], number * 0.001).items():
            arrivals += [(at_s, one) for one in arriving]
    return [datagram for _, datagram in sorted(arrivals, key=lambda pair: pair[0])], path


def test_a_link_without_faults_carries_everything_in_order() -> None:
    """Also with jitter: order is a fault of its own."""
    assert carried(jitter_s=0.05)[0] == MANY


@pytest.mark.parametrize(
    ("options", "count", "expected"),
    [
        ({"loss": 0.1}, "lost", 400),
        ({"burst_enter": 0.02, "burst_leave": 0.25, "burst_loss": 1.0}, "burst_lost", 296),
        ({"duplicate": 0.1}, "duplicated", 400),
        ({"reorder": 0.1, "reorder_s": 0.05}, "reordered", 400),
        ({"corrupt": 0.1, "corruption_is_seen": False}, "corrupted", 400),
        ({"replay": 0.1}, "replayed", 400),
    ],
)
def test_a_share_is_met_and_repeats_by_its_seed(
    options: dict[str, float], count: str, expected: int
) -> None:
    """Within a quarter; the same seed gives the same, another one does not."""
    arrived, path = carried(**options)
    assert path.counts[count] == pytest.approx(expected, rel=0.25)
    assert path.unfelt() == []
    assert carried(**options)[0] == arrived
    assert carried(seed=2, **options)[0] != arrived


def test_a_rate_and_its_queue_drop_what_comes_too_fast() -> None:
    """1 Mbit/s carries 977 of these in a second; the rest waits in the queue or is dropped."""
    path = LinkPath(LinkOptions(rate_bps=1e6, queue_bytes=10_000), random.Random(1))
    arrivals = path.carry(MANY, 0.0)
    carried_count = sum(map(len, arrivals.values()))
    assert carried_count == pytest.approx(10_000 / 128, abs=2)
    assert path.counts["queue_full"] == len(MANY) - carried_count


def test_what_is_over_the_mtu_vanishes() -> None:
    """1472 bytes and their headers just fit into 1500."""
    path = LinkPath(LinkOptions(mtu_bytes=1500), random.Random(1))
    arrivals = path.carry([bytes(1472), bytes(1473)], 0.0)
    assert [len(one) for some in arrivals.values() for one in some] == [1472]
    assert path.counts["too_large"] == 1


def test_a_replay_comes_within_its_time() -> None:
    """Later than the first copy, and not later than said."""
    path = LinkPath(LinkOptions(replay=1.0, delay_s=0.0), random.Random(1))
    assert max(path.carry(MANY, 0.0)) <= REPLAY_LATEST_S


def test_an_option_that_touches_nothing_is_named() -> None:
    """A run in which the planned loss never came proves nothing."""
    path = LinkPath(LinkOptions(loss=0.5), random.Random(1))
    path.counts["offered"] = 1000
    assert path.unfelt() == ["lost nothing of 1000 datagrams"]


# --- plans and the guard


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_plan_follows_from_its_seed(scenario: str) -> None:
    """Drawn twice it is the same; its faults name machines and links that are there."""
    for seed in range(20):
        plan = draw_plan(seed, scenario)
        assert plan == draw_plan(seed, scenario)
        assert plan.lines() != draw_plan(seed + 1000, scenario).lines()
        numbers = [operation.op for operation in plan.operations]
        assert len(set(numbers)) == len(numbers)


def test_code_under_test_must_not_ask_the_real_world() -> None:
    """Our rooms get an exception, others an answer; afterwards everything is as it was."""
    clock, randomness = time.monotonic, os.urandom
    ours = {"__name__": "packetcloud.router.anything", "time": time}
    with forbidding_real_time():
        assert time.monotonic() > 0
        with pytest.raises(RealWorldError, match=r"packetcloud\.router\.anything"):
            exec("time.monotonic()", ours)
    assert time.monotonic is clock
    assert os.urandom is randomness
