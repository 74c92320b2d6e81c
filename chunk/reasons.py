"""Why a chunk was not delivered: one number and one word for each reason.

The number travels in hop refusals and delivery reports, the word is the metric label and what a
user reads. Numbers are never re-used. Source: docs/protocol/chunk.md, "Reasons".
"""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """A reason for not delivering a chunk."""

    UNKNOWN_SID = 1
    """No VI of this service is attached here, and no route to it is known."""
    UNRESOLVABLE_GUID = 2
    """The destination is neither attached here nor in the name table."""
    HOP_LIMIT = 3
    """The hop limit reached zero."""
    SERVICE_FAILED = 4
    """No VI of a fail-closed service gave a verdict."""
    DEADLINE_PASSED = 5
    """The chunk's lifetime ended while it was held."""
    PAYLOAD_TOO_LARGE = 6
    """The payload is over the limit of a custodian."""
    DROPPED_BY_SERVICE = 7
    """A service decided to discard the chunk; the detail is the service's own word."""
    MALFORMED = 8
    """The chunk's bytes break the format."""
    UNSUPPORTED = 9
    """The chunk needs something this node does not have, such as a critical extension."""
    NOT_AUTHORISED = 10
    """The neighbour may not send this chunk, for example under a source GUID it does not own."""
    STORE_FULL = 11
    """The custodian had no room when the chunk came."""
    NEIGHBOUR_LOST = 12
    """The next hop went away and no other was found."""
    SHUTTING_DOWN = 13
    """The custodian is draining."""
    DIGEST_MISMATCH = 14
    """The payload does not match the digest that the source sent with it."""
    CANCELLED = 15
    """The sender itself gave the chunk up."""
    RECEIVER_REFUSED = 16
    """The destination's application refused the chunk; the detail is its own word."""
    INTERNAL_ERROR = 17
    """A fault of the custodian itself; its log has the details."""
    OUTCOME_UNKNOWN = 18
    """A custodian gave its copy up, and the next one may have another; the detail says why."""
    SEND_AGAIN = 19
    """A service could do nothing with this copy, and may with the next: its source sends the chunk
    again. The detail is the service's own word."""

    @property
    def word(self) -> str:
        """The reason as a metric label: lower case, underscores."""
        return self.name.lower()


def reason_word(code: int) -> str:
    """Return the word for `code`, also for one that a newer peer knows and we do not."""
    try:
        return Reason(code).word
    except ValueError:
        return f"reason_{code}"
