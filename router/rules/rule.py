"""One demultiplexing rule, and what rules are asked about a chunk.

A rule says which chunks it matches and which service they must visit here, or must not. Nothing
here decides: see `judge`. Source: MobiArch'13 paper, section 3.3; docs/decisions/0012.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from packetcloud.chunk.names import SID

MAX_SIZE_BYTES = 0xFFFF_FFFF
"""Largest payload that a chunk header can state."""


class Action(StrEnum):
    """What a rule does with the chunks that it matches."""

    VISIT = "visit"
    """The chunk visits the service."""
    PASS = "pass"
    """It does not, whatever rules of lower rank say. A chunk that asks for the service gets it."""


class Mode(StrEnum):
    """Whether a rule has an effect."""

    ACTIVE = "active"
    SHADOW = "shadow"
    """None: it counts what it would have done."""


class IfAbsent(StrEnum):
    """What becomes of a chunk that a rule leads to a service which its router does not know."""

    SKIP = "skip"
    """It goes on without: one set of rules may be for many routers, and the service at one."""
    REFUSE = "refuse"
    """It is refused: what the service does must not be left out."""


class Direction(StrEnum):
    """Which way the chunks go that a rule matches."""

    BOTH = "both"
    """Also those whose source and destination are the other way round: the answers."""
    FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class Pattern:
    """What must stand in the payload."""

    expression: bytes
    """The bytes themselves, or a regular expression over bytes; `.` matches every byte."""
    is_regex: bool = False
    ignore_case: bool = False
    start: int = 0
    """A match begins at this byte of the payload or later."""
    end: int | None = None
    """A match ends before this byte; None: anywhere."""


@dataclass(frozen=True, slots=True)
class Match:
    """The chunks that a rule is about: all conditions must hold, an empty set is no condition."""

    sources: frozenset[bytes] = frozenset()
    """GUIDs, 20 bytes each."""
    destinations: frozenset[bytes] = frozenset()
    sids: frozenset[bytes] = frozenset()
    """What the chunk asks for next; `SID_ZERO` for plain delivery."""
    payload_types: frozenset[int] = frozenset()
    ingress: frozenset[bytes] = frozenset()
    """GUIDs of the neighbours that the chunk came from."""
    size_min: int = 0
    """Payload bytes, both ends included."""
    size_max: int = MAX_SIZE_BYTES
    patterns: tuple[Pattern, ...] = ()
    needs_all_patterns: bool = False
    """All patterns must be found; else one is enough."""
    direction: Direction = Direction.BOTH

    @property
    def is_late(self) -> bool:
        """Tell whether it takes the chunk itself, not only what its flow has in common."""
        return bool(self.patterns) or self.size_min > 0 or self.size_max < MAX_SIZE_BYTES


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, as its author wrote it."""

    name: str
    """Unique in its set."""
    service: SID
    match: Match = field(default_factory=Match)
    action: Action = Action.VISIT
    mode: Mode = Mode.ACTIVE
    priority: int = 0
    """The larger wins among the rules of one author kind about one service."""
    valid_from_s: float = -math.inf
    """Seconds since 1970; from then on."""
    valid_until_s: float = math.inf
    """Seconds since 1970; not from then on."""
    if_absent: IfAbsent = IfAbsent.SKIP
    """Of a rule to visit."""


@dataclass(frozen=True, slots=True)
class InstalledRule:
    """A rule in force at a router."""

    number: int
    """32 bits, never used again; the order of installation."""
    set_name: str
    signer: bytes
    """GUID of who signed it."""
    is_own: bool
    """It is the ISP's: it outranks every rule of a third party."""
    rule: Rule

    @property
    def rank(self) -> tuple[bool, int, bool, int]:
        """The largest wins: the ISP's own, higher priority, to visit rather than pass, older."""
        rule = self.rule
        return self.is_own, rule.priority, rule.action is Action.VISIT, -self.number


@dataclass(frozen=True, slots=True)
class Question:
    """A chunk, as far as rules look at it."""

    source: bytes
    """GUID, 20 bytes."""
    destination: bytes
    sid: bytes
    """What it asks for next, 20 bytes; zeros for nothing."""
    payload_type: int
    ingress: bytes
    """GUID of the neighbour that it came from; empty if it was made here."""
    payload: bytes = b""
