"""From a wish to LXD's configuration of a container; what the policy does not allow is refused.

Pure. Source: decision 0013; docs/reference/vi-policy.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packetcloud.cloudlet.containers import ContainerWish, LiveConfig, NicAddresses
from packetcloud.cloudlet.errors import NodeRefusedError
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.policy import (
    CONTROL_MTU,
    CPU_PERIOD_MS,
    DATA_MTU,
    EGRESS_MTU,
    EGRESS_NIC,
    ENVIRONMENT_PREFIX,
    FIXED_CONFIG,
    FREE_CONFIG,
    LABEL,
    LABEL_PREFIX,
    LANES_DEVICE,
    LANES_SOURCE,
    VARIABLE,
    WISH_KEY,
    NodeSite,
    is_usable_address,
    lanes_device,
    nic_base,
)

MAX_NAME_CHARS = 50
MAX_SETTINGS_COUNT = 64
"""Labels, and variables of the environment, of one container."""
MAX_VALUE_CHARS = 4096
MAX_SHOWN_CHARS = 80
"""Of a value in a difference: LXD takes values of any length."""
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,48}[a-z0-9])?")
_VALUE = re.compile(rf"[\x20-\x7e]{{0,{MAX_VALUE_CHARS}}}")
_IMAGE = re.compile(r"[0-9a-f]{64}")
_MAX_VCPU = 1024.0
_MAX_MIB = 1 << 30
_MAX_PROCESSES = 1 << 22


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """Configuration and devices as LXD takes them."""

    config: Mapping[str, str]
    devices: Mapping[str, Mapping[str, str]]


def build(wish: ContainerWish, site: NodeSite) -> ContainerConfig:
    """Return the configuration of the container that `wish` describes.

    Raises:
        NodeRefusedError: something in the wish is not allowed; the text names it and says what is.
    """
    for problem in wish_problems(wish):
        raise NodeRefusedError(f"container {wish.name!r}: {problem}")
    if wish.egress is not None and site.egress_bridge is None:
        raise NodeRefusedError(
            f"container {wish.name!r}: no bridge to the IP network at this node; allowed: nodes of "
            "the controller's machine, with [network] egress_device"
        )
    config = dict(FIXED_CONFIG) | limit_config(wish.limits)
    config |= label_config(wish.labels)
    config |= {ENVIRONMENT_PREFIX + name: value for name, value in wish.environment.items()}
    devices = {
        "root": root_device(wish.limits, site),
        "eth0": _nic("eth0", site.data_bridge, wish.data, DATA_MTU),
        "eth1": _nic("eth1", site.control_bridge, wish.control, CONTROL_MTU),
    }
    if wish.egress is not None and site.egress_bridge is not None:
        devices[EGRESS_NIC] = _nic(EGRESS_NIC, site.egress_bridge, wish.egress, EGRESS_MTU)
    if wish.lanes is not None and site.is_here:
        devices[LANES_DEVICE] = lanes_device(wish.lanes)
    return ContainerConfig(config, devices)


def limit_config(limits: Limits) -> dict[str, str]:
    """Return the keys that change with the limits.

    A share of time instead of cores of its own (`limits.cpu`): LXD would pin the container to
    cores that it chooses without knowing of the router's load.

    Raises:
        NodeRefusedError: a limit is not a positive number, or larger than any machine.
    """
    for problem in _limit_problems(limits):
        raise NodeRefusedError(problem)
    quota_ms = max(1, round(limits.vcpu * CPU_PERIOD_MS))
    return {
        "limits.cpu.allowance": f"{quota_ms}ms/{CPU_PERIOD_MS}ms",
        "limits.memory": f"{limits.memory_mib}MiB",
        "limits.processes": str(limits.processes_count),
    }


def root_device(limits: Limits, site: NodeSite) -> dict[str, str]:
    """Return the device of the root file system."""
    device = {
        "type": "disk",
        "path": "/",
        "pool": site.pool,
        "limits.read": f"{limits.disk_read_mib_s}MiB",
        "limits.write": f"{limits.disk_write_mib_s}MiB",
    }
    if site.has_disk_quota:
        device["size"] = f"{limits.disk_mib}MiB"
    return device


def label_config(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the keys of labels. Raises: NodeRefusedError: a name or value is not allowed."""
    for problem in _setting_problems("label", labels, LABEL):
        raise NodeRefusedError(problem)
    keys = {LABEL_PREFIX + name: value for name, value in labels.items()}
    if WISH_KEY in keys:
        raise NodeRefusedError("label 'wish' is the node's own; choose another name")
    return keys


def wish_problems(wish: ContainerWish) -> Iterator[str]:
    """Yield what is not allowed in a wish."""
    if not _NAME.fullmatch(wish.name):
        yield (
            "name: allowed: lower-case letters, digits and '-', a letter first, no '-' last, "
            f"at most {MAX_NAME_CHARS}"
        )
    if not _IMAGE.fullmatch(wish.image):
        yield f"image {wish.image!r}: allowed: a fingerprint of 64 hexadecimal digits"
    yield from _limit_problems(wish.limits)
    yield from _setting_problems("label", wish.labels, LABEL)
    yield from _setting_problems("environment", wish.environment, VARIABLE)
    for nic, addresses in (
        ("data", wish.data),
        ("control", wish.control),
        ("egress", wish.egress),
    ):
        if addresses is None:
            continue
        for address in (addresses.ipv4.ip, addresses.ipv6.ip):
            if not is_usable_address(address):
                yield f"{nic} address {address}: allowed: a unicast address of a host"
    if wish.lanes is not None and not LANES_SOURCE.fullmatch(wish.lanes):
        yield f"lanes {wish.lanes!r}: allowed: a folder like {LANES_SOURCE.pattern}"


def live_differences(live: LiveConfig, wanted: ContainerConfig) -> list[str]:
    """Return where a container is not what was asked for, such as a limit that somebody raised.

    Values of its environment are not shown: its token is among them.
    """
    found = [
        f"{key} is not what it was"
        if key.startswith(ENVIRONMENT_PREFIX)
        else f"{key} is {_shown(live.config.get(key))}, wanted {_shown(value)}"
        for key, value in wanted.config.items()
        if live.config.get(key) != value
    ]
    found += [
        f"{_cut(key)} is set, wanted: not"
        for key in live.config.keys() - wanted.config.keys()
        if key.startswith(ENVIRONMENT_PREFIX)  # of other keys the policy says which may be there
    ]
    names = {*wanted.devices, *({EGRESS_NIC} & live.devices.keys())}
    if LANES_DEVICE not in live.devices:  # made when no folder was known: it does without
        names.discard(LANES_DEVICE)
    for name in sorted(names):
        # Of other devices the policy says which may be there.
        device = wanted.devices.get(name, {})
        is_now = live.devices.get(name, {})
        found += [
            f"device {name}: {key} is {_shown(is_now.get(key))}, wanted {_shown(device.get(key))}"
            for key in is_now.keys() | device.keys()
            if is_now.get(key) != device.get(key)
        ]
    return sorted(found)


def restored_config(config: Mapping[str, str], wanted: ContainerConfig) -> dict[str, str]:
    """Return what a container's configuration is to be that should be as it was asked for.

    Args:
        config: its own now; what LXD wrote down for itself stays, and so do labels.
    """
    kept = {
        key: value
        for key, value in config.items()
        if key == WISH_KEY or any(pattern.fullmatch(key) for pattern in FREE_CONFIG)
    }
    return {
        key: value for key, value in kept.items() if not key.startswith(ENVIRONMENT_PREFIX)
    } | dict(wanted.config)


def _nic(name: str, bridge: str, addresses: NicAddresses, mtu: int) -> dict[str, str]:
    return {
        **nic_base(name, bridge, mtu),
        "ipv4.address": str(addresses.ipv4.ip),
        "ipv6.address": str(addresses.ipv6.ip),
    }


def _shown(value: str | None) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


def _limit_problems(limits: Limits) -> Iterator[str]:
    # Written so that NaN, which compares false with everything, is refused too.
    if not 0 < limits.vcpu <= _MAX_VCPU:
        yield f"vcpu = {limits.vcpu!r}: allowed: more than 0, at most {_MAX_VCPU:g}"
    bounds = {
        "memory_mib": _MAX_MIB,
        "disk_mib": _MAX_MIB,
        "disk_read_mib_s": _MAX_MIB,
        "disk_write_mib_s": _MAX_MIB,
        "processes_count": _MAX_PROCESSES,
    }
    for name, largest in bounds.items():
        value = getattr(limits, name)
        if type(value) is not int or not 1 <= value <= largest:
            yield f"{name} = {value!r}: allowed: a whole number from 1 to {largest}"


def _setting_problems(
    kind: str, settings: Mapping[str, str], pattern: re.Pattern[str]
) -> Iterator[str]:
    if len(settings) > MAX_SETTINGS_COUNT:
        yield f"{kind}: {len(settings)} settings; allowed: {MAX_SETTINGS_COUNT}"
    for name, value in settings.items():
        if not pattern.fullmatch(name):
            yield f"{kind} {name!r}: allowed: names like {pattern.pattern}"
        elif not _VALUE.fullmatch(value):
            yield f"{kind} {name}: allowed: printable ASCII, at most {MAX_VALUE_CHARS} characters"
