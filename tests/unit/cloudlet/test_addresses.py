"""The addresses of VIs: each its own, the same on both bridges, freed ones last."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest

from packetcloud.cloudlet.addresses import FIRST_NUMBER, MAX_NUMBERS_COUNT, AddressBook, Subnet
from packetcloud.cloudlet.errors import CloudletConfigError, NoRoom

DATA = Subnet(IPv4Network("198.18.8.0/27"), IPv6Network("fd00:8::/64"))
CONTROL = Subnet(IPv4Network("198.18.9.0/24"), IPv6Network("fd00:9::/64"))
ROOM = 15
"""Numbers 16 to 30: 31 is everybody's address in a /27."""


def test_a_name_has_one_number_on_both_bridges() -> None:
    book = AddressBook(DATA, CONTROL)
    first, again, other = book.take("a"), book.take("a"), book.take("b")
    assert first == again
    assert (first.number, other.number) == (FIRST_NUMBER, FIRST_NUMBER + 1)
    assert str(first.data.ipv4) == "198.18.8.16/27"
    assert str(first.data.ipv6) == "fd00:8::10/64"
    assert str(first.control.ipv4) == "198.18.9.16/24"
    assert str(first.control.ipv6) == "fd00:9::10/64"


def test_the_smaller_network_bounds_both() -> None:
    book = AddressBook(DATA, CONTROL)
    taken = [book.take(f"vi-{number}") for number in range(ROOM)]
    assert str(taken[-1].data.ipv4.ip) == "198.18.8.30"
    with pytest.raises(NoRoom, match="no address left for more: 15 VIs have one"):
        book.take("more")
    book.free("vi-3")
    assert book.take("more").number == taken[3].number


def test_a_freed_number_is_given_out_last() -> None:
    """Tables of hardware addresses elsewhere may still know its old bearer."""
    book = AddressBook(DATA, CONTROL)
    book.take("a")
    book.free("a")
    book.free("a")
    numbers = [book.take(f"vi-{number}").number for number in range(ROOM)]
    assert numbers[0] == FIRST_NUMBER + 1
    assert numbers[-1] == FIRST_NUMBER


def test_what_runs_keeps_its_addresses() -> None:
    """After a restart the containers themselves say who has what."""
    book = AddressBook(DATA, CONTROL)
    assert book.adopt("old", IPv4Address("198.18.8.20")).number == 20
    assert book.adopt("old", IPv4Address("198.18.8.20")) == book.take("old")
    assert book.names() == ("old",)
    numbers = {book.take(f"vi-{number}").number for number in range(ROOM - 1)}
    assert 20 not in numbers


@pytest.mark.parametrize("address", ["198.18.8.20", "198.18.8.2", "198.18.9.17", "198.18.7.255"])
def test_an_address_that_cannot_be_adopted(address: str) -> None:
    """Another's, below the first number, or of another network."""
    book = AddressBook(DATA, CONTROL)
    book.adopt("old", IPv4Address("198.18.8.20"))
    with pytest.raises(NoRoom, match=f"new cannot have {address}"):
        book.adopt("new", IPv4Address(address))
    with pytest.raises(NoRoom):
        book.adopt("old", IPv4Address("198.18.8.21"))
    assert book.names() == ("old",)


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


def test_the_networks_are_apart() -> None:
    with pytest.raises(CloudletConfigError, match="overlap"):
        AddressBook(DATA, Subnet(IPv4Network("198.18.8.0/24"), CONTROL.ipv6))
