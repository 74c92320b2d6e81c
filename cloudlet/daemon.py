"""The cloudlet controller as a process: control server, API and core on one asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, ProcessCollector

from packetcloud.chunk.http_api import KEEP_ALIVE_S
from packetcloud.cloudlet.api import make_app
from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.config_tables import CloudletFile, NodeTable
from packetcloud.cloudlet.containers import ImageFiles, NodeAdapter
from packetcloud.cloudlet.controller import Controller, check_types
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.placement import POLICIES
from packetcloud.cloudlet.declared_services import DeclaredService
from packetcloud.cloudlet.domain_link.link import DomainLink
from packetcloud.cloudlet.egress_keeper import EgressKeeper
from packetcloud.cloudlet.errors import (
    CloudletConfigError,
    CloudletError,
    NodeRefusedError,
    NodeUnreachableError,
)
from packetcloud.cloudlet.late_node import LateNode
from packetcloud.cloudlet.launches import ConfiguredLaunches
from packetcloud.cloudlet.lxd.discovery import open_nodes
from packetcloud.cloudlet.metrics import CloudletCollector
from packetcloud.cloudlet.network import NodeNetwork, network_protections
from packetcloud.cloudlet.policy import NodeSite
from packetcloud.cloudlet.process_node import NOTICE, ProcessNode
from packetcloud.cloudlet.router_client import RouterClient
from packetcloud.cloudlet.service_files import ServiceFiles
from packetcloud.cloudlet.store import Store
from packetcloud.services.addresses import parse_address

API_LISTEN = "[cloudlet] api_listen"
NETWORK_INTERVAL_S = 5.0
"""How often bridges and filters are compared with what they must be."""
_FIXED_TABLES = ("router", "network", "domain", "node")
_FIXED_KEYS = ("name", "state", "api_listen", "control_port", "placement")
"""Of `[cloudlet]`: what is made of these when a controller starts."""
_log = logging.getLogger("packetcloud.cloudlet")
FindImages = Callable[[CloudletConfig], Mapping[str, ImageFiles]]
OpenNodes = Callable[
    [CloudletConfig], Awaitable[tuple[dict[str, NodeAdapter], dict[str, NodeSite]]]
]


class CloudletDaemon:
    """One controller.

    Args:
        find_images: returns the image of each service, by name.
        open_all: opens the nodes of a config, with the site of each.
        network: bridges and filters, to be made and kept; None: somebody else's.
        is_taking_over: whoever was in charge of the router until now is to stop.
    """

    def __init__(
        self,
        config: CloudletConfig,
        find_images: FindImages,
        open_all: OpenNodes | None = None,
        *,
        network: NodeNetwork | None = None,
        is_taking_over: bool = False,
    ) -> None:
        self.config = config
        self.api_address = ("", 0)
        self.control_address = ("", 0)
        self.exit_text = ""
        """Why it ended, when nobody asked it to."""
        self._find_images = find_images
        self._open_all = open_all or open_all_nodes
        self._network = network
        self._is_taking_over = is_taking_over
        self._services = config.services
        """As they were read last."""
        self._ended = asyncio.Event()
        self._changing: set[asyncio.Task[None]] = set()

    async def run(self, started: Callable[[CloudletDaemon], None]) -> None:
        """Run until a signal or `stop` ends it.

        Args:
            started: called once when both ports are open.

        Raises:
            CloudletConfigError: a port, a folder or a node cannot be had.
            CloudletError: it ended by itself.
        """
        config = self.config
        images = dict(self._find_images(config))
        launches = ConfiguredLaunches(config, images)
        router = RouterClient(config.file.router.url, config.file.cloudlet.name, config.token)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(router.close)
            epoch = await self._epoch_of(router)
            store = Store(config.state_folder)
            stack.callback(store.close)
            if config.file.has_processes:
                _log.warning("%s", NOTICE)
            if self._network is not None:
                await asyncio.to_thread(self._network.set_up)
            nodes, sites = await self._open_all(config)
            for node in nodes.values():
                stack.push_async_callback(node.close)
            controller = Controller(
                config.settings(tuple(nodes), images, _egress_nodes(config, sites)),
                store,
                nodes,
                sites,
                router,
                launches,
                os.urandom,
                POLICIES[config.file.cloudlet.placement],
                self._stepped_down,
                epoch,
            )
            stack.push_async_callback(controller.close)
            link = (
                DomainLink(controller, config.domain, clock_ms, os.urandom)
                if config.domain is not None
                else None
            )
            self.control_address = await controller.links.bind(
                config.control_host, config.network.control.peer_port
            )
            app = make_app(
                controller, launches, _registry(controller), "{}:{}".format(*self.control_address)
            )
            self.api_address = await stack.enter_async_context(
                serving(app, *parse_address(config.file.cloudlet.api_listen, API_LISTEN))
            )
            if not ip_address(self.api_address[0]).is_loopback:
                text = "%s is %s, and asks for no proof: whoever reaches it may stop VIs"
                _log.warning(text, API_LISTEN, self.api_address[0])
            await controller.start()
            files = asyncio.create_task(ServiceFiles(launches, controller.give_files).watch())
            files.add_done_callback(self._files_ended)
            stack.push_async_callback(_cancelled, files)
            if link is not None:
                linking = asyncio.create_task(link.run())
                linking.add_done_callback(self._link_ended)
                stack.push_async_callback(_cancelled, linking)
            if self._network is not None:
                keeper = asyncio.create_task(self._keep_network(self._network, controller))
                stack.callback(keeper.cancel)
                letting_in = asyncio.create_task(EgressKeeper(self._network, controller).run())
                letting_in.add_done_callback(self._egress_ended)
                stack.push_async_callback(_cancelled, letting_in)
            self._await_signals(controller, launches)
            started(self)
            await self._ended.wait()
        if self.exit_text:
            raise CloudletError(self.exit_text)

    def stop(self) -> None:
        """End in good order; VIs and router go on."""
        self._ended.set()

    async def _keep_network(self, network: NodeNetwork, controller: Controller) -> None:
        """Look at bridges and filters again and again, and put right what somebody changed."""
        while True:
            try:
                problems = await asyncio.to_thread(network.problems)
                if problems:
                    _log.error("network of the VIs: %s; put right", "; ".join(problems))
                    await asyncio.to_thread(network.set_up)
                    problems = await asyncio.to_thread(network.problems)
            except (CloudletError, OSError) as error:
                _log.error("network of the VIs cannot be put right: %s", error)
                problems = [str(error)]
            controller.network_protections = network_protections(problems)
            await asyncio.sleep(NETWORK_INTERVAL_S)

    @staticmethod
    async def _change_network(network: NodeNetwork, config: CloudletConfig) -> None:
        """Take over what services are granted in the IP network now."""
        try:
            await asyncio.to_thread(network.change, config.network)
        except (CloudletError, OSError) as error:
            _log.error("network of the VIs: %s; tried again", error)

    async def _epoch_of(self, router: RouterClient) -> int:
        """Return the epoch that is in force at the router, if it is to be taken over."""
        if not self._is_taking_over:
            return 0
        seen = await router.look()
        if isinstance(seen, saw.RouterSilent):
            raise CloudletError(
                f"cannot take over: the router at {self.config.file.router.url} does not answer: "
                f"{seen.text}"
            )
        return seen.epoch

    def _await_signals(self, controller: Controller, launches: ConfiguredLaunches) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # in a test's thread; there `stop` ends it
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload, controller, launches)

    def _reload(self, controller: Controller, launches: ConfiguredLaunches) -> None:
        """Read services, types and images again; a mistake is logged and changes nothing."""
        try:
            config = CloudletConfig.load(self.config.path)
            images = self._find_images(config)
            settings = config.settings(
                controller.core.settings.nodes, images, _egress_nodes(config, controller.sites)
            )
            check_types(settings, controller.core.saved)
            if fixed := _fixed_changes(self.config.file, config.file):
                raise CloudletConfigError(
                    f"{config.path}: {', '.join(fixed)} changed; put it back, or start the "
                    "controller again: its VIs run on meanwhile"
                )
        except CloudletError as error:
            _log.error("config not read again, the old one stays: %s", error)
            return
        for text in _for_later_vis(self._services, config.services, controller):
            _log.warning("%s", text)
        self._services = config.services
        launches.configure(config, dict(images))
        controller.configure(settings)
        for service in config.services:
            controller.give_files(service.name)
        if self._network is not None and self._network.plan != config.network:
            changing = asyncio.create_task(self._change_network(self._network, config))
            self._changing.add(changing)
            changing.add_done_callback(self._changing.discard)
        _log.info("config read again: services and VI types taken over")

    def _files_ended(self, task: asyncio.Task[None]) -> None:
        """End with it: without it VIs go on with keys that were replaced, and nobody would know."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("nobody looks at the files of services", exc_info=error)
            self._stepped_down(f"a fault of the files of services: {error!r}")

    def _link_ended(self, task: asyncio.Task[None]) -> None:
        """End with the link: without it nothing is charged, and nobody would know."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the link to the domain controller fails", exc_info=error)
            self._stepped_down(f"a fault of the link to the domain controller: {error!r}")

    def _egress_ended(self, task: asyncio.Task[None]) -> None:
        """End with it: without it VIs keep a way that they should not have any more."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("nobody looks after the egress of VIs", exc_info=error)
            self._stepped_down(f"a fault of the egress of VIs: {error!r}")

    def _stepped_down(self, text: str) -> None:
        self.exit_text = text
        self._ended.set()


def clock_ms() -> int:
    """Return milliseconds since 1970: reservations and bills are about the time of people."""
    return time.time_ns() // 1_000_000


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)  # what it failed with was said already


async def open_all_nodes(
    config: CloudletConfig,
) -> tuple[dict[str, NodeAdapter], dict[str, NodeSite]]:
    """Open every node that a config declares, members of clusters among them.

    One that has a name and does not answer is opened when it does.

    Raises:
        CloudletConfigError: two have the same name.
        NodeError: one without a name does not answer, or one does not let us in.
    """
    nodes: dict[str, NodeAdapter] = {}
    sites: dict[str, NodeSite] = {}
    for table in config.file.node:
        site = config.site_of(table)
        found = await _open_table(config, table)
        if len(found) > 1:
            # Members of a cluster are on other machines, where nobody keeps filters of an egress.
            site = replace(site, egress_bridge=None, is_here=False)
        for node in found:
            if node.name in nodes:
                raise CloudletConfigError(
                    f"{config.path}: two nodes named {node.name}; give one a name"
                )
            nodes[node.name], sites[node.name] = node, site
    return nodes, sites


async def _open_table(config: CloudletConfig, table: NodeTable) -> list[NodeAdapter]:
    if table.isolation == "process":
        folder = config.state_folder / "processes"
        return [ProcessNode(table.name or "process", config.site_of(table), folder)]
    address, site, name = config.address_of(table), config.site_of(table), table.name
    try:
        return await open_nodes(address, site, name=name)
    except NodeUnreachableError as error:
        if name is None:
            raise NodeUnreachableError(
                f"{error}; a [[node]] with a name may be away when the controller starts"
            ) from None
        _log.warning("node %s does not answer: %s; the controller starts without it", name, error)

    async def open_late() -> NodeAdapter:
        found = await open_nodes(address, site, name=name)
        if len(found) == 1 and found[0].name == name:
            return found[0]
        for one in found:
            await one.close()
        names = ", ".join(one.name for one in found)
        raise NodeRefusedError(
            f"{address} is a cluster with members {names}: start the controller again"
        )

    return [LateNode(name, open_late)]


def _egress_nodes(config: CloudletConfig, sites: Mapping[str, NodeSite]) -> frozenset[str] | None:
    """Return the nodes from which VIs reach the IP network; None: all, as child processes do."""
    if config.file.has_processes:
        return None
    return frozenset(name for name, site in sites.items() if site.egress_bridge is not None)


def _fixed_changes(before: CloudletFile, after: CloudletFile) -> list[str]:
    """Return what differs that a controller has taken into what runs: names, addresses, ports."""
    tables = [
        f"[{name}]" for name in _FIXED_TABLES if getattr(before, name) != getattr(after, name)
    ]
    return tables + [
        f"[cloudlet] {name}"
        for name in _FIXED_KEYS
        if getattr(before.cloudlet, name) != getattr(after.cloudlet, name)
    ]


def _for_later_vis(
    before: Iterable[DeclaredService], after: Iterable[DeclaredService], controller: Controller
) -> Iterator[str]:
    """Yield what of a new config the VIs that run do not have, and how they get it."""
    old = {one.name: one for one in before}
    for service in after:
        known = old.get(service.name)
        numbers = [
            str(vi.number)
            for vi in controller.core.saved.vis.values()
            if vi.service == service.name and not vi.is_leaving
        ]
        if known is None or not numbers:
            continue
        # Another content of a file that a VI has reaches it while it runs.
        what = [f"files.{name}" for name in sorted(known.files.keys() ^ service.files.keys())]
        what += ["settings or manifest"] if known.spec != service.spec else []
        if what:
            yield (
                f"service {service.name}: {', '.join(what)} changed; VIs that run keep what they "
                f"have until they are started again: packetcloud vi restart {' | '.join(numbers)}"
            )


def _registry(controller: Controller) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(CloudletCollector(controller))
    ProcessCollector(registry=registry)
    return registry


@contextlib.asynccontextmanager
async def serving(app: FastAPI, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
    """Serve an app on the running loop; gives the address, with the port that 0 became.

    Raises:
        CloudletConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise CloudletConfigError(
            f"{API_LISTEN} = '{host}:{port}': {error.strerror or error}; allowed: a free TCP port "
            "of this machine"
        ) from None
    config = uvicorn.Config(
        app,
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield listener.getsockname()[:2]
    finally:
        server.should_exit = True
        server.force_exit = True  # open connections are scrapers and status commands
        await task


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals belong to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run_cloudlet(
    config: CloudletConfig,
    find_images: FindImages,
    started: Callable[[CloudletDaemon], None],
    *,
    network: NodeNetwork | None = None,
    is_taking_over: bool = False,
) -> None:
    """Run a controller in this process until a signal ends it.

    Raises:
        CloudletError: it cannot start, or another controller is in charge.
    """
    daemon = CloudletDaemon(config, find_images, network=network, is_taking_over=is_taking_over)
    asyncio.run(daemon.run(started))
