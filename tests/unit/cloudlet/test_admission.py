"""Which VIs may use the way to the IP network, and who gets what comes to a port."""

from __future__ import annotations

from typing import Any

import pytest

from packetcloud.cloudlet.admission import admitted, is_admitted
from packetcloud.cloudlet.core.instances import Role, Vi, ViState
from tests.unit.cloudlet.test_egress_filters import PLAN


def _vi(number: int = 1, **changes: Any) -> Vi:
    vi = Vi(number, "translator", "small", "n1", 7, "token", 15 + number, state=ViState.RUNNING)
    for name, value in changes.items():
        setattr(vi, name, value)
    return vi


@pytest.mark.parametrize("state", list(ViState))
def test_only_who_has_its_service_is_let_in(state: ViState) -> None:
    """From its launch to its end, not while it boots, waits, fails or is in quarantine."""
    is_in = is_admitted(_vi(state=state))
    assert is_in == (state in (ViState.LAUNCHING, ViState.RUNNING))


@pytest.mark.parametrize(
    ("changes", "is_in"),
    [
        ({}, True),
        ({"role": Role.TWIN}, True),
        ({"is_draining": True}, True),
        ({"role": Role.STANDBY}, False),
        ({"role": Role.RETIRED}, False),
        ({"is_leaving": True}, False),
        ({"is_restricted": True}, False),
    ],
)
def test_who_should_not_has_no_way(changes: dict[str, Any], is_in: bool) -> None:
    """A standby before its launch, who is restricted, who leaves; who drains finishes its tasks."""
    assert is_admitted(_vi(**changes)) is is_in
    assert bool(admitted([_vi(**changes)], PLAN).vis) is is_in


def test_services_without_a_grant_have_no_way() -> None:
    assert not admitted([_vi(service="tally")], PLAN).vis


def test_a_port_leads_to_the_owner_of_the_first_slot() -> None:
    """A twin has its own address, and the port when it is the owner; no owner: nobody gets it."""
    old, twin, second = _vi(1), _vi(2, role=Role.TWIN), _vi(3, slot=1)
    assert admitted([second, twin, old], PLAN).listeners == {8080: (16, 80)}
    old.role, old.is_leaving, twin.role = Role.RETIRED, True, Role.OWNER
    assert admitted([second, twin, old], PLAN).listeners == {8080: (17, 80)}
    assert admitted([second], PLAN).listeners == {8080: (18, 80)}
    second.state = ViState.LAUNCHING
    assert admitted([second], PLAN).listeners == {}
