"""The tables of filters as text: who may be reached, and that everything else is dropped."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import pytest

from packetcloud.cloudlet.addresses import Subnet
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.far_network import far_end, with_tunnels
from packetcloud.cloudlet.filters import BridgePlan, NetworkPlan, Transport, table_script
from packetcloud.cloudlet.tunnels import TunnelWish

DATA = BridgePlan(
    "pc-data",
    Subnet(IPv4Network("198.18.8.0/24"), IPv6Network("fd00:8::/64")),
    16384,
    Transport.UDP,
    IPv4Address("198.18.8.1"),
    IPv6Address("fd00:8::1"),
    4700,
)
CONTROL = BridgePlan(
    "pc-control",
    Subnet(IPv4Network("198.18.9.0/24"), IPv6Network("fd00:9::/64")),
    1500,
    Transport.TCP,
    IPv4Address("198.18.9.1"),
    IPv6Address("fd00:9::1"),
    4710,
)


def _chain(script: str, name: str) -> list[str]:
    text = script.split(f"  chain {name} {{\n")[1].split("  }\n")[0]
    return [line.strip() for line in text.splitlines()]


def test_each_bridge_leads_to_its_peer_alone() -> None:
    script = table_script(NetworkPlan(DATA, CONTROL))
    assert _chain(script, "from_bridges")[1:] == [
        'iifname "pc-data" goto data',
        'iifname "pc-control" goto control',
    ]
    assert _chain(script, "data") == [
        "ip daddr 198.18.8.1 udp dport 4700 counter accept",
        "ip6 daddr fd00:8::1 udp dport 4700 counter accept",
        "ip6 nexthdr icmpv6 icmpv6 type nd-neighbor-solicit "
        "@nh,384,128 0xfd000008000000000000000000000001 counter accept",
        "ip6 daddr fd00:8::1 icmpv6 type nd-neighbor-advert counter accept",
        "counter drop",
    ]
    assert _chain(script, "control")[0] == "ip daddr 198.18.9.1 tcp dport 4710 counter accept"
    assert _chain(script, "control")[-1] == "counter drop"
    assert "table bridge packetcloud {" not in script


def test_over_an_uplink_frames_pass_to_the_peer_and_from_it() -> None:
    script = table_script(NetworkPlan(replace(DATA, uplink="eth7"), CONTROL))
    assert _chain(script, "data")[-1] == "counter drop"
    assert _chain(script, "over_uplinks")[1:] == [
        'oifname "eth7" goto data_out',
        'iifname "eth7" goto data_in',
    ]
    assert "ip daddr 198.18.8.1 udp dport 4700 counter accept" in _chain(script, "data_out")
    assert "ip saddr 198.18.8.1 udp sport 4700 counter accept" in _chain(script, "data_in")
    assert _chain(script, "data_out")[-1] == _chain(script, "data_in")[-1] == "counter drop"


def test_a_script_replaces_what_was_there() -> None:
    """Both tables are removed and made in one run of nft, which is one step for the kernel."""
    lines = table_script(NetworkPlan(DATA, CONTROL, "second")).splitlines()
    assert lines[:4] == [
        "table inet second",
        "delete table inet second",
        "table bridge second",
        "delete table bridge second",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 'x" drop; #'}, "device 'x\" drop; #': allowed"),
        ({"name": "a-name-too-long-"}, "at most 15"),
        ({"uplink": "eth0\n"}, "device"),
        ({"peer_ipv4": IPv4Address("198.18.7.1")}, "must be in"),
        ({"peer_ipv6": IPv6Address("fd00:9::1")}, "must be in"),
        ({"peer_port": 0}, "port 0; allowed: 1 to 65535"),
        ({"peer_port": 65536}, "port 65536"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    """Nothing of a plan can end a rule and begin another."""
    with pytest.raises(CloudletConfigError) as caught:
        replace(DATA, **change)
    assert said in str(caught.value)


@pytest.mark.parametrize("table", ["", "a b", "a;b", "x" * 32])
def test_a_table_has_a_plain_name(table: str) -> None:
    with pytest.raises(CloudletConfigError, match="table"):
        NetworkPlan(DATA, CONTROL, table)


def test_the_bridges_are_two() -> None:
    with pytest.raises(CloudletConfigError, match="a bridge each"):
        NetworkPlan(DATA, replace(CONTROL, name=DATA.name))


def _joined() -> tuple[NetworkPlan, NetworkPlan]:
    """Plans of the controller's machine and of a node's, joined by tunnels."""
    near, far = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
    plan = NetworkPlan(DATA, CONTROL)
    return (
        with_tunnels(plan, TunnelWish(near, (far,), 4794, 7, 1430)),
        far_end(plan, TunnelWish(far, (near,), 4794, 7, 1430)),
    )


def test_nothing_is_bridged_to_or_from_other_nodes() -> None:
    """They speak with this machine, and what comes out of a tunnel is of its other ends."""
    near, _ = _joined()
    script = table_script(near)
    rules = _chain(script, "over_uplinks")
    for port in ("pc-data-vx", "pc-control-vx"):
        assert f'oifname "{port}" counter drop' in rules
        assert f'iifname "{port}" counter drop' in rules
    assert _chain(script, "into_tunnels")[1:] == [
        "ip saddr != { 192.0.2.2 } udp dport 4794 counter drop"
    ]
    assert _chain(script, "data") == _chain(table_script(NetworkPlan(DATA, CONTROL)), "data")


def test_tcp_over_a_tunnel_keeps_to_its_size() -> None:
    """Both ways on the control bridge, nowhere else."""
    _, far = _joined()
    script = table_script(far)
    clamp = "tcp flags syn tcp option maxseg size set 1370"
    for name in ("control_out", "control_in"):
        assert _chain(script, name)[0] == clamp
        assert _chain(script, name)[-1] == "counter drop"
    assert script.count(clamp) == 2
    assert _chain(script, "into_tunnels")[1:] == [
        "ip saddr != { 192.0.2.1 } udp dport 4794 counter drop"
    ]


def test_the_ends_of_a_tunnel_fit() -> None:
    """The same device, number and port at both machines; another number for the other bridge."""
    near, far = _joined()
    for here, there in ((near.data, far.data), (near.control, far.control)):
        assert here.tunnel is not None and there.tunnel is not None
        assert (here.tunnel.number, here.tunnel.port) == (there.tunnel.number, there.tunnel.port)
        assert here.tunnel.remotes == (there.tunnel.local,)
        assert here.ports == (here.tunnel.device,) and there.uplink == there.tunnel.device
    assert near.data.tunnel is not None and near.control.tunnel is not None
    assert near.data.tunnel.number != near.control.tunnel.number


@pytest.mark.parametrize("remotes", [("192.0.2.1",), ("2001:db8::1",), ("192.0.2.2", "192.0.2.2")])
def test_a_tunnel_leads_to_other_machines(remotes: tuple[str, ...]) -> None:
    local = IPv4Address("192.0.2.1")
    wish = TunnelWish(local, tuple(map(ip_address, remotes)), 4794, 7, 1430)
    with pytest.raises(CloudletConfigError, match=r"tunnel from 192\.0\.2\.1"):
        wish.of("pc-data", 0)
