"""From what one node and one router carry here to what a cloudlet of many would.

It states two bounds and takes the lower: nodes add up, and every chunk passes the one router twice.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Projection:
    """What a cloudlet of `nodes` nodes would carry."""

    nodes: int
    by_nodes_gbps: float
    """If nothing but the nodes limited it."""
    router_gbps: float
    """What one router process carries with a core to itself."""

    @property
    def gbps(self) -> float:
        return min(self.by_nodes_gbps, self.router_gbps)

    @property
    def limit(self) -> str:
        return "nodes" if self.by_nodes_gbps <= self.router_gbps else "router"


def project(nodes: int, node_gbps: float, router_cpu_s_per_gb: float) -> Projection:
    """Project onto `nodes` nodes.

    Args:
        node_gbps: what one node carries, measured.
        router_cpu_s_per_gb: processor time of the router for 10^9 bytes that visit a service,
            measured: its one thread has one second of it in a second.
    """
    return Projection(nodes, nodes * node_gbps, 8.0 / router_cpu_s_per_gb)
