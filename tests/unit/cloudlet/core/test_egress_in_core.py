"""What the core makes of a way to the IP network: where such VIs run, what denied tries cost."""

from __future__ import annotations

import dataclasses

import pytest

from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.core.values import ConductPolicy, ServiceWish
from tests.unit.cloudlet.core.world import SID, World, settings

POLICY = ConductPolicy(restrict_violations=10, stop_violations=100, window_s=60.0, restrict_s=20.0)


def _placed(seed: int, **changes: object) -> tuple[World, Vi]:
    wish = ServiceWish("alpha", SID["alpha"], "small", 1, 4, conduct=POLICY, denied_per_violation=5)
    service = dataclasses.replace(wish, **changes)  # type: ignore[arg-type]
    world = World(seed, settings(services={"alpha": service}))
    world.run(10)
    (vi,) = (one for one in world.core.saved.vis.values() if one.counts)
    return world, vi


@pytest.mark.parametrize(("packets", "is_restricted"), [(49, False), (50, True)])
def test_denied_tries_are_violations(packets: int, is_restricted: bool) -> None:
    """So many to one; what is left over counts with the next ones."""
    world, vi = _placed(1)
    for part in (packets - 3, 3):
        world.tell(saw.EgressDenied(vi.number, part), world.life)
    assert vi.is_restricted is is_restricted
    assert vi.violations == {"egress-denied": packets // 5}
    if is_restricted:
        assert "egress-denied 10" in vi.record[-1].text


def test_denied_tries_count_with_what_the_router_saw() -> None:
    world, vi = _placed(2)
    world.violations[vi.instance] = 6
    world.run(2)
    world.tell(saw.EgressDenied(vi.number, 19), world.life)
    assert not vi.is_restricted
    world.tell(saw.EgressDenied(vi.number, 1), world.life)
    assert vi.is_restricted
    assert vi.violations["egress-denied"] == 4


def test_who_goes_on_is_stopped() -> None:
    world, vi = _placed(3)
    world.tell(saw.EgressDenied(vi.number, 500), world.life)
    assert vi.is_barred


def test_tries_may_count_for_nothing() -> None:
    world, vi = _placed(4, denied_per_violation=0)
    world.tell(saw.EgressDenied(vi.number, 1_000_000), world.life)
    assert not vi.violations and not vi.is_restricted


def test_such_a_vi_runs_where_there_is_a_way() -> None:
    """On the nodes that have one and on no other, and who would move it hears why not."""
    world, vi = _placed(5, nodes=frozenset({"n2"}))
    for _ in range(3):
        world.wish(lambda n: saw.LaunchWished(n, "alpha"))
    world.run(10)
    assert len(world.core.saved.vis) == 4
    assert {one.node for one in world.core.saved.vis.values()} == {"n2"}
    operation = world.wish(lambda n: saw.MigrateWished(n, vi.number, "n1"))
    is_done, text = world.ended[operation]
    assert not is_done and "nodes of the controller's machine alone (n2)" in text


def test_without_such_a_node_it_waits_and_says_why() -> None:
    service = ServiceWish("alpha", SID["alpha"], "small", 1, 1, nodes=frozenset())
    world = World(6, settings(services={"alpha": service}))
    world.run(10)
    assert not world.core.saved.vis
    assert "(none)" in world.core.staffing.no_room["alpha"]
