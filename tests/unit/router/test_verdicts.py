"""What a router does with each verdict of a service, and with what is none."""

from __future__ import annotations

import pytest

from packetcloud.chunk.header import (
    DigestAlgorithm,
    PayloadDigest,
    PayloadType,
    SourceSignature,
)
from packetcloud.chunk.hop.api import Settlement
from packetcloud.chunk.messages import BodyKind, Outcome, VerdictCode
from packetcloud.chunk.names import GUID, NA
from packetcloud.chunk.reasons import Reason
from tests.unit.router.router_fakes import (
    ROUTER_NA,
    A,
    B,
    C,
    FakeNeighbour,
    FakeNetwork,
    S,
    T,
    chunk,
    guid,
    reason_of,
    reports_in,
    service,
    settings,
)
from tests.unit.router.service_visits import emitted, only, reported, task_of


def test_forward_verdict_sends_the_original_on_with_its_sid_cleared() -> None:
    """The payload never travels back; after the service, no later router runs it again."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    task = task_of(vi)
    assert task.kind is BodyKind.TASK and task.header.sid == S
    assert task.header.source_na == ROUTER_NA
    assert not b.unsettled, "nothing leaves before the verdict"
    vi.verdict(task)
    assert only(b.accept_all()).data == chunk(source_na=ROUTER_NA)
    net.check_idle()


def test_update_verdict_replaces_payload_and_drops_digest_and_signature() -> None:
    """A new payload, its length, and nothing in the header that would now be a lie."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    digest = PayloadDigest(DigestAlgorithm.SHA256, b"d" * 32)
    signature = SourceSignature(b"k" * 32, b"s" * 64)
    for payload in (b"longer than the original", b""):
        assert a.chunk(chunk(services=(S,), digest=digest, signature=signature)) is None
        vi.verdict(task_of(vi), VerdictCode.UPDATE, payload)
        assert only(b.accept_all()).data == chunk(payload=payload, source_na=ROUTER_NA)
    net.check_idle()


@pytest.mark.parametrize("emits", [False, True])
@pytest.mark.parametrize(
    ("was", "becomes", "may"),
    [
        (PayloadType.DATA, PayloadType.SEALED, True),
        (PayloadType.SEALED, PayloadType.DATA, True),
        (PayloadType.FILE, PayloadType.COMPRESSED, True),
        (PayloadType.COMPRESSED, PayloadType.FILE, True),
        (PayloadType.COMPRESSED, PayloadType.COMPRESSED, True),
        (PayloadType.SEALED, PayloadType.COMPRESSED, True),
        (PayloadType.DATA, PayloadType.DATA, True),
        (PayloadType.DATA, PayloadType.REPORT, False),
        (PayloadType.DATA, PayloadType.SEALED_REPORT, False),
        (PayloadType.SEALED, PayloadType.REPORT, False),
        (PayloadType.SEALED, PayloadType.SEALED_REPORT, False),
        (PayloadType.COMPRESSED, PayloadType.REPORT, False),
        (PayloadType.FILE, PayloadType.DATA, False),
    ],
)
def test_a_payload_is_wrapped_and_unwrapped(
    was: PayloadType, becomes: PayloadType, may: bool, emits: bool
) -> None:
    """A service gives a payload another type only to wrap or unwrap it, and makes no report of
    anything else, also where it sends another chunk in the same verdict."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    c = net.host(C)
    assert a.chunk(chunk(services=(S,), payload_type=was)) is None
    retype(vi, b"new", becomes, emits=emits)
    assert len(c.accept_all()) == (may and emits)
    if may:
        expected = chunk(payload=b"new", payload_type=becomes, source_na=ROUTER_NA)
        assert only(b.accept_all()).data == expected
    else:
        assert not b.unsettled
        assert reported(a)[:2] == (Outcome.REFUSED, Reason.SERVICE_FAILED)
    net.check_idle()


def retype(vi: FakeNeighbour, payload: bytes, becomes: int, *, emits: bool = False) -> None:
    if emits:
        made = emitted() + payload
        more = {"emit_count": 1, "keep": True, "updates": True}
        vi.verdict(task_of(vi), VerdictCode.EMIT, made, payload_type=becomes, **more)
    else:
        vi.verdict(task_of(vi), VerdictCode.UPDATE, payload, payload_type=becomes)


@pytest.mark.parametrize(
    ("types", "may"),
    [
        ((PayloadType.DATA, PayloadType.SEALED, PayloadType.REPORT), False),
        ((PayloadType.DATA, PayloadType.SEALED, PayloadType.SEALED_REPORT), False),
        ((PayloadType.DATA, PayloadType.COMPRESSED, PayloadType.REPORT), False),
        ((PayloadType.DATA, PayloadType.SEALED, PayloadType.FILE), True),
        ((PayloadType.REPORT, PayloadType.SEALED_REPORT, PayloadType.REPORT), True),
    ],
)
def test_two_services_make_no_report_of_data(types: tuple[PayloadType, ...], may: bool) -> None:
    """One wraps a payload, the next one unwraps it as a report: refused. A report that was wrapped
    is one again."""
    net = FakeNetwork(settings(service(S), service(T)))
    a, b, first, second = net.host(A), net.host(B), net.vi(S), net.vi(T)
    was, between, becomes = types
    asks = was is not PayloadType.REPORT
    assert a.chunk(chunk(services=(S, T), payload_type=was, wants_report=asks)) is None
    retype(first, b"wrapped", between)
    retype(second, b"new", becomes)
    if may:
        assert only(b.accept_all()).header.payload_type == becomes
    else:
        assert not b.unsettled
        assert reported(a)[:2] == (Outcome.REFUSED, Reason.SERVICE_FAILED)
    net.check_idle()


def test_verdict_body_is_released_only_when_its_bytes_have_left() -> None:
    """The updated payload lies in the verdict's buffer until the next custodian has it."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    vi.verdict(task_of(vi), VerdictCode.UPDATE, b"new")
    assert [body.is_released for body in net.bodies] == [False, False]
    b.accept_all()
    net.check_idle()


def test_drop_verdict_ends_everything_and_tells_the_source_why() -> None:
    """Nothing further runs after a drop, and the service's own word reaches the source."""
    net = FakeNetwork(settings(service(S), service(T)))
    a, _, vi, other = net.host(A), net.host(B), net.vi(S), net.vi(T)
    assert a.chunk(chunk(services=(S, T))) is None
    vi.verdict(task_of(vi), VerdictCode.DROP, detail=b"looks bad")
    assert reported(a) == (Outcome.REFUSED, Reason.DROPPED_BY_SERVICE, "looks bad")
    assert net.sums["dropped"] == 1 and not other.unsettled
    net.check_idle()


def test_redirect_verdict_changes_the_destination() -> None:
    """A load balancer's chunk goes where it says, though its first destination is unknown."""
    net = FakeNetwork(settings(service(S)))
    a, c, vi = net.host(A), net.host(C), net.vi(S)
    for _ in range(2):
        assert a.chunk(chunk(destination=guid("v"), services=(S,))) is None
        vi.verdict(task_of(vi), VerdictCode.REDIRECT, detail=C.value + NA(0).to_bytes())
        assert only(c.accept_all()).header.destination == C
    net.check_idle()


def test_redirect_to_nowhere_is_a_refusal_told_to_the_source() -> None:
    """An unknown new destination is refused as an unknown first one would be."""
    net = FakeNetwork(settings(service(S)))
    a, _, vi = net.host(A), net.host(B), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    vi.verdict(task_of(vi), VerdictCode.REDIRECT, detail=guid("x").value + NA(0).to_bytes())
    assert reported(a)[:2] == (Outcome.REFUSED, Reason.UNRESOLVABLE_GUID)
    net.check_idle()


@pytest.mark.parametrize("keep", [True, False])
def test_emitted_chunks_carry_the_service_as_source(keep: bool) -> None:
    """A service sends under its own name, beside the chunk or in its place."""
    net = FakeNetwork(settings(service(S)))
    a, b, c, vi = net.host(A), net.host(B), net.host(C), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    made = emitted() + emitted(payload=b"more", chunk_id=100)
    vi.verdict(task_of(vi), VerdictCode.EMIT, made, emit_count=2, keep=keep)
    taken = c.accept_all()
    assert [sent.payload for sent in taken] == [b"made", b"more"]
    for sent in taken:
        assert sent.header.source == GUID(S.value)
        assert sent.header.source_na == ROUTER_NA
    assert len(b.accept_all()) == keep
    assert net.sums["replaced"] == (not keep)
    net.end_turn()
    if not keep:
        assert only(reports_in(only(a.accept_all()))).outcome is Outcome.DELIVERED
    net.check_idle()


@pytest.mark.parametrize("payload", [b"longer than the original", b""])
def test_a_service_updates_a_chunk_and_sends_another(payload: bytes) -> None:
    """One verdict does both: the chunk goes on with what follows the emitted chunks."""
    net = FakeNetwork(settings(service(S)))
    a, b, c, vi = net.host(A), net.host(B), net.host(C), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    vi.verdict(
        task_of(vi), VerdictCode.EMIT, emitted() + payload, emit_count=1, keep=True, updates=True
    )
    assert only(b.accept_all()).data == chunk(payload=payload, source_na=ROUTER_NA)
    assert only(c.accept_all()).payload == b"made"
    net.check_idle()


@pytest.mark.parametrize("emits", [True, False])
def test_a_chunk_that_is_dropped_for_now(emits: bool) -> None:
    """Its source is told that it may send again, and why; what the service sent goes out."""
    net = FakeNetwork(settings(service(S)))
    a, b, c, vi = net.host(A), net.host(B), net.host(C), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    code = VerdictCode.EMIT if emits else VerdictCode.DROP
    made = emitted() if emits else b""
    vi.verdict(task_of(vi), code, made, detail=b"not yet", emit_count=int(emits), again=True)
    assert reported(a) == (Outcome.REFUSED, Reason.SEND_AGAIN, "not yet")
    assert len(c.accept_all()) == emits
    assert not b.unsettled
    assert net.sums["dropped"] == 1
    net.check_idle()


def test_emitted_chunk_visits_other_services_but_never_its_maker() -> None:
    """What a service emits may ask for others; asking for itself would go round for ever."""
    net = FakeNetwork(settings(service(S), service(T)))
    a, _, c, s, t = net.host(A), net.host(B), net.host(C), net.vi(S), net.vi(T)
    assert a.chunk(chunk(services=(S,))) is None
    s.verdict(task_of(s), VerdictCode.EMIT, emitted(sid=T), emit_count=1)
    t.verdict(task_of(t), VerdictCode.EMIT, emitted(sid=S), emit_count=1)
    assert net.core.book.refused == {Reason.UNSUPPORTED: 1}
    assert not s.unsettled and not c.unsettled
    net.check_idle()


@pytest.mark.parametrize(
    ("payload", "count"),
    [
        (emitted(source=A), 1),
        (emitted(payload_type=PayloadType.REPORT), 1),
        (emitted(payload_type=PayloadType.SEALED_REPORT), 1),
        (emitted(), 2),
        (emitted() + b"!", 1),
        (emitted()[:-1], 1),
        (b"", 1),
        (emitted(), 0),
        (b"", 1025),
    ],
)
def test_bad_emission_is_a_failed_verdict(payload: bytes, count: int) -> None:
    """A forged source or report, or a broken encoding makes no chunk; the fail policy decides the
    rest."""
    net = FakeNetwork(settings(service(S)))
    a, _, vi = net.host(A), net.host(B), net.vi(S)
    net.host(C)
    assert a.chunk(chunk(services=(S,))) is None
    vi.verdict(task_of(vi), VerdictCode.EMIT, payload, emit_count=count)
    assert reported(a)[:2] == (Outcome.REFUSED, Reason.SERVICE_FAILED)
    assert net.sums["delivered"] == 1, "the report only"
    assert net.core.dispatch.bad_verdicts_count == 1
    net.check_idle()


def test_verdict_that_overtakes_its_settlement_counts() -> None:
    """Order on the wire is not promised: the verdict waits for the hop to let go of the bytes."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    for settlement in (Settlement.ACCEPTED, Settlement.LOST):
        assert a.chunk(chunk(services=(S,))) is None
        task = only(vi.unsettled)
        assert vi.verdict(task) is None
        assert reason_of(vi.verdict(task)) is Reason.MALFORMED, "a second verdict on one task"
        assert not b.unsettled
        vi.settle(task, settlement)
        assert len(b.accept_all()) == 1
    vi.go_down()
    net.check_idle()


def test_malformed_verdict_is_refused_and_the_task_runs_into_its_deadline() -> None:
    """Bytes that are no verdict change nothing."""
    net = FakeNetwork(settings(service(S, deadline_ms=500)))
    a, _, vi = net.host(A), net.host(B), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    vi.accept_all()
    assert reason_of(vi.body(BodyKind.VERDICT, b"nonsense")) is Reason.MALFORMED
    assert reason_of(vi.body(BodyKind.CHUNK, chunk())) is Reason.NOT_AUTHORISED
    net.pass_time(0.6)
    assert reported(a)[1] is Reason.SERVICE_FAILED
    net.check_idle()


def test_one_vi_cannot_answer_for_another() -> None:
    """A verdict counts only from the VI that has the task."""
    net = FakeNetwork(settings(service(S), service(T)))
    a, b, vi, other = net.host(A), net.host(B), net.vi(S), net.vi(T)
    assert a.chunk(chunk(services=(S,))) is None
    task = task_of(vi)
    assert other.verdict(task, VerdictCode.UPDATE, b"forged") is None
    assert not b.unsettled
    vi.verdict(task)
    assert only(b.accept_all()).payload == b"payload"
    net.check_idle()
