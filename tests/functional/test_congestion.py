"""What a session makes of a link that loses datagrams, and of a link that others use, too."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import pytest

from packetcloud.chunk.hop import cubic
from packetcloud.chunk.hop.congestion import Congestion
from tests.functional.bottleneck import DATAGRAM_BYTES, Bottleneck, OurFlow, jain

PAYLOAD_SHARE = (DATAGRAM_BYTES - 32) / (DATAGRAM_BYTES + 28)
"""Of a frame's bytes, behind IP, UDP and the segment's header."""


@pytest.mark.parametrize(
    ("loss", "wanted"), [(0.0, 0.9), (0.01, 0.9), (0.02, 0.9), (0.1, 0.8), (0.2, 0.7), (0.3, 0.6)]
)
def test_a_lossy_link_is_used_for_what_the_loss_leaves(loss: float, wanted: float) -> None:
    """50 Mbit/s, 30 ms, loss both ways: the share of what can arrive at all."""
    link = Bottleneck(loss=loss)
    (rate,) = link.goodput_bps(3.0, 5.0)
    assert rate >= wanted * link.rate_bps * PAYLOAD_SHARE * (1 - loss)


def test_tcp_cubic_collapses_where_a_session_does_not() -> None:
    """The control: at one percent loss the model of CUBIC has a sixth of what a session has."""
    (ours,) = Bottleneck(loss=0.01).goodput_bps(3.0, 5.0)
    (cubic,) = Bottleneck(ours=0, cubic=1, loss=0.01).goodput_bps(3.0, 5.0)
    assert ours >= 6 * cubic


def test_a_slow_link_with_a_queue_of_25_packets_is_used_and_not_overrun() -> None:
    """10 Mbit/s, 15 ms each way: the interop link. Bursts are as short as its queue needs."""
    link = Bottleneck(rate_bps=10e6, buffer_products=25 * 1500 / 37_500)
    link.clock.run(5.0)
    overflowed = link.link.overflowed
    (rate,) = link.goodput_bps(0.0, 8.0)
    assert rate >= 0.9 * link.rate_bps * PAYLOAD_SHARE
    assert link.link.overflowed - overflowed <= 20


def test_datagrams_that_overtake_each_other_are_not_sent_twice() -> None:
    """Delays that differ by 10 ms at 30 ms: what was overtaken is waited for."""
    link = Bottleneck(jitter_s=0.010)
    link.clock.run(6.0)
    (flow,) = link.flows
    assert isinstance(flow, OurFlow)
    before = flow.retransmitted_segments
    (rate,) = link.goodput_bps(0.0, 6.0)
    assert rate >= 0.7 * link.rate_bps * PAYLOAD_SHARE
    assert flow.retransmitted_segments - before <= 0.02 * rate * 6 / 8 / 1440


@pytest.mark.parametrize(("count", "late_s", "seed"), [(2, 0.0, 1), (4, 0.0, 1), (16, 0.02, 1)])
def test_sessions_share_a_link_evenly(count: int, late_s: float, seed: int) -> None:
    """One product of buffer; Jain's index after some seconds, of sessions that met no queue."""
    link = Bottleneck(ours=count, held_s=1.0, late_s=late_s, seed=seed)
    # Sixteen that begin at once come to it last.
    rates = link.goodput_bps(7.0, 15.0) if count > 4 else link.goodput_bps(5.0, 8.0)
    assert jain(rates) >= 0.96
    assert sum(rates) >= 0.9 * 50e6 * PAYLOAD_SHARE


def begun_together(count: int, late_s: float, seeds: Sequence[int]) -> float:
    """Return Jain's index as `packetcloud bench fairness` counts it, on its link, with its chunks.

    Sessions that are there already begin within `late_s` of each other, on a path that doubles a
    window each 80 ms. The mean over eight seconds, after six, of the index in each of them.
    """
    found = []
    for seed in seeds:
        link = Bottleneck(
            ours=count, rate_bps=24e6, rtt_s=0.080, body_bytes=16 << 10, bodies=16,
            apart_s=0.03, held_s=1.5, late_s=late_s, seed=seed,
        )  # fmt: skip
        found += link.per_second_bps(7.5 - 0.03 * count, 8)
    return mean(map(jain, found))


@pytest.mark.parametrize(
    ("count", "late_s", "seeds"), [(2, 0.1, (1, 2)), (4, 0.1, (1, 4)), (16, 0.05, (4,))]
)
def test_sessions_that_begin_together_share_a_long_path_evenly_in_each_second(
    count: int, late_s: float, seeds: Sequence[int]
) -> None:
    """Windows that the start left unequal are even after six seconds, whoever lacks chunks."""
    assert begun_together(count, late_s, seeds) >= 0.96


def test_sessions_share_unevenly_when_who_lacks_chunks_hears_of_no_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The burden of proof, with the growth of RFC 9438: one of four has half of the link."""
    monkeypatch.setattr(Congestion, "_tells_of_queue", lambda self, lossy, limited: not limited)
    monkeypatch.setattr(cubic, "ADDED_DATAGRAMS", 0.53)
    assert begun_together(4, 0.1, (1, 4)) <= 0.9


def test_overflow_that_others_cause_is_not_taken_for_the_loss_of_the_path() -> None:
    """Sixteen that begin at once on a long path: each gets out of the way, and the queue stays."""
    link = Bottleneck(ours=16, rate_bps=24e6, rtt_s=0.080)
    rates = link.goodput_bps(6.0, 12.0)
    assert jain(rates) >= 0.96
    assert max(rates) <= 1.5 * link.rate_bps / 16


@pytest.mark.parametrize("products", [1.0, 2.0, 4.0])
def test_a_session_beside_cubic_takes_about_its_half(products: float) -> None:
    """Between half and one and a half times the fair share, with short and with long buffers."""
    ours, cubic = Bottleneck(cubic=1, buffer_products=products).goodput_bps(8.0, 14.0)
    assert 0.5 <= 2 * ours / (ours + cubic) <= 1.5


def test_what_can_wait_leaves_cubic_nine_tenths_and_uses_an_idle_link() -> None:
    """The background class: next to nothing beside somebody, nearly everything alone."""
    _, cubic = Bottleneck(ours=0, background=1, cubic=1).goodput_bps(6.0, 10.0)
    assert cubic >= 0.9 * 50e6 * PAYLOAD_SHARE
    (alone,) = Bottleneck(ours=0, background=1).goodput_bps(3.0, 5.0)
    assert alone >= 0.8 * 50e6 * PAYLOAD_SHARE


def test_what_can_wait_yields_to_our_own_foreground() -> None:
    """Beside a session of the usual class it takes less than a fifth."""
    foreground, background = Bottleneck(background=1).goodput_bps(6.0, 10.0)
    assert background <= 0.2 * (foreground + background)


@pytest.mark.parametrize("queue_bytes", [3_000, 125_000])
def test_a_link_that_becomes_a_hundred_times_slower_is_not_flooded(queue_bytes: int) -> None:
    """A mobile host leaves its cell: two packets of buffer then, or a second of it."""
    link = Bottleneck(rate_bps=100e6)
    link.clock.run(5.0)
    (flow,) = link.flows
    assert isinstance(flow, OurFlow)
    before = flow.retransmitted_segments
    link.link.rate_bps, link.link.queue_bytes = 1e6, queue_bytes
    (rate,) = link.goodput_bps(4.0, 30.0)
    assert rate >= 0.85 * link.link.rate_bps
    assert flow.retransmitted_segments - before <= 3000
