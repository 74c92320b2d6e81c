"""Which services see a chunk, and in which order: sequences, priorities, each one once."""

from __future__ import annotations

import pytest

from packetcloud.chunk.header import (
    DigestAlgorithm,
    PayloadDigest,
    ServiceSequence,
)
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID, NA, SID, SID_ZERO, ChunkId
from packetcloud.chunk.reasons import Reason
from tests.unit.router.plain_table import PlainTable, visiting
from tests.unit.router.router_fakes import (
    A,
    B,
    FakeNetwork,
    S,
    T,
    U,
    chunk,
    reason_of,
    service,
    settings,
)
from tests.unit.router.service_visits import only, task_of


def test_sequence_runs_in_order_and_the_cursor_moves() -> None:
    """Each service sees what the one before made; the cursor counts what has run."""
    net = FakeNetwork(settings(service(S), service(T), service(U)))
    a, b = net.host(A), net.host(B)
    vis = {name: net.vi(name) for name in (S, T, U)}
    digest = PayloadDigest(DigestAlgorithm.SHA256, b"d" * 32)
    assert a.chunk(chunk(payload=b"0", services=(T, S, U), digest=digest)) is None
    for cursor, name in enumerate((T, S, U)):
        task = task_of(vis[name])
        assert task.payload == str(cursor).encode()
        assert task.header.sequence == ServiceSequence((T, S, U), cursor)
        vis[name].verdict(task, VerdictCode.UPDATE, str(cursor + 1).encode())
    sent = only(b.accept_all())
    assert sent.payload == b"3"
    assert sent.header.sequence == ServiceSequence((T, S, U), 3)
    assert sent.header.digest is None
    net.check_idle()


def test_rest_of_a_sequence_goes_to_the_router_that_has_it() -> None:
    """What is not here is looked up in the name table; the destination NA stays as it is."""
    net = FakeNetwork(settings(service(S), names={GUID(T.value): NA(3)}))
    a, vi, q = net.host(A), net.vi(S), net.router()
    assert a.chunk(chunk(services=(S, T))) is None
    vi.verdict(task_of(vi))
    header = only(q.accept_all()).header
    assert header.next_sid == T
    assert (header.destination_na, header.hop_limit) == (NA(0), 31)
    net.check_idle()


def test_sequence_that_ran_elsewhere_is_not_run_again() -> None:
    """A chunk whose cursor is at the end is a plain chunk."""
    net = FakeNetwork(settings(service(S), service(T)))
    q, b, vi = net.router(), net.host(B), net.vi(S)
    done = ServiceSequence((S, T), 2)
    assert q.chunk(chunk(services=(S, T), sequence=done)) is None
    assert only(b.accept_all()).header.sequence == done
    assert not vi.unsettled


def test_one_service_twice_in_a_visit_is_refused() -> None:
    """At most once per visit: what cannot be done as asked is refused, not half done."""
    net = FakeNetwork(settings(service(S), service(T)))
    a, _ = net.host(A), net.host(B)
    net.vi(S)
    assert reason_of(a.chunk(chunk(services=(S, T, S)))) is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("priorities", "order"),
    [
        ({S: 0, T: 10, U: 5}, (T, U, S)),
        ({S: 20, T: 10, U: 5}, (S, T, U)),
        ({S: 7, T: 10, U: 5}, (T, S, U)),
    ],
)
def test_priority_orders_asked_for_and_transparent_services(
    priorities: dict[SID, int], order: tuple[SID, ...]
) -> None:
    """The unexecuted service of highest priority is next, whoever wanted it, each once."""
    net = FakeNetwork(settings(*(service(name, priority=p) for name, p in priorities.items())))
    net.core.install_rules(PlainTable(visiting(T, U)))
    a, b = net.host(A), net.host(B)
    vis = {name: net.vi(name) for name in priorities}
    assert a.chunk(chunk(services=(S,))) is None
    for name in order:
        vis[name].verdict(task_of(vis[name]))
    assert only(b.accept_all()).header.sid == SID_ZERO
    net.check_idle()


def test_service_that_is_both_asked_for_and_transparent_runs_once() -> None:
    """Having run as a transparent service counts as having run."""
    net = FakeNetwork(settings(service(S, priority=1), service(T, priority=9)))
    net.core.install_rules(PlainTable(visiting(T)))
    a, b, s, t = net.host(A), net.host(B), net.vi(S), net.vi(T)
    assert a.chunk(chunk(services=(S, T))) is None
    t.verdict(task_of(t))
    s.verdict(task_of(s))
    header = only(b.accept_all()).header
    assert header.sequence == ServiceSequence((S, T), 2)
    assert not t.unsettled


def test_two_services_crossed_in_opposite_order_do_not_starve_each_other() -> None:
    """An updated payload that waits for the next VI is out of the buffer of the one before."""
    net = FakeNetwork(settings(service(S), service(T), vi_window_count=1))
    a, b, s, t = net.host(A), net.host(B), net.vi(S), net.vi(T)
    assert a.chunk(chunk(services=(T,), chunk_id=1)) is None
    assert a.chunk(chunk(services=(S, T), chunk_id=2)) is None
    s.verdict(task_of(s), VerdictCode.UPDATE, b"updated")
    assert net.bodies[-1].is_released, "the verdict's credit went back to the VI of S"
    t.verdict(task_of(t))
    task = task_of(t)
    assert task.payload == b"updated"
    t.verdict(task)
    assert len(b.accept_all()) == 2
    assert ChunkId(2) in [sent.header.chunk_id for sent in b.accepted]
    net.check_idle()
