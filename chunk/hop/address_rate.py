"""How often one address may ask for what costs us a signature: a token bucket each.

An IPv6 network of 64 bits counts as one address: whoever has one of them has all.

Source: reference T-08; docs/protocol/hop.md, "Caps".
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

HANDSHAKES_PER_S = 20.0
HANDSHAKE_BURST = 5.0
"""A signature and an exchange take about 0.2 ms: one address costs 0.4 % of a core at most. Who
has more neighbours behind one address waits for the next try, 0.1 s later."""
ADDRESSES_COUNT = 4096
"""Addresses remembered, about 200 bytes each. The one unseen for longest makes room; by then its
bucket is full again, unless so many ask within a quarter of a second, and then a cookie is due."""


NETWORK_BITS = 64
"""Of an IPv6 address: the rest is the bearer's own choice (RFC 4291, section 2.5.1)."""


class AddressRate:
    """A token bucket for each of the addresses that asked last."""

    def __init__(
        self, per_s: float = HANDSHAKES_PER_S, burst: float = HANDSHAKE_BURST,
        addresses_count: int = ADDRESSES_COUNT,
    ) -> None:  # fmt: skip
        self._per_s = per_s
        self._burst = burst
        self._addresses_count = addresses_count
        self._buckets: OrderedDict[str | int, tuple[float, float]] = OrderedDict()
        """Tokens left, and when; by the address, or the network's first 64 bits."""
        self.forgotten_count = 0
        """Addresses that made room for others."""

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, host: str, now: float) -> bool:
        """Take one token of `host`; False when it has none."""
        bearer = bearer_of(host)
        left, at = self._buckets.pop(bearer, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        allowed = left >= 1.0
        self._buckets[bearer] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > self._addresses_count:
            self._buckets.popitem(last=False)
            self.forgotten_count += 1
        return allowed


def bearer_of(host: str) -> str | int:
    """Return what all addresses have in common that one bearer of `host` can send from."""
    if ":" not in host:
        return host
    address = ip_address(host.partition("%")[0])
    assert isinstance(address, IPv6Address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return int(address) >> 128 - NETWORK_BITS
