"""What the source of a chunk is told of its end, and when it is told nothing."""

from __future__ import annotations

import pytest

from packetcloud.chunk.header import (
    PayloadType,
)
from packetcloud.chunk.hop.api import Settlement
from packetcloud.chunk.messages import Outcome
from packetcloud.chunk.names import NA
from packetcloud.chunk.reasons import Reason
from tests.unit.router.router_fakes import (
    ROUTER,
    A,
    B,
    FakeNetwork,
    chunk,
    reports_in,
    settings,
)


def test_refusal_of_the_next_custodian_is_told_to_the_source() -> None:
    """The reason that the destination gave travels back in a report, which wants none itself."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    assert a.chunk(chunk(chunk_id=77)) is None
    b.settle(b.unsettled[0], Settlement.REFUSED, Reason.RECEIVER_REFUSED)
    net.end_turn()
    (sent,) = a.accept_all()
    header = sent.header
    assert (header.source, header.destination) == (ROUTER, A)
    assert header.payload_type == PayloadType.REPORT and not header.wants_report
    (report,) = reports_in(sent)
    assert report.chunk_id.value == 77
    assert (report.outcome, report.reason) == (Outcome.REFUSED, Reason.RECEIVER_REFUSED)
    assert not report.is_second_hand, "it came from its source"
    net.check_idle()


def test_reports_of_one_turn_travel_together() -> None:
    """Many ends in one turn of the loop make one report chunk."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    for number in range(20):
        assert a.chunk(chunk(chunk_id=number)) is None
    while b.unsettled:
        b.settle(b.unsettled[0], Settlement.REFUSED, Reason.RECEIVER_REFUSED)
    net.end_turn()
    (sent,) = a.accept_all()
    assert [report.chunk_id.value for report in reports_in(sent)] == list(range(20))


def test_report_goes_to_the_source_na_across_routers() -> None:
    """The NA that the first router stamped is the way back; no table entry is needed."""
    net = FakeNetwork(settings())
    q, b = net.router(), net.host(B)
    assert q.chunk(chunk(source_na=NA(3))) is None
    b.settle(b.unsettled[0], Settlement.REFUSED, Reason.RECEIVER_REFUSED)
    net.end_turn()
    (sent,) = q.accept_all()
    assert (sent.header.destination, sent.header.destination_na) == (A, NA(3))
    (report,) = reports_in(sent)
    assert report.is_second_hand, "the router before may have passed it on before"


def test_chunk_that_wants_no_report_gets_none() -> None:
    """Nobody is told what he did not ask for."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    assert a.chunk(chunk(wants_report=False)) is None
    b.settle(b.unsettled[0], Settlement.REFUSED, Reason.RECEIVER_REFUSED)
    net.end_turn()
    assert not a.accept_all()


@pytest.mark.parametrize("kind", [PayloadType.REPORT, PayloadType.SEALED_REPORT])
def test_report_that_cannot_be_delivered_makes_no_further_report(kind: PayloadType) -> None:
    """Errors are never answered with errors, even if a report chunk claims to want a report."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    assert a.chunk(chunk(payload_type=kind, wants_report=True)) is None
    b.settle(b.unsettled[0], Settlement.REFUSED, Reason.RECEIVER_REFUSED)
    net.end_turn()
    assert not a.accept_all()
    assert net.core.book.undeliverable_reports_count == 1


@pytest.mark.parametrize(
    ("settlement", "term"),
    [(Settlement.CANCELLED, "expired"), (Settlement.ACCEPTED, "delivered")],
)
def test_chunk_that_expires_on_its_way_ends_as_the_hop_says(
    settlement: Settlement, term: str
) -> None:
    """A cancelled send that came too late is a delivery; either way the chunk counts once."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    assert a.chunk(chunk(lifetime_ms=2_000)) is None
    (sent,) = b.unsettled
    b.cancel = lambda token: None  # type: ignore[method-assign]  # the hop answers later
    net.pass_time(2.2)
    assert net.sums["held"] == 1
    net.pass_time(5.0)
    b.settle(sent, settlement)
    assert net.sums[term] == 1
    net.check_idle()


@pytest.mark.parametrize(
    ("settlement", "reason"),
    [
        (Settlement.CANCELLED, Reason.DEADLINE_PASSED),
        (Settlement.LOST, Reason.OUTCOME_UNKNOWN),
    ],
)
def test_chunk_given_up_while_the_next_hop_may_have_it_is_not_reported_as_certain(
    settlement: Settlement, reason: Reason
) -> None:
    """A stopped host had all of it in its socket, and its source was told "expired" for certain."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    assert a.chunk(chunk(lifetime_ms=2_000)) is None
    (sent,) = b.unsettled
    b.cancel = lambda token: b.settle(sent, settlement)  # type: ignore[method-assign]  # at once
    net.pass_time(2.2)
    assert net.sums["expired"] == 1
    net.end_turn()
    (report,) = [report for sent in a.unsettled for report in reports_in(sent)]
    assert report.reason == reason
    a.accept_all()
    net.check_idle()
