"""What may come from the two bridges, as tables of nftables. Pure: a plan in, text out.

LXD's filters hold each NIC to its own addresses and to IP, and isolated ports do not reach each
other. These tables add where a VI may send to: on the data bridge the router's UDP port, on the
control bridge the controller's TCP port, and the questions for their hardware addresses. Nothing
else, neither to this machine nor through it.

What is for this machine is stopped before it is routed, in family `inet`, by the bridge that it
came in by; family `bridge` knows the bridge of a frame only on some kernels. What passes an uplink
is stopped there by the uplink's name. From a port behind which another node is nothing is bridged
on, and nothing to it: its VIs speak with this machine, as those here do. What comes out of a tunnel
comes from the machines at its other ends.
Source: decision 0013, "Two bridges, two NICs".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from packetcloud.cloudlet.addresses import Subnet
from packetcloud.cloudlet.egress_filters import EgressPlan, egress_chains, egress_sets
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.tunnels import Tunnel

HOST_FAMILY = "inet"
UPLINK_FAMILY = "bridge"
FAMILIES = (HOST_FAMILY, UPLINK_FAMILY)
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,30}")
_TCP_IPV6_BYTES = 60
"""Headers of TCP and IPv6 without options; a segment's size does not count options."""
_RAW = -300
"""Before the kernel keeps track of connections: what is dropped fills no table of it."""


class Transport(StrEnum):
    UDP = "udp"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class BridgePlan:
    """One bridge, and the only one that VIs on it may speak with."""

    name: str
    subnet: Subnet
    mtu: int
    transport: Transport
    peer_ipv4: IPv4Address
    peer_ipv6: IPv6Address
    peer_port: int
    uplink: str | None = None
    """A device of this machine that is made a port of the bridge, behind which the peer is. None:
    the peer is this machine, and its addresses are the bridge's."""
    ports: tuple[str, ...] = ()
    """Devices of this machine that are made ports of the bridge, behind which other nodes are."""
    tunnel: Tunnel | None = None
    """Makes the uplink, or the one port that is no device of the operator's."""

    def __post_init__(self) -> None:
        for device in (self.name, self.uplink or self.name, *self.ports):
            if not _DEVICE.fullmatch(device):
                raise CloudletConfigError(
                    f"device {device!r}: allowed: letters, digits, '_', '.', '-', at most 15"
                )
        if self.peer_ipv4 not in self.subnet.ipv4 or self.peer_ipv6 not in self.subnet.ipv6:
            raise CloudletConfigError(
                f"bridge {self.name}: {self.peer_ipv4} and {self.peer_ipv6} must be in "
                f"{self.subnet.ipv4} and {self.subnet.ipv6}"
            )
        if not 1 <= self.peer_port <= 65535:
            raise CloudletConfigError(
                f"bridge {self.name}: port {self.peer_port}; allowed: 1 to 65535"
            )


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """Both bridges of a node and the tables that filter them."""

    data: BridgePlan
    control: BridgePlan
    table: str = "packetcloud"
    """Name of the tables; a second cloudlet on one machine needs another."""
    egress: EgressPlan | None = None
    """The bridge to the IP network; None: nobody is granted a way there."""

    def __post_init__(self) -> None:
        if not _TABLE.fullmatch(self.table):
            raise CloudletConfigError(
                f"table {self.table!r}: allowed: lower-case letters, digits, '_', at most 31"
            )
        names = [self.data.name, self.control.name, *([self.egress.name] if self.egress else [])]
        if len(set(names)) != len(names):
            raise CloudletConfigError("data and control need a bridge each, and so does egress")


def table_script(plan: NetworkPlan, *, closed_transit: Collection[int] = ()) -> str:
    """Return what `nft -f -` takes: both tables, in place of older ones, in one step.

    Args:
        closed_transit: see `egress_chains`.
    """
    bridges = {"data": plan.data, "control": plan.control}
    lines = [removal_script(plan.table), f"table {HOST_FAMILY} {plan.table} {{"]
    egress = plan.egress
    names = [one.name for one in bridges.values()]
    lines += egress_sets(egress) if egress is not None else []
    lines += ["  chain from_bridges {"]
    lines += [f"    type filter hook prerouting priority {_RAW}; policy accept;"]
    if egress is not None:
        # Egress makes the kernel keep track of connections; those of the data plane are none.
        lines += [f'    iifname {{ "{names[0]}", "{names[1]}" }} notrack']
        lines += [f'    iifname "{egress.name}" goto egress']
    lines += [f'    iifname "{one.name}" goto {role}' for role, one in bridges.items()]
    lines += ["  }"]
    for role, bridge in bridges.items():
        # Behind an uplink this machine is nobody's peer, but where br_netfilter is on, frames that
        # are only bridged come by here as well.
        rules = [] if bridge.uplink is None else _from_peer(bridge)
        lines += _chain(role, [*_to_peer(bridge), *rules])
    if egress is not None:
        lines += egress_chains(egress, names, closed_transit=closed_transit)
    tunnels = [one.tunnel for one in bridges.values() if one.tunnel is not None]
    if tunnels:
        lines += ["  chain into_tunnels {"]
        lines += [f"    type filter hook input priority {_RAW}; policy accept;"]
        lines += [f"    {rule} counter drop" for rule in dict.fromkeys(map(_strangers, tunnels))]
        lines += ["  }"]
    lines += ["}"]
    uplinks = {role: one for role, one in bridges.items() if one.uplink is not None}
    ports = [port for one in bridges.values() for port in one.ports]
    if uplinks or ports:
        lines += [f"table {UPLINK_FAMILY} {plan.table} {{", "  chain over_uplinks {"]
        lines += ["    type filter hook forward priority 10; policy accept;"]
        for port in ports:
            lines += [f'    oifname "{port}" counter drop', f'    iifname "{port}" counter drop']
        for role, bridge in uplinks.items():
            lines += [f'    oifname "{bridge.uplink}" goto {role}_out']
            lines += [f'    iifname "{bridge.uplink}" goto {role}_in']
        lines += ["  }"]
        for role, bridge in uplinks.items():
            question = f"arp daddr ip {bridge.peer_ipv4}"
            lines += _chain(f"{role}_out", [question, *_to_peer(bridge)], _clamp(bridge))
            answer = f"arp saddr ip {bridge.peer_ipv4}"
            lines += _chain(f"{role}_in", [answer, *_from_peer(bridge)], _clamp(bridge))
        lines += ["}"]
    return "\n".join(lines) + "\n"


def removal_script(table: str) -> str:
    """Return what removes both tables, whether they are there or not."""
    return "\n".join(
        line
        for family in FAMILIES
        for line in (f"table {family} {table}", f"delete table {family} {table}")
    )


def _strangers(tunnel: Tunnel) -> str:
    """Return what is true of a datagram to a tunnel that is not of its other ends."""
    family = "ip" if tunnel.local.version == 4 else "ip6"
    remotes = ", ".join(map(str, tunnel.remotes))
    return f"{family} saddr != {{ {remotes} }} udp dport {tunnel.port}"


def _clamp(bridge: BridgePlan) -> list[str]:
    """Return what keeps TCP to the size of a tunnel.

    What the kernel says of packets that are too large would have to pass the filters; then a VI
    could say it of others.
    """
    if bridge.tunnel is None or bridge.transport is not Transport.TCP:
        return []
    size = bridge.tunnel.mtu - _TCP_IPV6_BYTES
    return [f"    tcp flags syn tcp option maxseg size set {size}"]


def _chain(name: str, rules: list[str], before: Iterable[str] = ()) -> list[str]:
    accepted = [f"    {rule} counter accept" for rule in rules]
    return [f"  chain {name} {{", *before, *accepted, "    counter drop", "  }"]


def _to_peer(bridge: BridgePlan) -> list[str]:
    ipv4, ipv6 = bridge.peer_ipv4, bridge.peer_ipv6
    service = f"{bridge.transport} dport {bridge.peer_port}"
    return [
        f"ip daddr {ipv4} {service}",
        f"ip6 daddr {ipv6} {service}",
        # Who asks names the peer as the target: 16 bytes behind both headers (RFC 4861, 4.3), said
        # as an offset because nft knows the name only from 1.0.8 on.
        f"ip6 nexthdr icmpv6 icmpv6 type nd-neighbor-solicit @nh,384,128 0x{int(ipv6):032x}",
        f"ip6 daddr {ipv6} icmpv6 type nd-neighbor-advert",
    ]


def _from_peer(bridge: BridgePlan) -> list[str]:
    ipv4, ipv6 = bridge.peer_ipv4, bridge.peer_ipv6
    service = f"{bridge.transport} sport {bridge.peer_port}"
    return [
        f"ip saddr {ipv4} {service}",
        f"ip6 saddr {ipv6} {service}",
        f"ip6 saddr {ipv6} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }}",
    ]
