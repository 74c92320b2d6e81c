"""What is counted of the cloudlet's table, as Prometheus metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from packetcloud.router.cloudlet_pool import CloudletService
from packetcloud.router.cloudlet_table import ItemReason
from packetcloud.router.core import RouterCore
from packetcloud.router.metrics import PREFIX


@dataclass(slots=True)
class TableFigures:
    """Counts since the start."""

    requests_refused: Counter[str] = field(default_factory=Counter)
    """By the reason that was answered."""
    items_refused: Counter[ItemReason] = field(default_factory=Counter)
    looks_not_written: int = 0
    """At chunks of VIs: the disk did not take them."""


class TableCollector(Collector):
    """Reads the core when Prometheus asks."""

    def __init__(self, core: RouterCore, figures: TableFigures) -> None:
        self._core = core
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        cloudlet, figures = self._core.cloudlet, self._figures
        epoch, version, services = 0, 0, list[CloudletService]()
        if cloudlet is not None:
            epoch, version = cloudlet.table.epoch, cloudlet.table.version
            every = cloudlet.services.values()
            services = [one for one in every if isinstance(one, CloudletService)]
        text = "Of the cloudlet's table in force; 0: no controller has written here."
        yield GaugeMetricFamily(f"{PREFIX}table_epoch", text, epoch)
        yield GaugeMetricFamily(f"{PREFIX}table_version", text, version)
        requests = CounterMetricFamily(
            f"{PREFIX}table_requests_refused",
            "Updates refused as a whole, and other requests about the table.",
            labels=["reason"],
        )
        for word, count in figures.requests_refused.items():
            requests.add_metric([word], count)
        yield requests
        items = CounterMetricFamily(
            f"{PREFIX}table_items_refused", "Items of updates refused.", labels=["reason"]
        )
        for reason, count in figures.items_refused.items():
            items.add_metric([reason.value], count)
        yield items
        yield from self._inspection()
        labels = ["service", "sid"]
        held = GaugeMetricFamily(
            f"{PREFIX}service_held_chunks", "Chunks that wait for a held slot.", labels=labels
        )
        violations = CounterMetricFamily(
            f"{PREFIX}service_violations",
            "Verdicts that a VI of the table may not give.",
            labels=[*labels, "kind"],
        )
        for service in services:
            values = [service.name, service.sid.hex]
            held.add_metric(values, service.waiting_count - len(service.waiting))
            for kind, count in service.violations.items():
                violations.add_metric([*values, kind.value], count)
        yield held
        yield violations

    def _inspection(self) -> Iterator[Metric]:
        inspection = self._core.cloudlet.inspection if self._core.cloudlet is not None else None
        yield CounterMetricFamily(
            f"{PREFIX}inspection_looks",
            "Looks at chunks to and from VIs, for files.",
            inspection.taken_count if inspection is not None else 0,
        )
        lost = CounterMetricFamily(
            f"{PREFIX}inspection_lost",
            "Looks that are in no file: there was no room for them, or the disk failed.",
            labels=["reason"],
        )
        lost.add_metric(["no_room"], inspection.lost_count if inspection is not None else 0)
        lost.add_metric(["disk"], self._figures.looks_not_written)
        yield lost
