"""The addresses of VIs: one number, the same on both bridges."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest

from packetcloud.cloudlet.addresses import FIRST_NUMBER, MAX_NUMBERS_COUNT, Subnet
from packetcloud.cloudlet.errors import CloudletConfigError

DATA = Subnet(IPv4Network("198.18.8.0/27"), IPv6Network("fd00:8::/64"))
ROOM = 15
"""Numbers 16 to 30: 31 is everybody's address in a /27."""


def test_a_number_is_an_address_in_each_family() -> None:
    first = DATA.addresses(FIRST_NUMBER)
    assert str(first.ipv4) == "198.18.8.16/27"
    assert str(first.ipv6) == "fd00:8::10/64"
    last = DATA.addresses(DATA.numbers()[-1])
    assert str(last.ipv4) == "198.18.8.30/27"


def test_the_numbers_of_a_large_network_are_capped() -> None:
    large = Subnet(IPv4Network("10.0.0.0/8"), IPv6Network("fd00:8::/112"))
    assert len(large.numbers()) == MAX_NUMBERS_COUNT
    exact = Subnet(IPv4Network("10.0.0.0/19"), IPv6Network("fd00:8::/112"))
    assert len(exact.numbers()) == MAX_NUMBERS_COUNT
    assert len(DATA.numbers()) == ROOM


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "said"),
    [
        ("10.0.0.0/28", "fd00::/64", "10.0.0.0/28 is too small"),
        ("10.0.0.0/24", "fd00::/120", "fd00::/120 is too small"),
        ("10.0.0.0/24", "2600::/64", "unique local"),
    ],
)
def test_networks_that_cannot_be_used(ipv4: str, ipv6: str, said: str) -> None:
    with pytest.raises(CloudletConfigError, match=said):
        Subnet(IPv4Network(ipv4), IPv6Network(ipv6))
