"""A whole cloudlet on this machine: router, controller and private LXD servers as compute nodes.

Everything is the real thing: the commands, containers, bridges, filters. Ports are free ones, names
are this process's own, and nothing is left: what a killed experiment did not remove, the next does.
Needs root.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packetcloud.chunk.identity import create_identity_file
from packetcloud.cloudlet.client import CloudletClient, ControllerUnreachableError
from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.images.store import BuiltImage
from packetcloud.cloudlet.network import NodeNetwork
from packetcloud.cloudlet.removal import remove_vis
from packetcloud.cloudlet.schemas import ViInfo
from packetcloud.testbed.daemons import Router, RouterPlan, ServiceEntry, start_router
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.lxd_daemon import POOL, LxdDaemon
from packetcloud.testbed.lxd_remains import NETWORK_PREFIX, sweep_stale_networks
from packetcloud.testbed.peers.tools import free_port
from packetcloud.testbed.processes import Child, Children, packetcloud_command, wait_until

LIMIT_S = 120.0
"""For whatever is waited for."""
LOCALHOST = "127.0.0.1"
_ASK_LIMIT_S = 20.0
_NO_SCALING = {"up_wait_s": 600.0, "down_after_s": 86400.0}
"""The experiment says how many VIs there are, nobody else."""


@dataclass(frozen=True, slots=True)
class CloudletService:
    """A service that the cloudlet runs."""

    name: str
    manifest: str
    """A bundled service, or a folder."""
    image: BuiltImage
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    table: Mapping[str, Any] = field(default_factory=dict)
    """More keys of its [[service]] table, values as in JSON; those of a table in it also as
    `conduct.window_s`."""


@dataclass(frozen=True, slots=True)
class CloudletPlan:
    """What is to run."""

    services: Sequence[CloudletService]
    nodes_count: int = 1
    pool_mib: int = 4096
    """Of each node; the file takes only what is written."""
    vi_types: str = ""
    """Text of a catalogue; empty: PacketCloud's own."""
    router_services: Sequence[ServiceEntry] = ()
    """Besides those of the cloudlet, for VIs that are no containers."""
    router_processors: Sequence[int] = ()
    """As in `RouterPlan`."""
    table: Mapping[str, int | float | str] = field(default_factory=dict)
    """More keys of the [cloudlet] table."""
    network: Mapping[str, int | float | str] = field(default_factory=dict)
    """More keys of the [network] table; its bridge of an egress is named as the others are."""
    is_cluster: bool = False
    """The servers are members of one cluster, of which the first answers for all."""


class LxdCloudlet:
    """One cloudlet. Make it with `lxd_cloudlet`; `start` begins, the end of `with` ends it."""

    def __init__(
        self, folder: Path, children: Children, daemons: Sequence[LxdDaemon], plan: CloudletPlan
    ) -> None:
        self.folder = folder
        self.children = children
        self.daemons = daemons
        self.plan = plan
        self.tag = f"{NETWORK_PREFIX}{os.getpid():x}"
        self.sids: dict[str, str] = {}
        """SID of each service of the cloudlet, by name."""
        self.url = ""
        self._third = os.getpid() % 250
        self._router: Router | None = None
        self._controller: Child | None = None
        for service in plan.services:
            key = folder / f"{service.name}.key"
            self.sids[service.name] = create_identity_file(key).guid.hex

    @property
    def config_file(self) -> Path:
        return self.folder / "cloudlet.toml"

    @property
    def router(self) -> Router:
        assert self._router is not None, "it was not started"
        return self._router

    @property
    def controller(self) -> Child:
        assert self._controller is not None, "it does not run"
        return self._controller

    @property
    def router_address(self) -> tuple[str, int]:
        """Where hosts of this machine attach."""
        return LOCALHOST, self.router.address[1]

    def start(self) -> None:
        """Start router and controller; return when the router knows of every service, and the
        controller what each node has or that it does not answer.

        Call it on the main thread: children end with the thread that started them.
        """
        plan = RouterPlan(
            ("0.0.0.0", 0),
            (LOCALHOST, 0),
            self.plan.router_services,
            private_links=("127.0.0.0/8", self._network(213)),
            table=self.folder / "table",
            processors=self.plan.router_processors,
        )
        self._router = start_router(self.children, plan)
        self.config_file.write_text(self._config_text())
        self.start_controller()
        self.until(self._are_listed, "the router lists all services")
        self.until(self._are_known, "the nodes are known")

    def start_controller(self, *more: str) -> None:
        """Start the controller; return once its API answers."""
        words = ["cloudlet", "run", self.config_file, "--format", "json", *more]
        child = self.children.start("controller", packetcloud_command(*words))
        self.url = child.wait_document(LIMIT_S)["api"]
        self._controller = child

    def stop_controller(self) -> None:
        """End it in good order; VIs run on.

        Raises:
            ChildError: it failed.
        """
        child, self._controller = self.controller, None
        child.ask_to_stop()
        child.wait_exit(30.0)

    def kill_controller(self) -> None:
        child, self._controller = self.controller, None
        child.signal(signal.SIGKILL)
        child.stop()

    def take_down(self) -> None:
        """End the controller and remove its VIs and network, as `packetcloud cloudlet down` does.

        Raises:
            ChildError: the controller failed.
            CloudletError: a node did not do it.
        """
        self.stop_controller()
        asyncio.run(remove_vis(CloudletConfig.load(self.config_file), lambda text: None))
        self.remove_network()

    def client(self) -> CloudletClient:
        """Return a client of the controller; close it."""
        return CloudletClient(self.url, _ASK_LIMIT_S)

    def list_vis(self) -> list[ViInfo]:
        """Return the VIs; none also while the controller does not answer."""
        with self.client() as client:
            try:
                return client.vis()
            except ControllerUnreachableError:
                return []

    def until(
        self, is_so: Callable[[], object], what: str = "that", limit_s: float = LIMIT_S
    ) -> None:
        """Wait for a condition.

        Raises:
            ChildError: it did not come true, or router or controller ended.
        """

        def is_so_and_all_run() -> bool:
            for child in (self.router.child, self._controller):
                if child is not None and not child.is_running:
                    raise ChildError(f"{child.name} ended: {child.last_words()}\n{self.logs()}")
            return bool(is_so())

        try:
            wait_until(is_so_and_all_run, limit_s, what)
        except ChildError as error:
            raise ChildError(f"{error}\n{self.logs()}") from None

    def until_running(self, count: int = 1, limit_s: float = LIMIT_S) -> None:
        """Wait until there are `count` VIs besides standbys, all running and attached."""

        def is_so() -> bool:
            vis = [one for one in self.list_vis() if one.role != "standby"]
            ready = [one for one in vis if one.state == "running" and one.is_attached]
            return len(ready) == len(vis) == count

        self.until(is_so, f"{count} VIs run", limit_s)

    def logs(self) -> str:
        """Return the ends of all logs."""
        paths = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{path}:\n{path.read_text()[-4000:]}" for path in paths)

    def remove_network(self) -> None:
        """Remove bridges and filters; nothing happens where there are none."""
        if self.config_file.exists():
            NodeNetwork(CloudletConfig.load(self.config_file).network).tear_down()

    def _are_listed(self) -> bool:
        listed = {one["sid"] for one in self.router.get_json("/services")}
        return listed >= set(self.sids.values())

    def _are_known(self) -> bool:
        with self.client() as client:
            return all(one.state != "unknown" for one in client.nodes())

    def _network(self, second: int) -> str:
        return f"10.{second}.{self._third}.0/24"

    def _config_text(self) -> str:
        control = self.router.control
        lines = [
            "[cloudlet]",
            f'name = "{self.tag}"',
            'state = "state"',
            f'api_listen = "{LOCALHOST}:{free_port()}"',
            f"control_port = {free_port()}",
            *(['catalogue = "vi-types.toml"'] if self.plan.vi_types else []),
            *_lines(self.plan.table),
            "[router]",
            f'url = "http://{control[0]}:{control[1]}"',
            f"port = {self.router.address[1]}",
            "[network]",
            f'data_bridge = "{self.tag}d"',
            f'control_bridge = "{self.tag}c"',
            f'data_ipv4 = "{self._network(213)}"',
            f'control_ipv4 = "{self._network(214)}"',
            f'data_ipv6 = "fd5a:7c1e:{os.getpid() % 60_000:x}:1::/64"',
            f'control_ipv6 = "fd5a:7c1e:{os.getpid() % 60_000:x}:2::/64"',
            f'filter_table = "{self.tag}"',
            f'egress_bridge = "{self.tag}e"',
            *_lines(self.plan.network),
        ]
        if self.plan.vi_types:
            (self.folder / "vi-types.toml").write_text(self.plan.vi_types)
        for number, daemon in enumerate(self.daemons[: 1 if self.plan.is_cluster else None], 1):
            lines += ["[[node]]", f'socket = "{daemon.socket}"', f'pool = "{POOL}"']
            lines += [] if self.plan.is_cluster else [f'name = "n{number}"']
        for service in self.plan.services:
            lines += _service_lines(service)
        return "\n".join(lines) + "\n"


@contextlib.contextmanager
def lxd_cloudlet(
    folder: Path,
    plan: CloudletPlan,
    make: Callable[..., LxdCloudlet] = LxdCloudlet,
    servers: Sequence[LxdDaemon] = (),
) -> Iterator[Any]:
    """A cloudlet that runs, with its router, on private LXD servers; nothing is left of it.

    Args:
        folder: an empty one, for keys, logs and the controller's state.
        make: a class of the caller's own.
        servers: nodes of the caller's own, who takes the cloudlet down to use them again. None:
            such as the plan says.
    """
    sweep_stale_networks()
    with contextlib.ExitStack() as stack:
        daemons = servers or [
            stack.enter_context(LxdDaemon(pool_mib=plan.pool_mib)) for _ in range(plan.nodes_count)
        ]
        # Controller and router end first, then their network, the servers with their containers.
        made: list[LxdCloudlet] = []
        stack.callback(_remove_networks, made)
        children = stack.enter_context(Children(folder))
        made.append(make(folder, children, daemons, plan))
        made[0].start()
        yield made[0]


def _remove_networks(cloudlets: Sequence[LxdCloudlet]) -> None:
    for one in cloudlets:
        one.remove_network()


def _service_lines(service: CloudletService) -> list[str]:
    files = {name: str(path.absolute()) for name, path in service.files.items()}
    image = [str(path.absolute()) for path in service.image.files().files]
    return [
        "[[service]]",
        f'manifest = "{service.manifest}"',
        f'name = "{service.name}"',
        f'key = "{service.name}.key"',
        f"image = {json.dumps(image)}",
        f"settings = {_inline(service.settings)}",
        f"files = {_inline(files)}",
        *_lines({"scaling": _NO_SCALING} | dict(service.table)),
    ]


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} = {_inline(value) if isinstance(value, Mapping) else json.dumps(value)}"
        for key, value in values.items()
    ]


def _inline(values: Mapping[str, Any]) -> str:
    """Return an inline table of TOML; JSON's words are TOML's for these values."""
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + " }"
