"""Bridges on this machine, made as planned, compared with the plan, and removed.

Every step may be repeated. Bridges that somebody else made are used, not removed. Calls block.
Needs CAP_NET_ADMIN.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pyroute2 import IPRoute

from packetcloud.cloudlet.egress_filters import EgressPlan
from packetcloud.cloudlet.errors import CloudletError
from packetcloud.cloudlet.filters import BridgePlan
from packetcloud.cloudlet.tunnel_devices import make_tunnel, remove_tunnel, tunnel_problems

ALIAS = "packetcloud"
"""Marks a bridge that we made; words that follow say what else was changed for it."""
SYSTEM = Path("/proc/sys/net")
_BRIDGE_SETTINGS = {
    "ipv6/conf/{}/accept_ra": "0",  # a VI's router advertisement is no router
    "ipv6/conf/{}/accept_redirects": "0",
    "ipv4/conf/{}/accept_redirects": "0",
    "ipv4/conf/{}/arp_ignore": "1",  # no answer about addresses of other interfaces
    "ipv4/conf/{}/rp_filter": "1",
    "ipv4/conf/{}/forwarding": "0",
    "ipv6/conf/{}/forwarding": "0",
}
_EGRESS_SETTINGS = _BRIDGE_SETTINGS | {"ipv4/conf/{}/forwarding": "1"}
_IFA_F_NODAD = 0x02


class NetworkError(CloudletError):
    """The network of the VIs could not be made; the text is what kernel or nft said."""


def make_bridge(plan: BridgePlan | EgressPlan) -> None:
    """Make a bridge, or put right what is not as planned.

    Raises:
        NetworkError: a device that it needs is not there.
        NetlinkError, OSError: not allowed.
    """
    settings = _EGRESS_SETTINGS if isinstance(plan, EgressPlan) else _BRIDGE_SETTINGS
    with IPRoute() as netlink:
        index = device_index(netlink, plan.name)
        if index is None:
            # Its own address: a bridge that has none takes a port's, and another when that VI goes.
            # Every other VI then sends to nobody until its kernel asks again, seconds later.
            netlink.link(
                "add",
                ifname=plan.name,
                kind="bridge",
                address=_new_address(),
                br_mcast_snooping=0,
            )
            index = device_index(netlink, plan.name)
            # Once it was changed the kernel leaves it alone; else it follows the smallest port.
            netlink.link("set", index=index, ifalias=ALIAS, mtu=plan.mtu - 1)
        for setting, value in settings.items():
            # A kernel without IPv6 has no such files, and no such frames.
            with contextlib.suppress(FileNotFoundError):
                (SYSTEM / setting.format(plan.name)).write_text(value)
        netlink.link("set", index=index, mtu=plan.mtu, state="up")
        if isinstance(plan, EgressPlan):
            _give_addresses(netlink, index, plan)
            return
        if plan.tunnel is not None:
            make_tunnel(netlink, plan.tunnel)
        for port in plan.ports:
            # Its MTU is its own: what is too large for it does not pass, and the hop finds out.
            netlink.link("set", index=_existing(netlink, plan, port), master=index, state="up")
        if plan.uplink is None:
            _give_addresses(netlink, index, plan)
            return
        uplink = _existing(netlink, plan, plan.uplink)
        netlink.link("set", index=uplink, master=index, mtu=plan.mtu, state="up")


def _existing(netlink: IPRoute, plan: BridgePlan, device: str) -> int:
    index = device_index(netlink, device)
    if index is None:
        raise NetworkError(f"bridge {plan.name}: no device {device}")
    return index


def _new_address() -> str:
    """Return a hardware address that nobody else has, administered here."""
    return ":".join(f"{byte:02x}" for byte in (0x02, *os.urandom(5)))


def _give_addresses(netlink: IPRoute, index: int | None, plan: BridgePlan | EgressPlan) -> None:
    netlink.addr(
        "replace",
        index=index,
        address=str(plan.peer_ipv4),
        prefixlen=plan.subnet.ipv4.prefixlen,
    )
    # No check for doubles: it takes a second, and nobody else can have the address here.
    netlink.addr(
        "replace",
        index=index,
        address=str(plan.peer_ipv6),
        prefixlen=plan.subnet.ipv6.prefixlen,
        flags=_IFA_F_NODAD,
    )


def remove_bridge(plan: BridgePlan | EgressPlan) -> None:
    """Remove a bridge that we made; what is not there is right, too."""
    with IPRoute() as netlink:
        if isinstance(plan, BridgePlan) and plan.tunnel is not None:
            remove_tunnel(netlink, plan.tunnel)
        index = device_index(netlink, plan.name)
        if index is None:
            return
        (link,) = netlink.get_links(index)
        if (link.get_attr("IFLA_IFALIAS") or "").split(" ")[0] == ALIAS:
            netlink.link("del", index=index)


def bridge_problems(plan: BridgePlan | EgressPlan) -> Iterator[str]:
    """Yield what of a bridge is not as planned."""
    with IPRoute() as netlink:
        index = device_index(netlink, plan.name)
        if index is None:
            yield f"no bridge {plan.name}"
            return
        (link,) = netlink.get_links(index)
        if link.get_attr("IFLA_MTU") != plan.mtu:
            yield f"bridge {plan.name}: MTU {link.get_attr('IFLA_MTU')}, wanted {plan.mtu}"
        if link["state"] != "up":
            yield f"bridge {plan.name} is down"
        if isinstance(plan, BridgePlan):
            if plan.tunnel is not None:
                yield from tunnel_problems(netlink, plan.tunnel)
            for port in plan.ports:
                yield from _port_problems(netlink, index, plan.name, port)
        if isinstance(plan, EgressPlan) or plan.uplink is None:
            found = {one.get_attr("IFA_ADDRESS") for one in netlink.get_addr(index=index)}
            for address in (str(plan.peer_ipv4), str(plan.peer_ipv6)):
                if address not in found:
                    yield f"bridge {plan.name} has no address {address}"


def _port_problems(netlink: IPRoute, index: int, bridge: str, port: str) -> Iterator[str]:
    number = device_index(netlink, port)
    if number is None:
        yield f"no device {port}"
        return
    (link,) = netlink.get_links(number)
    if link.get_attr("IFLA_MASTER") != index:
        yield f"device {port} is no port of bridge {bridge}"
    if link["state"] != "up":
        yield f"device {port} is down"


def device_index(netlink: IPRoute, device: str) -> int | None:
    """Return the number of a device; None: there is none."""
    found = netlink.link_lookup(ifname=device)
    return int(found[0]) if found else None
