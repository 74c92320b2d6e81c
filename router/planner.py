"""Decides for a header that no flow is known for, from what the router knows now.

What is decided is a `Flow`; the neighbour's session remembers it until something changes.
Source: design, section 6, steps 1 to 4.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.flow_labels import FlowLabels
from packetcloud.chunk.header import SOURCE_NA_OFFSET, ChunkHeader, DeliveryMode, decode_header
from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.names import SID
from packetcloud.chunk.reasons import Reason
from packetcloud.router.attachment import Attachment
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.flow import Classifier, Flow, NoRules, Patch, is_report, plan_visit
from packetcloud.router.forward import Forwarder
from packetcloud.router.layout import HeaderLayout
from packetcloud.router.service_pool import Service
from packetcloud.router.settings import RouterSettings

_UNSUPPORTED_ERRORS = frozenset({"bad_version", "unknown_critical_extension"})


class FlowPlanner:
    """Makes flows.

    Args:
        hosted: returns the service of a SID if it belongs to this cloudlet.
        classifier: the rules that make chunks visit services that they did not ask for.
        labels: of the flows towards neighbours.
    """

    def __init__(
        self,
        settings: RouterSettings,
        forwarder: Forwarder,
        hosted: Callable[[SID], Service | None],
        classifier: Classifier | None,
        labels: FlowLabels,
    ) -> None:
        self._settings = settings
        self._forwarder = forwarder
        self._hosted = hosted
        self._labels = labels
        self._classifier = classifier if classifier is not None else NoRules()

    def configure(self, settings: RouterSettings) -> None:
        """Take new settings; flows made before are the caller's to forget."""
        self._settings = settings

    def decide(self, attachment: Attachment, key: bytes, head: bytes, now: float) -> Flow:
        """Return the flow of a chunk that came from a neighbour.

        Args:
            key: the bytes that all chunks of the flow have in common.
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
        if attachment.role is Role.HOST:
            if header.source != attachment.guid:
                raise ChunkRefusedError(Reason.NOT_AUTHORISED, "a source GUID that it does not own")
            if source_na != own_na:
                source_na = own_na
                patches = ((SOURCE_NA_OFFSET, own_na.to_bytes()),)
        wants_report = header.wants_report and not is_report(header)
        return self.plan(
            header,
            head,
            now,
            flow_hash=zlib.crc32(key),
            patches=patches,
            reports_to=source_na.value if wants_report else None,
        )

    def plan(
        self,
        header: ChunkHeader,
        head: bytes,
        now: float,
        *,
        flow_hash: int = 0,
        patches: tuple[Patch, ...] = (),
        reports_to: int | None = None,
        executed: frozenset[bytes] = frozenset(),
    ) -> Flow:
        """Return the services to visit here and the way out, for any chunk with this header.

        Args:
            executed: services that had a part in making it in the same visit (it was emitted).

        Raises:
            ChunkRefusedError: it cannot be served or sent on from here.
        """
        if header.delivery_mode is not DeliveryMode.UNICAST:
            mode = header.delivery_mode.name.lower()
            raise ChunkRefusedError(Reason.UNSUPPORTED, f"delivery mode {mode}")
        layout = HeaderLayout.of(head)
        matched = self._classifier.transparent_services(header)
        hosted = self._hosted
        transparent = {service.sid: service for service in map(hosted, matched) if service}
        steps, beyond = plan_visit(header, layout, list(transparent.values()), hosted, executed)
        flow = Flow(
            layout,
            steps=steps,
            beyond=beyond,
            flow_hash=flow_hash,
            patches=patches,
            reports_to=reports_to,
            is_report=is_report(header),
            label=self._labels.label(header.destination.value, header.sid.value),
        )
        try:
            flow.next_hop, flow.destination_na = self._forwarder.find(head, beyond, now)
        except ChunkRefusedError as error:
            # A service may redirect to a destination that can be found, or emit an answer.
            if not steps or error.reason is not Reason.UNRESOLVABLE_GUID:
                raise
        return flow
