"""When a service gets one VI more: what waits at the router counts, and what waits in a VI."""

from __future__ import annotations

from typing import Any

import pytest

from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.instances import ViState
from packetcloud.cloudlet.core.values import ScalingPolicy, ServiceWish
from tests.unit.cloudlet.core.world import SID, World, settings

POLICY = ScalingPolicy(up_wait_s=0.5, up_after_s=3.0, pause_s=10.0)


def placed() -> World:
    services = {
        "alpha": ServiceWish("alpha", SID["alpha"], "small", 1, 3, has_state=False, scaling=POLICY)
    }
    world = World(1, settings(services=services))
    world.run(10)
    return world


@pytest.mark.parametrize(
    ("status", "count"),
    [
        ({"longest_waiting_s": 0.6}, 2),
        ({"longest_waiting_s": 0.4}, 1),
        ({"longest_waiting_s": 0.0, "in_hand": 1, "longest_in_hand_s": 0.6}, 1),
        ({"longest_waiting_s": "long"}, 1),
        ({}, 1),
    ],
)
def test_a_chunk_that_waits_in_the_window_of_a_vi_calls_for_one_more(
    status: dict[str, Any], count: int
) -> None:
    """Nothing waits at the router: it gave all chunks away. One in hand is not one that waits, and
    a VI that does not say how long is no reason."""
    world = placed()
    (vi,) = world.core.saved.vis.values()
    service = saw.ServiceAtRouter(1, 0.0, None, {vi.instance: saw.ViAtRouter(True, 1)})
    for _ in range(5):
        world.now += 1.0
        world.core.handle(saw.ViStatus(vi.number, {"attachment": "attached", **status}), world.now)
        seen = saw.RouterSeen(
            world.router_boot, world.router_epoch, world.router_version, {SID["alpha"]: service}
        )
        world.core.handle(seen, world.now)
    assert vi.state is ViState.RUNNING
    assert world.core.saved.counts["alpha"] == count
