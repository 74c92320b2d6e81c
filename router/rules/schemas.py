"""What the management API answers about rules: one model per answer. Seconds are since 1970."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class ItemResult(BaseModel):
    """What became of one item of a document."""

    item: int
    """From 1."""
    name: str
    """Of the rule; empty if it could not be read."""
    result: Literal["accepted", "unchanged", "withdrawn", "refused"]
    reason: str = ""
    """One word for each kind of refusal."""
    detail: str = ""


class Installation(BaseModel):
    """What became of a document."""

    set: str
    signer: str
    serial: int
    document: str
    """SHA-256 of the file."""
    is_own: bool
    """The ISP's."""
    is_dry_run: bool
    """Nothing was changed: this is what would have become of it."""
    version: int
    """In force now, the change included."""
    accepted: int
    unchanged: int
    """Rules that were in force just so."""
    withdrawn: int
    refused: int
    reasons: dict[str, int]
    """Refused items by reason."""
    listed: Literal["all", "refused", "some refused"]
    """Which items are in `items`."""
    items: list[ItemResult]
    duration_s: float


class RevocationTaken(BaseModel):
    """A grant is taken back, for good."""

    grant: str
    """SHA-256 of what its issuer signed."""
    issuer: str
    """Public key."""
    until_s: int
    """The grant ends then, and the revocation is forgotten."""
    is_new: bool
    """The router did not know it yet."""
    rules: int
    """That went out of force by it."""
    version: int
    """In force now."""


class Refusal(BaseModel):
    """Why a request about rules was not done; nothing was changed."""

    reason: str
    detail: str


class RuleEntry(BaseModel):
    """One rule that is installed."""

    number: int
    set: str
    signer: str
    is_own: bool
    name: str
    service: str
    mode: Literal["active", "shadow"]
    is_suspended: bool
    """The signer signs for the ISP no more: it is kept, and not in force."""
    valid_from_s: float | None
    """None: it always was."""
    valid_until_s: float | None
    """Not from then on; None: for ever."""
    revoked_grant: str | None = None
    """SHA-256 of a grant that it needs and whose issuer has revoked it: it is not in force."""
    state: Literal["in force", "not yet", "ended", "suspended", "revoked"]
    """By the clock of the router. What has ended is gone an hour later."""
    document: str
    item: dict[str, Any]
    """As its author wrote it; the lists of a long one are cut."""
    left_out: int = 0
    """Names that were cut off; the document has them."""
    hits: int = 0
    """Chunks about which it decided, since the router began."""
    shadow_hits: int = 0
    """Chunks about which it would have, while it was in shadow mode."""


class RulePage(BaseModel):
    """Some of the rules that were asked for, by set and name."""

    version: int
    rules: list[RuleEntry]
    cursor: str | None
    """Ask with it for more; None: there are none. A page may be short, or empty, before the end."""


class Evidence(BaseModel):
    """The document that a rule came with."""

    document: str
    received_s: float
    size_bytes: int
    path: str
    """Of the file, on the router's machine."""


class RuleDetail(BaseModel):
    """One rule and where it comes from."""

    rule: RuleEntry
    serial: int
    """The newest of its set."""
    evidence: Evidence


class RuleSetInfo(BaseModel):
    """A set of rules; one whose rules are all withdrawn stays, so that no old one comes back."""

    set: str
    signer: str
    is_own: bool
    is_suspended: bool
    serial: int
    active: int
    shadow: int
    revoked: int = 0
    """Out of force, as a grant was revoked."""


class RuleSetPage(BaseModel):
    """The sets, and what is in force in all."""

    version: int
    active: int
    shadow: int
    suspended: int
    revoked: int = 0
    sets: list[RuleSetInfo]
    cursor: str | None
