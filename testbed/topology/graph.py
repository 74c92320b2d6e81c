"""Who reaches whom: addresses, IP routes, neighbours of routers, and where hosts attach.

No I/O: from a checked file to tables. Link number n (from 1) has the network 198.18.n.0/24, its
left end the address .1, its right end .2, as `NetworkLab` gives them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from packetcloud.testbed.errors import TopologyError
from packetcloud.testbed.namespaces import BENCHMARK_NETWORK
from packetcloud.testbed.topology.model import Topology


@dataclass(frozen=True, slots=True)
class Route:
    """An IP route of a node."""

    network: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A router beside a router, as its config file names it."""

    node: str
    na: int
    routes: tuple[int, ...]
    """NAs that are reached through it."""
    address: str | None
    """Where to call it; None: it calls."""


@dataclass(frozen=True, slots=True)
class Graph:
    """What follows from nodes and links."""

    topology: Topology
    addresses: Mapping[tuple[str, str], str]
    """(node, the other end): the address that the node has on their link."""
    adjacent: Mapping[str, tuple[str, ...]]

    @property
    def nas(self) -> dict[str, int]:
        """The NA of each router: 1, 2, ... in the order of the file."""
        return {router: number for number, router in enumerate(self.topology.file.routers, 1)}

    @property
    def forwarding(self) -> frozenset[str]:
        """Who passes IP packets on: everybody but hosts."""
        return frozenset((*self.topology.file.routers, *self.topology.file.ip))

    def routes(self, node: str) -> list[Route]:
        """Return the IP routes of a node to every network that is not its own."""
        towards = _first_steps(self.adjacent, node, self.forwarding)
        found = []
        for number, link in enumerate(self.topology.links, 1):
            if node in (link.left, link.right):
                continue
            nearest = min(
                (end for end in (link.left, link.right) if end in towards),
                key=lambda end: towards[end][1],
                default=None,
            )
            if nearest is not None:
                gateway = self.addresses[towards[nearest][0], node]
                found.append(Route(f"{BENCHMARK_NETWORK}.{number}.0/24", gateway))
        return found

    def address_of(self, node: str, seen_from: str) -> str:
        """Return the address of a node on the side where packets of another come in.

        Raises:
            TopologyError: no path leads there.
        """
        return self.addresses[node, self.first_step(node, seen_from)]

    def first_step(self, start: str, node: str) -> str:
        """Return the node beside `start` that is first on the way of IP packets to another.

        Raises:
            TopologyError: no path leads there.
        """
        steps = _first_steps(self.adjacent, start, self.forwarding)
        if node not in steps:
            raise TopologyError(
                f"{self.topology.name}: no links lead from {node} to {start}; join them with a "
                "[[link]]"
            )
        return steps[node][0]

    def router_of(self, host: str) -> str:
        """Return where a host attaches: its nearest router, past IP nodes only.

        Raises:
            TopologyError: there is none.
        """
        found = self._routers_beside(host)
        if not found:
            raise TopologyError(
                f"{self.topology.name}: host {host} reaches no router; join them with a [[link]]"
            )
        return found[0]

    def neighbours(self, router: str) -> list[Neighbour]:
        """Return the routers beside one, each with the NAs that lie behind it."""
        beside = self._routers_beside(router)
        nas = self.nas
        graph = {one: tuple(self._routers_beside(one)) for one in nas}
        behind: dict[str, list[int]] = {one: [] for one in beside}
        for target, (first, distance) in _first_steps(graph, router).items():
            if distance > 1:
                behind[first].append(nas[target])
        return [
            Neighbour(
                one,
                nas[one],
                tuple(sorted(behind[one])),
                # One of both calls: the one that the file names later.
                self.address_of(one, router) if nas[one] < nas[router] else None,
            )
            for one in beside
        ]

    def _routers_beside(self, node: str) -> list[str]:
        """Routers that are linked with a node, directly or past IP nodes; the nearest first."""
        relays = set(self.topology.file.ip)
        steps = _first_steps(self.adjacent, node, relays)
        routers = [one for one in self.topology.file.routers if one in steps and one != node]
        return sorted(routers, key=lambda one: steps[one][1])


def make_graph(topology: Topology) -> Graph:
    """Return what follows from the file.

    Raises:
        TopologyError: a host without a router, or routers that do not reach each other.
    """
    addresses = {}
    adjacent: dict[str, list[str]] = {node: [] for node in topology.file.nodes}
    for number, link in enumerate(topology.links, 1):
        addresses[link.left, link.right] = f"{BENCHMARK_NETWORK}.{number}.1"
        addresses[link.right, link.left] = f"{BENCHMARK_NETWORK}.{number}.2"
        adjacent[link.left].append(link.right)
        adjacent[link.right].append(link.left)
    graph = Graph(topology, addresses, {node: tuple(ends) for node, ends in adjacent.items()})
    for host in topology.file.hosts:
        graph.router_of(host)
    nas = graph.nas
    for router in topology.file.routers:
        known = {router} | {one.node for one in graph.neighbours(router)}
        behind = {na for one in graph.neighbours(router) for na in one.routes}
        missing = [one for one in nas if one not in known and nas[one] not in behind]
        if missing:
            raise TopologyError(
                f"{topology.name}: router {router} reaches no {missing[0]}; join them with a "
                "[[link]], over routers and IP nodes"
            )
    for load in topology.file.load:
        graph.address_of(load.destination, load.source)
    for router in topology.file.routers:
        if len(ways := egress_ways(graph, router)) > 1:
            raise TopologyError(
                f"{topology.name}: [[service]] egress: the containers at {router} would leave it "
                f"towards {' and '.join(ways)}; allowed: nodes that lie behind one link"
            )
    return graph


def egress_ways(graph: Graph, router: str) -> list[str]:
    """Return the nodes beside a router towards which its containers leave it; no more than one is
    right, as a cloudlet has one device to the IP network.

    Raises:
        TopologyError: no path leads to what a service is granted.
    """
    services = graph.topology.file.service
    places = {text.split(":")[0] for one in services if one.at == router for text in one.egress}
    return sorted({graph.first_step(router, place) for place in places})


def _first_steps(
    adjacent: Mapping[str, Sequence[str]], start: str, relays: Collection[str] | None = None
) -> dict[str, tuple[str, int]]:
    """Return for every node that `start` reaches: the first node on the way, and how far it is.

    Args:
        relays: who passes on; None: everybody.
    """
    found: dict[str, tuple[str, int]] = {}
    waiting = deque((one, one, 1) for one in adjacent[start])
    while waiting:
        node, first, distance = waiting.popleft()
        if node in found or node == start:
            continue
        found[node] = first, distance
        if relays is None or node in relays:
            waiting.extend((one, first, distance + 1) for one in adjacent[node])
    return found
