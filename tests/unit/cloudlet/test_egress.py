"""What an operator grants towards the IP network: what is read, and every mistake."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from packetcloud.cloudlet.egress import (
    MAX_PORT_RANGES_COUNT,
    NEVER,
    Destination,
    EgressPolicy,
    parse_listen,
    parse_policy,
)
from packetcloud.cloudlet.errors import CloudletConfigError

OWN = {ip_network("203.0.113.0/28"): "the data network"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("203.0.113.0/24:80,443", "203.0.113.0/24:80,443"),
        ("203.0.113.9:443", "203.0.113.9/32:443"),
        ("0.0.0.0/0:8000-8099", "0.0.0.0/0:8000-8099"),
        ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
        ("[2001:db8::9]:1,2,3,5-6,4", "[2001:db8::9/128]:1-6"),
        ("192.0.2.1:80-90,85-95,443", "192.0.2.1/32:80-95,443"),
        ("192.0.2.1:1-65535", "192.0.2.1/32:1-65535"),
    ],
)
def test_a_place_is_read(text: str, shown: str) -> None:
    """Networks and ports; ranges that touch become one, as nft wants it."""
    assert str(Destination.of(text)) == shown
    assert str(Destination.of(shown)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        "203.0.113.9",
        "203.0.113.9:",
        "203.0.113.9/24:80",
        "203.0.113.9/33:80",
        "203.0.113:80",
        "example.org:80",
        "2001:db8::1:443",
        "[2001:db8::1/129]:443",
        "[203.0.113.9]:x",
        "203.0.113.9:0",
        "203.0.113.9:65536",
        "203.0.113.9:999999999999",
        "203.0.113.9:90-80",
        "203.0.113.9:80,,81",
        "203.0.113.9:80-",
        "203.0.113.9:-80",
        "203.0.113.9:80 accept",
        "203.0.113.9:80\n",
        "203.0.113.9:80 }; accept; {",
        "\u0663.0.0.1:80",
        "203.0.113.9:" + ",".join(map(str, range(1, MAX_PORT_RANGES_COUNT + 2))),
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    """Nothing of it can end a rule and begin another; the text says what is allowed."""
    with pytest.raises(CloudletConfigError, match="allowed: "):
        Destination.of(text)


def test_as_many_ports_as_allowed_are_read() -> None:
    ports = ",".join(map(str, range(1, 2 * MAX_PORT_RANGES_COUNT, 2)))
    assert len(Destination.of(f"192.0.2.1:{ports}").ports) == MAX_PORT_RANGES_COUNT


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.31.255.255",
        "192.168.1.1",
        "198.18.8.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "fc00::1",
        "fd00:8::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "2002:a00:1::",
    ],
)
def test_what_is_the_carriers_cannot_be_allowed(address: str) -> None:
    """Not by `allow`, and the text names the key that might."""
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(CloudletConfigError, match="dangerously_allow_internal"):
        parse_policy("s", [f"{host}:80"], [], [], {})


@pytest.mark.parametrize("address", ["8.8.8.8", "203.0.113.9", "2001:4860::8", "2a00::1"])
def test_what_is_anybodys_can_be(address: str) -> None:
    assert not any(ip_address(address) in one for one in NEVER)


def test_all_of_ipv6_is_closed_but_what_was_given_to_anybody() -> None:
    """The list leaves no gap: what it does not close is 2000::/3, and of that a part."""
    total = sum(one.num_addresses for one in NEVER if one.version == 6)
    inside = sum(
        one.num_addresses
        for one in NEVER
        if one.version == 6 and one.network_address in ip_network("2000::/3")
    )
    assert total - inside == 2**128 - 2**125


def test_everything_may_be_allowed_and_leaves_the_carrier_out() -> None:
    policy = parse_policy("s", ["0.0.0.0/0:443", "[::/0]:443"], [], [], OWN)
    assert policy.is_granted and policy.reaches_ipv6
    assert policy.summary() == ["connects to 0.0.0.0/0:443", "connects to [::/0]:443"]


@pytest.mark.parametrize(
    ("allow", "internal", "resolvers", "words"),
    [
        (["x"], [], [], ["egress allow: 'x'", "NETWORK:PORTS"]),
        (["203.0.113.4:80"], [], [], ["203.0.113.0/28", "the data network"]),
        ([], ["203.0.113.4:80"], [], ["egress dangerously_allow_internal", "the data network"]),
        ([], ["203.0.112.0/20:80"], [], ["overlaps", "the data network"]),
        ([], ["127.0.0.1:80"], [], ["loopback", "nothing opens"]),
        ([], ["[::1]:80"], [], ["loopback", "nothing opens"]),
        ([], ["169.254.169.254:80"], [], ["link-local", "nothing opens"]),
        ([], ["[fe80::1]:80"], [], ["link-local", "nothing opens"]),
        ([], ["224.0.0.1:80"], [], ["multicast"]),
        ([], ["0.0.0.0/0:80"], [], ["nothing opens"]),
        ([], [], ["127.0.0.53"], ["egress resolvers: 127.0.0.53", "loopback"]),
        ([], [], ["203.0.113.4"], ["egress resolvers", "the data network"]),
    ],
)
def test_a_mistake_is_named(
    allow: list[str], internal: list[str], resolvers: list[str], words: list[str]
) -> None:
    with pytest.raises(CloudletConfigError) as caught:
        parse_policy("s", allow, internal, [ip_address(one) for one in resolvers], OWN)
    assert all(word in str(caught.value) for word in words)


def test_what_is_internal_is_opened_by_its_own_key_alone() -> None:
    policy = parse_policy("s", [], ["10.1.2.0/24:443"], [ip_address("10.9.9.9")], OWN)
    assert policy.summary() == [
        "connects to 10.1.2.0/24:443 (internal)",
        "asks 10.9.9.9 for names",
    ]
    assert not policy.reaches_ipv6


def test_nothing_is_granted_by_silence() -> None:
    assert not EgressPolicy("s").is_granted
    assert EgressPolicy("s", listen={8080: 80}).is_granted


def test_ports_to_listen_at_are_read() -> None:
    assert parse_listen({"8080": 80, "443": 443}) == {8080: 80, 443: 443}


@pytest.mark.parametrize("port", ["0", "65536", "x", "080", "", "-1", "\u0663"])
def test_what_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(CloudletConfigError, match=r"listen: .*allowed: a port"):
        parse_listen({port: 80})
