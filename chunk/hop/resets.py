"""A restarted node tells its neighbours of its earlier life that it knows their sessions no more.

Source: docs/protocol/hop.md, "Handshake".
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.address_rate import bearer_of
from packetcloud.chunk.identity import Identity, verify

RESETS_PER_S = 1000
"""Answers to datagrams of unknown sessions: as many as there may be neighbours of an earlier life.
A signature takes about 20 microseconds, so a flood costs 2 % of a core. They come free one by one:
however many strangers ask, a neighbour has the chance that any of them has."""
RESETS_PER_NETWORK = 50
"""Of them a second to one IPv4 network of 24 bits or IPv6 network of 64: who has no more than one
takes no more than a twentieth."""
RESETS_PER_ADDRESS = 5
"""Of them a second to one address: a neighbour of an earlier life sends once in 3 s at least."""
RESET_DOMAIN = b"hop 2 reset"
_SIGNED = struct.Struct(">QI")


class Resets:
    """Signs resets, few enough a second.

    Args:
        instance: which bearer of the key this node is.
        dropped: where those that were too many are counted.
    """

    def __init__(self, identity: Identity, instance: int, dropped: Counter[str]) -> None:
        self._identity = identity
        self._instance = instance
        self._dropped = dropped
        self._second = 0
        self._told: Counter[Any] = Counter()
        """Resets of this second, by address."""
        self._told_networks: Counter[str | int] = Counter()
        """Resets of this second, by network."""
        self._left = float(RESETS_PER_S)
        """Tokens that were left"""
        self._left_at = 0.0
        """then."""

    def reset(self, session_id: int, asked_bytes: int, address: Any, now: float) -> bytes | None:
        """Return what tells a neighbour that its session is not known here; None: it gets nothing.

        Args:
            asked_bytes: of the datagram that asked; the answer is never longer.
        """
        if asked_bytes < wire.REJECT_BYTES:
            return None
        second = int(now)
        if second != self._second:
            self._second = second
            self._told.clear()
            self._told_networks.clear()
        told, told_networks, network = self._told, self._told_networks, _network_of(address[0])
        left = min(RESETS_PER_S, self._left + max(0.0, now - self._left_at) * RESETS_PER_S)
        self._left, self._left_at = left, now
        # Of a counter `get` leaves no entry behind for who gets nothing.
        if (
            left < 1.0
            or told.get(address, 0) >= RESETS_PER_ADDRESS
            or told_networks.get(network, 0) >= RESETS_PER_NETWORK
        ):
            self._dropped["resets_full"] += 1
            return None
        self._left -= 1.0
        told[address] += 1
        told_networks[network] += 1
        signature = self._identity.sign(RESET_DOMAIN, signed_bytes(session_id, self._instance))
        return wire.Reject(session_id, signature).to_bytes()


def _network_of(host: str) -> str | int:
    """Return the IPv4 network of 24 bits or the IPv6 network of 64 that an address is in."""
    bearer = bearer_of(host)
    return bearer.rpartition(".")[0] or bearer if isinstance(bearer, str) else bearer


def check_reset(reset: wire.Reject, public_key: bytes, instance: int) -> None:
    """Raise ProtocolError unless the neighbour with this key and instance signed the reset."""
    if not verify(public_key, RESET_DOMAIN, signed_bytes(reset.session, instance), reset.signature):
        raise ProtocolError("bad_signature", "REJECT")


def signed_bytes(session_id: int, instance: int) -> bytes:
    """Return what a reset signs: the session id and the instance of who does not know it.

    Replicas bear one key, and none knows the sessions of another: what one of them says of a
    session of its own must not end one of theirs.
    """
    return _SIGNED.pack(session_id, instance)
