"""Timers from measured round trips, and the window from measured delivery."""

from __future__ import annotations

import pytest

from packetcloud.chunk.hop.congestion import (
    COMPETING_ROUNDS,
    EMPTY_ROUNDS,
    INITIAL_WINDOW_BYTES,
    MAX_WINDOW_BYTES,
    MIN_WINDOW_DATAGRAMS,
    Congestion,
    Mode,
)
from packetcloud.chunk.hop.cubic import CubicWindow
from packetcloud.chunk.hop.rtt import (
    LONGEST_PROBE_TIMEOUT_S,
    MAX_ACK_DELAY_S,
    RttEstimator,
)


def test_after_one_long_round_trip_a_question_is_not_late_for_three_of_them() -> None:
    """Where an answer takes long, twice that is enough: the path may be short again."""
    rtt = RttEstimator()
    rtt.add_sample(1.2, 0.0, 0.0)
    assert 1.2 < rtt.probe_timeout_s(0) <= 2.4
    rtt.reset()
    rtt.add_sample(0.1, 0.0, 0.0)
    assert rtt.probe_timeout_s(0) >= 0.3  # where it is short, patience costs nothing


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
    assert rtt.probe_timeout_s(1) == pytest.approx(base)
    assert rtt.probe_timeout_s(3) == pytest.approx(4 * base)
    assert rtt.probe_timeout_s(50) == LONGEST_PROBE_TIMEOUT_S
    rtt.add_sample(4.0, 0.0, 2.0)
    assert rtt.probe_timeout_s(50) == rtt.probe_timeout_s(0) > LONGEST_PROBE_TIMEOUT_S


class Path:
    """A path of a given rate, round trip and buffer, as one sender and its ACKs see it.

    Each step is a round: the sender fills its window or its pace, whichever is less; what the path
    and its buffer do not take is lost, and a share of the rest at random.
    """

    def __init__(
        self, rate: float, rtt_s: float, loss: float = 0.0, buffer_products: float = 1.0
    ) -> None:
        self.rate, self.rtt_s, self.loss = rate, rtt_s, loss
        self.buffer = buffer_products * rate * rtt_s
        self.rtt = RttEstimator()
        self.rtt.add_sample(rtt_s, 0.0, 0.0)
        self.congestion = Congestion(1472, self.rtt)
        self.now, self.delivered, self.burst, self.queue, self.rival = 0.0, 0, 1, 0.0, 0.0
        self.modes: set[Mode] = set()
        self._ack(False)

    def _ack(self, limited: bool) -> None:
        delay_s = self.rtt_s + self.queue / self.rate
        self.rtt.add_sample(delay_s, 0.0, self.now)
        in_flight = int(self.queue + self.rate * self.rtt_s)
        self.congestion.on_ack(
            self.delivered, delay_s, self.burst, self.burst + 1, in_flight, limited, self.now
        )
        self.burst += 1
        self.modes.add(self.congestion.mode)

    def step(self, limit: float = float("inf"), *, is_all: bool = True) -> None:
        """One round trip; `limit`: bytes that are sent at most, being all that there is or not."""
        congestion, round_s = self.congestion, self.rtt_s + self.queue / self.rate
        wanted = min(congestion.window_bytes, congestion.pace_bytes_per_s * round_s, limit)
        congestion.on_sent(int(wanted), self.now)
        self.now += round_s
        survived = wanted * (1 - self.loss)
        room = self.rate * round_s
        self.queue = max(0.0, self.queue + survived + self.rival * round_s - room)
        over = max(0.0, self.queue - self.buffer)
        self.queue -= over
        share = survived / (survived + self.rival * round_s) if survived else 0.0
        arrived = min(survived - over * share, room * max(share, 0.01))
        self.delivered += int(arrived)
        congestion.on_loss(int(wanted - survived + over * share))
        self._ack(is_all and limit < congestion.window_bytes)

    def run(self, rounds: int) -> float:
        """Return the rate reached over these rounds."""
        began_at, delivered = self.now, self.delivered
        for _ in range(rounds):
            self.step()
        return (self.delivered - delivered) / (self.now - began_at)


@pytest.mark.parametrize("mbits", [1, 10, 100, 1000])
def test_the_window_finds_the_rate_and_stays_near_twice_the_product(mbits: int) -> None:
    """From a small start the window reaches the path's product and does not run away from it."""
    rate, rtt_s = mbits * 125_000.0, 0.020
    path = Path(rate, rtt_s)
    path.run(60)
    least = MIN_WINDOW_DATAGRAMS * 1472
    assert path.congestion.path.rate_bytes_per_s == pytest.approx(rate, rel=0.05)
    assert rate * rtt_s <= path.congestion.window_bytes <= max(2.6 * rate * rtt_s, 1.1 * least)


@pytest.mark.parametrize("loss", [0.01, 0.1, 0.3])
def test_random_loss_is_made_up_for(loss: float) -> None:
    """What the path loses at whatever rate does not lower the rate at which the rest arrives."""
    path = Path(6_250_000.0, 0.030, loss)
    path.run(100)
    assert path.run(100) >= 0.9 * path.rate
    assert path.congestion.path.random_loss == pytest.approx(loss, abs=0.05)


def test_more_loss_than_is_known_is_doubted_first() -> None:
    """A link turns bad in the middle: an eighth of the rate for half a second, then all of it."""
    path = Path(6_250_000.0, 0.030)
    path.run(60)
    path.loss = 0.3
    path.modes.clear()
    path.run(30)
    assert Mode.YIELDING in path.modes
    path.run(60)
    assert path.run(60) >= 0.9 * 0.7 * path.rate


def test_loss_that_goes_away_when_everybody_yields_is_not_made_up_for() -> None:
    """Overflow that a shared queue makes looks like the path's loss to whoever joined it late."""
    path = Path(6_250_000.0, 0.030)
    path.run(60)
    path.loss = 0.3
    for _ in range(200):
        path.loss = 0.0 if path.congestion.mode is Mode.YIELDING else 0.3
        path.step()
    assert path.congestion.path.random_loss <= 0.02


def test_loss_that_the_sender_causes_is_not_made_up_for() -> None:
    """A shallow buffer or a policer drops what is too much: more of it would be dropped, too."""
    path = Path(6_250_000.0, 0.030, buffer_products=0.02)
    path.run(200)
    assert path.congestion.path.random_loss < 0.03
    assert path.congestion.pace_bytes_per_s <= 1.5 * path.rate


def test_alone_it_never_competes_and_leaves_the_queue_empty() -> None:
    """What a probe queues is drained in the round after."""
    path = Path(6_250_000.0, 0.030, buffer_products=4.0)
    path.run(60)
    path.modes.clear()
    queues = []
    for _ in range(200):
        path.step()
        queues.append(path.queue)
    assert Mode.COMPETING not in path.modes
    assert sorted(queues)[100] <= 0.3 * path.rate * path.rtt_s


def test_beside_who_fills_the_queue_it_competes_and_leaves_off_when_he_is_gone() -> None:
    """A queue that is never empty is somebody else's; an empty one ends that."""
    path = Path(6_250_000.0, 0.030, buffer_products=2.0)
    path.run(60)
    path.rival = 0.6 * path.rate
    path.run(40)
    assert path.congestion.mode is Mode.COMPETING
    path.rival = 0.0
    path.run(400)
    assert path.congestion.mode is not Mode.COMPETING


@pytest.mark.parametrize(("loss", "rounds"), [(0.0, EMPTY_ROUNDS), (0.1, COMPETING_ROUNDS)])
def test_an_empty_queue_that_loses_more_than_the_path_does_may_be_a_full_one(
    loss: float, rounds: int
) -> None:
    """Whose shortest round trip is too long sees no queue, but its loss: he does not leave off.

    Unless it stays so for a whole cycle: then it is the path that loses more than it did.
    """
    path = Path(6_250_000.0, 0.030, buffer_products=2.0)
    path.run(60)
    path.rival = 0.6 * path.rate
    path.run(40)
    path.rival, path.queue, path.loss = 0.0, 0.0, loss
    competed = 0
    while path.congestion.mode is Mode.COMPETING:
        path.step()
        assert path.queue == 0
        competed += 1
    assert competed == rounds


@pytest.mark.parametrize("listens", [True, False])
def test_a_source_that_has_little_to_send_hears_of_an_overflow(
    listens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never fills its window, but a queue that overflows ends its start.

    The burden of proof: when such rounds do not count, it sends for ever as if it had just begun.
    """
    if not listens:
        monkeypatch.setattr(Congestion, "_tells_of_queue", lambda self, lossy, limited: not limited)
    path = Path(3_000_000.0, 0.080)
    path.run(3)
    path.rival = 0.5 * path.rate
    for _ in range(40):
        path.congestion.on_nothing_to_send()
        path.step()
    assert (path.congestion.mode is Mode.STARTING) is not listens


def test_in_competition_a_loss_costs_three_tenths_once_a_round_trip() -> None:
    """As TCP CUBIC's window does, and what was sent before the cut is not counted again."""
    cubic = CubicWindow(100 * 1472, 1472, 0.0)
    cubic.on_loss(0.0)
    assert cubic.window_bytes == pytest.approx(70 * 1472)
    for number in range(1, 200):
        cubic.on_round(0.030, 0.030 * number)
    assert cubic.window_bytes > 100 * 1472


def test_the_shortest_round_trip_is_asked_for_anew_when_it_is_old() -> None:
    """A path that became longer would else look congested for ever."""
    path = Path(6_250_000.0, 0.030)
    path.run(60)
    path.rtt_s = 0.060
    path.run(2000)
    assert path.congestion.path.min_rtt_s == pytest.approx(0.060, rel=0.2)
    assert path.run(100) >= 0.85 * path.rate


def test_half_the_rate_is_noticed_within_some_round_trips() -> None:
    """The largest of the last ten rounds counts, and no more."""
    path = Path(12_500_000.0, 0.030)
    path.run(60)
    path.rate /= 2
    path.run(25)
    assert path.congestion.path.rate_bytes_per_s <= 1.3 * path.rate


def test_rounds_with_nothing_to_send_do_not_lower_the_rate() -> None:
    """An idle sender finds its old window when it has work again."""
    path = Path(1_250_000.0, 0.020)
    path.run(60)
    before = path.congestion.path.rate_bytes_per_s
    for _ in range(50):
        path.step(limit=100.0)
    assert path.congestion.path.rate_bytes_per_s == before


@pytest.mark.parametrize("says_so", [True, False])
def test_pauses_of_the_source_do_not_shrink_the_window(says_so: bool) -> None:
    """A chunk now and then goes out at the path's rate; it would crawl if pauses were counted."""
    path = Path(125_000_000.0, 0.001)
    path.run(60)
    before = path.congestion.path.rate_bytes_per_s
    for _ in range(20):
        path.now += 1.0
        if says_so:
            path.congestion.on_restart(path.burst, path.now)
        path.run(8)
    if says_so:
        assert path.congestion.path.rate_bytes_per_s == pytest.approx(before, rel=0.1)
    else:
        # The burden of proof: without the word of the sender some rounds hold the whole pause.
        assert min(path.congestion.path._samples) < path.rate / 10


def test_bursts_are_a_millisecond_long_and_leave_at_the_pace() -> None:
    """A queue of 25 packets at 10 Mbit/s takes no more."""
    path = Path(1_250_000.0, 0.030)
    path.run(60)
    congestion = path.congestion
    assert congestion.burst_bytes <= 1.3 * 1250
    now, sent = path.now, 0
    for _ in range(100):
        now = max(now, congestion.release_at())
        congestion.on_sent(1472, now)
        sent += 1472
    assert sent / (now - path.now) <= 1.4 * path.rate


def test_who_is_woken_late_catches_up_a_quarter_of_a_round_trip_and_no_more() -> None:
    """Timers are coarse; but a pause must not turn into one long burst."""
    path = Path(12_500_000.0, 0.030)
    path.run(60)
    congestion, now = path.congestion, path.now + 10.0
    sent = 0
    while congestion.release_at() <= now:
        congestion.on_sent(1472, now)
        sent += 1472
    assert sent <= (0.030 / 4 + 0.001) * 1.3 * path.rate + 2 * 1472


@pytest.mark.parametrize("says_so", [True, False])
def test_a_busy_host_does_not_lower_the_rate(says_so: bool) -> None:
    """It was woken so late that it could not keep the pace: that says nothing of the path.

    The burden of proof: without the word of the sender the rate collapses.
    """
    path = Path(6_250_000.0, 0.030, loss=0.3)
    path.run(60)
    for _ in range(100):
        if says_so:
            path.congestion.on_woken(path.congestion.release_at() + 0.020)
        path.step(0.6 * path.congestion.pace_bytes_per_s * path.rtt_s, is_all=False)
    rate = path.congestion.path.rate_bytes_per_s
    assert rate >= 0.8 * 0.7 * path.rate if says_so else rate < 0.3 * path.rate


def test_a_rate_of_gigabits_is_not_paced() -> None:
    """A burst of a millisecond would be longer than any that is laid at once."""
    path = Path(1_250_000_000.0, 0.0005)
    path.run(60)
    path.congestion.on_sent(512 << 10, path.now)
    assert path.congestion.release_at() <= path.now


def test_the_least_window_is_some_datagrams_however_large_they_are() -> None:
    """A jumbo datagram is larger than the usual first window, and one in flight is none."""
    congestion = Congestion(65_507, RttEstimator())
    assert congestion.window_bytes >= MIN_WINDOW_DATAGRAMS * 65_507


def test_acks_that_bring_nothing_teach_nothing() -> None:
    """A keep-alive's ACK, or an attacker's, neither widens the window nor ends the start."""
    congestion = Congestion(1472, RttEstimator())
    first = congestion.window_bytes
    for number in range(2000):
        congestion.on_ack(0, 0.001, number, number + 1, 0, False, float(number))
    assert congestion.window_bytes == first


def test_the_window_has_an_end_whatever_is_claimed() -> None:
    """Bytes that double with every ACK for ever."""
    congestion, claimed = Congestion(1472, RttEstimator()), 1000
    for number in range(200):
        claimed *= 2
        congestion.on_ack(claimed, 0.001, number, number + 1, 0, False, float(number))
    assert congestion.window_bytes <= MAX_WINDOW_BYTES


def test_an_ack_that_was_overtaken_changes_nothing() -> None:
    """A reordered ACK claims less than a later one did."""
    path = Path(1_250_000.0, 0.020)
    path.run(60)
    before = path.congestion.path.rate_bytes_per_s
    path.congestion.on_ack(path.delivered // 2, 0.02, 3, path.burst + 1, 0, False, path.now + 0.02)
    path.run(3)
    assert path.congestion.path.rate_bytes_per_s == pytest.approx(before, rel=0.3)


def test_a_neighbour_that_moved_is_met_like_a_new_one() -> None:
    """What was learnt was of another path."""
    path = Path(125_000_000.0, 0.020)
    path.run(60)
    path.congestion.reset()
    assert path.congestion.is_starting
    assert path.congestion.window_bytes == INITIAL_WINDOW_BYTES
