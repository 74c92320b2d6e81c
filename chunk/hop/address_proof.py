"""Proof that a neighbour is where its datagrams come from now: a token there and back.

A neighbour that moved, or whose NAT gave it another port, is known by its keys; but anybody may
have sent its datagram on from elsewhere. So what comes from a new address counts for nothing but
its frames until the token that went there came back from there.

Source: docs/protocol/hop.md, "Moving"; RFC 9000, section 8.2 for the idea.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from packetcloud.chunk.hop import wire


class AddressProof:
    """The one address of a session that is being proven, and its token."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._address: Any = None
        self._token = b""

    def challenge(self, address: Any) -> bytes:
        """Return the frame to send to `address`; a new address takes the place of another."""
        if address != self._address:
            self._address = address
            self._token = self._random_bytes(wire.PATH_TOKEN_BYTES)
        return wire.PathChallengeFrame(self._token).to_bytes()

    def is_proven_by(self, address: Any, token: bytes) -> bool:
        """Tell whether `token`, which came from `address`, proves it; it does so once."""
        if address != self._address or not hmac.compare_digest(token, self._token):
            return False
        self._address, self._token = None, b""
        return True
