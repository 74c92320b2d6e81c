"""The small parts each for itself: wheel, histogram, layout, reports, redial, view, API file."""

from __future__ import annotations

import math
import random
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from packetcloud.chunk.header import (
    ChunkHeader,
    DigestAlgorithm,
    PayloadDigest,
    ServiceParameters,
    ServiceSequence,
    SourceSignature,
    decode_header,
)
from packetcloud.chunk.messages import DeliveryReport, Outcome, decode_reports
from packetcloud.chunk.names import NA, SID_SEQUENCE, ChunkId
from packetcloud.router import view
from packetcloud.router.deadlines import GRANULARITY_S, DeadlineWheel
from packetcloud.router.errors import RouterUnreachableError
from packetcloud.router.histogram import MAX_NS, LogHistogram
from packetcloud.router.layout import HeaderLayout
from packetcloud.router.metrics import RouterCollector
from packetcloud.router.openapi import OPENAPI_FILE, openapi_text
from packetcloud.router.redial import FIRST_DELAY_S, LONGEST_DELAY_S, YIELD_S, Redial
from packetcloud.router.reports import MAX_BATCH_COUNT, ReportBatch
from packetcloud.router.settings import RouterNeighbour
from packetcloud.router.status import fetch_status
from tests.unit.router.router_fakes import (
    A,
    B,
    C,
    FakeNetwork,
    S,
    T,
    chunk,
    guid,
    service,
    settings,
)


class Item:
    """Something with a deadline."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.bucket: dict[Item, None] | None = None
        self.wake_at = 0.0


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.sampled_from(["keep", "remove", "earlier"])), max_size=50
    ),
    st.lists(st.floats(0, 10), max_size=20),
)
def test_wheel_yields_each_entry_once_and_in_time(
    deadlines: list[tuple[float, str]], steps: list[float]
) -> None:
    """Never early, at most one granule late after `next_due_s`, none lost, none twice."""
    wheel: DeadlineWheel[Item] = DeadlineWheel()
    expected: dict[int, float] = {}
    for number, (deadline, fate) in enumerate(deadlines):
        item = Item(number)
        wheel.add(item, deadline)
        if fate == "remove":
            wheel.remove(item)
            continue
        if fate == "earlier":
            deadline = deadline / 2
            wheel.wake_by(item, deadline)
        wheel.wake_by(item, deadline + 5)
        expected[number] = deadline
    now = 0.0
    for step in [*steps, 200.0]:
        now += step
        assert len(wheel) == len(expected)
        for item in wheel.due(now):
            assert expected.pop(item.number) <= now + 1e-6
        assert all(deadline > now - GRANULARITY_S - 1e-6 for deadline in expected.values())
    assert not expected and not len(wheel) and wheel.next_due_s == math.inf


def test_entries_put_back_while_the_wheel_turns_wait_for_their_next_turn() -> None:
    """Acting on a due entry may add, move and remove others."""
    wheel: DeadlineWheel[Item] = DeadlineWheel()
    items = [Item(number) for number in range(4)]
    for item in items:
        wheel.add(item, 1.0)
    seen = []
    for item in wheel.due(1.1):
        seen.append(item.number)
        if item.number == 0:
            wheel.remove(items[1])
            wheel.remove(items[2])
            wheel.add(items[2], 5.0)
            wheel.add(item, 9.0)
    assert seen == [0, 3]
    assert [item.number for item in wheel.due(20.0)] == [2, 0]


def test_histogram_quantiles_are_within_four_percent() -> None:
    """Against the sorted values, over six powers of ten."""
    rng = random.Random(7)
    values = sorted(int(10 ** rng.uniform(3, 9)) for _ in range(20_000))
    histogram = LogHistogram()
    for value in values:
        histogram.add(value)
    assert (histogram.count, histogram.sum_ns) == (len(values), sum(values))
    for q in (0.0, 0.01, 0.5, 0.9, 0.99, 1.0):
        exact = values[max(1, math.ceil(q * len(values))) - 1]
        assert histogram.quantile_ns(q) == pytest.approx(exact, rel=0.04)
    totals = histogram.cumulative([1e5, 1e7, 1e12])
    assert totals[0] == pytest.approx(len(values) / 3, rel=0.05)
    assert totals[2] == len(values)
    buckets = histogram.buckets_ns()
    assert buckets == sorted(buckets) and sum(count for _, count in buckets) == len(values)


def test_histogram_takes_any_value() -> None:
    """Nothing, zero, and values beyond the last bucket."""
    histogram = LogHistogram()
    assert histogram.quantile_ns(0.5) == 0.0
    for value in (0, 1, MAX_NS, 10 * MAX_NS):
        histogram.add(value)
    assert histogram.count == 4
    assert histogram.quantile_ns(1.0) == pytest.approx(MAX_NS, rel=0.04)


FULL = ChunkHeader(
    source=A,
    destination=B,
    chunk_id=ChunkId(5),
    payload_bytes=100,
    sid=SID_SEQUENCE,
    sequence=ServiceSequence((S, T), 1),
    lifetime_ms=4000,
    wants_report=True,
    digest=PayloadDigest(DigestAlgorithm.SHA256, b"d" * 32),
    signature=SourceSignature(b"k" * 32, b"s" * 64),
    parameters=(ServiceParameters(S, b"data"),),
)


def test_layout_finds_what_the_router_patches() -> None:
    """Offsets of lifetime and cursor are those of the encoded header."""
    head = FULL.to_bytes()
    layout = HeaderLayout.of(head)
    assert head[layout.cursor_offset] == 1
    lifetime = head[layout.lifetime_offset : layout.lifetime_offset + 4]
    assert int.from_bytes(lifetime, "big") == 4000
    assert layout.wants_report and layout.header_bytes == len(head)


def test_layout_recognises_its_kind_only() -> None:
    """Other values match; any other byte in an extension's head, or in the sequence, does not."""
    head = FULL.to_bytes()
    layout = HeaderLayout.of(head)
    other = ChunkHeader(
        source=C,
        destination=A,
        chunk_id=ChunkId(9),
        payload_bytes=3,
        sid=SID_SEQUENCE,
        sequence=FULL.sequence,
        lifetime_ms=1,
        wants_report=True,
        digest=PayloadDigest(DigestAlgorithm.SHA256, b"e" * 32),
        signature=SourceSignature(b"l" * 32, b"t" * 64),
        parameters=(ServiceParameters(T, b"more"),),
    ).to_bytes()
    assert layout.matches(head) and layout.matches(other + b"payload")
    for offset in range(88, len(head)):
        changed = bytearray(head)
        changed[offset] ^= 0x40
        if layout.matches(bytes(changed)):
            same = HeaderLayout.of(bytes(changed))
            assert same == layout, f"offset {offset} changed the layout unseen"


def test_updated_header_is_what_the_codec_would_write() -> None:
    """Cutting bytes gives the same as decoding, replacing and encoding; twice is once."""
    head = FULL.to_bytes()
    layout = HeaderLayout.of(head)
    once = layout.updated_header(head, 77)
    header = decode_header(once)
    assert (header.payload_bytes, header.digest, header.signature) == (77, None, None)
    assert (header.sequence, header.parameters) == (FULL.sequence, FULL.parameters)
    assert header.to_bytes() == once
    assert decode_header(layout.updated_header(once, 5)).payload_bytes == 5
    assert len(layout.updated_header(once, 5)) == len(once)


def test_reports_are_split_at_the_cap_and_by_source() -> None:
    """Cap and cap + 1 entries; other sources and other NAs are other chunks."""
    batch = ReportBatch()
    for number in range(MAX_BATCH_COUNT + 1):
        batch.add(A.value, 1, DeliveryReport(ChunkId(number), Outcome.REFUSED, 3))
    batch.add(B.value, 1, DeliveryReport(ChunkId(1), Outcome.EXPIRED, 5))
    assert batch.pending
    taken = batch.take()
    sizes = [(source, len(decode_reports(payload))) for source, _, payload in taken]
    assert sizes == [(A.value, MAX_BATCH_COUNT), (A.value, 1), (B.value, 1)]
    assert not batch.pending and not batch.take()


def test_redial_calls_until_it_is_up_with_growing_delay() -> None:
    """One call at a time, twice the delay after each failure up to a cap, at once after a loss."""
    low, high = guid("a"), guid("z")
    neighbours = (RouterNeighbour(high, "z", NA(2), address=("h", 1)),)
    redial = Redial(low, neighbours, 0.0)
    assert [one.guid for one in redial.due(set(), 0.0)] == [high]
    assert not redial.due(set(), 1.0), "one call at a time"
    now, delay = 1.0, FIRST_DELAY_S
    for attempt in range(10):
        assert redial.failed(high, now) is (attempt == 0)
        assert not redial.due(set(), now + delay - 0.01)
        now += delay
        assert redial.due(set(), now)
        delay = min(2 * delay, LONGEST_DELAY_S)
    redial.succeeded(high, now)
    assert not redial.due({high}, now)
    assert redial.due(set(), now + 0.1)


def test_redial_of_two_routers_that_call_at_once_comes_apart() -> None:
    """Both calls succeeded, and each session replaced the other, five times a second for ever."""
    low, high = guid("a"), guid("z")
    sides = {
        name: Redial(name, [RouterNeighbour(other, "r", NA(7), address=("h", 1))], 0.0)
        for name, other in ((low, high), (high, low))
    }
    assert sides[low].due(set(), 2.0) and sides[high].due(set(), 2.0)
    waits = []
    now = 2.0
    for _ in range(3):
        # Both came through and are gone again before anybody looked.
        sides[low].succeeded(high, now)
        sides[high].succeeded(low, now)
        assert sides[low].due(set(), now + 0.1), "one side calls at once"
        begun = now
        while not sides[high].due(set(), now):
            now += 0.1
        waits.append(now - begun)
    assert waits[0] >= YIELD_S
    assert waits == sorted(waits) and waits[-1] > waits[0], "the other one ever later"
    sides[high].succeeded(low, now)
    sides[high].due({low}, now)
    assert sides[high].due(set(), now + YIELD_S + 2 * FIRST_DELAY_S + 2.0), "a session ends that"


def test_redial_waits_for_the_other_side_when_its_guid_is_larger() -> None:
    """Of two routers that could both call, the one with the smaller GUID calls first."""
    neighbours = (RouterNeighbour(guid("a"), "a", NA(2), address=("h", 1)),)
    redial = Redial(guid("z"), neighbours, 0.0)
    assert not redial.due(set(), YIELD_S - 0.1)
    assert redial.due(set(), YIELD_S)


def test_openapi_file_is_up_to_date() -> None:
    """After a change of the API: python -m packetcloud.router.openapi."""
    assert OPENAPI_FILE.read_text() == openapi_text()


def test_view_shows_neighbours_services_and_held_chunks() -> None:
    """Who is here, who is away with chunks waiting, what every service did."""
    net = FakeNetwork(settings(service(S, priority=3), service(T), names={C: NA(2)}))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    b.go_down()
    assert a.chunk(chunk()) is None
    assert a.chunk(chunk(destination=C)) is None
    assert a.chunk(chunk(destination=C, services=(S,))) is None
    vi.accept_all()
    shown = {one.guid: one for one in view.neighbours(net.core)}
    assert shown[A.hex].is_up and not shown[B.hex].is_up
    assert shown[B.hex].waiting == 1
    assert (shown[guid("Q").hex].role, shown[guid("Q").hex].waiting) == ("router", 1)
    first, second = view.services(net.core)
    assert (first.name, second.name) == ("s", "t")
    assert [(one.tasks, one.state) for one in first.vis] == [(1, "serving")]
    held = view.held_chunks(net.core, net.now, 2)
    assert (held.total, len(held.chunks)) == (3, 2)
    assert {chunk.phase for chunk in view.held_chunks(net.core, net.now, 9).chunks} == {
        "held",
        "tasked",
    }


def test_metrics_carry_reasons_and_the_sum() -> None:
    """Every term of the conservation sum is exported, and reasons are labels."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    assert a.chunk(chunk(services=(S,))) is None
    vi.verdict(vi.accept_all()[0])
    b.accept_all()
    assert a.chunk(chunk(destination=guid("x"))) is not None
    registry = CollectorRegistry()
    registry.register(RouterCollector(net.core, lambda: {"probes": 2}, lambda: {"bad_tag": 3}))
    text = generate_latest(registry).decode()
    for line in (
        "packetcloud_router_chunks_taken_in_total 1.0",
        "packetcloud_router_chunks_delivered_total 1.0",
        "packetcloud_router_conservation_balance 0.0",
        'packetcloud_router_chunks_refused_at_door_total{reason="unresolvable_guid"} 1.0',
        f'packetcloud_router_service_verdicts_total{{service="s",sid="{S}",verdict="forward"}} 1.0',
        "packetcloud_hop_probes_total 2.0",
        'packetcloud_hop_datagrams_dropped_total{reason="bad_tag"} 3.0',
    ):
        assert line in text.splitlines(), line


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: httpx.Response(500),
        lambda request: httpx.Response(200, text="hello"),
        lambda request: httpx.Response(200, json={"name": "r"}),
    ],
)
def test_status_of_something_else_is_an_error(answer: Any) -> None:
    """A page that is no router's is told apart from a router."""
    transport = httpx.MockTransport(answer)
    with pytest.raises(RouterUnreachableError, match=r"http://127\.0\.0\.1:1"):
        fetch_status("http://127.0.0.1:1", 1.0, transport)
