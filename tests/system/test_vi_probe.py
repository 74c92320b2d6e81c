"""Hostile code in a VI of the real image in real LXD: everything that it tries is denied.

`testbed.vi_probe` tries a fixed list, as root of the container and as the user of services; the
outcomes are compared with golden ones. Beside it a neighbour, a router and a controller listen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest

from packetcloud.cloudlet.addresses import FIRST_NUMBER, Subnet
from packetcloud.cloudlet.containers import ContainerWish, NodeAdapter
from packetcloud.cloudlet.egress import Destination, EgressPolicy
from packetcloud.cloudlet.egress_filters import EgressElements, EgressPlan
from packetcloud.cloudlet.filters import NetworkPlan
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.lxd.discovery import open_nodes
from packetcloud.cloudlet.lxd.project import PROJECT
from packetcloud.cloudlet.network import NodeNetwork
from packetcloud.cloudlet.policy import NodeSite
from packetcloud.testbed.lxd_daemon import POOL, LxdDaemon
from packetcloud.testbed.namespaces import Namespace, NetworkLab
from tests.node_contract import logged, wait_for
from tests.system.lxd_places import needs_lxd, socket_of
from tests.system.vi_image import BUILD_TIMEOUT_S, vi_image
from tests.unit.cloudlet.test_filters import CONTROL, DATA

pytestmark = [
    *needs_lxd,
    pytest.mark.needs("debootstrap"),
    pytest.mark.timeout(BUILD_TIMEOUT_S),
]

TAG = str(os.getpid() % 100_000)
WEB, OTHER_WEB = 24580, 24581
RESOLVER = IPv4Address("198.51.100.9")
PROBE_LIMIT_S = 30.0
EGRESS = EgressPlan(
    f"pp{TAG}e",
    Subnet(IPv4Network("10.212.8.0/24"), IPv6Network("fd00:212::/64")),
    f"pp{TAG}w",
    (EgressPolicy("fetcher", (Destination.of(f"0.0.0.0/0:{WEB}"),), resolvers=(RESOLVER,)),),
)
PLAN = NetworkPlan(
    replace(DATA, name=f"pp{TAG}d"),
    replace(CONTROL, name=f"pp{TAG}c"),
    f"pc_probe_{TAG}",
    EGRESS,
)
MARK = b"packetcloud-probe"
GOLDEN = Path(__file__).with_name("vi_probe_golden.json")
ROOT, SERVICE = "0", "1000"
OTHER_PORT = 4999
ALL_PROTOCOLS = 0x0003
"""ETH_P_ALL: whatever comes in. Source: linux/if_ether.h."""


@dataclass
class Cage:
    """Two VIs on one node, and what a prober may see of the rest."""

    daemon: LxdDaemon
    prober: str
    neighbour: ContainerWish
    network: NodeNetwork
    world: Namespace
    """The IP network, behind a device of this machine."""


@pytest.fixture(scope="module")
def cage() -> Iterator[Cage]:
    image = vi_image().files()
    network = NodeNetwork(PLAN)
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(LxdDaemon())
        world = stack.enter_context(NetworkLab()).namespace("world")
        stack.callback(network.tear_down)
        _join(world)
        network.set_up()
        network.admit(EgressElements({"fetcher": frozenset({FIRST_NUMBER + 1, FIRST_NUMBER + 2})}))
        site = NodeSite(POOL, PLAN.data.name, PLAN.control.name, egress_bridge=EGRESS.name)

        async def start() -> list[ContainerWish]:
            (node,) = await open_nodes(socket_of(daemon), site)
            try:
                await node.import_image(image)
                wishes = [_wish(number, image.fingerprint) for number in (1, 2)]
                for wish in wishes:
                    await node.create(wish)
                    await node.start(wish.name)
                await wait_for(lambda: _are_up(node, wishes), 60)
                return wishes
            finally:
                await node.close()

        wishes = asyncio.run(start())
        yield Cage(daemon, wishes[0].name, wishes[1], network, world)


def _join(world: Namespace) -> None:
    """Lay the way to the world, which has an address that everybody may reach and a private one."""
    for words in (
        f"link add {EGRESS.device} type veth peer name eth0 netns {world.name}",
        f"addr add 198.51.100.1/25 dev {EGRESS.device}",
        f"link set {EGRESS.device} up",
        f"-n {world.name} link set eth0 up",
        f"-n {world.name} addr add 198.51.100.9/25 dev eth0",
        f"-n {world.name} addr add 10.99.0.9/24 dev eth0",
        f"route replace 10.99.0.0/24 via 198.51.100.9 dev {EGRESS.device}",
    ):
        subprocess.run(["ip", *words.split()], check=True)  # goes with the namespace


async def _are_up(node: NodeAdapter, wishes: list[ContainerWish]) -> bool:
    return all([await logged(node, wish.name, "calling again") for wish in wishes])


def _wish(number: int, image: str) -> ContainerWish:
    name = f"probe{TAG}-{number}"
    data = PLAN.data.subnet.addresses(FIRST_NUMBER + number)
    control = PLAN.control.subnet.addresses(FIRST_NUMBER + number)
    egress = EGRESS.subnet.addresses(FIRST_NUMBER + number)
    environment = {
        "PACKETCLOUD_EGRESS_IPV4": str(egress.ipv4),
        "PACKETCLOUD_EGRESS_IPV6": str(egress.ipv6),
        "PACKETCLOUD_EGRESS_GATEWAYS": str(EGRESS.peer_ipv4),
        "PACKETCLOUD_RESOLVERS": str(RESOLVER),
        "PACKETCLOUD_VI": name,
        "PACKETCLOUD_TOKEN": "token",
        "PACKETCLOUD_CONTROLLER": f"{PLAN.control.peer_ipv4}:{PLAN.control.peer_port}",
        "PACKETCLOUD_DATA_IPV4": str(data.ipv4),
        "PACKETCLOUD_DATA_IPV6": str(data.ipv6),
        "PACKETCLOUD_CONTROL_IPV4": str(control.ipv4),
        "PACKETCLOUD_CONTROL_IPV6": str(control.ipv6),
    }
    limits = Limits(1.0, 192, 512, 100, 50, 64)
    labels = {"vi": "1"}
    return ContainerWish(name, image, limits, data, control, labels, environment, egress)


def _probe(
    cage: Cage,
    user: str,
    targets: dict[str, list[object]] | None = None,
    container: str | None = None,
) -> dict[str, str]:
    """Run the probe in a container, the prober's for None; return its outcomes."""
    script = files("packetcloud.testbed").joinpath("vi_probe.py").read_text()
    command = ["exec", container or cage.prober, "--project", PROJECT, "--user", user, "--"]
    text = cage.daemon.run("lxc", *command, "python3", "-", json.dumps(targets or {}), text=script)
    found: dict[str, str] = json.loads(text)
    return found


@pytest.mark.parametrize("user", [ROOT, SERVICE])
def test_every_attempt_ends_as_it_is_written(cage: Cage, user: str) -> None:
    """The golden outcomes: all denied, but for raw frames of root, which reach nobody."""
    outcomes = {name: text.split(":")[0] for name, text in _probe(cage, user).items()}
    assert outcomes == json.loads(GOLDEN.read_text())[user]


def test_the_golden_outcomes_are_denials() -> None:
    """Nobody can write a hole into the golden file without changing this test."""
    golden = json.loads(GOLDEN.read_text())
    raw = {f"raw frames by {nic}" for nic in ("eth0", "eth1", "eth2")}
    assert {name for name, text in golden[ROOT].items() if text != "denied"} == raw
    assert set(golden[SERVICE].values()) == {"denied"}
    assert len(golden[ROOT]) == len(golden[SERVICE]) > 40


def test_only_router_and_controller_answer(cage: Cage) -> None:
    """Their ports do; other ports, the neighbour, the machine and the world do not."""
    data, control = PLAN.data, PLAN.control
    neighbour = cage.neighbour
    reachable = {
        "router": ["udp", str(data.peer_ipv4), data.peer_port],
        "router, IPv6": ["udp", str(data.peer_ipv6), data.peer_port],
        "controller": ["tcp", str(control.peer_ipv4), control.peer_port],
        "controller, IPv6": ["tcp", str(control.peer_ipv6), control.peer_port],
    }
    hidden = {
        "another port of the router": ["udp", str(data.peer_ipv4), OTHER_PORT],
        "another port of the controller": ["tcp", str(control.peer_ipv4), OTHER_PORT],
        "controller by UDP": ["udp", str(control.peer_ipv4), control.peer_port],
        "neighbour by data": ["udp", str(neighbour.data.ipv4.ip), OTHER_PORT],
        "neighbour by control": ["udp", str(neighbour.control.ipv4.ip), OTHER_PORT],
        "neighbour, IPv6": ["udp", str(neighbour.data.ipv6.ip), OTHER_PORT],
        "metadata of a cloud": ["tcp", "169.254.169.254", 80],
        "a name server": ["udp", "192.0.2.53", 53],
    }
    echo = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n"
        f"s.bind(('::', {OTHER_PORT}))\n"
        "while True:\n"
        "    data, sender = s.recvfrom(100)\n"
        "    s.sendto(data, sender)\n"
    )
    with contextlib.ExitStack() as stack:
        for kind, address, port in [*reachable.values(), *list(hidden.values())[:3]]:
            stack.enter_context(_listening(str(kind), str(address), int(str(port))))
        command = ["exec", neighbour.name, "--project", PROJECT, "--user", ROOT, "--"]
        # Ends with its container.
        cage.daemon.run("lxc", *command, "sh", "-c", f'python3 -c "{echo}" >/dev/null 2>&1 &')
        own = {"itself": ["udp", "127.0.0.1", OTHER_PORT]}
        assert _probe(cage, SERVICE, own, neighbour.name)["itself"] == "ALLOWED"
        outcomes = _probe(cage, SERVICE, {**reachable, **hidden})
    assert {name for name in reachable if outcomes[name] == "ALLOWED"} == set(reachable)
    assert {name for name in hidden if outcomes[name] == "ALLOWED"} == set()


def test_what_is_granted_in_the_ip_network_is_reached_and_nothing_else(cage: Cage) -> None:
    """One port of the world; not its others, no private network, this machine, or the neighbour.

    With the rules gone the probe gets through to all but the neighbour, whose port is isolated.
    """
    neighbour = cage.neighbour.egress
    assert neighbour is not None
    granted: dict[str, list[object]] = {"the world": ["tcp", "198.51.100.9", WEB]}
    there: dict[str, list[object]] = {
        "another port": ["tcp", "198.51.100.9", OTHER_WEB],
        "a private network": ["tcp", "10.99.0.9", WEB],
    }
    here: dict[str, list[object]] = {
        "this machine": ["tcp", "198.51.100.1", WEB],
        "its address on the bridge": ["tcp", str(EGRESS.peer_ipv4), WEB],
        "the control bridge": ["tcp", str(PLAN.control.peer_ipv4), WEB],
    }
    beside: dict[str, list[object]] = {
        "the neighbour": ["udp", str(neighbour.ipv4.ip), OTHER_PORT],
        "a name server that nobody named": ["udp", "198.51.100.8", 53],
        "metadata of a cloud": ["tcp", "169.254.169.254", 80],
    }
    with contextlib.ExitStack() as stack:
        for _, address, port in [*granted.values(), *there.values()]:
            made = cage.world.run(_listener, str(address), int(str(port)))
            stack.enter_context(made)
        for kind, address, port in here.values():
            stack.enter_context(_listening(str(kind), str(address), int(str(port))))
        everything = {**granted, **there, **here, **beside}
        outcomes = _probe(cage, SERVICE, everything)
        assert {name for name in everything if outcomes[name] == "ALLOWED"} == set(granted)
        denied = cage.network.egress_counts().of[FIRST_NUMBER + 1].denied_packets
        assert denied >= len(there) + len(here)
        for chain in ("egress", "egress_forward"):
            subprocess.run(["nft", "flush", "chain", "inet", PLAN.table, chain], check=True)
        # The control bridge is its own NIC's network: no question of this bridge.
        open_to_all = {**granted, **there, **here}
        del open_to_all["the control bridge"]
        outcomes = _probe(cage, SERVICE, everything)
        cage.network.set_up()
    assert {name for name in everything if outcomes[name] == "ALLOWED"} == set(open_to_all)


def test_the_named_resolver_is_asked(cage: Cage) -> None:
    """A service that looks for a name asks it, by the files that the VI's init wrote."""
    with cage.world.run(_datagrams, RESOLVER, 53) as names:
        names.settimeout(PROBE_LIMIT_S)
        script = "import socket\ntry: socket.getaddrinfo('name.example', 80)\nexcept OSError: pass"
        command = ["exec", cage.prober, "--project", PROJECT, "--user", SERVICE, "--"]
        cage.daemon.run("lxc", *command, "python3", "-c", script)
        assert b"\x04name\x07example" in names.recv(512)


def test_forged_frames_reach_nobody(cage: Cage) -> None:
    """Root of a container may send what it likes; the machine and the neighbour hear none of it.

    The same observers do hear a datagram of the VI's own addresses: they are awake.
    """
    with contextlib.ExitStack() as stack:
        observers = [_observer(stack, name) for name in _bridges()]
        observers += [_observer(stack, port) for port in _ports_of(cage)]
        stack.enter_context(_listening("udp", str(PLAN.data.peer_ipv4), PLAN.data.peer_port))
        honest = {"router": ["udp", str(PLAN.data.peer_ipv4), PLAN.data.peer_port]}
        outcomes = _probe(cage, ROOT, honest)
        assert outcomes["router"] == "ALLOWED"
        assert {outcomes[f"raw frames by eth{number}"] for number in range(3)} == {"sent"}
        heard = [_marks(observer) for observer in observers]
    assert heard[0] == {b""}
    assert heard[1:] == [set()] * 5


def _bridges() -> list[str]:
    return [PLAN.data.name, PLAN.control.name, EGRESS.name]


def _ports_of(cage: Cage) -> list[str]:
    """Return the interfaces of this machine that lead to the neighbour."""
    path = f"/1.0/instances/{cage.neighbour.name}?project={PROJECT}"
    config = cage.daemon.query(path)["config"]
    return [config[f"volatile.{nic}.host_name"] for nic in ("eth0", "eth1", "eth2")]


def _listener(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.bind((address, port))
    made.listen()
    return made


def _datagrams(address: IPv4Address, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((str(address), port))
    return made


def _observer(stack: contextlib.ExitStack, device: str) -> socket.socket:
    protocol = socket.htons(ALL_PROTOCOLS)
    made = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, protocol))
    made.bind((device, 0))
    made.settimeout(0.3)
    return made


def _marks(observer: socket.socket) -> set[bytes]:
    """Return what follows the probe's mark in each frame that was heard; empty: an honest one."""
    found = set()
    with contextlib.suppress(TimeoutError):
        while True:
            _, mark, rest = observer.recv(1 << 16).partition(MARK)
            if mark:
                found.add(rest.rstrip(b"\0"))
    return found


@contextlib.contextmanager
def _listening(kind: str, address: str, port: int) -> Iterator[None]:
    """Answer at this address: over UDP with the question."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    style = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, style) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        if kind == "tcp":
            server.listen()
            yield
            return
        ended = threading.Event()

        def echo() -> None:
            server.settimeout(0.1)
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    server.sendto(*server.recvfrom(100))

        thread = threading.Thread(target=echo)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
