"""Tunnels as devices of this machine. Calls block. Needs CAP_NET_ADMIN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyroute2 import IPRoute

from packetcloud.cloudlet.tunnels import Tunnel

_ANYBODY = "00:00:00:00:00:00"
"""The entry of a forwarding table for what no other entry is about."""
_PERMANENT = 0x80
"""NUD_PERMANENT: it does not age."""
_OF_DEVICE = 0x02
"""NTF_SELF: of the tunnel's own table, not of the bridge's."""


def make_tunnel(netlink: IPRoute, tunnel: Tunnel) -> None:
    """Make a tunnel, or make it anew where it is not as it should be."""
    if any(tunnel_problems(netlink, tunnel)):
        remove_tunnel(netlink, tunnel)
        family = "vxlan_local" if tunnel.local.version == 4 else "vxlan_local6"
        values: dict[str, Any] = {
            "vxlan_id": tunnel.number,
            "vxlan_port": tunnel.port,
            "vxlan_learning": 1,
            family: str(tunnel.local),
        }
        # Bound to no device of this machine: then a frame may be larger than what that takes, and
        # goes in fragments.
        netlink.link("add", ifname=tunnel.device, kind="vxlan", mtu=tunnel.mtu, **values)
        index = netlink.link_lookup(ifname=tunnel.device)[0]
        for remote in tunnel.remotes:
            netlink.fdb("append", ifindex=index, **_entry(str(remote)))
    index = netlink.link_lookup(ifname=tunnel.device)[0]
    netlink.link("set", index=index, state="up")


def remove_tunnel(netlink: IPRoute, tunnel: Tunnel) -> None:
    """Remove a tunnel; none is right too."""
    found = netlink.link_lookup(ifname=tunnel.device)
    if found:
        netlink.link("del", index=found[0])


def tunnel_problems(netlink: IPRoute, tunnel: Tunnel) -> Iterator[str]:
    """Yield what is not as it should be."""
    found = netlink.link_lookup(ifname=tunnel.device)
    if not found:
        yield f"no tunnel {tunnel.device}"
        return
    (link,) = netlink.get_links(found[0])
    info = link.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA") if info is not None else None
    if data is None or info.get_attr("IFLA_INFO_KIND") != "vxlan":
        yield f"device {tunnel.device} is no tunnel"
        return
    local = data.get_attr("IFLA_VXLAN_LOCAL") or data.get_attr("IFLA_VXLAN_LOCAL6")
    port = data.get_attr("IFLA_VXLAN_PORT")
    seen = (data.get_attr("IFLA_VXLAN_ID"), local, port, link.get_attr("IFLA_MTU"))
    wanted = (tunnel.number, str(tunnel.local), tunnel.port, tunnel.mtu)
    if seen != wanted:
        yield f"tunnel {tunnel.device} has number, address, port and MTU {seen}, wanted {wanted}"
    remotes = {
        one.get_attr("NDA_DST")
        for one in netlink.fdb("dump", ifindex=found[0])
        if one.get_attr("NDA_LLADDR") == _ANYBODY
    }
    if remotes != set(map(str, tunnel.remotes)):
        yield f"tunnel {tunnel.device} leads to {sorted(filter(None, remotes))}"


def _entry(remote: str) -> dict[str, Any]:
    return {
        "lladdr": _ANYBODY,
        "dst": remote,
        "state": _PERMANENT,
        "flags": _OF_DEVICE,
    }
