"""What sends chunks that differ in their ids alone, and receives nothing."""

from __future__ import annotations

from packetcloud.chunk.hop.api import Body, Neighbour, Refusal
from packetcloud.chunk.messages import BodyKind
from packetcloud.testbed.processes import emit_event

CHUNK_ID = slice(8, 16)
"""Where it is in a header."""


class Source:
    """The layer above the hop node of such a process; when and what is sent is for subclasses."""

    def __init__(self, first_id: int) -> None:
        self._neighbour: Neighbour | None = None
        """Whom to send to; None: nobody now."""
        self._next_id = first_id
        self._before_id = self._after_id = b""

    def _set_head(self, head: bytes) -> None:
        """Have this header on what is sent from now on."""
        self._before_id, self._after_id = head[: CHUNK_ID.start], head[CHUNK_ID.stop :]

    def _next_head(self) -> tuple[int, bytes]:
        """Return id and header of the next chunk."""
        number = self._next_id
        self._next_id = number + 1
        return number, self._before_id + number.to_bytes(8, "big") + self._after_id

    def neighbour_up(self, neighbour: Neighbour) -> None:
        pass

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        if self._neighbour is not None:
            self._neighbour = None
            emit_event("error", text=f"the session ended: {reason}")

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Body) -> Refusal | None:
        body.release()
        return None
