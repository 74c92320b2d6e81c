"""What is decided once for all chunks of a flow: the services to visit here, and the way out.

The set of services = what the chunk asks for (its SID, or the current SID of its sequence, as long
as they are at this cloudlet) + the transparent services whose rules match. The one of highest
priority runs first, each at most once in a visit. Source: design, section 6, steps 2 to 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from packetcloud.chunk.header import REPORT_TYPES, SID_OFFSET, ChunkHeader
from packetcloud.chunk.names import GUID_BYTES, SID
from packetcloud.chunk.reasons import Reason
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.late_rules import LateRules
from packetcloud.router.layout import HeaderLayout
from packetcloud.router.routes import NextHop
from packetcloud.router.rule_counts import Tally
from packetcloud.router.service_pool import Service

MAX_VISIT_COUNT = 256
"""Services of one visit, with those that made the chunk. Each takes its time, and the record of a
chunk on disk names them."""

Patch = tuple[int, bytes]
"""Offset in the header and the bytes to put there."""


class Step:
    """One service to run, and what to write into the header once it has run (or was skipped)."""

    __slots__ = ("patches", "service")

    def __init__(self, service: Service, patches: tuple[Patch, ...]) -> None:
        self.service = service
        self.patches = patches


class Flow:
    """The decision for one kind of header from one neighbour."""

    __slots__ = (
        "beyond",
        "destination_na",
        "executed",
        "hash",
        "header",
        "ingress",
        "is_report",
        "label",
        "late",
        "layout",
        "makers",
        "next_hop",
        "patches",
        "reports_to",
        "rules_epoch",
        "steps",
        "tally",
        "until_s",
    )

    def __init__(
        self,
        layout: HeaderLayout,
        *,
        steps: tuple[Step, ...] = (),
        beyond: bytes | None = None,
        flow_hash: int = 0,
        patches: tuple[Patch, ...] = (),
        reports_to: int | None = None,
        is_report: bool = False,
        label: int = 0,
    ) -> None:
        self.layout = layout
        self.label = label
        """Its flow towards neighbours: the same destination and SID give the same label."""
        self.steps = steps
        self.beyond = beyond
        """The SID to visit after this router, 20 bytes; None: the destination is next."""
        self.hash = flow_hash
        self.patches = patches
        """What this router stamps on the chunk when it takes it."""
        self.reports_to = reports_to
        """The NA of the source, if the source wants to be told; None: it does not."""
        self.is_report = is_report
        self.next_hop: NextHop | None = None
        """Where it goes after the services; None: looked up when they are done."""
        self.destination_na: Patch | None = None
        self.ingress = b""
        """GUID of the neighbour that its chunks came from; empty: they were made here."""
        self.executed: frozenset[bytes] = frozenset()
        """Services that its chunks have visited here before it was decided."""
        self.makers: frozenset[bytes] = frozenset()
        """Services that had a part in making its chunks in the same visit."""
        self.rules_epoch = 0
        """Under which rules it was decided."""
        self.until_s = math.inf
        """Decide again from then on: the validity of a rule begins or ends."""
        self.tally: Tally | None = None
        """What the rules did; None: no rule has a say."""
        self.late: LateRules | None = None
        """What depends on the chunk; with it this flow is not a decision but the way to one."""
        self.header: ChunkHeader | None = None
        """Of its first chunk, if each must be decided about."""

    def undecided(self) -> Flow:
        """Return a flow that begins with what was known before the rules were asked."""
        flow = Flow(
            self.layout,
            flow_hash=self.hash,
            patches=self.patches,
            reports_to=self.reports_to,
            is_report=self.is_report,
            label=self.label,
        )
        flow.ingress, flow.executed, flow.makers = self.ingress, self.executed, self.makers
        flow.rules_epoch = self.rules_epoch
        return flow


class VisitPlan:
    """The services to run here, in their order, and what follows."""

    __slots__ = ("beyond", "patches", "steps")

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.beyond: bytes | None = None
        """The SID to go to afterwards."""
        self.patches: tuple[Patch, ...] = ()
        """What to write into the header before the first of them."""

    def done(self, patches: tuple[Patch, ...]) -> None:
        """Note that what the chunk asks for has run with the steps so far."""
        if self.steps:
            self.steps[-1].patches += patches
        else:
            self.patches += patches


def plan_visit(
    header: ChunkHeader,
    layout: HeaderLayout,
    transparent: Sequence[Service],
    hosted: Callable[[SID], Service | None],
    executed: frozenset[bytes] = frozenset(),
    makers: frozenset[bytes] = frozenset(),
) -> VisitPlan:
    """Return the services to run here.

    Args:
        executed: services that have run in the same visit before: they do not run again.
        makers: services that had a part in making this chunk in the same visit: it was emitted.

    Raises:
        ChunkRefusedError: the chunk asks for one of its makers, or twice for one service in one
            visit, which may run once; or the visit would have too many services.
    """
    plan = VisitPlan()
    done = set(executed | makers)
    asked_before: set[bytes] = set(makers)
    while True:
        asked_sid = header.next_sid
        asked = hosted(asked_sid) if asked_sid is not None else None
        if asked_sid is not None and asked is not None:
            if asked_sid.value in asked_before:
                raise ChunkRefusedError(Reason.UNSUPPORTED, f"{asked_sid} twice in one visit")
            if asked_sid.value in done:
                # It ran in this visit as a transparent service: that counts.
                asked_before.add(asked_sid.value)
                plan.done(_done_patch(header, layout))
                header = header.after_service(asked_sid)
                continue
        candidates = [service for service in transparent if service.sid.value not in done]
        if asked is not None:
            candidates.append(asked)
        if not candidates:
            plan.beyond = asked_sid.value if asked_sid is not None else None
            return plan
        if len(done) >= MAX_VISIT_COUNT:
            text = f"more than {MAX_VISIT_COUNT} services in one visit"
            raise ChunkRefusedError(Reason.UNSUPPORTED, text)
        service = min(candidates, key=lambda one: (-one.settings.priority, one.sid.value))
        done.add(service.sid.value)
        patches: tuple[Patch, ...] = ()
        if service is asked and asked_sid is not None:
            patches = _done_patch(header, layout)
            asked_before.add(asked_sid.value)
            header = header.after_service(asked_sid)
        plan.steps.append(Step(service, patches))


def is_report(header: ChunkHeader) -> bool:
    """Tell whether the chunk is a delivery report, as it is or encrypted."""
    return header.payload_type in REPORT_TYPES


def _done_patch(header: ChunkHeader, layout: HeaderLayout) -> tuple[Patch, ...]:
    if header.sequence is None:
        return ((SID_OFFSET, bytes(GUID_BYTES)),)
    return ((layout.cursor_offset, bytes([header.sequence.cursor + 1])),)
