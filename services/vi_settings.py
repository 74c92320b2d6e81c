"""What a VI is told through its environment: who it is, its addresses, where its controller is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Self

from packetcloud.services.addresses import parse_address
from packetcloud.services.errors import ServiceConfigError

PREFIX = "PACKETCLOUD_"
DATA_NIC = "eth0"
CONTROL_NIC = "eth1"


@dataclass(frozen=True, slots=True)
class Nic:
    """An interface and its addresses; nothing is routed beyond their networks."""

    name: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...]


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

        return cls(
            value("VI"),
            value("TOKEN"),
            parse_address(value("CONTROLLER"), PREFIX + "CONTROLLER"),
            (nic(DATA_NIC, "DATA"), nic(CONTROL_NIC, "CONTROL")),
            environment.get(PREFIX + "ISOLATION") != "process",
        )
