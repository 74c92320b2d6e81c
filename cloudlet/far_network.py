"""The networks of a cloudlet on several machines: what the plan of one machine becomes. Pure."""

from __future__ import annotations

from dataclasses import replace

from packetcloud.cloudlet.filters import BridgePlan, NetworkPlan
from packetcloud.cloudlet.tunnels import TunnelWish


def with_tunnels(plan: NetworkPlan, wish: TunnelWish) -> NetworkPlan:
    """Return the plan of the controller's machine with tunnels to nodes elsewhere."""

    def joined(bridge: BridgePlan, place: int) -> BridgePlan:
        tunnel = wish.of(bridge.name, place)
        return replace(bridge, tunnel=tunnel, ports=(*bridge.ports, tunnel.device))

    return replace(plan, data=joined(plan.data, 0), control=joined(plan.control, 1))


def with_ports(plan: NetworkPlan, data: str | None, control: str | None) -> NetworkPlan:
    """Return the plan of the controller's machine with devices that lead to nodes elsewhere."""
    if data is None or control is None:
        return plan
    return replace(
        plan,
        data=replace(plan.data, ports=(*plan.data.ports, data)),
        control=replace(plan.control, ports=(*plan.control.ports, control)),
    )


def far_end(plan: NetworkPlan, uplinks: TunnelWish | tuple[str, str]) -> NetworkPlan:
    """Return the plan of a node's machine, where router and controller are behind uplinks.

    Args:
        uplinks: the tunnels of that machine, or its devices for data and control.
    """

    def behind(bridge: BridgePlan, place: int) -> BridgePlan:
        if isinstance(uplinks, TunnelWish):
            tunnel = uplinks.of(bridge.name, place)
            return replace(bridge, uplink=tunnel.device, tunnel=tunnel, ports=())
        return replace(bridge, uplink=uplinks[place], tunnel=None, ports=())

    # Nobody keeps the filters of an egress there.
    return replace(plan, data=behind(plan.data, 0), control=behind(plan.control, 1), egress=None)
