"""Why a document of rules, or one of its rules, is refused; counted and logged by these words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Refusal(StrEnum):
    """A reason; the sentences of docs/reference/rules.md, "Refusals", explain them."""

    UNSIGNED = "unsigned"
    """Nobody signed the document."""
    FORGED = "forged"
    """A signature does not fit: of the document, or of a grant that is needed."""
    WRONG_AUDIENCE = "wrong audience"
    """The document is for other routers."""
    REPLAYED = "replayed"
    """The set has seen this serial number, or a larger one."""
    EXPIRED = "expired"
    """The document, the rule or the grant that it needs has ended."""
    NOT_YET_VALID = "not yet valid"
    """The rule begins before the grant that it needs."""
    OUTLIVES_GRANT = "outlives grant"
    """The rule ends after the grant that it needs."""
    ENDLESS = "endless"
    """A third party's rule says no end."""
    UNBOUNDED = "unbounded"
    """A third party's rule names neither a destination nor a SID."""
    NO_PROOF = "no proof"
    """No grant gives the signer a name that the rule names."""
    CHAIN_BROKEN = "chain broken"
    """A grant comes from a key that does not own the name, and to which nobody granted it."""
    CHAIN_TOO_LONG = "chain too long"
    """The chain of grants has too many links."""
    WIDENED = "widened"
    """A grant gives more than its issuer was given: names, services or time."""
    NOT_DELEGABLE = "not delegable"
    """A grant was granted on although it may not be."""
    SERVICE_NOT_GRANTED = "service not granted"
    """The name is granted, but not for rules that lead to this service."""
    REVOKED = "revoked"
    """The issuer of a grant that the rule needs has taken it back."""


class KeeperRefusal(StrEnum):
    """Why a router does not take what may well be proven."""

    UNREADABLE = "unreadable"
    """The document is none: its envelope or its head cannot be read, or it has too many items."""
    OTHER_OWNER = "other owner"
    """The set is the ISP's and the signer is not, or the other way round."""
    WRONG_FIELD = "wrong field"
    """A field of an item is missing, unknown, or not allowed."""
    REPEATED = "repeated"
    """The document has an item of that name further up."""
    TOO_MANY_RULES = "too many rules"
    """The router has no room for more rules: in all, of third parties, or of the signer."""
    TOO_MANY_PATTERNS = "too many patterns"
    """The same for payload patterns."""
    TOO_MANY_SETS = "too many sets"
    """The same for sets."""
    TOO_MANY_REVOCATIONS = "too many revocations"
    """The router has no room for a further revocation of a grant."""
    CROWDED = "crowded"
    """Too many rules name the same; a flow would have to ask about each of them."""


@dataclass(frozen=True, slots=True)
class Refused:
    """One refusal."""

    reason: Refusal | KeeperRefusal
    text: str
    """One sentence: what is wrong and what would do."""

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.text}"
