"""The tables of filters as text: who may be reached, and that everything else is dropped."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from packetcloud.cloudlet.addresses import Subnet
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.filters import BridgePlan, NetworkPlan, Transport, table_script

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
