"""What a VI of the cloudlet's table may say: its verdicts are looked at before they have an effect.

One that it may not give counts as FAILED, so the chunk goes to another VI, or by the fail policy of
the service. What a restricted VI sends beside a chunk is left out, if it might go there at all; its
verdict on the chunk counts.
Source: docs/decisions/0013; design, section 8; reference T-23.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.hop.api import Body, Buffer, FoundT
from packetcloud.chunk.messages import MAX_DETAIL_BYTES, VerdictCode, VerdictHeader
from packetcloud.chunk.names import GUID, NA, SID
from packetcloud.router.cloudlet_pool import CloudletVI
from packetcloud.router.cloudlet_table import Destinations, OutputBudget
from packetcloud.router.conduct_account import OUTPUT_ALLOWANCE_BYTES, Violation
from packetcloud.router.custody import Custody
from packetcloud.router.emitted import emitted_headers

WhereIs = Callable[[GUID, NA, float], int | None]
"""Returns the NA that a chunk with this destination, and this NA in its header, goes to."""

Finding = tuple[Violation, str]


class VerdictChecks:
    """Looks at verdicts.

    Args:
        where_is: of destinations. None: nobody here knows the way.
        where_runs: the same of services.
    """

    def __init__(self, where_is: WhereIs, where_runs: Callable[[SID], int | None]) -> None:
        self._where_is = where_is
        self._where_runs = where_runs

    def undeclared(self, vi: CloudletVI, verdict: VerdictHeader) -> Finding | None:
        """Return what of a verdict its service did not declare; None: nothing."""
        declared = vi.service.entry.verdicts
        if declared is None:
            return None
        found = _undeclared(declared, verdict.code)
        if found is None and verdict.updates:
            found = _undeclared(declared, VerdictCode.UPDATE)
        return found

    def finding(
        self, vi: CloudletVI, entry: Custody, verdict: VerdictHeader, body: Body, now: float
    ) -> Finding | None:
        """Return what is wrong with what a verdict does; None: nothing, or it is malformed."""
        service = vi.service.entry
        found: Finding | None = None
        if vi.entry is not None and vi.entry.is_bound:
            found = self._beyond_restriction(vi, entry, verdict, len(body))
        if found is None:
            found = self.sent_astray(vi, verdict, body, now)
        if found is None and service.budget is not None:
            found = _beyond_budget(vi, service.budget, entry, verdict, len(body))
        return found

    def sent_astray(
        self, vi: CloudletVI, verdict: VerdictHeader, body: Body, now: float
    ) -> Finding | None:
        """Return what of a verdict goes where its service may not send; None: nothing."""
        allowed = vi.service.entry.destinations
        if allowed is None:
            return None
        if verdict.code is VerdictCode.REDIRECT:
            guid, na = verdict.redirect_target
            return self._astray(allowed, guid, na, (), now)
        if verdict.code is VerdictCode.EMIT:
            return self._emitted_astray(allowed, verdict, body, now)
        return None

    def _beyond_restriction(
        self, vi: CloudletVI, entry: Custody, verdict: VerdictHeader, body_bytes: int
    ) -> Finding | None:
        if verdict.code is VerdictCode.EMIT:
            return Violation.EMIT, "a restricted VI emits nothing instead of a chunk"
        if verdict.code is VerdictCode.REDIRECT:
            return Violation.REDIRECT, "a restricted VI redirects nothing"
        if verdict.code is VerdictCode.UPDATE:
            made_bytes = body_bytes - verdict.encoded_bytes
            ratio = vi.service.entry.max_output_ratio
            budget_bytes = int(ratio * entry.payload_bytes) + OUTPUT_ALLOWANCE_BYTES
            if made_bytes > budget_bytes:
                text = f"{made_bytes} bytes of {entry.payload_bytes}, allowed: {budget_bytes}"
                return Violation.OUTPUT, f"a restricted VI made {text}"
        return None

    def _emitted_astray(
        self, allowed: Destinations, verdict: VerdictHeader, body: Body, now: float
    ) -> Finding | None:
        data = body.contiguous()[verdict.encoded_bytes :]
        try:
            emitted = emitted_headers(data, verdict.emit_count, updates=verdict.updates)
        except ProtocolError:
            return None  # refused for that
        for header, _ in emitted:
            sids = _services_of(header)
            found = self._astray(allowed, header.destination, header.destination_na, sids, now)
            if found is not None:
                return found
        return None

    def _astray(
        self, allowed: Destinations, guid: GUID, na: NA, sids: Iterable[SID], now: float
    ) -> Finding | None:
        """Return where it would go that it may not: its destination, or a service on the way."""
        if guid not in allowed.guids and _na(self._where_is(guid, na, now)) not in allowed.nas:
            return Violation.DESTINATION, f"its service may not send to {guid}"
        for sid in sids:
            if (
                GUID(sid.value) not in allowed.guids
                and _na(self._where_runs(sid)) not in allowed.nas
            ):
                return Violation.DESTINATION, f"its service may not send to service {sid}"
        return None


class WrittenVerdict:
    """Stands in for the body of a verdict: what the router makes of it."""

    def __init__(self, header: VerdictHeader, payload: Buffer = b"", flow: int = 0) -> None:
        self.header = header
        self.flow = flow
        self._data = memoryview(bytearray(b"".join((header.to_bytes(), payload))))

    @classmethod
    def refused(cls, verdict: VerdictHeader, why: str) -> Self:
        """Return it for a verdict that a VI may not give: FAILED, and why."""
        detail = f"not allowed: {why}".encode()[:MAX_DETAIL_BYTES]
        return cls(
            VerdictHeader(verdict.task_id, VerdictCode.FAILED, verdict.processing_ns, detail)
        )

    @classmethod
    def without_emission(cls, verdict: VerdictHeader, body: Body) -> Self | None:
        """Return what a verdict says of its own chunk alone; None: it says nothing of it, sends
        nothing, or is malformed."""
        if verdict.code is not VerdictCode.EMIT or not (verdict.keep or verdict.again):
            return None
        data = body.contiguous()[verdict.encoded_bytes :]
        try:
            headers = emitted_headers(data, verdict.emit_count, updates=verdict.updates)
        except ProtocolError:
            return None
        task_id, took_ns = verdict.task_id, verdict.processing_ns
        if verdict.updates:
            kind = verdict.payload_type
            own = VerdictHeader(task_id, VerdictCode.UPDATE, took_ns, payload_type=kind)
            return cls(own, data[headers[-1][1] :], body.flow)
        if verdict.keep:
            return cls(VerdictHeader(task_id, VerdictCode.FORWARD, took_ns), flow=body.flow)
        own = VerdictHeader(task_id, VerdictCode.DROP, took_ns, verdict.detail, again=True)
        return cls(own, flow=body.flow)

    def __len__(self) -> int:
        return len(self._data)

    def head(self, count: int) -> bytes:
        return bytes(self._data[:count])

    def patch(self, offset: int, data: bytes) -> None:
        self._data[offset : offset + len(data)] = data

    def contiguous(self) -> memoryview:
        return self._data

    def look(self, at: Callable[[memoryview], FoundT]) -> FoundT:
        return at(self.contiguous())

    def release(self) -> None:
        """It is no buffer of the hop."""


def _undeclared(declared: frozenset[VerdictCode], code: VerdictCode) -> Finding | None:
    if code in declared or code is VerdictCode.FAILED:
        return None
    if code is VerdictCode.UPDATE:
        return Violation.PAYLOAD, "its service declared that it changes no payload"
    return Violation.VERDICT, f"its service did not declare the verdict {code.name.lower()}"


def _beyond_budget(
    vi: CloudletVI, budget: OutputBudget, entry: Custody, verdict: VerdictHeader, body_bytes: int
) -> Finding | None:
    made_bytes = body_bytes - verdict.encoded_bytes
    match verdict.code:
        case VerdictCode.FORWARD | VerdictCode.REDIRECT:
            out = entry.payload_bytes, 1
        case VerdictCode.UPDATE:
            out = made_bytes, 1
        case VerdictCode.EMIT if verdict.updates:
            out = made_bytes, verdict.emit_count + 1
        case VerdictCode.EMIT if verdict.keep:
            out = made_bytes + entry.payload_bytes, verdict.emit_count + 1
        case VerdictCode.EMIT:
            out = made_bytes, verdict.emit_count
        case VerdictCode.DROP:
            out = 0, 0
        case _:
            return None
    text = vi.account.spend(budget, entry.payload_bytes, *out)
    return None if text is None else (Violation.BUDGET, f"its output is over its budget: {text}")


def _services_of(header: ChunkHeader) -> tuple[SID, ...]:
    if header.sequence is not None:
        return header.sequence.sids
    return () if header.sid.is_zero else (header.sid,)


def _na(value: int | None) -> NA | None:
    return NA(value) if value else None
