"""Which protections of kernel and LXD are in force on a node, from what LXD says of itself. Pure.

Said instead of assumed: an operator must see that AppArmor is missing before a tenant does.
Source: docs/reference/compute-nodes.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from packetcloud.cloudlet.containers import Protection
from packetcloud.cloudlet.lxd.project import project_gaps

POOLS_WITH_QUOTA = frozenset({"btrfs", "ceph", "cephfs", "lvm", "zfs"})
_IDS_OF_A_CONTAINER = 65536


def find_protections(
    server: Mapping[str, Any],
    project: Mapping[str, str],
    warnings: list[Mapping[str, Any]],
    driver: str,
) -> tuple[Protection, ...]:
    """Judge the answers of /1.0, of project and warnings, and the driver of the pool."""
    return tuple(_judge(server, project, warnings, driver))


def _judge(
    server: Mapping[str, Any],
    project: Mapping[str, str],
    warnings: list[Mapping[str, Any]],
    driver: str,
) -> Iterator[Protection]:
    environment = server["environment"]
    kernel = environment.get("kernel_features") or {}
    lacking = {warning["type"] for warning in warnings if warning.get("status") != "resolved"}

    def lacks(words: str) -> bool:
        return any(words.lower() in text.lower() for text in lacking)

    yield _protection(
        "system call filter",
        kernel.get("seccomp_listener") == "true",
        "containers may try every system call of the kernel",
        "a kernel with CONFIG_SECCOMP_FILTER",
    )
    yield _protection(
        "AppArmor",
        not lacks("AppArmor support"),
        "no profile of the kernel behind the user namespace",
        "boot a kernel that has it with: apparmor=1 security=apparmor",
    )
    yield _protection(
        "isolated maps of ids",
        not lacks("idmap"),
        "two containers may share user ids, and with them the limits that count by user",
        f"in /etc/subuid and /etc/subgid: root:100000:{_IDS_OF_A_CONTAINER * 1000}",
    )
    yield _protection(
        "maps of ids at mount time",
        kernel.get("idmapped_mounts") == "true",
        "the first start of a container takes longer: its files get other owners one by one",
        "Linux 5.15 or newer",
    )
    yield from _limits(lacks)
    yield _protection(
        "filters of the NICs",
        environment.get("firewall") == "nftables",
        "MAC and address filters by xtables, which other programs may flush",
        "apt-get install nftables, then restart LXD",
    )
    gaps = project_gaps(project)
    yield _protection(
        "restrictions of the project",
        not gaps,
        f"LXD itself would take: {', '.join(gaps)}",
        "nothing by hand: the controller sets them when it starts",
    )
    yield _protection(
        "quota of the root",
        driver in POOLS_WITH_QUOTA,
        "a VI that writes without end fills the node's pool",
        "a pool of btrfs, zfs or lvm instead of dir",
    )


def _limits(lacks: Any) -> Iterator[Protection]:
    for name, words in (
        ("limit of memory", "CGroup memory controller"),
        ("limit of memory with swap", "CGroup memory swap"),
        ("limit of processes", "CGroup pids controller"),
        ("share of time", "CGroup CPU controller"),
        ("limits of disk I/O", "CGroup blkio"),
    ):
        # blkio.weight is the priority between containers, which we do not use.
        is_missing = lacks(words + ".throttle") if "blkio" in words else lacks(words)
        yield _protection(
            name,
            not is_missing,
            "LXD cannot enforce it: one VI may take what belongs to its neighbours",
            "boot a kernel with this cgroup controller on",
        )


def _protection(name: str, is_active: bool, cost: str, remedy: str) -> Protection:
    return Protection(name, is_active) if is_active else Protection(name, False, cost, remedy)
