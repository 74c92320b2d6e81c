"""What is said of a topology that is up: who is where, how to get in, and by what it is made."""

from __future__ import annotations

from typing import Any

from packetcloud.testbed.emulator.link import chosen
from packetcloud.testbed.ownership import started_at
from packetcloud.testbed.processes import Child
from packetcloud.testbed.topology.build import Network
from packetcloud.testbed.topology.model import LinkPlan
from packetcloud.testbed.topology.router_files import CONTROL, CONTROLLER


def facts_of(network: Network) -> dict[str, Any]:
    """Return who is where, and how to get in."""
    file = network.file
    return {
        "nodes": {node: _node_facts(network, node) for node in file.nodes},
        "links": {plan.name: _link_facts(network, plan) for plan in network.graph.topology.links},
        "services": {
            one.name: {"at": one.at, "sid": network.guids[one.name], "isolation": one.isolation}
            for one in file.service
        },
        "processes": [
            *(
                {"name": child.name, "pid": child.pid, "started": started_at(child.pid)}
                for child in _children_running(network)
            ),
            *(
                {"name": f"{router}-lxd", "pid": one.pid, "started": one.started}
                for router, one in network.containers.facts().items()
            ),
        ],
    }


def _children_running(network: Network) -> list[Child]:
    routers = [router.child for router in network.routers.values()]
    emulators = [link.child for link in network.links.values() if hasattr(link, "child")]
    return [*routers, *network.services.values(), *emulators]


def _node_facts(network: Network, node: str) -> dict[str, Any]:
    graph, file = network.graph, network.file
    kinds = {"hosts": "host", "routers": "router", "ip": "ip"}
    kind = next(word for key, word in kinds.items() if node in getattr(file, key))
    facts: dict[str, Any] = {
        "kind": kind,
        "namespace": network.places[node].name,
        "addresses": {peer: graph.addresses[node, peer] for peer in graph.adjacent[node]},
    }
    if kind != "ip":
        facts |= {"guid": network.guids[node], "key": str(network.keys / f"{node}.key")}
    if kind == "host":
        facts |= {"router": graph.router_of(node), "router_address": network.router_address(node)}
    if kind == "router":
        facts |= {"na": graph.nas[node], "control": f"http://{CONTROL}"}
    if node in network.services:
        facts["controller"] = f"http://{CONTROLLER}"
    if (server := network.containers.facts().get(node)) is not None:
        facts["lxd"] = str(server.folder)
    return facts


def _link_facts(network: Network, plan: LinkPlan) -> dict[str, Any]:
    made_by = "veth"
    if plan.is_emulated:
        made_by = chosen(network.file.run.emulator, (plan.to_right, plan.to_left)).value
    ends = ((plan.left, plan.right), (plan.right, plan.left))
    return {
        "ends": {node: network.graph.addresses[node, peer] for node, peer in ends},
        "made_by": made_by,
        "to_right": plan.to_right.to_json(),
        "to_left": plan.to_left.to_json(),
    }
