"""Containers to ask for, and how LXD would show them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

from packetcloud.cloudlet.container_config import ContainerConfig
from packetcloud.cloudlet.containers import ContainerWish, LiveConfig, NicAddresses
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.policy import NodeSite

SITE = NodeSite("pool", "pc-data", "pc-control")
LIMITS = Limits(0.5, 128, 256, 50, 25, 64)
IMAGE = "ab" * 32

WISH = ContainerWish(
    name="vi-1",
    image=IMAGE,
    limits=LIMITS,
    data=NicAddresses(IPv4Interface("198.18.8.9/24"), IPv6Interface("fd00:1::9/64")),
    control=NicAddresses(IPv4Interface("198.18.9.9/24"), IPv6Interface("fd00:2::9/64")),
    labels={"vi": "1"},
    environment={"PACKETCLOUD_TOKEN": "secret"},
)


def wish(**changes: Any) -> ContainerWish:
    return replace(WISH, **changes)


def as_live(built: ContainerConfig) -> LiveConfig:
    """Add what LXD itself writes into a container's configuration."""
    own = {
        "image.description": "a service",
        "image.serial": "1",
        "volatile.base_image": IMAGE,
        "volatile.cloud-init.instance-id": "3d4ef051-5274-4d09-8f66-f6ae5011b081",
        "volatile.eth0.host_name": "veth023f32ca",
        "volatile.eth0.hwaddr": "00:16:3e:33:5f:50",
        "volatile.eth0.name": "eth0",
        "volatile.eth1.host_name": "vethaa3d9ef8",
        "volatile.idmap.base": "165536",
        "volatile.idmap.current": "[]",
        "volatile.idmap.next": "[]",
        "volatile.last_state.idmap": "[]",
        "volatile.last_state.power": "RUNNING",
        "volatile.uuid": "38f0b276-9178-4b5c-92b5-8f1c2fcb9580",
        "user.packetcloud.wish": "cd" * 32,
    }
    return LiveConfig((), own | dict(built.config), built.devices)
