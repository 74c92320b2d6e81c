"""What `packetcloud doctor` makes of the facts about a machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from packetcloud.cloudlet.schemas import NodeInfo, ProtectionInfo, ResourcesInfo
from packetcloud.testbed.capabilities import (
    CGROUP_CONTROLLERS,
    COMMANDS,
    MODULES,
    WANTED_BUFFER_BYTES,
    Capabilities,
)
from packetcloud.testbed.doctor import Finding, State, can_run, diagnose, diagnose_nodes

COMPLETE = Capabilities(
    system="Linux",
    kernel="6.18.0",
    python=(3, 11, 7),
    cores_count=2,
    has_aes_instructions=True,
    can_use_loopback=True,
    has_udp_segment=True,
    has_udp_gro=True,
    rmem_max_bytes=WANTED_BUFFER_BYTES,
    wmem_max_bytes=WANTED_BUFFER_BYTES,
    granted_receive_buffer_bytes=WANTED_BUFFER_BYTES,
    is_root=True,
    has_net_admin=True,
    can_make_namespaces=True,
    can_make_veth=True,
    can_emulate_links=True,
    can_make_tun=True,
    congestion_controls=("reno", "bbr", "cubic"),
    has_apparmor=True,
    cgroups="v2",
    cgroup_controllers=frozenset(CGROUP_CONTROLLERS),
    has_seccomp_filter=True,
    container_ids_count=10_000_001,
    lxd="running",
    commands={command: f"/usr/bin/{command}" for command in COMMANDS},
    modules=dict.fromkeys(MODULES, True),
)


def _lacking(facts: Capabilities) -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnose(facts) if finding.state is not State.OK}


def test_a_complete_machine_lacks_nothing() -> None:
    """Where everything is there, every finding is ok and names neither cost nor remedy."""
    findings = diagnose(COMPLETE)
    assert {finding.state for finding in findings} == {State.OK}
    assert not any(finding.cost or finding.remedy for finding in findings)
    assert can_run(findings)


@pytest.mark.parametrize(
    ("change", "name", "state"),
    [
        ({"system": "Darwin"}, "Linux", State.MISSING),
        ({"python": (3, 10, 12)}, "Python", State.MISSING),
        ({"can_use_loopback": False}, "UDP on loopback", State.MISSING),
        ({"cores_count": 1}, "CPU cores", State.LIMITED),
        ({"has_aes_instructions": False}, "AES instructions", State.LIMITED),
        ({"has_udp_segment": False}, "UDP_SEGMENT", State.MISSING),
        ({"has_udp_gro": False}, "UDP_GRO", State.MISSING),
        ({"rmem_max_bytes": WANTED_BUFFER_BYTES - 1}, "net.core.rmem_max", State.LIMITED),
        ({"wmem_max_bytes": None}, "net.core.wmem_max", State.LIMITED),
        ({"granted_receive_buffer_bytes": 212992}, "receive buffer granted", State.LIMITED),
        ({"can_make_namespaces": False}, "network namespaces", State.MISSING),
        ({"can_make_veth": False}, "network namespaces", State.MISSING),
        ({"can_emulate_links": False}, "netem", State.MISSING),
        ({"congestion_controls": ("cubic",)}, "TCP congestion controls", State.LIMITED),
        ({"lxd": "installed"}, "LXD", State.LIMITED),
        ({"lxd": "absent"}, "LXD", State.MISSING),
        ({"cgroups": "absent"}, "control groups", State.MISSING),
        ({"cgroup_controllers": frozenset()}, "controllers of control groups", State.MISSING),
        ({"has_seccomp_filter": False}, "system call filter", State.MISSING),
        ({"container_ids_count": 65536}, "ids of containers", State.LIMITED),
        ({"container_ids_count": 0}, "ids of containers", State.MISSING),
        ({"has_apparmor": False}, "AppArmor", State.MISSING),
        ({"commands": {"nginx": None}}, "nginx", State.MISSING),
        ({"modules": {"grpc": False}}, "Python module grpc", State.MISSING),
    ],
)
def test_each_lack_is_named_with_its_cost_and_its_remedy(
    change: dict[str, Any], name: str, state: State
) -> None:
    """One missing thing makes one finding, and that says what it costs and how to get it."""
    lacking = _lacking(replace(COMPLETE, **change))
    assert list(lacking) == [name]
    assert lacking[name].state is state
    assert lacking[name].cost
    assert lacking[name].remedy


def test_only_what_nothing_runs_without_is_mandatory() -> None:
    """A bare machine can run; one without Linux, Python 3.11 or loopback cannot."""
    bare = replace(
        COMPLETE,
        has_udp_segment=False,
        has_udp_gro=False,
        is_root=False,
        has_net_admin=False,
        can_make_namespaces=False,
        can_emulate_links=False,
        congestion_controls=(),
        has_apparmor=False,
        lxd="absent",
        commands=dict.fromkeys(COMMANDS),
        modules=dict.fromkeys(MODULES, False),
    )
    assert can_run(diagnose(bare))
    for change in ({"system": "Darwin"}, {"python": (3, 10, 0)}, {"can_use_loopback": False}):
        assert not can_run(diagnose(replace(COMPLETE, **change)))


def test_the_remedy_names_the_package_not_the_command() -> None:
    """`ip` is in iproute2: the remedy is a command that works."""
    lacking = _lacking(replace(COMPLETE, commands={"ip": None}))
    assert lacking["ip"].remedy == "apt-get install iproute2"


@pytest.mark.parametrize(
    ("netem", "tun", "says"),
    [
        (True, True, "netem for rate, delay and loss, TUN for everything else"),
        (False, True, "TUN for everything"),
        (True, False, "netem for rate, delay and loss"),
    ],
)
def test_which_emulator_makes_links_is_said(netem: bool, tun: bool, says: str) -> None:
    """What `--emulator auto` will choose."""
    facts = replace(COMPLETE, can_emulate_links=netem, can_make_tun=tun)
    (finding,) = (one for one in diagnose(facts) if one.name == "link emulator")
    assert (finding.state, finding.found) == (State.OK, says)


def test_without_tun_and_netem_no_link_is_emulated() -> None:
    """Both ways out are named."""
    lacking = _lacking(replace(COMPLETE, can_emulate_links=False, can_make_tun=False))
    assert list(lacking) == ["link emulator", "netem"]
    assert "bench loss" in lacking["link emulator"].cost


def test_a_limit_that_no_controller_enforces_is_named() -> None:
    """Whoever reads it knows which limit is missing, and what to boot with."""
    facts = replace(COMPLETE, cgroup_controllers=frozenset({"cpu", "io", "memory"}))
    finding = _lacking(facts)["controllers of control groups"]
    assert finding.found == "cpu, io, memory"
    assert finding.cost.startswith("no limit of processes of a VI")
    assert "cgroup_enable=pids" in finding.remedy


def test_nodes_of_a_cloudlet_are_told_apart() -> None:
    """Each protection of each node, with its cost and remedy where it is not in force."""
    nothing = ResourcesInfo(cpus=0, memory_bytes=0, disk_bytes=0)
    active = ProtectionInfo(name="AppArmor", is_active=True, cost="", remedy="")
    lacking = ProtectionInfo(name="AppArmor", is_active=False, cost="no profile", remedy="boot it")
    nodes = [
        NodeInfo(
            name=name,
            state="ready",
            text="",
            capacity=nothing,
            reserved=nothing,
            free=nothing,
            available=nothing,
            available_to_third_parties=nothing,
            set_aside=nothing,
            boosted_cpus=0.0,
            vis=[],
            protections=[one],
        )
        for name, one in (("n1", active), ("n2", lacking))
    ]
    first, second = diagnose_nodes(nodes)
    assert (first.name, first.state, first.cost) == ("n1: AppArmor", State.OK, "")
    assert (second.name, second.state) == ("n2: AppArmor", State.MISSING)
    assert (second.cost, second.remedy) == ("no profile", "boot it")
    assert can_run([first, second])
