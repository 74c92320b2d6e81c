"""What an explanation says about the door, the VI and the way out, held against the core.

tests/property/test_rule_explanations.py does so for random rules and chunks; here is what those do
not reach.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from packetcloud.chunk.hop.api import Refusal
from packetcloud.chunk.names import NA
from packetcloud.chunk.reasons import Reason
from packetcloud.router.explanation import AskedChunk, explain_visit
from packetcloud.router.rules.explain_schemas import Explanation
from packetcloud.router.settings import FailPolicy, SpoolSettings
from tests.unit.router.router_fakes import (
    A,
    B,
    C,
    FakeNetwork,
    S,
    T,
    chunk,
    service,
    settings,
    sid,
)


def ask(net: FakeNetwork, data: bytes | None = None) -> Explanation:
    data = chunk() if data is None else data
    head_bytes = int.from_bytes(data[2:4], "big")
    return explain_visit(net.core, AskedChunk(data[:head_bytes], A, data[head_bytes:]), net.now)


def draining() -> FakeNetwork:
    net = FakeNetwork()
    net.core.start_draining()
    return net


def full() -> FakeNetwork:
    net = FakeNetwork(settings(store_bytes=150))
    net.host(C)
    assert net.host(B).chunk(chunk(source=B, destination=C)) is None
    return net


def unlisted_host() -> FakeNetwork:
    return FakeNetwork(settings(hosts=frozenset({B})))


def away_and_full() -> FakeNetwork:
    net = FakeNetwork(settings(detached_hold_bytes=100))
    net.host(B).go_down()
    return net


def full_disk() -> FakeNetwork:
    return FakeNetwork(settings(spool=SpoolSettings(max_bytes=10, is_durable=True)))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (draining, Reason.SHUTTING_DOWN),
        (full, Reason.STORE_FULL),
        (away_and_full, Reason.STORE_FULL),
        (full_disk, Reason.STORE_FULL),
    ],
)
def test_a_state_of_the_router_that_refuses(
    made: Callable[[], FakeNetwork], reason: Reason
) -> None:
    """The same reason as the door gives, with what stands behind it."""
    net = made()
    a = net.host(A)
    if made is full_disk:
        net.host(B)
    told = ask(net)
    assert told.refused == reason.word
    assert told.detail
    assert not net.core.spool.refused, "asking changes nothing"
    assert not net.core.door.refusals
    assert a.chunk(chunk()) == Refusal(reason)
    assert net.core.door.refusals == {reason: 1}
    assert net.core.spool.refused.total() == (made is full_disk)


def test_a_host_that_may_not_attach() -> None:
    """It cannot send anything, so there is nothing to hold it against."""
    told = ask(unlisted_host())
    assert (told.refused, told.detail) == (
        "not_authorised",
        f"host {A} is not listed at this router",
    )


def test_who_is_not_attached_is_noted() -> None:
    """A question about a host that is not here now is answered as if it were."""
    net = FakeNetwork()
    net.host(B)
    told = ask(net)
    assert told.refused is None
    assert told.notes == [f"host {A} is not attached now"]


def test_a_malformed_header_is_told() -> None:
    """Whatever the bytes are, there is an answer."""
    net = FakeNetwork()
    told = ask(net, b"\x07" + chunk()[1:])
    assert told.refused == Reason.MALFORMED.word
    assert "version 7" in told.detail


def test_what_becomes_of_a_chunk_without_a_vi() -> None:
    """In the grace time it waits; then the policy of the service decides."""
    net = FakeNetwork(
        settings(
            service(S, grace_s=5.0, fail_policy=FailPolicy.OPEN), service(T, grace_s=5.0), names={}
        )
    )
    a, b = net.host(A), net.host(B)
    (step,) = ask(net, chunk(services=(T,))).steps
    assert (step.vi, step.vi_detail) == (
        None,
        "no VI is attached: waits up to 5 s for one, then fail-closed",
    )
    net.pass_time(6.0)
    (step,) = ask(net, chunk(services=(S,))).steps
    assert step.vi_detail == "no VI is attached: fail-open"
    assert a.chunk(chunk(services=(S,))) is None
    assert len(b.accept_all()) == 1
    told = ask(net, chunk(services=(T,)))
    assert told.refused == Reason.SERVICE_FAILED.word
    assert a.chunk(chunk(services=(T,))) == Refusal(Reason.SERVICE_FAILED)


def test_a_vi_without_room() -> None:
    """The flow's own VI, then another, then none; and a place in the line behind others."""
    net = FakeNetwork(settings(service(S), vi_window_count=1))
    a, _ = net.host(A), net.host(B)
    vis = [net.vi(S), net.vi(S)]
    seen = []
    for number in range(4):
        (step,) = ask(net, chunk(services=(S,), chunk_id=number)).steps
        seen.append((step.vi, step.vi_detail.split(",")[-1].split(":")[0]))
        assert a.chunk(chunk(services=(S,), chunk_id=number)) is None
        tasks = [len(vi.unsettled) for vi in vis]
        assert sum(tasks) == min(number + 1, 2)
        if step.vi is not None:
            assert tasks[step.vi - 1] == 1
    assert [vi is None for vi, _ in seen] == [False, False, True, True]
    assert seen[0][1] == " by the hash of the flow"
    assert seen[2][1] == "waits"
    assert seen[3][1] == "waits behind 1 chunks for a VI with room"


def test_the_way_out() -> None:
    """Here, at another router, away, or decided after the services."""
    net = FakeNetwork(settings(service(S), names={C: NA(2), sid("x"): NA(2)}))
    net.host(A)
    b = net.host(B)
    net.vi(S)
    assert ask(net).next_hop == f"host {B.short} ({B.hex})"
    assert "router q" in ask(net, chunk(destination=C)).next_hop
    assert "away" in ask(net, chunk(destination=C)).next_hop
    net.router()
    assert "away" not in ask(net, chunk(destination=C)).next_hop
    told = ask(net, chunk(services=(S, sid("x"))))
    assert told.beyond == sid("x").hex
    assert "router q" in told.next_hop
    b.go_down()
    assert "away" in ask(net).next_hop
    net.pass_time(200.0)
    assert ask(net).refused == Reason.UNRESOLVABLE_GUID.word
    assert "unless one redirects it" in ask(net, chunk(services=(S,))).next_hop
