"""The controller's metrics, read when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from packetcloud.cloudlet import view
from packetcloud.cloudlet.controller import Controller
from packetcloud.cloudlet.links import REFUSAL_REASONS


class CloudletCollector(Collector):
    """Everything that an operator may want to be alarmed by."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def collect(self) -> Iterator[Metric]:
        core = self._controller.core
        states = Counter((vi.service, vi.state.value) for vi in core.saved.vis.values())
        vis = GaugeMetricFamily(
            "packetcloud_cloudlet_vis", "VIs by service and state.", labels=["service", "state"]
        )
        for (service, state), count in states.items():
            vis.add_metric([service, state], count)
        yield vis
        restarts = CounterMetricFamily(
            "packetcloud_cloudlet_vi_restarts", "Restarts of VIs that exist.", labels=["service"]
        )
        totals: Counter[str] = Counter()
        for vi in core.saved.vis.values():
            totals[vi.service] += vi.restarts
        for service, count in totals.items():
            restarts.add_metric([service], count)
        yield restarts
        yield GaugeMetricFamily(
            "packetcloud_cloudlet_migrations", "Migrations under way.", len(core.saved.migrations)
        )
        yield GaugeMetricFamily(
            "packetcloud_cloudlet_router_up", "1 while the router answers.", core.router is not None
        )
        yield from self._links()
        yield from self._nodes()

    def _links(self) -> Iterator[Metric]:
        links = self._controller.links
        refused = CounterMetricFamily(
            "packetcloud_cloudlet_control_links_refused",
            "Control links that were closed for what the caller did or did not do.",
            labels=["reason"],
        )
        for reason in REFUSAL_REASONS:
            refused.add_metric([reason], links.refused[reason])
        yield refused
        yield CounterMetricFamily(
            "packetcloud_cloudlet_reports_held_up",
            "Reports of VIs that had to wait because too many came.",
            links.held_up_count,
        )
        yield GaugeMetricFamily(
            "packetcloud_cloudlet_control_strangers",
            "Control links whose caller has not said who it is.",
            links.strangers_count,
        )
        yield GaugeMetricFamily(
            "packetcloud_cloudlet_states_bytes",
            "States of services on their way from one VI to another.",
            links.states_bytes,
        )

    def _nodes(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "packetcloud_cloudlet_node_up", "1 while a node answers.", labels=["node"]
        )
        amounts = GaugeMetricFamily(
            "packetcloud_cloudlet_node_resources",
            "CPUs, and bytes of memory and disk.",
            labels=["node", "resource", "kind"],
        )
        protections = GaugeMetricFamily(
            "packetcloud_cloudlet_node_protection",
            "1 where a protection of the kernel or LXD is in force.",
            labels=["node", "protection"],
        )
        for node in view.nodes_of(self._controller):
            up.add_metric([node.name], node.state in ("ready", "evacuated"))
            kinds = {
                "capacity": node.capacity,
                "reserved": node.reserved,
                "free": node.free,
                "available": node.available,
            }
            for kind, amount in kinds.items():
                for resource, value in amount.model_dump().items():
                    amounts.add_metric([node.name, resource, kind], value)
            for protection in node.protections:
                protections.add_metric([node.name, protection.name], protection.is_active)
        yield from (up, amounts, protections)
