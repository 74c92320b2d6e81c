"""What is decided once for all chunks of a flow: the services to visit here, and the way out.

The set of services = what the chunk asks for (its SID, or the current SID of its sequence, as long
as they are at this cloudlet) + the transparent services whose rules match. The one of highest
priority runs first, each at most once in a visit. Source: design, section 6, steps 2 to 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from packetcloud.chunk.header import SID_OFFSET, ChunkHeader, PayloadType
from packetcloud.chunk.names import GUID_BYTES, SID
from packetcloud.chunk.reasons import Reason
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.layout import HeaderLayout
from packetcloud.router.routes import NextHop
from packetcloud.router.service_pool import Service

Patch = tuple[int, bytes]
"""Offset in the header and the bytes to put there."""


class Classifier(Protocol):
    """The demultiplexing rules: which services see a chunk that did not ask for them."""

    def transparent_services(self, header: ChunkHeader) -> Sequence[SID]:
        """Return the SIDs whose header rules match; order and repeats do not matter."""


class NoRules:
    """No transparent services: chunks see what they ask for."""

    def transparent_services(self, header: ChunkHeader) -> Sequence[SID]:
        return ()


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
        "hash",
        "is_report",
        "label",
        "layout",
        "next_hop",
        "patches",
        "reports_to",
        "steps",
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


def plan_visit(
    header: ChunkHeader,
    layout: HeaderLayout,
    transparent: Sequence[Service],
    hosted: Callable[[SID], Service | None],
    executed: frozenset[bytes] = frozenset(),
) -> tuple[tuple[Step, ...], bytes | None]:
    """Return the services to run here in their order, and the SID to go to afterwards.

    Args:
        executed: services that had a part in making this chunk in the same visit (it was emitted).

    Raises:
        ChunkRefusedError: the chunk asks twice for one service in one visit, which may run once.
    """
    steps: list[Step] = []
    done = set(executed)
    asked_before: set[bytes] = set(executed)
    while True:
        asked_sid = header.next_sid
        asked = hosted(asked_sid) if asked_sid is not None else None
        if asked_sid is not None and asked is not None:
            if asked_sid.value in asked_before:
                raise ChunkRefusedError(Reason.UNSUPPORTED, f"{asked_sid} twice in one visit")
            if asked_sid.value in done:
                # It ran in this visit as a transparent service: that counts.
                steps[-1].patches += _done_patch(header, layout)
                header = header.after_service(asked_sid)
                continue
        candidates = [service for service in transparent if service.sid.value not in done]
        if asked is not None:
            candidates.append(asked)
        if not candidates:
            return tuple(steps), asked_sid.value if asked_sid is not None else None
        service = min(candidates, key=lambda one: (-one.settings.priority, one.sid.value))
        done.add(service.sid.value)
        patches: tuple[Patch, ...] = ()
        if service is asked and asked_sid is not None:
            patches = _done_patch(header, layout)
            asked_before.add(asked_sid.value)
            header = header.after_service(asked_sid)
        steps.append(Step(service, patches))


def is_report(header: ChunkHeader) -> bool:
    """Tell whether the chunk is a delivery report."""
    return header.payload_type == PayloadType.REPORT


def _done_patch(header: ChunkHeader, layout: HeaderLayout) -> tuple[Patch, ...]:
    if header.sequence is None:
        return ((SID_OFFSET, bytes(GUID_BYTES)),)
    return ((layout.cursor_offset, bytes([header.sequence.cursor + 1])),)
