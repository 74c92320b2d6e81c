"""The cloudlet's table in force and its services as answers; reads, never changes."""

from __future__ import annotations

from collections import Counter

from packetcloud.router.cloudlet_dispatch import CloudletDispatch
from packetcloud.router.cloudlet_pool import CloudletService, CloudletVI
from packetcloud.router.cloudlet_schemas import (
    EvidenceReport,
    ServiceReport,
    TableReport,
    ViReport,
)
from packetcloud.router.cloudlet_table import ViEntry
from packetcloud.router.conduct_account import Evidence, Violation
from packetcloud.router.recent_durations import RecentDurations
from packetcloud.router.schemas import Durations
from packetcloud.router.view import verdict_words


def table_report(cloudlet: CloudletDispatch, boot_id: str, problem: str, now: float) -> TableReport:
    """Return all of it. Cost: O(VIs), whatever waits."""
    table = cloudlet.table
    services = (cloudlet.services.get(sid) for sid in table.services)
    return TableReport(
        boot_id=boot_id,
        controller=table.controller,
        epoch=table.epoch,
        version=table.version,
        problem=problem,
        services=[
            _service(service, now) for service in services if isinstance(service, CloudletService)
        ],
    )


def _service(service: CloudletService, now: float) -> ServiceReport:
    oldest = service.oldest_waiting
    attached = {vi.instance: vi for vi in service.cloudlet_vis if vi.entry is not None}
    return ServiceReport(
        sid=service.sid.hex,
        name=service.name,
        priority=service.settings.priority,
        waiting=service.waiting_count,
        waiting_bytes=service.waiting_bytes,
        oldest_waiting_s=now - oldest.taken_at if oldest is not None else None,
        held_slots=sorted(service.held),
        verdicts=verdict_words(service.verdicts),
        violations=_words(service.violations),
        delay_penalty=_recent(service.recent, now),
        vis=[_vi(service, entry, attached.get(entry.instance), now) for entry in service.entry.vis],
    )


def _vi(service: CloudletService, entry: ViEntry, vi: CloudletVI | None, now: float) -> ViReport:
    line = service.held_line(entry.slot)
    account, traffic = service.account_of(entry.instance), service.traffic_of(entry.instance)
    return ViReport(
        instance=entry.instance,
        owner_epoch=entry.owner_epoch,
        slot=entry.slot,
        state=entry.state,
        restricted=entry.is_bound,
        attached=vi is not None,
        number=vi.number if vi is not None else None,
        tasks=len(vi.tasks) if vi is not None else 0,
        tasks_bytes=vi.tasks_bytes if vi is not None else 0,
        waiting=len(line) if line is not None else 0,
        waiting_bytes=line.size_bytes if line is not None else 0,
        to_chunks=traffic.to_chunks,
        to_bytes=traffic.to_bytes,
        from_chunks=traffic.from_chunks,
        from_bytes=traffic.from_bytes,
        verdicts=verdict_words(vi.verdicts) if vi is not None else {},
        violations=_words(account.violations),
        evidence=[_evidence(one, now) for one in account.evidence],
        delay_penalty=_recent(vi.recent if vi is not None else RecentDurations(), now),
    )


def _evidence(one: Evidence, now: float) -> EvidenceReport:
    return EvidenceReport(
        kind=one.kind.value,
        source=one.source.hex,
        chunk_id=one.chunk_id.value,
        ago_s=now - one.at,
        text=one.text,
    )


def _words(counts: Counter[Violation]) -> dict[str, int]:
    return {kind.value: count for kind, count in sorted(counts.items())}


def _recent(durations: RecentDurations, now: float) -> Durations:
    recent = durations.recent(now)
    return Durations(
        count=recent.count,
        sum_s=recent.sum_ns / 1e9,
        p50_s=recent.quantile_ns(0.5) / 1e9,
        p99_s=recent.quantile_ns(0.99) / 1e9,
    )
