"""How a send ended, as its caller is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from packetcloud.chunk.reasons import Reason, reason_word


class SendOutcome(Enum):
    """The end of one send."""

    DELIVERED = "delivered"
    """The destination's application took the chunk."""
    REFUSED = "refused"
    """Somebody on the way, or the destination, gave the chunk up; the reason says why."""
    EXPIRED = "expired"
    """The lifetime ended without word of a delivery."""
    IN_CUSTODY = "in_custody"
    """The router answers for the chunk now. The best answer there is without a report."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """The end of one send. Times are seconds from the call of `send`."""

    outcome: SendOutcome
    reason: int = 0
    """A `Reason` number, 0 when there is none."""
    detail: str = ""
    """The words of whoever gave the chunk up."""
    custody_s: float | None = None
    """When the router first took custody; None: it never did."""
    total_s: float = 0.0
    attempts_count: int = 0
    """How often the chunk was handed to the router: 0 = it never left, 1 = once."""
    indeterminate: bool = False
    """Not delivered as far as anybody told us, but another copy was out of our hands: the
    destination may have taken it all the same, so sending it again under a new id may deliver it
    twice. So it is after every failure that a router beyond the first one reports."""

    @property
    def ok(self) -> bool:
        """Delivered, or, where no report was asked for, in the router's custody."""
        return self.outcome in (SendOutcome.DELIVERED, SendOutcome.IN_CUSTODY)

    @property
    def reason_word(self) -> str:
        """The reason as a word, empty when there is none."""
        return reason_word(self.reason) if self.reason else ""

    def explain(self) -> str:
        """Return one line for a person: what happened, why, and what to look at next."""
        if self.ok:
            return self.outcome.value.replace("_", " ")
        text = self.outcome.value
        if self.reason:
            text += f": {self.reason_word}"
        if self.detail:
            text += f" ({self.detail})"
        if self.indeterminate:
            text += "; it may have arrived all the same"
        advice = _NEXT_STEP.get(self.reason)
        return f"{text}; {advice}" if advice else text


_NEXT_STEP: dict[int, str] = {
    Reason.UNKNOWN_SID: "is a service with this SID attached to a router on the way?",
    Reason.UNRESOLVABLE_GUID: (
        "is the destination attached to a router, and does your router's name table know it?"
    ),
    Reason.HOP_LIMIT: "the routers' name tables may form a loop",
    Reason.SERVICE_FAILED: "look at the service's log and state at its router",
    Reason.PAYLOAD_TOO_LARGE: "send smaller chunks",
    Reason.NOT_AUTHORISED: "the router does not let this host send under that name",
    Reason.STORE_FULL: "a router on the way is out of room; try again later",
    Reason.NEIGHBOUR_LOST: "a link on the way is down; try again later",
    Reason.SHUTTING_DOWN: "a router on the way is stopping; try again later",
    Reason.UNSUPPORTED: "a node on the way is too old for this chunk",
}
