"""How the bridges of nodes on other machines are joined with those of the controller's. Pure.

A tunnel is a VXLAN device, a port of a bridge at either end: at the controller's machine one for
all nodes, at each of these one towards the controller's. It neither seals nor proves anything: the
network between the machines is the operator's own. Source: docs/how-to/add-a-node.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from packetcloud.cloudlet.errors import CloudletConfigError

Address = IPv4Address | IPv6Address
_OF_NAME_CHARS = 12
"""Of the bridge's name, in that of its tunnel: a device's name has 15 at most."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One VXLAN device."""

    device: str
    number: int
    """Its VXLAN network identifier: the same at both ends, another for the other bridge."""
    port: int
    """UDP, at both ends."""
    mtu: int
    local: Address
    """Of this machine."""
    remotes: tuple[Address, ...]
    """Of the others."""

    def __post_init__(self) -> None:
        for remote in self.remotes:
            if remote.version != self.local.version or remote == self.local:
                raise CloudletConfigError(
                    f"tunnel from {self.local} to {remote}: allowed: two addresses of the same "
                    "kind, of two machines"
                )
        if len(set(self.remotes)) != len(self.remotes):
            raise CloudletConfigError(
                f"tunnel from {self.local}: two nodes at the same address; allowed: one each"
            )


@dataclass(frozen=True, slots=True)
class TunnelWish:
    """The tunnels of both bridges at one machine."""

    local: Address
    remotes: tuple[Address, ...]
    port: int
    number: int
    """Of the data bridges' tunnel; the control bridges' has the next one."""
    mtu: int

    def of(self, bridge: str, place: int) -> Tunnel:
        """Return the tunnel of a bridge; `place` 0: data, 1: control."""
        device = f"{bridge[:_OF_NAME_CHARS]}-vx"
        return Tunnel(device, self.number + place, self.port, self.mtu, self.local, self.remotes)
