"""Whatever is asked for and whatever fails: third parties never take the ISP's share of a node.

The world counts the containers that there are, not what the core thinks of them. Its types grow in
all their parts, so that one of two is the larger one.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.instances import ViState
from packetcloud.cloudlet.core.values import Resources, ScalingPolicy, ServiceWish
from tests.unit.cloudlet.core import world as made
from tests.unit.cloudlet.core.world import GIB, SID, Faults, World

SCALING = ScalingPolicy(up_after_s=1.0, pause_s=1.0)
SERVICES = {
    "alpha": ServiceWish("alpha", SID["alpha"], "small", 1, 6, has_state=True, scaling=SCALING),
    "beta": ServiceWish("beta", SID["beta"], "small", 1, 6, owner="tenant", scaling=SCALING),
}
CAPACITY = Resources(4.0, 2 * GIB, 8 * GIB)
"""Four small VIs by their processors, two large ones."""

_number = st.integers(0, 7)
_service = st.sampled_from(["alpha", "beta"])
_node = st.sampled_from(["n1", "n2"])
STEPS = st.one_of(
    st.tuples(st.just("launch"), _service, st.sampled_from(["small", "large", None])),
    st.tuples(st.just("resize"), _number, st.sampled_from(["small", "large"])),
    st.tuples(st.just("migrate"), _number, st.none()),
    st.tuples(st.just("stop"), _number, st.none()),
    st.tuples(st.just("evacuate"), _node, st.booleans()),
    st.tuples(st.just("silence"), _node, st.booleans()),
    st.tuples(st.just("late"), _service, st.booleans()),
    st.tuples(st.just("end"), _number, st.none()),
    st.tuples(st.just("crash"), st.none(), st.none()),
)


def _do(world: World, step: tuple[str, Any, Any]) -> None:
    what, name, more = step
    vis = list(world.core.saved.vis)
    number = vis[int(name) % len(vis)] if isinstance(name, int) and vis else 0
    match what:
        case "launch":
            world.wish(lambda n: saw.LaunchWished(n, str(name), more))
        case "resize":
            world.wish(lambda n: saw.ResizeWished(n, number, str(more)))
        case "migrate":
            world.wish(lambda n: saw.MigrateWished(n, number))
        case "stop":
            world.wish(lambda n: saw.StopWished(n, number, False))
        case "evacuate":
            world.wish(lambda n: saw.EvacuateWished(n, str(name), bool(more)))
        case "silence" if more:
            world.silence(str(name))
        case "silence":
            world.silent.discard(str(name))
        case "late" if more:
            world.late.add(str(name))
        case "late":
            world.late.discard(str(name))
        case "end":
            container = world.container(number)
            if container is not None and container.is_running:
                world.end(container)
        case "crash":
            world.crash()


@settings(max_examples=75, deadline=None)
@given(
    steps=st.lists(st.tuples(STEPS, st.sampled_from([0.05, 0.6, 3.0, 12.0])), max_size=25),
    share=st.sampled_from([0.5, 0.25, 0.75, 0.3, 1.0, 0.0]),
    late=st.sets(_service),
    seed=st.integers(0, 1000),
    is_faulty=st.booleans(),
)
def test_the_share_of_the_isp_is_never_taken(
    steps: list[tuple[tuple[str, object, object], float]],
    share: float,
    late: set[str],
    seed: int,
    is_faulty: bool,
) -> None:
    """By placement, growth, migration, autoscaling, evacuation, and the loss of nodes, while the
    controller crashes and answers get lost; often more VIs are wanted than there is room for."""
    settings = made.settings(services=SERVICES, isp_share=share)
    world = World(seed, settings, Faults(0.05, 0.05, 0.02) if is_faulty else Faults(), CAPACITY)
    world.late |= late
    world.run(6.0)
    for step, duration_s in steps:
        _do(world, step)
        world.run(duration_s)
    assert [text for text in world.wrong if "too much" in text] == []


def test_what_is_set_aside_is_there_for_the_isp() -> None:
    """Tenants fill their part, and the ISP's own VIs still find room; a tenant that would grow
    into the rest is told so, and nobody is moved for it in vain."""
    world = World(1, made.settings(services=SERVICES, isp_share=0.5), Faults(), CAPACITY)
    world.late.add("beta")
    world.run(60)
    betas = [vi for vi in world.core.saved.vis.values() if vi.service == "beta"]
    assert len(betas) == 4 and world.core.saved.counts["beta"] == 6
    assert "outside the ISP's share" in world.core.staffing.no_room["beta"]
    operation = world.wish(lambda n: saw.ResizeWished(n, betas[0].number, "large"))
    world.run(5)
    is_done, text = world.ended[operation]
    assert not is_done and "has not enough cpus" in text
    world.late = {"alpha"}
    world.run(60)
    alphas = [vi for vi in world.core.saved.vis.values() if vi.service == "alpha"]
    assert len(alphas) == 4
    assert all(vi.state is ViState.RUNNING and vi.owner_epoch == 1 for vi in alphas)
    assert world.wrong == []
