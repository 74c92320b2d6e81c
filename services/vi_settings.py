"""What a VI is told through its environment: who it is, its addresses, where its controller is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)
from typing import Self

from packetcloud.services.addresses import parse_address
from packetcloud.services.errors import ServiceConfigError

PREFIX = "PACKETCLOUD_"
DATA_NIC = "eth0"
CONTROL_NIC = "eth1"
EGRESS_NIC = "eth2"


@dataclass(frozen=True, slots=True)
class Nic:
    """An interface and its addresses; beyond their networks nothing is routed but by gateways."""

    name: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    gateways: tuple[IPv4Address | IPv6Address, ...] = ()


@dataclass(frozen=True, slots=True)
class ViSettings:
    """The settings of one VI."""

    name: str
    """Of its container."""
    token: str = field(repr=False)
    controller: tuple[str, int]
    nics: tuple[Nic, ...]
    is_contained: bool = True
    """False: a child process of this machine, whose network and users are not its own."""
    resolvers: tuple[IPv4Address | IPv6Address, ...] = ()
    """Whom it asks for names; none: it knows no names."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables that the controller gave the container.

        Raises:
            ServiceConfigError: one is missing or not what it should be; the text names it.
        """

        def value(name: str) -> str:
            text = environment.get(PREFIX + name, "")
            if not text:
                raise ServiceConfigError(
                    f"{PREFIX}{name} is not set; the cloudlet's controller sets it when it makes "
                    "the container"
                )
            return text

        def nic(name: str, kind: str) -> Nic:
            texts = [value(f"{kind}_IPV4"), value(f"{kind}_IPV6")]
            try:
                return Nic(name, tuple(ip_interface(text) for text in texts))
            except ValueError as error:
                raise ServiceConfigError(f"{PREFIX}{kind}_IPV4 or _IPV6: {error}") from None

        def addresses(name: str) -> tuple[IPv4Address | IPv6Address, ...]:
            try:
                return tuple(map(ip_address, environment.get(PREFIX + name, "").split()))
            except ValueError as error:
                raise ServiceConfigError(f"{PREFIX}{name}: {error}") from None

        nics = [nic(DATA_NIC, "DATA"), nic(CONTROL_NIC, "CONTROL")]
        if PREFIX + "EGRESS_IPV4" in environment:  # its service is granted a way to the IP network
            egress = nic(EGRESS_NIC, "EGRESS")
            nics.append(replace(egress, gateways=addresses("EGRESS_GATEWAYS")))
        return cls(
            value("VI"),
            value("TOKEN"),
            parse_address(value("CONTROLLER"), PREFIX + "CONTROLLER"),
            tuple(nics),
            environment.get(PREFIX + "ISOLATION") != "process",
            addresses("RESOLVERS"),
        )
