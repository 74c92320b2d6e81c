"""Which addresses and ports a translator may connect to.

The decision is made on the address that is then connected to, never on a name alone: a name that
resolves to something private gains nothing, whoever's name server says so.
Source: docs/reference/translator.md, "What may be reached".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from packetcloud.services.errors import ServiceConfigError

PUBLIC = "public"
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class EgressRule:
    """One entry of a list: a network or a name, and ports of it."""

    network: Network | None
    name: str
    """Lower case; `*.example.org` for everything below; `public`; empty for a network."""
    first_port: int
    last_port: int

    def covers(self, name: str, address: Address, port: int) -> bool:
        """Tell whether the entry speaks of this connection."""
        if not self.first_port <= port <= self.last_port:
            return False
        if self.network is not None:
            return self.network.version == address.version and address in self.network
        # A name lets nothing be reached that is not public: whoever owns it says where it leads.
        if not is_public(address):
            return False
        if self.name == PUBLIC:
            return True
        if self.name.startswith("*."):
            return name.endswith(self.name[1:])
        return name == self.name


class Egress:
    """The lists of one translator.

    Args:
        allow: what may be reached.
        deny: networks that may not, whatever `allow` says.
    """

    def __init__(self, allow: Sequence[EgressRule], deny: Sequence[EgressRule]) -> None:
        self._allow = tuple(allow)
        self._deny = tuple(deny)

    def may_connect(self, name: str, address: Address, port: int) -> bool:
        """Tell whether `address`, to which `name` led, may be connected to at `port`."""
        plain = unwrapped(address)
        looked_at = {address, plain}
        if any(rule.covers("", one, port) for rule in self._deny for one in looked_at):
            return False
        wanted = name.lower().rstrip(".")
        return any(rule.covers(wanted, plain, port) for rule in self._allow)

    def opens(self, address: Address, port: int) -> bool:
        """Tell whether a network of `allow` names this address: the operator means it."""
        plain = unwrapped(address)
        return any(
            rule.network is not None and rule.covers("", plain, port) for rule in self._allow
        )


def parse_rules(
    text: str, parameter: str, *, networks_only: bool = False
) -> tuple[EgressRule, ...]:
    """Read a list of entries, separated by commas or blanks.

    Raises:
        ServiceConfigError: an entry is none.
    """
    return tuple(
        _parse_rule(word, parameter, networks_only) for word in text.replace(",", " ").split()
    )


def is_public(address: Address) -> bool:
    """Tell whether the address is one of the public Internet: neither local, private, shared by
    carriers (CGNAT), multicast, documentation nor reserved."""
    plain = unwrapped(address)
    if plain.is_multicast or plain.is_unspecified or plain.is_loopback or plain.is_link_local:
        return False
    if plain.is_private or plain.is_reserved:
        return False
    if isinstance(plain, ipaddress.IPv6Address) and plain.is_site_local:
        return False
    return plain.is_global


def unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for; else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address.teredo is not None:
        inner = address.teredo[1]
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(address.packed[12:])
    return address if inner is None else inner


def _parse_rule(word: str, parameter: str, networks_only: bool) -> EgressRule:
    what, ports = _split_ports(word)
    first, last = _parse_ports(ports, word, parameter)
    try:
        network = ipaddress.ip_network(what, strict=False)
    except ValueError:
        network = None
    if network is not None:
        return EgressRule(network, "", first, last)
    is_name = what.removeprefix("*.").replace("-", "").replace(".", "").isalnum()
    if networks_only or not is_name or what.replace(".", "").isdigit() or "/" in what:
        kinds = "a network" if networks_only else "`public`, a network or a name"
        raise ServiceConfigError(
            f"parameter {parameter}: {word!r} is no entry; expected {kinds}, then :PORT or "
            ":FIRST-LAST where not every port is meant ([...] around IPv6 then)"
        )
    return EgressRule(None, what.lower().rstrip("."), first, last)


def _split_ports(word: str) -> tuple[str, str]:
    if word.startswith("["):
        what, _, rest = word[1:].partition("]")
        prefix, _, ports = rest.partition(":")
        return what + prefix, ports
    if word.count(":") == 1:
        what, _, ports = word.partition(":")
        return what, ports
    return word, ""


def _parse_ports(ports: str, word: str, parameter: str) -> tuple[int, int]:
    if not ports:
        return 1, 65535
    first, dash, last = ports.partition("-")
    try:
        low = int(first)
        high = int(last) if dash else low
    except ValueError:
        low, high = 0, 0
    if not 1 <= low <= high <= 65535:
        raise ServiceConfigError(f"parameter {parameter}: {word!r} has no ports 1 to 65535")
    return low, high
