"""The core's counters as Prometheus metrics: base units, `_total`, reasons as labels.

Nothing is counted here: a scrape reads what the core counts anyway.
Source: docs/reference/router.md, "Metrics".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.hop.core import COUNTER_NAMES
from packetcloud.router.core import RouterCore
from packetcloud.router.histogram import LogHistogram
from packetcloud.router.view import by_word, verdict_words

PREFIX = "packetcloud_router_"
DURATION_BOUNDS_S = tuple(
    base * 10.0**exponent for exponent in range(-5, 2) for base in (1.0, 2.0, 5.0)
)
"""Buckets of the exported histograms: 10 microseconds to 50 s."""


class RouterCollector(Collector):
    """Collects from one core at every scrape.

    Args:
        hop_stats, hop_dropped: of the hop node; empty before it listens.
    """

    def __init__(
        self,
        core: RouterCore,
        hop_stats: Callable[[], Mapping[str, int]],
        hop_dropped: Callable[[], Mapping[str, int]],
    ) -> None:
        self._core = core
        self._hop_stats = hop_stats
        self._hop_dropped = hop_dropped

    def collect(self) -> Iterator[Metric]:
        yield from self._custody()
        yield from self._traffic()
        yield from self._spool()
        yield from self._services()
        yield from self._rules()
        yield from self._durations()
        yield from self._hop()

    def describe(self) -> Iterator[Metric]:
        """Nothing is promised at registration: services come and go."""
        return iter(())

    def _custody(self) -> Iterator[Metric]:
        book = self._core.book
        sums = book.conservation()
        for name, text in (
            ("taken_in", "Chunks taken into custody."),
            ("originated", "Chunks that began here: reports, and what services emitted."),
            ("restored", "Chunks taken over from an earlier process of this router."),
            ("sent_on", "Chunks that a neighbour router took custody of."),
            ("delivered", "Chunks that an attached host took."),
            ("replaced", "Chunks in whose place a service sent others."),
        ):
            yield _counter(f"chunks_{name}", text, sums[name])
        yield _labelled("chunks_refused", "Chunks given up.", "reason", by_word(book.refused))
        yield _labelled("chunks_expired", "Chunks held too long.", "reason", by_word(book.expired))
        yield _labelled("chunks_dropped", "Chunks that a service dropped.", "service", book.dropped)
        yield _gauge("chunks_held", "Chunks in custody now.", sums["held"])
        yield _gauge(
            "conservation_balance",
            "taken_in + originated + restored - sent_on - delivered - replaced - refused - expired"
            " - dropped - held; zero, or a chunk was lost or doubled.",
            sums["balance"],
        )
        yield _labelled(
            "chunks_refused_at_door",
            "Bodies that were never in custody; their neighbour still has them.",
            "reason",
            by_word(self._core.door.refusals),
        )

    def _traffic(self) -> Iterator[Metric]:
        core, book = self._core, self._core.book
        yield _counter("taken_in_bytes", "Bytes of chunks taken in.", book.taken_in_bytes)
        yield _counter("sent_on_bytes", "Bytes of chunks sent on.", book.sent_on_bytes)
        yield _counter("delivered_bytes", "Bytes of chunks delivered.", book.delivered_bytes)
        yield _gauge("held_bytes", "Bytes of chunks in custody now.", book.held_bytes)
        yield _gauge("store_limit_bytes", "Cap on the bytes in custody.", book.store_bytes)
        yield _counter("reports_sent", "Ends told to sources.", core.reports.sent_count)
        yield _counter(
            "reports_undeliverable",
            "Report chunks that could not be delivered.",
            book.undeliverable_reports_count,
        )
        yield _counter(
            "flow_cache_misses", "Chunks whose header was decoded.", core.door.flow_misses_count
        )
        counts = {"host": 0, "router": 0, "service": 0}
        for attachment in core.attachments:
            counts[attachment.role.name.lower()] += 1
        neighbours = GaugeMetricFamily(
            PREFIX + "neighbours", "Neighbours attached now.", labels=["role"]
        )
        for role, count in counts.items():
            neighbours.add_metric([role], count)
        yield neighbours
        refused = {role.name.lower(): core.refused_attachments[role] for role in Role}
        yield _labelled("attachments_refused", "Neighbours not admitted.", "role", refused)
        yield _counter(
            "hosts_forgotten",
            "Absent hosts that made room for others.",
            core.routes.forgotten_count,
        )
        yield _gauge("captures", "Captures that run now.", len(core.tap.captures))
        yield _counter(
            "capture_lost", "Looks at chunks that a capture had no room for.", core.tap.lost_count
        )
        yield _gauge("draining", "1 while the router takes no more chunks.", core.is_draining)

    def _spool(self) -> Iterator[Metric]:
        core, spool = self._core, self._core.spool
        waiting = core.forwarder.waiting
        yield _counter(
            "chunks_offered_again",
            "Chunks that their next custodian had no room for, tried again.",
            waiting.retried_count,
        )
        yield _gauge("waiting_memory_bytes", "Waiting chunks in memory.", waiting.memory_bytes)
        state, figures = spool.state, spool.figures
        limit = spool.settings.max_bytes if spool.settings is not None else 0
        yield _gauge("spool_records", "Chunks on disk or on their way there.", spool.count)
        yield _gauge("spool_bytes", "Their bytes.", spool.used_bytes)
        yield _gauge("spool_limit_bytes", "Cap on that; 0: no spool.", limit)
        yield _gauge("spool_queued_bytes", "Of them on their way there.", spool.queued_bytes)
        yield _gauge("spool_disk_bytes", "Bytes of all its files.", state.disk_bytes)
        yield _gauge("spool_failing", "1 while the disk takes nothing.", bool(spool.error))
        for name, text, value in (
            ("stored", "Chunks that were on disk before they were taken.", spool.stored_count),
            ("spilled", "Chunks that left memory.", spool.spilled_count),
            ("restored", "Chunks that came back to memory.", spool.restored_count),
            ("recovered", "Chunks that an earlier process left.", spool.recovered_count),
            ("errors", "Groups of jobs that the disk failed.", figures.errors_count),
        ):
            yield _counter(f"spool_{name}", text, value)
        yield _counter("spool_spilled_bytes", "Their bytes.", spool.spilled_bytes_total)
        yield _counter(
            "spool_damaged",
            "Records, or stretches without any, that did not match their checksums.",
            max(state.damaged_count, waiting.damaged_count),
        )
        yield _labelled("spool_refused", "Chunks not written.", "reason", spool.refused)
        totals = figures.sync.cumulative(bound * 1e9 for bound in DURATION_BOUNDS_S)
        family = HistogramMetricFamily(
            f"{PREFIX}spool_fsync_seconds", "One group: all that had come by then."
        )
        buckets = [
            (f"{bound:g}", float(total))
            for bound, total in zip(DURATION_BOUNDS_S, totals, strict=True)
        ]
        family.add_metric(
            [], [*buckets, ("+Inf", float(figures.sync.count))], figures.sync.sum_ns / 1e9
        )
        yield family

    def _services(self) -> Iterator[Metric]:
        labels = ["service", "sid"]
        services = list(self._core.dispatch.services.values())
        vis = GaugeMetricFamily(f"{PREFIX}service_vis", "VIs attached.", labels=labels)
        waiting = GaugeMetricFamily(
            f"{PREFIX}service_waiting_chunks", "Chunks that wait for a VI.", labels=labels
        )
        for service in services:
            values = [service.name, service.sid.hex]
            vis.add_metric(values, len(service.vis))
            waiting.add_metric(values, service.waiting_count)
        yield vis
        yield waiting
        for name, text, attribute in (
            ("tasks", "Tasks given to VIs.", "tasks_count"),
            ("retried_tasks", "Tasks that were a further try.", "retried_count"),
            ("missed_deadlines", "Tasks without verdict in time.", "missed_count"),
            ("late_verdicts", "Verdicts that nobody waited for.", "late_count"),
            ("skipped_chunks", "Chunks past a fail-open service.", "skipped_count"),
            ("emitted_chunks", "Chunks that the service sent.", "emitted_count"),
            ("left_out_chunks", "Chunks sent beside others and left out.", "left_out_count"),
        ):
            counter = CounterMetricFamily(f"{PREFIX}service_{name}", text, labels=labels)
            for service in services:
                count: int = getattr(service, attribute)
                counter.add_metric([service.name, service.sid.hex], count)
            yield counter
        verdicts = CounterMetricFamily(
            f"{PREFIX}service_verdicts", "Verdicts.", labels=[*labels, "verdict"]
        )
        for service in services:
            for word, count in verdict_words(service.verdicts).items():
                verdicts.add_metric([service.name, service.sid.hex, word], count)
        yield verdicts

    def _rules(self) -> Iterator[Metric]:
        core = self._core
        counts, rules = core.rule_counts, core.rules
        yield _gauge(
            "rules_version", "Of the rules in force; 0: none.", rules.version if rules else 0
        )
        family = CounterMetricFamily(
            f"{PREFIX}rule_decisions",
            "Rules that decided about a chunk, and shadow rules that would have.",
            labels=["action", "mode"],
        )
        for action, mode, value in (
            ("visit", "active", counts.visits_count),
            ("pass", "active", counts.passes_count),
            ("visit", "shadow", counts.shadow_visits_count),
            ("pass", "shadow", counts.shadow_passes_count),
        ):
            family.add_metric([action, mode], value)
        yield family
        for name, text, value in (
            (
                "shadow_rules_differing_chunks",
                "Chunks that would have visited other services with the shadow rules.",
                counts.would_differ_count,
            ),
            (
                "rule_services_absent",
                "Rules that led a chunk to a service that is not at this cloudlet.",
                counts.unhosted_count,
            ),
            (
                "rule_decisions_uncounted",
                "Decisions of rules whose own count had no room.",
                counts.uncounted_count,
            ),
            (
                "late_flows_forgotten",
                "Flows with so many kinds of chunks that all were forgotten.",
                counts.late_forgotten_count,
            ),
            ("payloads_scanned", "Payloads looked at for patterns.", counts.scanned_count),
            ("payload_scanned_bytes", "Their bytes.", counts.scanned_bytes),
        ):
            yield _counter(name, text, value)

    def _durations(self) -> Iterator[Metric]:
        for name, text in (
            (
                "penalty",
                "From a chunk's turn at the service until the whole verdict is back.",
            ),
            ("processing", "The part of the delay penalty that the VI spent in the service."),
            ("delivery", "The delay penalty without the processing."),
            ("wait", "The part of delivery before a VI had room for the chunk."),
        ):
            label = "delay_penalty" if name == "penalty" else name
            family = HistogramMetricFamily(
                f"{PREFIX}service_{label}_seconds", text, labels=["service", "sid"]
            )
            for service in self._core.dispatch.services.values():
                histogram: LogHistogram = getattr(service, name)
                totals = histogram.cumulative(bound * 1e9 for bound in DURATION_BOUNDS_S)
                buckets = [
                    (f"{bound:g}", float(total))
                    for bound, total in zip(DURATION_BOUNDS_S, totals, strict=True)
                ]
                family.add_metric(
                    [service.name, service.sid.hex],
                    [*buckets, ("+Inf", float(histogram.count))],
                    histogram.sum_ns / 1e9,
                )
            yield family

    def _hop(self) -> Iterator[Metric]:
        for name, value in self._hop_stats().items():
            kind = CounterMetricFamily if name in COUNTER_NAMES else GaugeMetricFamily
            yield kind(f"packetcloud_hop_{name}", "See docs/protocol/hop.md.", value)
        dropped = CounterMetricFamily(
            "packetcloud_hop_datagrams_dropped", "Datagrams dropped.", labels=["reason"]
        )
        for reason, count in self._hop_dropped().items():
            dropped.add_metric([reason], count)
        yield dropped


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value)


def _labelled(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=[label])
    for word, count in values.items():
        family.add_metric([word], count)
    return family
