"""What a container of ours may be, and the check of LXD's live configuration against it.

A list of what is allowed: whatever is not in it is a violation, also what LXD invents later. The
check looks at the expanded configuration, so that what comes in by a profile or by another hand
counts as well. Pure. Source: decision 0013; docs/reference/vi-policy.md.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from packetcloud.cloudlet.containers import LiveConfig

DATA_MTU = 16384
"""The most that LXD lets a NIC have. One datagram of a chunk's row is larger than on a wire."""
CONTROL_MTU = 1500
EGRESS_NIC = "eth2"
EGRESS_MTU = 1500
LANES_DEVICE = "lanes"
LANES_IN_VI = "/run/packetcloud/lanes"
"""Where a VI finds folders of routers that share memory with it."""
LANES_FOLDER = re.compile(r"(?:/(?!\.\.?/)[A-Za-z0-9._-]+)*/packetcloud-[0-9]+/lanes")
"""Where those are on the node."""
LANES_SOURCE = re.compile(LANES_FOLDER.pattern + r"/[0-9a-f]{16}")
LABEL_PREFIX = "user.packetcloud."
ENVIRONMENT_PREFIX = "environment."
WISH_KEY = LABEL_PREFIX + "wish"
"""Digest of the wish that a container was made of; not a label that a wish may set."""

LABEL = re.compile(r"[a-z][a-z0-9-]{0,62}")
VARIABLE = re.compile(r"PACKETCLOUD_[A-Z0-9_]{1,50}")
CPU_PERIOD_MS = 100
HOST_IDS_COUNT = 1 << 16
"""Users of the host have ids below this."""

_NEW_USER_NAMESPACE = 0x10000000
_NOT_PERMITTED = (
    *("acct", "bpf", "fanotify_init", "ioperm", "iopl", "kcmp", "perf_event_open", "quotactl"),
    *("process_vm_readv", "process_vm_writev", "ptrace", "swapoff", "swapon", "syslog"),
    *("userfaultfd", "setns", "unshare"),
    *("fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount"),
    *("open_tree", "pivot_root", "umount2"),
)
_NOT_THERE = (
    *("add_key", "keyctl", "request_key"),
    *("io_uring_enter", "io_uring_register", "io_uring_setup"),
    "clone3",  # its flags lie in memory, where no filter sees them; libraries fall back to clone
)
DENIED_SYSTEM_CALLS = "\n".join(
    [
        *(f"{name} errno 1" for name in _NOT_PERMITTED),
        *(f"{name} errno 38" for name in _NOT_THERE),
        f"clone errno 1 [0,{_NEW_USER_NAMESPACE},SCMP_CMP_MASKED_EQ,{_NEW_USER_NAMESPACE}]",
    ]
)
"""Besides LXD's own list. Tried without it, on a kernel without AppArmor: root of a container could
mount proc, sysfs and cgroup2 anew, and every user make user namespaces, rings of system calls and
keys, where most of the kernel's escapes begin. Nothing that runs a service needs them."""

FIXED_CONFIG: Mapping[str, str] = {
    "boot.autostart": "false",  # who runs is the controller's to say, not LXD's after a reboot
    "limits.kernel.core": "0:0",  # a core file would hold the service's keys
    "limits.memory.enforce": "hard",
    "limits.memory.swap": "false",
    "security.devlxd": "false",
    "security.idmap.isolated": "true",
    "security.nesting": "false",
    "security.privileged": "false",
    "security.syscalls.deny": DENIED_SYSTEM_CALLS,
    "security.syscalls.deny_compat": "true",
    "security.syscalls.deny_default": "true",
}
"""Every container has exactly these, also where LXD's default is the same."""
LIMIT_CONFIG: Mapping[str, re.Pattern[str]] = {
    "limits.cpu.allowance": re.compile(rf"[1-9][0-9]*ms/{CPU_PERIOD_MS}ms"),
    "limits.memory": re.compile(r"[1-9][0-9]*MiB"),
    "limits.processes": re.compile(r"[1-9][0-9]*"),
}
"""Every container has each of these."""
FREE_CONFIG = (
    re.compile(re.escape(LABEL_PREFIX) + LABEL.pattern),
    re.compile(re.escape(ENVIRONMENT_PREFIX) + VARIABLE.pattern),
    re.compile(r"image\.[a-z][a-z0-9_.-]*"),
    # What LXD writes down for itself. A container's map of ids is checked by isolation above.
    re.compile(r"volatile\.(?:base_image|uuid|apply_quota|apply_template|evacuate\.origin)"),
    re.compile(r"volatile\.(?:uuid\.generation|cloud-init\.instance-id)"),
    re.compile(r"volatile\.idmap\.(?:base|current|next)"),
    re.compile(r"volatile\.last_state\.(?:idmap|power|ready)"),
    re.compile(r"volatile\.eth[012]\.(?:host_name|hwaddr|name|last_state\.[a-z.]+)"),
)
"""A container may have these."""
_MIB_TEXT = re.compile(r"[1-9][0-9]*MiB")


@dataclass(frozen=True, slots=True)
class NodeSite:
    """Where containers of one node lie: set by the operator, the same for all of them."""

    pool: str
    data_bridge: str
    control_bridge: str
    has_disk_quota: bool = True
    """Whether the pool can hold a root to its size; LXD's `dir` cannot."""
    io_per_s: int = 0
    """Reads and writes that VIs may reserve of it."""
    egress_bridge: str | None = None
    """Of VIs that are granted a way to the IP network; None: nobody here has one."""
    is_here: bool = False
    """Whether it is the router's machine, and its VIs may share memory with that."""


def live_violations(live: LiveConfig, site: NodeSite) -> list[str]:
    """Return what a container has that it may not have, or lacks that it must have; empty: fine."""
    return sorted(
        [*_whole(live), *_config_violations(live.config), *_device_violations(live.devices, site)]
    )


def shared_id_maps(lives: Mapping[str, LiveConfig]) -> dict[str, tuple[str, ...]]:
    """Return which containers of one node share user ids with others; by name, those that do.

    An isolated map is one that no other container has. LXD gives it out; it has been seen to give
    the same one twice, and one that begins among the ids of the host.
    """
    found: dict[str, tuple[str, ...]] = {}
    ranges: list[tuple[int, int, str]] = []
    for name, live in lives.items():
        try:
            ranges += [(first, end, name) for first, end in _ids_of_users(live)]
        except (KeyError, TypeError, ValueError):  # whoever may change it may write anything
            found[name] = ("its map of ids cannot be read",)
    ranges.sort()
    for first, _, name in ranges:
        if first < HOST_IDS_COUNT:
            found[name] = (*found.get(name, ()), f"its ids from {first} are the host's")
    for (_, end, name), (first, _, other) in itertools.pairwise(ranges):
        if first < end and name != other:
            for one, sharer in ((name, other), (other, name)):
                text = f"it shares ids from {first} with {sharer}"
                found[one] = (*found.get(one, ()), text)
    return found


def _ids_of_users(live: LiveConfig) -> list[tuple[int, int]]:
    """Return first and end of each range. Raises KeyError, TypeError, ValueError: it is no map."""
    entries: list[dict[str, Any]] = json.loads(live.config.get("volatile.idmap.next", "[]"))
    return [
        (int(one["Hostid"]), int(one["Hostid"]) + int(one["Maprange"]))
        for one in entries
        if one["Isuid"]
    ]


def _whole(live: LiveConfig) -> Iterator[str]:
    if live.kind != "container":
        yield f"it is a {live.kind}; allowed: container"
    if live.profiles:
        yield f"profiles {', '.join(live.profiles)}; allowed: none"
    if live.is_ephemeral:
        yield "it is ephemeral; allowed: not"


def _config_violations(config: Mapping[str, str]) -> Iterator[str]:
    for key, wanted in FIXED_CONFIG.items():
        if config.get(key) != wanted:
            yield f"{key} is {config.get(key)!r}; allowed: {wanted!r}"
    for key, pattern in LIMIT_CONFIG.items():
        if not pattern.fullmatch(config.get(key, "")):
            yield f"{key} is {config.get(key)!r}; allowed: {pattern.pattern}"
    for key in config.keys() - FIXED_CONFIG.keys() - LIMIT_CONFIG.keys():
        if not any(pattern.fullmatch(key) for pattern in FREE_CONFIG):
            yield f"{key} is set; allowed: not"


def _device_violations(devices: Mapping[str, Mapping[str, str]], site: NodeSite) -> Iterator[str]:
    expected = {
        "root": _root_rules(site),
        "eth0": _nic_rules("eth0", site.data_bridge, DATA_MTU),
        "eth1": _nic_rules("eth1", site.control_bridge, CONTROL_MTU),
    }
    if site.egress_bridge is not None and EGRESS_NIC in devices:
        # Who has one to have it is the wish's to say: `live_differences`.
        expected[EGRESS_NIC] = _nic_rules(EGRESS_NIC, site.egress_bridge, EGRESS_MTU)
    if site.is_here and LANES_DEVICE in devices:
        expected[LANES_DEVICE] = _lanes_rules(devices[LANES_DEVICE].get("source", ""))
    for name in sorted(devices.keys() - expected.keys()):
        yield f"device {name} ({devices[name].get('type')}); allowed: {', '.join(expected)}"
    for name, rules in expected.items():
        device = devices.get(name)
        if device is None:
            yield f"no device {name}"
            continue
        for key in sorted(device.keys() - rules.keys()):
            yield f"device {name}: {key} is set; allowed: not"
        for key, rule in rules.items():
            value = device.get(key)
            if value is None or not _fulfils(value, rule):
                allowed = rule.pattern if isinstance(rule, re.Pattern) else _allowed_text(rule)
                yield f"device {name}: {key} is {value!r}; allowed: {allowed}"


def nic_base(name: str, bridge: str, mtu: int) -> dict[str, str]:
    """Return what every NIC of this name has; its addresses are its own."""
    return {
        "type": "nic",
        "name": name,
        "nictype": "bridged",
        "parent": bridge,
        "mtu": str(mtu),
        "security.mac_filtering": "true",
        "security.ipv4_filtering": "true",
        "security.ipv6_filtering": "true",
        "security.port_isolation": "true",
    }


def lanes_device(folder: str) -> dict[str, str]:
    """Return the device by which a container sees the folder of a router that shares memory.

    A container without it starts as well, also where the folder is gone.
    """
    return {
        "type": "disk",
        "source": folder,
        "path": f"{LANES_IN_VI}/{folder.rsplit('/', 1)[-1]}",
        "readonly": "true",
        "required": "false",
    }


_Rule = str | re.Pattern[str] | type[IPv4Address] | type[IPv6Address]


def _root_rules(site: NodeSite) -> dict[str, _Rule]:
    rules: dict[str, _Rule] = {"type": "disk", "path": "/", "pool": site.pool}
    rules |= {"limits.read": _MIB_TEXT, "limits.write": _MIB_TEXT}
    return rules | ({"size": _MIB_TEXT} if site.has_disk_quota else {})


def _lanes_rules(source: str) -> dict[str, _Rule]:
    return {**lanes_device(source), "source": LANES_SOURCE}


def _nic_rules(name: str, bridge: str, mtu: int) -> dict[str, _Rule]:
    return {
        **nic_base(name, bridge, mtu),
        "ipv4.address": IPv4Address,
        "ipv6.address": IPv6Address,
    }


def _fulfils(value: str, rule: _Rule) -> bool:
    if isinstance(rule, str):
        return value == rule
    if isinstance(rule, re.Pattern):
        return rule.fullmatch(value) is not None
    try:
        return is_usable_address(rule(value))
    except ValueError:
        return False


def _allowed_text(rule: str | type[IPv4Address] | type[IPv6Address]) -> str:
    if isinstance(rule, str):
        return repr(rule)
    return "one IPv4 address" if rule is IPv4Address else "one IPv6 address"


def is_usable_address(address: IPv4Address | IPv6Address) -> bool:
    """LXD takes a zone (fe80::1%eth0) for part of an address; addresses of ours have none."""
    return not (
        address.is_multicast
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or (isinstance(address, IPv6Address) and address.scope_id is not None)
        or address == IPv4Address("255.255.255.255")
    )
