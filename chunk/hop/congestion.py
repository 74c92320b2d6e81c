"""How much may be in flight: a window from measured delivery rate and round-trip time.

Loss by itself is not congestion: what counts is the rate at which the receiver says bytes arrive.
The window starts small and doubles each round trip while that rate still grows by a quarter; then
it is twice the rate times the minimum round trip, plus a slack for hosts that work in batches.
A round with much loss puts a ceiling on it, never below that product itself, so that a short queue
is not overrun for ever. A later version paces and competes fairly; its place is this class.

Source: the idea of BBR (draft-ietf-ccwg-bbr), reduced to its window; docs/protocol/hop.md.
"""

from __future__ import annotations

from collections import deque

INITIAL_WINDOW_BYTES = 16 * 1472
MIN_WINDOW_DATAGRAMS = 4
"""Never less in flight, also where a datagram is as large as the initial window."""
MAX_WINDOW_BYTES = 1 << 30
"""Far beyond what any receive buffer takes."""
STEADY_GAIN = 2.0
HOST_SLACK_S = 0.002
"""Two hosts answer each other in batches of up to about this long. At 10 Gbit/s the slack adds
5 MB to the window, at 10 Mbit/s 5 kB."""
GROWTH_FACTOR = 1.25
ROUNDS_WITHOUT_GROWTH = 3
RATE_WINDOW_ROUNDS = 10
LOSS_RATIO = 0.02
"""A round that lost more than this lowers the ceiling; the figure is that of BBRv2."""
CEILING_CUT = 0.85
CEILING_GROWTH = 1.05
BURST_DURATION_S = 0.001
"""One burst is about this long at the estimated rate."""


class DeliveryRateWindow:
    """The window of one session's sending direction.

    Args:
        datagram_bytes: of a full datagram in this session.
    """

    def __init__(self, datagram_bytes: int) -> None:
        self._least_bytes = MIN_WINDOW_DATAGRAMS * datagram_bytes
        self.window_bytes = float(max(INITIAL_WINDOW_BYTES, self._least_bytes))
        self.rate_bytes_per_s = 0.0
        self._samples: deque[float] = deque(maxlen=RATE_WINDOW_ROUNDS)
        self.is_starting = True
        """The window doubles each round trip: every ACK that waits costs as long."""
        self._best = 0.0
        self._rounds_without_growth = 0
        self._round_began_at: float | None = None
        self._round_delivered = 0
        self._delivered = 0
        self._round_lost = 0
        self._ceiling = float("inf")

    def on_loss(self, lost_bytes: int) -> None:
        """Count what was found lost in the present round."""
        self._round_lost += lost_bytes

    def on_restart(self, now: float) -> None:
        """Begin a new round: something is sent and nothing was in flight.

        A round that held the pause would say how fast the source is, not the path; the window of a
        source of one chunk now and then would shrink to what it sends, and its chunks to a crawl.
        """
        if self._round_began_at is not None:
            self._round_began_at, self._round_delivered = now, self._delivered

    def on_ack(self, delivered_bytes: int, minimum_rtt_s: float, limited: bool, now: float) -> None:
        """Take in the receiver's count of arrived bytes.

        Args:
            delivered_bytes: total since the session began.
            limited: the sender had nothing more to send; such a round says little of the path.
        """
        if delivered_bytes < self._delivered:
            return  # overtaken by a later ACK
        self._delivered = delivered_bytes
        if self._round_began_at is None:
            self._round_began_at, self._round_delivered = now, delivered_bytes
            return
        elapsed = now - self._round_began_at
        if elapsed < max(minimum_rtt_s, 0.0005):
            return
        delivered = delivered_bytes - self._round_delivered
        sample = delivered / elapsed
        is_lossy = self._round_lost > LOSS_RATIO * (delivered + self._round_lost)
        self._round_began_at, self._round_delivered, self._round_lost = now, delivered_bytes, 0
        if not delivered or (limited and sample < self.rate_bytes_per_s):
            return
        self._samples.append(sample)
        self.rate_bytes_per_s = max(self._samples)
        product = self.rate_bytes_per_s * (minimum_rtt_s + HOST_SLACK_S)
        if is_lossy:
            self.is_starting = False
            self._ceiling = max(CEILING_CUT * self.window_bytes, product)
        else:
            self._ceiling *= CEILING_GROWTH
        if self.is_starting:
            self._continue_start(sample)
        if not self.is_starting:
            wanted = min(STEADY_GAIN * product, self._ceiling)
            self.window_bytes = min(max(wanted, self._least_bytes), MAX_WINDOW_BYTES)

    def _continue_start(self, sample: float) -> None:
        self.window_bytes = min(2 * self.window_bytes, MAX_WINDOW_BYTES)
        if sample >= self._best * GROWTH_FACTOR:
            self._best = sample
            self._rounds_without_growth = 0
            return
        self._rounds_without_growth += 1
        self.is_starting = self._rounds_without_growth < ROUNDS_WITHOUT_GROWTH

    @property
    def burst_bytes(self) -> float:
        """How many bytes to send in one burst at most."""
        if self.is_starting:
            return max(self.window_bytes / 4, 2 * 1472)
        return max(self.rate_bytes_per_s * BURST_DURATION_S, 2 * 1472)
