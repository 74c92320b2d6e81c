"""Decides for a header that no flow is known for, from what the router knows now.

What is decided is a `Flow`; the neighbour's session remembers it until something changes. Where the
rules that a flow may meet depend on the chunk, what is remembered is a flow without a decision, and
`settle` makes one of it for each kind of chunk.
Source: design, section 6, steps 1 to 4; docs/decisions/0012.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Set
from typing import Protocol

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.flow_labels import FlowLabels
from packetcloud.chunk.header import (
    SID_OFFSET,
    SOURCE_NA_OFFSET,
    ChunkHeader,
    DeliveryMode,
    decode_header,
)
from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.names import GUID, GUID_BYTES, SID, SID_ZERO
from packetcloud.chunk.reasons import Reason
from packetcloud.router.errors import ChunkRefusedError, ServiceAbsentError
from packetcloud.router.flow import Flow, Patch, is_report, plan_visit
from packetcloud.router.forward import Forwarder
from packetcloud.router.late_rules import (
    LateAnswer,
    LateContests,
    LateRules,
    Winners,
    winners_of,
)
from packetcloud.router.layout import HeaderLayout
from packetcloud.router.rule_counts import RuleCounts, deciders, tally_of
from packetcloud.router.rules.answer import Answer, RuleTable
from packetcloud.router.rules.rule import Action
from packetcloud.router.service_pool import Service
from packetcloud.router.settings import RouterSettings

RECHECK_S = 60.0
"""A flow with a rule whose validity begins or ends is asked about again after this at the latest:
the wall clock, by which rules are valid, may have been set meanwhile."""

LookAtPayload = Callable[[Callable[[memoryview], Set[int]]], Set[int]]
_UNSUPPORTED_ERRORS = frozenset({"bad_version", "unknown_critical_extension"})
_NO_RULES = Answer(0)
_SOURCE = slice(20, 40)
_DESTINATION = slice(44, 64)
_SID = slice(SID_OFFSET, SID_OFFSET + GUID_BYTES)


class Ingress(Protocol):
    """The neighbour that a chunk came from."""

    @property
    def guid(self) -> GUID: ...

    @property
    def role(self) -> Role: ...


class FlowPlanner:
    """Makes flows.

    Args:
        hosted: returns the service of a SID if it belongs to this cloudlet.
        labels: of the flows towards neighbours.
        counts: looks at no payload uncounted.
        wall_s: seconds since 1970.
    """

    def __init__(
        self,
        settings: RouterSettings,
        forwarder: Forwarder,
        hosted: Callable[[SID], Service | None],
        labels: FlowLabels,
        counts: RuleCounts,
        wall_s: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._forwarder = forwarder
        self._hosted = hosted
        self._labels = labels
        self._counts = counts
        self._wall_s = wall_s
        self.rules: RuleTable | None = None
        self.rules_epoch = 0
        """Grows with every installation: flows of an earlier one are decided again."""
        self._last_late: LateAnswer | None = None
        self._late_contests = LateContests()

    def install(self, rules: RuleTable | None) -> None:
        """Decide by these rules from now on."""
        self.rules = rules
        self.rules_epoch += 1
        self._last_late = None
        self._late_contests.forget()

    def configure(self, settings: RouterSettings) -> None:
        """Take new settings; flows made before are the caller's to forget."""
        self._settings = settings

    def for_questions(self) -> FlowPlanner:
        """Return one that decides as this one does now, and counts nothing."""
        twin = FlowPlanner(
            self._settings,
            self._forwarder,
            self._hosted,
            self._labels,
            RuleCounts(),
            self._wall_s,
        )
        twin.install(self.rules)
        return twin

    def decide(self, ingress: Ingress, head: bytes, now: float) -> Flow:
        """Return the flow of a chunk that came from a neighbour.

        Args:
            head: the encoded header; bytes may follow.

        Raises:
            ChunkRefusedError: it is malformed, not this neighbour's, or not to be served from here.
        """
        try:
            header = decode_header(head)
        except ProtocolError as error:
            is_newer = error.reason in _UNSUPPORTED_ERRORS
            reason = Reason.UNSUPPORTED if is_newer else Reason.MALFORMED
            raise ChunkRefusedError(reason, str(error)) from None
        own_na = self._settings.na
        patches: tuple[Patch, ...] = ()
        source_na = header.source_na
        if ingress.role is Role.HOST:
            if header.source != ingress.guid:
                raise ChunkRefusedError(Reason.NOT_AUTHORISED, "a source GUID that it does not own")
            if source_na != own_na:
                source_na = own_na
                patches = ((SOURCE_NA_OFFSET, own_na.to_bytes()),)
        wants_report = header.wants_report and not is_report(header)
        return self.plan(
            header,
            head,
            now,
            ingress=ingress.guid.value,
            patches=patches,
            reports_to=source_na.value if wants_report else None,
        )

    def plan(
        self,
        header: ChunkHeader,
        head: bytes,
        now: float,
        *,
        ingress: bytes = b"",
        flow_hash: int | None = None,
        patches: tuple[Patch, ...] = (),
        reports_to: int | None = None,
        executed: frozenset[bytes] = frozenset(),
        makers: frozenset[bytes] = frozenset(),
        layout: HeaderLayout | None = None,
        label: int | None = None,
    ) -> Flow:
        """Return the services to visit here and the way out, for any chunk with this header.

        Args:
            ingress: the neighbour that it came from; empty: it was made here.
            executed: services that it has visited here already.
            makers: services that had a part in making it in the same visit (it was emitted).
            flow_hash, layout, label: those that it has already, if it is in custody.

        Raises:
            ChunkRefusedError: it cannot be served or sent on from here.
        """
        if header.delivery_mode is not DeliveryMode.UNICAST:
            mode = header.delivery_mode.name.lower()
            raise ChunkRefusedError(Reason.UNSUPPORTED, f"delivery mode {mode}")
        if label is None:
            label = self._labels.label(header.destination.value, header.sid.value)
        flow = Flow(
            layout if layout is not None else HeaderLayout.of(head),
            flow_hash=flow_hash if flow_hash is not None else flow_hash_of(head),
            patches=patches,
            reports_to=reports_to,
            is_report=is_report(header),
            label=label,
        )
        flow.ingress, flow.executed, flow.makers = ingress, executed, makers
        flow.rules_epoch = self.rules_epoch
        answer = self._ask(header, flow, now)
        active, shadow = winners_of(answer.contests), winners_of(answer.shadow_contests)
        late = self._late(answer)
        if late is None:
            self._complete(flow, header, head, answer, active, shadow, now)
            return flow
        assert self.rules is not None, "an answer that is late came from rules"
        flow.late = LateRules(late, self.rules.scanner)
        flow.header = header
        try:
            self._complete(flow, header, head, answer, active, shadow, now)
        except ChunkRefusedError as error:
            # A late rule may lead to a service that redirects, or past one that is not here: its
            # chunks are refused one by one.
            is_of_all = error.reason is not Reason.UNRESOLVABLE_GUID
            if is_of_all and not isinstance(error, ServiceAbsentError):
                raise
        flow.patches = patches
        return flow

    def settle(
        self,
        flow: Flow,
        head: bytes,
        payload_bytes: int,
        look: LookAtPayload,
        now: float,
    ) -> Flow:
        """Return the flow for one chunk of a flow with late rules.

        Args:
            look: shows the payload, if it must be looked at.

        Raises:
            ChunkRefusedError: it cannot be served or sent on from here.
        """
        late, header = flow.late, flow.header
        assert late is not None and header is not None, "it has late rules"
        found: Set[int] = frozenset()
        if late.scanner is not None:
            found = look(late.scanner.found)
            self._counts.scanned_count += 1
            self._counts.scanned_bytes += payload_bytes
        kind = late.kind(payload_bytes, found)
        settled = late.flows.get(kind)
        if settled is not None and (
            settled.next_hop is None or settled.next_hop.attachment is not None
        ):
            return settled
        settled = flow.undecided()
        active, shadow = late.winners(payload_bytes, kind)
        self._complete(settled, header, head, late.answer, active, shadow, now)
        self._counts.late_forgotten_count += late.remember(kind, settled)
        return settled

    def _late(self, answer: Answer) -> LateAnswer | None:
        """Return a late answer worked out; tables give one and the same to many flows."""
        known = self._last_late
        if known is not None and known.answer is answer:
            return known
        if not answer.is_late:
            return None
        self._last_late = LateAnswer(answer, self._late_contests)
        return self._last_late

    def _ask(self, header: ChunkHeader, flow: Flow, now: float) -> Answer:
        rules = self.rules
        if rules is None:
            return _NO_RULES
        wall_s = self._wall_s()
        answer = rules.ask(
            header.source.value,
            header.destination.value,
            (header.next_sid or SID_ZERO).value,
            header.payload_type,
            flow.ingress,
            wall_s,
        )
        if answer.until_s != math.inf:
            flow.until_s = now + min(RECHECK_S, max(0.0, answer.until_s - wall_s))
        return answer

    def _complete(
        self,
        flow: Flow,
        header: ChunkHeader,
        head: bytes,
        answer: Answer,
        active: Winners,
        shadow: Winners,
        now: float,
    ) -> None:
        """Fill in what follows from who decides in each contest."""
        hosted = self._hosted
        transparent: list[Service] = []
        unhosted_count = 0
        for contest, winner in zip(answer.contests, active, strict=True):
            if winner is not None and winner.action is Action.VISIT:
                service = hosted(SID(contest.sid))
                if service is not None:
                    transparent.append(service)
                elif winner.refuses_absent and contest.sid not in flow.executed | flow.makers:
                    raise ServiceAbsentError(winner.number, SID(contest.sid))
                else:
                    unhosted_count += 1
        plan = plan_visit(header, flow.layout, transparent, hosted, flow.executed, flow.makers)
        flow.steps, flow.beyond = tuple(plan.steps), plan.beyond
        flow.patches += plan.patches
        if answer.contests or answer.shadow_contests:
            ran = flow.executed | flow.makers
            flow.tally = tally_of(
                deciders(answer.contests, active, ran),
                deciders(answer.shadow_contests, shadow, ran) if shadow else None,
                unhosted_count,
            )
        try:
            flow.next_hop, flow.destination_na = self._forwarder.find(head, plan.beyond, now)
        except ChunkRefusedError as error:
            # A service may redirect to a destination that can be found, or emit an answer.
            if not flow.steps or error.reason is not Reason.UNRESOLVABLE_GUID:
                raise


def flow_hash_of(head: bytes) -> int:
    """Return by what the VI of a chunk is chosen: the same before and after a restart, when the
    router has stamped the NAs."""
    return zlib.crc32(head[_SID], zlib.crc32(head[_DESTINATION], zlib.crc32(head[_SOURCE])))
