"""What the tests of services ask of the neighbours in a visit."""

from __future__ import annotations

from typing import TypeVar

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.messages import Outcome
from packetcloud.chunk.names import GUID, GUID_ZERO, SID, SID_ZERO
from packetcloud.chunk.reasons import Reason
from tests.unit.router.router_fakes import (
    C,
    FakeNeighbour,
    Sent,
    chunk,
    reports_in,
)

ItemT = TypeVar("ItemT")


def only(items: list[ItemT]) -> ItemT:
    assert len(items) == 1
    return items[0]


def task_of(vi: FakeNeighbour) -> Sent:
    """Let the VI accept its one waiting task."""
    return only(vi.accept_all())


def reported(source: FakeNeighbour) -> tuple[Outcome, Reason, str]:
    source.network.end_turn()
    report = only(reports_in(only(source.accept_all())))
    return report.outcome, Reason(report.reason), report.detail


def emitted(
    destination: GUID = C,
    payload: bytes = b"made",
    source: GUID = GUID_ZERO,
    sid: SID = SID_ZERO,
    chunk_id: int = 99,
    payload_type: int = PayloadType.DATA,
) -> bytes:
    return chunk(
        source,
        destination,
        payload,
        () if sid.is_zero else (sid,),
        chunk_id,
        wants_report=False,
        payload_type=payload_type,
    )
