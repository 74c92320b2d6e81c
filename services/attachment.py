"""Core: how a service gets attached to its router, and attached again when the router was gone.

Events come in as calls with `now`; what to do comes back as a list of commands. Replaying an event
that does not fit the state changes nothing, since a shell may learn of one loss from two sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from packetcloud.services.backoff import Backoff

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
"""A router that comes back is found again within so long."""
STABLE_S = 10.0
"""An attachment that held for so long counts as working: the next loss starts with no delay."""


class AttachmentState(Enum):
    """Where the service stands with its router."""

    IDLE = "idle"
    CONNECTING = "connecting"
    ATTACHED = "attached"
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a session with the router."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Call `retry_due` at this time."""

    time_s: float


Command = Connect | RetryAt


class Attachment:
    """One service's attachment to one router."""

    def __init__(self) -> None:
        self.state = AttachmentState.IDLE
        self.attached_at: float | None = None
        self.attached_count = 0
        self._backoff = Backoff(FIRST_DELAY_S, LONGEST_DELAY_S)

    def start(self) -> list[Command]:
        return self._connect_from(AttachmentState.IDLE)

    def retry_due(self) -> list[Command]:
        return self._connect_from(AttachmentState.WAITING)

    def connected(self, now: float) -> list[Command]:
        """The session with the router is up."""
        if self.state is AttachmentState.CONNECTING:
            self.state = AttachmentState.ATTACHED
            self.attached_at = now
            self.attached_count += 1
        return []

    def failed(self, now: float, random: float) -> list[Command]:
        """Connecting did not work."""
        if self.state is not AttachmentState.CONNECTING:
            return []
        return self._wait(now + self._backoff.next_delay_s(random))

    def lost(self, now: float, random: float) -> list[Command]:
        """The session ended: at once again after a stable time, else after a growing delay."""
        if self.state is not AttachmentState.ATTACHED or self.attached_at is None:
            return []
        was_stable = now - self.attached_at >= STABLE_S
        self.attached_at = None
        if was_stable:
            self._backoff.reset()
            return self._wait(now)
        return self._wait(now + self._backoff.next_delay_s(random))

    def close(self) -> None:
        """Nothing more is to be attached."""
        self.state = AttachmentState.CLOSED
        self.attached_at = None

    def _connect_from(self, expected: AttachmentState) -> list[Command]:
        if self.state is not expected:
            return []
        self.state = AttachmentState.CONNECTING
        return [Connect()]

    def _wait(self, until: float) -> list[Command]:
        self.state = AttachmentState.WAITING
        return [RetryAt(until)]
