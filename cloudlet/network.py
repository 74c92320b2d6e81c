"""The network of a node's VIs on this machine: two bridges and tables of filters.

Made when a cloudlet starts, checked while it runs, removed with it. Every step may be repeated.
Bridges that somebody else made are used, not removed. Calls block: on a worker thread, please.
Needs CAP_NET_ADMIN.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from packetcloud.cloudlet.containers import Protection
from packetcloud.cloudlet.errors import CloudletError
from packetcloud.cloudlet.filters import (
    FAMILIES,
    BridgePlan,
    NetworkPlan,
    removal_script,
    table_script,
)
from packetcloud.cloudlet.tunnel_devices import make_tunnel, remove_tunnel, tunnel_problems

ALIAS = "packetcloud"
"""Marks a bridge that we made."""
_NFT_TIMEOUT_S = 20.0
_DAEMON_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_SYSTEM = Path("/proc/sys/net")
_BRIDGE_SETTINGS = (
    ("ipv6/conf/{}/accept_ra", "0"),  # a VI's router advertisement is no router
    ("ipv6/conf/{}/accept_redirects", "0"),
    ("ipv4/conf/{}/accept_redirects", "0"),
    ("ipv4/conf/{}/arp_ignore", "1"),  # no answer about addresses of other interfaces
    ("ipv4/conf/{}/rp_filter", "1"),
    ("ipv4/conf/{}/forwarding", "0"),
    ("ipv6/conf/{}/forwarding", "0"),
)
_IFA_F_NODAD = 0x02


class NetworkError(CloudletError):
    """The network of the VIs could not be made; the text is what kernel or nft said."""


class NodeNetwork:
    """The two bridges and the tables of one plan."""

    def __init__(self, plan: NetworkPlan) -> None:
        self.plan = plan
        self._installed: list[Any] | None = None
        """The tables as nft listed them when we had just put them there."""

    def set_up(self) -> None:
        """Make bridges and tables, or put right what is not as planned.

        The tables come first: nothing passes that they would not have let pass.

        Raises:
            NetworkError: not allowed, or kernel or nft does not know how.
        """
        _nft("-f", "-", script=table_script(self.plan))
        self._installed = self._listed()
        for bridge in (self.plan.data, self.plan.control):
            try:
                _make_bridge(bridge)
            except (NetlinkError, OSError) as error:
                raise NetworkError(f"bridge {bridge.name}: {error}") from error

    def tear_down(self) -> None:
        """Remove the bridges that we made, then the tables; what is not there is right too."""
        for bridge in (self.plan.data, self.plan.control):
            try:
                _remove_bridge(bridge)
            except (NetlinkError, OSError) as error:
                raise NetworkError(f"bridge {bridge.name}: {error}") from error
        _nft("-f", "-", script=removal_script(self.plan.table))
        self._installed = None

    def problems(self) -> list[str]:
        """Return what is not as planned; empty: everything is in force."""
        return [
            *self._table_problems(),
            *(
                problem
                for bridge in (self.plan.data, self.plan.control)
                for problem in _bridge_problems(bridge)
            ),
        ]

    def protections(self) -> tuple[Protection, ...]:
        """Say of tables and bridges whether they are in force, as a node does of itself."""
        return network_protections(self.problems())

    def dropped_packets(self) -> int:
        """Return how many packets of VIs the tables have dropped since they were put there."""
        return sum(
            expression["counter"]["packets"]
            for item in self._list()
            for expression in _expressions(item)
            if "counter" in expression and {"drop": None} in _expressions(item)
        )

    def _table_problems(self) -> Iterator[str]:
        if self._installed is None:
            yield f"table {self.plan.table} was not put there by this process"
        elif self._installed != (found := self._listed()):
            yield f"table {self.plan.table} " + ("was changed" if found else "is gone")

    def _listed(self) -> list[Any]:
        """Return the tables as they are, without what changes by itself: handles and counts."""
        return [_without_counts(item) for item in self._list()]

    def _list(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for family in FAMILIES:
            try:
                listing = json.loads(_nft("-j", "list", "table", family, self.plan.table))
            except NetworkError as error:
                if "No such file" in str(error):
                    continue
                raise
            found += [item for item in listing["nftables"] if "metainfo" not in item]
        return found


def network_protections(problems: list[str]) -> tuple[Protection, ...]:
    """Return what `NodeNetwork.problems` means for whoever asks what is in force."""
    if not problems:
        return (Protection("destinations of VIs", True),)
    cost = "VIs may reach more than router and controller: " + "; ".join(problems)
    remedy = "nothing by hand: the controller tries again every few seconds to put it right"
    return (Protection("destinations of VIs", False, cost, remedy),)


def _expressions(item: dict[str, Any]) -> list[dict[str, Any]]:
    expressions: list[dict[str, Any]] = item.get("rule", {}).get("expr", [])
    return expressions


def _without_counts(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_counts(one) for one in value]
    if isinstance(value, dict):
        return {
            key: None if key == "counter" else _without_counts(one)
            for key, one in value.items()
            if key != "handle"
        }
    return value


def _make_bridge(plan: BridgePlan) -> None:
    with IPRoute() as netlink:
        index = _index(netlink, plan.name)
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
            index = _index(netlink, plan.name)
            # Once it was changed the kernel leaves it alone; else it follows the smallest port.
            netlink.link("set", index=index, ifalias=ALIAS, mtu=plan.mtu - 1)
        for setting, value in _BRIDGE_SETTINGS:
            # A kernel without IPv6 has no such files, and no such frames.
            with contextlib.suppress(FileNotFoundError):
                (_SYSTEM / setting.format(plan.name)).write_text(value)
        netlink.link("set", index=index, mtu=plan.mtu, state="up")
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
    index = _index(netlink, device)
    if index is None:
        raise NetworkError(f"bridge {plan.name}: no device {device}")
    return index


def _new_address() -> str:
    """Return a hardware address that nobody else has, administered here."""
    return ":".join(f"{byte:02x}" for byte in (0x02, *os.urandom(5)))


def _give_addresses(netlink: IPRoute, index: int | None, plan: BridgePlan) -> None:
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


def _remove_bridge(plan: BridgePlan) -> None:
    with IPRoute() as netlink:
        if plan.tunnel is not None:
            remove_tunnel(netlink, plan.tunnel)
        index = _index(netlink, plan.name)
        if index is None:
            return
        (link,) = netlink.get_links(index)
        if link.get_attr("IFLA_IFALIAS") == ALIAS:
            netlink.link("del", index=index)


def _bridge_problems(plan: BridgePlan) -> Iterator[str]:
    with IPRoute() as netlink:
        index = _index(netlink, plan.name)
        if index is None:
            yield f"no bridge {plan.name}"
            return
        (link,) = netlink.get_links(index)
        if link.get_attr("IFLA_MTU") != plan.mtu:
            yield f"bridge {plan.name}: MTU {link.get_attr('IFLA_MTU')}, wanted {plan.mtu}"
        if link["state"] != "up":
            yield f"bridge {plan.name} is down"
        if plan.tunnel is not None:
            yield from tunnel_problems(netlink, plan.tunnel)
        for port in plan.ports:
            yield from _port_problems(netlink, index, plan.name, port)
        if plan.uplink is None:
            found = {one.get_attr("IFA_ADDRESS") for one in netlink.get_addr(index=index)}
            for address in (str(plan.peer_ipv4), str(plan.peer_ipv6)):
                if address not in found:
                    yield f"bridge {plan.name} has no address {address}"


def _port_problems(netlink: IPRoute, index: int, bridge: str, port: str) -> Iterator[str]:
    number = _index(netlink, port)
    if number is None:
        yield f"no device {port}"
        return
    (link,) = netlink.get_links(number)
    if link.get_attr("IFLA_MASTER") != index:
        yield f"device {port} is no port of bridge {bridge}"
    if link["state"] != "up":
        yield f"device {port} is down"


def _index(netlink: IPRoute, device: str) -> int | None:
    found = netlink.link_lookup(ifname=device)
    return int(found[0]) if found else None


def _nft(*arguments: str, script: str | None = None) -> str:
    command = shutil.which("nft", path=_DAEMON_PATH)
    if command is None:
        raise NetworkError("needs the command nft: apt-get install nftables")
    try:
        result = subprocess.run(
            [command, *arguments],
            input=script,
            stdin=subprocess.DEVNULL if script is None else None,
            capture_output=True,
            text=True,
            timeout=_NFT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"nft: {error}") from error
    if result.returncode != 0:
        raise NetworkError(f"nft: {result.stderr.strip()}")
    return result.stdout
