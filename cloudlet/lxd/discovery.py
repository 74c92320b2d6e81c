"""All nodes of one LXD server, or of the cluster that it is a member of."""

from __future__ import annotations

from dataclasses import replace

from packetcloud.cloudlet.containers import ImageFiles, NodeAdapter
from packetcloud.cloudlet.errors import NodeRefusedError
from packetcloud.cloudlet.lxd.address import LxdAddress
from packetcloud.cloudlet.lxd.connection import CALL_TIMEOUT_S, Api, LxdConnection
from packetcloud.cloudlet.lxd.node import LxdNode
from packetcloud.cloudlet.lxd.project import PROJECT, ensure_project
from packetcloud.cloudlet.policy import NodeSite


async def open_nodes(
    address: LxdAddress,
    site: NodeSite,
    *,
    name: str | None = None,
    timeout_s: float = CALL_TIMEOUT_S,
) -> list[NodeAdapter]:
    """Make our project there, if need be, and return its nodes, one connection each.

    Args:
        name: of the node, for a server of its own; None: the server's own name. Members of a
            cluster have the names that they have there.

    Raises:
        NodeUnreachableError: no answer.
        NodeRefusedError: no such pool, or the server does not trust us.
    """
    connection = LxdConnection(address, None, timeout_s=timeout_s, workers_count=1)
    try:
        members, server_name = await connection.call(lambda api: _prepare(api, site))
    finally:
        connection.close()

    def node(node_name: str, member: str | None) -> NodeAdapter:
        return LxdNode(
            LxdConnection(address, PROJECT, timeout_s=timeout_s), node_name, site, member
        )

    if not members:
        return [node(name or server_name, None)]
    site = replace(site, is_here=False)  # members are on other machines
    return [node(member, member) for member in members]


async def import_image(address: LxdAddress, image: ImageFiles) -> None:
    """Make our project there, if need be, and import an image into it.

    Raises:
        NodeError: as a node's `import_image`.
    """
    connection = LxdConnection(address, None, workers_count=1)
    try:
        await connection.call(ensure_project)
    finally:
        connection.close()
    # Of an image, a node needs neither pool nor bridges.
    node = LxdNode(LxdConnection(address, PROJECT, workers_count=1), "", NodeSite("", "", ""))
    try:
        await node.import_image(image)
    finally:
        await node.close()


def _prepare(api: Api, site: NodeSite) -> tuple[list[str], str]:
    ensure_project(api)
    pools = [path.rsplit("/", 1)[-1] for path in api.storage_pools.get().json()["metadata"]]
    if site.pool not in pools:
        raise NodeRefusedError(
            f"no storage pool {site.pool!r}; pools: {', '.join(pools) or 'none'}"
        )
    environment = api.get().json()["metadata"]["environment"]
    if not environment["server_clustered"]:
        return [], environment["server_name"]
    listing = api.cluster.members.get(params={"recursion": 1}).json()["metadata"]
    return sorted(member["server_name"] for member in listing), environment["server_name"]
