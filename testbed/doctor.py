"""What the facts about a machine mean for PacketCloud: state, cost of what is missing, way out.

Pure: facts in, findings out, so that every case is tested without the machine that shows it.
Source: docs/operations/doctor.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from packetcloud.testbed.capabilities import (
    CGROUP_CONTROLLERS,
    WANTED_BUFFER_BYTES,
    Capabilities,
)

if TYPE_CHECKING:
    from packetcloud.cloudlet.schemas import NodeInfo


OLDEST_PYTHON = (3, 11)
IDS_OF_A_CONTAINER = 65536
WANTED_CONTAINERS = 64
"""VIs of one node: fifty and some that stand by."""
_MIB = 1 << 20
_PACKAGES = {
    "btrfs": "btrfs-progs",
    "mksquashfs": "squashfs-tools",
    "ip": "iproute2",
    "nginx": "nginx-light",
    "nft": "nftables",
    "ovs-vswitchd": "openvswitch-switch",
}
"""apt packages whose name is not the command's."""
_LIMITS = {"cpu": "time", "io": "disk I/O", "memory": "memory", "pids": "processes"}
_MODULE_COSTS = {"grpc": "no gRPC peer in bench service", "matplotlib": "no plots from bench"}


class State(StrEnum):
    """How well the machine does what was looked for."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for."""

    name: str
    state: State
    found: str
    """What this machine has, in a few words."""
    cost: str
    """What is lost while the state is not ok; empty when it is."""
    remedy: str
    """How to get it; empty when it is there."""
    is_mandatory: bool
    """Nothing of PacketCloud runs without it."""


def diagnose(facts: Capabilities) -> list[Finding]:
    """Say what `facts` mean, one finding per thing, the mandatory ones first."""
    return [
        *_base(facts),
        *_offloads(facts),
        *_buffers(facts),
        *_links(facts),
        *_isolation(facts),
        *_peers(facts),
    ]


def diagnose_nodes(nodes: Iterable[NodeInfo]) -> list[Finding]:
    """Say what the compute nodes of a running cloudlet told of their protections."""
    return [
        _finding(
            f"{node.name}: {one.name}",
            one.is_active,
            "in force",
            lacking="not in force",
            cost=one.cost,
            remedy=one.remedy,
        )
        for node in nodes
        for one in node.protections
    ]


def can_run(findings: list[Finding]) -> bool:
    """Tell whether everything mandatory is there."""
    return all(finding.state is State.OK for finding in findings if finding.is_mandatory)


def _finding(
    name: str,
    is_ok: bool,
    found: str = "works",
    *,
    lacking: str | None = None,
    cost: str,
    remedy: str,
    otherwise: State = State.MISSING,
    is_mandatory: bool = False,
) -> Finding:
    """`lacking`: said instead of `found` when it is not ok."""
    if is_ok:
        return Finding(name, State.OK, found, "", "", is_mandatory)
    return Finding(name, otherwise, lacking or found, cost, remedy, is_mandatory)


def _base(facts: Capabilities) -> Iterator[Finding]:
    yield _finding(
        "Linux",
        facts.system == "Linux",
        f"{facts.system} {facts.kernel}",
        cost="PacketCloud uses Linux socket options and does not run elsewhere",
        remedy="run it on Linux, for example in a virtual machine",
        is_mandatory=True,
    )
    yield _finding(
        "Python",
        facts.python[:2] >= OLDEST_PYTHON,
        ".".join(map(str, facts.python)),
        cost="PacketCloud does not start",
        remedy="install Python 3.11 or newer",
        is_mandatory=True,
    )
    yield _finding(
        "UDP on loopback",
        facts.can_use_loopback,
        lacking="a datagram to 127.0.0.1 does not arrive",
        cost="router, services and hosts cannot meet on this machine",
        remedy="ip link set lo up; look for a firewall on loopback",
        is_mandatory=True,
    )
    yield _finding(
        "CPU cores",
        facts.cores_count > 1,
        str(facts.cores_count),
        cost="router and services take turns on one core",
        remedy="give this machine two cores or more",
        otherwise=State.LIMITED,
    )
    yield _finding(
        "AES instructions",
        facts.has_aes_instructions,
        "yes",
        lacking="no",
        cost="the secure communication service encrypts several times slower",
        remedy="choose a CPU with AES instructions, or let the hypervisor pass them on",
        otherwise=State.LIMITED,
    )


def _offloads(facts: Capabilities) -> Iterator[Finding]:
    yield _finding(
        "UDP_SEGMENT",
        facts.has_udp_segment,
        lacking="refused by the kernel",
        cost="one system call per datagram sent: a fraction of the rate",
        remedy="Linux 4.18 or newer; some sandboxes filter it",
    )
    yield _finding(
        "UDP_GRO",
        facts.has_udp_gro,
        lacking="datagrams arrive one by one",
        cost="one system call per datagram received: a fraction of the rate",
        remedy="Linux 5.0 or newer; some sandboxes filter it",
    )


def _buffers(facts: Capabilities) -> Iterator[Finding]:
    wanted = WANTED_BUFFER_BYTES
    for option, limit in (("rmem_max", facts.rmem_max_bytes), ("wmem_max", facts.wmem_max_bytes)):
        yield _finding(
            f"net.core.{option}",
            limit is not None and limit >= wanted,
            "unknown" if limit is None else _mib(limit),
            cost="smaller socket buffers for whoever is not root: bursts are lost and sent again",
            remedy=f"sysctl -w net.core.{option}={wanted}; "
            "to keep it, put the same setting into /etc/sysctl.d/60-packetcloud.conf",
            otherwise=State.LIMITED,
        )
    granted = facts.granted_receive_buffer_bytes
    yield _finding(
        "receive buffer granted",
        granted >= wanted,
        _mib(granted),
        cost="a router started like this command gets no more: bursts are lost and sent again",
        remedy="raise net.core.rmem_max, or give it CAP_NET_ADMIN",
        otherwise=State.LIMITED,
    )


def _links(facts: Capabilities) -> Iterator[Finding]:
    found = "root" if facts.is_root else "not root"
    found += ", CAP_NET_ADMIN" if facts.has_net_admin else ", no CAP_NET_ADMIN"
    if facts.can_make_namespaces and not facts.can_make_veth:
        found += "; no veth pairs"
    yield _finding(
        "network namespaces",
        facts.can_make_namespaces and facts.can_make_veth,
        found,
        cost="benchmarks run over loopback instead of over links of their own",
        remedy="run them as root; in a container also with CAP_NET_ADMIN and CAP_SYS_ADMIN",
    )
    yield _finding(
        "link emulator",
        facts.can_make_tun or facts.can_emulate_links,
        _emulators(facts),
        lacking="neither TUN devices nor netem",
        cost="no bench loss, no bench fairness, no packetcloud testbed link",
        remedy="as root: modprobe tun; in a container also give it /dev/net/tun",
    )
    yield _finding(
        "netem",
        facts.can_emulate_links,
        lacking="cannot be set on a link",
        cost="links with delay and loss are made by a process of ours, which takes CPU from the "
        "rest",
        remedy="as root: modprobe sch_netem (Debian's cloud kernels lack it: "
        "linux-image-amd64; Ubuntu: linux-modules-extra-$(uname -r))",
    )
    lacking = [name for name in ("cubic", "bbr") if name not in facts.congestion_controls]
    yield _finding(
        "TCP congestion controls",
        not lacking,
        " ".join(facts.congestion_controls) or "unknown",
        cost=f"benchmarks do not compare with {' and '.join(lacking)}",
        remedy="; ".join(f"modprobe tcp_{name}" for name in lacking),
        otherwise=State.LIMITED,
    )


def _emulators(facts: Capabilities) -> str:
    """Say what `--emulator auto` chooses."""
    if not facts.can_emulate_links:
        return "TUN for everything"
    rest = ", TUN for everything else" if facts.can_make_tun else ""
    return f"netem for rate, delay and loss{rest}"


def _isolation(facts: Capabilities) -> Iterator[Finding]:
    is_installed = facts.lxd == "installed"
    yield _finding(
        "LXD",
        facts.lxd == "running",
        facts.lxd,
        cost="no containers: services run in child processes, no boundary against hostile code",
        remedy="start its server: systemctl start lxd, or snap start lxd; without systemd: "
        "lxd --group root &"
        if is_installed
        else "apt-get install lxd, or snap install lxd; then lxd init --auto",
        otherwise=State.LIMITED if is_installed else State.MISSING,
    )
    yield _finding(
        "control groups",
        facts.cgroups != "absent",
        facts.cgroups,
        cost="nothing limits what a container uses",
        remedy="mount -t cgroup2 none /sys/fs/cgroup, or boot a system that does",
    )
    lacking = [name for name in CGROUP_CONTROLLERS if name not in facts.cgroup_controllers]
    yield _finding(
        "controllers of control groups",
        not lacking,
        ", ".join(sorted(facts.cgroup_controllers)) or "none",
        cost=f"no limit of {', '.join(_LIMITS[name] for name in lacking)} of a VI: it may take "
        "what belongs to its neighbours",
        remedy=f"boot a kernel with {' '.join(f'cgroup_enable={name}' for name in lacking)}",
    )
    yield _finding(
        "system call filter",
        facts.has_seccomp_filter,
        lacking="not in this kernel",
        cost="containers may try every system call of the kernel",
        remedy="a kernel with CONFIG_SECCOMP_FILTER",
    )
    count = facts.container_ids_count
    yield _finding(
        "ids of containers",
        count >= WANTED_CONTAINERS * IDS_OF_A_CONTAINER,
        f"{count}, {count // IDS_OF_A_CONTAINER} containers",
        cost="fewer VIs: each has ids that no other has",
        remedy="in /etc/subuid and /etc/subgid: root:100000:10000001; then restart LXD",
        otherwise=State.LIMITED if count >= IDS_OF_A_CONTAINER else State.MISSING,
    )
    yield _finding(
        "AppArmor",
        facts.has_apparmor,
        "enabled",
        lacking="not enabled",
        cost="containers run without a security profile of the kernel",
        remedy="boot a kernel that has it with: apparmor=1 security=apparmor",
    )


def _peers(facts: Capabilities) -> Iterator[Finding]:
    for command, path in facts.commands.items():
        yield _finding(
            command,
            path is not None,
            path or "",
            lacking="not installed",
            cost=f"benchmarks and tests that use {command} are left out",
            remedy=f"apt-get install {_PACKAGES.get(command, command)}",
        )
    for module, is_there in facts.modules.items():
        yield _finding(
            f"Python module {module}",
            is_there,
            "installed",
            lacking="not installed",
            cost=_MODULE_COSTS[module],
            remedy="pip install 'packetcloud[bench]'",
        )


def _mib(count: int) -> str:
    return f"{count / _MIB:.4g} MiB"
