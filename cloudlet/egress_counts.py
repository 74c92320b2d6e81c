"""What VIs tried and did on the bridge to the IP network, as the kernel counts it. Pure.

Source: libnftables-json(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from typing import Any

from packetcloud.cloudlet.addresses import Subnet
from packetcloud.cloudlet.egress_filters import BOUNDED, DENIED, OPENED


@dataclass(frozen=True, slots=True)
class EgressCount:
    """Of one VI."""

    denied_packets: int = 0
    """Tries to reach what it may not; what follows a try in vain is none."""
    denied_bytes: int = 0
    opened: int = 0
    """Connections that began, its own and others' to its ports."""
    bounded: int = 0
    """Connections that did not begin, as there were too many."""

    def __add__(self, other: EgressCount) -> EgressCount:
        return EgressCount(
            *(getattr(self, one.name) + getattr(other, one.name) for one in fields(self))
        )

    def since(self, before: EgressCount) -> EgressCount:
        """Return what came to it since `before`; a count that is smaller began anew."""
        pairs = [(getattr(self, one.name), getattr(before, one.name)) for one in fields(self)]
        is_anew = any(now < then for now, then in pairs)
        return self if is_anew else EgressCount(*(now - then for now, then in pairs))


@dataclass(frozen=True, slots=True)
class EgressCounts:
    """Of all VIs."""

    of: Mapping[int, EgressCount] = field(default_factory=dict)
    """By the number of the address."""


def read_counts(subnet: Subnet, listing: Iterable[Mapping[str, Any]]) -> EgressCounts:
    """Read what nft lists of a table."""
    found: dict[int, EgressCount] = {}
    for item in listing:
        for name in (DENIED, OPENED, BOUNDED):
            if item.get("set", {}).get("name") not in (f"{name}4", f"{name}6"):
                continue
            for text, packets, size in _elements(item["set"]):
                number = _number(subnet, text)
                found[number] = found.get(number, EgressCount()) + _count(name, packets, size)
    return EgressCounts(found)


def _elements(listed: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    for one in listed.get("elem", ()):
        element = one["elem"]
        counter = element["counter"]
        yield element["val"], counter["packets"], counter["bytes"]


def _number(subnet: Subnet, text: str) -> int:
    address = ip_address(text)
    network = subnet.ipv4 if address.version == 4 else subnet.ipv6
    return int(address) - int(network.network_address)


def _count(name: str, packets: int, size: int) -> EgressCount:
    if name == DENIED:
        return EgressCount(denied_packets=packets, denied_bytes=size)
    return EgressCount(opened=packets) if name == OPENED else EgressCount(bounded=packets)
