"""Which node gets a VI. Source: MobiArch'13 paper, section 3.2: the least loaded one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from packetcloud.cloudlet.core.inventory import NodeRoom
from packetcloud.cloudlet.core.values import Resources


@dataclass(frozen=True, slots=True)
class Ask:
    """A VI that needs a place."""

    wanted: Resources
    is_third_party: bool
    kin: dict[str, int]
    """VIs of the same service that each node has already."""


@dataclass(frozen=True, slots=True)
class NoRoom:
    """No node has room; `text` says for each what it lacks."""

    text: str


Policy = Callable[[Ask, Sequence[NodeRoom]], str]
"""Chooses one of the nodes that have room; there is at least one."""


def least_loaded(ask: Ask, rooms: Sequence[NodeRoom]) -> str:
    """Return the node that will be the least loaded one; among equals one without kin.

    A node's load is the largest of its reserved shares, of processors, memory and disk.
    """

    def load(room: NodeRoom) -> tuple[float, int, str]:
        share = (room.reserved + ask.wanted).largest_share_of(room.capacity)
        return round(share, 6), ask.kin.get(room.node, 0), room.node

    return min(rooms, key=load).node


def spread(ask: Ask, rooms: Sequence[NodeRoom]) -> str:
    """Return the node with the fewest VIs of the same service; among equals the least loaded."""
    fewest = min(ask.kin.get(room.node, 0) for room in rooms)
    return least_loaded(ask, [room for room in rooms if ask.kin.get(room.node, 0) == fewest])


def packed(ask: Ask, rooms: Sequence[NodeRoom]) -> str:
    """Return the fullest node that still has room, so that whole nodes stay free."""

    def load(room: NodeRoom) -> tuple[float, str]:
        return -(room.reserved + ask.wanted).largest_share_of(room.capacity), room.node

    return min(rooms, key=load).node


POLICIES: dict[str, Policy] = {
    "least-loaded": least_loaded,
    "spread": spread,
    "packed": packed,
}


def choose(ask: Ask, rooms: Sequence[NodeRoom], policy: Policy) -> str | NoRoom:
    """Return the node for a VI, or why there is none."""
    fitting, texts = [], []
    for room in rooms:
        usable = room.for_third_parties if ask.is_third_party else room.for_all
        lacking = usable.lacking_for(ask.wanted)
        if not lacking:
            fitting.append(room)
            continue
        text = f"{room.node}: not enough {', '.join(lacking)}"
        if ask.is_third_party and not room.for_all.lacking_for(ask.wanted):
            text += " outside the ISP's share"
        texts.append(text)
    if not fitting:
        return NoRoom("; ".join(texts) or "no node answers and takes VIs")
    return policy(ask, fitting)
