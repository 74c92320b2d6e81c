"""Chunks without services: taking, refusing, finding the way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from packetcloud.chunk.header import (
    DeliveryMode,
    DigestAlgorithm,
    PayloadDigest,
    ServiceParameters,
    UnknownExtension,
)
from packetcloud.chunk.hop.api import Role, Settlement
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID, NA
from packetcloud.chunk.reasons import Reason
from packetcloud.router.settings import RouterNeighbour
from tests.unit.router.router_fakes import (
    OTHER_ROUTER,
    ROUTER_NA,
    A,
    B,
    C,
    FakeNetwork,
    S,
    chunk,
    guid,
    reason_of,
    reports_in,
    settings,
)


def test_chunk_to_attached_host_leaves_at_once_with_source_na_stamped() -> None:
    """The only change to a chunk between two hosts of one router is its source NA."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    assert a.chunk(chunk()) is None
    (sent,) = b.accept_all()
    assert sent.kind is BodyKind.CHUNK
    assert sent.data == chunk(source_na=ROUTER_NA)
    assert net.sums["delivered"] == 1
    net.check_idle()


def test_second_chunk_of_a_flow_is_treated_like_the_first() -> None:
    """The flow cache changes nothing but the time it takes; the header is decoded once."""
    net = FakeNetwork(settings(names={C: NA(2)}))
    a, b, q = net.host(A), net.host(B), net.router()
    for number in range(5):
        for destination, neighbour in ((B, b), (C, q)):
            assert a.chunk(chunk(destination=destination, chunk_id=number)) is None
            (sent,) = neighbour.accept_all()
            assert sent.header.chunk_id.value == number
            assert sent.header.source_na == ROUTER_NA
    assert [one.flow_misses for one in net.core.attachments if one.guid == A] == [2]
    net.check_idle()


def test_flow_cache_tells_apart_what_differs_in_extensions_only() -> None:
    """Two headers of one length and one set of names, but other extensions, are not confused."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    with_report = chunk(wants_report=True, wants_trace=False)
    with_trace = chunk(wants_report=False, wants_trace=True)
    assert len(with_report) == len(with_trace)
    for data, is_reported in ((with_report, True), (with_trace, False), (with_report, True)):
        assert a.chunk(data) is None
        b.settle(b.unsettled[0], Settlement.REFUSED, Reason.RECEIVER_REFUSED)
        net.end_turn()
        assert len(a.accept_all()) == is_reported
    net.check_idle()


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": PayloadDigest(DigestAlgorithm.SHA256, bytes(32))},
        {"parameters": (ServiceParameters(S, b"x" * 200), ServiceParameters(S, b"y" * 300))},
        {"unknown": (UnknownExtension(99, b"later"),)},
        {"lifetime_ms": None, "wants_report": False},
    ],
)
def test_every_extension_passes_unchanged(changes: dict[str, Any]) -> None:
    """Extensions that are not the router's pass as they are, also in a header over 256 bytes."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    for _ in range(2):
        assert a.chunk(chunk(**changes)) is None
        (sent,) = b.accept_all()
        assert sent.data == chunk(source_na=ROUTER_NA, **changes)


def test_host_may_not_use_another_source() -> None:
    """A host that sends under a GUID that it does not own is refused before custody."""
    net = FakeNetwork()
    a, _ = net.host(A), net.host(B)
    assert reason_of(a.chunk(chunk(source=C))) is Reason.NOT_AUTHORISED
    assert net.sums["taken_in"] == 0


def test_router_neighbour_brings_chunks_of_any_source() -> None:
    """Between routers the source is somebody else, and its NA stays as it was stamped."""
    net = FakeNetwork(settings())
    q, b = net.router(), net.host(B)
    assert q.chunk(chunk(source_na=NA(9))) is None
    assert b.accept_all()[0].header.source_na == NA(9)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"\x01", Reason.MALFORMED),
        (chunk()[:87], Reason.MALFORMED),
        (chunk()[:-1], Reason.MALFORMED),
        (chunk() + b"!", Reason.MALFORMED),
        (b"\x02" + chunk()[1:], Reason.UNSUPPORTED),
        (
            chunk(lifetime_ms=None).replace(b"\x03\x00\x00\x00", b"\x63\x80\x00\x00"),
            Reason.UNSUPPORTED,
        ),
        (chunk(delivery_mode=DeliveryMode.MULTICAST), Reason.UNSUPPORTED),
        (chunk(destination=guid("x")), Reason.UNRESOLVABLE_GUID),
        (chunk(destination=guid("x"), destination_na=ROUTER_NA), Reason.UNRESOLVABLE_GUID),
        (chunk(destination=guid("x"), destination_na=NA(77)), Reason.UNRESOLVABLE_GUID),
        (chunk(services=(S,)), Reason.UNKNOWN_SID),
        (chunk(lifetime_ms=0), Reason.DEADLINE_PASSED),
        (chunk(payload=b"x" * 1001), Reason.PAYLOAD_TOO_LARGE),
        (chunk(destination=C, hop_limit=0), Reason.HOP_LIMIT),
    ],
)
def test_refusals_at_the_door(data: bytes, reason: Reason) -> None:
    """What can be known from the header is refused before custody, cached flow or not."""
    net = FakeNetwork(settings(max_payload_bytes=1000, names={C: NA(2)}))
    a, b, q = net.host(A), net.host(B), net.router()
    for _ in range(2):
        assert reason_of(a.chunk(data)) is reason
        assert a.chunk(chunk()) is None
        assert a.chunk(chunk(destination=C)) is None
    b.accept_all()
    q.accept_all()
    assert net.core.door.refusals == {reason: 2}
    net.check_idle()


def test_payload_at_the_limit_is_taken() -> None:
    """The limit itself is allowed."""
    net = FakeNetwork(settings(max_payload_bytes=1000))
    a, _ = net.host(A), net.host(B)
    assert a.chunk(chunk(payload=b"x" * 1000)) is None


def test_store_cap_counts_every_chunk_in_custody() -> None:
    """At the cap the next chunk is refused; when room is free again, it is taken."""
    size = len(chunk())
    net = FakeNetwork(settings(store_bytes=2 * size))
    a, b = net.host(A), net.host(B)
    assert a.chunk(chunk()) is None
    assert a.chunk(chunk()) is None
    assert reason_of(a.chunk(chunk())) is Reason.STORE_FULL
    b.settle(b.unsettled[0])
    assert a.chunk(chunk()) is None


def test_wrong_kinds_of_body_are_refused() -> None:
    """Hosts send chunks and VIs verdicts; nothing else is taken from them."""
    net = FakeNetwork(settings())
    a = net.host(A)
    assert reason_of(a.body(BodyKind.TASK, b"x" * 200)) is Reason.NOT_AUTHORISED
    assert reason_of(a.body(BodyKind.VERDICT, b"x" * 200)) is Reason.NOT_AUTHORISED


def test_towards_another_router_hop_limit_falls_and_destination_na_is_bound() -> None:
    """A name from the static table goes to the router of its NA, one hop poorer, NA filled in."""
    net = FakeNetwork(settings(names={C: NA(3)}))
    a, q = net.host(A), net.router()
    assert a.chunk(chunk(destination=C, hop_limit=5)) is None
    (sent,) = q.accept_all()
    assert (sent.header.hop_limit, sent.header.destination_na) == (4, NA(3))
    assert net.sums["sent_on"] == 1


def test_last_hop_to_a_host_needs_no_hop_limit() -> None:
    """The hop limit counts hops between routers: zero still reaches an attached host."""
    net = FakeNetwork(settings())
    q, b = net.router(), net.host(B)
    assert q.chunk(chunk(hop_limit=0)) is None
    assert b.accept_all()[0].header.hop_limit == 0


def test_na_in_the_header_is_used_when_no_table_knows_the_name() -> None:
    """A source that knows the NA needs no entry here; the table wins where both speak."""
    net = FakeNetwork(settings(names={B: NA(3)}))
    a, q = net.host(A), net.router()
    assert a.chunk(chunk(destination=C, destination_na=NA(2))) is None
    assert a.chunk(chunk(destination=B, destination_na=NA(2))) is None
    assert [sent.header.destination_na for sent in q.accept_all()] == [NA(2), NA(3)]


def test_host_attached_here_wins_over_the_table() -> None:
    """A host that is here is here, whatever a table says, as soon as it attaches."""
    net = FakeNetwork(settings(names={B: NA(2)}))
    a, q = net.host(A), net.router()
    assert a.chunk(chunk()) is None
    assert len(q.accept_all()) == 1
    b = net.host(B)
    assert a.chunk(chunk()) is None
    assert len(b.accept_all()) == 1


def test_drain_refuses_new_chunks_and_finishes_old_ones() -> None:
    """Nothing new is taken; what is in custody is delivered, or refused in the end."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    net.host(C).go_down()
    assert a.chunk(chunk()) is None
    assert a.chunk(chunk(destination=C)) is None
    net.core.start_draining()
    assert reason_of(a.chunk(chunk())) is Reason.SHUTTING_DOWN
    assert net.core.admit(guid("n"), Role.HOST) is not None
    b.accept_all()
    net.core.give_up_all()
    net.end_turn()
    (report,) = reports_in(a.accept_all()[0])
    assert report.reason == Reason.SHUTTING_DOWN
    net.check_idle()


def test_admission_follows_the_tables() -> None:
    """Listed hosts, configured routers, configured services; everybody else hears why not."""
    core = FakeNetwork(settings(hosts=frozenset({A}))).core
    assert core.admit(A, Role.HOST) is None
    assert core.admit(OTHER_ROUTER, Role.ROUTER) is None
    for name, role in ((B, Role.HOST), (A, Role.ROUTER), (GUID(S.value), Role.SERVICE)):
        assert core.admit(name, role) is not None


def test_reconfiguring_moves_names_and_drops_neighbours() -> None:
    """After a new config, chunks follow the new table and a removed router is closed."""
    before = settings(names={C: NA(2)})
    net = FakeNetwork(before)
    a, q = net.host(A), net.router()
    assert a.chunk(chunk(destination=C)) is None
    assert len(q.accept_all()) == 1
    other = RouterNeighbour(guid("p"), "p", NA(5))
    net.core.configure(replace(before, neighbours=(other,), names={C: NA(5)}), net.now)
    assert q.closed_because is not None
    net.end_turn()
    p = net.router(guid("p"))
    assert a.chunk(chunk(destination=C)) is None
    assert len(p.accept_all()) == 1
    net.check_idle()


def test_a_fault_after_custody_was_taken_ends_the_chunk_in_the_books_only() -> None:
    """Refused by the hop as well, its memory would be reused while the router still holds it."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)

    def fault(*_: object) -> None:
        raise RuntimeError("a fault of the router")

    good, net.core.forwarder.leave = net.core.forwarder.leave, fault  # type: ignore[method-assign]  # for one call
    assert a.chunk(chunk()) is None, "custody was taken: the hop must not give the body back"
    net.core.forwarder.leave = good  # type: ignore[method-assign]  # for one call
    assert net.core.book.refused[Reason.INTERNAL_ERROR] == 1
    assert a.chunk(chunk(chunk_id=2)) is None
    assert [sent.header.chunk_id.value for sent in b.accept_all()] == [2]
    net.check_idle()
