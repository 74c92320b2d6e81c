"""The figures about rules as Prometheus metrics. Source: docs/reference/router.md, "Metrics"."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from packetcloud.router.histogram import LogHistogram
from packetcloud.router.rules.figures import RuleFigures

PREFIX = "packetcloud_router_rule"
BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0)


class RuleCollector(Collector):
    """Collects at every scrape.

    Args:
        figures: returns them as they are now.
    """

    def __init__(self, figures: Callable[[], RuleFigures]) -> None:
        self._figures = figures

    def describe(self) -> Iterator[Metric]:
        """Nothing is promised at registration."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        in_force = GaugeMetricFamily(f"{PREFIX}s_in_force", "Rules in force.", labels=["mode"])
        in_force.add_metric(["active"], figures.active)
        in_force.add_metric(["shadow"], figures.shadow)
        yield in_force
        for name, text, value in (
            ("s_suspended", "Rules whose signer signs for the ISP no more.", figures.suspended),
            ("s_revoked", "Rules out of force, as a grant was revoked.", figures.revoked),
            ("s_third_party", "Rules that are not the ISP's own.", figures.third_party),
            ("_files", "Files of the table in force.", figures.files),
            ("_uploads", "Documents on their way in.", figures.uploads),
            ("_keeper_up", "1 while the keeper runs.", figures.is_keeper_up),
        ):
            yield GaugeMetricFamily(f"{PREFIX}{name}", text, value)
        for name, text, value in (
            ("_keeper_restarts", "Keepers begun anew.", figures.keeper_restarts),
            ("_requests_refused", "Requests beyond the cap.", figures.requests_refused),
            ("_uploads_refused", "Documents that were not taken in.", figures.uploads_refused),
            ("_revocations", "Grants that were revoked.", figures.revocations),
            ("_items_accepted", "Items of documents that took effect.", figures.items_accepted),
        ):
            yield CounterMetricFamily(f"{PREFIX}{name}", text, value)
        for name, text, counts in (
            ("_documents_refused", "Whole documents refused.", figures.documents_refused),
            ("_items_refused", "Items of documents refused.", figures.items_refused),
            ("_revocations_refused", "Revocations refused.", figures.revocations_refused),
        ):
            family = CounterMetricFamily(f"{PREFIX}{name}", text, labels=["reason"])
            for reason, count in counts.items():
                family.add_metric([reason], count)
            yield family
        yield _histogram("_install_seconds", "From a document to its effect.", figures.installs)
        yield _histogram("_load_seconds", "Loading a version, off the loop.", figures.loads)


def _histogram(name: str, text: str, histogram: LogHistogram) -> Metric:
    family = HistogramMetricFamily(f"{PREFIX}{name}", text)
    totals = histogram.cumulative(bound * 1e9 for bound in BOUNDS_S)
    buckets = [(f"{bound:g}", float(total)) for bound, total in zip(BOUNDS_S, totals, strict=True)]
    family.add_metric([], [*buckets, ("+Inf", float(histogram.count))], histogram.sum_ns / 1e9)
    return family
