"""What an operator grants a service towards the IP network: read, and checked. Pure.

Nothing is granted unless it is written down. `allow` says where VIs of a service may connect to;
what belongs to the carrier (`NEVER`) stays out of reach also of `0.0.0.0/0`, and only the key
`dangerously_allow_internal` opens a part of it. Source: docs/decisions/0017-egress-of-vis.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from packetcloud.cloudlet.errors import CloudletConfigError

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

MAX_PLACES_COUNT = 64
"""Of one key; each is a rule that each packet of the service passes."""
MAX_PORT_RANGES_COUNT = 16
MAX_RESOLVERS_COUNT = 3
"""A C library asks no more. Source: resolv.conf(5), MAXNS."""
MAX_LISTEN_COUNT = 64
INTERNAL_KEY = "dangerously_allow_internal"
NEVER: Mapping[Network, str] = {
    ip_network(network): what
    for network, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by carriers"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "of protocols"),
        ("192.88.99.0/24", "6to4 relays"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved, or everybody"),
        # All of IPv6 but 2000::/3, which is what has been given to anybody.
        ("::/3", "loopback, IPv4 in IPv6, or not in use"),
        ("4000::/2", "not in use"),
        ("8000::/2", "not in use"),
        ("c000::/3", "not in use"),
        ("e000::/4", "not in use"),
        ("f000::/5", "not in use"),
        ("f800::/6", "not in use"),
        ("fc00::/7", "private"),
        ("fe00::/8", "link-local, or site-local"),
        ("ff00::/8", "multicast"),
        ("2001::/32", "IPv4 in IPv6 (Teredo)"),
        ("2002::/16", "IPv4 in IPv6 (6to4)"),
    )
}
"""Out of reach, and what it is. Source: the registries of RFC 6890, and RFC 4291."""
_NOBODYS = frozenset(
    {
        "this network",
        "loopback",
        "loopback, IPv4 in IPv6, or not in use",
        "link-local",
        "link-local, or site-local",
        "multicast",
        "reserved, or everybody",
    }
)
"""What not even `dangerously_allow_internal` opens: it is no place that a packet is routed to."""
_DESTINATION = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?)\]|(?P<ipv4>[0-9.]+(?:/[0-9]{1,2})?))"
    r":(?P<ports>[0-9][0-9,-]*)"
)
_FORM = (
    "allowed: NETWORK:PORTS, such as 203.0.113.0/24:80,443 or [2001:db8::/32]:443 or "
    "0.0.0.0/0:8000-8099"
)
_LARGEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Destination:
    """A network and TCP ports there."""

    network: Network
    ports: tuple[tuple[int, int], ...]
    """First and last of each range; sorted, none touches the next."""

    @classmethod
    def of(cls, text: str) -> Destination:
        """Read one.

        Raises:
            CloudletConfigError: it is none; the text says what is allowed.
        """
        found = _DESTINATION.fullmatch(text)
        if found is None:
            raise CloudletConfigError(f"{text!r}: {_FORM}")
        try:
            network = ip_network(found["ipv6"] or found["ipv4"])
        except ValueError as error:
            raise CloudletConfigError(f"{text!r}: {error}; {_FORM}") from None
        return cls(network, _merged(_ranges(text, found["ports"])))

    def __str__(self) -> str:
        network = f"[{self.network}]" if self.network.version == 6 else str(self.network)
        return f"{network}:{','.join(map(range_text, self.ports))}"


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What the VIs of one service may do in the IP network."""

    service: str
    allow: tuple[Destination, ...] = ()
    internal: tuple[Destination, ...] = ()
    resolvers: tuple[Address, ...] = ()
    connections_count: int = 256
    """At once, of each VI, IPv4 and IPv6 apart; as many again that others begin."""
    connections_per_s: int = 50
    mib_per_s: int | None = None
    """Of each VI, each way; what is more is dropped. None: as many as there are."""
    denied_per_violation: int = 100
    """Denied tries of a VI that count as one violation; 0: they do not count."""
    listen: Mapping[int, int] = field(default_factory=dict)
    """Port of a VI by port of its node."""

    @property
    def is_granted(self) -> bool:
        """Tell whether VIs of the service have a NIC for it."""
        return bool(self.allow or self.internal or self.resolvers or self.listen)

    @property
    def reaches_ipv6(self) -> bool:
        """Tell whether a VI has any use for IPv6."""
        places = (*self.allow, *self.internal)
        return any(one.network.version == 6 for one in places) or any(
            one.version == 6 for one in self.resolvers
        )

    def summary(self) -> list[str]:
        """Return what is granted, for people: one line each."""
        return [
            *(f"connects to {one}" for one in self.allow),
            *(f"connects to {one} (internal)" for one in self.internal),
            *(f"asks {one} for names" for one in self.resolvers),
            *([f"at most {self.mib_per_s} MiB/s each way"] if self.mib_per_s else []),
            *(f"listens on port {here} (its own {own})" for here, own in self.listen.items()),
        ]


def parse_policy(
    service: str,
    allow: Sequence[str],
    internal: Sequence[str],
    resolvers: Sequence[Address],
    own_networks: Mapping[Network, str],
) -> EgressPolicy:
    """Read and check the places that are granted; the bounds are those of `EgressPolicy`.

    Args:
        own_networks: of the cloudlet and its operator, which no VI ever reaches, and what each is.

    Raises:
        CloudletConfigError: names key and value, and what is allowed.
    """
    places = tuple(_read("allow", allow))
    for one in places:
        for closed, what in {**NEVER, **own_networks}.items():
            if _is_within(one.network, closed):
                raise CloudletConfigError(
                    f"egress allow: '{one}' lies in {closed} ({what}), which no VI reaches; if it "
                    f"must, name it in {INTERNAL_KEY} instead"
                )
    opened = tuple(_read(INTERNAL_KEY, internal))
    for one in opened:
        for closed, what in {**_nobodys(), **own_networks}.items():
            if one.network.version == closed.version and one.network.overlaps(closed):
                raise CloudletConfigError(
                    f"egress {INTERNAL_KEY}: '{one}' overlaps {closed} ({what}), which nothing "
                    "opens; allowed: networks apart from it"
                )
    for resolver in resolvers:
        for closed, what in {**_nobodys(), **own_networks}.items():
            if resolver.version == closed.version and resolver in closed:
                raise CloudletConfigError(
                    f"egress resolvers: {resolver} lies in {closed} ({what}); allowed: name "
                    "servers elsewhere"
                )
    return EgressPolicy(service, places, opened, tuple(resolvers))


def parse_listen(ports: Mapping[str, int]) -> dict[int, int]:
    """Read the ports that a node takes connections at for a VI.

    Raises:
        CloudletConfigError: no port.
    """
    found: dict[int, int] = {}
    for text, own in ports.items():
        is_number = text.isascii() and text.isdigit() and not text.startswith("0")
        if not is_number or not 1 <= int(text) <= _LARGEST_PORT:
            raise CloudletConfigError(
                f"listen: {text!r} = {own}: allowed: a port of the node, 1 to {_LARGEST_PORT}, and "
                "the VI's, such as { 80 = 8080 }"
            )
        found[int(text)] = own
    return found


def address_text(text: str) -> Address | None:
    """Return the address that a host is named by; None: it is a name."""
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None


def range_text(ports: tuple[int, int]) -> str:
    first, last = ports
    return str(first) if first == last else f"{first}-{last}"


def _read(key: str, texts: Sequence[str]) -> Iterator[Destination]:
    for text in texts:
        try:
            yield Destination.of(text)
        except CloudletConfigError as error:
            raise CloudletConfigError(f"egress {key}: {error}") from None


def _nobodys() -> dict[Network, str]:
    return {network: what for network, what in NEVER.items() if what in _NOBODYS}


def _is_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return False


def _ranges(text: str, ports: str) -> Iterator[tuple[int, int]]:
    parts = ports.split(",")
    if len(parts) > MAX_PORT_RANGES_COUNT:
        raise CloudletConfigError(
            f"{text!r}: {len(parts)} ports or ranges; allowed: {MAX_PORT_RANGES_COUNT}"
        )
    for part in parts:
        words = part.split("-")
        if len(words) > 2 or not all(words) or max(map(len, words)) > len(str(_LARGEST_PORT)):
            raise CloudletConfigError(f"{text!r}: {_FORM}")
        first, last = int(words[0]), int(words[-1])
        if not 1 <= first <= last <= _LARGEST_PORT:
            raise CloudletConfigError(f"{text!r}: ports {part}; allowed: 1 to {_LARGEST_PORT}")
        yield first, last


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return sorted ranges that do not touch: nft takes no others."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
