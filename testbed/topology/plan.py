"""From a topology to what has to be made, in order; what is there already is not made twice.

No I/O. Every step has a name of its own, so that a plan can be compared with what there is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from packetcloud.testbed.topology.graph import Graph


class StepKind(StrEnum):
    """What a step makes, in the order in which steps of a plan come."""

    IMAGE = "image"
    """What a service's containers are made of, in the store."""
    NAMESPACE = "namespace"
    LINK = "link"
    ROUTES = "routes"
    KEY = "key"
    ROUTER = "router"
    LXD = "lxd"
    """The LXD server of a router's cloudlet."""
    CONTROLLER = "controller"
    """The cloudlet controller of a router, with its services."""
    SERVICE = "service"
    """The VIs of a service that no controller starts."""
    NEIGHBOURS = "neighbours"
    """Nothing is made: routers have found each other."""
    RULES = "rules"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to make."""

    kind: StepKind
    name: str
    """Of the node, link or service."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def make_plan(graph: Graph) -> tuple[Step, ...]:
    """Return all steps; each needs only those before it."""
    file = graph.topology.file
    managed = [router for router in file.routers if managed_services(graph, router)]
    contained = [one for one in file.service if one.isolation == "lxd"]
    steps = [
        *(Step(StepKind.IMAGE, one.name) for one in contained),
        *(Step(StepKind.NAMESPACE, node) for node in file.nodes),
        *(Step(StepKind.LINK, link.name) for link in graph.topology.links),
        *(Step(StepKind.ROUTES, node) for node in file.nodes if graph.routes(node)),
        *(Step(StepKind.KEY, node) for node in (*file.hosts, *file.routers)),
        *(Step(StepKind.KEY, one.name) for one in file.service),
        *(Step(StepKind.ROUTER, router) for router in file.routers),
        *(Step(StepKind.LXD, router) for router in managed if has_containers(graph, router)),
        *(Step(StepKind.CONTROLLER, router) for router in managed),
        *(Step(StepKind.SERVICE, one.name) for one in file.service if not one.is_managed),
        *(Step(StepKind.NEIGHBOURS, one) for one in file.routers if graph.neighbours(one)),
        *(Step(StepKind.RULES, router) for router in file.routers if rules_at(graph, router)),
    ]
    return tuple(steps)


def steps_left(plan: Sequence[Step], made: Collection[Step]) -> tuple[Step, ...]:
    """Return what is still to be made, in order; nothing once all is there."""
    return tuple(step for step in plan if step not in made)


def managed_services(graph: Graph, router: str) -> list[str]:
    """Names of the services at a router that a cloudlet controller starts."""
    return [one.name for one in graph.topology.file.service if one.at == router and one.is_managed]


def has_containers(graph: Graph, router: str) -> bool:
    """Tell whether the VIs of a router's cloudlet are containers."""
    services = graph.topology.file.service
    return any(one.at == router and one.isolation == "lxd" for one in services)


def rules_at(graph: Graph, router: str) -> list[int]:
    """Return which rules of the file (from 0) are those of a router: its services' own."""
    file = graph.topology.file
    here = {one.name for one in file.service if one.at == router}
    return [number for number, rule in enumerate(file.rule) if rule.service in here]
