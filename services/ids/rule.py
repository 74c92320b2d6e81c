"""One rule, as the rest of this service sees it: whom it is about, what it looks for, what then.

Source: docs/reference/ids.md; meanings are those of Suricata 7 unless that page says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from packetcloud.services.ids.guid_sets import GuidSet

DEFAULT_PRIORITY = 3


class Action(StrEnum):
    """What a rule asks for; in the order in which rules are asked."""

    PASS = "pass"
    DROP = "drop"
    REJECT = "reject"
    RATE_LIMIT = "rate-limit"
    ALERT = "alert"


ACTION_ORDER = {action: number for number, action in enumerate(Action)}


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that must be there, or must not."""

    pattern: bytes
    """In lower case if the case does not matter."""
    is_negated: bool = False
    is_nocase: bool = False
    start: int = 0
    """Where a match may begin at the earliest, from the begin of the payload."""
    end: int | None = None
    """Where it may end at the latest, from there."""
    distance: int | None = None
    """The same, from the end of the match before."""
    within: int | None = None
    is_at_end: bool = False
    """Its match must end where the payload ends."""
    is_fast: bool = False
    """The author wants a scan to look for this one."""

    @property
    def is_relative(self) -> bool:
        return self.distance is not None or self.within is not None


@dataclass(frozen=True, slots=True)
class Pcre:
    """An expression that must be found, or must not."""

    expression: bytes
    """As the engine takes it, its flags included."""
    is_negated: bool = False
    is_relative: bool = False
    """Looked for behind the match before, as if the payload began there."""


@dataclass(frozen=True, slots=True)
class DataAt:
    """Whether the payload goes as far as that."""

    count: int
    is_negated: bool = False
    is_relative: bool = False


@dataclass(frozen=True, slots=True)
class NumberAt:
    """Where a number stands in a payload, and how it is written there."""

    count: int
    """Of bytes."""
    offset: int
    is_relative: bool = False
    """Counted from the end of the match before."""
    is_little: bool = False
    base: int = 0
    """Of digits; 0: it is binary."""
    mask: int = 0
    """Only these bits of it, moved down to the lowest; 0: all."""


@dataclass(frozen=True, slots=True)
class ByteTest:
    """Whether a number compares so with a value."""

    number: NumberAt
    operator: str
    value: int
    is_negated: bool = False

    @property
    def is_relative(self) -> bool:
        return self.number.is_relative


class Origin(Enum):
    """From where a jump counts."""

    HERE = "behind the number"
    BEGIN = "begin of the payload"
    END = "end of the payload"


@dataclass(frozen=True, slots=True)
class ByteJump:
    """Goes on as far as a number says; what is relative then counts from there."""

    number: NumberAt
    multiplier: int = 1
    is_aligned: bool = False
    """To the next multiple of four."""
    origin: Origin = Origin.HERE
    post_offset: int = 0

    @property
    def is_relative(self) -> bool:
        return self.number.is_relative


Part = Content | Pcre | DataAt | ByteTest | ByteJump


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Sizes of a payload in bytes, ends included, or all others."""

    least: int
    most: int
    is_negated: bool = False

    def __contains__(self, size: int) -> bool:
        return (self.least <= size <= self.most) != self.is_negated


class BitOperation(StrEnum):
    """What is done with marks of a flow."""

    SET = "set"
    UNSET = "unset"
    TOGGLE = "toggle"
    IS_SET = "isset"
    IS_NOT_SET = "isnotset"


@dataclass(frozen=True, slots=True)
class FlowBits:
    """One operation; a question may name several marks, of which one is enough."""

    operation: BitOperation
    names: tuple[str, ...]


class Track(StrEnum):
    """By what is counted."""

    SOURCE = "by_src"
    DESTINATION = "by_dst"
    BOTH = "by_both"
    RULE = "by_rule"
    FLOW = "by_flow"


class ThresholdKind(StrEnum):
    """When a match that is counted has effect."""

    LIMIT = "limit"
    THRESHOLD = "threshold"
    BOTH = "both"
    FILTER = "detection_filter"


@dataclass(frozen=True, slots=True)
class Threshold:
    """So many matches in so many seconds."""

    kind: ThresholdKind
    track: Track
    count: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Rate:
    """What a rate-limit rule lets through."""

    track: Track
    amount: int
    seconds: int
    is_bytes: bool
    """Counted in bytes of payload; otherwise in chunks."""


class Side(Enum):
    """Whose chunks a rule is about: those of who sent the first of the flow, or the other's."""

    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that was taken whole."""

    line: int
    action: Action
    source: GuidSet
    destination: GuidSet
    sid: int
    is_two_way: bool = False
    """Also from destination to source."""
    gid: int = 1
    rev: int = 0
    msg: str = ""
    category: str = ""
    priority: int = DEFAULT_PRIORITY
    metadata: tuple[tuple[str, str], ...] = ()
    parts: tuple[Part, ...] = ()
    size: SizeRange | None = None
    side: Side | None = None
    is_established: bool | None = None
    """Both sides have sent; None: whether or not."""
    is_of_one_chunk: bool = False
    """Never looked for over the border of two chunks."""
    bits: tuple[FlowBits, ...] = ()
    threshold: Threshold | None = None
    rate: Rate | None = None
    is_silent: bool = False
    """Its action is taken and no alert given."""

    @property
    def key(self) -> tuple[int, int]:
        """What names a rule over all versions of the file."""
        return self.gid, self.sid

    def is_about(self, source: bytes, destination: bytes) -> bool:
        """Tell whether the rule is about chunks between these two."""
        return (source in self.source and destination in self.destination) or (
            self.is_two_way and destination in self.source and source in self.destination
        )

    @property
    def questions(self) -> tuple[FlowBits, ...]:
        """What it asks the marks of its flow."""
        return tuple(one for one in self.bits if one.operation in _QUESTIONS)

    @property
    def changes(self) -> tuple[FlowBits, ...]:
        """What it changes in them once it matched."""
        return tuple(one for one in self.bits if one.operation not in _QUESTIONS)

    @property
    def is_placed(self) -> bool:
        """Tell whether it counts from an end of the payload: then it is about one chunk."""
        return self.size is not None or any(
            is_placed(self.parts, n) for n in range(len(self.parts))
        )


_QUESTIONS = (BitOperation.IS_SET, BitOperation.IS_NOT_SET)


def is_placed(parts: tuple[Part, ...], number: int) -> bool:
    """Tell whether a part counts from an end of the payload, also for want of a match before it."""
    part = parts[number]
    has_match = any(is_match(before) for before in parts[:number])
    match part:
        case Content():
            is_ranged = part.start > 0 or part.end is not None or part.is_at_end
            return is_ranged or (part.is_relative and not has_match)
        case Pcre():
            return part.is_relative and not has_match
        case DataAt():
            return True
        case ByteTest():
            return not (part.is_relative and has_match)
        case ByteJump():
            return part.origin is not Origin.HERE or not (part.is_relative and has_match)


def is_match(part: Part) -> bool:
    """Tell whether what follows can be relative to the end of this part's match."""
    return isinstance(part, ByteJump) or (isinstance(part, Content | Pcre) and not part.is_negated)
