"""A running controller as its API shows it."""

from __future__ import annotations

from typing import Literal

from packetcloud.cloudlet.admission import is_admitted
from packetcloud.cloudlet.controller import Controller, Launches
from packetcloud.cloudlet.core.instances import Vi, ViState
from packetcloud.cloudlet.core.inventory import Node
from packetcloud.cloudlet.core.values import NOTHING, Resources
from packetcloud.cloudlet.egress_counts import EgressCount
from packetcloud.cloudlet.schemas import (
    ChargeInfo,
    DomainInfo,
    EgressInfo,
    EvidenceInfo,
    LaunchInfo,
    NodeInfo,
    OperationInfo,
    ProtectionInfo,
    ResourcesInfo,
    ServiceInfo,
    StatusInfo,
    ViInfo,
)


def status_of(controller: Controller, control_listen: str) -> StatusInfo:
    """Return how the controller is."""
    core = controller.core
    return StatusInfo(
        name=core.settings.name,
        epoch=core.table.epoch,
        table_version=core.table.version,
        router="ready" if core.router is not None else "silent",
        router_text=core.router_text,
        vis=len(core.saved.vis),
        migrations=len(core.saved.migrations),
        operations=len(core.saved.operations),
        control_listen=control_listen,
        domain=_domain_of(controller),
    )


def _domain_of(controller: Controller) -> DomainInfo | None:
    end, core = controller.domain, controller.core
    if end is None:
        return None
    return DomainInfo(
        url=end.url,
        name=end.name,
        is_connected=core.reservations.is_up,
        text=end.text,
        epoch=core.saved.domain_epoch,
        reservations=len(core.saved.reserved),
        waiting_records=len(core.saved.records),
    )


def vis_of(controller: Controller, launches: Launches) -> list[ViInfo]:
    """Return every VI, by number."""
    vis = controller.core.saved.vis
    return [vi_info(controller, launches, vis[number]) for number in sorted(vis)]


def vi_info(controller: Controller, launches: Launches, vi: Vi) -> ViInfo:
    """Return one VI."""
    core = controller.core
    service = core.settings.services.get(vi.service)
    at_router = None
    if core.router is not None and service is not None:
        seen = core.router.services.get(service.sid)
        at_router = seen.vis.get(vi.instance) if seen is not None else None
    return ViInfo(
        number=vi.number,
        service=vi.service,
        vi_type=vi.vi_type,
        node=vi.node,
        container=launches.container_name(vi.number),
        state=vi.state.value,
        role=vi.role.value,
        slot=vi.slot,
        instance=vi.instance,
        owner_epoch=vi.owner_epoch,
        restarts=vi.restarts,
        is_attached=vi.is_attached,
        has_link=vi.has_link,
        is_restricted=vi.is_restricted,
        is_draining=vi.is_draining,
        is_leaving=vi.is_leaving,
        why=vi.why,
        reservation=vi.reservation or None,
        tasks=None if at_router is None else at_router.tasks,
        violations=dict(vi.violations),
        evidence=[
            EvidenceInfo(kind=one.kind, source=one.source, chunk_id=one.chunk_id, text=one.text)
            for one in vi.evidence
        ],
        restrictions=vi.restrictions,
        restricted_until_s=vi.restricted_until_s if vi.is_restricted else None,
        egress=_egress_of(controller, launches, vi),
        record=[ChargeInfo(at_s=one.at_s, text=one.text) for one in vi.record],
        status=dict(vi.status),
        launch=_launch_of(vi),
    )


def _egress_of(controller: Controller, launches: Launches, vi: Vi) -> EgressInfo | None:
    policy = launches.egress_of(vi)
    if policy is None:
        return None
    count = controller.egress.get(vi.number, EgressCount())
    listening = controller.listening
    return EgressInfo(
        is_open=is_admitted(vi),
        granted=policy.summary(),
        listens=sorted(port for port, (address, _) in listening.items() if address == vi.address),
        denied_packets=count.denied_packets,
        denied_bytes=count.denied_bytes,
        connections=count.opened,
        connections_refused=count.bounded,
    )


def _launch_of(vi: Vi) -> LaunchInfo | None:
    if vi.launch is None:
        return None
    took_s = {stage.value: round(took, 4) for stage, took in vi.launch.took_s.items()}
    return LaunchInfo(began_at=round(vi.launch.began_at, 4), took_s=took_s)


def services_of(controller: Controller) -> list[ServiceInfo]:
    """Return every declared service."""
    core = controller.core
    infos = []
    for name, service in core.settings.services.items():
        vis = [vi for vi in core.saved.vis.values() if vi.service == name and vi.counts]
        vis = [vi for vi in vis if not vi.reservation]
        seen = core.router.services.get(service.sid) if core.router is not None else None
        infos.append(
            ServiceInfo(
                name=name,
                sid=service.sid,
                owner=service.owner,
                vi_type=service.vi_type,
                replicas_min=service.replicas_min,
                replicas_max=service.replicas_max,
                wanted=core.saved.counts.get(name, service.replicas_min),
                running=sum(vi.state is ViState.RUNNING and vi.is_attached for vi in vis),
                standbys=sum(vi.is_ready_to_launch for vi in core.staffing.standbys.of(name)),
                standbys_wanted=service.standbys,
                text=core.table.refused.get(service.sid) or core.staffing.no_room.get(name, ""),
                waiting=None if seen is None else seen.waiting,
                oldest_waiting_s=None if seen is None else seen.oldest_wait_s,
            )
        )
    return infos


def nodes_of(controller: Controller) -> list[NodeInfo]:
    """Return every compute node."""
    core = controller.core
    infos = []
    for name, node in core.inventory.nodes.items():
        room = core.inventory.room(name)
        facts = controller.facts.get(name)
        infos.append(
            NodeInfo(
                name=name,
                state=_state_of(node),
                text=node.silent_text if node.silent_since is not None else "",
                capacity=_resources(node.capacity or NOTHING),
                reserved=_resources(room.reserved),
                free=_resources(node.free),
                available=_resources(room.for_all),
                available_to_third_parties=_resources(room.for_third_parties),
                set_aside=_resources(room.set_aside),
                boosted_cpus=round(core.inventory.boosted_cpus(name), 3),
                vis=sorted(vi.number for vi in core.saved.vis.values() if vi.node == name),
                protections=[
                    ProtectionInfo(
                        name=one.name, is_active=one.is_active, cost=one.cost, remedy=one.remedy
                    )
                    for one in (
                        *(facts.protections if facts is not None else ()),
                        *controller.network_protections,
                    )
                ],
            )
        )
    return infos


def operation_of(controller: Controller, number: int) -> OperationInfo | None:
    """Return how an operation is; None: there is none, or its end was long ago."""
    result = controller.results.get(number)
    if result is not None:
        state = "done" if result.is_done else "failed"
        return OperationInfo.model_validate(
            {"operation": number, "state": state, "vi": result.vi, "text": result.text}
        )
    if controller.is_known(number):
        return OperationInfo(operation=number, state="running", vi=controller.core.vi_of(number))
    return None


def _state_of(node: Node) -> Literal["ready", "evacuated", "silent", "lost", "unknown"]:
    if node.is_lost:
        return "lost"
    if node.silent_since is not None:
        return "silent"
    if node.capacity is None:
        return "unknown"
    return "evacuated" if node.is_evacuated else "ready"


def _resources(amount: Resources) -> ResourcesInfo:
    return ResourcesInfo(
        cpus=round(amount.cpus, 3),
        memory_bytes=amount.memory_bytes,
        disk_bytes=amount.disk_bytes,
        io_per_s=amount.io_per_s,
    )
