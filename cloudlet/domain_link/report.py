"""What a cloudlet says of itself: each node with what is reserved and free on it, and what runs."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

from packetcloud.cloudlet.core.core import CloudletCore
from packetcloud.cloudlet.core.inventory import Node
from packetcloud.cloudlet.core.values import NOTHING, Resources
from packetcloud.cloudlet.surroundings import Around
from packetcloud.domain_controller.channel.frames import (
    MAX_RUNNING_COUNT,
    Amount,
    DistanceTo,
    ReportFrame,
    RunningVis,
    VisOfType,
)
from packetcloud.domain_controller.channel.frames import Node as NodePart

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_AMOUNT_LIMITS = {
    name: next(one.le for one in field.metadata if hasattr(one, "le"))
    for name, field in Amount.model_fields.items()
}


def report_of(core: CloudletCore, sequence: int, around: Around) -> ReportFrame:
    """Return the report of this moment.

    Args:
        sequence: greater than that of the report before it on the same channel.
        around: what the router said of its surroundings.
    """
    running: Counter[tuple[str, str]] = Counter()
    for name in core.saved.reserved:
        running.update((name, vi.vi_type) for vi in core.reservations.running(name))
    for vi in core.saved.vis.values():
        if vi.reservation and vi.reservation not in core.saved.reserved and not vi.is_leaving:
            running[vi.reservation, vi.vi_type] += 1
    return ReportFrame(
        sequence=sequence,
        nodes=tuple(
            _node(core, node) for node in core.inventory.nodes.values() if node.capacity is not None
        ),
        running=tuple(
            RunningVis(reservation=name, vi_type=vi_type, count=count)
            for (name, vi_type), count in sorted(running.items())[:MAX_RUNNING_COUNT]
        ),
        na=around.na,
        hosts=around.hosts,
        distances=tuple(DistanceTo(na=na, hops=hops) for na, hops in around.hops.items()),
    )


def _node(core: CloudletCore, node: Node) -> NodePart:
    types = Counter(vi.vi_type for vi in core.saved.vis.values() if vi.node == node.name)
    return NodePart(
        name=node_name(node.name),
        capacity=_amount(node.capacity or NOTHING),
        reserved=_amount(core.inventory.reserved(node.name)),
        available=_amount(node.free),
        is_usable=node.is_usable,
        vis=tuple(VisOfType(vi_type=name, count=count) for name, count in sorted(types.items())),
    )


def node_name(name: str) -> str:
    """Return a node's name as reports have it: members of a cluster may have other characters."""
    if _NAME.fullmatch(name):
        return name
    plain = re.sub(r"[^a-z0-9-]", "-", name.lower()).strip("-")[:50]
    return f"{plain or 'node'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _amount(resources: Resources) -> Amount:
    found = {
        "milli_cpus": int(resources.cpus * 1000),
        "memory_bytes": resources.memory_bytes,
        "disk_bytes": resources.disk_bytes,
        "io_per_s": resources.io_per_s,
    }
    limits = _AMOUNT_LIMITS
    return Amount(**{name: min(max(0, one), limits[name]) for name, one in found.items()})
