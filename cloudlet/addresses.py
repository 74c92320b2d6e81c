"""The addresses of VIs: one number for each, the same on both bridges. Pure.

VI number n has the n-th address of the data network and of the control network, IPv4 and IPv6. A
number that was freed is given out again last, when nobody's tables know its old bearer any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from packetcloud.cloudlet.containers import NicAddresses
from packetcloud.cloudlet.errors import CloudletConfigError, NoRoom

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


@dataclass(frozen=True, slots=True)
class ViAddresses:
    """The addresses of one VI."""

    number: int
    data: NicAddresses
    control: NicAddresses


class AddressBook:
    """Who has which number. The same name gets the same number until it is freed."""

    def __init__(self, data: Subnet, control: Subnet) -> None:
        if data.ipv4.overlaps(control.ipv4) or data.ipv6.overlaps(control.ipv6):
            raise CloudletConfigError("the data and the control network overlap; choose two")
        self._data = data
        self._control = control
        both = range(FIRST_NUMBER, min(data.numbers().stop, control.numbers().stop))
        self._free = deque(both)
        self._held: dict[str, int] = {}

    def take(self, name: str) -> ViAddresses:
        """Return the addresses of `name`, new ones if it has none.

        Raises:
            NoRoom: every number is taken.
        """
        number = self._held.get(name)
        if number is None:
            if not self._free:
                raise NoRoom(f"no address left for {name}: {len(self._held)} VIs have one")
            number = self._held[name] = self._free.popleft()
        return self._of(number)

    def adopt(self, name: str, data_ipv4: IPv4Address) -> ViAddresses:
        """Write down that `name` has the number of this address, as a container that runs shows.

        Raises:
            NoRoom: another name has it, or it is no address of a VI.
        """
        number = int(data_ipv4) - int(self._data.ipv4.network_address)
        if self._held.get(name) == number:
            return self._of(number)
        if number not in self._free or name in self._held:
            raise NoRoom(f"{name} cannot have {data_ipv4}: it is another's, or no VI's")
        self._free.remove(number)
        self._held[name] = number
        return self._of(number)

    def free(self, name: str) -> None:
        """Give the number of `name` back, if it has one."""
        number = self._held.pop(name, None)
        if number is not None:
            self._free.append(number)

    def names(self) -> Iterable[str]:
        """Return who has a number."""
        return tuple(self._held)

    def _of(self, number: int) -> ViAddresses:
        return ViAddresses(number, self._data.addresses(number), self._control.addresses(number))
