"""Which VIs may use the bridge to the IP network now, and who gets what comes to a port. Pure.

A standby may not, nor who is restricted, in quarantine or on its way out: what the sets of the
filters do not name is denied. Source: docs/decisions/0017-egress-of-vis.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from packetcloud.cloudlet.core.instances import Role, Vi, ViState
from packetcloud.cloudlet.egress_filters import EgressElements, EgressPlan

_HAS_SERVICE = (ViState.LAUNCHING, ViState.RUNNING)


def admitted(vis: Iterable[Vi], plan: EgressPlan) -> EgressElements:
    """Return what the sets are to hold."""
    granted = [vi for vi in vis if is_admitted(vi) and plan.policy_of(vi.service) is not None]
    by_service: dict[str, set[int]] = {}
    for vi in granted:
        by_service.setdefault(vi.service, set()).add(vi.address)
    listeners: dict[int, tuple[int, int]] = {}
    for policy in plan.policies:
        # Of several the one in the first slot: in a migration the twin's turn comes with the slot.
        serving = [
            vi
            for vi in granted
            if vi.service == policy.service
            and vi.role is Role.OWNER
            and vi.state is ViState.RUNNING
            and not vi.is_draining
        ]
        first = min(serving, key=lambda vi: (vi.slot, vi.number), default=None)
        if first is not None:
            listeners |= {port: (first.address, own) for port, own in policy.listen.items()}
    return EgressElements({name: frozenset(found) for name, found in by_service.items()}, listeners)


def is_admitted(vi: Vi) -> bool:
    """Tell whether a VI may reach what its service is granted."""
    return (
        vi.state in _HAS_SERVICE
        and vi.role in (Role.OWNER, Role.TWIN)
        and not vi.is_leaving
        and not vi.is_restricted
    )
