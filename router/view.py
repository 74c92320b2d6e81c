"""The core's state as the answers of the management API; reads, never changes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Literal

from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.reasons import Reason
from packetcloud.router.core import RouterCore
from packetcloud.router.histogram import LogHistogram
from packetcloud.router.routes import NextHop
from packetcloud.router.schemas import (
    Conservation,
    CountedDurations,
    HeldChunk,
    HeldChunks,
    Info,
    NeighbourInfo,
    Reload,
    ServiceInfo,
    Spool,
    ViInfo,
)
from packetcloud.router.service_pool import VI, Service

_ROLES: dict[Role, Literal["host", "router", "service"]] = {
    Role.HOST: "host",
    Role.ROUTER: "router",
    Role.SERVICE: "service",
}


def conservation(core: RouterCore) -> Conservation:
    return Conservation(**core.book.conservation())


def info(
    core: RouterCore,
    *,
    version: str,
    listen: str,
    uptime_s: float,
    hop: Mapping[str, int],
    lanes: str | None,
    reload: Reload | None,
) -> Info:
    book, settings = core.book, core.settings
    return Info(
        name=settings.name,
        guid=settings.guid.hex,
        na=settings.na.value,
        version=version,
        listen=listen,
        uptime_s=uptime_s,
        is_draining=core.is_draining,
        held_bytes=book.held_bytes,
        store_bytes=book.store_bytes,
        conservation=conservation(core),
        refused_at_door=by_word(core.door.refusals),
        refused=by_word(book.refused),
        expired=by_word(book.expired),
        dropped=dict(book.dropped),
        reports_sent=core.reports.sent_count,
        reports_undeliverable=book.undeliverable_reports_count,
        hop=dict(hop),
        spool=_spool(core),
        lanes=lanes,
        reload=reload,
    )


def _spool(core: RouterCore) -> Spool | None:
    spool = core.spool
    if spool.settings is None:
        return None
    return Spool(
        custody="durable" if spool.is_durable else "memory",
        records=spool.count,
        used_bytes=spool.used_bytes,
        max_bytes=spool.settings.max_bytes,
        disk_bytes=spool.state.disk_bytes,
        spilled=spool.spilled_count,
        restored=spool.restored_count,
        stored=spool.stored_count,
        damaged=core.forwarder.waiting.damaged_count,
        error=spool.error,
    )


def neighbours(core: RouterCore) -> list[NeighbourInfo]:
    """List who is attached, then the routers and hosts that are away but known."""
    listed = []
    for attachment in core.attachments:
        hop, neighbour = attachment.next_hop, attachment.neighbour
        host, port = neighbour.address
        listed.append(
            NeighbourInfo(
                guid=attachment.guid.hex,
                role=_ROLES[attachment.role],
                name=_name_of(core, attachment.guid.value, hop),
                is_up=neighbour.is_up,
                address=f"{host}:{port}",
                queued_bytes=neighbour.queued_bytes,
                waiting=len(hop.waiting) if hop is not None else 0,
                waiting_bytes=hop.waiting_bytes if hop is not None else 0,
                flows=len(attachment.flows),
            )
        )
    for hop in (*core.routes.routers(), *core.routes.hosts()):
        if hop.attachment is None and (hop.is_router or hop.waiting):
            listed.append(
                NeighbourInfo(
                    guid=hop.guid.hex(),
                    role="router" if hop.is_router else "host",
                    name=hop.name,
                    is_up=False,
                    address=None,
                    queued_bytes=0,
                    waiting=len(hop.waiting),
                    waiting_bytes=hop.waiting_bytes,
                    flows=0,
                )
            )
    return listed


def services(core: RouterCore, has_buckets: bool = False) -> list[ServiceInfo]:
    """List the services, the one that runs first at the top.

    Args:
        has_buckets: with all buckets of their durations.
    """
    found = sorted(
        core.dispatch.services.values(),
        key=lambda service: (-service.settings.priority, service.name),
    )
    return [_service(core, service, has_buckets) for service in found]


def held_chunks(core: RouterCore, now: float, limit: int) -> HeldChunks:
    """Return up to `limit` chunks in custody. Cost: O(limit), not O(chunks)."""
    wheel = core.book.wheel
    chunks = []
    for entry in islice(wheel, limit):
        head = entry.header_bytes_now()
        chunks.append(
            HeldChunk(
                source=head[20:40].hex(),
                chunk_id=str(entry.chunk_id),
                destination=head[44:64].hex(),
                sid=head[68:88].hex(),
                size_bytes=entry.size_bytes,
                phase=entry.phase.value,
                held_s=now - entry.taken_at,
                expires_in_s=entry.expires_at - now,
            )
        )
    chunks.sort(key=lambda chunk: chunk.expires_in_s)
    return HeldChunks(total=len(wheel), chunks=chunks)


def by_word(counts: Mapping[Reason, int]) -> dict[str, int]:
    return {reason.word: count for reason, count in sorted(counts.items())}


def verdict_words(counts: Mapping[VerdictCode, int]) -> dict[str, int]:
    return {code.name.lower(): count for code, count in sorted(counts.items())}


def _service(core: RouterCore, service: Service, has_buckets: bool) -> ServiceInfo:
    settings = service.settings
    return ServiceInfo(
        sid=service.sid.hex,
        name=service.name,
        is_listed=service.is_listed,
        priority=settings.priority,
        fail_policy=settings.fail_policy.value,
        deadline_ms=settings.deadline_ms,
        vis=[_vi(vi) for vi in service.vis],
        waiting=service.waiting_count,
        tasks=service.tasks_count,
        verdicts=verdict_words(service.verdicts),
        missed_deadlines=service.missed_count,
        retried=service.retried_count,
        late_verdicts=service.late_count,
        skipped=service.skipped_count,
        dropped=core.book.dropped[service.name],
        emitted=service.emitted_count,
        delay_penalty=_durations(service.penalty, has_buckets),
        processing=_durations(service.processing, has_buckets),
        delivery=_durations(service.delivery, has_buckets),
        wait=_durations(service.wait, has_buckets),
    )


def _vi(vi: VI) -> ViInfo:
    host, port = vi.neighbour.address
    return ViInfo(
        number=vi.number,
        address=f"{host}:{port}",
        tasks=len(vi.tasks),
        tasks_bytes=vi.tasks_bytes,
        state="draining" if vi.is_draining else "late" if vi.has_missed else "serving",
    )


def _durations(histogram: LogHistogram, has_buckets: bool) -> CountedDurations:
    buckets = [(value_ns / 1e9, count) for value_ns, count in histogram.buckets_ns()]
    return CountedDurations(
        count=histogram.count,
        sum_s=histogram.sum_ns / 1e9,
        p50_s=histogram.quantile_ns(0.5) / 1e9,
        p99_s=histogram.quantile_ns(0.99) / 1e9,
        buckets=buckets if has_buckets else None,
    )


def _name_of(core: RouterCore, guid: bytes, hop: NextHop | None) -> str:
    if hop is not None:
        return hop.name
    service = core.dispatch.services.get(guid)
    return service.name if service is not None else guid[:4].hex()
