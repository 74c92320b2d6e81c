"""The tables of the way to the IP network as text: who passes, in which order, and nobody else."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest

from packetcloud.cloudlet.addresses import Subnet
from packetcloud.cloudlet.egress import Destination, EgressPolicy
from packetcloud.cloudlet.egress_counts import EgressCount, read_counts
from packetcloud.cloudlet.egress_filters import (
    EgressElements,
    EgressPlan,
    check_listeners,
    elements_script,
)
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.far_network import far_end
from packetcloud.cloudlet.filters import NetworkPlan, table_script
from tests.unit.cloudlet.test_filters import CONTROL, DATA

POLICY = EgressPolicy(
    "translator",
    (Destination.of("203.0.113.0/24:80,443"), Destination.of("0.0.0.0/0:443")),
    (Destination.of("10.1.2.3:22"),),
    (ip_address("192.0.2.53"),),
    connections_count=7,
    connections_per_s=9,
    listen={8080: 80},
)
PLAN = EgressPlan(
    "pc-egress",
    Subnet(IPv4Network("10.212.0.0/24"), IPv6Network("fd00:12::/64")),
    "eth0",
    (POLICY, EgressPolicy("other", (Destination.of("[2001:db8::/32]:1"),))),
    (ip_network("198.51.100.7/32"),),
)
SCRIPT = table_script(NetworkPlan(DATA, CONTROL, egress=PLAN), closed_transit=(4, 6))


def _chain(name: str, script: str = SCRIPT) -> list[str]:
    text = script.split(f"  chain {name} {{\n")[1].split("  }\n")[0]
    return [line.strip() for line in text.splitlines()]


def test_a_service_reaches_what_it_is_granted() -> None:
    """What was named by itself comes first, then what is closed, then what is allowed."""
    assert _chain("egress_from_0") == [
        "ip daddr 10.1.2.3/32 tcp dport { 22 } counter accept",
        "ip daddr 192.0.2.53 udp dport 53 counter accept",
        "ip daddr 192.0.2.53 tcp dport 53 counter accept",
        "fib daddr type != unicast goto egress_denied",
        "tcp sport { 80 } tcp flags & (syn | ack) != syn counter accept",
        "jump egress_never",
        "ip daddr 203.0.113.0/24 tcp dport { 80, 443 } counter accept",
        "meta nfproto ipv4 tcp dport { 443 } counter accept",
        "goto egress_denied",
    ]
    never = _chain("egress_never")
    assert [line.split(" {")[0] for line in never] == ["ip daddr", "ip6 daddr"]
    for network in ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "198.51.100.7/32"):
        assert network in never[0]


def test_services_are_told_apart_by_the_addresses_of_their_vis() -> None:
    rules = _chain("egress")
    assert rules[-5:] == [
        "ip saddr @egress_vis4_0 goto egress_from_0",
        "ip6 saddr @egress_vis6_0 goto egress_from_0",
        "ip saddr @egress_vis4_1 goto egress_from_1",
        "ip6 saddr @egress_vis6_1 goto egress_from_1",
        "goto egress_denied",
    ]
    assert _chain("egress_denied")[-1] == "counter drop"


def test_the_data_plane_is_not_tracked() -> None:
    """Egress makes the kernel track connections; datagrams of VIs and router are kept out of it."""
    assert _chain("from_bridges")[1:] == [
        'iifname { "pc-data", "pc-control" } notrack',
        'iifname "pc-egress" goto egress',
        'iifname "pc-data" goto data',
        'iifname "pc-control" goto control',
    ]
    assert _chain("to_bridges")[1:] == ['oifname { "pc-data", "pc-control" } notrack']
    plain = table_script(NetworkPlan(DATA, CONTROL))
    assert "notrack" not in plain and " ct " not in plain and "nat" not in plain


def test_nothing_is_forwarded_but_between_vis_and_the_device() -> None:
    assert _chain("egress_forward")[1:] == [
        'iifname { "pc-data", "pc-control" } counter drop',
        'oifname { "pc-data", "pc-control" } counter drop',
        'oifname "pc-egress" goto egress_in',
        'iifname "pc-egress" goto egress_out',
        'iifname "eth0" meta nfproto ipv4 goto egress_transit',
        'iifname "eth0" meta nfproto ipv6 goto egress_transit',
    ]
    assert _chain("egress_out")[0] == 'oifname != "eth0" goto egress_denied'
    assert _chain("egress_in")[0] == 'iifname != "eth0" counter drop'
    assert _chain("egress_out")[-1] == "goto egress_denied"
    assert _chain("egress_in")[-1] == _chain("egress_transit")[-1] == "counter drop"


def test_a_machine_that_forwards_anyway_goes_on() -> None:
    script = table_script(NetworkPlan(DATA, CONTROL, egress=PLAN))
    assert not any("egress_transit" in line for line in _chain("egress_forward", script))
    only_ipv6 = table_script(NetworkPlan(DATA, CONTROL, egress=PLAN), closed_transit=[6])
    assert _chain("egress_forward", only_ipv6)[-1] == (
        'iifname "eth0" meta nfproto ipv6 goto egress_transit'
    )


def test_connections_are_bounded_for_each_vi() -> None:
    rules = _chain("egress_out_0")
    assert rules[0] == (
        "update @egress_rate_out4_0 { ip saddr limit rate over 9/second burst 9 packets } "
        "goto egress_bounded_out"
    )
    assert (
        rules[2] == "add @egress_open_out4_0 { ip saddr ct count over 7 } goto egress_bounded_out"
    )
    assert rules[-1] == "counter accept"
    assert "ip daddr ct count over 7" in _chain("egress_in_0")[2]


def test_bytes_are_bounded_where_it_is_said() -> None:
    """Before anything is accepted, both ways; of services without the bound nothing is counted."""
    slow = replace(POLICY, service="slow", listen={}, mib_per_s=20)
    plan = replace(PLAN, policies=(POLICY, slow))
    script = table_script(NetworkPlan(DATA, CONTROL, egress=plan))
    for way, side in (("out", "saddr"), ("in", "daddr")):
        assert _chain(f"egress_{way}", script)[1] == (
            f"ip {side} @egress_vis4_1 update @egress_bytes_{way}4_1 "
            f"{{ ip {side} limit rate over 20 mbytes/second burst 2 mbytes }} counter drop"
        )
    assert "mbytes" not in SCRIPT


def test_who_is_let_in_is_said_in_one_step() -> None:
    """Sets are emptied and filled in the same run of nft; services without VIs have empty ones."""
    elements = EgressElements(
        {"translator": frozenset({17, 16}), "gone": frozenset({9})}, {8080: (16, 80)}
    )
    assert elements_script(PLAN, "t", elements).splitlines() == [
        "flush set inet t egress_vis4_0",
        "add element inet t egress_vis4_0 { 10.212.0.16, 10.212.0.17 }",
        "flush set inet t egress_vis6_0",
        "add element inet t egress_vis6_0 { fd00:12::10, fd00:12::11 }",
        "flush set inet t egress_vis4_1",
        "flush set inet t egress_vis6_1",
        "flush map inet t egress_ports4",
        "add element inet t egress_ports4 { 8080 : 10.212.0.16 . 80 }",
        "flush map inet t egress_ports6",
        "add element inet t egress_ports6 { 8080 : fd00:12::10 . 80 }",
    ]


def test_other_machines_have_no_egress() -> None:
    """Nobody keeps its filters there, so there is no bridge to it."""
    far = far_end(NetworkPlan(DATA, CONTROL, egress=PLAN), ("eth1", "eth2"))
    assert far.egress is None


def test_a_port_of_the_node_has_one_use() -> None:
    check_listeners(PLAN.policies, {4780: "[cloudlet] api_listen"})
    with pytest.raises(CloudletConfigError, match=r"translator: listen: port 8080 is that of x"):
        check_listeners(PLAN.policies, {8080: "x"})
    with pytest.raises(CloudletConfigError, match="port 8080 is that of service translator"):
        check_listeners([POLICY, replace(POLICY, service="again")], {})


def test_the_bridge_is_another_one() -> None:
    with pytest.raises(CloudletConfigError, match="a bridge each"):
        NetworkPlan(DATA, CONTROL, egress=replace(PLAN, name=DATA.name))


def _listed(name: str, *elements: tuple[str, int, int]) -> dict[str, object]:
    return {
        "set": {
            "name": name,
            "elem": [
                {"elem": {"val": address, "counter": {"packets": packets, "bytes": size}}}
                for address, packets, size in elements
            ],
        }
    }


def test_counts_are_read_by_vi() -> None:
    """IPv4 and IPv6 of a VI together; what else a table has says nothing."""
    listing = [
        _listed("egress_denied4", ("10.212.0.16", 3, 180), ("10.212.0.17", 1, 60)),
        _listed("egress_denied6", ("fd00:12::10", 2, 160)),
        _listed("egress_opened4", ("10.212.0.16", 5, 300)),
        _listed("egress_bounded4", ("10.212.0.16", 4, 240)),
        {"set": {"name": "egress_bounded6"}},
        {"chain": {"name": "egress_denied4"}},
    ]
    counts = read_counts(PLAN.subnet, listing).of
    assert counts == {
        16: EgressCount(5, 340, 5, 4),
        17: EgressCount(denied_packets=1, denied_bytes=60),
    }


def test_counts_that_began_anew_are_all_new() -> None:
    """Another table counts from nothing; what it counted until now came since."""
    assert EgressCount(5, 50, 2, 0).since(EgressCount(3, 30, 2, 0)) == EgressCount(2, 20, 0, 0)
    assert EgressCount(1, 10, 1, 0).since(EgressCount(3, 30, 1, 0)) == EgressCount(1, 10, 1, 0)
