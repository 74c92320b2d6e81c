"""What a VI of the cloudlet's table may say: its verdicts are looked at before they have an effect.

One that it may not give counts as FAILED, so the chunk goes to another VI, or by the fail policy of
the service. Source: docs/decisions/0013; design, section 8; reference T-23.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.hop.api import Body, FoundT
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

    def finding(
        self, vi: CloudletVI, entry: Custody, verdict: VerdictHeader, body: Body, now: float
    ) -> Finding | None:
        """Return what is wrong with a verdict; None if the VI may give it, or it is malformed."""
        service = vi.service.entry
        found: Finding | None = None
        if service.verdicts is not None:
            found = _undeclared(service.verdicts, verdict.code)
            if found is None and verdict.updates:
                found = _undeclared(service.verdicts, VerdictCode.UPDATE)
        if found is None and vi.entry is not None and vi.entry.is_bound:
            found = self._beyond_restriction(vi, entry, verdict, len(body))
        if found is None and service.destinations is not None:
            found = self._sent_astray(service.destinations, verdict, body, now)
        if found is None and service.budget is not None:
            found = _beyond_budget(vi, service.budget, entry, verdict, len(body))
        return found

    def _sent_astray(
        self, allowed: Destinations, verdict: VerdictHeader, body: Body, now: float
    ) -> Finding | None:
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
            return Violation.EMIT, "a restricted VI emits nothing"
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


class RefusedVerdict:
    """Stands in for the body of a verdict that a VI may not give: FAILED, and why."""

    flow = 0

    def __init__(self, verdict: VerdictHeader, why: str) -> None:
        detail = f"not allowed: {why}".encode()[:MAX_DETAIL_BYTES]
        failed = VerdictHeader(verdict.task_id, VerdictCode.FAILED, verdict.processing_ns, detail)
        self._data = memoryview(bytearray(failed.to_bytes()))

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
