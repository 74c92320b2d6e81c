"""What would become of a chunk if it came now: asked of the core, and leaving no trace in it.

The order of the questions is that of `core`: the door, which is the very one of the data plane, the
services to visit, the VI, the way out. A property test holds both together.
Source: docs/how-to/explain-a-chunk.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from packetcloud.chunk.dissect import header_fields
from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import ChunkHeader, decode_header
from packetcloud.chunk.hop.api import FoundT, Role
from packetcloud.chunk.names import GUID, SID, SID_ZERO
from packetcloud.chunk.reasons import Reason
from packetcloud.router.core import RouterCore
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.flow import Flow
from packetcloud.router.rules.explain_schemas import Explanation, RulesReport, VisitStep
from packetcloud.router.rules.rule import Action, Question
from packetcloud.router.service_pool import Service

_HEADER_BYTES = slice(2, 4)
_SIZE_OFFSETS = slice(16, 20)


@dataclass(frozen=True, slots=True)
class AskedChunk:
    """A chunk that comes from a neighbour, as far as it is known."""

    head: bytes
    """Its encoded header."""
    ingress: GUID
    payload: bytes | None = None
    """None: not known; patterns are not found then."""

    @property
    def payload_bytes(self) -> int:
        """As the header says."""
        return int.from_bytes(self.head[_SIZE_OFFSETS], "big")


class _Ingress:
    """A neighbour that a chunk comes from, attached or not. It knows no flow, so all is decided."""

    flows: Mapping[bytes, Flow] = MappingProxyType({})

    def __init__(self, guid: GUID, role: Role) -> None:
        self.guid = guid
        self.role = role
        self.flow_misses = 0

    def remember(self, key: bytes, flow: Flow) -> None:
        """Forget it."""


class _AskedBody:
    """The bytes of an asked chunk, as the door reads them."""

    def __init__(self, asked: AskedChunk) -> None:
        header_bytes = int.from_bytes(asked.head[_HEADER_BYTES], "big")
        self._bytes = asked.head[:header_bytes] + (asked.payload or b"")
        self._size_bytes = header_bytes + asked.payload_bytes

    def __len__(self) -> int:
        return self._size_bytes

    def head(self, count: int) -> bytes:
        return self._bytes[:count]

    def look(self, at: Callable[[memoryview], FoundT]) -> FoundT:
        return at(memoryview(self._bytes))


def question_of(asked: AskedChunk) -> Question:
    """Return what rules are asked about the chunk.

    Raises:
        ProtocolError: its header is none.
    """
    header = decode_header(asked.head)
    payload = asked.payload if asked.payload is not None else bytes(header.payload_bytes)
    return Question(
        header.source.value,
        header.destination.value,
        (header.next_sid or SID_ZERO).value,
        header.payload_type,
        asked.ingress.value,
        payload,
    )


def explain_visit(core: RouterCore, asked: AskedChunk, now: float) -> Explanation:
    """Say what becomes of the chunk, but for what the rules say about themselves."""
    ingress = _ingress_of(core, asked.ingress)
    told = Explanation(
        chunk={},
        ingress=asked.ingress.hex,
        ingress_role=ingress.role.name.lower(),  # type: ignore[arg-type]  # its three words
    )
    if not any(one.guid == asked.ingress for one in core.attachments):
        told.notes.append(f"{told.ingress_role} {asked.ingress} is not attached now")
    try:
        told.chunk = header_fields(decode_header(asked.head))
        flow = _pass_door(core, asked, ingress, now)
    except ProtocolError as error:
        told.refused, told.detail = Reason.MALFORMED.word, str(error)
        return told
    except ChunkRefusedError as error:
        told.refused, told.detail = error.reason.word, error.detail
        return told
    header = decode_header(asked.head)
    for number, step in enumerate(flow.steps):
        told.steps.append(_step(core, step.service, header, flow.hash, number, now))
    told.beyond = flow.beyond.hex() if flow.beyond is not None else None
    told.next_hop = _next_hop(core, flow)
    return told


def add_rules(told: Explanation, report: RulesReport, winners: Mapping[str, Sequence[str]]) -> None:
    """Add what the rules say, and which of them leads to each step.

    Args:
        winners: set, name and action of the rule that decides, by the SID of the service.
    """
    told.rules = report
    steps = {step.service: step for step in told.steps}
    for sid, (set_name, name, action) in winners.items():
        if action != Action.VISIT:
            continue
        if sid in steps:
            steps[sid].rule = f"{set_name}/{name}"
        elif told.refused is None:
            told.notes.append(
                f"rule {set_name}/{name} leads to service {sid}, which is not at this cloudlet"
            )


def _ingress_of(core: RouterCore, guid: GUID) -> _Ingress:
    for one in core.attachments:
        if one.guid == guid:
            return _Ingress(guid, one.role)
    is_router = any(one.guid == guid for one in core.settings.neighbours)
    return _Ingress(guid, Role.ROUTER if is_router else Role.HOST)


def _pass_door(core: RouterCore, asked: AskedChunk, ingress: _Ingress, now: float) -> Flow:
    """Return the flow of the chunk.

    Raises:
        ChunkRefusedError: it would be refused, for this reason.
    """
    if ingress.role is Role.SERVICE:
        raise ChunkRefusedError(Reason.NOT_AUTHORISED, "a VI sends verdicts, not chunks")
    if not core.is_draining:
        refusal = core.reason_to_refuse(ingress.guid, ingress.role)
        if refusal is not None:
            raise ChunkRefusedError(Reason.NOT_AUTHORISED, refusal)
    flow, *_ = core.door.for_questions().enter(ingress, _AskedBody(asked), now)
    return flow


def _step(
    core: RouterCore,
    service: Service,
    header: ChunkHeader,
    flow_hash: int,
    number: int,
    now: float,
) -> VisitStep:
    asked = header.sequence.sids if header.sequence is not None else (header.sid,)
    vi, detail = _vi(core, service, flow_hash, now)
    if number:
        detail += "; as things are now"
    return VisitStep(
        service=service.sid.hex,
        name=service.name,
        priority=service.settings.priority,
        is_asked=SID(service.sid.value) in asked,
        vi=vi,
        vi_detail=detail,
        fail_policy=service.settings.fail_policy.value,
    )


def _vi(core: RouterCore, service: Service, flow_hash: int, now: float) -> tuple[int | None, str]:
    """Return the number of the VI that gets the chunk, and why; None and why if none does."""
    settings, policy = core.settings, service.settings.fail_policy
    if service.waiting and not service.settings.keeps_flows:
        return None, f"waits behind {len(service.waiting)} chunks for a VI with room"
    vi = service.choose(flow_hash, (), settings.vi_window_bytes, settings.vi_window_count)
    if vi is not None:
        if vi.slot == flow_hash % len(service.slots):
            return vi.number, f"slot {vi.slot} of {len(service.slots)}, by the hash of the flow"
        where = f"slot {vi.slot} of {len(service.slots)}"
        if service.settings.keeps_flows:
            why = "in place of the flow's own VI, which missed a deadline or is gone"
            return vi.number, f"{where}, {why}"
        why = "the flow's own VI has no room, missed a deadline or is gone"
        return vi.number, f"{where}, the least loaded: {why}"
    if service.has_vi:
        return None, f"waits: {service.why_wait(flow_hash)}"
    if service.may_serve(now):
        left_s = service.grace_ends_at - now
        return None, f"no VI is attached: waits up to {left_s:.0f} s for one, then fail-{policy}"
    return None, f"no VI is attached: fail-{policy}"


def _next_hop(core: RouterCore, flow: Flow) -> str:
    hop = flow.next_hop
    if hop is None:
        return "no way to the destination: refused after the services, unless one redirects it"
    text = f"{'router' if hop.is_router else 'host'} {hop.name} ({hop.guid.hex()})"
    attachment = hop.attachment
    if attachment is None:
        return f"{text}, which is away: waits for it"
    if core.forwarder.waiting.must_wait(hop, attachment, flow.label):
        return f"{text}, which has no room: waits in line"
    return text
