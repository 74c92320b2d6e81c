"""A cloudlet of the services in `faulty`, on real LXD, for the tests of faults."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packetcloud.chunk.names import SID
from packetcloud.cloudlet.client import ControllerUnreachableError
from packetcloud.cloudlet.images.build import BuildRequest, build_image
from packetcloud.cloudlet.images.store import BuiltImage
from packetcloud.cloudlet.lxd.project import PROJECT
from packetcloud.testbed import lxd_cloudlet as testbed
from packetcloud.testbed.lxd_cloudlet import CloudletPlan, CloudletService
from packetcloud.testbed.lxd_daemon import LxdDaemon
from tests.system.killed_controller import FOLDER, KILL_AT
from tests.system.lxd_cloudlet import LIMIT_S, LxdCloudlet
from tests.system.paced_host import Paced
from tests.system.vi_image import STORE

FAULTY = Path(__file__).with_name("faulty")
FRAGILE = Path(__file__).with_name("killed_controller.py")
CATALOGUE = """\
catalogue = 1
[[vi_type]]
name = "small"
vcpu = 0.5
memory_mib = 192
disk_mib = 400
disk_read_mib_s = 200
disk_write_mib_s = 200
processes = 48
price_tier = 1
[[vi_type]]
name = "medium"
vcpu = 0.75
memory_mib = 256
disk_mib = 512
disk_read_mib_s = 200
disk_write_mib_s = 200
processes = 64
price_tier = 2
[[vi_type]]
name = "wide"
vcpu = 0.9
memory_mib = 512
disk_mib = 1024
disk_read_mib_s = 200
disk_write_mib_s = 200
processes = 120
price_tier = 3
"""
"""Small enough that the limits of the first are reached within a second; those of the last are far
off."""
ALLOWANCES = {"small": "50ms/100ms", "medium": "75ms/100ms"}
"""What LXD is told of a type's share of a processor."""


class FaultCloudlet(LxdCloudlet):
    """One cloudlet."""

    def start_fragile_controller(self, kill_at: str = "") -> None:
        """Start a controller that ends at one of its steps, once `armed`; see its program."""
        words = ["cloudlet", "run", str(self.config_file), "--format", "json"]
        child = self.children.start(
            "controller",
            [sys.executable, str(FRAGILE), *words],
            environment={KILL_AT: kill_at, FOLDER: str(self.folder)},
        )
        self.url = child.wait_document(LIMIT_S)["api"]
        self._controller = child

    def sid_of(self, service: str) -> SID:
        return SID.from_hex(self.sids[service])

    def paced(self, service: str, rate: float) -> Paced:
        """Begin to send chunks through a service."""
        return Paced(self.router_address, self.sid_of(service), rate, self.folder)

    def vis_of(self, service: str) -> list[dict[str, Any]]:
        """Return the VIs of a service that are to stay."""
        return [
            one
            for one in self.vis()
            if one["service"] == service and one["role"] == "owner" and not one["is_leaving"]
        ]

    def vi_of(self, service: str) -> dict[str, Any]:
        (vi,) = self.vis_of(service)
        return vi

    def is_running(self, service: str) -> bool:
        vis = self.vis_of(service)
        return all(one["state"] == "running" and one["is_attached"] for one in vis)

    def is_settled(self, service: str) -> bool:
        """Tell whether nothing is under way with a service's VIs: no twin, none that leaves."""
        vis = [one for one in self.vis() if one["service"] == service]
        return len(vis) == len(self.vis_of(service)) and self.is_running(service)

    def is_in_order(self) -> bool:
        """Tell whether the controller knows router and nodes, and nothing is under way."""
        with self.client() as client:
            try:
                status, nodes = client.status(), client.nodes()
            except ControllerUnreachableError:
                return False
        is_idle = status.migrations == status.operations == 0
        return is_idle and status.router == "ready" and all(node.state == "ready" for node in nodes)

    def containers(self) -> list[str]:
        """Return the names of all containers that all servers have, by LXD itself."""
        answering = self.daemons[: 1 if self.plan.is_cluster else None]
        return sorted(
            path.rpartition("/")[2].partition("?")[0]
            for daemon in answering
            for path in daemon.query(f"/1.0/instances?project={PROJECT}") or []
        )

    def container_state(self, vi: Mapping[str, Any]) -> dict[str, Any]:
        """Return what LXD says of what a VI's container uses."""
        return self._ask_lxd(vi, "/state")

    def container_config(self, vi: Mapping[str, Any]) -> dict[str, Any]:
        """Return how a VI's container is configured, by LXD itself."""
        found: dict[str, Any] = self._ask_lxd(vi, "")["config"]
        return found

    def _ask_lxd(self, vi: Mapping[str, Any], what: str) -> dict[str, Any]:
        """Ask the server of a VI, where each is a node by itself."""
        path = f"/1.0/instances/{vi['container']}{what}?project={PROJECT}"
        daemon = self.daemons[int(vi["node"].removeprefix("n")) - 1]
        found: dict[str, Any] = daemon.query(path)
        return found


@contextlib.contextmanager
def fault_cloudlet(
    folder: Path,
    services: Mapping[str, Mapping[str, Any]],
    *,
    nodes_count: int = 1,
    servers: Sequence[LxdDaemon] = (),
    is_cluster: bool = False,
    **table: float,
) -> Iterator[FaultCloudlet]:
    """A cloudlet that runs, on LXD servers of its own; nothing is left of it.

    Args:
        services: by the name of each, what the config says of it.
        servers: the caller's, instead of `nodes_count` others.
        table: keys of the config's table `cloudlet`.
    """
    image = _image()
    declared = [
        CloudletService(name, str(_manifest_of(name)), image, table=options)
        for name, options in services.items()
    ]
    plan = CloudletPlan(
        declared, nodes_count, vi_types=CATALOGUE, table=table, is_cluster=is_cluster
    )
    with testbed.lxd_cloudlet(folder, plan, FaultCloudlet, servers) as made:
        yield made


def _manifest_of(service: str) -> Path:
    return FAULTY / ("manifest.toml" if service == "rogue" else f"{service}.toml")


def _image() -> BuiltImage:
    """Return the one image of all services; it is kept for the next test, and no other is."""
    image, _ = build_image(STORE, BuildRequest(manifest=FAULTY), lambda progress: None)
    for older in STORE.images():
        if older.name == image.name and older.version != image.version:
            STORE.remove(older.version)
    return image
