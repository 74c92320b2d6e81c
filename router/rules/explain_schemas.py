"""What is asked about a chunk, and the explanation: the body and the answer of a request."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_EXPLAINED_PAYLOAD_BYTES = 1 << 20
"""Of the payload that comes with a question: read on the router's loop, some milliseconds."""
MAX_FINDINGS_COUNT = 1000
"""Rules of one answer; those that match come before those that miss."""
Hex20 = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]


class ExplainQuestion(BaseModel):
    """One chunk, as it comes to the router."""

    model_config = ConfigDict(extra="forbid")

    header: str = Field(pattern="^([0-9a-f]{2}){88,1024}$", description="The encoded header.")
    payload: str | None = Field(
        None,
        max_length=MAX_EXPLAINED_PAYLOAD_BYTES * 4 // 3 + 4,
        description="In base64, 1 MiB at most; without it no pattern is found.",
    )
    ingress: Hex20 = Field(description="GUID of the neighbour that it comes from.")

    @field_validator("payload")
    @classmethod
    def _is_base64(cls, value: str | None) -> str | None:
        if value is not None:
            base64.b64decode(value, validate=True)
        return value


class RuleFinding(BaseModel):
    """One rule and what became of it."""

    number: int
    set: str
    name: str
    signer: str
    is_own: bool
    """The ISP's: outranks all others."""
    priority: int
    action: Literal["visit", "pass"]
    mode: Literal["active", "shadow"]
    service: str
    if_absent: Literal["skip", "refuse"] = "skip"
    """What becomes of the chunk where nobody knows the service."""
    outcome: Literal["decides", "outranked", "missed", "would decide", "would be outranked"]
    missed: str | None = None
    """The first condition that does not hold."""
    by: str | None = None
    """Set and name of the rule that outranks it, or would."""


class RulesReport(BaseModel):
    """What the rules say."""

    version: int | None = None
    """Of the rules in force; None: they were read from files."""
    rules: int
    """That were there to ask."""
    others: int
    """Of them those that name things and none that this chunk has: they cannot match."""
    is_complete: bool = True
    """All were looked through for near misses. What matches is found all the same."""
    has_payload: bool
    """Without it, patterns count as not found."""
    findings: list[RuleFinding]
    """By rank, the highest first."""
    left_out: int = 0
    """Further rules that came near and miss."""
    revoked: list[str] = []
    """Set and name of rules that come near and are out of force, as a grant was revoked; some."""


class VisitStep(BaseModel):
    """A service that the chunk visits here."""

    service: str
    name: str
    priority: int
    is_asked: bool
    """The chunk asks for it."""
    rule: str | None = None
    """Set and name of the rule that leads there."""
    vi: int | None = None
    """Which VI gets the chunk if it comes now."""
    vi_detail: str = ""
    """Why this one, or why none."""
    fail_policy: Literal["open", "closed"] | None = None


class Explanation(BaseModel):
    """What becomes of a chunk, and why."""

    chunk: dict[str, Any]
    ingress: str
    ingress_role: Literal["host", "router", "service"] | None = None
    is_offline: bool = False
    """Asked of files: no VIs, no next hop."""
    refused: str | None = None
    """The reason, if the chunk does not get past the door."""
    detail: str = ""
    steps: list[VisitStep] = []
    notes: list[str] = []
    """What else there is to know: rules for services that are not here, and the like."""
    beyond: str | None = None
    """The service that it goes on to, elsewhere."""
    next_hop: str = ""
    """Where it goes after the services, or why nowhere."""
    rules: RulesReport | None = None
    """None: this router keeps no rules."""
