"""Cloudlets and what they report of their nodes, with its age. Source: paper, section 3.1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from packetcloud.chunk.names import GUID, NA
from packetcloud.domain_controller.core.checks import (
    check_bool,
    check_integer,
    check_name,
    check_time,
    check_type,
    check_unique,
)
from packetcloud.domain_controller.core.resources import NOTHING, Resources, check_node_amount

MAX_NODES_COUNT = 1024
"""Of one cloudlet: a report of so many is about half a megabyte."""
MAX_HELD_COUNT = 65_536
"""(reservation, VI type) of which one cloudlet runs VIs."""
MAX_TYPES_COUNT = 256
"""Types of VIs on a node: as many as a catalogue has."""
MAX_VIS_COUNT = 100_000
"""VIs of one type: in a reservation, on a node, in a report."""
MAX_HOSTS_COUNT = 100_000
"""Hosts attached to a cloudlet's router."""
MAX_DISTANCES_COUNT = 4096
"""Routers of which a cloudlet says how far away they are."""
MAX_HOPS = 255
MAX_SEQUENCE = (1 << 53) - 1
"""Numbers of reports, commands and records: what every JSON reader takes exactly."""


@dataclass(frozen=True, slots=True)
class Cloudlet:
    """A cloudlet as the ISP registered it."""

    name: str
    region: str
    isp_share_permille: int = 0
    """Of each node so many thousandths are the ISP's own: third parties get the rest."""
    is_open: bool = True
    """False: it gets no new reservations; those that it has go on."""

    def __post_init__(self) -> None:
        check_name("cloudlet.name", self.name)
        check_name("cloudlet.region", self.region)
        check_integer("cloudlet.isp_share_permille", self.isp_share_permille, 0, 1000)
        check_bool("cloudlet.is_open", self.is_open)


@dataclass(frozen=True, slots=True)
class TypeCount:
    """So many VIs of a type."""

    vi_type: str
    count: int

    def __post_init__(self) -> None:
        check_name("vis.vi_type", self.vi_type)
        check_integer("vis.count", self.count, 0, MAX_VIS_COUNT)


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One compute node as its cloudlet sees it."""

    name: str
    capacity: Resources
    reserved: Resources = NOTHING
    """What VIs on it may use together."""
    available: Resources = NOTHING
    """What is free by measurement, whatever is reserved."""
    is_usable: bool = True
    """False: it is silent or being emptied, and gets no VIs."""
    vis: tuple[TypeCount, ...] = ()

    def __post_init__(self) -> None:
        check_name("node.name", self.name)
        check_node_amount("node.capacity", self.capacity)
        check_type("node.reserved", self.reserved, Resources, "resources")
        check_type("node.available", self.available, Resources, "resources")
        check_bool("node.is_usable", self.is_usable)
        _check_all("node.vis", self.vis, TypeCount)
        check_unique("node.vis", (one.vi_type for one in self.vis), MAX_TYPES_COUNT)


@dataclass(frozen=True, slots=True)
class Running:
    """VIs of one type that a cloudlet runs for a reservation."""

    reservation: str
    vi_type: str
    count: int

    def __post_init__(self) -> None:
        check_name("running.reservation", self.reservation)
        check_name("running.vi_type", self.vi_type)
        check_integer("running.count", self.count, 1, MAX_VIS_COUNT)


@dataclass(frozen=True, slots=True)
class Distance:
    """How many hops from a cloudlet's router to another one."""

    na: NA
    hops: int

    def __post_init__(self) -> None:
        check_type("distance.na", self.na, NA, "an NA")
        check_integer("distance.hops", self.hops, 0, MAX_HOPS)


@dataclass(frozen=True, slots=True)
class CloudletReport:
    """What a cloudlet said of itself, and when it came in here."""

    cloudlet: str
    sequence: int
    """Grows with each report of a connection; an older one than the last is dropped."""
    received_at_ms: int
    """By the domain controller's clock: a cloudlet's clock proves nothing."""
    nodes: tuple[NodeReport, ...]
    running: tuple[Running, ...] = ()
    na: NA | None = None
    """The address of its router."""
    hosts: tuple[GUID, ...] = ()
    """Hosts that are attached to its router."""
    distances: tuple[Distance, ...] = ()

    def __post_init__(self) -> None:
        check_name("report.cloudlet", self.cloudlet)
        check_integer("report.sequence", self.sequence, 0, MAX_SEQUENCE)
        check_time("report.received_at_ms", self.received_at_ms)
        _check_all("report.nodes", self.nodes, NodeReport)
        check_unique("report.nodes", (node.name for node in self.nodes), MAX_NODES_COUNT)
        _check_all("report.running", self.running, Running)
        keys = (f"{one.reservation}/{one.vi_type}" for one in self.running)
        check_unique("report.running", keys, MAX_HELD_COUNT)
        if self.na is not None:
            check_type("report.na", self.na, NA, "an NA")
        _check_all("report.hosts", self.hosts, GUID)
        check_unique("report.hosts", (host.hex for host in self.hosts), MAX_HOSTS_COUNT)
        _check_all("report.distances", self.distances, Distance)
        nas = (str(distance.na) for distance in self.distances)
        check_unique("report.distances", nas, MAX_DISTANCES_COUNT)

    def age_ms(self, now_ms: int) -> int:
        """Return how old the report is; a clock that was set back makes it no younger than new."""
        return max(0, now_ms - self.received_at_ms)

    @property
    def capacity(self) -> Resources:
        """What the nodes have together that get VIs."""
        total = NOTHING
        for node in self.nodes:
            if node.is_usable:
                total += node.capacity
        return total


def _check_all(where: str, values: object, kind: type) -> None:
    check_type(where, values, tuple, "a tuple")
    assert isinstance(values, Iterable)
    for value in values:
        check_type(where, value, kind, f"only {kind.__name__}")
