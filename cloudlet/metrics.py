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

_EGRESS_NAMES = {"opened": "connections", "bounded": "connections_refused"}


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
        measures = CounterMetricFamily(
            "packetcloud_cloudlet_measures",
            "What was done about VIs whose container or conduct was not as it must be.",
            labels=["service", "measure"],
        )
        for (service, measure), count in core.conduct.measures.items():
            measures.add_metric([service, measure.value], count)
        yield measures
        yield GaugeMetricFamily(
            "packetcloud_cloudlet_migrations", "Migrations under way.", len(core.saved.migrations)
        )
        yield GaugeMetricFamily(
            "packetcloud_cloudlet_router_up", "1 while the router answers.", core.router is not None
        )
        yield CounterMetricFamily(
            "packetcloud_cloudlet_standstills",
            "Times that the controller was not scheduled for over a second.",
            self._controller.alarm.put_off_count,
        )
        yield from self._egress()
        yield from self._links()
        yield from self._nodes()
        yield from self._domain()

    def _egress(self) -> Iterator[Metric]:
        families = {
            "denied_packets": "Tries of VIs to reach what they may not in the IP network.",
            "denied_bytes": "Bytes of these.",
            "opened": "Connections of VIs with the IP network that began.",
            "bounded": "Connections of VIs with the IP network that were too many.",
        }
        for name, text in families.items():
            family = CounterMetricFamily(
                f"packetcloud_cloudlet_egress_{_EGRESS_NAMES.get(name, name)}",
                text,
                labels=["service"],
            )
            for service, count in self._controller.egress_totals.items():
                family.add_metric([service], getattr(count, name))
            yield family

    def _domain(self) -> Iterator[Metric]:
        end, core = self._controller.domain, self._controller.core
        if end is None:
            return
        reserved = core.reservations
        for name, text, value in (
            ("domain_up", "1 while a domain controller has the channel.", reserved.is_up),
            ("reservations", "Reservations that are held here.", len(core.saved.reserved)),
            (
                "usage_records_waiting",
                "Usage records that no domain controller has taken yet.",
                len(core.saved.records),
            ),
        ):
            yield GaugeMetricFamily(f"packetcloud_cloudlet_{name}", text, value)
        yield CounterMetricFamily(
            "packetcloud_cloudlet_usage_lost_vi_seconds",
            "VI time that was not counted, as too many usage records wait.",
            core.metering.lost_ms / 1000,
        )
        for unit, count in (
            ("chunks", core.traffic.lost_chunks),
            ("bytes", core.traffic.lost_bytes),
        ):
            yield CounterMetricFamily(
                f"packetcloud_cloudlet_usage_lost_{unit}",
                f"{unit.capitalize()} that were not charged, as too many usage records wait.",
                count,
            )
        dropped = CounterMetricFamily(
            "packetcloud_cloudlet_domain_frames_dropped",
            "What was said over the channel and not sent, or not taken, by reason.",
            labels=["reason"],
        )
        dropped.add_metric(["channel"], end.dropped_count)
        for reason, count in reserved.dropped.items():
            dropped.add_metric([reason], count)
        yield dropped

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
            "packetcloud_cloudlet_control_links_unlogged",
            "Control links that were closed without a line in the log, which had enough of them.",
            links.unlogged_count,
        )
        yield CounterMetricFamily(
            "packetcloud_cloudlet_reports_held_up",
            "Reports of VIs that had to wait because too many came.",
            links.held_up_count,
        )
        yield CounterMetricFamily(
            "packetcloud_cloudlet_calls_held_up",
            "Calls of VIs that had to wait because too many came.",
            links.callers.held_up_count,
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
            "CPUs, bytes of memory and disk, and reads and writes per second as declared.",
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
                "available_to_third_parties": node.available_to_third_parties,
                "set_aside": node.set_aside,
            }
            for kind, amount in kinds.items():
                for resource, value in amount.model_dump().items():
                    amounts.add_metric([node.name, resource, kind], value)
            for protection in node.protections:
                protections.add_metric([node.name, protection.name], protection.is_active)
        yield from (up, amounts, protections)
