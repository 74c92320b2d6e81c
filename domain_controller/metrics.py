"""The domain controller's metrics, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from packetcloud.domain_controller.api.app import DomainApp
from packetcloud.domain_controller.channel.hub import Hub
from packetcloud.domain_controller.state.reports import Reports
from packetcloud.domain_controller.state.writer import WriterFigures


class DomainCollector(Collector):
    """What an operator may want to be alarmed by."""

    def __init__(
        self,
        made: DomainApp,
        figures: WriterFigures,
        reports: Reports,
        clock_ms: Callable[[], int],
    ) -> None:
        self._made = made
        self._figures = figures
        self._reports = reports
        self._clock_ms = clock_ms

    def collect(self) -> Iterator[Metric]:
        yield from self._gate()
        yield from self._writer()
        ages = GaugeMetricFamily(
            "packetcloud_domain_report_age_seconds",
            "Age of the last report of a cloudlet.",
            labels=["cloudlet"],
        )
        now_ms = self._clock_ms()
        for name, report in self._reports.all().items():
            ages.add_metric([name], report.age_ms(now_ms) / 1000)
        yield ages

    def _gate(self) -> Iterator[Metric]:
        refused = CounterMetricFamily(
            "packetcloud_domain_requests_refused",
            "Requests that did not get in, by reason.",
            labels=["reason"],
        )
        for reason, count in self._made.gate.refused.items():
            refused.add_metric([reason], count)
        yield refused
        yield GaugeMetricFamily(
            "packetcloud_domain_requests",
            "Requests that are being answered.",
            self._made.gate.open_count,
        )
        yield GaugeMetricFamily(
            "packetcloud_domain_nonces",
            "Nonces of requests that changed nothing.",
            len(self._made.gate.nonces),
        )
        yield GaugeMetricFamily(
            "packetcloud_domain_event_streams",
            "Open streams of events.",
            self._made.feed.streams.total(),
        )
        yield GaugeMetricFamily(
            "packetcloud_domain_waiting_requests",
            "Requests that wait for something to change.",
            self._made.feed.waiting_count,
        )

    def _writer(self) -> Iterator[Metric]:
        figures = self._figures
        yield CounterMetricFamily(
            "packetcloud_domain_writes", "Changes that were written.", figures.requests
        )
        yield CounterMetricFamily(
            "packetcloud_domain_write_batches",
            "Transactions that they were written in.",
            figures.batches,
        )
        yield CounterMetricFamily(
            "packetcloud_domain_write_busy_seconds", "Time spent writing.", figures.busy_s
        )
        yield CounterMetricFamily(
            "packetcloud_domain_writes_refused",
            "Changes that were not taken, as too many waited.",
            figures.refused,
        )
        yield CounterMetricFamily(
            "packetcloud_domain_writes_unknown",
            "Changes of which it is not known whether they were written.",
            figures.unknown,
        )
        failed = CounterMetricFamily(
            "packetcloud_domain_write_failures",
            "Transactions that failed, by what failed.",
            labels=["reason"],
        )
        for failure, count in figures.failures.items():
            failed.add_metric([failure.name.lower()], count)
        yield failed


class ChannelCollector(Collector):
    """Cloudlets' channels."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        hub = self._hub
        yield GaugeMetricFamily(
            "packetcloud_domain_channels", "Cloudlets whose channel is here.", len(hub.channels)
        )
        yield CounterMetricFamily(
            "packetcloud_domain_channels_opened", "Channels that were opened.", hub.opened_count
        )
        for name, label, text in (
            ("received", "kind", "Frames that cloudlets sent, by kind."),
            ("sent", "kind", "Frames that cloudlets were sent, by kind."),
            ("dropped", "reason", "Frames of cloudlets that changed nothing, by reason."),
        ):
            frames = CounterMetricFamily(
                f"packetcloud_domain_channel_frames_{name}", text, labels=[label]
            )
            for word, count in hub.counts(name).items():
                frames.add_metric([word], count)
            yield frames
        records = CounterMetricFamily(
            "packetcloud_domain_usage_records",
            "Usage records that came in, by what became of them.",
            labels=["outcome"],
        )
        for word, count in hub.counts("taken").items():
            records.add_metric([word], count)
        yield records
        drift = GaugeMetricFamily(
            "packetcloud_domain_drift",
            "Differences between what cloudlets run and what is reserved that last, by kind.",
            labels=["kind"],
        )
        for kind, count in hub.drift().items():
            drift.add_metric([kind.value], count)
        yield drift
        rules = GaugeMetricFamily(
            "packetcloud_domain_rules",
            "Sets of rules that connected cloudlets are to have, by how far they are there.",
            labels=["state"],
        )
        for state, count in hub.rules().items():
            rules.add_metric([state.value], count)
        yield rules
