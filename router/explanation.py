"""What would become of a chunk if it came now: asked of the core, and leaving no trace in it.

The order of the questions is that of `core`: the door, the services to visit, the VI, the way out.
A property test holds both together. Source: docs/how-to/explain-a-chunk.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packetcloud.chunk.dissect import header_fields
from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import HOP_LIMIT_OFFSET, ChunkHeader, decode_header
from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.names import GUID, SID, SID_ZERO
from packetcloud.chunk.reasons import Reason
from packetcloud.router.core import RouterCore
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.flow import Flow
from packetcloud.router.rules.explain_schemas import Explanation, RulesReport, VisitStep
from packetcloud.router.rules.rule import Action, Question
from packetcloud.router.service_pool import Service
from packetcloud.router.settings import FailPolicy

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


@dataclass(frozen=True, slots=True)
class Ingress:
    """A neighbour that a chunk comes from, attached or not."""

    guid: GUID
    role: Role


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


def _ingress_of(core: RouterCore, guid: GUID) -> Ingress:
    for one in core.attachments:
        if one.guid == guid:
            return Ingress(guid, one.role)
    is_router = any(one.guid == guid for one in core.settings.neighbours)
    return Ingress(guid, Role.ROUTER if is_router else Role.HOST)


def _pass_door(core: RouterCore, asked: AskedChunk, ingress: Ingress, now: float) -> Flow:
    """Return the flow of the chunk.

    Raises:
        ChunkRefusedError: it would be refused, for this reason.
    """
    settings, head = core.settings, asked.head
    hosts = settings.hosts
    if core.is_draining:
        raise ChunkRefusedError(Reason.SHUTTING_DOWN, "this router takes no more chunks")
    if ingress.role is Role.SERVICE:
        raise ChunkRefusedError(Reason.NOT_AUTHORISED, "a VI sends verdicts, not chunks")
    if ingress.role is Role.HOST and hosts is not None and ingress.guid not in hosts:
        raise ChunkRefusedError(Reason.NOT_AUTHORISED, "the host is not listed at this router")
    planner = core.planner_for_questions()
    flow = planner.decide(ingress, head, now)
    size = asked.payload_bytes
    if size > settings.max_payload_bytes and ingress.role is Role.HOST:
        text = f"{size} bytes; max_payload_bytes = {settings.max_payload_bytes}"
        raise ChunkRefusedError(Reason.PAYLOAD_TOO_LARGE, text)
    offset = flow.layout.lifetime_offset
    if offset and not any(head[offset : offset + 4]):
        raise ChunkRefusedError(Reason.DEADLINE_PASSED, "its lifetime is over")
    hop = flow.next_hop
    if hop is not None and hop.is_router and not head[HOP_LIMIT_OFFSET]:
        raise ChunkRefusedError(Reason.HOP_LIMIT, f"and router {hop.name} is one more hop")
    whole_bytes = flow.layout.header_bytes + size
    if core.book.is_full(whole_bytes):
        raise ChunkRefusedError(Reason.STORE_FULL, "all that is in custody, or its number")
    if flow.late is not None:
        payload = asked.payload if asked.payload is not None else b""
        flow = planner.settle(flow, head, size, lambda at: at(memoryview(payload)), now)
        hop = flow.next_hop
    if flow.steps:
        first = flow.steps[0].service
        if not first.may_serve(now) and first.settings.fail_policy is FailPolicy.CLOSED:
            text = f"service {first.name} has no VI and is fail-closed"
            raise ChunkRefusedError(Reason.SERVICE_FAILED, text)
    elif (
        hop is not None
        and hop.attachment is None
        and core.forwarder.waiting.is_full(hop, flow.label, whole_bytes)
    ):
        text = f"{hop.name} is away, and as much waits for it as may"
        raise ChunkRefusedError(Reason.STORE_FULL, text)
    if core.spool.is_durable:
        why = core.spool.reason_to_refuse(flow.label, whole_bytes)
        if why:
            raise ChunkRefusedError(Reason.STORE_FULL, f"custody is durable, and the disk: {why}")
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
    if service.waiting:
        return None, f"waits behind {len(service.waiting)} chunks for a VI with room"
    vi = service.choose(flow_hash, (), settings.vi_window_bytes, settings.vi_window_count)
    if vi is not None:
        if vi.slot == flow_hash % len(service.slots):
            return vi.number, f"slot {vi.slot} of {len(service.slots)}, by the hash of the flow"
        return vi.number, (
            f"slot {vi.slot} of {len(service.slots)}, the least loaded: the flow's own VI has no "
            "room, missed a deadline or is gone"
        )
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
