"""Two nodes on real LXD, two servers or members of one cluster: moved between, emptied, lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from packetcloud.testbed.lxd_daemon import LxdCluster, LxdDaemon
from packetcloud.testbed.lxd_remains import end_containers
from tests.system.fault_cloudlet import ALLOWANCES, FaultCloudlet, fault_cloudlet
from tests.system.lxd_places import needs_lxd
from tests.system.vi_image import BUILD_TIMEOUT_S

pytestmark = [
    pytest.mark.timeout(BUILD_TIMEOUT_S),  # of several, the first counts
    *needs_lxd,
    pytest.mark.needs("debootstrap"),
]
RATE = 40.0


def _servers(stack: contextlib.ExitStack) -> Sequence[LxdDaemon]:
    return [stack.enter_context(LxdDaemon()) for _ in range(2)]


def _cluster(stack: contextlib.ExitStack) -> Sequence[LxdDaemon]:
    members = stack.enter_context(LxdCluster()).members
    members[0].run("lxc", "config", "set", "cluster.offline_threshold", "11")
    return members


@pytest.mark.parametrize(
    ("make", "names", "is_cluster"),
    [(_servers, ("n1", "n2"), False), (_cluster, ("member1", "member2"), True)],
    ids=["servers", "cluster"],
)
def test_a_service_on_two_nodes(
    tmp_path: Path,
    make: Callable[[contextlib.ExitStack], Sequence[LxdDaemon]],
    names: tuple[str, str],
    is_cluster: bool,
) -> None:
    """Its VI moves with its state, leaves a node that is to be empty, and starts elsewhere when its
    node is lost; each chunk arrives once all the while. A node that comes back has nothing left."""
    first, second = names
    with contextlib.ExitStack() as stack:
        daemons = make(stack)
        cloudlet = stack.enter_context(
            fault_cloudlet(
                tmp_path,
                {"tally": {"grace_s": 60}},
                servers=daemons,
                is_cluster=is_cluster,
                node_lost_s=2,
            )
        )
        cloudlet.until_running()
        traffic = cloudlet.paced("tally", RATE)
        stack.callback(traffic.kill)
        traffic.flowing()
        for node in names[::-1] if _node(cloudlet) == first else names:
            vi = cloudlet.vi_of("tally")
            assert cloudlet.ask("vi", "migrate", vi["number"], "--to", node)["state"] == "done"
            moved = cloudlet.vi_of("tally")
            assert (moved["node"], moved["slot"]) == (node, vi["slot"])
            assert moved["owner_epoch"] == vi["owner_epoch"] + 1
            traffic.flowing()
        if _node(cloudlet) != first:
            first, second = second, first
        assert cloudlet.ask("node", "evacuate", first)["state"] == "done"
        assert _node(cloudlet) == second
        assert cloudlet.ask("node", "evacuate", first, "--over")["state"] == "done"
        traffic.flowing()
        traffic.stop()
        assert traffic.broken_promises() == []
        assert traffic.broken_counts() == []
        traffic = cloudlet.paced("tally", RATE)
        stack.callback(traffic.kill)
        if second != names[1]:
            # The cluster's database is on the first member: that one cannot be done without.
            number = cloudlet.vi_of("tally")["number"]
            assert cloudlet.ask("vi", "migrate", number)["state"] == "done"
        before = cloudlet.vi_of("tally")
        lost = daemons[1]
        lost.kill()
        end_containers(lost.folder)
        cloudlet.until(lambda: _serving(cloudlet) == [names[0]])
        after = cloudlet.vi_of("tally")
        assert (after["slot"], after["owner_epoch"]) == (before["slot"], before["owner_epoch"] + 1)
        traffic.flowing()
        lost.start()
        cloudlet.until(lambda: all(one["state"] == "ready" for one in _nodes(cloudlet)))
        cloudlet.until(lambda: cloudlet.containers() == [after["container"]])
        traffic.flowing()
        traffic.stop()
        assert traffic.broken_promises() == []


def _serving(cloudlet: FaultCloudlet) -> list[str]:
    """Return the nodes of the VIs that run; one that a lost node has cannot be removed yet."""
    return [one["node"] for one in cloudlet.vis_of("tally") if one["is_attached"]]


def _node(cloudlet: FaultCloudlet) -> str:
    node: str = cloudlet.vi_of("tally")["node"]
    return node


def _nodes(cloudlet: FaultCloudlet) -> list[dict[str, str]]:
    found: list[dict[str, str]] = cloudlet.ask("node", "list")
    return found


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_servers_that_restart_in_the_midst_of_work(tmp_path: Path, end: str) -> None:
    """A launch, a resize and a stop come to their end, whenever LXD is away for a moment."""
    with contextlib.ExitStack() as stack:
        services = {"tally": {"grace_s": 60}, "strict": {"replicas_min": 0}}
        cloudlet = stack.enter_context(fault_cloudlet(tmp_path, services, node_lost_s=30))
        (daemon,) = cloudlet.daemons
        cloudlet.until_running()
        traffic = cloudlet.paced("tally", RATE)
        stack.callback(traffic.kill)
        for delay_s in (0.0, 0.3):

            def away(delay_s: float = delay_s) -> None:
                time.sleep(delay_s)
                getattr(daemon, end)()
                daemon.start()

            cloudlet.until(cloudlet.is_in_order)
            cloudlet.ask("vi", "launch", "strict", "--no-wait")
            away()
            cloudlet.until(lambda: cloudlet.is_settled("strict") and cloudlet.vis_of("strict"))
            number = cloudlet.vi_of("strict")["number"]
            cloudlet.ask("vi", "resize", number, "medium", "--no-wait")
            away()
            cloudlet.until(lambda: cloudlet.vi_of("strict")["vi_type"] == "medium")
            config = cloudlet.container_config(cloudlet.vi_of("strict"))
            assert config["limits.cpu.allowance"] == ALLOWANCES["medium"]
            cloudlet.ask("vi", "stop", number, "--no-wait")
            away()
            cloudlet.until(lambda: [one["service"] for one in cloudlet.vis()] == ["tally"])
            assert cloudlet.containers() == [cloudlet.vi_of("tally")["container"]]
            traffic.flowing()
        traffic.stop()
        assert traffic.broken_promises() == []
        assert cloudlet.vi_of("tally")["restarts"] == 0
