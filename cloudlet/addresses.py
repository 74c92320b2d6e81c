"""The addresses of VIs: one number for each, the same on both bridges. Pure.

VI number n has the n-th address of the data network and of the control network, IPv4 and IPv6.
Who has which number is the controller's to keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from packetcloud.cloudlet.containers import NicAddresses
from packetcloud.cloudlet.errors import CloudletConfigError

FIRST_NUMBER = 16
"""Below are the node itself, the router, the controller, and what the operator adds."""
MAX_NUMBERS_COUNT = 4096
"""More VIs than a cloudlet of tens of nodes has; bounds what a large network takes here."""
MAX_IPV6_PREFIX = 112
"""So that each IPv4 number has an IPv6 address."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """The network of one bridge."""

    ipv4: IPv4Network
    ipv6: IPv6Network

    def __post_init__(self) -> None:
        if self.ipv4.num_addresses < 2 * FIRST_NUMBER:
            raise CloudletConfigError(f"network {self.ipv4} is too small; allowed: /27 or larger")
        if self.ipv6.prefixlen > MAX_IPV6_PREFIX:
            raise CloudletConfigError(
                f"network {self.ipv6} is too small; allowed: /{MAX_IPV6_PREFIX} or larger"
            )
        if not self.ipv6.is_private:
            raise CloudletConfigError(
                f"network {self.ipv6}: allowed: unique local addresses, such as fd12:3456:789a::/64"
            )

    def addresses(self, number: int) -> NicAddresses:
        """Return the addresses of one number, with their networks."""
        return NicAddresses(
            IPv4Interface((self.ipv4[number], self.ipv4.prefixlen)),
            IPv6Interface((self.ipv6[number], self.ipv6.prefixlen)),
        )

    def numbers(self) -> range:
        """Return the numbers that VIs may have; the last IPv4 address is everybody's."""
        last = min(self.ipv4.num_addresses - 2, FIRST_NUMBER + MAX_NUMBERS_COUNT - 1)
        return range(FIRST_NUMBER, last + 1)
