"""A service's state on its way over the control link: announced, in pieces, checked at the end."""

from __future__ import annotations

import hashlib
from typing import Any

from packetcloud.chunk.errors import ProtocolError
from packetcloud.services.control_frames import MAX_STATE_BYTES


def announcement(state: bytes) -> dict[str, Any]:
    """Return what the message before the pieces says of them."""
    return {"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}


class StateIntake:
    """Collects the pieces of one announced state.

    Raises:
        ProtocolError: the announcement is not one, or announces more than `MAX_STATE_BYTES`.
    """

    def __init__(self, announced: dict[str, Any]) -> None:
        count, digest = announced.get("bytes"), announced.get("sha256")
        if type(count) is not int or not 0 <= count <= MAX_STATE_BYTES:
            raise ProtocolError(
                f"control link: a state of {count!r} bytes; allowed: 0 to {MAX_STATE_BYTES}"
            )
        if not isinstance(digest, str) or len(digest) != 64:
            raise ProtocolError("control link: a state without its SHA-256")
        self._count = count
        self._digest = digest
        self._pieces = bytearray()

    @property
    def is_complete(self) -> bool:
        """Tell whether every byte that was announced is here."""
        return len(self._pieces) == self._count

    def add(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            ProtocolError: more comes than was announced.
        """
        if len(self._pieces) + len(piece) > self._count:
            raise ProtocolError(f"control link: more than the {self._count} bytes announced")
        self._pieces += piece

    def state(self) -> bytes:
        """Return the whole state.

        Raises:
            ProtocolError: it is not what was announced.
        """
        state = bytes(self._pieces)
        if not self.is_complete or hashlib.sha256(state).hexdigest() != self._digest:
            raise ProtocolError("control link: the state is not the one that was announced")
        return state
