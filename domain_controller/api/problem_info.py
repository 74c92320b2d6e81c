"""A problem as it is sent: what clients need of it, without what serves them.

Source: docs/reference/domain-requests.md, "Problems".
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FieldError(BaseModel):
    """One mistake in a request."""

    model_config = ConfigDict(extra="forbid")

    pointer: str
    """Where: `body.slot.end_ms`."""
    detail: str
    """What is allowed there."""


class ProblemInfo(BaseModel):
    """Why a request was not done (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str
    """`urn:packetcloud:problem:` and a word for each kind; programs go by this."""
    title: str
    status: int
    detail: str
    """One sentence, for people: what is wrong, what is allowed, what to do."""
    errors: list[FieldError] | None = None
