"""What a handshake ends with, and a session begins with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.keys import KeyRing
from packetcloud.chunk.names import GUID


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both sides said about themselves and proved, seen from one of them."""

    public_key: bytes
    """The neighbour's."""
    parameters: wire.Parameters
    """The neighbour's."""
    own_parameters: wire.Parameters
    address: Any
    local_id: int
    remote_id: int
    """The session id that the neighbour chose."""
    ring: KeyRing | None = field(repr=False)
    """The keys; None in an open session."""
    envelope: Envelope = field(repr=False)
    rtt_s: float
    """Measured on the way."""
    lane_token: bytes = field(repr=False)
    """What both sides know and nobody else: whoever says it may share memory with this session."""

    @property
    def guid(self) -> GUID:
        return GUID.from_public_key(self.public_key)

    @property
    def datagram_bytes(self) -> int:
        """The largest datagram that both sides and their routes take."""
        return min(self.parameters.max_datagram_bytes, self.own_parameters.max_datagram_bytes)
