"""Compute nodes: what each has, what is reserved on it, whether it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packetcloud.cloudlet.core.events import ContainerSeen
from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.core.values import CloudletSettings, Resources

NOTHING = Resources()


@dataclass(slots=True)
class Node:
    """One compute node as it was last seen."""

    name: str
    capacity: Resources | None = None
    """None: it has not answered yet."""
    free: Resources = NOTHING
    asked_at: float = 0.0
    silent_since: float | None = None
    silent_text: str = ""
    is_lost: bool = False
    is_evacuated: bool = False
    """It gets no VI, and those that it has are to leave."""
    containers: tuple[ContainerSeen, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Tell whether a VI may be placed there."""
        return self.capacity is not None and self.silent_since is None and not self.is_evacuated


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """What may still be placed on a node."""

    node: str
    capacity: Resources
    reserved: Resources
    for_all: Resources
    """Neither reserved nor, by measurement, in use."""
    for_third_parties: Resources
    """The same, less what is set aside for the ISP."""


class Inventory:
    """The nodes of a cloudlet.

    What is reserved follows from the VIs, so that it cannot drift from them: every VI counts with
    its type, and with the type that it is about to have, until its container is gone.
    """

    def __init__(self, settings: CloudletSettings, vis: Mapping[int, Vi]) -> None:
        self.nodes: dict[str, Node] = {}
        self._vis = vis
        self._settings = settings
        self.configure(settings)

    def configure(self, settings: CloudletSettings) -> None:
        """Take new settings; a node that is no longer named stays while it has VIs, evacuated."""
        self._settings = settings
        in_use = {vi.node for vi in self._vis.values()}
        for name in (*settings.nodes, *sorted(in_use)):
            self.nodes.setdefault(name, Node(name))
        for name in list(self.nodes):
            if name not in settings.nodes:
                if name in in_use:
                    self.nodes[name].is_evacuated = True
                else:
                    del self.nodes[name]

    @property
    def is_known(self) -> bool:
        """Tell whether each node answered, or did not: at a start, the first to answer is not to
        get all VIs."""
        return all(
            node.capacity is not None or node.silent_since is not None or node.is_evacuated
            for node in self.nodes.values()
        )

    def reserved(self, node: str) -> Resources:
        """Return what the VIs of a node may use together."""
        return self._sum(vi for vi in self._vis.values() if vi.node == node)

    def room(self, name: str) -> NodeRoom:
        """Return what may still be placed on a node that has answered."""
        node = self.nodes[name]
        capacity = node.capacity or NOTHING
        vis = [vi for vi in self._vis.values() if vi.node == name]
        reserved = self._sum(vis)
        for_all = capacity - reserved
        of_third_parties = self._sum(vi for vi in vis if self.is_third_party(vi))
        share = capacity.times(1 - self._settings.isp_share) - of_third_parties
        return NodeRoom(name, capacity, reserved, for_all, for_all.least(share))

    def is_third_party(self, vi: Vi) -> bool:
        """Tell whether a VI is not the ISP's own; of a service that is no longer declared: yes."""
        service = self._settings.services.get(vi.service)
        return service is None or service.owner is not None

    def _sum(self, vis: Iterable[Vi]) -> Resources:
        types = self._settings.vi_types
        total = NOTHING
        for vi in vis:
            names = (vi.vi_type, vi.resize_to or vi.vi_type)
            sizes = [types[name] for name in names if name in types]
            if sizes:
                total += Resources(
                    max(size.cpus for size in sizes),
                    max(size.memory_bytes for size in sizes),
                    max(size.disk_bytes for size in sizes),
                )
        return total
