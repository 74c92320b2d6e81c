"""One chunk on its way, and what `outstanding` wants done for it.

States: waiting (over the caps) -> queued (for the router) -> in custody -> ended, and between the
last two `releasing` while the hop still reads the payload. Source: design, section 6, "Custody".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.hop.api import Buffer
from packetcloud.host.header_template import HeaderTemplate
from packetcloud.host.results import SendResult


class SendState(Enum):
    """Where one chunk stands."""

    WAITING = "waiting"
    QUEUED = "queued"
    IN_CUSTODY = "in_custody"
    RELEASING = "releasing"
    ENDED = "ended"


_TRANSITIONS = {
    SendState.WAITING: {SendState.QUEUED, SendState.ENDED},
    SendState.QUEUED: {SendState.IN_CUSTODY, SendState.RELEASING, SendState.ENDED},
    SendState.IN_CUSTODY: {SendState.QUEUED, SendState.ENDED},
    SendState.RELEASING: {SendState.ENDED},
    SendState.ENDED: set(),
}


@dataclass(slots=True, eq=False)
class Send:
    """One chunk on its way. `context` belongs to the shell."""

    chunk_id: int
    template: HeaderTemplate
    payload: Buffer
    payload_prefix: bytes
    submitted_s: float
    deadline_s: float
    context: object = None
    state: SendState = SendState.WAITING
    in_flight: bool = False
    """The hop holds it: `settled` will come exactly once."""
    attempts_count: int = 0
    copies_count: int = 0
    """Copies that somebody may hold besides the one in flight: accepted or lost, not given up."""
    may_have_doubled: bool = False
    """It failed beyond the first router: there may be copies that nobody has counted."""
    first_custody_s: float | None = None
    custody_s: float = 0.0
    wake_s: float = 0.0
    last_refusal: tuple[int, str] | None = None
    refusals_count: int = 0
    result: SendResult | None = None

    @property
    def payload_bytes(self) -> int:
        return len(self.payload_prefix) + len(self.payload)

    @property
    def is_over(self) -> bool:
        """Whether its result is known, though the hop may still read the payload."""
        return self.state in (SendState.RELEASING, SendState.ENDED)

    @property
    def may_have_arrived(self) -> bool:
        """Whether a copy may be under way, or delivered, of which we shall not hear."""
        return self.copies_count > 0 or self.may_have_doubled

    def move(self, state: SendState) -> None:
        """Go on to `state`; raises, and changes nothing, where that does not follow."""
        if state not in _TRANSITIONS[self.state]:
            raise LocalMisuseError(f"a send cannot go from {self.state.value} to {state.value}")
        self.state = state

    def prefix(self, now: float) -> bytes:
        """Return chunk header ‖ payload prefix with the lifetime that is left at `now`."""
        left_ms = max(1, int((self.deadline_s - now) * 1000))
        return self.template.fill(self.chunk_id, self.payload_bytes, left_ms) + self.payload_prefix


@dataclass(frozen=True, slots=True)
class HandToHop:
    """Give the chunk to the router's session: `prefix` ‖ `send.payload`."""

    send: Send
    prefix: bytes


@dataclass(frozen=True, slots=True)
class CancelAtHop:
    """Take the chunk back from the session; a settlement follows in any case."""

    send: Send


@dataclass(frozen=True, slots=True)
class Resolve:
    """Tell the caller; nobody reads the payload any more."""

    send: Send
    result: SendResult


SendCommand = HandToHop | CancelAtHop | Resolve
