"""Containers of compute nodes as the rest of the cloudlet sees them: frozen values, one interface.

`NodeAdapter` is what a compute node can be asked. `lxd` asks LXD, the testbed's `fake_lxd` plays
one in memory; one contract test holds for both. Nothing else of the project knows of LXD.
Source: docs/decisions/0013-cloudlet.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Protocol

from packetcloud.cloudlet.limits import Limits

MAX_LOG_BYTES = 64 << 10
"""What `logs` returns at most: the end of what the container wrote to its console."""


class ContainerState(StrEnum):
    """What a container does, as its node says."""

    STOPPED = "stopped"
    RUNNING = "running"
    CHANGING = "changing"
    """Starting, stopping, freezing: look again soon."""
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class NicAddresses:
    """The addresses of one network interface, with their networks; it may use no others."""

    ipv4: IPv4Interface
    ipv6: IPv6Interface


@dataclass(frozen=True, slots=True)
class ContainerWish:
    """A container to be made. Equal wishes make equal containers."""

    name: str
    """Lower-case letters, digits and '-', at most 50, begins with a letter; unique on its machine,
    other LXD servers there included."""
    image: str
    """Fingerprint of an image that the node has."""
    limits: Limits
    data: NicAddresses
    """eth0: towards the router."""
    control: NicAddresses
    """eth1: towards the controller."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Kept with the container, for the controller's eyes. Names like `vi-id`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its init finds in its environment. Names begin with PACKETCLOUD_. Whoever may read the
    node's configuration reads it: no keys here."""
    egress: NicAddresses | None = None
    """eth2: towards the IP network; None: it has none."""
    lanes: str | None = None
    """Folder of the node in which the router hands out memory to share; None: none is known. It
    may be another one for an equal container."""


@dataclass(frozen=True, slots=True)
class LiveConfig:
    """The configuration that really applies to a container: its own and all that it inherits."""

    profiles: tuple[str, ...]
    config: Mapping[str, str]
    devices: Mapping[str, Mapping[str, str]]
    kind: str = "container"
    is_ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """What a node says of one of our containers."""

    name: str
    state: ContainerState
    image: str
    labels: Mapping[str, str]
    """Those of the wish that made it, and of `NodeAdapter.label` since."""
    live: LiveConfig


@dataclass(frozen=True, slots=True)
class NicUsage:
    """Bytes and packets since the container started, in and out as the container sees it."""

    in_bytes: int
    out_bytes: int
    in_packets: int
    out_packets: int


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What a container used since it started, and uses now."""

    cpu_s: float
    memory_bytes: int
    memory_peak_bytes: int
    disk_bytes: int | None
    """None where the node's pool does not count."""
    processes_count: int
    nics: Mapping[str, NicUsage]


@dataclass(frozen=True, slots=True)
class Protection:
    """One protection of the node's kernel or LXD, and whether it is in force."""

    name: str
    is_active: bool
    cost: str = ""
    """What is lost while it is not; empty when it is."""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node has and uses, as its LXD measures it."""

    name: str
    server_version: str
    cores_count: int
    memory_bytes: int
    memory_used_bytes: int
    """Of the whole machine, not of our containers alone."""
    pool: str
    disk_bytes: int
    disk_used_bytes: int
    has_disk_quota: bool
    protections: tuple[Protection, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """An image on this machine, ready to be imported."""

    fingerprint: str
    """SHA-256 over the files as they are, one after the other: how nodes name it."""
    description: str
    files: tuple[Path, ...]
    """One tarball of everything, or metadata and root file system."""


class NodeAdapter(Protocol):
    """One compute node.

    Every method may be repeated after an unknown outcome. Every error is a `NodeError`:
    `NodeUnreachableError` when the outcome is not known, else what the method's docstring names,
    and `NodeRefusedError` for whatever else the node says.
    """

    name: str

    async def describe(self) -> NodeFacts:
        """Return what the node has."""

    async def containers(self) -> list[ContainerFacts]:
        """Return the containers of our project on this node, by name: also those that somebody
        made who is not us, or whose labels somebody took away."""

    async def create(self, wish: ContainerWish) -> None:
        """Make a container, stopped. One that an earlier call made of the same wish is right too.

        Raises:
            ContainerExistsError: one of this name was made of another wish.
            NoRoomError: no disk space for it.
            NodeRefusedError: the wish breaks the policy, or its image is not there.
        """

    async def start(self, name: str) -> None:
        """Start a container; one that runs is right too.

        Raises: ContainerMissingError, NoRoomError.
        """

    async def stop(self, name: str, timeout_s: float) -> None:
        """Ask its init to end, then kill what is left after `timeout_s`; a stopped one is right.

        Raises:
            ContainerMissingError: there is none.
        """

    async def kill(self, name: str) -> None:
        """End every process of a container at once; a stopped one is right too.

        Raises:
            ContainerMissingError: there is none.
        """

    async def delete(self, name: str) -> None:
        """End and remove a container and its disk; one that is not there is right too."""

    async def resize(self, name: str, limits: Limits) -> None:
        """Change the limits of a container, running or not, in one step.

        Raises:
            ContainerMissingError: there is none.
            NoRoomError: it uses more than this, or the pool has no more.
        """

    async def restore(self, name: str, wish: ContainerWish) -> None:
        """Give a container, running or not, the configuration that `wish` would make it with.

        What somebody added is taken away; further labels stay. Which image it is made of does not
        change.

        Raises:
            ContainerMissingError: there is none.
            NoRoomError: it uses more than its limits.
            NodeRefusedError: it cannot be changed so while it runs, or the wish breaks the policy.
        """

    async def label(self, name: str, labels: Mapping[str, str]) -> None:
        """Set these labels of a container, leaving its others. Raises: ContainerMissingError."""

    async def read(self, name: str) -> ContainerFacts:
        """Return one container's facts as they are now. Raises: ContainerMissingError."""

    async def usage(self, name: str) -> ContainerUsage:
        """Return what a container uses; zeros for a stopped one. Raises: ContainerMissingError."""

    async def logs(self, name: str) -> str:
        """Return the end of its console, at most `MAX_LOG_BYTES`. Raises: ContainerMissingError."""

    async def has_image(self, fingerprint: str) -> bool:
        """Tell whether containers can be made of this image here."""

    async def import_image(self, image: ImageFiles) -> None:
        """Take an image; one that is there is right too. Raises: NoRoomError."""

    async def remove_image(self, fingerprint: str) -> None:
        """Remove an image, if it is there; containers made of it stay."""

    async def close(self) -> None:
        """Let go of the node; calls that wait are over with NodeUnreachableError."""
