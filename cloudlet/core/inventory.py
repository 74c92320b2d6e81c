"""Compute nodes: what each has, what is reserved on it, whether it answers."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from packetcloud.cloudlet.core.allotment import borrowed_by, standing_of
from packetcloud.cloudlet.core.events import ContainerSeen
from packetcloud.cloudlet.core.instances import Role, Vi
from packetcloud.cloudlet.core.values import NOTHING, CloudletSettings, Resources

LEAST_BOOST_CPUS = 0.05
"""Less than this is not worth a change of limits."""


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
    set_aside: Resources
    """For the ISP: third parties' VIs together leave so much of the capacity."""


class Inventory:
    """The nodes of a cloudlet.

    What is reserved follows from the VIs, so that it cannot drift from them: every VI counts with
    its type, and with the type that it is about to have, until its container is gone; a standby
    with what it needs to wait. What a VI borrows for its start is not reserved: whoever is placed
    meanwhile has the better right, and it is given back within seconds.
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

    def room(self, name: str, without: Container[int] = ()) -> NodeRoom:
        """Return what may still be placed on a node that has answered.

        Args:
            without: numbers of VIs that are taken for gone.
        """
        node = self.nodes[name]
        capacity = node.capacity or NOTHING
        vis = [vi for vi in self._vis.values() if vi.node == name and vi.number not in without]
        reserved = self._sum(vis)
        # Others may run on the machine, too: what nobody reserved is not there if it is in use.
        for_all = (capacity - reserved).least(node.free)
        of_third_parties = self._sum(vi for vi in vis if self.is_third_party(vi))
        set_aside = capacity.times(self._settings.isp_share)
        share = capacity - set_aside - of_third_parties
        return NodeRoom(name, capacity, reserved, for_all, for_all.least(share), set_aside)

    def room_but_for_standbys(self, name: str, without: Vi | None = None) -> NodeRoom:
        """Return the same, with what standbys have, who go when somebody needs it."""
        vis = self._vis.values()
        return self.room(
            name, {vi.number for vi in vis if vi.role is Role.STANDBY or vi is without}
        )

    def boosted_cpus(self, name: str) -> float:
        """Return the processors of a node that VIs have for their start, above their own."""
        return sum(borrowed_by(vi, self._settings) for vi in self._vis.values() if vi.node == name)

    def boot_cpus(self, vi: Vi) -> float:
        """Return what a VI may have for its start: its own, and more that nobody has reserved or
        borrowed; 0: it starts with the limits of its type."""
        if not self._settings.boot_cpus:
            return 0.0
        room = self.room(vi.node)
        usable = room.for_third_parties if self.is_third_party(vi) else room.for_all
        own = standing_of(vi, self._settings).cpus
        spare = usable.cpus - self.boosted_cpus(vi.node) + borrowed_by(vi, self._settings)
        more = min(self._settings.boot_cpus - own, spare)
        return own + more if more >= LEAST_BOOST_CPUS else own

    def is_third_party(self, vi: Vi) -> bool:
        """Tell whether a VI is not the ISP's own; of a service that is no longer declared: yes."""
        service = self._settings.services.get(vi.service)
        return service is None or service.owner is not None

    def _sum(self, vis: Iterable[Vi]) -> Resources:
        total = NOTHING
        for vi in vis:
            # A standby that goes made room for somebody: what it had is that one's.
            if vi.role is not Role.STANDBY or not (vi.is_draining or vi.is_leaving):
                total += standing_of(vi, self._settings)
        return total
