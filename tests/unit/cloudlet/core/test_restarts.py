"""What is known of a VI's crashes outlives the controller: quarantine, delays, and a good time."""

from __future__ import annotations

import dataclasses

import pytest

from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.instances import Vi, ViState
from packetcloud.cloudlet.core.rows import from_rows, to_rows
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.cloudlet.core.values import RestartPolicy
from tests.unit.cloudlet.core.world import World, settings

SLOW = RestartPolicy(first_delay_s=10.0, longest_delay_s=40.0, stable_s=30.0, quarantine_crashes=0)


def placed(seed: int, policy: RestartPolicy) -> World:
    """A world in which the VI of `beta` starts again by this policy."""
    services = dict(settings().services)
    services["beta"] = dataclasses.replace(services["beta"], restart=policy)
    world = World(seed, settings(services=services))
    world.run(10)
    return world


def vi_of(world: World) -> Vi:
    (vi,) = [one for one in world.core.saved.vis.values() if one.service == "beta" and one.counts]
    return vi


def end_vi(world: World) -> None:
    container = world.container(vi_of(world).number)
    assert container is not None
    world.end(container)


def start_again(world: World, *, clock_s: float = 0.0, wall_s: float = 0.0) -> None:
    """Kill the controller, and start it where its clock, or this machine's, shows so much more."""
    world.crash()
    saved = world.saved
    saved.clock_s += clock_s - wall_s
    for vi in saved.vis.values():
        vi.change_clock(-clock_s, world.now)
    while not world.is_up:
        world.run(0.1)


def test_who_crashes_again_and_again_ends_in_quarantine_whoever_is_in_charge() -> None:
    """Also when the controller is started again after each crash, by a clock that began anew."""
    world = placed(1, RestartPolicy(first_delay_s=0.1, longest_delay_s=1.0, quarantine_crashes=5))
    for crash in range(1, 6):
        end_vi(world)
        world.run(3)
        start_again(world, clock_s=1000.0)
        assert len(vi_of(world).crashes) == crash
        world.run(5)
    assert vi_of(world).state is ViState.QUARANTINED
    for _ in range(2):
        start_again(world)
        world.run(20)
        assert vi_of(world).state is ViState.QUARANTINED
    world.wish(lambda n: saw.RestartWished(n, vi_of(world).number))
    world.run(10)
    assert vi_of(world).state is ViState.RUNNING
    start_again(world)
    world.run(10)
    assert not vi_of(world).crashes and world.end_wrongs() == []


def test_crashes_of_long_ago_are_dropped_though_the_controller_was_away() -> None:
    """The window of the policy goes by the time that passed, not by what a controller saw."""
    world = placed(2, RestartPolicy(first_delay_s=0.1, quarantine_crashes=2))
    end_vi(world)
    world.run(5)
    world.crash()
    world.run(RestartPolicy().quarantine_window_s)
    end_vi(world)
    world.run(10)
    assert (vi_of(world).state, len(vi_of(world).crashes)) == (ViState.RUNNING, 1)


@pytest.mark.parametrize("clock_s", [0.0, 1000.0])
def test_a_delay_goes_on_where_it_was(clock_s: float) -> None:
    """It ends when it would have ended, and the next one is longer."""
    world = placed(3, SLOW)
    for _ in range(2):
        end_vi(world)
        world.run(25)
    assert vi_of(world).backoff_count == 2
    end_vi(world)
    world.run(3)
    vi = vi_of(world)
    assert (vi.state, vi.backoff_count) == (ViState.BACKING_OFF, 3)
    due_at = vi.due_at
    for _ in range(2):
        start_again(world, clock_s=clock_s)
        assert vi_of(world).due_at == pytest.approx(due_at)
    world.run(due_at - world.now - 0.1)
    assert vi_of(world).state is ViState.BACKING_OFF
    world.run(5)
    assert (vi_of(world).state, vi_of(world).backoff_count) == (ViState.RUNNING, 3)


def test_a_clock_that_was_set_back_delays_nobody_for_longer_than_the_policy() -> None:
    """No crash is in the future either."""
    world = placed(4, SLOW)
    end_vi(world)
    world.run(3)
    assert vi_of(world).state is ViState.BACKING_OFF
    start_again(world, wall_s=-86400.0)
    vi = vi_of(world)
    assert world.now < vi.due_at <= world.now + SLOW.longest_delay_s
    assert all(at <= world.now for at in vi.crashes)
    world.run(SLOW.longest_delay_s + 5)
    assert vi.state is ViState.RUNNING


def test_a_good_time_counts_over_a_restart_of_the_controller() -> None:
    """Who ran for long starts again with the first delay, though this controller is a new one."""
    world = placed(5, SLOW)
    for _ in range(2):
        end_vi(world)
        world.run(25)
    world.run(SLOW.stable_s)
    start_again(world)
    world.run(5)
    assert (vi_of(world).state, vi_of(world).backoff_count) == (ViState.RUNNING, 2)
    end_vi(world)
    world.run(3)
    assert vi_of(world).backoff_count == 1


def test_databases_of_an_earlier_version_say_nothing_of_crashes() -> None:
    """One that waits for its start there starts soon."""
    saved = Saved()
    saved.vis[1] = Vi(1, "beta", "small", "n1", 7, "t", 16, state=ViState.BACKING_OFF)
    rows = to_rows(saved)
    del rows["clock"]
    for name in ("crashes", "backoff_count", "ready_at", "starts_at"):
        del rows["vi"]["1"][name]
    world = World(6)
    world.crash()
    world.saved = from_rows(rows)
    while not world.is_up:
        world.run(0.1)
    vi = world.core.saved.vis[1]
    assert world.now < vi.due_at <= world.now + world.settings.retry_s
