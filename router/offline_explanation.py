"""What rules in files would do to a chunk: explained without a router.

Who is attached is not known here, so there is no VI and no next hop. Source:
docs/how-to/explain-a-chunk.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from packetcloud.chunk.dissect import header_fields
from packetcloud.chunk.header import decode_header
from packetcloud.chunk.names import SID
from packetcloud.chunk.reasons import Reason
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.explanation import AskedChunk, question_of
from packetcloud.router.flow import plan_visit
from packetcloud.router.layout import HeaderLayout
from packetcloud.router.rules.explain import explain_rules
from packetcloud.router.rules.explain_report import report_of, title
from packetcloud.router.rules.explain_schemas import Explanation, VisitStep
from packetcloud.router.rules.patterns import finds
from packetcloud.router.rules.rule import Action, IfAbsent, InstalledRule, Pattern
from packetcloud.router.service_pool import Service
from packetcloud.router.settings import RouterSettings, ServiceSettings


def explain_offline(
    rules: Iterable[InstalledRule],
    asked: AskedChunk,
    now_s: float,
    settings: RouterSettings | None = None,
) -> Explanation:
    """Say which services the chunk would visit, and why.

    Args:
        now_s: seconds since 1970.
        settings: of the router, for its services and their priorities; None: every service that is
            named is there, and all have the same priority.

    Raises:
        ProtocolError: the header is none.
    """
    header = decode_header(asked.head)
    has_payload = asked.payload is not None
    explained = explain_rules(
        rules, question_of(asked), now_s, finds if has_payload else _finds_nothing
    )
    told = Explanation(
        chunk=header_fields(header),
        ingress=asked.ingress.hex,
        is_offline=True,
        rules=report_of(explained, has_payload=has_payload),
    )
    services = _Services(settings)
    visits = {
        sid: winner
        for sid, winner in explained.winners.items()
        if winner.rule.action is Action.VISIT
    }
    asks = header.sequence.sids if header.sequence is not None else (header.sid,)
    transparent = []
    for sid, winner in visits.items():
        service = services.hosted(SID(sid))
        if service is None:
            text = f"the config does not list service {sid.hex()}, to which {title(winner)} leads"
            told.notes.append(text)
            if winner.rule.if_absent is IfAbsent.REFUSE:
                told.refused = Reason.UNKNOWN_SID.word
                told.detail = f"rule {title(winner)} demands service {sid.hex()}"
        else:
            transparent.append(service)
    if told.refused is not None:
        return told
    try:
        plan = plan_visit(header, HeaderLayout.of(asked.head), transparent, services.hosted)
    except ChunkRefusedError as error:
        told.refused, told.detail = error.reason.word, error.detail
        return told
    for step in plan.steps:
        service = step.service
        leads = visits.get(service.sid.value)
        told.steps.append(
            VisitStep(
                service=service.sid.hex,
                name=service.name,
                priority=service.settings.priority,
                is_asked=service.sid in asks,
                rule=title(leads) if leads is not None else None,
            )
        )
    told.beyond = plan.beyond.hex() if plan.beyond is not None else None
    if settings is None and len(told.steps) > 1:
        told.notes.append("the order of services is that of their SIDs: priorities need --config")
    return told


class _Services:
    """The services of a config, or any that is asked for."""

    def __init__(self, settings: RouterSettings | None) -> None:
        self._by_sid: dict[bytes, Service] | None = None
        if settings is not None:
            self._by_sid = {one.sid.value: Service(one, True, 0.0) for one in settings.services}

    def hosted(self, sid: SID) -> Service | None:
        if self._by_sid is not None:
            return self._by_sid.get(sid.value)
        return Service(ServiceSettings(sid, sid.short), True, 0.0)


def _finds_nothing(pattern: Pattern, payload: bytes) -> bool:
    return False
