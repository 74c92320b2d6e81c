"""What a hop carries besides plain chunks: service tasks, verdicts and delivery reports.

A hop carries bodies: one kind byte and bytes. `CHUNK`: header ‖ payload. `TASK`: what a router
gives to a VI. `VERDICT`: what the VI answers. A delivery report is the payload of a small chunk.

Source: docs/protocol/chunk.md, "Between router and VI" and "Delivery reports".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.names import GUID, GUID_BYTES, NA, NA_BYTES, ChunkId

MAX_DETAIL_BYTES = 512
"""A drop reason or failure text that a service gives: a line or two for a person to read."""
MAX_REPORT_ENTRIES = 4096
"""Entries of one delivery report: 4096 are 48 KiB without details."""


class BodyKind(IntEnum):
    """What the bytes of a body are."""

    CHUNK = 1
    TASK = 2
    VERDICT = 3


_TASK = struct.Struct(">QII")
TASK_BYTES = _TASK.size
TASK_ID_BYTES = 8
"""A task begins with its id, and so does the verdict on it."""


@dataclass(frozen=True, slots=True)
class TaskHeader:
    """Stands before a chunk on its way to a VI: task id, and how long the router will wait."""

    task_id: int
    deadline_ms: int

    def to_bytes(self) -> bytes:
        """Encode the 16 bytes.

        Raises:
            LocalMisuseError: a value does not fit its field.
        """
        return _pack(_TASK, self.task_id, self.deadline_ms, 0)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """Decode the first 16 bytes of a task body.

        Raises:
            ProtocolError: too short, or reserved bits are set.
        """
        if len(data) < TASK_BYTES:
            raise ProtocolError("short_task", f"{len(data)} bytes")
        task_id, deadline_ms, reserved = _TASK.unpack_from(data)
        if reserved:
            raise ProtocolError("reserved_bits", f"{reserved:#x}")
        return cls(task_id, deadline_ms)


class VerdictCode(IntEnum):
    """What a service decided. Source: design, section 6, step 5."""

    FORWARD = 1
    """Send the chunk on as it is; no payload travels back."""
    UPDATE = 2
    """Send the chunk on with the payload that follows; as another payload type if it says one."""
    DROP = 3
    """Discard the chunk; nothing further runs. The detail says why."""
    REDIRECT = 4
    """Send the chunk to another destination: the detail is GUID (20 B) and NA (4 B)."""
    EMIT = 5
    """`count` whole chunks follow, to be sent as well as (`keep`) or instead of this one; after
    them, with `updates`, the new payload of the one that is kept."""
    FAILED = 6
    """The service raised an error; the router treats it as no verdict. The detail says which."""


_VERDICT = struct.Struct(">QBBHQI")
VERDICT_BYTES = _VERDICT.size
_KEEP = 1
_RETYPED = 2
_UPDATES = 4
_AGAIN = 8
_TYPE_SHIFT = 24
_MAX_RETYPED_COUNT = (1 << _TYPE_SHIFT) - 1
REDIRECT_DETAIL_BYTES = GUID_BYTES + NA_BYTES


@dataclass(frozen=True, slots=True)
class VerdictHeader:
    """Stands before what a VI sends back. `processing_ns`: time inside `process`, by the VI.

    `payload_type`: of the new payload of an UPDATE, or an EMIT that updates; None: as it was.
    """

    task_id: int
    code: VerdictCode
    processing_ns: int
    detail: bytes = b""
    emit_count: int = 0
    keep: bool = False
    payload_type: int | None = None
    updates: bool = False
    """EMIT with `keep`: this chunk's new payload follows the emitted chunks."""
    again: bool = False
    """DROP, or EMIT without `keep`: the chunk is dropped for now. Its source is told that sending
    it again may work, and the detail."""

    def to_bytes(self) -> bytes:
        """Encode the head and its detail.

        Raises:
            LocalMisuseError: a value does not fit its field, the detail is over 512 bytes, a
                redirect does not name a GUID and an NA, what updates nothing names a payload type,
                or a flag does not go with the code.
        """
        if len(self.detail) > MAX_DETAIL_BYTES:
            raise LocalMisuseError(f"a verdict detail of {len(self.detail)} bytes")
        if self.code == VerdictCode.REDIRECT and len(self.detail) != REDIRECT_DETAIL_BYTES:
            raise LocalMisuseError("a redirect needs GUID and NA")
        flags, count = _KEEP if self.keep else 0, self.emit_count
        if self.payload_type is not None:
            most = _MAX_RETYPED_COUNT if self.updates else 0
            updates = self.updates or self.code == VerdictCode.UPDATE
            if not updates or count > most or not 0 <= self.payload_type <= 0xFF:
                raise LocalMisuseError(f"payload type {self.payload_type} of a {self.code!r}")
            flags |= _RETYPED
            count |= self.payload_type << (_TYPE_SHIFT if self.updates else 0)
        flags |= (_UPDATES if self.updates else 0) | (_AGAIN if self.again else 0)
        if not _is_allowed(self.code, flags):
            raise LocalMisuseError(f"{self.code.name} with flags {flags:#04x}")
        head = _pack(
            _VERDICT,
            self.task_id,
            self.code,
            flags,
            len(self.detail),
            self.processing_ns,
            count,
        )
        return head + self.detail

    @property
    def encoded_bytes(self) -> int:
        return VERDICT_BYTES + len(self.detail)

    @classmethod
    def redirect(cls, task_id: int, processing_ns: int, to: GUID, na: NA) -> Self:
        return cls(task_id, VerdictCode.REDIRECT, processing_ns, to.value + na.to_bytes())

    @property
    def redirect_target(self) -> tuple[GUID, NA]:
        """Where a REDIRECT goes."""
        return GUID(self.detail[:GUID_BYTES]), NA.from_bytes(self.detail[GUID_BYTES:])

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """Decode the head of a verdict body; what follows `encoded_bytes` is its payload.

        Raises:
            ProtocolError: any field is out of its range.
        """
        if len(data) < VERDICT_BYTES:
            raise ProtocolError("short_verdict", f"{len(data)} bytes")
        task_id, code, flags, detail_bytes, processing_ns, count = _VERDICT.unpack_from(data)
        if code not in _CODES:
            raise ProtocolError("bad_verdict", f"code {code}")
        if not _is_allowed(code, flags):
            raise ProtocolError("reserved_bits", f"{flags:#04x}")
        detail = bytes(data[VERDICT_BYTES : VERDICT_BYTES + detail_bytes])
        if detail_bytes > MAX_DETAIL_BYTES or len(detail) != detail_bytes:
            raise ProtocolError("bad_verdict", f"detail of {detail_bytes} bytes")
        if code == VerdictCode.REDIRECT and detail_bytes != REDIRECT_DETAIL_BYTES:
            raise ProtocolError("bad_verdict", "a redirect needs GUID and NA")
        keep, payload_type = bool(flags & _KEEP), None
        if flags & _RETYPED:
            if flags & _UPDATES:
                payload_type, count = count >> _TYPE_SHIFT, count & _MAX_RETYPED_COUNT
            elif code == VerdictCode.UPDATE and count <= 0xFF:
                payload_type, count = count, 0
            else:
                raise ProtocolError("bad_verdict", f"payload type {count} of code {code}")
        return cls(
            task_id,
            VerdictCode(code),
            processing_ns,
            detail,
            count,
            keep,
            payload_type,
            bool(flags & _UPDATES),
            bool(flags & _AGAIN),
        )


_CODES = frozenset(int(code) for code in VerdictCode)


def _is_allowed(code: int, flags: int) -> bool:
    """Tell whether these flags go with each other and with the code; `keep` goes with any."""
    if flags & _UPDATES:
        return code == VerdictCode.EMIT and flags & ~_RETYPED == _KEEP | _UPDATES
    if flags & _AGAIN:
        return code in (VerdictCode.DROP, VerdictCode.EMIT) and flags == _AGAIN
    return not flags & ~(_KEEP | _RETYPED)


class Outcome(IntEnum):
    """How a chunk's journey ended, as the source is told."""

    DELIVERED = 1
    REFUSED = 2
    EXPIRED = 3


_ENTRY = struct.Struct(">QBBH")
SECOND_HAND = 0x80
"""Flag in the byte of the outcome; never with `DELIVERED`."""
_OUTCOMES = {
    int(outcome) | flag: outcome
    for outcome in Outcome
    for flag in (0, SECOND_HAND)
    if not (flag and outcome is Outcome.DELIVERED)
}


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """The end of one chunk's journey. `reason` is a `Reason` number, 0 when delivered.

    `detail` is text for a person: UTF-8 on the wire, cut after 512 bytes.
    """

    chunk_id: ChunkId
    outcome: Outcome
    reason: int = 0
    detail: str = ""
    is_second_hand: bool = False
    """It failed at a custodian that had it from another custodian, not from its source: that one
    may have given it out twice, when a session between them was lost."""


def encode_reports(reports: list[DeliveryReport]) -> bytes:
    """Encode the payload of a report chunk: one entry after the other.

    Raises:
        LocalMisuseError: over 4096 entries, a reason that is not an 8-bit number, or a delivery
            at second hand.
    """
    if len(reports) > MAX_REPORT_ENTRIES:
        raise LocalMisuseError(f"{len(reports)} report entries, at most {MAX_REPORT_ENTRIES}")
    parts = []
    for report in reports:
        detail = _cut_text(report.detail)
        outcome = int(report.outcome)
        if report.is_second_hand:
            if report.outcome is Outcome.DELIVERED:
                raise LocalMisuseError("a delivery is never at second hand")
            outcome |= SECOND_HAND
        parts.append(_pack(_ENTRY, report.chunk_id.value, outcome, report.reason, len(detail)))
        parts.append(detail)
    return b"".join(parts)


def decode_reports(payload: bytes | bytearray | memoryview) -> list[DeliveryReport]:
    """Decode the payload of a report chunk.

    Raises:
        ProtocolError: an entry is cut off, its outcome is unknown, its detail is not UTF-8, or
            there are over 4096.
    """
    reports: list[DeliveryReport] = []
    offset = 0
    while offset < len(payload):
        if len(payload) - offset < _ENTRY.size:
            raise ProtocolError("bad_report", "cut off")
        chunk_id, told, reason, detail_bytes = _ENTRY.unpack_from(payload, offset)
        offset += _ENTRY.size
        detail = bytes(payload[offset : offset + detail_bytes])
        if len(detail) != detail_bytes or detail_bytes > MAX_DETAIL_BYTES:
            raise ProtocolError("bad_report", "detail cut off")
        outcome = _OUTCOMES.get(told)
        if outcome is None:
            raise ProtocolError("bad_report", f"outcome {told:#04x}")
        if len(reports) == MAX_REPORT_ENTRIES:
            raise ProtocolError("bad_report", f"over {MAX_REPORT_ENTRIES} entries")
        try:
            text = detail.decode()
        except UnicodeDecodeError:
            raise ProtocolError("bad_report", "detail is not UTF-8") from None
        is_second_hand = bool(told & SECOND_HAND)
        reports.append(DeliveryReport(ChunkId(chunk_id), outcome, reason, text, is_second_hand))
        offset += detail_bytes
    return reports


def _cut_text(text: str) -> bytes:
    """Encode `text` in at most 512 bytes, never cutting a character in two."""
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_DETAIL_BYTES:
        return data
    return data[:MAX_DETAIL_BYTES].decode("utf-8", "ignore").encode()


def _pack(layout: struct.Struct, *values: int) -> bytes:
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise LocalMisuseError(f"a value does not fit its field: {error}") from None
