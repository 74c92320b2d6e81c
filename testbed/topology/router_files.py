"""Config files and documents of a topology's routers and controllers, as text.

No I/O; JSON's words are TOML's for all values here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packetcloud.cloudlet.egress import INTERNAL_KEY
from packetcloud.router.rules.document import Head, line_of
from packetcloud.testbed.topology.graph import Graph, egress_ways
from packetcloud.testbed.topology.plan import has_containers, managed_services, rules_at
from packetcloud.testbed.topology.tables import RuleTable, ServiceTable

PORT = 4700
CONTROL = "127.0.0.1:4701"
CONTROLLER = "127.0.0.1:4780"
"""The same in every namespace: the ports that all pages name."""
LOOPBACK = "127.0.0.0/8"
DATA_NETWORKS = {"data_ipv4": "10.210.0.0/20", "data_ipv6": "fd5a:7c1e:210::/64"}
"""Where containers are, at each router."""
RULE_SET = "topology"
SECRET_PARAMETER = "key_file"
"""Of a service's manifest, which gets the file of its `secret`."""


@dataclass(frozen=True, slots=True)
class LxdNode:
    """An LXD server that is a cloudlet's compute node."""

    socket: Path
    pool: str


@dataclass(frozen=True, slots=True)
class ServiceFiles:
    """A service and the files that it is started with."""

    table: ServiceTable
    manifest: str
    """A bundled service's name, or a path."""
    key: Path
    """Its identity."""
    secret: Path | None
    """Keys that it shares with others; None: it needs none."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Others that go along, by parameter."""
    image: Path | None = None
    """None: its VIs are child processes."""


def router_text(
    graph: Graph, router: str, keys: Path, guids: Mapping[str, str], isp_key: str
) -> str:
    """Return a router's config file.

    Args:
        keys: folder of the key files.
        guids: GUIDs and SIDs by name of node or service.
        isp_key: public key of who signs the rules of the file.
    """
    file = graph.topology.file
    nas = graph.nas
    lines = [
        "[router]",
        f'name = "{router}"',
        f"key_file = {json.dumps(str(keys / f'{router}.key'))}",
        f"na = {nas[router]}",
        f'listen = "0.0.0.0:{PORT}"',
        f'control_listen = "{CONTROL}"',
        f"private_links = {json.dumps([LOOPBACK, *_data_networks(graph, router)])}",
    ]
    for one in file.service:
        if one.at == router and not one.is_managed:
            lines += ["[[service]]", f'sid = "{guids[one.name]}"', f'name = "{one.name}"']
            lines += [f"priority = {one.priority}", f'fail_policy = "{one.fail_policy}"']
    if managed_services(graph, router):
        lines += ["[cloudlet]", f'path = "{router}-table"']
    if rules_at(graph, router):
        lines += ["[rules]", f'path = "{router}-rules"', f'isp_keys = ["{isp_key}"]']
    for beside in graph.neighbours(router):
        lines += ["[[neighbour]]", f'guid = "{guids[beside.node]}"', f"na = {beside.na}"]
        lines += [f'name = "{beside.node}"', f"routes = {list(beside.routes)}"]
        if beside.address is not None:
            lines += [f'address = "{beside.address}:{PORT}"']
    for name, where in names_of(graph).items():
        lines += ["[[name]]", f'guid = "{guids[name]}"', f"na = {nas[where]}"]
    return "\n".join(lines) + "\n"


def names_of(graph: Graph) -> dict[str, str]:
    """Return where each host and service is: the name of its router."""
    file = graph.topology.file
    hosts = {host: graph.router_of(host) for host in file.hosts}
    return hosts | {one.name: one.at for one in file.service}


def controller_text(
    graph: Graph, router: str, services: Sequence[ServiceFiles], lxd: LxdNode | None
) -> str:
    """Return the config file of a router's cloudlet controller.

    Args:
        lxd: where its VIs are containers; None: they are child processes.
    """
    lines = [
        "[cloudlet]",
        f'name = "{router}"',
        f'state = "{router}-state"',
        f'api_listen = "{CONTROLLER}"',
        "control_port = 4790",
        "[router]",
        f'url = "http://{CONTROL}"',
        f"port = {PORT}",
    ]
    if lxd is None:
        lines += ["[[node]]", 'isolation = "process"']
    else:
        lines += ["[network]", *(f'{key} = "{value}"' for key, value in DATA_NETWORKS.items())]
        lines += _egress_lines(graph, router)
        lines += ["[[node]]", 'name = "lxd"', f"socket = {json.dumps(str(lxd.socket))}"]
        lines += [f'pool = "{lxd.pool}"']
    for one in services:
        table = one.table
        lines += [
            "[[service]]",
            f"manifest = {json.dumps(one.manifest)}",
            f'name = "{table.name}"',
            f"key = {json.dumps(str(one.key))}",
            f'vi_type = "{table.vi_type}"',
            f"priority = {table.priority}",
            f"replicas_min = {table.vis}",
            f"replicas_max = {table.vis}",
            f"settings = {_inline(table.settings)}",
        ]
        files = {name: str(path) for name, path in one.files.items()}
        if one.secret is not None:
            files[SECRET_PARAMETER] = str(one.secret)
        lines.append(f"files = {_inline(files)}")
        if one.image is not None:
            lines.append(f"image = {json.dumps([str(one.image)])}")
        if table.egress:
            places = [place_of(graph, table, text) for text in table.egress]
            lines.append(f"egress = {_inline({INTERNAL_KEY: places})}")
    return "\n".join(lines) + "\n"


def place_of(graph: Graph, table: ServiceTable, text: str) -> str:
    """Return `web:80` as a cloudlet's grant: the address by which the router reaches the node."""
    node, _, ports = text.partition(":")
    return f"{graph.address_of(node, table.at)}/32:{ports}"


def _egress_lines(graph: Graph, router: str) -> list[str]:
    ways = egress_ways(graph, router)
    return [f'egress_device = "to-{ways[0]}"'] if ways else []


def _data_networks(graph: Graph, router: str) -> list[str]:
    """Return where containers of a router's cloudlet call it from."""
    if not has_containers(graph, router):
        return []
    return list(DATA_NETWORKS.values())


def rule_lines(rules: Sequence[tuple[int, RuleTable]], guids: Mapping[str, str]) -> list[bytes]:
    """Return head and rules of a document, before it is signed."""
    lines = [Head(RULE_SET, 1, audience=None).to_bytes()]
    for number, rule in rules:
        form: dict[str, Any] = {"name": f"rule-{number + 1}", "service": guids[rule.service]}
        if rule.priority:
            form["priority"] = rule.priority
        for key, names in (("source", rule.source), ("destination", rule.destination)):
            if names:
                form[key] = [guids[name] for name in names]
        for key, size in (("size_min", rule.size_min), ("size_max", rule.size_max)):
            if size is not None:
                form[key] = size
        if rule.direction != "both":
            form["direction"] = rule.direction
        if rule.text is not None:
            form["patterns"] = [{"text": rule.text}]
        lines.append(line_of(form))
    return lines


def _inline(values: Mapping[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + " }"
