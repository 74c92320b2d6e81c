"""A VI's way to the IP network, as a part of the tables of nftables. Pure: a plan in, text out.

VIs with a grant have a NIC on a bridge that leads nowhere but to this machine. What comes in by it
is judged before it is routed or tracked: the address must be that of a VI whose service was
launched (sets that the controller fills), the place one that the service was granted. What passes
is routed out of one device, under this machine's own address; back comes what belongs to it.
Connections are counted and bounded for each VI. Whoever listens gets what its node's port is sent.

Source: docs/decisions/0017-egress-of-vis.md; nft(8), "DYNAMIC SETS", "NAT STATEMENTS".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses

from packetcloud.cloudlet.addresses import MAX_NUMBERS_COUNT, Subnet
from packetcloud.cloudlet.egress import (
    NEVER,
    Address,
    Destination,
    EgressPolicy,
    Network,
    range_text,
)
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.policy import EGRESS_MTU

_RAW = -300
"""Before the kernel keeps track of connections."""
_ANSWERS = "100/second burst 100 packets"
_GATEWAY = 1
"""Number of this machine's own address on the bridge."""
_WAYS = ("out", "in")
_KINDS = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}
_PROTOCOLS = {4: "ipv4", 6: "ipv6"}
DENIED, OPENED, BOUNDED = "egress_denied", "egress_opened", "egress_bounded"
"""Sets of VIs with a count each: denied tries, connections that began, such that were too many."""
COUNTS = (DENIED, OPENED, BOUNDED)


@dataclass(frozen=True, slots=True)
class EgressPlan:
    """The bridge to the IP network, and what is granted to VIs on it."""

    name: str
    """Of the bridge."""
    subnet: Subnet
    device: str
    """Of this machine, by which the IP network is reached."""
    policies: tuple[EgressPolicy, ...] = ()
    """Of the services with a grant; the place of one names its sets and chains."""
    never: tuple[Network, ...] = ()
    """Networks that nobody reaches, besides `NEVER`: the operator's and the cloudlet's own."""
    forwards_ipv6: bool = False

    @property
    def mtu(self) -> int:
        return EGRESS_MTU

    @property
    def peer_ipv4(self) -> IPv4Address:
        return self.subnet.ipv4[_GATEWAY]

    @property
    def peer_ipv6(self) -> IPv6Address:
        return self.subnet.ipv6[_GATEWAY]

    def policy_of(self, service: str) -> EgressPolicy | None:
        """Return what a service is granted; None: nothing."""
        return next((one for one in self.policies if one.service == service), None)


@dataclass(frozen=True, slots=True)
class EgressElements:
    """Who may use the bridge now: what the controller fills the sets with."""

    vis: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Numbers of addresses, by service."""
    listeners: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Number of an address and port, by port of the node."""


def check_listeners(policies: Iterable[EgressPolicy], taken: Mapping[int, str]) -> None:
    """See that each port of the node has one use.

    Args:
        taken: TCP ports that the node needs itself, and what for.

    Raises:
        CloudletConfigError: names service and port.
    """
    used = dict(taken)
    for policy in policies:
        for port in policy.listen:
            if port in used:
                raise CloudletConfigError(
                    f"[[service]] {policy.service}: listen: port {port} is that of {used[port]}; "
                    "allowed: a port of its own"
                )
            used[port] = f"service {policy.service}"


def egress_sets(plan: EgressPlan) -> list[str]:
    """Return the lines of sets and maps; they stand before all chains."""
    lines: list[str] = []
    for version, (_, kind) in _KINDS.items():
        counted = [f"{name}{version}" for name in COUNTS]
        for number, policy in enumerate(plan.policies):
            for way in _WAYS:
                # Two of each: who calls from outside takes nothing away from what goes out.
                counted += [f"egress_{what}_{way}{version}_{number}" for what in ("rate", "open")]
            if policy.mib_per_s is not None:
                counted += [f"egress_bytes_{way}{version}_{number}" for way in _WAYS]
            lines.append(f"  set egress_vis{version}_{number} {{ type {kind}; }}")
        for name in counted:
            lines.append(
                f"  set {name} {{ type {kind}; size {MAX_NUMBERS_COUNT}; flags dynamic; }}"
            )
        lines.append(
            f"  map egress_ports{version} {{ type inet_service : {kind} . inet_service; }}"
        )
    return lines


def egress_chains(
    plan: EgressPlan, bridges: Sequence[str], *, closed_transit: Collection[int]
) -> list[str]:
    """Return the lines of all chains; `egress` is for what comes in by the bridge.

    Args:
        bridges: of data and control, to which nothing is forwarded.
        closed_transit: 4, 6 or both: what this machine forwards because of us; nothing else of that
            is to pass by the device.
    """
    services = range(len(plan.policies))
    gateway = plan.peer_ipv6
    lines = ["  chain to_bridges {"]
    lines += [f"    type filter hook output priority {_RAW}; policy accept;"]
    lines += [f"    oifname {_words(map(_quoted, bridges))} notrack", "  }"]
    lines += _chain(
        "egress",
        [
            "ip6 nexthdr icmpv6 icmpv6 type nd-neighbor-solicit "
            f"@nh,384,128 0x{int(gateway):032x} counter accept",
            # A question about a VI's address comes from the bridge's link-local one.
            f"ip6 daddr {{ {gateway}, fe80::/10 }} icmpv6 type nd-neighbor-advert counter accept",
            # What a kernel says by itself is no try of anybody's.
            "ip6 daddr ff00::/8 meta l4proto icmpv6 counter drop",
            "icmp type destination-unreachable counter drop",
            "icmpv6 type destination-unreachable counter drop",
            *(
                f"{family} saddr @egress_vis{version}_{number} goto egress_from_{number}"
                for number in services
                for version, (family, _) in _KINDS.items()
            ),
            "goto egress_denied",
        ],
    )
    for number, policy in enumerate(plan.policies):
        lines += _chain(f"egress_from_{number}", _of_service(policy))
    lines += _chain("egress_never", _never(plan.never))
    lines += _chain(
        "egress_denied",
        [
            # The rest of a connection that was open: no new try.
            "tcp flags & (syn | ack) != syn counter drop",
            *_count(DENIED, "saddr"),
            # It hears at once that it is in vain, but a flood is not answered.
            f"limit rate {_ANSWERS} counter reject with icmpx type admin-prohibited",
            "counter drop",
        ],
    )
    lines += ["  chain egress_forward {"]
    lines += ["    type filter hook forward priority 10; policy accept;"]
    lines += [f"    iifname {_words(map(_quoted, bridges))} counter drop"]
    lines += [f"    oifname {_words(map(_quoted, bridges))} counter drop"]
    lines += [
        f'    oifname "{plan.name}" goto egress_in',
        f'    iifname "{plan.name}" goto egress_out',
    ]
    lines += [
        f'    iifname "{plan.device}" meta nfproto {_PROTOCOLS[version]} goto egress_transit'
        for version in sorted(closed_transit)
    ]
    lines += ["  }"]
    lines += _chain(
        "egress_transit",
        ["ct state established,related accept", "ct status dnat accept", "counter drop"],
    )
    lines += _chain(
        "egress_out",
        [
            f'oifname != "{plan.device}" goto egress_denied',
            *_rates(plan, "out"),
            "ct state established counter accept",
            "ct state != new goto egress_denied",
            "meta l4proto tcp tcp flags & (fin | syn | rst | ack) != syn goto egress_denied",
            *_each(services, "saddr", "egress_out"),
            "goto egress_denied",
        ],
    )
    lines += _chain(
        "egress_in",
        [
            f'iifname != "{plan.device}" counter drop',
            *_rates(plan, "in"),
            "ct state established,related counter accept",
            "ct state != new counter drop",
            *(f"ct status dnat {one}" for one in _each(services, "daddr", "egress_in")),
            "counter drop",
        ],
    )
    for number, policy in enumerate(plan.policies):
        for way, side in (("out", "saddr"), ("in", "daddr")):
            lines += _chain(f"egress_{way}_{number}", _bounds(policy, number, side))
    lines += _chain("egress_bounded_out", [*_count(BOUNDED, "saddr"), "counter drop"])
    lines += _chain("egress_bounded_in", [*_count(BOUNDED, "daddr"), "counter drop"])
    lines += ["  chain egress_ports {"]
    lines += ["    type nat hook prerouting priority -100; policy accept;"]
    for version, (family, _) in _KINDS.items():
        lines += [
            f'    iifname "{plan.device}" fib daddr type local '
            f"dnat {family} addr . port to tcp dport map @egress_ports{version}"
        ]
    lines += ["  }", "  chain egress_masquerade {"]
    lines += ["    type nat hook postrouting priority 100; policy accept;"]
    for family, network in (("ip", plan.subnet.ipv4), ("ip6", plan.subnet.ipv6)):
        lines += [f'    oifname "{plan.device}" {family} saddr {network} masquerade']
    return [*lines, "  }"]


def elements_script(plan: EgressPlan, table: str, elements: EgressElements) -> str:
    """Return what makes sets and maps hold these, and nothing else."""
    lines: list[str] = []
    for number, policy in enumerate(plan.policies):
        addresses = [
            plan.subnet.addresses(one) for one in sorted(elements.vis.get(policy.service, ()))
        ]
        for version in _KINDS:
            name = f"inet {table} egress_vis{version}_{number}"
            found = [one.ipv4.ip if version == 4 else one.ipv6.ip for one in addresses]
            lines.append(f"flush set {name}")
            lines += [f"add element {name} {_words(found)}"] if found else []
    for version in _KINDS:
        name = f"inet {table} egress_ports{version}"
        lines.append(f"flush map {name}")
        for port, (number, own) in sorted(elements.listeners.items()):
            addresses_of = plan.subnet.addresses(number)
            address = addresses_of.ipv4.ip if version == 4 else addresses_of.ipv6.ip
            lines.append(f"add element {name} {{ {port} : {address} . {own} }}")
    return "".join(f"{line}\n" for line in lines)


def _of_service(policy: EgressPolicy) -> list[str]:
    """Return the rules of a VI's packets: what was named by itself, what is closed, the rest."""
    named = [_to(one) for one in policy.internal]
    for resolver in policy.resolvers:
        place = f"{_family(resolver)} daddr {resolver}"
        named += [f"{place} udp dport 53", f"{place} tcp dport 53"]
    rules = [f"{one} counter accept" for one in named]
    rules += ["fib daddr type != unicast goto egress_denied"]
    if policy.listen:
        # Answers to whoever connected, wherever that is; `egress_out` knows whether somebody did.
        ports = _words(sorted(set(policy.listen.values())))
        rules += [f"tcp sport {ports} tcp flags & (syn | ack) != syn counter accept"]
    rules += ["jump egress_never", *(f"{_to(one)} counter accept" for one in policy.allow)]
    return [*rules, "goto egress_denied"]


def _to(place: Destination) -> str:
    family = _KINDS[place.network.version][0]
    where = f"{family} daddr {place.network}"
    if place.network.prefixlen == 0:  # nft takes no such prefix
        where = f"meta nfproto {_PROTOCOLS[place.network.version]}"
    return f"{where} tcp dport {_words(map(range_text, place.ports))}"


def _never(more: Sequence[Network]) -> list[str]:
    closed = (*NEVER, *more)
    # nft takes no networks that overlap.
    ipv4 = collapse_addresses(one for one in closed if isinstance(one, IPv4Network))
    ipv6 = collapse_addresses(one for one in closed if isinstance(one, IPv6Network))
    return [
        f"{family} daddr {_words(networks)} goto egress_denied"
        for family, networks in (("ip", ipv4), ("ip6", ipv6))
    ]


def _bounds(policy: EgressPolicy, number: int, side: str) -> list[str]:
    """Return the rules of a connection that begins: how many a second, and at once."""
    way = "out" if side == "saddr" else "in"
    rate, count = policy.connections_per_s, policy.connections_count
    rules = []
    for version, (family, _) in _KINDS.items():
        who = f"{family} {side}"
        over = f"limit rate over {rate}/second burst {rate} packets"
        rules += [
            f"update @egress_rate_{way}{version}_{number} {{ {who} {over} }} "
            f"goto egress_bounded_{way}"
        ]
    for version, (family, _) in _KINDS.items():
        who = f"{family} {side}"
        rules += [
            f"add @egress_open_{way}{version}_{number} {{ {who} ct count over {count} }} "
            f"goto egress_bounded_{way}"
        ]
    return [*rules, *_count(OPENED, side), "counter accept"]


def _rates(plan: EgressPlan, way: str) -> list[str]:
    """Return what drops bytes beyond so many a second: TCP slows down."""
    side = "saddr" if way == "out" else "daddr"
    rules = []
    for number, policy in enumerate(plan.policies):
        if (rate := policy.mib_per_s) is None:
            continue
        over = f"limit rate over {rate} mbytes/second burst {max(1, rate // 10)} mbytes"
        rules += [
            f"{family} {side} @egress_vis{version}_{number} "
            f"update @egress_bytes_{way}{version}_{number} {{ {family} {side} {over} }} "
            "counter drop"
            for version, (family, _) in _KINDS.items()
        ]
    return rules


def _count(name: str, side: str) -> list[str]:
    return [
        f"update @{name}{version} {{ {family} {side} counter }}"
        for version, (family, _) in _KINDS.items()
    ]


def _each(services: range, side: str, chain: str) -> list[str]:
    return [
        f"{family} {side} @egress_vis{version}_{number} goto {chain}_{number}"
        for number in services
        for version, (family, _) in _KINDS.items()
    ]


def _chain(name: str, rules: Sequence[str]) -> list[str]:
    return [f"  chain {name} {{", *(f"    {rule}" for rule in rules), "  }"]


def _family(address: Address) -> str:
    return _KINDS[address.version][0]


def _quoted(device: str) -> str:
    return f'"{device}"'


def _words(values: Iterable[object]) -> str:
    return "{ " + ", ".join(map(str, values)) + " }"
