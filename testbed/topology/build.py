"""Makes what a plan says: namespaces, links, keys, routers, controllers, services, rules.

Everything is the real thing, started by the commands that people type. Whatever happens, nothing is
left once `open_network` is through; after a kill of this process the kernel ends its children, and
the namespaces bear its mark, so the next sweep takes them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from packetcloud.chunk.identity import Identity, create_identity_file
from packetcloud.router.rules.client import RuleClient
from packetcloud.router.rules.schemas import Installation
from packetcloud.router.rules.signed import sign_document
from packetcloud.services.secure_communication.keys import create_key_file
from packetcloud.testbed import daemons
from packetcloud.testbed.daemons import Router
from packetcloud.testbed.emulator.link import Link, start_link
from packetcloud.testbed.errors import ChildError, TestbedError, TopologyError
from packetcloud.testbed.held_signals import HeldSignals
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.lxd_daemon import POOL
from packetcloud.testbed.namespaces import Namespace, NetworkLab
from packetcloud.testbed.processes import Child, Children, packetcloud_command, wait_until
from packetcloud.testbed.topology.cloudlets import trouble_at
from packetcloud.testbed.topology.containers import LXD, Containers, lacking_for_containers
from packetcloud.testbed.topology.graph import Graph
from packetcloud.testbed.topology.leftovers import end_processes_in
from packetcloud.testbed.topology.plan import (
    Step,
    StepKind,
    has_containers,
    make_plan,
    managed_services,
    rules_at,
    steps_left,
)
from packetcloud.testbed.topology.router_files import (
    CONTROL,
    LOOPBACK,
    PORT,
    SECRET_PARAMETER,
    LxdNode,
    ServiceFiles,
    controller_text,
    router_text,
    rule_lines,
)
from packetcloud.testbed.topology.service_files import files_of, manifest_of
from packetcloud.testbed.topology.tables import ServiceTable

START_LIMIT_S = 60.0
"""For whatever is waited for while a topology starts, on a busy machine."""
CONTAINERS_LIMIT_S = 180.0
"""Until the containers of a service are attached, their image taken in by LXD included."""
_CONTROL_ADDRESS = ("127.0.0.1", 4701)

Tell = Callable[[str], None]


class Network:
    """A topology that is being made, or is up. Make it with `open_network`.

    Call it on the main thread: children end with the thread that started them.
    """

    def __init__(
        self,
        graph: Graph,
        folder: Path,
        lab: NetworkLab,
        children: Children,
        containers: Containers,
    ) -> None:
        self.graph = graph
        self.file = graph.topology.file
        self.folder = folder
        self.children = children
        self.containers = containers
        self.places: dict[str, Namespace] = {}
        self.links: dict[str, Link] = {}
        """Those that are emulated; a plain veth pair cannot be changed and says nothing."""
        self.routers: dict[str, Router] = {}
        self.services: dict[str, Child] = {}
        """By name of the service, or of the router whose controller it is."""
        self.guids: dict[str, str] = {}
        self.made: list[Step] = []
        self._lab = lab
        self._starting: dict[str, Child] = {}
        self._identities: dict[str, Identity] = {}

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    def make_all(self, tell: Tell) -> None:
        """Make what is not there yet; return when all is attached.

        Raises:
            TestbedError: something cannot be made; what there is stays until `close`.
        """
        for step in steps_left(make_plan(self.graph), self.made):
            tell(str(step))
            self._make(step)
            self.made.append(step)
        tell("wait until all is attached")
        self.settle()

    def kill(self, name: str) -> None:
        """Kill the process of a router or of a service, as a crash would."""
        child = self.routers[name].child if name in self.routers else self.services[name]
        child.stop(grace_s=0.0)

    def revive(self, name: str) -> None:
        """Start a killed router or service again; returns at once."""
        if name in self.routers:
            self._start_router(name)
        else:
            self._start_service(self._service_table(name))

    def settle(self) -> None:
        """Return once all that was started again is attached.

        Raises:
            ChildError: it is not, in time.
        """
        self._await_routers()
        for router in self.file.routers:
            self._await_neighbours(router)
        for table in self.file.service:
            self._await_service(table)

    def router_address(self, host: str) -> str:
        """Where a host finds its router: HOST:PORT."""
        return f"{self.graph.address_of(self.graph.router_of(host), host)}:{PORT}"

    # --- steps ----------------------------------------------------------------------------------

    def _make(self, step: Step) -> None:
        makers: dict[StepKind, Callable[[str], None]] = {
            StepKind.IMAGE: lambda name: self.containers.build_image(self._service_table(name)),
            StepKind.NAMESPACE: self._make_namespace,
            StepKind.LINK: self._make_link,
            StepKind.ROUTES: self._make_routes,
            StepKind.KEY: self._make_key,
            StepKind.ROUTER: self._start_router,
            StepKind.LXD: lambda name: self.containers.start_server(name, self.places[name]),
            StepKind.CONTROLLER: self._start_controller,
            StepKind.SERVICE: lambda name: self._start_service(self._service_table(name)),
            StepKind.NEIGHBOURS: self._await_neighbours,
            StepKind.RULES: self._install_rules,
        }
        makers[step.kind](step.name)

    def _make_namespace(self, node: str) -> None:
        place = self.places[node] = self._lab.namespace(node)
        if node in self.graph.forwarding:
            place.set_sysctl("net.ipv4.ip_forward", "1")

    def _make_link(self, name: str) -> None:
        plan = next(one for one in self.graph.topology.links if one.name == name)
        ends = self.places[plan.left], self.places[plan.right]
        if not plan.is_emulated:
            self._lab.link(*ends, LinkMode.WIRE)
            return
        shapes = plan.to_right, plan.to_left
        run = self.file.run
        self.links[name] = start_link(
            self._lab, self.children, *ends, *shapes, run.seed, emulator=run.emulator
        )

    def _make_routes(self, node: str) -> None:
        for route in self.graph.routes(node):
            self.places[node].add_route(route.network, route.gateway)

    def _make_key(self, name: str) -> None:
        identity = create_identity_file(self.keys / f"{name}.key")
        self._identities[name] = identity
        self.guids[name] = identity.guid.hex

    def _start_router(self, name: str) -> None:
        config = self.folder / f"{name}.toml"
        config.write_text(
            router_text(self.graph, name, self.keys, self.guids, self._isp.public_key.hex())
        )
        command = packetcloud_command("router", "run", config, "--format", "json")
        child = self.children.start(name, command, self.places[name])
        self._starting[name] = child
        address = ("127.0.0.1", PORT)
        self.routers[name] = Router(
            child, self.places[name], self.guids[name], address, _CONTROL_ADDRESS
        )

    def _await_routers(self) -> None:
        """Return once every router that was started listens."""
        for child in self._starting.values():
            child.wait_document(START_LIMIT_S)
        self._starting.clear()

    @property
    def _isp(self) -> Identity:
        """The key that signs the rules of the file."""
        path = self.keys / "isp.key"
        if "isp.key" not in self._identities:
            self._identities["isp.key"] = create_identity_file(path)
        return self._identities["isp.key"]

    def _service_table(self, name: str) -> ServiceTable:
        return next(one for one in self.file.service if one.name == name)

    def _files_of(self, table: ServiceTable) -> ServiceFiles:
        secret = None
        if table.secret is not None:
            secret = self.keys / f"secret-{table.secret}.key"
            if not secret.exists():
                create_key_file(secret)
        topology = self.graph.topology
        return ServiceFiles(
            table,
            manifest_of(topology, table),
            self.keys / f"{table.name}.key",
            secret,
            files_of(topology, table),
            self.containers.image_of(table) if table.isolation == LXD else None,
        )

    def _start_service(self, table: ServiceTable) -> None:
        self._await_routers()
        files = self._files_of(table)
        settings = table.settings | {name: str(path) for name, path in files.files.items()}
        if files.secret is not None:
            settings[SECRET_PARAMETER] = str(files.secret)
        words: list[object] = [files.manifest, "--router", f"127.0.0.1:{PORT}"]
        words += ["--key", files.key, "--state-dir", self.folder / f"{table.name}-state"]
        words += ["--replicas", table.vis, "--private-link", LOOPBACK]
        for key, value in settings.items():
            words += ["--set", f"{key}={_setting_text(value)}"]
        command = packetcloud_command("service", "run", *words)
        self.services[table.name] = self.children.start(table.name, command, self.places[table.at])

    def _start_controller(self, router: str) -> None:
        self._await_routers()
        managed = set(managed_services(self.graph, router))
        files = [self._files_of(one) for one in self.file.service if one.name in managed]
        config = self.folder / f"{router}-cloudlet.toml"
        lxd = None
        if has_containers(self.graph, router):
            lxd = LxdNode(self.containers.socket_of(router), POOL)
        config.write_text(controller_text(self.graph, router, files, lxd))
        command = packetcloud_command("cloudlet", "run", config, "--format", "json")
        child = self.children.start(f"{router}-controller", command, self.places[router])
        self.services[router] = child
        child.wait_document(START_LIMIT_S)

    def _await_service(self, table: ServiceTable) -> None:
        """Return once all VIs of a service are attached."""
        router, sid = self.routers[table.at], self.guids[table.name]
        child = self.services[table.at if table.is_managed else table.name]

        def are_attached() -> bool:
            self._check_running(router.child, child)
            found = [one for one in router.get_json("/services") if one["sid"] == sid]
            return bool(found) and len(found[0]["vis"]) >= table.vis

        limit_s = CONTAINERS_LIMIT_S if table.isolation == LXD else START_LIMIT_S
        try:
            wait_until(are_attached, limit_s, f"{table.name} attaches to {table.at}")
        except ChildError as error:
            if not (table.is_managed and child.is_running):
                raise
            said = trouble_at(self.places[table.at], table.name)
            raise ChildError(f"{error}: {said or 'its controller names no reason'}") from None

    def _await_neighbours(self, name: str) -> None:
        self._await_routers()
        router = self.routers[name]
        wanted = {self.guids[one.node] for one in self.graph.neighbours(name)}

        def are_up() -> bool:
            self._check_running(router.child)
            listed = router.get_json("/neighbours")
            return wanted <= {one["guid"] for one in listed if one["is_up"]}

        wait_until(are_up, START_LIMIT_S, f"{name} and the routers beside it find each other")

    def _install_rules(self, name: str) -> None:
        self._await_routers()
        numbers = rules_at(self.graph, name)
        rules = [(number, self.file.rule[number]) for number in numbers]
        path = self.folder / f"{name}-rules.signed"
        with path.open("wb") as target:
            body = io.BytesIO(b"".join(rule_lines(rules, self.guids)))
            sign_document(body, self._isp, (), target)
        taken = self.places[name].run(_install, path)
        if taken is None or taken.refused:
            said = "the document" if taken is None else taken.items[0]
            raise TestbedError(f"router {name} refused a [[rule]]: {said}")

    @staticmethod
    def _check_running(*children: Child) -> None:
        for child in children:
            if not child.is_running:
                raise ChildError(f"{child.name} ended: {child.last_words()}")


@contextlib.contextmanager
def open_network(
    graph: Graph, folder: Path, tell: Tell, images: Path | None = None
) -> Iterator[Network]:
    """Make a topology in `folder`, which is there and empty; nothing is left of it afterwards.

    Of the main thread: Ctrl-C and SIGTERM that come while it is taken down wait until it is.

    Args:
        images: where images of VIs are kept; None: where `packetcloud image build` puts them.

    Raises:
        TestbedError: it cannot be made here; the text says why.
    """
    if (reason := lacking_for_containers(graph.topology)) is not None:
        raise TopologyError(reason)
    folder = folder.absolute()  # config files name others in it, and lie in it themselves
    (folder / "keys").mkdir(mode=0o700)
    (folder / "run").mkdir(mode=0o700)
    with contextlib.ExitStack() as stack:
        signals = HeldSignals()
        stack.callback(signals.release)
        lab = stack.enter_context(NetworkLab(uses_cubic=False))
        places: list[str] = []
        stack.callback(end_processes_in, places)
        # Controllers and routers end first, then the servers with their containers.
        containers = Containers(graph.topology, images, tell)
        stack.callback(containers.close)
        children = stack.enter_context(Children(folder / "run"))
        network = Network(graph, folder, lab, children, containers)
        try:
            network.make_all(tell)
            yield network
        finally:
            # A second Ctrl-C, or `down` meanwhile, would end the servers' end half-way.
            signals.hold()
            places += [place.name for place in network.places.values()]


def _install(document: Path) -> Installation | None:
    """Bring a document to the router of this namespace; None: it was refused as a whole."""
    with RuleClient(f"http://{CONTROL}", daemons.START_TIMEOUT_S) as client:
        taken = client.install(document, lambda sent: None)
    return taken if isinstance(taken, Installation) else None


def _setting_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
