"""A session with a neighbour, as the router sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packetcloud.chunk.hop.api import Neighbour, Role
from packetcloud.chunk.names import GUID

if TYPE_CHECKING:
    from packetcloud.router.flow import Flow
    from packetcloud.router.routes import NextHop
    from packetcloud.router.service_pool import VI

MAX_FLOWS_COUNT = {Role.HOST: 256, Role.SERVICE: 0, Role.ROUTER: 65_536}
"""Cached flows of one neighbour, about 400 bytes each. A host that invents flows empties its own
cache and nobody else's; a router carries the flows of many hosts, and is trusted by config."""


class Attachment:
    """One neighbour: its flow cache, and where it stands as next hop or VI."""

    __slots__ = ("flow_misses", "flows", "guid", "max_flows", "neighbour", "next_hop", "role", "vi")

    def __init__(self, neighbour: Neighbour) -> None:
        self.neighbour = neighbour
        self.guid: GUID = neighbour.guid
        self.role = neighbour.role
        self.flows: dict[bytes, Flow] = {}
        self.max_flows = MAX_FLOWS_COUNT[neighbour.role]
        self.flow_misses = 0
        self.next_hop: NextHop | None = None
        self.vi: VI | None = None

    def remember(self, key: bytes, flow: Flow) -> None:
        """Cache `flow`; a full cache is emptied, which costs one miss for each flow in use."""
        if len(self.flows) >= self.max_flows:
            self.flows.clear()
        self.flows[key] = flow
