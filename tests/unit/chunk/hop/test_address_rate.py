"""How often one bearer of addresses may begin a handshake, whatever addresses it has."""

from __future__ import annotations

import pytest

from packetcloud.chunk.hop.address_rate import HANDSHAKE_BURST, AddressRate


def taken(rate: AddressRate, hosts: list[str]) -> int:
    return sum(rate.take(host, 1.0) for host in hosts)


def test_an_ipv6_network_has_one_share_however_many_addresses_it_has() -> None:
    """Who has one address of a /64 has all of them; the next network is somebody else's."""
    rate = AddressRate()
    own = [f"2001:db8::{number >> 8:x}:{number & 255:x}" for number in range(5000)]
    assert taken(rate, own) == HANDSHAKE_BURST and len(rate) == 1
    assert taken(rate, ["2001:db8:0:1::1"]) == 1


@pytest.mark.parametrize("prefix", ["", "::ffff:"])
def test_an_ipv4_address_has_a_share_of_its_own(prefix: str) -> None:
    """Also where a socket for both versions shows it as an IPv6 address."""
    rate = AddressRate()
    assert taken(rate, [f"{prefix}192.0.2.{number}" for number in range(200)]) == 200
    assert taken(rate, [f"{prefix}192.0.2.1"] * 10) == HANDSHAKE_BURST - 1


def test_a_scope_is_no_part_of_a_network() -> None:
    """Link-local addresses come with the name of the interface behind them."""
    rate = AddressRate()
    assert taken(rate, [f"fe80::{number:x}%eth0" for number in range(1, 50)]) == HANDSHAKE_BURST
