"""A restarted node tells its neighbours of its earlier life that it knows their sessions no more.

Source: docs/protocol/hop.md, "Handshake".
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.identity import Identity, verify

RESETS_PER_S = 50
"""Answers to datagrams of unknown sessions: enough for a restart, useless for a flood."""
RESETS_PER_ADDRESS = 5
"""Of them to one address: a neighbour of an earlier life sends once in 3 s at least."""
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
        told = self._told
        if told[address] >= RESETS_PER_ADDRESS or told.total() >= RESETS_PER_S:
            self._dropped["resets_full"] += 1
            return None
        told[address] += 1
        signature = self._identity.sign(RESET_DOMAIN, signed_bytes(session_id, self._instance))
        return wire.Reject(session_id, signature).to_bytes()


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
