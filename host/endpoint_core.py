"""The endpoint without any I/O: sends, duplicates and reports of one GUID put together.

Events in (`send`, `body_arrived`, `settled`, `link_up`, ...), commands out (`take_commands`), one
timer (`next_timeout`, `handle_timeout`), `now` in seconds passed in. The shell: `endpoint`.
Source: design, sections 3 and 6; docs/reference/host.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.flow_labels import FlowLabels
from packetcloud.chunk.header import (
    MAX_HEADER_BYTES,
    ChunkHeader,
    PayloadType,
    decode_header,
)
from packetcloud.chunk.hop.api import Body, Buffer, Refusal, Settlement
from packetcloud.chunk.messages import BodyKind, DeliveryReport, Outcome, decode_reports
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.chunk.reasons import Reason, reason_word
from packetcloud.host.chunk_ids import ChunkIds
from packetcloud.host.duplicates import DuplicateWindow, Seen, retention_s
from packetcloud.host.header_template import HeaderTemplate, SendOptions
from packetcloud.host.outstanding import OutstandingSends, SendLimits
from packetcloud.host.received import Answer, ReceivedChunk
from packetcloud.host.report_timer import ReportTimer
from packetcloud.host.reports import PendingReports, ReportBatch
from packetcloud.host.send import Send, SendCommand

DEFAULT_LIFETIME_S = 60.0
REPORT_LIFETIME_MS = 60_000
"""A report later than this finds nobody who still waits for it."""
MAX_REPORT_CHUNKS_IN_FLIGHT_COUNT = 64
"""Report chunks handed to the router and not settled; above, reports wait and batch up."""
MAX_PREFIX_BYTES = 1100
"""What the hop takes as a prefix: it must fit the first segment. Source: hop/api.py, `send`."""
MAX_TEMPLATES_COUNT = 1024
"""Encoded headers kept, under 1 MiB; beyond, all are encoded anew."""
WINDOW_EXPIRY_PERIOD_S = 10.0
"""How often the duplicate window is swept; it costs O(pages)."""


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """Caps of one endpoint; the numbers that matter, in one place."""

    sends: SendLimits = field(default_factory=SendLimits)
    max_unanswered_count: int = 16_384
    """Received chunks that the application has not answered. Above: refused as `store_full`, which
    the source retries. Their bytes are bounded by the hop's credit."""
    remember_taken: bool = False
    """Emit `RememberTaken`, so that the duplicate window can outlive the process."""


@dataclass(frozen=True, slots=True)
class HandReport:
    """Give a report chunk to the router's session: `prefix` ‖ `payload`; the token is `batch`."""

    batch: ReportBatch
    prefix: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class RememberTaken:
    """Store these (source, chunk id, seconds to remember) before any later command runs."""

    entries: tuple[tuple[bytes, int, float], ...]


Command = SendCommand | HandReport | RememberTaken


class EndpointCore:
    """What one GUID has sent and received. `random_u64` returns 64 unpredictable bits."""

    def __init__(
        self,
        guid: GUID,
        random_u64: Callable[[], int],
        limits: EndpointLimits | None = None,
        window: DuplicateWindow | None = None,
    ) -> None:
        self.guid = guid
        self.limits = limits or EndpointLimits()
        self.sends = OutstandingSends(self.limits.sends, ReportTimer())
        self.window = window or DuplicateWindow()
        self.counters: Counter[str] = Counter()
        self._reports = PendingReports()
        self._ids = ChunkIds(random_u64)
        self._labels = FlowLabels(b"".join(random_u64().to_bytes(8, "big") for _ in range(2)))
        self._templates: dict[SendOptions, HeaderTemplate] = {}
        self._report_chunks_in_flight = 0
        self._unanswered_count = 0
        self._remembered: list[tuple[bytes, int, float]] = []
        self._link_is_up = False
        self._sweep_s = 0.0

    # sending

    def send(
        self,
        options: SendOptions,
        payload: Buffer,
        now: float,
        *,
        payload_prefix: bytes = b"",
        lifetime_s: float = DEFAULT_LIFETIME_S,
        context: object = None,
    ) -> Send:
        """Take over one chunk; `Resolve` comes exactly once.

        Raises:
            LocalMisuseError: a zero destination, a reserved SID, a lifetime that is not positive,
                too long a prefix, a payload that is not one piece of memory.
            SendQueueFullError: too many sends wait already.
        """
        if not lifetime_s > 0:
            raise LocalMisuseError(f"a lifetime of {lifetime_s} s: give a positive number")
        template = self._template(options)
        prefix_bytes = template.header_bytes + len(payload_prefix)
        if prefix_bytes > MAX_PREFIX_BYTES:
            raise LocalMisuseError(
                f"header and payload prefix have {prefix_bytes} bytes, at most {MAX_PREFIX_BYTES}"
            )
        if type(payload) is not bytes:
            payload = _as_bytes_view(payload)
        chunk_id = self._ids.take(options.destination.value, self.sends)
        send = Send(
            chunk_id=chunk_id,
            template=template,
            payload=payload,
            payload_prefix=payload_prefix,
            submitted_s=now,
            deadline_s=now + lifetime_s,
            context=context,
        )
        self.sends.submit(send, now)
        return send

    def flow_of(self, options: SendOptions) -> int:
        """Return the label of the flow that chunks with these options belong to."""
        return self._template(options).flow

    def settled(self, token: object, settlement: Settlement, reason: int, now: float) -> None:
        """The hop ended what it got under `token`: a `Send` or a `ReportBatch`."""
        if isinstance(token, Send):
            self.sends.settled(token, settlement, reason, now)
        elif isinstance(token, ReportBatch):
            self._report_chunks_in_flight -= 1
            if settlement is Settlement.REFUSED:
                key = f"report_chunks_refused_{reason_word(reason)}_total"
                self.counters[key] += 1
            elif settlement is not Settlement.ACCEPTED:
                self._reports.put_back(token, now)
        else:
            raise LocalMisuseError(f"a token of type {type(token).__name__} is not of this host")

    def link_up(self, now: float) -> None:
        """The session with the router is up."""
        self._link_is_up = True
        self.sends.link_up(now)

    def link_down(self, now: float) -> None:
        """The session with the router ended; what it held was settled just before."""
        self._link_is_up = False
        self.sends.link_down(now)

    # receiving

    def body_arrived(
        self, kind: BodyKind, body: Body, answer: Answer, now: float
    ) -> ReceivedChunk | Refusal | None:
        """Decide about one received body.

        Returns a chunk for the application; or a refusal for the hop, the body not touched; or None
        where nothing is left to do (a duplicate, a report), the body released.
        """
        if kind is not BodyKind.CHUNK:
            return self._refuse(Reason.UNSUPPORTED, "body_kind")
        head = body.head(MAX_HEADER_BYTES)
        try:
            header = decode_header(head)
        except ProtocolError as error:
            return self._refuse(Reason.MALFORMED, error.reason)
        header_bytes = int.from_bytes(head[2:4], "big")
        if header.payload_bytes != len(body) - header_bytes:
            return self._refuse(Reason.MALFORMED, "payload_length")
        if header.destination != self.guid:
            return self._refuse(Reason.UNRESOLVABLE_GUID, "not_my_guid")
        chunk = ReceivedChunk(header, header_bytes, body, answer)
        if header.payload_type == PayloadType.REPORT:
            self._reports_arrived(chunk, now)
            return None
        return self._data_arrived(chunk, now)

    def answered(self, chunk: ReceivedChunk, words: str | None, now: float) -> None:
        """The application took `chunk` (None) or refused it with `words`."""
        header = chunk.header
        self._unanswered_count -= 1
        if words is None:
            self.window.taken(header.source.value, header.chunk_id.value)
            self.counters["taken_total"] += 1
            self.counters["taken_bytes_total"] += header.payload_bytes
            if self.limits.remember_taken:
                keep_s = retention_s(_lifetime_s(header))
                self._remembered.append((header.source.value, header.chunk_id.value, keep_s))
        else:
            self.window.refused(header.source.value, header.chunk_id.value, words)
            self.counters["refused_by_application_total"] += 1
        if header.wants_report:
            self._report(header.source, header.chunk_id, words, now)

    # time and commands

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is due, None if never."""
        due_s = self.sends.next_timeout()
        report_s = self._reports.next_timeout() if self._may_report() else None
        if due_s is None or (report_s is not None and report_s < due_s):
            return report_s
        return due_s

    def handle_timeout(self, now: float) -> None:
        """Do what is due at `now`."""
        self.sends.handle_timeout(now)
        if now >= self._sweep_s:
            self._sweep_s = now + WINDOW_EXPIRY_PERIOD_S
            self.window.expire(now)

    def take_commands(self, now: float) -> list[Command]:
        """Return what to do, in order. Due reports are among it; call it after every event."""
        commands: list[Command] = [*self.sends.take_commands()]
        if self._remembered:
            commands.append(RememberTaken(tuple(self._remembered)))
            self._remembered = []
        due_s = self._reports.next_timeout()
        if due_s is not None and due_s <= now and self._may_report():
            commands.extend(self._hand_report(batch) for batch in self._reports.flush(now))
        return commands

    @property
    def reports_pending_count(self) -> int:
        """Reports that no router has taken custody of."""
        return len(self._reports) + self._report_chunks_in_flight

    def stats(self) -> dict[str, float | int]:
        """Return every counter and gauge, prefixed by the half it belongs to."""
        parts: dict[str, dict[str, float | int]] = {
            "send": self.sends.stats(),
            "receive": {**self.counters, "unanswered_count": self._unanswered_count},
            "ids": {"forgotten_total": self._ids.forgotten_count},
            "window": self.window.stats(),
            "report": {**self._reports.counters, "pending_count": len(self._reports)},
        }
        return {f"{part}_{key}": parts[part][key] for part in parts for key in parts[part]}

    # inside

    def _template(self, options: SendOptions) -> HeaderTemplate:
        template = self._templates.get(options)
        if template is None:
            if len(self._templates) >= MAX_TEMPLATES_COUNT:
                self.counters["templates_forgotten_total"] += len(self._templates)
                self._templates.clear()
            template = self._templates[options] = HeaderTemplate(options, self.guid, self._labels)
        return template

    def _data_arrived(self, chunk: ReceivedChunk, now: float) -> ReceivedChunk | Refusal | None:
        header = chunk.header
        source, chunk_id = header.source, header.chunk_id
        if self._unanswered_count >= self.limits.max_unanswered_count:
            return self._refuse(Reason.STORE_FULL, "unanswered")
        if header.digest is not None and not header.digest.matches(chunk.payload):
            return self._refuse(Reason.DIGEST_MISMATCH, "digest")
        seen = self.window.arrived(source.value, chunk_id.value, _lifetime_s(header), now)
        if seen is Seen.NEW:
            self._unanswered_count += 1
            self.counters["arrived_total"] += 1
            return chunk
        self.counters[f"duplicates_{seen.value}_total"] += 1
        chunk.drop()
        if header.wants_report and seen is Seen.TAKEN:
            self._report(source, chunk_id, None, now)
        elif header.wants_report and seen is Seen.REFUSED:
            words = self.window.refusal_detail(source.value, chunk_id.value)
            self._report(source, chunk_id, words, now)
        return None

    def _reports_arrived(self, chunk: ReceivedChunk, now: float) -> None:
        self.counters["report_chunks_arrived_total"] += 1
        try:
            reports = decode_reports(chunk.payload)
        except ProtocolError as error:
            self.counters[f"malformed_{error.reason}_total"] += 1
            reports = []
        chunk.drop()
        for report in reports:
            self.sends.reported(report, now)

    def _report(self, source: GUID, chunk_id: ChunkId, words: str | None, now: float) -> None:
        if words is None:
            report = DeliveryReport(chunk_id, Outcome.DELIVERED)
        else:
            report = DeliveryReport(chunk_id, Outcome.REFUSED, Reason.RECEIVER_REFUSED, words)
        self._reports.add(source.value, report, now)

    def _hand_report(self, batch: ReportBatch) -> HandReport:
        destination = GUID(batch.source)
        options = SendOptions(destination, payload_type=PayloadType.REPORT, wants_report=False)
        chunk_id = self._ids.take(batch.source, self.sends)
        payload = batch.payload
        template = self._template(options)
        prefix = template.fill(chunk_id, len(payload), REPORT_LIFETIME_MS)
        self._report_chunks_in_flight += 1
        return HandReport(batch, prefix, payload)

    def _may_report(self) -> bool:
        in_flight = self._report_chunks_in_flight
        return self._link_is_up and in_flight < MAX_REPORT_CHUNKS_IN_FLIGHT_COUNT

    def _refuse(self, reason: Reason, why: str) -> Refusal:
        self.counters[f"hop_refused_{reason.word}_{why}_total"] += 1
        return Refusal(reason)


def _as_bytes_view(payload: Buffer) -> memoryview:
    view = memoryview(payload)
    if not view.c_contiguous:
        raise LocalMisuseError("a payload must be one contiguous piece of memory")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _lifetime_s(header: ChunkHeader) -> float | None:
    return None if header.lifetime_ms is None else header.lifetime_ms / 1000
