"""From the config file to what services are granted in the IP network, and to its bridge. Pure.

Source: docs/reference/cloudlet-config.md, "egress".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from urllib.parse import urlsplit

from packetcloud.cloudlet.addresses import Subnet
from packetcloud.cloudlet.config_tables import CloudletFile, ServiceTable
from packetcloud.cloudlet.egress import (
    EgressPolicy,
    Network,
    address_text,
    parse_listen,
    parse_policy,
)
from packetcloud.cloudlet.egress_filters import EgressPlan, check_listeners
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.filters import NetworkPlan
from packetcloud.services.addresses import parse_address


def own_networks(file: CloudletFile) -> dict[Network, str]:
    """Return what no VI ever reaches of this cloudlet and its operator, and what each is.

    Raises:
        CloudletConfigError: the operator closed everything.
    """
    table = file.network
    for network in table.egress_never:
        if network.prefixlen == 0:
            raise CloudletConfigError(
                f"[network] egress_never: {network} is everything; allowed: smaller networks, or "
                "no egress of any service"
            )
    found: dict[Network, str] = {
        table.data_ipv4: "the data network",
        table.data_ipv6: "the data network",
        table.control_ipv4: "the control network",
        table.control_ipv6: "the control network",
        table.egress_ipv4: "VIs on their way to the IP network",
        table.egress_ipv6: "VIs on their way to the IP network",
    }
    for host, what in _hosts_of_ours(file):
        address = address_text(host)  # what a name means may change; `egress_never` is for those
        if address is not None:
            found[ip_network(address)] = what
    return found | dict.fromkeys(table.egress_never, "[network] egress_never")


def declared_policy(
    table: ServiceTable, name: str, own: Mapping[Network, str], *, is_process: bool
) -> EgressPolicy:
    """Return what a service is granted.

    Args:
        is_process: its VIs are child processes, who listen at the node's ports themselves.

    Raises:
        CloudletConfigError: names key and value, and says what is allowed.
    """
    egress = table.egress
    policy = parse_policy(
        name, egress.allow, egress.dangerously_allow_internal, egress.resolvers, own
    )
    listen = parse_listen(table.listen)
    return replace(
        policy,
        connections_count=egress.connections,
        connections_per_s=egress.connections_per_s,
        mib_per_s=egress.mib_per_s,
        denied_per_violation=egress.denied_per_violation,
        listen={port: port for port in listen} if is_process else listen,
    )


def with_egress(
    file: CloudletFile, plan: NetworkPlan, policies: Iterable[EgressPolicy]
) -> NetworkPlan:
    """Return the plan of the controller's machine with the bridge to the IP network.

    Raises:
        CloudletConfigError: what the services are granted needs what the file does not say.
    """
    table = file.network
    granted = tuple(one for one in policies if one.is_granted)
    check_listeners(granted, _ports_of_ours(file))
    if file.has_processes:
        return plan
    if table.egress_device is None:
        for one in granted:
            raise CloudletConfigError(
                f"[[service]] {one.service}: egress, listen: [network] egress_device is missing: "
                "the device of this machine by which its VIs reach the IP network, such as eth0"
            )
        return plan
    if granted and not any(node.socket is not None for node in file.node):
        raise CloudletConfigError(
            f"[[service]] {granted[0].service}: egress, listen: every [[node]] is on another "
            "machine, where nobody keeps its filters; allowed: a node of this machine, with socket"
        )
    for one in granted:
        if one.reaches_ipv6 and not table.egress_forward_ipv6:
            raise CloudletConfigError(
                f"[[service]] {one.service}: egress: it names IPv6, which this machine does not "
                "forward; set [network] egress_forward_ipv6 = true, or leave IPv6 out"
            )
    try:
        subnet = Subnet(table.egress_ipv4, table.egress_ipv6)
    except CloudletConfigError as error:
        raise CloudletConfigError(f"[network] egress: {error}") from None
    for other in (plan.data, plan.control):
        overlaps = subnet.ipv4.overlaps(other.subnet.ipv4)
        if overlaps or subnet.ipv6.overlaps(other.subnet.ipv6):
            raise CloudletConfigError(
                "[network] egress_ipv4, egress_ipv6 overlap those of data or control; allowed: "
                "networks of their own"
            )
        if table.egress_bridge == other.name or table.egress_device == other.name:
            raise CloudletConfigError(
                f"[network] egress_bridge, egress_device: {other.name} is another bridge of this "
                "cloudlet; allowed: devices of their own"
            )
    return replace(
        plan,
        egress=EgressPlan(
            table.egress_bridge,
            subnet,
            table.egress_device,
            granted,
            tuple(own_networks(file)),
            table.egress_forward_ipv6,
        ),
    )


def _hosts_of_ours(file: CloudletFile) -> Iterator[tuple[str, str]]:
    yield _host(file.router.url), "[router] url"
    for node in file.node:
        if node.url is not None:
            yield _host(node.url), "[[node]] url"
        if node.tunnel_address is not None:
            yield str(node.tunnel_address), "[[node]] tunnel_address"
    for url in file.domain.url if file.domain is not None else ():
        yield _host(url), "[domain] url"


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""  # whoever uses it says so


def _ports_of_ours(file: CloudletFile) -> dict[int, str]:
    api = parse_address(file.cloudlet.api_listen, "[cloudlet] api_listen")
    ports = {file.cloudlet.control_port: "[cloudlet] control_port"}
    return ports | {api[1]: "[cloudlet] api_listen"}
