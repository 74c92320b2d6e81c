"""What a session knows of its path: how fast it delivers, how long it takes, what it loses anyway.

Source: the filters of BBR (draft-ietf-ccwg-bbr); docs/decisions/0011.
"""

from __future__ import annotations

from collections import deque

RATE_WINDOW_ROUNDS = 10
MIN_RTT_WINDOW_S = 10.0
"""A minimum that nothing came near for so long is asked for anew: the path may have changed."""
HOST_SLACK_S = 0.002
"""Two hosts answer each other in batches of up to about this long. At 10 Gbit/s the slack adds
2.5 MB to what may be in flight, at 10 Mbit/s 2.5 kB."""
SAME_RTT_SHARE = 0.01
"""A round trip so little longer than the shortest is as short. Sessions that share a path find a
shorter one at the same time, when one of them makes room, and so ask at the same time next."""
RENEWAL_SHARE = 0.25
"""Of the way to a longer minimum, each time that it was asked for."""
QUEUE_SHARE = 0.125
"""A queue is empty when it delays by no more than this share of the shortest round trip..."""
QUEUE_SLACK_S = 0.002
"""... or by this: what hosts delay by themselves is no queue."""
MAX_RANDOM_LOSS = 0.6
"""More than this is not made up for by sending faster."""
LOSS_MEMORY = 0.75
"""Of what was counted before, each time random loss is measured: about four measurements count."""

VERIFIED_FACTOR = 1.5
VERIFIED_SLACK = 0.01
"""So much more than what was verified is made up for; it differs from moment to moment."""
DOUBTFUL_LOSS = 0.03
"""So much more than that is a reason to verify anew."""
DOUBTED_SHARE = 0.9
"""Of the random loss that is believed on when it could not be measured."""


class PathModel:
    """Windowed maximum of the delivery rate, windowed minimum of the round trip, random loss."""

    def __init__(self) -> None:
        self.rate_bytes_per_s = 0.0
        """Bytes that arrive each second: the largest of the last rounds."""
        self.min_rtt_s = float("inf")
        self.min_rtt_at = float("-inf")
        self.random_loss = 0.0
        """Share of datagrams that is lost without any queue, whatever the rate."""
        self._samples: deque[float] = deque(maxlen=RATE_WINDOW_ROUNDS)
        self.is_loss_doubtful = False
        """More is lost than was ever verified to be the path's own loss."""
        self._loss_limit = VERIFIED_SLACK
        self._lost_bytes = 0.0
        self._counted_bytes = 0.0

    def add_rate(self, sample: float) -> None:
        """Take in the delivery rate of one round, in bytes per second."""
        self._samples.append(sample)
        self.rate_bytes_per_s = max(self._samples)

    def forget_rates_before(self, rounds: int) -> None:
        """The path has become slower: only the last `rounds` rounds say how fast it is."""
        latest = list(self._samples)[-rounds:]
        self._samples.clear()
        self._samples.extend(latest)
        self.rate_bytes_per_s = max(latest, default=0.0)

    def add_rtt(self, rtt_s: float, now: float) -> None:
        """Take in one round trip, less what the neighbour held its answer back."""
        if rtt_s <= self.min_rtt_s * (1 + SAME_RTT_SHARE):
            self.min_rtt_at = now
        if rtt_s < self.min_rtt_s:
            if rtt_s < self.min_rtt_s * (1 - QUEUE_SHARE):
                # There was a queue all the time, and what it lost was not lost at random.
                self._lost_bytes = self._counted_bytes = self.random_loss = 0.0
            self.min_rtt_s = rtt_s

    def renew_min_rtt(self, rtt_s: float, now: float) -> None:
        """The minimum was asked for anew, and this came back: a longer one is believed by steps.

        A path becomes longer now and then; queues of others that hide how short it is are common.
        """
        self.min_rtt_at = now
        self.min_rtt_s = min(rtt_s, self.min_rtt_s + RENEWAL_SHARE * (rtt_s - self.min_rtt_s))

    def is_min_rtt_old(self, now: float) -> bool:
        return now - self.min_rtt_at > MIN_RTT_WINDOW_S

    def add_loss(self, lost_bytes: int, delivered_bytes: int) -> None:
        """Take in what was lost of what was sent too slowly to fill any queue."""
        self._lost_bytes = LOSS_MEMORY * self._lost_bytes + lost_bytes
        self._counted_bytes = LOSS_MEMORY * self._counted_bytes + lost_bytes + delivered_bytes
        if self._counted_bytes:
            measured = self._lost_bytes / self._counted_bytes
            self.is_loss_doubtful = measured > self._loss_limit + DOUBTFUL_LOSS
            self.random_loss = min(measured, self._loss_limit, MAX_RANDOM_LOSS)

    def verify_loss(self, lost_bytes: int, delivered_bytes: int) -> None:
        """Take in what was lost while next to nothing was sent: that is the path's own."""
        share = lost_bytes / max(lost_bytes + delivered_bytes, 1)
        self._loss_limit = VERIFIED_FACTOR * share + VERIFIED_SLACK
        self._lost_bytes = self._counted_bytes = 0.0
        self.random_loss = min(share, MAX_RANDOM_LOSS)
        self.is_loss_doubtful = False

    def dismiss_doubt(self) -> None:
        """What was lost says nothing about the path: count anew."""
        self._lost_bytes = self._counted_bytes = 0.0
        self.is_loss_doubtful = False

    def doubt_loss(self) -> None:
        """Sent slowly, and there is a queue all the same: what is made up for may be too much."""
        self._lost_bytes *= DOUBTED_SHARE
        self.random_loss *= DOUBTED_SHARE

    def is_queue_empty(self, rtt_s: float) -> bool:
        """Tell whether a round whose shortest round trip was `rtt_s` met no queue to speak of."""
        return rtt_s - self.min_rtt_s <= max(QUEUE_SHARE * self.min_rtt_s, QUEUE_SLACK_S)

    @property
    def send_rate_bytes_per_s(self) -> float:
        """What must be sent each second for `rate_bytes_per_s` to arrive."""
        return self.rate_bytes_per_s / (1 - self.random_loss)

    @property
    def product_bytes(self) -> float:
        """Bytes in flight that keep the path busy."""
        if self.min_rtt_s == float("inf"):
            return 0.0
        return self.send_rate_bytes_per_s * (self.min_rtt_s + HOST_SLACK_S)
