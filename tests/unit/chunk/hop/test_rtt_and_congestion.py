"""Timers from measured round trips, and the window from measured delivery."""

from __future__ import annotations

import pytest

from packetcloud.chunk.hop.congestion import (
    MAX_WINDOW_BYTES,
    MIN_WINDOW_DATAGRAMS,
    DeliveryRateWindow,
)
from packetcloud.chunk.hop.rtt import MAX_ACK_DELAY_S, RttEstimator


def test_the_first_sample_sets_the_estimate() -> None:
    """RFC 9002, section 5.3: smoothed = sample, variation = half of it."""
    rtt = RttEstimator()
    rtt.add_sample(0.040, 0.0, 1.0)
    assert (rtt.smoothed_s, rtt.variation_s, rtt.minimum_s) == (0.040, 0.020, 0.040)


def test_the_acknowledgement_delay_is_taken_off_but_never_below_the_minimum() -> None:
    """A receiver's own delay is no part of the path; a lie about it cannot shrink the minimum."""
    rtt = RttEstimator()
    rtt.add_sample(0.040, 0.0, 1.0)
    rtt.add_sample(0.050, 0.008, 1.1)
    assert rtt.latest_s == pytest.approx(0.042)
    rtt.add_sample(0.041, 0.030, 1.2)
    assert rtt.latest_s == pytest.approx(0.041)
    assert rtt.minimum_s == 0.040


def test_the_minimum_is_forgotten_after_a_while() -> None:
    """A path that became longer is believed after ten seconds."""
    rtt = RttEstimator()
    rtt.add_sample(0.010, 0.0, 1.0)
    rtt.add_sample(0.100, 0.0, 5.0)
    assert rtt.minimum_s == 0.010
    rtt.add_sample(0.100, 0.0, 11.5)
    assert rtt.minimum_s == 0.100


def test_the_probe_timeout_doubles_and_stops_doubling() -> None:
    """Back-off is exponential up to 64-fold."""
    rtt = RttEstimator()
    rtt.add_sample(0.020, 0.0, 1.0)
    base = 0.020 + 4 * 0.010 + MAX_ACK_DELAY_S
    assert rtt.probe_timeout_s(0) == pytest.approx(base)
    assert rtt.probe_timeout_s(3) == pytest.approx(8 * base)
    assert rtt.probe_timeout_s(50) == pytest.approx(64 * base)


def grown(rate: float, rtt_s: float, rounds: int = 60) -> tuple[DeliveryRateWindow, float, int]:
    """Drive a window over a path of `rate` bytes/s with no queue; return it, time and total."""
    window, now, delivered = DeliveryRateWindow(1472), 0.0, 0
    window.on_ack(0, rtt_s, False, now)
    for _ in range(rounds):
        now += rtt_s
        delivered += int(min(window.window_bytes, rate * rtt_s))
        window.on_ack(delivered, rtt_s, False, now)
    return window, now, delivered


@pytest.mark.parametrize("mbits", [1, 10, 100, 1000])
def test_the_window_finds_the_rate_and_stays_near_twice_the_product(mbits: int) -> None:
    """From a small start the window reaches the path's product and does not run away from it."""
    rate, rtt_s = mbits * 125_000.0, 0.020
    window, _, _ = grown(rate, rtt_s)
    assert window.rate_bytes_per_s == pytest.approx(rate, rel=0.01)
    assert (
        rate * rtt_s <= window.window_bytes <= max(2.3 * rate * rtt_s, MIN_WINDOW_DATAGRAMS * 1472)
    )


def test_random_loss_costs_no_more_than_the_headroom() -> None:
    """Ten percent loss for ever: the window stays at the product, so the rate is kept."""
    rate, rtt_s = 1_250_000.0, 0.020
    window, now, delivered = grown(rate, rtt_s)
    for _ in range(200):
        now += rtt_s
        arrived = int(min(0.9 * window.window_bytes, rate * rtt_s))
        window.on_loss(arrived // 9)
        delivered += arrived
        window.on_ack(delivered, rtt_s, False, now)
    assert window.window_bytes >= 0.85 * rate * rtt_s


def test_rounds_with_nothing_to_send_do_not_lower_the_rate() -> None:
    """An idle sender finds its old window when it has work again."""
    window, now, delivered = grown(1_250_000.0, 0.020)
    before = window.window_bytes
    for _ in range(50):
        now += 1.0
        delivered += 100
        window.on_ack(delivered, 0.020, True, now)
    assert window.window_bytes == before


@pytest.mark.parametrize("says_so", [True, False])
def test_pauses_of_the_source_do_not_shrink_the_window(says_so: bool) -> None:
    """A chunk now and then goes out at the path's rate; it would crawl if pauses were counted."""
    rate, rtt_s, chunk_bytes = 125_000_000.0, 0.001, 1 << 20
    window, now, delivered = grown(rate, rtt_s)
    for _ in range(20):
        now += 1.0
        if says_so:
            window.on_restart(now)
        for _ in range(8):
            now += rtt_s
            delivered += chunk_bytes // 8
            window.on_ack(delivered, rtt_s, False, now)
    if says_so:
        assert window.window_bytes >= rate * rtt_s
        assert window.rate_bytes_per_s == pytest.approx(rate, rel=0.1)
    else:
        # The burden of proof: without the word of the sender some rounds hold the whole pause.
        assert min(window._samples) < rate / 100


def test_the_least_window_is_some_datagrams_however_large_they_are() -> None:
    """A jumbo datagram is larger than the usual first window, and one in flight is none."""
    assert DeliveryRateWindow(65_507).window_bytes >= MIN_WINDOW_DATAGRAMS * 65_507


def test_acks_that_bring_nothing_teach_nothing() -> None:
    """A keep-alive's ACK, or an attacker's, neither widens the window nor ends the start."""
    window = DeliveryRateWindow(1472)
    first = window.window_bytes
    for number in range(2000):
        window.on_ack(0, 0.001, False, float(number))
    assert window.window_bytes == first


def test_the_window_has_an_end_whatever_is_claimed() -> None:
    """Bytes that double with every ACK for ever."""
    window, claimed = DeliveryRateWindow(1472), 1000
    for number in range(200):
        claimed *= 2
        window.on_ack(claimed, 0.001, False, float(number))
    assert window.window_bytes <= MAX_WINDOW_BYTES


def test_an_ack_that_was_overtaken_changes_nothing() -> None:
    """A reordered ACK claims less than a later one did."""
    window, now, delivered = grown(1_250_000.0, 0.020)
    before = window.rate_bytes_per_s
    window.on_ack(delivered // 2, 0.020, False, now + 0.02)
    window.on_ack(delivered + 25_000, 0.020, False, now + 0.04)
    assert window.rate_bytes_per_s == pytest.approx(before, rel=0.05)
