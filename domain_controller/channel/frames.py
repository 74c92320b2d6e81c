"""What goes over the channel: one JSON object per text frame, its `kind` first of all its fields.

Whatever comes in is a value or one named error; nothing that is not listed here passes. Times: ms
since 1970 (UTC). Source: docs/protocol/channel.md.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic import StringConstraints as Text

from packetcloud.domain_controller.core.checks import MAX_TEXT_CHARS, MAX_TIME_MS
from packetcloud.domain_controller.core.cloudlets import (
    MAX_DISTANCES_COUNT,
    MAX_HOPS,
    MAX_NODES_COUNT,
    MAX_SEQUENCE,
    MAX_TYPES_COUNT,
    MAX_VIS_COUNT,
)
from packetcloud.domain_controller.core.installations import (
    MAX_REFUSALS_COUNT,
    MAX_SETS_AT_CLOUDLET_COUNT,
    RulesState,
)
from packetcloud.domain_controller.core.prices import Meter
from packetcloud.domain_controller.core.reservations import Wanted
from packetcloud.domain_controller.core.resources import (
    MAX_DISK_BYTES,
    MAX_IO_PER_S,
    MAX_MEMORY_BYTES,
    MAX_MILLI_CPUS,
)
from packetcloud.domain_controller.core.slots import MAX_OCCURRENCES_COUNT
from packetcloud.domain_controller.core.usage import MAX_QUANTITY, Taken
from packetcloud.domain_controller.errors import FrameError
from packetcloud.domain_controller.rule_documents import MAX_ITEMS_COUNT

CHANNEL_PATH = "/v1/channel"
SUBPROTOCOL = "packetcloud-channel-1"
MAX_FRAME_BYTES = 1 << 20
"""A report of as many nodes as there may be, with a dozen types of VIs on each, is smaller."""
MAX_RECORDS_COUNT = 500
"""Usage records of one frame: one transaction, for which other requests wait some 25 ms; their
signatures take as long again."""
MAX_COMPLETE_COUNT = 100
"""Reservations of one frame that are complete: each is a transaction."""
MAX_LINE_CHARS = MAX_TEXT_CHARS
MAX_SHORT_CHARS = 200
"""Of which there is one for each set of rules."""
MAX_RUNNING_COUNT = 8192
"""(reservation, VI type) of which a report says that VIs run."""
MAX_RULES_BYTES = MAX_FRAME_BYTES - 2048
"""A document of rules as JSON has it; the rest of its frame is smaller than what is left."""
MAX_HOSTS_COUNT = 4096
"""Hosts that a report names."""

Name = Annotated[str, Text(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Hex20 = Annotated[str, Text(pattern=r"^[0-9a-f]{40}$")]
Hex32 = Annotated[str, Text(pattern=r"^[0-9a-f]{64}$")]
Hex64 = Annotated[str, Text(pattern=r"^[0-9a-f]{128}$")]
Sequence53 = Annotated[int, Strict(), Field(ge=0, le=MAX_SEQUENCE)]
Number = Annotated[int, Strict(), Field(ge=1, le=MAX_SEQUENCE)]
TimeMs = Annotated[int, Strict(), Field(ge=0, le=MAX_TIME_MS)]
Count = Annotated[int, Strict(), Field(ge=1, le=MAX_VIS_COUNT)]
Line = Annotated[str, Field(max_length=MAX_LINE_CHARS)]
ShortLine = Annotated[str, Field(max_length=MAX_SHORT_CHARS)]
Serial = Annotated[int, Strict(), Field(ge=1, lt=1 << 63)]
RulesCount = Annotated[int, Strict(), Field(ge=0, le=MAX_ITEMS_COUNT)]


class Part(BaseModel):
    """Part of a frame: fields that are not listed are refused, and 1.0 is no integer."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Amount(Part):
    """What VIs share."""

    milli_cpus: Annotated[int, Strict(), Field(ge=0, le=MAX_MILLI_CPUS)] = 0
    memory_bytes: Annotated[int, Strict(), Field(ge=0, le=MAX_MEMORY_BYTES)] = 0
    disk_bytes: Annotated[int, Strict(), Field(ge=0, le=MAX_DISK_BYTES)] = 0
    io_per_s: Annotated[int, Strict(), Field(ge=0, le=MAX_IO_PER_S)] = 0


class VisOfType(Part):
    """So many VIs of a type."""

    vi_type: Name
    count: Annotated[int, Strict(), Field(ge=0, le=MAX_VIS_COUNT)]


class Node(Part):
    """A compute node."""

    name: Name
    capacity: Amount
    reserved: Amount = Amount()
    available: Amount = Amount()
    is_usable: Annotated[bool, Strict()] = True
    vis: Annotated[tuple[VisOfType, ...], Field(max_length=MAX_TYPES_COUNT)] = ()


class RunningVis(Part):
    """VIs that run for a reservation."""

    reservation: Name
    vi_type: Name
    count: Count


class DistanceTo(Part):
    """How far another router is."""

    na: Annotated[int, Strict(), Field(ge=1, le=0xFFFF_FFFF)]
    hops: Annotated[int, Strict(), Field(ge=0, le=MAX_HOPS)]


class ReportFrame(Part):
    """Up, every few seconds: what the cloudlet has, and what runs."""

    kind: Literal["report"] = "report"
    sequence: Sequence53
    nodes: Annotated[tuple[Node, ...], Field(max_length=MAX_NODES_COUNT)]
    running: Annotated[tuple[RunningVis, ...], Field(max_length=MAX_RUNNING_COUNT)] = ()
    na: Annotated[int, Strict(), Field(ge=1, le=0xFFFF_FFFF)] | None = None
    hosts: Annotated[tuple[Hex20, ...], Field(max_length=MAX_HOSTS_COUNT)] = ()
    distances: Annotated[tuple[DistanceTo, ...], Field(max_length=MAX_DISTANCES_COUNT)] = ()


class AnswerFrame(Part):
    """Up: whether the cloudlet does what a directive says; written down there before it is said."""

    kind: Literal["answer"] = "answer"
    epoch: Number
    """Of the directive."""
    reservation: Name
    number: Number
    is_accepted: Annotated[bool, Strict()]
    text: Line = ""
    seen: Sequence53 = 0
    """Not accepted as a directive with this higher number was seen."""


class RecordPart(Part):
    """A usage record; its cloudlet is who sends it."""

    meter: Name
    number: Number
    previous: Hex32
    reservation: Name
    terms: Number
    kind: Meter
    begin_ms: TimeMs
    end_ms: TimeMs
    quantity: Annotated[int, Strict(), Field(ge=0, le=MAX_QUANTITY)]
    signature: Hex64
    """Of the record's canonical form, by the key that opened the channel."""


class UsageFrame(Part):
    """Up, until it is taken: usage records, each signed by the cloudlet."""

    kind: Literal["usage"] = "usage"
    records: Annotated[tuple[RecordPart, ...], Field(min_length=1, max_length=MAX_RECORDS_COUNT)]


class CompletePart(Part):
    """A reservation of which a cloudlet has nothing any more."""

    reservation: Name
    number: Number
    """Of the directive by which it was told to forget it."""


class UsageCompleteFrame(Part):
    """Up, until it is taken: of these reservations every record was taken, and no other comes."""

    kind: Literal["usage-complete"] = "usage-complete"
    epoch: Number
    reservations: Annotated[
        tuple[CompletePart, ...], Field(min_length=1, max_length=MAX_COMPLETE_COUNT)
    ]


class RefusedPart(Part):
    """A rule that a router refused."""

    name: Annotated[str, Field(max_length=128)]
    reason: Annotated[str, Field(max_length=40)]
    text: ShortLine


class RulesPart(Part):
    """How far a set of rules is."""

    rule_set: Name
    serial: Serial
    state: RulesState
    accepted: RulesCount
    refused: RulesCount
    revoked: RulesCount
    text: ShortLine
    refusals: Annotated[tuple[RefusedPart, ...], Field(max_length=MAX_REFUSALS_COUNT)] = ()


class RulesStateFrame(Part):
    """Up: what became of documents of rules; of all, without refusals, now and then."""

    kind: Literal["rules-state"] = "rules-state"
    epoch: Number
    sequence: Sequence53
    is_whole: Annotated[bool, Strict()]
    """The cloudlet has no other set."""
    sets: Annotated[tuple[RulesPart, ...], Field(max_length=MAX_SETS_AT_CLOUDLET_COUNT)]


class WelcomeFrame(Part):
    """Down, first: the channel is this controller's, as of an epoch."""

    kind: Literal["welcome"] = "welcome"
    epoch: Number
    domain: Name
    cloudlet: Name
    """Whose key opened the channel."""
    now_ms: TimeMs
    report_every_ms: Annotated[int, Strict(), Field(ge=100, le=600_000)]


class DirectiveFrame(Part):
    """Down, until it is answered: what the cloudlet should make of a reservation."""

    kind: Literal["directive"] = "directive"
    epoch: Number
    reservation: Name
    number: Number
    wanted: Wanted
    tenant: Name | None
    """None: the ISP itself."""
    vi_type: Name
    resources: Amount
    """Of one VI, as it was sold."""
    count: Count
    service: Name | None
    sid: Hex20 | None
    terms: Number
    occurrences: Annotated[
        tuple[tuple[TimeMs, TimeMs], ...],
        Field(min_length=1, max_length=MAX_OCCURRENCES_COUNT),
    ]
    """(begin, end), in order."""


class RulesFrame(Part):
    """Down, until it is answered: a signed document, the whole of a set of rules."""

    kind: Literal["rules"] = "rules"
    epoch: Number
    rule_set: Name
    signer: Hex20
    set_name: Annotated[str, Field(max_length=64)]
    serial: Serial
    until_ms: TimeMs | None
    """From then on nothing of it holds, nor of what it takes the place of."""
    document: Annotated[str, Field(min_length=1, max_length=MAX_FRAME_BYTES)]


class TakenPart(Part):
    """What became of a record."""

    meter: Name
    number: Number
    outcome: Taken


class TakenFrame(Part):
    """Down: these records are kept; they need not be sent again."""

    kind: Literal["taken"] = "taken"
    epoch: Number
    records: Annotated[tuple[TakenPart, ...], Field(min_length=1, max_length=MAX_RECORDS_COUNT)]


class CompleteTakenFrame(Part):
    """Down: it is known that these are complete; it need not be said again."""

    kind: Literal["complete-taken"] = "complete-taken"
    epoch: Number
    reservations: Annotated[
        tuple[CompletePart, ...], Field(min_length=1, max_length=MAX_COMPLETE_COUNT)
    ]


class OrphanFrame(Part):
    """Down: VIs of a reservation that has no place here are to be stopped."""

    kind: Literal["orphan"] = "orphan"
    epoch: Number
    reservation: Name
    text: Line


UpFrame = ReportFrame | AnswerFrame | UsageFrame | UsageCompleteFrame | RulesStateFrame
DownFrame = (
    WelcomeFrame | DirectiveFrame | RulesFrame | TakenFrame | CompleteTakenFrame | OrphanFrame
)
Up = Annotated[UpFrame, Field(discriminator="kind")]
Down = Annotated[DownFrame, Field(discriminator="kind")]
UP: TypeAdapter[UpFrame] = TypeAdapter(Up)
DOWN: TypeAdapter[DownFrame] = TypeAdapter(Down)
_Frame = TypeVar("_Frame")


def encode(frame: Part) -> str:
    """Return a frame as it is sent.

    Raises:
        FrameError: it is larger than a frame may be.
    """
    text = frame.model_dump_json()
    if (size := len(text.encode())) > MAX_FRAME_BYTES:
        raise FrameError("size", f"a frame of {size} bytes; allowed: {MAX_FRAME_BYTES}")
    return text


def decode_up(text: str | bytes) -> UpFrame:
    """Read what a cloudlet sent. Raises: FrameError."""
    return _decode(UP, text)


def decode_down(text: str | bytes) -> DownFrame:
    """Read what a domain controller sent. Raises: FrameError."""
    return _decode(DOWN, text)


def _decode(adapter: TypeAdapter[_Frame], text: str | bytes) -> _Frame:
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_FRAME_BYTES:
        raise FrameError("size", f"a frame of {size} bytes; allowed: {MAX_FRAME_BYTES}")
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:100]
        kind = "json" if first["type"] == "json_invalid" else "schema"
        raise FrameError(kind, f"{where or 'frame'}: {first['msg'][:200]}") from None
